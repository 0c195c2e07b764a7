/* softmax {dim}        y = exp(x) / sum(exp(x)) along dim
   log_softmax {dim}    y = x - log(sum(exp(x))) along dim
   scaled_masked_softmax(x, [mask]) {causal} {scale}
                        softmax of scale * x over the last dim, among the
                        positions that are attended to: mask (bool,
                        broadcast to x) is true there, and where causal, key
                        j <= query i + (keys - queries). A row that attends
                        to nothing, or whose scores are all -inf, is zeros.

   Backward reads y alone: x is never needed again, and the kernels write y
   over x. */
#include "graph/op.h"

extern const rp_op rp_op_softmax_grad, rp_op_log_softmax_grad,
    rp_op_scaled_masked_softmax_grad;

static rp_status dim_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  const int64_t dim = rp_int(node, 0, 0);
  if (dim < 0 || dim >= x->rank) {
    char text[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_VALUE, "dim %lld of %s: from 1 to %d",
                        (long long)dim + 1, rp_dims_text(x, text),
                        (int)x->rank);
  }
  *out = *x;
  return RP_OK;
}

/* dy and y, alike. */
static rp_status pair_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *y = rp_in(node, 1);
  if (!rp_type_equal(dy, y)) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "gradient %s %s of a value %s %s",
                        rp_dims_text(dy, a), rp_dtype_name((rp_dtype)dy->dtype),
                        rp_dims_text(y, b), rp_dtype_name((rp_dtype)y->dtype));
  }
  *out = *dy;
  return RP_OK;
}

static rp_status dim_pair_type(const rp_node *node, rp_type *out) {
  const rp_status status = pair_type(node, out);
  return status == RP_OK ? dim_type(node, out) : status;
}

/* Greatest, difference, exponential (about 15), sum, quotient. */
static rp_cost exp_cost(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = 19 * (double)rp_type_count(rp_in(node, 0));
  return cost;
}

static rp_cost grad_cost(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = 4 * (double)rp_type_count(rp_in(node, 0));
  return cost;
}

/* ---- softmax ------------------------------------------------------------ */

/* dx = y (dy - sum(dy y)). */
static void softmax_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *in[2] = {dy[0], rp_output(node, 0)};
  dx[0] = rp_emit(tape, &rp_op_softmax_grad, in, 2, node->ints, 1, NULL, 0);
}

const rp_op rp_op_softmax = {
    .name = "softmax", .inputs = 1, .outputs = 1, .in_place = 1,
    .type = dim_type, .grad = softmax_grad, .cost = exp_cost,
};

static void softmax_grad_decompose(rp_tape *tape, const rp_node *node,
                                   rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *y = rp_input(node, 1);
  rp_tensor *along = rp_sum(tape, rp_mul(tape, dy, y), node->ints, 1, true);
  out[0] = rp_mul(tape, y, rp_sub(tape, dy, along));
}

const rp_op rp_op_softmax_grad = {
    .name = "softmax_grad", .inputs = 2, .outputs = 1, .in_place = 1 | 2,
    .type = dim_pair_type, .decompose = softmax_grad_decompose,
    .cost = grad_cost,
};

/* ---- log_softmax -------------------------------------------------------- */

/* dx = dy - exp(y) sum(dy). */
static void log_softmax_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *in[2] = {dy[0], rp_output(node, 0)};
  dx[0] =
      rp_emit(tape, &rp_op_log_softmax_grad, in, 2, node->ints, 1, NULL, 0);
}

const rp_op rp_op_log_softmax = {
    .name = "log_softmax", .inputs = 1, .outputs = 1, .in_place = 1,
    .type = dim_type, .grad = log_softmax_grad, .cost = exp_cost,
};

static void log_softmax_grad_decompose(rp_tape *tape, const rp_node *node,
                                       rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *y = rp_input(node, 1);
  rp_tensor *total = rp_sum(tape, dy, node->ints, 1, true);
  out[0] = rp_sub(tape, dy, rp_mul(tape, rp_exp(tape, y), total));
}

