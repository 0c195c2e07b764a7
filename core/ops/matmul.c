/* Matrix products.

   matmul(a, b)          y[..., i, j] = sum_k a[..., i, k] b[..., k, j];
     a:(..., M, K), b:(..., K, N), ranks 2..8, leading dims broadcast.
   linear(x, w[, bias])  y = x w^T + bias;
     x:(..., in), w:(out, in), bias:(out) -> (..., out).

   ints {dtype}: y's, f32 where the operands are bf16; theirs when not given.
   A bias may be f32 beside bf16 operands. Products of bf16 accumulate in f32
   and round once. Operands may be transposed or otherwise strided: what the
   kernels take without a copy is in `accepts`.

   Backward reads both factors, and nothing less would do: da = dy b^T and
   db = a^T dy each need the other one. Transposes are views. Where b stands
   for all of a's leading dims, db is one product over all rows, not a batch
   of products and a sum. The gradient of an f32 value's bf16 copy comes in
   f32: it is never rounded to 8 bits on its way to a weight. The weight's
   gradient comes first: it reads x for the last time, so x is free when dx is
   made. */
#include <string.h>

#include "graph/op.h"

extern const rp_op rp_op_matmul, rp_op_linear, rp_op_gelu_tanh,
    rp_op_gelu_tanh_grad;

/* ---- shared ------------------------------------------------------------- */

static rp_status check_dtypes(const rp_node *node, rp_type *out) {
  const rp_dtype x = (rp_dtype)rp_in(node, 0)->dtype;
  const rp_dtype y = (rp_dtype)rp_int(node, 0, x);
  if (y != x && (x != RP_BF16 || y != RP_F32))
    return rp_node_fail(node, RP_DTYPE, "of %s operands is %s",
                        rp_dtype_name(x), rp_dtype_name(x));
  out->dtype = y;
  for (int i = 1; i < node->n_inputs; i++)
    if (rp_in(node, i)->dtype != rp_in(node, 0)->dtype &&
        !(i == 2 && x == RP_BF16 && rp_in(node, i)->dtype == RP_F32))
      return rp_node_fail_dtypes(node, x, (rp_dtype)rp_in(node, i)->dtype);
  return RP_OK;
}

static int64_t last(const rp_type *type, int back) {
  return type->dims[type->rank - 1 - back];
}

/* Both libraries take matrices row by row or column by column, with any
   distance between rows, and with any distance, 0 too, between matrices. */
static bool matrix_accepts(const rp_tensor *t) {
  const rp_type *type = &t->type;
  const int64_t *s = t->strides.at;
  const int r = type->rank;
  for (int i = 0; i < r - 2; i++)
    if (s[i] < 0) return false;
  const int64_t rows = r > 1 ? type->dims[r - 2] : 1;
  const int64_t columns = type->dims[r - 1];
  const int64_t row = r > 1 ? s[r - 2] : columns, column = s[r - 1];
  if (rows <= 1 && columns <= 1) return true;
  if (rows <= 1) return column >= 1;
  if (columns <= 1) return row >= 1;
  return (column == 1 && row >= columns) || (row == 1 && column >= rows);
}

/* x:(..., n) as (rows, n). */
static rp_tensor *as_rows(rp_tape *tape, rp_tensor *x) {
  if (x == NULL || x->type.rank == 2) return x;
  const int64_t n = last(&x->type, 0);
  rp_type flat = {x->type.dtype, 2, {1, n}};
  for (int i = 0; i < x->type.rank - 1; i++) flat.dims[0] *= x->type.dims[i];
  return rp_reshape(tape, x, &flat);
}

/* a b, the gradient of t. */
static rp_tensor *gradient_of(rp_tape *tape, const rp_tensor *t, rp_tensor *a,
                              rp_tensor *b) {
  if (a == NULL || b == NULL || !rp_is_narrowed(t))
    return rp_matmul(tape, a, b);
  rp_tensor *pair[2] = {a, b};
  const int64_t dtype = RP_F32;
  return rp_emit(tape, &rp_op_matmul, pair, 2, &dtype, 1, NULL, 0);
}

static rp_tensor *matrix_transposed(rp_tape *tape, rp_tensor *x) {
  if (x == NULL) return NULL;
  return rp_transpose(tape, x, x->type.rank - 2, x->type.rank - 1);
}

