/* Every row of the CPU's against CUDA's: equal inputs, values within NMSE of
   1e-7 (f32), 1e-14 (f64), 1e-3 (bf16), integers and bools exactly; nothing
   written but outputs and workspace; the same bits again, from a recording,
   and over an input where the op allows that.

     ops_test              all ops; the last line lists rows that are missing
     ops_test matmul sum   these alone
     ops_test -v ...       with a line a case
     ops_test --share 1/2  every second op, from the second on
     ops_test --brief ...  every third case of the rows with many, and a case
                           runs again in one other way, not in two
     ops_test --table ...  no CUDA row is run, but every case by the CPU

   Rows that are missing are a failure where RP_CUDA_COMPLETE is set. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "compare.h"
#include "opened.h"
#include "totals.h"

namespace {

enum { SKIPPED = 77, FEW = 6 };

struct counts {
  int cases = 0, failures = 0;
  int right = 0, wrong = 0; /* rows */
  std::map<std::string, std::string> missing; /* op: its dtypes */
};

bool verbose, table_alone, brief;

/* Case n of its row. */
std::string check_case(cases::book &book, const cases::call &c, int n) {
  if (!table_alone)
    return cases::compare(book, open_device(), c, brief ? 1u << n % 2 : 3u);
  std::vector<cases::bytes> out;
  const rp_status status = cases::run_cpu(book, c, out);
  return status == RP_OK ? "" : rp_message(book.context());
}

/* One row; what fails is said. */
void check_row(const std::string &op, rp_dtype dtype, counts &total) {
  const char *name = rp_dtype_name(dtype);
  if (!table_alone && cases::cuda_row(op, dtype) == nullptr) {
    std::string &missing = total.missing[op];
    missing += (missing.empty() ? "" : " ") + std::string(name);
    return;
  }
  cases::book book;
  std::vector<cases::call> all;
  int failures = 0, n = 0, met = 0;
  for (const cases::call &c : book.of(op, dtype)) {
    if (cases::row_dtype(c) != dtype) continue;
    if (brief && met++ >= FEW && met % 3) continue;
    if (verbose) printf("      %s %s%s\n", op.c_str(), name, c.note.c_str());
    fflush(stdout);
    const std::string wrong = check_case(book, c, n);
    n++;
    all.push_back(c);
    if (wrong.empty()) continue;
    failures++;
    printf("not ok %s %s: %s (%s)\n", op.c_str(), name, wrong.c_str(),
           c.note.c_str());
  }
  if (n == 0) {
    failures++;
    printf("not ok %s %s: the table has no case\n", op.c_str(), name);
  }
  if (failures == 0 && !table_alone) {
    const std::string wrong = cases::compare_many(book, open_device(), all);
    if (!wrong.empty()) {
      failures++;
      printf("not ok %s %s, many at once: %s\n", op.c_str(), name,
             wrong.c_str());
    }
  }
  if (failures == 0) printf("ok %s %s, %d cases\n", op.c_str(), name, n);
  failures == 0 ? total.right++ : total.wrong++;
  fflush(stdout);
  total.cases += n;
  total.failures += failures;
}

void check_op(const std::string &op, counts &total) {
  for (int dtype = 0; dtype < RP_DTYPES; dtype++)
    if (cases::cpu_row(op, dtype) || cases::is_made_apart(op, dtype))
      check_row(op, (rp_dtype)dtype, total);
}

/* All ops, or those of a share. */
void check_ops(int share, int shares, counts &total) {
  int op = 0;
  for (int i = 0; i < rp_op_count(); i++) {
    rp_op_info info;
    rp_op_describe(rp_op_at(i), &info);
    if (op++ % shares == share) check_op(info.name, total);
  }
  for (const char *const *u = cases::unregistered; *u; u++)
    if (op++ % shares == share) check_op(*u, total);
}

bool is_op(const char *name) {
  for (const char *const *u = cases::unregistered; *u; u++)
    if (strcmp(*u, name) == 0) return true;
  return rp_op_find(name) != nullptr;
}

} // namespace

int main(int argc, char **argv) {
  counts total;
  int named = 0, share = 0, shares = 1;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--share") == 0 &&
        (i + 1 == argc || sscanf(argv[++i], "%d/%d", &share, &shares) != 2 ||
         share < 0 || share >= shares)) {
      fprintf(stderr, "--share takes 0/2 or 1/2, or the like\n");
      return 1;
    }
    verbose = verbose || strcmp(argv[i], "-v") == 0;
    brief = brief || strcmp(argv[i], "--brief") == 0;
    table_alone = table_alone || strcmp(argv[i], "--table") == 0;
  }
  if (!table_alone && !has_device()) {
    printf("skipped: no CUDA device\n");
    return SKIPPED;
  }
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--share") == 0) i++;
    if (argv[i][0] == '-' || strchr(argv[i], '/')) continue;
    if (!is_op(argv[i])) {
      fprintf(stderr, "%s is no op\n", argv[i]);
      return 1;
    }
    check_op(argv[i], total);
    named++;
  }
  if (named == 0) check_ops(share, shares, total);
  printf("%d cases, %d failures\n", total.cases, total.failures);
  say_totals(total.right, total.wrong);
  const char *before = "missing: ";
  for (const auto &m : total.missing) {
    printf("%s%s (%s)", before, m.first.c_str(), m.second.c_str());
    before = ", ";
  }
  if (!total.missing.empty()) printf("\n");
  const bool complete = getenv("RP_CUDA_COMPLETE") == nullptr ||
                        total.missing.empty();
  return total.failures == 0 && complete ? 0 : 1;
}
