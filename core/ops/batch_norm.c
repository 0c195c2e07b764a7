/* Normalisation of x:(N, C, ...) with a weight and a bias a channel, w, b:(C).

   batch_norm(x, w, b[, running_mean, running_var])  {} {eps, momentum}
     over a channel's n values in all of N and the trailing dims:
     mean, var:(C), var = sum of (x - mean)^2 / n,
     h = (x - mean) / sqrt(var + eps), y = h w + b.
     Effects, once however often this runs again:
       running_mean <- (1 - momentum) running_mean + momentum mean
       running_var  <- the same with var n / (n - 1)   (PyTorch's)
   group_norm(x, w, b)  {groups} {eps}
     over each image's group of C / groups channels and the trailing dims:
     mean, rstd:(N, groups), h = (x - mean) rstd, y = h w + b.

   Statistics, weights and their gradients are f32 where x is bf16. eps is
   1e-5, momentum 0.1 when not given. batch_norm gives var and not
   rstd: the running variance is made of it, which 1/rstd^2 - eps would not
   give back where var is small. Backward reads x and the statistics (see
   norm.c: why not y, why not h) and the weight. */
#include "graph/op.h"

extern const rp_op rp_op_batch_norm_grad, rp_op_group_norm_grad, rp_op_add,
    rp_op_relu;

/* ---- shapes ------------------------------------------------------------- */

static int64_t channels_of(const rp_type *x) {
  return x->rank > 1 ? x->dims[1] : 0;
}

/* Values of a channel. */
static int64_t values_of(const rp_type *x) {
  const int64_t channels = channels_of(x);
  return channels ? rp_type_count(x) / channels : 0;
}

/* Of the weights and statistics. */
static int32_t vector_dtype(const rp_type *x) {
  return x->dtype == RP_BF16 ? RP_F32 : x->dtype;
}

static rp_type vector(const rp_type *x) {
  return (rp_type){vector_dtype(x), 1, {channels_of(x)}};
}

/* Inputs `from` to `to` are a value a channel, of x's dtype or f32 beside
   bf16. */
static rp_status check_vectors(const rp_node *node, const rp_type *x, int from,
                               int to) {
  char x_text[RP_DIMS_TEXT], text[RP_DIMS_TEXT];
  if (x->rank < 2 || x->dims[1] < 1)
    return rp_node_fail(node, RP_SHAPE, "%s: needs (batch, channels, ...)",
                        rp_dims_text(x, x_text));
  const rp_type wanted = vector(x);
  for (int i = from; i <= to && i < node->n_inputs; i++) {
    const rp_type *t = rp_in(node, i);
    if (!rp_dims_equal(t, &wanted))
      return rp_node_fail(node, RP_SHAPE, "input %d is %s; x %s has %lld "
                          "channels", i + 1, rp_dims_text(t, text),
                          rp_dims_text(x, x_text),
                          (long long)wanted.dims[0]);
    if (t->dtype != wanted.dtype)
      return rp_node_fail(node, RP_DTYPE,
                          "%s and %s differ; cast one with :to'%s'",
                          rp_dtype_name((rp_dtype)x->dtype),
                          rp_dtype_name((rp_dtype)t->dtype),
                          rp_dtype_name((rp_dtype)wanted.dtype));
  }
  return RP_OK;
}

static rp_status check_like(const rp_node *node, int i, const rp_type *like) {
  char text[RP_DIMS_TEXT], like_text[RP_DIMS_TEXT];
  if (rp_type_equal(rp_in(node, i), like)) return RP_OK;
  return rp_node_fail(node, RP_SHAPE, "input %d is %s, not %s, or of another "
                      "dtype", i + 1, rp_dims_text(rp_in(node, i), text),
                      rp_dims_text(like, like_text));
}

static rp_cost cost_per_value(const rp_node *node, int input, double flops) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = flops * (double)rp_type_count(rp_in(node, input));
  return cost;
}
static rp_cost norm_cost(const rp_node *node) {
  return cost_per_value(node, 0, 8);
}
static rp_cost norm_grad_cost(const rp_node *node) {
  return cost_per_value(node, 1, 14);
}

/* ---- rules -------------------------------------------------------------- */

/* A vector over channels, broadcast against x. */
static rp_tensor *beside(rp_tape *tape, rp_tensor *t, const rp_type *x) {
  rp_type like = *x;
  for (int i = 0; i < x->rank; i++)
    if (i != 1) like.dims[i] = 1;
  return rp_reshape(tape, t, &like);
}

