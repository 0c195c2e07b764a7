/* Normalisation of x:(N..., D...) over the trailing dims D that w:(D...) has.

   layer_norm(x, w, b) {} {eps}  mean, rstd:(N...), h = (x - mean) rstd,
                                 y = h w + b, rstd = 1/sqrt(var(x) + eps)
   rms_norm(x, w) {} {eps}       rstd = 1/sqrt(mean(x^2) + eps),
                                 y = x rstd w

   Weights, their gradients and statistics are f32 where x is bf16. eps is
   1e-5 when not given. Outputs are y and the statistics. Backward
   reads x and the statistics: h would be one more array of x's size, y
   instead of x would need w and b to be undone and divides by small
   weights.

   A norm rounds its y to bf16 itself where a cast is behind it; a gradient
   adds to dx what goes around the norm. */
#include "graph/op.h"

extern const rp_op rp_op_layer_norm_grad, rp_op_rms_norm_grad, rp_op_cast,
    rp_op_add;

/* ---- shapes ------------------------------------------------------------- */

/* That of weights and statistics. */
static rp_dtype weight_dtype(const rp_type *x) {
  return x->dtype == RP_BF16 ? RP_F32 : (rp_dtype)x->dtype;
}

static rp_status check_dtype(const rp_node *node, int i) {
  const rp_dtype a = (rp_dtype)rp_in(node, 0)->dtype;
  const rp_dtype b = (rp_dtype)rp_in(node, i)->dtype;
  const rp_dtype wanted = weight_dtype(rp_in(node, 0));
  if (b == wanted) return RP_OK;
  return rp_node_fail(node, RP_DTYPE, "%s and %s differ; cast one with :to'%s'",
                      rp_dtype_name(a), rp_dtype_name(b),
                      rp_dtype_name(wanted));
}

/* Input i is of x's trailing dims; x is input `at`. */
static rp_status check_weight(const rp_node *node, int at, int i) {
  const rp_type *x = rp_in(node, at), *w = rp_in(node, i);
  bool fits = w->rank >= 1 && w->rank <= x->rank;
  for (int k = 1; fits && k <= w->rank; k++)
    fits = w->dims[w->rank - k] == x->dims[x->rank - k];
  if (!fits) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE,
                        "weight or bias %s is not of the last dims of %s",
                        rp_dims_text(w, a), rp_dims_text(x, b));
  }
  return check_dtype(node, i);
}

static rp_type leading(const rp_type *x, const rp_type *w) {
  rp_type n = *x;
  n.rank = x->rank - w->rank;
  n.dtype = weight_dtype(x);
  return n;
}

static rp_status layer_norm_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0), *w = rp_in(node, 1), *b = rp_in(node, 2);
  rp_status status = check_weight(node, 0, 1);
  if (status == RP_OK) status = check_weight(node, 0, 2);
  if (status != RP_OK) return status;
  if (!rp_dims_equal(w, b)) {
    char p[RP_DIMS_TEXT], q[RP_DIMS_TEXT];
    return rp_node_fail(node, RP_SHAPE, "weight %s and bias %s differ",
                        rp_dims_text(w, p), rp_dims_text(b, q));
  }
  out[0] = *x;
  out[1] = out[2] = leading(x, w);
  return RP_OK;
}

static rp_status rms_norm_type(const rp_node *node, rp_type *out) {
  const rp_status status = check_weight(node, 0, 1);
  if (status != RP_OK) return status;
  out[0] = *rp_in(node, 0);
  out[1] = leading(rp_in(node, 0), rp_in(node, 1));
  return RP_OK;
}

/* dy, x, w and the statistics from input 3 on. */
static rp_status grad_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *x = rp_in(node, 1), *w = rp_in(node, 2);
  rp_status status = check_weight(node, 1, 2);
  const rp_type statistic = leading(x, w);
  bool fits = rp_type_equal(dy, x);
  for (int i = 3; fits && i < node->n_inputs; i++)
    fits = rp_type_equal(rp_in(node, i), &statistic);
  if (status == RP_OK && !fits) {
    char a[RP_DIMS_TEXT], b[RP_DIMS_TEXT];
    status = rp_node_fail(node, RP_SHAPE, "gradient %s, statistics or dtypes "
                          "do not belong to %s", rp_dims_text(dy, a),
                          rp_dims_text(x, b));
  }
  if (status != RP_OK) return status;
  out[0] = *x;
  for (int k = 1; k < node->op->outputs; k++) out[k] = *w;
  return RP_OK;
}

