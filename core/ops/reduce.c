/* Reductions. S is the set of dims reduced over, n the product of their
   sizes; x:(d...) gives y: d without S, or with 1s there when keep.

   sum, mean, max, min, logsumexp {keep, dims...}   no dims: over all
   var {keep, correction, dims...}  sum((x - mean)^2) / (n - correction)
   argmax {keep, dim}               i64, first of equals; dim -1: over all,
                                    the position in row-major order
   cumsum {dim, reverse}            y[i] = sum of x[j], j <= i (j >= i)
   sum_to {dims...}                 x summed over what broadcasting dims to
                                    x's would repeat
   sum_squares                      sum of x^2 over all, rank 0
   total_squares (x, ...)           f64: the sum of all inputs' sum_squares, in
                                    order; one dtype; no gradient

   Sums of integers and bools are i64, as PyTorch's. */
#include <string.h>

#include "graph/op.h"

extern const rp_op rp_op_sum, rp_op_mean, rp_op_cumsum;

/* ---- shapes -------------------------------------------------------------- */
/* Attributes from `first` on are dims: the set of them, all of x's when there
   is none. */
static rp_status reduced_set(const rp_node *node, int first, uint32_t *set) {
  const rp_type *x = rp_in(node, 0);
  char text[RP_DIMS_TEXT];
  *set = 0;
  for (int i = first; i < node->n_ints; i++) {
    const int64_t dim = node->ints[i];
    if (dim < 0 || dim >= x->rank)
      return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                          (long long)dim + 1, rp_dims_text(x, text),
                          (int)x->rank);
    if (*set >> dim & 1u)
      return rp_node_fail(node, RP_VALUE, "dim %lld is given twice",
                          (long long)dim + 1);
    *set |= 1u << dim;
  }
  if (*set == 0) *set = (1u << x->rank) - 1;
  return RP_OK;
}

static rp_type reduced_type(const rp_type *x, uint32_t set, bool keep) {
  rp_type y = {.dtype = x->dtype};
  for (int i = 0; i < x->rank; i++) {
    if (!(set >> i & 1u)) y.dims[y.rank++] = x->dims[i];
    else if (keep) y.dims[y.rank++] = 1;
  }
  return y;
}

/* Elements of x for each of y: n. */
static int64_t reduced_count(const rp_type *x, uint32_t set) {
  int64_t n = 1;
  for (int i = 0; i < x->rank; i++)
    if (set >> i & 1u) n *= x->dims[i];
  return n;
}

static rp_status type_over(const rp_node *node, int first, rp_type *out) {
  uint32_t set;
  const rp_status status = reduced_set(node, first, &set);
  if (status == RP_OK)
    *out = reduced_type(rp_in(node, 0), set, rp_int(node, 0, 0) != 0);
  return status;
}

static rp_status fold_type(const rp_node *node, rp_type *out) {
  return type_over(node, 1, out);
}

static rp_status var_type(const rp_node *node, rp_type *out) {
  return type_over(node, 2, out);
}

static rp_dtype sum_dtype(int32_t dtype) {
  return rp_dtype_is_float((rp_dtype)dtype) ? (rp_dtype)dtype : RP_I64;
}

static rp_status sum_type(const rp_node *node, rp_type *out) {
  const rp_status status = type_over(node, 1, out);
  out->dtype = sum_dtype(rp_in(node, 0)->dtype);
  return status;
}

/* The greatest of nothing does not exist. */
static rp_status extreme_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  uint32_t set;
  const rp_status status = reduced_set(node, 1, &set);
  if (status != RP_OK) return status;
  *out = reduced_type(x, set, rp_int(node, 0, 0) != 0);
  if (reduced_count(x, set) == 0 && rp_type_count(out) > 0) {
    char text[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "%s has no element to choose from",
                        rp_dims_text(x, text));
  }
  return RP_OK;
}

static rp_cost cost_per_input(const rp_node *node, double flops) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = flops * (double)rp_type_count(rp_in(node, 0));
  return cost;
}

static rp_cost one_pass_cost(const rp_node *node) {
  return cost_per_input(node, 1);
}

static rp_cost two_pass_cost(const rp_node *node) {
  return cost_per_input(node, 4);
}

/* A comparison, a subtraction, an exponential (about 15), an addition. */
static rp_cost exp_pass_cost(const rp_node *node) {
  return cost_per_input(node, 18);
}

