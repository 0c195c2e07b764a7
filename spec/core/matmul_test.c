/* matmul and linear: the kernels against sums in f64, over every layout that
   the ops let through; the rules' shapes and words. */
#include "blocks.h"

#include <float.h>
#include <math.h>

#include "exec/product.h"
#include "graph/op.h"

extern const rp_kernel_table rp_cpu_matmul;
extern const rp_op rp_op_matmul, rp_op_linear;

static double value(const rp_array *x, int64_t at) {
  return x->type.dtype == RP_F32 ? ((const float *)x->data)[at]
                                 : ((const double *)x->data)[at];
}

/* ---- a product in words ------------------------------------------------- */

typedef enum layout {
  ROWS,         /* row after row */
  COLUMNS,      /* column after column: a transposed view */
  PADDED_ROWS,  /* a narrowed view: a gap after each row */
  PADDED_COLUMNS,
  HEADS         /* (B, H, T, D) seen through (B, T, H, D) */
} layout;

typedef struct problem {
  int rank;
  int64_t a[RP_RANK], b[RP_RANK]; /* dims, of `rank` each; 1 broadcasts */
  layout a_layout, b_layout;
  uint32_t a_expanded, b_expanded; /* bit i: batch dim i has stride 0 */
} problem;

/* Dims as asked for, memory as the layout says; dims in `expanded` take no
   memory. */
static block operand(rp_dtype dtype, int rank, const int64_t *dims,
                     layout layout, uint32_t expanded, int shift,
                     uint64_t seed) {
  int64_t strides[RP_RANK];
  const int64_t rows = dims[rank - 2], columns = dims[rank - 1];
  const bool by_columns = layout == COLUMNS || layout == PADDED_COLUMNS;
  const int64_t gap =
      layout == PADDED_ROWS || layout == PADDED_COLUMNS ? 5 : 0;
  strides[rank - 2] = by_columns ? 1 : columns + gap;
  strides[rank - 1] = by_columns ? rows + gap : 1;
  int64_t elements =
      by_columns ? columns * (rows + gap) : rows * (columns + gap);
  int first = rank - 3;
  if (layout == HEADS) {
    strides[rank - 3] = columns;
    strides[rank - 2] = dims[rank - 3] * columns;
    elements = rows * strides[rank - 2];
    first = rank - 4;
  }
  for (int i = first; i >= 0; i--) {
    const bool repeated = expanded >> i & 1u;
    strides[i] = repeated ? 0 : elements;
    elements *= repeated ? 1 : dims[i];
  }
  block x = block_new(dtype, elements, shift, seed);
  x.array.type = type_of(dtype, rank, dims);
  memcpy(x.array.strides, strides, sizeof strides);
  return x;
}

static rp_type product_type(rp_dtype dtype, const problem *p) {
  rp_type y = type_of(dtype, p->rank, p->a);
  for (int i = 0; i < p->rank - 2; i++)
    if (p->a[i] == 1) y.dims[i] = p->b[i];
  y.dims[p->rank - 1] = p->b[p->rank - 1];
  return y;
}

static int64_t step(const rp_array *x, int dim) {
  return x->type.dims[dim] == 1 ? 0 : x->strides[dim];
}

/* Each y against the sum in f64. A sum of k products in any order is off by
   at most k roundings, relative to the sum of their sizes; one more is for
   the bias. */
static void assert_product(const rp_array *a, const rp_array *b,
                           const rp_array *bias, const rp_array *y) {
  const double unit =
      y->type.dtype == RP_F32 ? FLT_EPSILON / 2 : DBL_EPSILON / 2;
  const int r = y->type.rank;
  const int64_t k = a->type.dims[r - 1], n = rp_type_count(&y->type);
  for (int64_t e = 0; e < n; e++) {
    int64_t rest = e, index[RP_RANK], at_a = 0, at_b = 0;
    for (int i = r - 1; i >= 0; i--) {
      index[i] = rest % y->type.dims[i];
      rest /= y->type.dims[i];
    }
    for (int i = 0; i < r - 1; i++) at_a += index[i] * step(a, i);
    for (int i = 0; i < r - 2; i++) at_b += index[i] * step(b, i);
    at_b += index[r - 1] * step(b, r - 1);
    double sum = bias ? value(bias, index[r - 1]) : 0, size = fabs(sum);
    for (int64_t l = 0; l < k; l++) {
      const double term = value(a, at_a + l * step(a, r - 1)) *
                          value(b, at_b + l * step(b, r - 2));
      sum += term;
      size += fabs(term);
    }
    const double bound = (double)(k + 2) * unit * size;
    if (!(fabs(value(y, e) - sum) <= bound))
      fail_msg("element %lld: %.17g, not %.17g", (long long)e, value(y, e),
               sum);
  }
}

