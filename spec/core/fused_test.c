/* The fused kernel by hand: what lies between its parts stays in the workspace
   that it asked for, however many threads there are when it runs. */
#include "kernel.h"

enum { ROWS = 300, COLUMNS = 500 };

/* exp(x * x) - x * x. */
static rp_fusion make_fusion(const rp_type *type) {
  rp_fusion f = {.n = 3, .name = "mul+exp+sub"};
  f.parts[0] = (rp_part){.op = rp_op_find("mul"), .n_in = 2, .in = {0, 0},
                         .type = *type};
  f.parts[1] = (rp_part){.op = rp_op_find("exp"), .n_in = 1, .in = {-1},
                         .type = *type};
  f.parts[2] = (rp_part){.op = rp_op_find("sub"), .n_in = 2, .in = {-2, -1},
                         .type = *type};
  return f;
}

static void run(rp_context *ctx, const rp_op *op, const rp_fusion *fusion,
                const rp_array *x, rp_array *y, int planned, int there) {
  const rp_kernel *row = kernel_of(op, RP_F32);
  rp_kernel_args args = {.in = x, .out = y, .n_in = 1, .n_out = 1,
                         .fusion = fusion, .ctx = ctx};
  int64_t bytes = 0;
  omp_set_num_threads(planned);
  assert_int_equal(row->prepare(&args, &args.state, &bytes), RP_OK);
  args.workspace = guarded_alloc(bytes);
  omp_set_num_threads(there);
  assert_int_equal(row->run(&args), RP_OK);
  guard_check(args.workspace, bytes);
  free(args.workspace);
  row->destroy(args.state);
  guard_check(y->data, rp_type_bytes(&y->type));
}

static void stays_in_the_workspace_that_was_planned(void **state) {
  (void)state;
  const int before = omp_get_max_threads();
  rp_context *ctx = rp_context_new();
  rp_array x = array_random(RP_F32, 2, (int64_t[]){ROWS, COLUMNS}, 1);
  rp_array first = array_like(&x.type), y = array_like(&x.type);
  const rp_fusion fusion = make_fusion(&x.type);
  run(ctx, &rp_op_fused, &fusion, &x, &first, 1, 1);
  static const int counts[][2] = {{1, 4}, {2, 3}, {4, 1}};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    run(ctx, &rp_op_fused, &fusion, &x, &y, counts[i][0], counts[i][1]);
    assert_memory_equal(y.data, first.data, rp_type_bytes(&x.type));
  }
  omp_set_num_threads(before);
  rp_context_free(ctx);
  free(x.data);
  free(y.data);
  free(first.data);
}

static void sum_apart(rp_context *ctx, const rp_array *x, rp_array *y,
                      const int64_t *ints, int32_t n_ints) {
  const rp_kernel *row = kernel_of(rp_op_find("sum"), RP_F32);
  rp_kernel_args args = {.in = x, .out = y, .n_in = 1, .n_out = 1,
                         .ints = ints, .n_ints = n_ints, .ctx = ctx};
  int64_t bytes = 0;
  assert_int_equal(row->prepare(&args, &args.state, &bytes), RP_OK);
  args.workspace = guarded_alloc(bytes);
  assert_int_equal(row->run(&args), RP_OK);
  free(args.workspace);
}

/* The same group, reduced over dims 0, 1 and both: as its value would be. */
static void folds_in_the_workspace_that_was_planned(void **state) {
  (void)state;
  const int before = omp_get_max_threads();
  rp_context *ctx = rp_context_new();
  rp_array x = array_random(RP_F32, 2, (int64_t[]){ROWS, COLUMNS}, 1);
  rp_array value = array_like(&x.type);
  rp_fusion fusion = make_fusion(&x.type);
  run(ctx, &rp_op_fused, &fusion, &x, &value, 1, 1);
  static int64_t dims[][3] = {{0, 0}, {0, 1}, {0}};
  static const int32_t n_ints[] = {2, 2, 1};
  static const int counts[][2] = {{1, 1}, {1, 4}, {2, 3}, {4, 1}};
  for (int d = 0; d < 3; d++) {
    rp_type type = {.dtype = RP_F32, .rank = d < 2 ? 1 : 0};
    type.dims[0] = d == 0 ? COLUMNS : ROWS;
    rp_array wanted = array_like(&type), y = array_like(&type);
    sum_apart(ctx, &value, &wanted, dims[d], n_ints[d]);
    fusion.fold = (rp_part){.op = rp_op_find("sum"), .ints = dims[d],
                            .n_ints = n_ints[d], .n_in = 1, .in = {-3},
                            .type = type};
    fusion.folded = x.type;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
      run(ctx, &rp_op_fused_fold, &fusion, &x, &y, counts[i][0],
          counts[i][1]);
      assert_memory_equal(y.data, wanted.data, rp_type_bytes(&type));
    }
    free(wanted.data);
    free(y.data);
  }
  omp_set_num_threads(before);
  rp_context_free(ctx);
  free(x.data);
  free(value.data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stays_in_the_workspace_that_was_planned),
      cmocka_unit_test(folds_in_the_workspace_that_was_planned),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
