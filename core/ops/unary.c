/* Functions of one tensor, element by element: y = f(x), any shape. Floating
   point; neg, abs, sign, square, pow_scalar and clamp integers too (they wrap
   around).

   neg abs sign square exp log erf sqrt rsqrt reciprocal sin cos
   pow_scalar {; exponent}     x^exponent; of integers with a whole exponent
   clamp {; lo, hi}            min(max(x, lo), hi), NaN stays
   clamp_grad {; lo, hi}       (dy, x) -> dy where lo <= x <= hi, else 0

   Backward reads y where y gives the derivative (exp, sqrt, rsqrt,
   reciprocal): a reader further on usually keeps y alive anyway, and x can go.
   The others need x; neg needs nothing. */
#include <math.h>

#include "ops/elementwise.h"

/* ---- what the derivative reads: nothing, then y -------------------------- */

static void neg_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  dx[0] = rp_neg(tape, dy[0]);
}
const rp_op rp_op_neg = {
    .name = "neg", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = neg_grad,
};

/* dx = dy y */
static void exp_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  dx[0] = rp_mul(tape, dy[0], rp_output(node, 0));
}
const rp_op rp_op_exp = {
    .name = "exp", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = exp_grad,
    .cost = rp_cost_function,
};

/* dx = dy / 2y */
static void sqrt_grad(rp_tape *tape, const rp_node *node,
                      rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_div(tape, rp_scale(tape, dy[0], 0.5), rp_output(node, 0));
}
const rp_op rp_op_sqrt = {
    .name = "sqrt", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = sqrt_grad,
};

static rp_tensor *power(rp_tape *tape, rp_tensor *x, double exponent) {
  return rp_emit(tape, rp_op_find("pow_scalar"), &x, 1, NULL, 0, &exponent, 1);
}

/* y = x^-1/2, dx = -dy/2 y^3 */
static void rsqrt_grad(rp_tape *tape, const rp_node *node,
                       rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_mul(tape, rp_scale(tape, dy[0], -0.5),
                 power(tape, rp_output(node, 0), 3));
}
const rp_op rp_op_rsqrt = {
    .name = "rsqrt", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = rsqrt_grad,
};

/* dx = -dy y^2 */
static void reciprocal_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *slope = rp_unary(tape, "square", rp_output(node, 0));
  dx[0] = rp_neg(tape, rp_mul(tape, dy[0], slope));
}
const rp_op rp_op_reciprocal = {
    .name = "reciprocal", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first,
    .grad = reciprocal_grad,
};

/* ---- what the derivative reads: x ---------------------------------------- */

/* dx = dy / x */
static void log_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  dx[0] = rp_div(tape, dy[0], rp_input(node, 0));
}
const rp_op rp_op_log = {
    .name = "log", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = log_grad,
    .cost = rp_cost_function,
};

/* dx = dy 2/sqrt(pi) exp(-x^2) */
static void erf_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  rp_tensor *square = rp_unary(tape, "square", rp_input(node, 0));
  rp_tensor *bell = rp_exp(tape, rp_neg(tape, square));
  dx[0] = rp_mul(tape, dy[0], rp_scale(tape, bell, 0x1.20dd750429b6dp+0));
}
const rp_op rp_op_erf = {
    .name = "erf", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = erf_grad,
    .cost = rp_cost_function,
};

static void sin_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  dx[0] = rp_mul(tape, dy[0], rp_unary(tape, "cos", rp_input(node, 0)));
}
const rp_op rp_op_sin = {
    .name = "sin", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = sin_grad,
    .cost = rp_cost_function,
};

static void cos_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  rp_tensor *sine = rp_unary(tape, "sin", rp_input(node, 0));
  dx[0] = rp_neg(tape, rp_mul(tape, dy[0], sine));
}
const rp_op rp_op_cos = {
    .name = "cos", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = cos_grad,
    .cost = rp_cost_function,
};

/* dx = dy sign x */
static void abs_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  dx[0] = rp_mul(tape, dy[0], rp_unary(tape, "sign", rp_input(node, 0)));
}
const rp_op rp_op_abs = {
    .name = "abs", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first, .grad = abs_grad,
};