static void run_matmul(rp_context *ctx, const rp_array *a, const rp_array *b,
                       const rp_array *y) {
  const rp_array in[2] = {*a, *b};
  const rp_kernel *row =
      row_of(&rp_cpu_matmul, &rp_op_matmul, (rp_dtype)a->type.dtype);
  const rp_status status = kernel_run(
      row, ctx, (rp_kernel_args){.in = in, .n_in = 2, .out = y, .n_out = 1});
  if (status != RP_OK) fail_msg("%s", rp_message(ctx));
}

static void check(rp_context *ctx, rp_dtype dtype, const problem *p) {
  block a = operand(dtype, p->rank, p->a, p->a_layout, p->a_expanded, 0, 1);
  block b = operand(dtype, p->rank, p->b, p->b_layout, p->b_expanded, 0, 2);
  const rp_type type = product_type(dtype, p);
  block y = block_of(dtype, type.rank, type.dims, 0, 3);
  run_matmul(ctx, &a.array, &b.array, &y.array);
  assert_product(&a.array, &b.array, NULL, &y.array);
  block_free(&a);
  block_free(&b);
  block_free(&y);
}

/* ---- tests -------------------------------------------------------------- */

static void computes_every_layout(void **state) {
  static const int64_t sizes[][3] = {{1, 1, 1},    {2, 3, 4},   {1, 7, 5},
                                     {6, 1, 9},    {5, 8, 1},   {1, 33, 1},
                                     {17, 64, 33}, {96, 5, 40}, {65, 130, 48}};
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (layout la = ROWS; la <= PADDED_COLUMNS; la++)
        for (layout lb = ROWS; lb <= PADDED_COLUMNS; lb++) {
          const int64_t m = sizes[s][0], k = sizes[s][1], n = sizes[s][2];
          check(*state, dtype, &(problem){2, {m, k}, {k, n}, la, lb, 0, 0});
          check(*state, dtype,
                &(problem){3, {3, m, k}, {3, k, n}, la, lb, 0, 0});
        }
}

static void broadcasts_leading_dims(void **state) {
  static const problem problems[] = {
      {3, {4, 5, 6}, {1, 6, 7}, ROWS, ROWS, 0, 0},
      {3, {4, 5, 6}, {1, 6, 7}, COLUMNS, COLUMNS, 0, 0},
      {3, {1, 5, 6}, {4, 6, 7}, ROWS, COLUMNS, 0, 0},
      {3, {4, 5, 6}, {4, 6, 7}, ROWS, ROWS, 0, 1},
      {3, {4, 5, 6}, {4, 6, 7}, ROWS, ROWS, 1, 0},
      {3, {4, 5, 6}, {4, 6, 7}, ROWS, ROWS, 1, 1},
      {3, {4, 1, 6}, {1, 6, 7}, ROWS, COLUMNS, 0, 0},
      {3, {4, 1, 6}, {1, 6, 7}, PADDED_ROWS, ROWS, 0, 0},
      {4, {2, 3, 5, 6}, {2, 1, 6, 7}, ROWS, ROWS, 0, 0},
      {4, {2, 3, 5, 6}, {1, 3, 6, 7}, ROWS, COLUMNS, 0, 0},
      {4, {2, 1, 5, 6}, {1, 3, 6, 7}, COLUMNS, ROWS, 0, 0},
      {4, {2, 3, 5, 6}, {2, 3, 6, 7}, ROWS, ROWS, 2, 1},
      {4, {2, 3, 5, 6}, {2, 3, 6, 7}, ROWS, ROWS, 1, 3},
      {5, {2, 1, 4, 5, 6}, {1, 3, 1, 6, 7}, ROWS, PADDED_ROWS, 0, 0},
      {6, {2, 1, 2, 3, 5, 6}, {2, 2, 1, 3, 6, 7}, PADDED_COLUMNS, ROWS, 0, 0},
      {8, {2, 1, 2, 1, 2, 1, 5, 6}, {1, 2, 1, 2, 1, 2, 6, 7}, ROWS, COLUMNS,
       0, 0},
  };
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++)
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
      check(*state, dtype, &problems[i]);
}