/* ---- gradients ----------------------------------------------------------- */
/* t, of y's dims, with 1s at the reduced dims: broadcasts against x. */
static rp_tensor *kept(rp_tape *tape, const rp_node *node, int first,
                       rp_tensor *t) {
  uint32_t set;
  if (t == NULL || reduced_set(node, first, &set) != RP_OK) return NULL;
  const rp_type like = reduced_type(rp_in(node, 0), set, true);
  return rp_dims_equal(&t->type, &like) ? t : rp_reshape(tape, t, &like);
}

static int64_t node_count(const rp_node *node, int first) {
  uint32_t set;
  if (reduced_set(node, first, &set) != RP_OK) return 0;
  return reduced_count(rp_in(node, 0), set);
}

/* The same reduction's dims, for another op that keeps them. */
static rp_tensor *reduce_kept(rp_tape *tape, const rp_node *node, int first,
                              const rp_op *op, rp_tensor *x) {
  int64_t ints[1 + RP_RANK] = {1};
  const int n_dims = node->n_ints > first ? node->n_ints - first : 0;
  if (n_dims)
    memcpy(ints + 1, node->ints + first, (size_t)n_dims * sizeof *ints);
  return rp_emit(tape, op, &x, 1, ints, 1 + n_dims, NULL, 0);
}

/* dx = dy, repeated. */
static void sum_grad(rp_tape *tape, const rp_node *node,
                     rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_expand(tape, kept(tape, node, 1, dy[0]), rp_in(node, 0));
}

/* dx = dy / n, repeated: scaled before it is. */
static void mean_grad(rp_tape *tape, const rp_node *node,
                      rp_tensor *const *dy, rp_tensor **dx) {
  const double n = (double)node_count(node, 1);
  rp_tensor *share = rp_scale(tape, dy[0], 1 / n);
  dx[0] = rp_expand(tape, kept(tape, node, 1, share), rp_in(node, 0));
}

/* dx = dy / (number of x == y) where x == y: ties share evenly (PyTorch's
   amax), so that the gradient does not depend on the order of elements.
   Reads x and y; an index could not tell ties. */
static void extreme_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0);
  rp_tensor *y = kept(tape, node, 1, rp_output(node, 0));
  rp_tensor *is = rp_cast(tape, rp_binary(tape, "eq", x, y),
                          (rp_dtype)x->type.dtype);
  rp_tensor *ties = reduce_kept(tape, node, 1, &rp_op_sum, is);
  dx[0] = rp_mul(tape, is, rp_div(tape, kept(tape, node, 1, dy[0]), ties));
}

/* dx = 2 dy (x - mean(x)) / (n - correction): the mean is cheaper to take
   again than to keep. */
static void var_grad(rp_tape *tape, const rp_node *node,
                     rp_tensor *const *dy, rp_tensor **dx) {
  const double n = (double)(node_count(node, 2) - rp_int(node, 1, 0));
  rp_tensor *x = rp_input(node, 0);
  rp_tensor *off = rp_sub(tape, x, reduce_kept(tape, node, 2, &rp_op_mean, x));
  rp_tensor *scaled = rp_scale(tape, dy[0], 2 / (n > 0 ? n : 0));
  dx[0] = rp_mul(tape, off, kept(tape, node, 2, scaled));
}

/* dx = dy exp(x - y). */
static void logsumexp_grad(rp_tape *tape, const rp_node *node,
                           rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *y = kept(tape, node, 1, rp_output(node, 0));
  rp_tensor *p = rp_exp(tape, rp_sub(tape, rp_input(node, 0), y));
  dx[0] = rp_mul(tape, p, kept(tape, node, 1, dy[0]));
}

static void sum_to_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_expand(tape, dy[0], rp_in(node, 0));
}

/* dx = 2 dy x. */
static void sum_squares_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_mul(tape, rp_input(node, 0), rp_scale(tape, dy[0], 2));
}

/* The sum from the other end. */
static void cumsum_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  const int64_t ints[2] = {node->ints[0], !rp_int(node, 1, 0)};
  dx[0] = rp_emit(tape, &rp_op_cumsum, dy, 1, ints, 2, NULL, 0);
}

/* ---- records ------------------------------------------------------------- */
const rp_op rp_op_sum = {
    .name = "sum", .inputs = 1, .outputs = 1, .flags = RP_FOLDS,
    .type = sum_type, .grad = sum_grad, .cost = one_pass_cost,
};

const rp_op rp_op_mean = {
    .name = "mean", .inputs = 1, .outputs = 1, .flags = RP_FOLDS,
    .type = fold_type, .grad = mean_grad, .cost = one_pass_cost,
};

const rp_op rp_op_max = {
    .name = "max", .inputs = 1, .outputs = 1, .flags = RP_FOLDS,
    .type = extreme_type, .grad = extreme_grad, .cost = one_pass_cost,
};