/* Sum over all but channels. */
static rp_tensor *sum_channel(rp_tape *tape, rp_tensor *t) {
  if (t == NULL) return NULL;
  int64_t dims[RP_RANK];
  int n = 0;
  for (int i = 0; i < t->type.rank; i++)
    if (i != 1) dims[n++] = i;
  return rp_sum(tape, t, dims, n, false);
}

static rp_tensor *sum_of(rp_tape *tape, rp_tensor *a, rp_tensor *b) {
  return a && b ? rp_add(tape, a, b) : a ? a : b;
}

/* ---- batch_norm --------------------------------------------------------- */

enum { RUNNING_MEAN = 3, RUNNING_VAR = 4 };

static rp_status batch_norm_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  if (node->n_inputs != 3 && node->n_inputs != 5)
    return rp_node_fail(node, RP_VALUE, "takes x, weight and bias, and both "
                        "running statistics or none, not %d tensors",
                        node->n_inputs);
  const rp_status status = check_vectors(node, x, 1, RUNNING_VAR);
  if (status != RP_OK) return status;
  for (int i = RUNNING_MEAN; i < node->n_inputs; i++)
    if (!rp_is_leaf(rp_input(node, i)))
      return rp_node_fail(node, RP_VALUE, "running statistics are leaves "
                          "(nn.Buffer), this is a recipe");
  if (values_of(x) < 2)
    return rp_node_fail(node, RP_SHAPE, "fewer than two values a channel have "
                        "no variance: a larger batch, or eval mode, is needed");
  out[0] = *x;
  out[1] = out[2] = vector(x);
  return RP_OK;
}

static void batch_norm_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0), *w = rp_input(node, 1);
  rp_tensor *mean = rp_output(node, 1), *var = rp_output(node, 2);
  const double eps = rp_real(node, 0, 1e-5);
  const double n = (double)values_of(&x->type);
  if (dy[0]) {
    rp_tensor *in[5] = {dy[0], x, w, mean, var};
    rp_tensor *g = rp_emit(tape, &rp_op_batch_norm_grad, in, 5, NULL, 0, &eps,
                           1);
    dx[0] = g;
    dx[1] = rp_emit_output(tape, g, 1);
    dx[2] = rp_emit_output(tape, g, 2);
  }
  /* Only second derivatives reach the statistics: d mean / dx = 1 / n,
     d var / dx = 2 (x - mean) / n. */
  if (dy[1]) {
    rp_tensor *share = beside(tape, rp_scale(tape, dy[1], 1 / n), &x->type);
    dx[0] = sum_of(tape, dx[0], rp_expand(tape, share, &x->type));
  }
  if (dy[2]) {
    rp_tensor *centred = rp_sub(tape, x, beside(tape, mean, &x->type));
    rp_tensor *share = beside(tape, rp_scale(tape, dy[2], 2 / n), &x->type);
    dx[0] = sum_of(tape, dx[0], rp_mul(tape, centred, share));
  }
}

static int batch_norm_effects(rp_tape *tape, const rp_node *node,
                              rp_tensor **out) {
  if (node->n_inputs <= RUNNING_MEAN) return 0;
  const double n = (double)values_of(rp_in(node, 0));
  const double momentum = rp_real(node, 1, 0.1);
  const double unbiased[2] = {1, n / (n - 1)};
  for (int k = 0; k < 2; k++) {
    rp_tensor *in[2] = {rp_input(node, RUNNING_MEAN + k),
                        rp_output(node, 1 + k)};
    const double reals[2] = {momentum, unbiased[k]};
    out[k] = rp_emit(tape, rp_op_find("running_update"), in, 2, NULL, 0, reals,
                     2);
  }
  return 2;
}

/* x, w, b -> mean, var. */
const rp_op rp_op_batch_norm_statistics = {
    .name = "batch_norm_statistics", .inputs = 3, .outputs = 2,
};
static bool stays_wide(const rp_type *in, const rp_type *made,
                      const rp_type *out) {
  return in->dtype != RP_BF16 && made->dtype == out->dtype;
}

/* x, w, b, mean, var[, z] -> y, y + z, relu(y), relu(y + z). */
const rp_op rp_op_batch_norm_apply_relu = {
    .name = "batch_norm_apply+relu", .inputs = 5, .outputs = 1, .in_place = 1,
};
const rp_op rp_op_batch_norm_apply_add_relu = {
    .name = "batch_norm_apply+add+relu", .inputs = 6, .outputs = 1,
    .in_place = 1 | 1 << 5,
};
const rp_op rp_op_batch_norm_apply_add = {
    .name = "batch_norm_apply+add", .inputs = 6, .outputs = 1,
    .in_place = 1 | 1 << 5,
    .ends = {{&rp_op_relu, &rp_op_batch_norm_apply_add_relu, stays_wide}},
};
const rp_op rp_op_batch_norm_apply = {
    .name = "batch_norm_apply", .inputs = 5, .outputs = 1, .in_place = 1,
    .ends = {{&rp_op_relu, &rp_op_batch_norm_apply_relu, stays_wide},
             {&rp_op_add, &rp_op_batch_norm_apply_add, stays_wide}},
};