static rp_cost product_cost(const rp_node *node, double inner) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops *= 2 * inner;
  return cost;
}

/* ---- matmul ------------------------------------------------------------- */

static rp_status matmul_misfit(const rp_node *node) {
  const rp_type *a = rp_in(node, 0), *b = rp_in(node, 1);
  char a_text[RP_DIMS_TEXT], b_text[RP_DIMS_TEXT];
  const char *advice = "";
  if (last(a, 0) == last(b, 0))
    advice = b->rank == 2
                 ? "; did you mean a:matmul(b:t())?"
                 : "; did you mean a:matmul(b:transpose(-2, -1))?";
  return rp_node_fail(
      node, RP_SHAPE, "%s x %s: inner dimensions %lld and %lld differ%s",
      rp_dims_text(a, a_text), rp_dims_text(b, b_text),
      (long long)last(a, 0), (long long)last(b, 1), advice);
}

static rp_status matmul_type(const rp_node *node, rp_type *out) {
  const rp_type *a = rp_in(node, 0), *b = rp_in(node, 1);
  char a_text[RP_DIMS_TEXT], b_text[RP_DIMS_TEXT];
  rp_type y;
  const rp_status status = check_dtypes(node, &y);
  if (status != RP_OK) return status;
  if (a->rank < 2 || b->rank < 2)
    return rp_node_fail(node, RP_SHAPE,
                        "%s x %s: both need at least 2 dims",
                        rp_dims_text(a, a_text), rp_dims_text(b, b_text));
  if (last(a, 0) != last(b, 1)) return matmul_misfit(node);
  *out = a->rank >= b->rank ? *a : *b;
  out->dtype = y.dtype;
  for (int back = 2; back < out->rank; back++) {
    const int64_t m = back < a->rank ? last(a, back) : 1;
    const int64_t n = back < b->rank ? last(b, back) : 1;
    if (m != n && m != 1 && n != 1)
      return rp_node_fail(node, RP_SHAPE,
                          "%s x %s: leading dims %lld and %lld differ",
                          rp_dims_text(a, a_text), rp_dims_text(b, b_text),
                          (long long)m, (long long)n);
    out->dims[out->rank - 1 - back] = m == 1 ? n : m;
  }
  out->dims[out->rank - 2] = last(a, 1);
  out->dims[out->rank - 1] = last(b, 0);
  return RP_OK;
}

static bool matmul_accepts(const rp_node *node, int input) {
  return matrix_accepts(node->inputs[input]);
}

/* All leading dims are 1: one matrix for everything. */
static bool is_one_matrix(const rp_type *type) {
  for (int i = 0; i < type->rank - 2; i++)
    if (type->dims[i] != 1) return false;
  return true;
}

static void matmul_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *a = rp_input(node, 0), *b = rp_input(node, 1);
  rp_tensor *g = rp_cast(tape, dy[0], (rp_dtype)a->type.dtype);
  if (rp_tape_needs(tape, 1)) {
    rp_tensor *db;
    if (is_one_matrix(&b->type) && a->type.rank >= b->type.rank) {
      db = gradient_of(tape, b,
                       matrix_transposed(tape, as_rows(tape, a)),
                       as_rows(tape, g));
      if (b->type.rank > 2) db = rp_reshape(tape, db, &b->type);
    } else {
      db = gradient_of(tape, b, matrix_transposed(tape, a), g);
      db = rp_sum_to(tape, db, &b->type);
    }
    dx[1] = db;
  }
  if (rp_tape_needs(tape, 0))
    dx[0] = rp_sum_to(tape,
                      gradient_of(tape, a, g, matrix_transposed(tape, b)),
                      &a->type);
}

static rp_cost matmul_cost(const rp_node *node) {
  return product_cost(node, (double)last(rp_in(node, 0), 0));
}

static bool has_one_dtype(const rp_type *in, const rp_type *made,
                          const rp_type *out) {
  return in->dtype == made->dtype && made->dtype == out->dtype;
}

/* a, b, x -> gelu_tanh_grad(a b, x), in x's dims. */
const rp_op rp_op_matmul_gelu_tanh_grad = {
    .name = "matmul+gelu_tanh_grad", .inputs = 3, .outputs = 1,
    .flags = RP_STRIDED | RP_COSTLY,
};