const rp_op rp_op_min = {
    .name = "min", .inputs = 1, .outputs = 1, .flags = RP_FOLDS,
    .type = extreme_type, .grad = extreme_grad, .cost = one_pass_cost,
};

const rp_op rp_op_var = {
    .name = "var", .inputs = 1, .outputs = 1,
    .type = var_type, .grad = var_grad, .cost = two_pass_cost,
};

/* log(sum(exp(x))) without overflow. */
const rp_op rp_op_logsumexp = {
    .name = "logsumexp", .inputs = 1, .outputs = 1,
    .type = fold_type, .grad = logsumexp_grad, .cost = exp_pass_cost,
};

static rp_status sum_to_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  const int added = x->rank - node->n_ints;
  bool fits = added >= 0;
  for (int i = 0; fits && i < node->n_ints; i++)
    fits = node->ints[i] == x->dims[added + i] || node->ints[i] == 1;
  rp_type y = {.dtype = x->dtype == RP_BF16 ? RP_F32 : x->dtype};
  y.rank = node->n_ints < RP_RANK ? node->n_ints : RP_RANK;
  memcpy(y.dims, node->ints, (size_t)y.rank * sizeof *y.dims);
  if (!fits) {
    char from[RP_DIMS_TEXT], to[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "%s does not broadcast to %s",
                        rp_dims_text(&y, to), rp_dims_text(x, from));
  }
  *out = y;
  return RP_OK;
}

const rp_op rp_op_sum_to = {
    .name = "sum_to", .inputs = 1, .outputs = 1, .flags = RP_FOLDS,
    .type = sum_to_type, .grad = sum_to_grad, .cost = one_pass_cost,
};

static rp_status sum_squares_type(const rp_node *node, rp_type *out) {
  *out = rp_type_scalar((rp_dtype)rp_in(node, 0)->dtype);
  return RP_OK;
}

static rp_cost sum_squares_cost(const rp_node *node) {
  return cost_per_input(node, 2);
}

const rp_op rp_op_sum_squares = {
    .name = "sum_squares", .inputs = 1, .outputs = 1, .flags = RP_FOLDS,
    .type = sum_squares_type, .grad = sum_squares_grad,
    .cost = sum_squares_cost,
};

static rp_status total_squares_type(const rp_node *node, rp_type *out) {
  *out = rp_type_scalar(RP_F64);
  return rp_type_one_dtype(node);
}

static rp_cost total_squares_cost(const rp_node *node) {
  rp_cost cost = {0};
  for (int i = 0; i < node->n_inputs; i++) {
    cost.flops += 2 * (double)rp_type_count(rp_in(node, i));
    cost.bytes += (double)rp_type_bytes(rp_in(node, i));
  }
  return cost;
}

const rp_op rp_op_total_squares = {
    .name = "total_squares", .inputs = 1, .outputs = 1,
    .flags = RP_VARIADIC | RP_NOT_DIFFERENTIABLE,
    .type = total_squares_type, .cost = total_squares_cost,
};

static rp_status argmax_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  const int64_t dim = rp_int(node, 1, -1);
  char text[RP_DIMS_TEXT];
  if (dim < -1 || dim >= x->rank)
    return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                        (long long)dim + 1, rp_dims_text(x, text),
                        (int)x->rank);
  const uint32_t set = dim < 0 ? (1u << x->rank) - 1 : 1u << dim;
  *out = reduced_type(x, set, rp_int(node, 0, 0) != 0);
  out->dtype = RP_I64;
  if (reduced_count(x, set) == 0 && rp_type_count(out) > 0)
    return rp_node_fail(node, RP_SHAPE, "%s has no element to choose from",
                        rp_dims_text(x, text));
  return RP_OK;
}

const rp_op rp_op_argmax = {
    .name = "argmax", .inputs = 1, .outputs = 1,
    .flags = RP_NOT_DIFFERENTIABLE,
    .type = argmax_type, .cost = one_pass_cost,
};

static rp_status cumsum_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  const int64_t dim = rp_int(node, 0, 0);
  char text[RP_DIMS_TEXT];
  if (dim < 0 || dim >= x->rank)
    return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                        (long long)dim + 1, rp_dims_text(x, text),
                        (int)x->rank);
  *out = *x;
  out->dtype = sum_dtype(x->dtype);
  return RP_OK;
}

const rp_op rp_op_cumsum = {
    .name = "cumsum", .inputs = 1, .outputs = 1, .in_place = 1,
    .type = cumsum_type, .grad = cumsum_grad, .cost = one_pass_cost,
};
