/* Activations, y = f(x), any shape, floating point (relu integers too), and
   their backward kernels, dx = dy f'(x).

   relu        max(x, 0), NaN stays     relu_grad       reads y
   tanh        tanh x                   tanh_grad       reads y
   sigmoid     1/(1 + exp(-x))          sigmoid_grad    reads y
   silu        x sigmoid(x)             silu_grad       reads x
   gelu        x P(x), P the normal     gelu_grad       reads x
               distribution function
   gelu_tanh   x/2 (1 + tanh u), u =    gelu_tanh_grad  reads x
               sqrt(2/pi) (x + 0.044715 x^3)

   The first three have a derivative that is a function of y, so that x can
   go. The others are not monotone: y does not determine x, and x alone does.
   One kernel a gradient, so that backward makes no temporaries; second
   derivatives go through the decompositions. */
#include "ops/elementwise.h"

static rp_tensor *one_minus(rp_tape *tape, rp_tensor *x) {
  return rp_sub(tape, rp_constant(tape, 1, x), x);
}
static rp_tensor *one_plus(rp_tape *tape, rp_tensor *x) {
  return rp_add(tape, rp_constant(tape, 1, x), x);
}
static rp_tensor *square(rp_tape *tape, rp_tensor *x) {
  return rp_unary(tape, "square", x);
}

/* ---- relu ---------------------------------------------------------------- */

static void relu_grad(rp_tape *tape, const rp_node *node,
                      rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_binary(tape, "relu_grad", dy[0], rp_output(node, 0));
}
const rp_op rp_op_relu = {
    .name = "relu", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = relu_grad,
};

/* dy where y > 0, else 0 */
static void relu_grad_decompose(rp_tape *tape, const rp_node *node,
                                rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *y = rp_input(node, 1);
  rp_tensor *zero = rp_constant(tape, 0, y);
  out[0] = rp_where(tape, rp_binary(tape, "gt", y, zero), dy, zero);
}
const rp_op rp_op_relu_grad = {
    .name = "relu_grad", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .decompose = relu_grad_decompose,
};

/* ---- tanh, sigmoid ------------------------------------------------------- */

static void tanh_grad(rp_tape *tape, const rp_node *node,
                      rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_binary(tape, "tanh_grad", dy[0], rp_output(node, 0));
}
const rp_op rp_op_tanh = {
    .name = "tanh", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = tanh_grad,
    .cost = rp_cost_function,
};

/* dy (1 - y^2) */
static void tanh_grad_decompose(rp_tape *tape, const rp_node *node,
                                rp_tensor **out) {
  rp_tensor *slope = one_minus(tape, square(tape, rp_input(node, 1)));
  out[0] = rp_mul(tape, rp_input(node, 0), slope);
}
const rp_op rp_op_tanh_grad = {
    .name = "tanh_grad", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .decompose = tanh_grad_decompose,
};

static void sigmoid_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_binary(tape, "sigmoid_grad", dy[0], rp_output(node, 0));
}
const rp_op rp_op_sigmoid = {
    .name = "sigmoid", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first,
    .grad = sigmoid_grad, .cost = rp_cost_function,
};

/* dy y (1 - y) */
static void sigmoid_grad_decompose(rp_tape *tape, const rp_node *node,
                                   rp_tensor **out) {
  rp_tensor *y = rp_input(node, 1);
  rp_tensor *slope = rp_mul(tape, y, one_minus(tape, y));
  out[0] = rp_mul(tape, rp_input(node, 0), slope);
}
const rp_op rp_op_sigmoid_grad = {
    .name = "sigmoid_grad", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .decompose = sigmoid_grad_decompose,
};

/* ---- silu ---------------------------------------------------------------- */

static void silu_grad(rp_tape *tape, const rp_node *node,
                      rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_binary(tape, "silu_grad", dy[0], rp_input(node, 0));
}
const rp_op rp_op_silu = {
    .name = "silu", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = silu_grad,
    .cost = rp_cost_function,
};