const rp_op rp_op_matmul = {
    .name = "matmul", .inputs = 2, .outputs = 1,
    .flags = RP_STRIDED | RP_COSTLY, .narrow = 1 | 2,
    .product = RP_PRODUCT,
    .type = matmul_type, .accepts = matmul_accepts, .grad = matmul_grad,
    .cost = matmul_cost,
    .ends = {{&rp_op_gelu_tanh_grad, &rp_op_matmul_gelu_tanh_grad,
              has_one_dtype, .rows = true}},
};

/* ---- linear ------------------------------------------------------------- */

static rp_status linear_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0), *w = rp_in(node, 1);
  char x_text[RP_DIMS_TEXT], w_text[RP_DIMS_TEXT];
  if (node->n_inputs > 3)
    return rp_node_fail(node, RP_VALUE, "takes x, weight and bias, not %d "
                        "tensors", node->n_inputs);
  rp_type y;
  const rp_status status = check_dtypes(node, &y);
  if (status != RP_OK) return status;
  if (x->rank < 1 || w->rank != 2)
    return rp_node_fail(node, RP_SHAPE,
                        "x %s, weight %s: needs x (..., in) and weight "
                        "(out, in)",
                        rp_dims_text(x, x_text), rp_dims_text(w, w_text));
  if (last(x, 0) != w->dims[1])
    return rp_node_fail(node, RP_SHAPE,
                        "x %s, weight %s: x has %lld features, the weight "
                        "takes %lld",
                        rp_dims_text(x, x_text), rp_dims_text(w, w_text),
                        (long long)last(x, 0), (long long)w->dims[1]);
  if (node->n_inputs > 2) {
    const rp_type *bias = rp_in(node, 2);
    if (bias->rank != 1 || bias->dims[0] != w->dims[0])
      return rp_node_fail(node, RP_SHAPE,
                          "bias %s, weight %s: needs a bias (%lld)",
                          rp_dims_text(bias, x_text), rp_dims_text(w, w_text),
                          (long long)w->dims[0]);
  }
  *out = *x;
  out->dtype = y.dtype;
  out->dims[out->rank - 1] = w->dims[0];
  return RP_OK;
}

static bool linear_accepts(const rp_node *node, int input) {
  const rp_tensor *t = node->inputs[input];
  if (input == 2) return t->type.dims[0] <= 1 || t->strides.at[0] == 1;
  return matrix_accepts(t);
}

/* dbias = sum of dy over all rows, while that is in the cache, dw = dy^T x, then
   dx = dy w. */
static void linear_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0), *w = rp_input(node, 1);
  rp_tensor *rows =
      as_rows(tape, rp_cast(tape, dy[0], (rp_dtype)x->type.dtype));
  if (node->n_inputs > 2 && rp_tape_needs(tape, 2))
    dx[2] = rp_cast(tape, rp_sum_to(tape, dy[0], rp_in(node, 2)),
                    (rp_dtype)rp_in(node, 2)->dtype);
  if (rp_tape_needs(tape, 1))
    dx[1] = gradient_of(tape, w, matrix_transposed(tape, rows),
                        as_rows(tape, x));
  if (rp_tape_needs(tape, 0))
    dx[0] = rp_reshape(tape, gradient_of(tape, x, rows, w),
                       rp_in(node, 0));
}

static rp_cost linear_cost(const rp_node *node) {
  return product_cost(node, (double)last(rp_in(node, 0), 0));
}

/* x, w[, bias] -> y, gelu_tanh(y), or that alone. */
const rp_op rp_op_linear_gelu_tanh = {
    .name = "linear+gelu_tanh", .inputs = 2, .outputs = 2,
    .flags = RP_STRIDED | RP_COSTLY | RP_VARIADIC | RP_MIXED,
};

const rp_op rp_op_linear = {
    .name = "linear", .inputs = 2, .outputs = 1,
    .flags = RP_STRIDED | RP_COSTLY | RP_VARIADIC | RP_MIXED, .narrow = 1 | 2,
    .product = RP_PRODUCT_TRANSPOSED,
    .type = linear_type, .accepts = linear_accepts, .grad = linear_grad,
    .cost = linear_cost,
    .beside = {&rp_op_gelu_tanh, &rp_op_linear_gelu_tanh},
};