static rp_cost cost_per_input(const rp_node *node, int input, double flops) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = flops * (double)rp_type_count(rp_in(node, input));
  return cost;
}

static rp_cost layer_norm_cost(const rp_node *node) {
  return cost_per_input(node, 0, 8);
}
static rp_cost rms_norm_cost(const rp_node *node) {
  return cost_per_input(node, 0, 4);
}
static rp_cost layer_norm_grad_cost(const rp_node *node) {
  return cost_per_input(node, 1, 17);
}
static rp_cost rms_norm_grad_cost(const rp_node *node) {
  return cost_per_input(node, 1, 10);
}

/* ---- rules -------------------------------------------------------------- */

/* A statistic with 1s for D: broadcasts against x. */
static rp_tensor *beside(rp_tape *tape, rp_tensor *statistic, const rp_type *x,
                         const rp_type *w) {
  rp_type like = *x;
  for (int i = x->rank - w->rank; i < x->rank; i++) like.dims[i] = 1;
  return rp_reshape(tape, statistic, &like);
}

/* mean over D, 1s kept. */
static rp_tensor *mean_inner(rp_tape *tape, rp_tensor *t, const rp_type *w) {
  if (t == NULL) return NULL;
  int64_t ints[1 + RP_RANK] = {1};
  for (int i = 0; i < w->rank; i++)
    ints[1 + i] = t->type.rank - w->rank + i;
  return rp_emit(tape, rp_op_find("mean"), &t, 1, ints, 1 + w->rank, NULL, 0);
}

static rp_tensor *sum_of(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return a && b ? rp_add(tape, a, b) : a ? a : b;
}

/* What rstd's gradient g adds to dx: d rstd / dx = -rstd^3 h' / n, where h' is
   x - mean, or x. */
static rp_tensor *through_rstd(rp_tape *tape, rp_tensor *g, rp_tensor *rstd,
                               rp_tensor *centred, const rp_type *x,
                               const rp_type *w) {
  rp_tensor *cube = rp_mul(tape, rp_mul(tape, rstd, rstd), rstd);
  rp_tensor *t = rp_scale(tape, rp_mul(tape, g, cube),
                          -1 / (double)rp_type_count(w));
  return rp_mul(tape, centred, beside(tape, t, x, w));
}

/* ---- with what is behind ------------------------------------------------ */

static bool rounds(const rp_type *in, const rp_type *made,
                   const rp_type *out) {
  return in->dtype == RP_F32 && made->dtype == RP_F32 && out->dtype == RP_BF16;
}
static bool sums(const rp_type *in, const rp_type *made, const rp_type *out) {
  return in->dtype != RP_BF16 && made->dtype == out->dtype;
}

const rp_op rp_op_layer_norm_cast = {
    .name = "layer_norm+cast", .inputs = 3, .outputs = 3,
};
const rp_op rp_op_rms_norm_cast = {
    .name = "rms_norm+cast", .inputs = 2, .outputs = 2,
};
const rp_op rp_op_layer_norm_grad_add = {
    .name = "layer_norm_grad+add", .inputs = 6, .outputs = 3,
    .in_place = 1 | 2 | 1 << 5,
};
const rp_op rp_op_rms_norm_grad_add = {
    .name = "rms_norm_grad+add", .inputs = 5, .outputs = 2,
    .in_place = 1 | 2 | 1 << 4,
};

/* ---- layer_norm --------------------------------------------------------- */

static void layer_norm_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0), *w = rp_input(node, 1);
  rp_tensor *mean = rp_output(node, 1), *rstd = rp_output(node, 2);
  if (dy[0]) {
    rp_tensor *in[5] = {dy[0], x, w, mean, rstd};
    rp_tensor *g = rp_emit(tape, &rp_op_layer_norm_grad, in, 5, NULL, 0, NULL,
                           0);
    dx[0] = g;
    dx[1] = rp_emit_output(tape, g, 1);
    dx[2] = rp_emit_output(tape, g, 2);
  }
  /* Only second derivatives reach the statistics. */
  if (dy[1]) {
    rp_tensor *share =
        rp_scale(tape, dy[1], 1 / (double)rp_type_count(&w->type));
    share = rp_expand(tape, beside(tape, share, &x->type, &w->type), &x->type);
    dx[0] = sum_of(tape, dx[0], share);
  }
  if (dy[2]) {
    rp_tensor *centred =
        rp_sub(tape, x, beside(tape, mean, &x->type, &w->type));
    dx[0] = sum_of(tape, dx[0], through_rstd(tape, dy[2], rstd, centred,
                                             &x->type, &w->type));
  }
}

