/* Convolution of images x:(N, C, H, W) with weights w:(O, C/groups, KH, KW):

   conv2d(x, w[, bias:(O)])     y[n,o,i,j] = bias[o] + sum over c, a, b of
     w[o,c,a,b] x[n, c', i stride - pad + a dilation, ...], c' being channel c
     of o's group, x 0 outside; y:(N, O, OH, OW).
   conv2d_grad_input(dy, w)     dx: the adjoint of conv2d in x
   conv2d_grad_weight(dy, x)    dw: the adjoint of conv2d in w

   ints {stride, stride, pad, pad, dilation, dilation, groups}, rows' before
   columns', and behind them {H, W} for grad_input, {KH, KW} for grad_weight,
   which the shapes alone do not say where the stride is not 1, and then the
   gradient's dtype: of bf16, bf16 or f32. Beside bf16 a bias is f32.

   All three are bilinear, and the derivative of each is the other two. What
   backward reads is therefore both factors, and nothing less would do. The
   weight's gradient comes first, as it reads x for the last time; where it is
   larger than x it comes last, so that it can be used up at once: an update
   of w waits for x's gradient, which reads w. */
#include "base/window.h"
#include "graph/op.h"

extern const rp_op rp_op_conv2d, rp_op_conv2d_grad_input,
    rp_op_conv2d_grad_weight;

enum { ATTRS = 7, GROUPS = 6, DTYPE = ATTRS + 2 };

static rp_window window_of(const rp_node *node, const int64_t kernel[2]) {
  rp_window w;
  for (int d = 0; d < 2; d++) {
    w.kernel[d] = kernel[d];
    w.stride[d] = rp_int(node, d, 1);
    w.pad[d] = rp_int(node, 2 + d, 0);
    w.dilation[d] = rp_int(node, 4 + d, 1);
  }
  return w;
}

static rp_status check_attributes(const rp_node *node, const rp_window *w) {
  for (int d = 0; d < 2; d++)
    if (w->stride[d] < 1 || w->pad[d] < 0 || w->dilation[d] < 1 ||
        w->kernel[d] < 1)
      return rp_node_fail(node, RP_VALUE,
                          "kernel %lld, stride %lld, padding %lld, dilation "
                          "%lld: padding is at least 0, the others 1",
                          (long long)w->kernel[d], (long long)w->stride[d],
                          (long long)w->pad[d], (long long)w->dilation[d]);
  if (rp_int(node, GROUPS, 1) < 1)
    return rp_node_fail(node, RP_VALUE, "groups is at least 1, not %lld",
                        (long long)rp_int(node, GROUPS, 1));
  return RP_OK;
}

static rp_status check_dtypes(const rp_node *node) {
  const bool narrow = rp_in(node, 0)->dtype == RP_BF16;
  if (narrow && node->n_inputs > 2 && rp_in(node, 2)->dtype != RP_F32)
    return rp_node_fail(node, RP_DTYPE, "a bias beside bf16 is f32, not %s",
                        rp_dtype_name((rp_dtype)rp_in(node, 2)->dtype));
  for (int i = 1; i < (narrow ? 2 : node->n_inputs); i++)
    if (rp_in(node, i)->dtype != rp_in(node, 0)->dtype)
      return rp_node_fail_dtypes(node, (rp_dtype)rp_in(node, 0)->dtype,
                                 (rp_dtype)rp_in(node, i)->dtype);
  return RP_OK;
}

/* Whether x, w and y belong together; y is what conv2d makes of the others. */
static rp_status check_shapes(const rp_node *node, const rp_type *x,
                              const rp_type *w, rp_type *y) {
  char x_text[RP_DIMS_TEXT], w_text[RP_DIMS_TEXT];
  rp_dims_text(x, x_text), rp_dims_text(w, w_text);
  const int64_t groups = rp_int(node, GROUPS, 1);
  if (x->rank != 4 || w->rank != 4)
    return rp_node_fail(node, RP_SHAPE, "x %s, weight %s: needs x (batch, "
                        "channels, height, width) and weight (out, in/groups, "
                        "height, width)", x_text, w_text);
  const rp_window window = window_of(node, w->dims + 2);
  const rp_status status = check_attributes(node, &window);
  if (status != RP_OK) return status;
  if (w->dims[0] % groups != 0 || x->dims[1] % groups != 0)
    return rp_node_fail(node, RP_SHAPE, "x %s, weight %s: %lld groups do not "
                        "divide the channels", x_text, w_text,
                        (long long)groups);
  if (x->dims[1] != w->dims[1] * groups || x->dims[1] < 1)
    return rp_node_fail(node, RP_SHAPE, "x %s, weight %s: x has %lld channels, "
                        "the weight takes %lld", x_text, w_text,
                        (long long)x->dims[1],
                        (long long)(w->dims[1] * groups));
  *y = *x;
  y->dims[1] = w->dims[0];
  for (int d = 0; d < 2; d++) {
    y->dims[2 + d] = rp_window_count(&window, d, x->dims[2 + d], false);
    if (y->dims[2 + d] < 1)
      return rp_node_fail(node, RP_SHAPE, "x %s, weight %s: with its padding x "
                          "is smaller than the kernel", x_text, w_text);
  }
  return RP_OK;
}