const rp_op rp_op_log_softmax_grad = {
    .name = "log_softmax_grad", .inputs = 2, .outputs = 1, .in_place = 1 | 2,
    .type = dim_pair_type, .decompose = log_softmax_grad_decompose,
    .cost = exp_cost,
};

/* ---- scaled_masked_softmax ---------------------------------------------- */

static rp_status scores_check(const rp_node *node) {
  const rp_type *x = rp_in(node, 0);
  const int least = rp_int(node, 0, 0) ? 2 : 1;
  if (x->rank >= least) return RP_OK;
  char text[RP_DIMS_TEXT];
  return rp_node_fail(node, RP_SHAPE, "%s has %d dims: at least %d (%s)",
                      rp_dims_text(x, text), (int)x->rank, least,
                      least == 2 ? "queries, keys" : "keys");
}

static rp_status masked_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
  const rp_status status = scores_check(node);
  if (status != RP_OK) return status;
  if (node->n_inputs > 2)
    return rp_node_fail(node, RP_VALUE, "takes scores and one mask, not %d "
                        "tensors", (int)node->n_inputs);
  if (node->n_inputs == 2) {
    const rp_type *mask = rp_in(node, 1);
    if (mask->dtype != RP_BOOL)
      return rp_node_fail(node, RP_DTYPE, "a mask is bool (true: attend), "
                          "not %s; compare to get one",
                          rp_dtype_name((rp_dtype)mask->dtype));
    bool fits = mask->rank <= x->rank;
    for (int k = 1; fits && k <= mask->rank; k++) {
      const int64_t m = mask->dims[mask->rank - k];
      fits = m == 1 || m == x->dims[x->rank - k];
    }
    if (!fits)
      return rp_node_fail(node, RP_SHAPE, "mask %s does not broadcast to %s",
                          rp_dims_text(mask, a), rp_dims_text(x, b));
  }
  *out = *x;
  return RP_OK;
}

/* Half of it, where causal. */
static rp_cost masked_cost(const rp_node *node) {
  rp_cost cost = exp_cost(node);
  if (rp_int(node, 0, 0)) cost.flops /= 2;
  return cost;
}

static rp_cost masked_grad_cost(const rp_node *node) {
  rp_cost cost = grad_cost(node);
  if (rp_int(node, 0, 0)) cost.flops /= 2;
  return cost;
}

/* dx = scale y (dy - sum(dy y)): 0 where y is, so the mask is not read. */
static void masked_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *in[2] = {dy[0], rp_output(node, 0)};
  const int64_t causal = rp_int(node, 0, 0);
  const double scale = rp_real(node, 0, 1);
  dx[0] = rp_emit(tape, &rp_op_scaled_masked_softmax_grad, in, 2, &causal, 1,
                  &scale, 1);
}

const rp_op rp_op_scaled_masked_softmax = {
    .name = "scaled_masked_softmax", .inputs = 1, .outputs = 1,
    .flags = RP_VARIADIC, .in_place = 1,
    .type = masked_type, .grad = masked_grad, .cost = masked_cost,
};

static rp_status masked_pair_type(const rp_node *node, rp_type *out) {
  const rp_status status = pair_type(node, out);
  return status == RP_OK ? scores_check(node) : status;
}

/* {causal} {scale}: where causal, y is 0 past the diagonal and dy does not
   matter there. */
static void masked_grad_decompose(rp_tape *tape, const rp_node *node,
                                  rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *y = rp_input(node, 1);
  const int64_t last = y->type.rank - 1;
  rp_tensor *along = rp_sum(tape, rp_mul(tape, dy, y), &last, 1, true);
  rp_tensor *dx = rp_mul(tape, y, rp_sub(tape, dy, along));
  out[0] = rp_scale(tape, dx, rp_real(node, 0, 1));
}

const rp_op rp_op_scaled_masked_softmax_grad = {
    .name = "scaled_masked_softmax_grad", .inputs = 2, .outputs = 1,
    .in_place = 1 | 2,
    .type = masked_pair_type, .decompose = masked_grad_decompose,
    .cost = masked_grad_cost,
};