static void computes_attention_without_copies(void **state) {
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++) {
    check(*state, dtype,
          &(problem){4, {2, 3, 32, 16}, {2, 3, 16, 32}, HEADS, COLUMNS, 0, 0});
    check(*state, dtype,
          &(problem){4, {2, 3, 32, 32}, {2, 3, 32, 16}, ROWS, HEADS, 0, 0});
    check(*state, dtype,
          &(problem){4, {2, 3, 32, 32}, {2, 3, 32, 16}, COLUMNS, HEADS, 0, 0});
  }
}

static void takes_empty_dims(void **state) {
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++) {
    check(*state, dtype, &(problem){2, {0, 3}, {3, 4}, ROWS, ROWS, 0, 0});
    check(*state, dtype, &(problem){2, {2, 3}, {3, 0}, ROWS, ROWS, 0, 0});
    check(*state, dtype, &(problem){2, {2, 0}, {0, 4}, ROWS, COLUMNS, 0, 0});
    check(*state, dtype,
          &(problem){3, {5, 2, 0}, {1, 0, 4}, ROWS, ROWS, 0, 0});
    check(*state, dtype,
          &(problem){3, {0, 2, 3}, {1, 3, 4}, ROWS, ROWS, 0, 0});
  }
}

/* A kernel's bits may not depend on where the planner puts its arrays. */
static void same_bits_wherever_arrays_lie(void **state) {
  static const problem problems[] = {
      {2, {130, 96}, {96, 200}, ROWS, ROWS, 0, 0},
      {2, {130, 96}, {96, 200}, COLUMNS, COLUMNS, 0, 0},
      {2, {130, 96}, {96, 200}, PADDED_ROWS, PADDED_COLUMNS, 0, 0},
      {3, {6, 40, 33}, {6, 33, 65}, ROWS, COLUMNS, 0, 0},
  };
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++)
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
      const problem *p = &problems[i];
      const rp_type type = product_type(dtype, p);
      block first = block_of(dtype, type.rank, type.dims, 0, 3);
      for (int shift = 0; shift <= 64; shift += (int)rp_dtype_size(dtype)) {
        block a = operand(dtype, p->rank, p->a, p->a_layout, 0, shift, 1);
        block b = operand(dtype, p->rank, p->b, p->b_layout, 0, 64 - shift, 2);
        block y = block_of(dtype, type.rank, type.dims, shift, 4);
        block *to = shift ? &y : &first;
        run_matmul(*state, &a.array, &b.array, &to->array);
        if (shift)
          assert_memory_equal(y.array.data, first.array.data, y.size_bytes);
        block_free(&a);
        block_free(&b);
        block_free(&y);
      }
      block_free(&first);
    }
}

static void linear_adds_its_bias(void **state) {
  static const int64_t dims[][4] = {{7}, {5, 7}, {2, 3, 7}, {2, 2, 3, 7}};
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++)
    for (int rank = 1; rank <= 4; rank++)
      for (int biased = 0; biased <= 1; biased++) {
        int64_t y_dims[4];
        memcpy(y_dims, dims[rank - 1], sizeof y_dims);
        y_dims[rank - 1] = 11;
        block x = block_of(dtype, rank, dims[rank - 1], 0, 1);
        block w = block_of(dtype, 2, (int64_t[]){11, 7}, 0, 2);
        block bias = block_of(dtype, 1, (int64_t[]){11}, 0, 3);
        block y = block_of(dtype, rank, y_dims, 0, 4);
        const rp_array in[3] = {x.array, w.array, bias.array};
        const rp_kernel *row = row_of(&rp_cpu_matmul, &rp_op_linear, dtype);
        assert_int_equal(
            kernel_run(row, *state, (rp_kernel_args){.in = in,
                                                     .n_in = 2 + biased,
                                                     .out = &y.array,
                                                     .n_out = 1}),
            RP_OK);
        const int64_t rows = rp_type_count(&y.array.type) / 11;
        rp_array flat_x = x.array, flat_y = y.array, wt = w.array;
        flat_x.type = type_of(dtype, 2, (int64_t[]){rows, 7});
        flat_x.strides[0] = 7, flat_x.strides[1] = 1;
        flat_y.type = type_of(dtype, 2, (int64_t[]){rows, 11});
        wt.type = type_of(dtype, 2, (int64_t[]){7, 11});
        wt.strides[0] = 1, wt.strides[1] = 7;
        assert_product(&flat_x, &wt, biased ? &bias.array : NULL, &flat_y);
        block_free(&x);
        block_free(&w);
        block_free(&bias);
        block_free(&y);
      }
}