/* out, the third of x, w and y, must make dy what conv2d gives. */
static rp_status check_gradient(const rp_node *node, const rp_type *x,
                                const rp_type *w) {
  rp_type y;
  char text[RP_DIMS_TEXT], dy_text[RP_DIMS_TEXT];
  const rp_status status = check_shapes(node, x, w, &y);
  if (status != RP_OK) return status;
  if (!rp_dims_equal(&y, rp_in(node, 0)))
    return rp_node_fail(node, RP_SHAPE, "gradient %s: the output is %s",
                        rp_dims_text(rp_in(node, 0), dy_text),
                        rp_dims_text(&y, text));
  return RP_OK;
}

static rp_cost cost_of(const rp_node *node, const rp_type *y,
                       const rp_type *w) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops = 2 * (double)rp_type_count(y) *
               (double)(w->dims[1] * w->dims[2] * w->dims[3]);
  return cost;
}

/* ---- the two adjoints and the product, for rules ------------------------ */

static rp_tensor *emit(rp_tape *tape, const rp_op *op, const rp_node *node,
                       rp_tensor *a, rp_tensor *b, const int64_t *sizes,
                       rp_dtype dtype) {
  if (a == NULL || b == NULL) return NULL;
  rp_tensor *in[2] = {a, rp_cast(tape, b, (rp_dtype)a->type.dtype)};
  int64_t ints[DTYPE + 1] = {1, 1, 0, 0, 1, 1, 1};
  for (int i = 0; i < ATTRS; i++) ints[i] = rp_int(node, i, ints[i]);
  for (int d = 0; sizes && d < 2; d++) ints[ATTRS + d] = sizes[d];
  ints[DTYPE] = dtype;
  return rp_emit(tape, op, in, 2, ints, sizes ? DTYPE + 1 : ATTRS, NULL, 0);
}

/* That of t's gradient: f32 where t is the copy of an f32 value. */
static rp_dtype gradient_dtype(const rp_tensor *t) {
  return rp_is_narrowed(t) ? RP_F32 : (rp_dtype)t->type.dtype;
}

/* The dtype that a gradient is asked for in. */
static rp_status made_dtype(const rp_node *node, rp_type *out) {
  const rp_dtype dy = (rp_dtype)rp_in(node, 0)->dtype;
  const rp_dtype dtype = (rp_dtype)rp_int(node, DTYPE, dy);
  if (dtype != dy && (dy != RP_BF16 || dtype != RP_F32))
    return rp_node_fail(node, RP_DTYPE, "of %s is %s", rp_dtype_name(dy),
                        rp_dtype_name(dy));
  out->dtype = dtype;
  return RP_OK;
}

static rp_tensor *product(rp_tape *tape, const rp_node *node, rp_tensor *x,
                          rp_tensor *w) {
  return emit(tape, &rp_op_conv2d, node, x, w, NULL, RP_F32);
}

static rp_tensor *grad_input(rp_tape *tape, const rp_node *node, rp_tensor *dy,
                             rp_tensor *w, const rp_tensor *x) {
  return emit(tape, &rp_op_conv2d_grad_input, node, dy, w, x->type.dims + 2,
              gradient_dtype(x));
}

static rp_tensor *grad_weight(rp_tape *tape, const rp_node *node,
                              rp_tensor *dy, rp_tensor *x,
                              const rp_tensor *w) {
  return emit(tape, &rp_op_conv2d_grad_weight, node, dy, x, w->type.dims + 2,
              gradient_dtype(w));
}

/* ---- conv2d ------------------------------------------------------------- */

static rp_status conv2d_type(const rp_node *node, rp_type *out) {
  const rp_type *w = rp_in(node, 1);
  if (node->n_inputs > 3)
    return rp_node_fail(node, RP_VALUE, "takes x, weight and bias, not %d "
                        "tensors", node->n_inputs);
  rp_status status = check_dtypes(node);
  if (status == RP_OK) status = check_shapes(node, rp_in(node, 0), w, out);
  if (status == RP_OK && node->n_inputs > 2) {
    const rp_type *bias = rp_in(node, 2);
    char bias_text[RP_DIMS_TEXT], w_text[RP_DIMS_TEXT];
    if (bias->rank != 1 || bias->dims[0] != w->dims[0])
      status = rp_node_fail(node, RP_SHAPE,
                            "bias %s, weight %s: needs a bias (%lld)",
                            rp_dims_text(bias, bias_text),
                            rp_dims_text(w, w_text), (long long)w->dims[0]);
  }
  return status;
}