const rp_op rp_op_batch_norm = {
    .name = "batch_norm", .inputs = 3, .outputs = 3, .in_place = 1,
    .flags = RP_VARIADIC | RP_MIXED,
    .type = batch_norm_type, .grad = batch_norm_grad, .cost = norm_cost,
    .parts = {&rp_op_batch_norm_statistics, &rp_op_batch_norm_apply},
    .effects = batch_norm_effects,
    .effect_inputs = 1 << RUNNING_MEAN | 1 << RUNNING_VAR,
};

/* dy, x, w, mean, var -> dx, dw, db. */
static rp_status batch_norm_grad_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 1);
  rp_status status = check_like(node, 0, x);
  if (status == RP_OK) status = check_vectors(node, x, 2, 4);
  out[0] = *x;
  out[1] = out[2] = vector(x);
  return status;
}

/* h = (x - mean) rstd:  db = sum of dy, dw = sum of dy h,
   dx = w rstd (dy - db / n - h dw / n). */
static void batch_norm_grad_decompose(rp_tape *tape, const rp_node *node,
                                      rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *x = rp_input(node, 1),
            *w = rp_input(node, 2), *mean = rp_input(node, 3),
            *var = rp_input(node, 4);
  const rp_type *type = &x->type;
  const double n = (double)values_of(type);
  rp_tensor *eps = rp_constant(tape, rp_real(node, 0, 1e-5), x);
  rp_tensor *rstd = rp_unary(tape, "rsqrt", rp_add(tape, var, eps));
  rp_tensor *h = rp_mul(tape, rp_sub(tape, x, beside(tape, mean, type)),
                        beside(tape, rstd, type));
  out[1] = sum_channel(tape, rp_mul(tape, dy, h));
  out[2] = sum_channel(tape, dy);
  rp_tensor *along = beside(tape, rp_scale(tape, out[1], 1 / n), type);
  rp_tensor *level = beside(tape, rp_scale(tape, out[2], 1 / n), type);
  rp_tensor *rest =
      rp_sub(tape, rp_sub(tape, dy, level), rp_mul(tape, h, along));
  out[0] = rp_mul(tape, rest, beside(tape, rp_mul(tape, w, rstd), type));
}

const rp_op rp_op_batch_norm_grad = {
    .name = "batch_norm_grad", .inputs = 5, .outputs = 3, .in_place = 1 | 2,
    .type = batch_norm_grad_type, .decompose = batch_norm_grad_decompose,
    .cost = norm_grad_cost,
};

/* ---- group_norm --------------------------------------------------------- */

static rp_status group_norm_shape(const rp_node *node, const rp_type *x,
                                  rp_type *statistic) {
  const int64_t groups = rp_int(node, 0, 1);
  if (groups < 1 || x->dims[1] % groups != 0)
    return rp_node_fail(node, RP_SHAPE, "%lld groups do not divide %lld "
                        "channels", (long long)groups, (long long)x->dims[1]);
  *statistic = (rp_type){vector_dtype(x), 2, {x->dims[0], groups}};
  return RP_OK;
}

static rp_status group_norm_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 0);
  rp_status status = check_vectors(node, x, 1, 2);
  if (status == RP_OK) status = group_norm_shape(node, x, &out[1]);
  out[0] = *x;
  out[2] = out[1];
  return status;
}

/* x as (N, groups, values of a group), statistics beside it. */
static rp_tensor *by_group(rp_tape *tape, rp_tensor *x, int64_t groups) {
  if (x == NULL) return NULL;
  const rp_type *t = &x->type;
  int64_t values = t->dims[1] / groups;
  for (int i = 2; i < t->rank; i++) values *= t->dims[i];
  const rp_type like = {t->dtype, 3, {t->dims[0], groups, values}};
  return rp_reshape(tape, x, &like);
}
static rp_tensor *beside_group(rp_tape *tape, rp_tensor *t) {
  if (t == NULL) return NULL;
  const rp_type like = {t->type.dtype, 3, {t->type.dims[0], t->type.dims[1],
                                           1}};
  return rp_reshape(tape, t, &like);
}
static rp_tensor *mean_of_group(rp_tape *tape, rp_tensor *t) {
  static const int64_t ints[2] = {1, 2};
  return t ? rp_emit(tape, rp_op_find("mean"), &t, 1, ints, 2, NULL, 0) : NULL;
}