const rp_op rp_op_layer_norm = {
    .name = "layer_norm", .inputs = 3, .outputs = 3, .in_place = 1,
    .flags = RP_MIXED,
    .type = layer_norm_type, .grad = layer_norm_grad, .cost = layer_norm_cost,
    .ends = {{&rp_op_cast, &rp_op_layer_norm_cast, rounds}},
};

/* g = dy w:  dx = rstd (g - mean(g) - h mean(g h)),
   dw = sum of dy h, db = sum of dy, over N. */
static void layer_norm_grad_decompose(rp_tape *tape, const rp_node *node,
                                      rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *x = rp_input(node, 1),
            *w = rp_input(node, 2);
  const rp_type *d = &w->type;
  rp_tensor *mean = beside(tape, rp_input(node, 3), &x->type, d);
  rp_tensor *rstd = beside(tape, rp_input(node, 4), &x->type, d);
  rp_tensor *h = rp_mul(tape, rp_sub(tape, x, mean), rstd);
  rp_tensor *g = rp_mul(tape, dy, w);
  rp_tensor *along = mean_inner(tape, rp_mul(tape, g, h), d);
  rp_tensor *rest = rp_sub(tape, g, mean_inner(tape, g, d));
  out[0] = rp_mul(tape, rstd, rp_sub(tape, rest, rp_mul(tape, h, along)));
  out[1] = rp_sum_to(tape, rp_mul(tape, dy, h), d);
  out[2] = rp_sum_to(tape, dy, d);
}

const rp_op rp_op_layer_norm_grad = {
    .name = "layer_norm_grad", .inputs = 5, .outputs = 3, .in_place = 1 | 2,
    .type = grad_type, .decompose = layer_norm_grad_decompose,
    .cost = layer_norm_grad_cost,
    .ends = {{&rp_op_add, &rp_op_layer_norm_grad_add, sums}},
};

/* ---- rms_norm ----------------------------------------------------------- */

static void rms_norm_grad(rp_tape *tape, const rp_node *node,
                          rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0), *w = rp_input(node, 1);
  rp_tensor *rstd = rp_output(node, 1);
  if (dy[0]) {
    rp_tensor *in[4] = {dy[0], x, w, rstd};
    rp_tensor *g = rp_emit(tape, &rp_op_rms_norm_grad, in, 4, NULL, 0, NULL,
                           0);
    dx[0] = g;
    dx[1] = rp_emit_output(tape, g, 1);
  }
  if (dy[1])
    dx[0] = sum_of(tape, dx[0], through_rstd(tape, dy[1], rstd, x, &x->type,
                                             &w->type));
}

const rp_op rp_op_rms_norm = {
    .name = "rms_norm", .inputs = 2, .outputs = 2, .in_place = 1,
    .flags = RP_MIXED,
    .type = rms_norm_type, .grad = rms_norm_grad, .cost = rms_norm_cost,
    .ends = {{&rp_op_cast, &rp_op_rms_norm_cast, rounds}},
};

/* g = dy w, h = x rstd:  dx = rstd (g - h mean(g h)), dw = sum of dy h. */
static void rms_norm_grad_decompose(rp_tape *tape, const rp_node *node,
                                    rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *x = rp_input(node, 1),
            *w = rp_input(node, 2);
  const rp_type *d = &w->type;
  rp_tensor *rstd = beside(tape, rp_input(node, 3), &x->type, d);
  rp_tensor *h = rp_mul(tape, x, rstd);
  rp_tensor *g = rp_mul(tape, dy, w);
  rp_tensor *along = mean_inner(tape, rp_mul(tape, g, h), d);
  out[0] = rp_mul(tape, rstd, rp_sub(tape, g, rp_mul(tape, h, along)));
  out[1] = rp_sum_to(tape, rp_mul(tape, dy, h), d);
}

const rp_op rp_op_rms_norm_grad = {
    .name = "rms_norm_grad", .inputs = 4, .outputs = 2, .in_place = 1 | 2,
    .type = grad_type, .decompose = rms_norm_grad_decompose,
    .cost = rms_norm_grad_cost,
    .ends = {{&rp_op_add, &rp_op_rms_norm_grad_add, sums}},
};