/* -1, 0 or 1; 0 for NaN. */
const rp_op rp_op_sign = {
    .name = "sign", .inputs = 1, .outputs = 1,
    .flags = RP_POINTWISE | RP_NOT_DIFFERENTIABLE, .in_place = RP_OVER_FIRST,
    .type = rp_type_like_first,
};

/* dx = dy 2x */
static void square_grad(rp_tape *tape, const rp_node *node,
                        rp_tensor *const *dy, rp_tensor **dx) {
  dx[0] = rp_mul(tape, dy[0], rp_scale(tape, rp_input(node, 0), 2));
}
const rp_op rp_op_square = {
    .name = "square", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = rp_type_like_first,
    .grad = square_grad,
};

/* ---- pow_scalar ---------------------------------------------------------- */

static rp_status pow_scalar_type(const rp_node *node, rp_type *out) {
  if (node->n_reals != 1)
    return rp_node_fail(node, RP_VALUE, "needs an exponent");
  const double exponent = node->reals[0];
  *out = *rp_in(node, 0);
  if (rp_dtype_is_float((rp_dtype)out->dtype)) return RP_OK;
  if (exponent != floor(exponent) || !(fabs(exponent) <= 0x1p31 - 1))
    return rp_node_fail(node, RP_VALUE,
                        "%g is no exponent for %s: a whole number is",
                        exponent, rp_dtype_name((rp_dtype)out->dtype));
  return RP_OK;
}

/* dx = dy p x^(p-1) */
static void pow_scalar_grad(rp_tape *tape, const rp_node *node,
                            rp_tensor *const *dy, rp_tensor **dx) {
  const double p = node->reals[0];
  rp_tensor *x = rp_input(node, 0);
  if (p == 0) dx[0] = rp_full_like(tape, rp_in(node, 0), 0);
  else if (p == 1) dx[0] = dy[0];
  else if (p == 2) dx[0] = rp_mul(tape, dy[0], rp_scale(tape, x, 2));
  else dx[0] = rp_mul(tape, dy[0], rp_scale(tape, power(tape, x, p - 1), p));
}

const rp_op rp_op_pow_scalar = {
    .name = "pow_scalar", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = pow_scalar_type,
    .grad = pow_scalar_grad, .cost = rp_cost_function,
};

/* ---- clamp --------------------------------------------------------------- */

static rp_status clamp_type(const rp_node *node, rp_type *out) {
  if (node->n_reals != 2)
    return rp_node_fail(node, RP_VALUE, "needs a lower and an upper bound");
  *out = *rp_in(node, 0);
  return RP_OK;
}

/* At a bound y cannot tell an x there from one beyond, and PyTorch lets the
   gradient through there: x is read. */
static void clamp_grad(rp_tape *tape, const rp_node *node,
                       rp_tensor *const *dy, rp_tensor **dx) {
  rp_tensor *inputs[2] = {dy[0], rp_input(node, 0)};
  dx[0] = rp_emit(tape, rp_op_find("clamp_grad"), inputs, 2, NULL, 0,
                  node->reals, 2);
}
const rp_op rp_op_clamp = {
    .name = "clamp", .inputs = 1, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_FIRST, .type = clamp_type, .grad = clamp_grad,
};

static void clamp_grad_decompose(rp_tape *tape, const rp_node *node,
                                 rp_tensor **out) {
  rp_tensor *dy = rp_input(node, 0), *x = rp_input(node, 1);
  rp_tensor *above =
      rp_binary(tape, "ge", x, rp_constant(tape, node->reals[0], x));
  rp_tensor *below =
      rp_binary(tape, "le", x, rp_constant(tape, node->reals[1], x));
  out[0] = rp_where(tape, rp_binary(tape, "logical_and", above, below), dy,
                    rp_constant(tape, 0, dy));
}
const rp_op rp_op_clamp_grad = {
    .name = "clamp_grad", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .decompose = clamp_grad_decompose,
};