/* dy s (1 + x (1 - s)), s = sigmoid(x) */
static void silu_grad_decompose(rp_tape *tape, const rp_node *node,
                                rp_tensor **out) {
  rp_tensor *x = rp_input(node, 1), *s = rp_unary(tape, "sigmoid", x);
  rp_tensor *inner = one_plus(tape, rp_mul(tape, x, one_minus(tape, s)));
  out[0] = rp_mul(tape, rp_input(node, 0), rp_mul(tape, s, inner));
}
const rp_op rp_op_silu_grad = {
    .name = "silu_grad", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .decompose = silu_grad_decompose, .cost = rp_cost_function,
};

/* ---- gelu ---------------------------------------------------------------- */

static void gelu_grad(rp_tape *tape, const rp_node *node,
                      rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_binary(tape, "gelu_grad", dy[0], rp_input(node, 0));
}
const rp_op rp_op_gelu = {
    .name = "gelu", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = gelu_grad,
    .cost = rp_cost_function,
};

/* dy (P(x) + x p(x)), P(x) = (1 + erf(x/sqrt 2))/2,
   p(x) = exp(-x^2/2)/sqrt(2 pi) */
static void gelu_grad_decompose(rp_tape *tape, const rp_node *node,
                                rp_tensor **out) {
  rp_tensor *x = rp_input(node, 1);
  rp_tensor *erf =
      rp_unary(tape, "erf", rp_scale(tape, x, 0x1.6a09e667f3bcdp-1));
  rp_tensor *distribution = rp_scale(tape, one_plus(tape, erf), 0.5);
  rp_tensor *density =
      rp_scale(tape, rp_exp(tape, rp_scale(tape, square(tape, x), -0.5)),
               0x1.9884533d43651p-2);
  rp_tensor *slope = rp_add(tape, distribution, rp_mul(tape, x, density));
  out[0] = rp_mul(tape, rp_input(node, 0), slope);
}
const rp_op rp_op_gelu_grad = {
    .name = "gelu_grad", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .decompose = gelu_grad_decompose, .cost = rp_cost_function,
};

static void gelu_tanh_grad(rp_tape *tape, const rp_node *node,
                           rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_binary(tape, "gelu_tanh_grad", dy[0], rp_input(node, 0));
}
const rp_op rp_op_gelu_tanh = {
    .name = "gelu_tanh", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first,
    .grad = gelu_tanh_grad, .cost = rp_cost_function,
};

/* dy (s + x s (1 - s) d(2u)/dx), s = sigmoid(2u) = (1 + tanh u)/2,
   d(2u)/dx = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2) */
static void gelu_tanh_grad_decompose(rp_tape *tape, const rp_node *node,
                                     rp_tensor **out) {
  const double factor = 0x1.9884533d43651p+0;
  rp_tensor *x = rp_input(node, 1), *xx = square(tape, x);
  rp_tensor *bracket = one_plus(tape, rp_scale(tape, xx, 0.044715));
  rp_tensor *s = rp_unary(
      tape, "sigmoid",
      rp_scale(tape, rp_mul(tape, x, bracket), factor));
  rp_tensor *du =
      rp_scale(tape, one_plus(tape, rp_scale(tape, xx, 0.134145)), factor);
  rp_tensor *ds = rp_mul(tape, rp_mul(tape, s, one_minus(tape, s)), du);
  rp_tensor *slope = rp_add(tape, s, rp_mul(tape, x, ds));
  out[0] = rp_mul(tape, rp_input(node, 0), slope);
}
const rp_op rp_op_gelu_tanh_grad = {
    .name = "gelu_tanh_grad", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE, .in_place = RP_OVER_BOTH,
    .type = rp_type_broadcast, .decompose = gelu_tanh_grad_decompose,
    .cost = rp_cost_function,
};
