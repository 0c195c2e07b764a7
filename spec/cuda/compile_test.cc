/* What fused nodes say when their source does not compile. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cases.h"
#include "compare.h"
#include "opened.h"

static int failures;

static void check(bool holds, const char *what) {
  if (holds) return;
  printf("not ok: %s\n", what);
  failures++;
}

/* x through an op that scalar.h has no function for. */
static rp_status prepare(rp_context *ctx, int64_t n) {
  rp_fusion fusion = {};
  rp_type type = {};
  type.rank = 1;
  type.dims[0] = n;
  fusion.n = 1;
  fusion.parts[0].op = rp_op_find("softmax");
  fusion.parts[0].n_in = 1;
  fusion.parts[0].type = type;
  strcpy(fusion.name, "softmax+odd");
  const rp_array x = cases::array_like(&type, nullptr);
  rp_kernel_args args = {};
  args.in = args.out = &x;
  args.n_in = args.n_out = 1;
  args.fusion = &fusion;
  args.device = open_device();
  args.ctx = ctx;
  const rp_kernel *row = cases::cuda_row("fused", RP_F32);
  int64_t bytes = -1;
  const rp_status status = row->prepare(&args, &args.state, &bytes);
  if (args.state) row->destroy(args.state);
  check(bytes == 0, "it needs no workspace");
  return status;
}

int main() {
  if (!has_device()) {
    printf("skipped: no CUDA device\n");
    return 77;
  }
  rp_context *ctx = rp_context_new();
  check(prepare(ctx, 5) == RP_INTERNAL, "RP_INTERNAL where NVRTC refuses");
  const char *message = rp_message(ctx);
  check(strncmp(message, "[fused] softmax+odd: NVRTC: ", 28) == 0,
        "the message begins with the node's name");
  check(strstr(message + 28, "fused.cu") != nullptr,
        "it has the log's first line");
  check(strchr(message, '\n') == nullptr, "and no other line");
  if (failures) printf("%s\n", message);
  check(prepare(ctx, 0) == RP_OK, "nothing is compiled for no elements");
  rp_context_free(ctx);
  if (failures == 0) printf("compile: all passed\n");
  return failures != 0;
}