/* With k = 0 what is left is the bias. */
static void linear_over_no_features_is_the_bias(void **state) {
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++) {
    block x = block_of(dtype, 2, (int64_t[]){3, 0}, 0, 1);
    block w = block_of(dtype, 2, (int64_t[]){4, 0}, 0, 2);
    block bias = block_of(dtype, 1, (int64_t[]){4}, 0, 3);
    block y = block_of(dtype, 2, (int64_t[]){3, 4}, 0, 4);
    const rp_array in[3] = {x.array, w.array, bias.array};
    const rp_kernel *row = row_of(&rp_cpu_matmul, &rp_op_linear, dtype);
    assert_int_equal(
        kernel_run(row, *state, (rp_kernel_args){.in = in, .n_in = 3,
                                                 .out = &y.array,
                                                 .n_out = 1}),
        RP_OK);
    for (int i = 0; i < 12; i++)
      assert_true(value(&y.array, i) == value(&bias.array, i % 4));
    block_free(&x);
    block_free(&w);
    block_free(&bias);
    block_free(&y);
  }
}

/* A transposed batch of x cannot be flattened: it is a batch for w. */
static void linear_takes_transposed_batches(void **state) {
  enum { B = 3, T = 4, IN = 5, OUT = 6 };
  for (rp_dtype dtype = RP_F32; dtype <= RP_F64; dtype++) {
    block x = block_of(dtype, 3, (int64_t[]){T, B, IN}, 0, 1);
    block w = block_of(dtype, 2, (int64_t[]){OUT, IN}, 0, 2);
    block y = block_of(dtype, 3, (int64_t[]){B, T, OUT}, 0, 4);
    x.array.type = type_of(dtype, 3, (int64_t[]){B, T, IN});
    x.array.strides[0] = IN, x.array.strides[1] = B * IN;
    const rp_array in[2] = {x.array, w.array};
    const rp_kernel *row = row_of(&rp_cpu_matmul, &rp_op_linear, dtype);
    assert_int_equal(
        kernel_run(row, *state, (rp_kernel_args){.in = in, .n_in = 2,
                                                 .out = &y.array,
                                                 .n_out = 1}),
        RP_OK);
    rp_array wt = w.array;
    wt.type = type_of(dtype, 3, (int64_t[]){1, IN, OUT});
    wt.strides[0] = IN * OUT, wt.strides[1] = 1, wt.strides[2] = IN;
    assert_product(&x.array, &wt, NULL, &y.array);
    block_free(&x);
    block_free(&w);
    block_free(&y);
  }
}

static rp_product product_of(int rank, const int64_t *a, const int64_t *b,
                             layout a_layout, layout b_layout) {
  problem p = {.rank = rank};
  memcpy(p.a, a, (size_t)rank * sizeof *a);
  memcpy(p.b, b, (size_t)rank * sizeof *b);
  block x = operand(RP_F32, rank, a, a_layout, 0, 0, 1);
  block w = operand(RP_F32, rank, b, b_layout, 0, 0, 1);
  const rp_type type = product_type(RP_F32, &p);
  block y = block_of(RP_F32, type.rank, type.dims, 0, 1);
  const rp_product product = rp_product_from(&x.array, &w.array, &y.array);
  block_free(&x);
  block_free(&w);
  block_free(&y);
  return product;
}