static void conv2d_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  static const int64_t all_but_channels[3] = {0, 2, 3};
  rp_tensor *x = rp_input(node, 0), *w = rp_input(node, 1);
  const bool weight_first = rp_type_bytes(&w->type) <= rp_type_bytes(&x->type);
  for (int i = 0; i < 2; i++)
    if ((i == 0) == weight_first) {
      if (rp_tape_needs(tape, 1))
        dx[1] = grad_weight(tape, node, dy[0], x, w);
    } else if (rp_tape_needs(tape, 0)) {
      dx[0] = grad_input(tape, node, dy[0], w, x);
    }
  if (node->n_inputs > 2 && rp_tape_needs(tape, 2))
    dx[2] = rp_sum(tape, rp_cast(tape, dy[0], (rp_dtype)rp_in(node, 2)->dtype),
                   all_but_channels, 3, false);
}

static rp_cost conv2d_cost(const rp_node *node) {
  return cost_of(node, &node->outputs[0].type, rp_in(node, 1));
}

const rp_op rp_op_conv2d = {
    .name = "conv2d", .inputs = 2, .outputs = 1,
    .flags = RP_COSTLY | RP_VARIADIC | RP_MIXED, .narrow = 1 | 2,
    .type = conv2d_type, .grad = conv2d_grad, .cost = conv2d_cost,
};

/* ---- conv2d_grad_input -------------------------------------------------- */

static rp_status grad_input_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *w = rp_in(node, 1);
  const rp_status status = check_dtypes(node);
  if (status != RP_OK) return status;
  *out = *dy;
  if (w->rank == 4) out->dims[1] = w->dims[1] * rp_int(node, GROUPS, 1);
  for (int d = 0; d < 2; d++) out->dims[2 + d] = rp_int(node, ATTRS + d, 0);
  const rp_status made = made_dtype(node, out);
  return made == RP_OK ? check_gradient(node, out, w) : made;
}

static void grad_input_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *g, rp_tensor **dx) {
  rp_tensor *dy = rp_input(node, 0), *w = rp_input(node, 1);
  rp_tensor *narrow = rp_cast(tape, g[0], (rp_dtype)dy->type.dtype);
  if (rp_tape_needs(tape, 1))
    dx[1] = grad_weight(tape, node, dy, narrow, w);
  if (rp_tape_needs(tape, 0)) dx[0] = product(tape, node, narrow, w);
}

static rp_cost grad_input_cost(const rp_node *node) {
  return cost_of(node, rp_in(node, 0), rp_in(node, 1));
}

const rp_op rp_op_conv2d_grad_input = {
    .name = "conv2d_grad_input", .inputs = 2, .outputs = 1,
    .flags = RP_COSTLY,
    .type = grad_input_type, .grad = grad_input_grad, .cost = grad_input_cost,
};

/* ---- conv2d_grad_weight ------------------------------------------------- */

static rp_status grad_weight_type(const rp_node *node, rp_type *out) {
  const rp_type *dy = rp_in(node, 0), *x = rp_in(node, 1);
  const int64_t groups = rp_int(node, GROUPS, 1);
  const rp_status status = check_dtypes(node);
  if (status != RP_OK) return status;
  *out = (rp_type){dy->dtype, 4, {dy->rank == 4 ? dy->dims[1] : 1,
                                  groups > 0 && x->rank == 4
                                      ? x->dims[1] / groups : 1,
                                  rp_int(node, ATTRS, 1),
                                  rp_int(node, ATTRS + 1, 1)}};
  const rp_status made = made_dtype(node, out);
  return made == RP_OK ? check_gradient(node, x, out) : made;
}

static void grad_weight_grad(rp_tape *tape, const rp_node *node,
                             rp_tensor *const *g, rp_tensor **dx) {
  rp_tensor *dy = rp_input(node, 0), *x = rp_input(node, 1);
  if (rp_tape_needs(tape, 0)) dx[0] = product(tape, node, x, g[0]);
  if (rp_tape_needs(tape, 1))
    dx[1] = grad_input(tape, node, dy, g[0], x);
}

static rp_cost grad_weight_cost(const rp_node *node) {
  return cost_of(node, rp_in(node, 0), &node->outputs[0].type);
}

const rp_op rp_op_conv2d_grad_weight = {
    .name = "conv2d_grad_weight", .inputs = 2, .outputs = 1,
    .flags = RP_COSTLY,
    .type = grad_weight_type, .grad = grad_weight_grad,
    .cost = grad_weight_cost,
};
