/* Products with what is behind them, which are in no registry and have no row
   of the CPU's. Rows of 8n elements are cuBLASLt's epilogue's where inputs are
   aligned, others the product's and the elementwise op's; one output alone
   needs no such rows. */
#include "writer.h"

namespace cases {
namespace {

rp_tensor *gelu(writer &w, rp_tensor *y) { return w.record("gelu_tanh", {y}); }

void add_linear(writer &w, const tensors &in, const char *note = "") {
  rp_tensor *y = w.record("linear", in);
  w.add_apart(in, {y, gelu(w, y)}, note);
  w.add_apart(in, {gelu(w, y)}, note);
}

void linear(writer &w) {
  struct { dims x; int64_t out; } const some[] = {
      {{1, 1}, 1},     {{5, 7}, 3},   {{7}, 8},        {{2, 9, 16}, 40},
      {{130, 64}, 256}, {{0, 8}, 8},  {{65, 33}, 17},  {{3, 0}, 8},
      {{2, 3, 5, 24}, 8}};
  for (const auto &s : some) {
    const int64_t in = s.x.back();
    add_linear(w, {w.leaf(s.x), w.leaf({s.out, in})});
    add_linear(w, {w.leaf(s.x), w.leaf({s.out, in}), w.leaf({s.out})});
    add_linear(w, {w.leaf(s.x), w.leaf({s.out, in}),
                   w.leaf({s.out}, fill::any, w.wide())});
    add_linear(w, {w.view(lie::offset, s.x), w.view(lie::offset, {s.out, in}),
                   w.view(lie::offset, {s.out})}, "views");
  }
  for (lie how : {lie::transposed, lie::columns})
    add_linear(w, {w.view(how, {65, 32}), w.view(how, {16, 32}),
                   w.leaf({16})}, "views");
  /* Rows that do not follow each other at one distance. */
  add_linear(w, {w.record("permute", {w.leaf({5, 3, 16})}, {1, 0, 2}),
                 w.leaf({24, 16}), w.leaf({24})}, "a batch");
}

/* x's dims are the product's or others with the same rows. */
void add_matmul(writer &w, rp_tensor *a, rp_tensor *b, const dims &as,
                const char *note = "") {
  rp_tensor *y = w.record("matmul", {a, b});
  if (!as.empty()) y = w.record("reshape", {y}, as);
  rp_tensor *x = w.leaf(dims(y->type.dims, y->type.dims + y->type.rank));
  w.add_apart({a, b, x}, {w.record("gelu_tanh_grad", {y, x})}, note);
}

void matmul(writer &w) {
  struct { dims a, b, as; } const some[] = {
      {{1, 1}, {1, 1}, {}},           {{3, 4}, {4, 5}, {}},
      {{33, 65}, {65, 24}, {}},       {{130, 70}, {70, 264}, {}},
      {{12, 16}, {16, 40}, {3, 4, 40}}, {{12, 5}, {5, 3}, {2, 6, 3}},
      {{2, 3, 4}, {2, 4, 8}, {}},     {{2, 3, 4}, {4, 8}, {6, 8}},
      {{3, 4}, {2, 4, 5}, {}},        {{0, 4}, {4, 8}, {}},
      {{3, 0}, {0, 8}, {}},           {{3, 4}, {4, 0}, {}}};
  for (const auto &s : some)
    add_matmul(w, w.leaf(s.a), w.leaf(s.b), s.as);
  for (lie a : {lie::transposed, lie::columns, lie::offset})
    for (lie b : {lie::plain, lie::transposed, lie::columns, lie::offset})
      add_matmul(w, w.view(a, {33, 65}), w.view(b, {65, 16}), {3, 11, 16},
                 "views");
}

} // namespace

bool is_made_apart(const std::string &op, int32_t dtype) {
  return (op == "linear+gelu_tanh" || op == "matmul+gelu_tanh_grad") &&
         dtype == RP_BF16;
}

void write_products(writer &w) {
  w.op == "linear+gelu_tanh" ? linear(w) : matmul(w);
}

} // namespace cases