static void finds_the_fewest_dims(void **state) {
  (void)state;
  /* One weight for a batch of rows: a 2-D product over all rows. */
  rp_product p = product_of(4, (int64_t[]){2, 3, 5, 7},
                            (int64_t[]){1, 1, 7, 11}, ROWS, COLUMNS);
  assert_int_equal(p.n_batch, 0);
  assert_int_equal(p.m, 30);
  assert_int_equal(p.b[0], 1);
  assert_int_equal(p.b[1], 7);
  /* Contiguous batches are one dim, */
  p = product_of(4, (int64_t[]){2, 3, 5, 7}, (int64_t[]){2, 3, 7, 11}, ROWS,
                 COLUMNS);
  assert_int_equal(p.n_batch, 1);
  assert_int_equal(p.batch[0].count, 6);
  /* heads of a (B, T, H, D) array are not, */
  p = product_of(4, (int64_t[]){2, 3, 5, 7}, (int64_t[]){2, 3, 7, 5}, HEADS,
                 COLUMNS);
  assert_int_equal(p.n_batch, 2);
  /* nor is a broadcast between two that move. */
  p = product_of(4, (int64_t[]){2, 3, 5, 7}, (int64_t[]){2, 1, 7, 11}, ROWS,
                 ROWS);
  assert_int_equal(p.n_batch, 1);
  assert_int_equal(p.batch[0].count, 2);
  assert_int_equal(p.m, 15);
}

static void says_when_memory_is_refused(void **state) {
  rp_context *ctx = *state;
  block a = block_of(RP_F32, 2, (int64_t[]){2, 3}, 0, 1);
  block b = block_of(RP_F32, 2, (int64_t[]){3, 4}, 0, 2);
  block y = block_of(RP_F32, 2, (int64_t[]){2, 4}, 0, 3);
  const rp_array in[2] = {a.array, b.array};
  const rp_kernel *row = row_of(&rp_cpu_matmul, &rp_op_matmul, RP_F32);
  rp_memory_fail_at(ctx, 1);
  assert_int_equal(
      kernel_run(row, ctx, (rp_kernel_args){.in = in, .n_in = 2,
                                            .out = &y.array, .n_out = 1}),
      RP_NOMEM);
  rp_memory_fail_at(ctx, 0);
  block_free(&a);
  block_free(&b);
  block_free(&y);
}

/* ---- the rules ---------------------------------------------------------- */

static rp_tensor *leaf(rp_context *ctx, rp_dtype dtype, int rank,
                       const int64_t *dims) {
  const rp_type type = type_of(dtype, rank, dims);
  rp_tensor *t = rp_leaf(ctx, RP_PARAMETER, &type);
  assert_non_null(t);
  return t;
}

static void assert_refused(rp_context *ctx, const rp_op *op, rp_tensor **in,
                           int n, rp_status status, const char *message) {
  rp_tensor *y = rp_record(ctx, op, in, n, NULL, 0, NULL, 0);
  assert_null(y);
  assert_int_equal(rp_last_status(ctx), status);
  assert_string_equal(rp_message(ctx), message);
}

static void names_what_does_not_fit(void **state) {
  rp_context *ctx = *state;
  rp_tensor *a = leaf(ctx, RP_F32, 2, (int64_t[]){2, 3});
  rp_tensor *b = leaf(ctx, RP_F32, 2, (int64_t[]){4, 5});
  rp_tensor *c = leaf(ctx, RP_F32, 3, (int64_t[]){7, 4, 3});
  rp_tensor *d = leaf(ctx, RP_F64, 2, (int64_t[]){3, 4});
  rp_tensor *e = leaf(ctx, RP_F32, 3, (int64_t[]){6, 3, 4});
  rp_tensor *v = leaf(ctx, RP_F32, 1, (int64_t[]){3});
  assert_refused(ctx, &rp_op_matmul, (rp_tensor *[]){a, b}, 2, RP_SHAPE,
                 "[matmul] (2,3) x (4,5): inner dimensions 3 and 4 differ");
  assert_refused(ctx, &rp_op_matmul, (rp_tensor *[]){a, a}, 2, RP_SHAPE,
                 "[matmul] (2,3) x (2,3): inner dimensions 3 and 2 differ; "
                 "did you mean a:matmul(b:t())?");
  assert_refused(ctx, &rp_op_matmul, (rp_tensor *[]){a, c}, 2, RP_SHAPE,
                 "[matmul] (2,3) x (7,4,3): inner dimensions 3 and 4 differ; "
                 "did you mean a:matmul(b:transpose(-2, -1))?");
  assert_refused(ctx, &rp_op_matmul, (rp_tensor *[]){a, d}, 2, RP_DTYPE,
                 "[matmul] f32 and f64 differ; cast one with :to'f32'");
  assert_refused(ctx, &rp_op_matmul, (rp_tensor *[]){c, e}, 2, RP_SHAPE,
                 "[matmul] (7,4,3) x (6,3,4): leading dims 7 and 6 differ");
  assert_refused(ctx, &rp_op_matmul, (rp_tensor *[]){a, v}, 2, RP_SHAPE,
                 "[matmul] (2,3) x (3): both need at least 2 dims");
  assert_refused(ctx, &rp_op_linear, (rp_tensor *[]){a, b}, 2, RP_SHAPE,
                 "[linear] x (2,3), weight (4,5): x has 3 features, the "
                 "weight takes 5");
  assert_refused(ctx, &rp_op_linear, (rp_tensor *[]){a, a, v}, 3, RP_SHAPE,
                 "[linear] bias (3), weight (2,3): needs a bias (2)");
  rp_tensor *all[] = {a, b, c, d, e, v};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    rp_tensor_release(all[i]);
}