static void group_norm_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0), *w = rp_input(node, 1);
  rp_tensor *mean = rp_output(node, 1), *rstd = rp_output(node, 2);
  const int64_t groups = rp_int(node, 0, 1);
  if (dy[0]) {
    rp_tensor *in[5] = {dy[0], x, w, mean, rstd};
    rp_tensor *g = rp_emit(tape, &rp_op_group_norm_grad, in, 5, &groups, 1,
                           NULL, 0);
    dx[0] = g;
    dx[1] = rp_emit_output(tape, g, 1);
    dx[2] = rp_emit_output(tape, g, 2);
  }
  if (dy[1] == NULL && dy[2] == NULL) return;
  /* Only second derivatives reach the statistics: d mean / dx = 1 / n,
     d rstd / dx = -rstd^3 (x - mean) / n. */
  rp_tensor *grouped = by_group(tape, x, groups), *share = NULL;
  const double n = grouped ? (double)grouped->type.dims[2] : 1;
  if (dy[1])
    share = rp_expand(tape, beside_group(tape, rp_scale(tape, dy[1], 1 / n)),
                      grouped ? &grouped->type : &x->type);
  if (dy[2]) {
    rp_tensor *cube = rp_mul(tape, rp_mul(tape, rstd, rstd), rstd);
    rp_tensor *scale = rp_scale(tape, rp_mul(tape, dy[2], cube), -1 / n);
    rp_tensor *centred = rp_sub(tape, grouped, beside_group(tape, mean));
    share = sum_of(tape, share,
                   rp_mul(tape, centred, beside_group(tape, scale)));
  }
  dx[0] = sum_of(tape, dx[0], rp_reshape(tape, share, &x->type));
}

const rp_op rp_op_group_norm = {
    .name = "group_norm", .inputs = 3, .outputs = 3, .in_place = 1,
    .flags = RP_MIXED,
    .type = group_norm_type, .grad = group_norm_grad, .cost = norm_cost,
};

/* dy, x, w, mean, rstd -> dx, dw, db. */
static rp_status group_norm_grad_type(const rp_node *node, rp_type *out) {
  const rp_type *x = rp_in(node, 1);
  rp_type statistic;
  rp_status status = check_like(node, 0, x);
  if (status == RP_OK) status = check_vectors(node, x, 2, 2);
  if (status == RP_OK) status = group_norm_shape(node, x, &statistic);
  if (status == RP_OK) status = check_like(node, 3, &statistic);
  if (status == RP_OK) status = check_like(node, 4, &statistic);
  out[0] = *x;
  out[1] = out[2] = vector(x);
  return status;
}

/* g = dy w, h = (x - mean) rstd:  dx = rstd (g - mean(g) - h mean(g h)) over
   groups, dw = sum of dy h, db = sum of dy over channels. */
static void group_norm_grad_decompose(rp_tape *tape, const rp_node *node,
                                      rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *x = rp_input(node, 1),
            *w = rp_input(node, 2);
  const int64_t groups = rp_int(node, 0, 1);
  rp_tensor *mean = beside_group(tape, rp_input(node, 3));
  rp_tensor *rstd = beside_group(tape, rp_input(node, 4));
  rp_tensor *h = rp_mul(
      tape, rp_sub(tape, by_group(tape, x, groups), mean), rstd);
  rp_tensor *g =
      by_group(tape, rp_mul(tape, dy, beside(tape, w, &x->type)), groups);
  rp_tensor *along = mean_of_group(tape, rp_mul(tape, g, h));
  rp_tensor *rest = rp_sub(tape, g, mean_of_group(tape, g));
  rp_tensor *d = rp_mul(tape, rstd, rp_sub(tape, rest, rp_mul(tape, h, along)));
  out[0] = rp_reshape(tape, d, &x->type);
  out[1] = sum_channel(tape, rp_mul(tape, dy, rp_reshape(tape, h, &x->type)));
  out[2] = sum_channel(tape, dy);
}

const rp_op rp_op_group_norm_grad = {
    .name = "group_norm_grad", .inputs = 5, .outputs = 3, .in_place = 1 | 2,
    .type = group_norm_grad_type, .decompose = group_norm_grad_decompose,
    .cost = norm_grad_cost,
};