/* ---- gradients ---------------------------------------------------------- */

/* A leaf with bytes of noise, and the same as a block. */
static rp_tensor *noise_leaf(rp_context *ctx, int rank, const int64_t *dims,
                             uint64_t seed, block *copy) {
  rp_tensor *t = leaf(ctx, RP_F64, rank, dims);
  *copy = block_of(RP_F64, rank, dims, 0, seed);
  assert_int_equal(
      rp_leaf_write(t, copy->array.data, (size_t)copy->size_bytes), RP_OK);
  return t;
}

static block read(rp_tensor *t) {
  const rp_type *type = rp_tensor_type(t);
  block x = block_of((rp_dtype)type->dtype, type->rank, type->dims, 0, 9);
  if (rp_tensor_read(t, x.array.data, (size_t)x.size_bytes) != RP_OK)
    fail_msg("%s", rp_message(rp_tensor_context(t)));
  return x;
}

/* y is linear in each factor, so for every v: d_x . v is d_y . y with v in
   x's place. Here is the latter. */
static double along(rp_context *ctx, const rp_op *op, rp_tensor **in, int n,
                    int which, rp_tensor *v, const block *dy) {
  rp_tensor *moved[3];
  for (int i = 0; i < n; i++) moved[i] = i == which ? v : in[i];
  rp_tensor *y = rp_record(ctx, op, moved, n, NULL, 0, NULL, 0);
  assert_non_null(y);
  block value_y = read(y);
  double sum = 0;
  for (int64_t i = 0; i < rp_type_count(&value_y.array.type); i++)
    sum += value(&value_y.array, i) * value(&dy->array, i);
  block_free(&value_y);
  rp_tensor_release(y);
  return sum;
}

static void check_gradient(rp_context *ctx, const rp_op *op, int n,
                           rp_tensor **in) {
  rp_tensor *y = rp_record(ctx, op, in, n, NULL, 0, NULL, 0);
  assert_non_null(y);
  block dy_values;
  rp_tensor *dy = noise_leaf(ctx, rp_tensor_type(y)->rank,
                             rp_tensor_type(y)->dims, 77, &dy_values);
  rp_tensor *dx[3];
  assert_int_equal(rp_grad(y, dy, in, n, dx), RP_OK);
  for (int i = 0; i < n; i++) {
    const rp_type *type = rp_tensor_type(in[i]);
    assert_true(rp_type_equal(type, rp_tensor_type(dx[i])));
    if (i == 2) continue; /* y is not linear, but affine, in the bias */
    block v_values, dx_values = read(dx[i]);
    rp_tensor *v = noise_leaf(ctx, type->rank, type->dims, 78, &v_values);
    double want = along(ctx, op, in, 2, i, v, &dy_values), got = 0;
    for (int64_t e = 0; e < rp_type_count(type); e++)
      got += value(&dx_values.array, e) * value(&v_values.array, e);
    assert_true(fabs(got - want) <= 1e-12 * (1 + fabs(want)));
    block_free(&v_values);
    block_free(&dx_values);
    rp_tensor_release(v);
  }
  if (n == 3) {
    block db = read(dx[2]);
    const int64_t out = rp_type_count(&db.array.type);
    for (int64_t j = 0; j < out; j++) {
      double sum = 0;
      for (int64_t e = j; e < rp_type_count(&dy_values.array.type); e += out)
        sum += value(&dy_values.array, e);
      assert_true(fabs(value(&db.array, j) - sum) <= 1e-12);
    }
    block_free(&db);
  }
  for (int i = 0; i < n; i++) rp_tensor_release(dx[i]);
  block_free(&dy_values);
  rp_tensor_release(dy);
  rp_tensor_release(y);
}

static void gradients_are_adjoint(void **state) {
  rp_context *ctx = *state;
  static const struct {
    const rp_op *op;
    int rank_a, rank_b;
    int64_t a[4], b[4], bias;
  } cases[] = {
      {&rp_op_matmul, 2, 2, {3, 4}, {4, 5}, 0},
      {&rp_op_matmul, 3, 3, {2, 3, 4}, {2, 4, 5}, 0},
      {&rp_op_matmul, 3, 2, {2, 3, 4}, {4, 5}, 0},
      {&rp_op_matmul, 4, 4, {2, 3, 3, 4}, {1, 1, 4, 5}, 0},
      {&rp_op_matmul, 4, 4, {2, 1, 3, 4}, {1, 3, 4, 5}, 0},
      {&rp_op_matmul, 2, 3, {3, 4}, {2, 4, 5}, 0},
      {&rp_op_matmul, 2, 3, {3, 4}, {1, 4, 5}, 0},
      {&rp_op_matmul, 4, 3, {2, 3, 3, 4}, {3, 4, 5}, 0},
      {&rp_op_matmul, 3, 2, {2, 0, 4}, {4, 5}, 0},
      {&rp_op_linear, 1, 2, {4}, {5, 4}, 0},
      {&rp_op_linear, 1, 2, {4}, {5, 4}, 5},
      {&rp_op_linear, 2, 2, {3, 4}, {5, 4}, 5},
      {&rp_op_linear, 4, 2, {2, 3, 1, 4}, {5, 4}, 5},
  };
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    block a, b, bias;
    rp_tensor *in[3] = {
        noise_leaf(ctx, cases[c].rank_a, cases[c].a, 1, &a),
        noise_leaf(ctx, cases[c].rank_b, cases[c].b, 2, &b),
        noise_leaf(ctx, 1, &cases[c].bias, 3, &bias)};
    check_gradient(ctx, cases[c].op, cases[c].bias ? 3 : 2, in);
    for (int i = 0; i < 3; i++) rp_tensor_release(in[i]);
    block_free(&a);
    block_free(&b);
    block_free(&bias);
  }
}

/* The gradient of one matrix for a whole batch is one product over all rows:
   nothing of the size of a batch of matrices is made. */
static void weights_gradient_is_one_product(void **state) {
  rp_context *ctx = *state;
  rp_tensor *x = leaf(ctx, RP_F32, 3, (int64_t[]){8, 16, 4});
  rp_tensor *w = leaf(ctx, RP_F32, 2, (int64_t[]){4, 5});
  rp_tensor *dy = leaf(ctx, RP_F32, 3, (int64_t[]){8, 16, 5});
  rp_tensor *in[2] = {x, w}, *dw = NULL;
  rp_tensor *y = rp_record(ctx, &rp_op_matmul, in, 2, NULL, 0, NULL, 0);
  assert_int_equal(rp_grad(y, dy, &w, 1, &dw), RP_OK);
  assert_ptr_equal(rp_tensor_op(dw), &rp_op_matmul);
  assert_int_equal(dw->node->inputs[0]->type.rank, 2);
  assert_int_equal(dw->node->inputs[0]->type.dims[1], 128);
  /* Both factors are the leaves' own bytes. */
  assert_ptr_equal(dw->node->inputs[0]->root, x);
  assert_ptr_equal(dw->node->inputs[1]->root, dy);
  rp_tensor *all[] = {x, w, dy, dw, y};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    rp_tensor_release(all[i]);
}

static int setup(void **state) {
  *state = rp_context_new();
  return *state == NULL;
}

static int teardown(void **state) {
  rp_context_free(*state);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finds_the_fewest_dims),
      cmocka_unit_test(computes_every_layout),
      cmocka_unit_test(broadcasts_leading_dims),
      cmocka_unit_test(computes_attention_without_copies),
      cmocka_unit_test(takes_empty_dims),
      cmocka_unit_test(same_bits_wherever_arrays_lie),
      cmocka_unit_test(linear_adds_its_bias),
      cmocka_unit_test(linear_over_no_features_is_the_bias),
      cmocka_unit_test(linear_takes_transposed_batches),
      cmocka_unit_test(says_when_memory_is_refused),
      cmocka_unit_test(names_what_does_not_fit),
      cmocka_unit_test(gradients_are_adjoint),
      cmocka_unit_test(weights_gradient_is_one_product),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
