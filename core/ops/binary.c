/* Functions of two tensors, element by element: y = f(a, b), of one dtype,
   broadcast against each other. Integers wrap around.

   add sub mul div        of integers div truncates; x/0 is 0 there
   pow                    a^b
   maximum minimum        NaN on either side comes through
   bce_with_logits(x, t)  max(x, 0) - x t + log(1 + exp(-|x|)): the cross
                          entropy of sigmoid(x) with target t

   A gradient is summed over the dims in which its input was broadcast. */
#include "ops/elementwise.h"

/* Hands input i its gradient. */
static void give(rp_tape *tape, const rp_node *node, int i, rp_tensor *g,
                 rp_tensor **dx) {
  dx[i] = rp_sum_to(tape, g, rp_in(node, i));
}

/* ---- add, sub: backward reads nothing ------------------------------------ */

static void add_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  for (int i = 0; i < 2; i++)
    if (rp_tape_needs(tape, i)) give(tape, node, i, dy[0], dx);
}
const rp_op rp_op_add = {
    .name = "add", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast, .grad = add_grad,
};

/* The sum comes first: it is the smaller tensor that is negated. */
static void sub_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  if (rp_tape_needs(tape, 0)) give(tape, node, 0, dy[0], dx);
  if (rp_tape_needs(tape, 1))
    dx[1] = rp_neg(tape, rp_sum_to(tape, dy[0], rp_in(node, 1)));
}
const rp_op rp_op_sub = {
    .name = "sub", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast, .grad = sub_grad,
};

/* ---- mul, div ------------------------------------------------------------ */

/* Each side reads the other, and only when its own gradient is wanted. */
static void mul_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  for (int i = 0; i < 2; i++)
    if (rp_tape_needs(tape, i))
      give(tape, node, i, rp_mul(tape, dy[0], rp_input(node, 1 - i)), dx);
}
const rp_op rp_op_mul = {
    .name = "mul", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast, .grad = mul_grad,
    .unit = 1, .units = 1 | 2,
};

/* da = dy/b, db = -(dy/b) y: reads b, and y for db. a can go. */
static void div_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  rp_tensor *da = rp_div(tape, dy[0], rp_input(node, 1));
  if (rp_tape_needs(tape, 0)) give(tape, node, 0, da, dx);
  if (rp_tape_needs(tape, 1)) {
    rp_tensor *g = rp_mul(tape, da, rp_output(node, 0));
    dx[1] = rp_neg(tape, rp_sum_to(tape, g, rp_in(node, 1)));
  }
}
const rp_op rp_op_div = {
    .name = "div", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast, .grad = div_grad,
    .unit = 1, .units = 2,
};

/* ---- pow ----------------------------------------------------------------- */

/* da = dy b a^(b-1), which is 0 where b = 0; db = dy y log a, which is 0 where
   a = 0 <= b (the limits, as in PyTorch). */
static void pow_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  rp_tensor *a = rp_input(node, 0), *b = rp_input(node, 1);
  if (rp_tape_needs(tape, 0)) {
    rp_tensor *zero = rp_constant(tape, 0, b);
    rp_tensor *less = rp_sub(tape, b, rp_constant(tape, 1, b));
    rp_tensor *slope = rp_mul(tape, b, rp_binary(tape, "pow", a, less));
    rp_tensor *g = rp_where(tape, rp_binary(tape, "eq", b, zero), zero,
                            rp_mul(tape, dy[0], slope));
    give(tape, node, 0, g, dx);
  }
  if (rp_tape_needs(tape, 1)) {
    rp_tensor *zero = rp_constant(tape, 0, a);
    rp_tensor *flat = rp_binary(tape, "logical_and",
                                rp_binary(tape, "eq", a, zero),
                                rp_binary(tape, "ge", b, zero));
    rp_tensor *slope =
        rp_mul(tape, rp_output(node, 0), rp_unary(tape, "log", a));
    rp_tensor *g = rp_where(tape, flat, zero, rp_mul(tape, dy[0], slope));
    give(tape, node, 1, g, dx);
  }
}
const rp_op rp_op_pow = {
    .name = "pow", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast, .grad = pow_grad,
    .cost = rp_cost_function,
};

/* ---- maximum, minimum ---------------------------------------------------- */

/* dy goes to the side that won, half to each where they tie. NaN, which has
   not lost, gets dy. */
static void extreme_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx,
                         const char *loses) {
  rp_tensor *zero = rp_constant(tape, 0, dy[0]);
  rp_tensor *shared = NULL;
  for (int i = 0; i < 2; i++) {
    if (!rp_tape_needs(tape, i)) continue;
    rp_tensor *own = rp_input(node, i), *other = rp_input(node, 1 - i);
    if (shared == NULL)
      shared = rp_where(tape, rp_binary(tape, "eq", own, other),
                        rp_scale(tape, dy[0], 0.5), dy[0]);
    rp_tensor *lost = rp_binary(tape, loses, own, other);
    give(tape, node, i, rp_where(tape, lost, zero, shared), dx);
  }
}

static void maximum_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  extreme_grad(tape, node, dy, dx, "lt");
}
const rp_op rp_op_maximum = {
    .name = "maximum", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .grad = maximum_grad,
};

static void minimum_grad(rp_tape *tape, const rp_node *node,
                         rp_tensor *const *dy, rp_tensor **dx) {
  extreme_grad(tape, node, dy, dx, "gt");
}
const rp_op rp_op_minimum = {
    .name = "minimum", .inputs = 2, .outputs = 1, .flags = RP_POINTWISE,
    .in_place = RP_OVER_BOTH, .type = rp_type_broadcast,
    .grad = minimum_grad,
};

/* ---- bce_with_logits ----------------------------------------------------- */

/* dx = dy (sigmoid(x) - t), dt = -dy x */
static void bce_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                     rp_tensor **dx) {
  rp_tensor *x = rp_input(node, 0), *target = rp_input(node, 1);
  if (rp_tape_needs(tape, 0)) {
    rp_tensor *error = rp_sub(tape, rp_unary(tape, "sigmoid", x), target);
    give(tape, node, 0, rp_mul(tape, dy[0], error), dx);
  }
  if (rp_tape_needs(tape, 1)) {
    rp_tensor *g = rp_mul(tape, dy[0], x);
    dx[1] = rp_neg(tape, rp_sum_to(tape, g, rp_in(node, 1)));
  }
}
const rp_op rp_op_bce_with_logits = {
    .name = "bce_with_logits", .inputs = 2, .outputs = 1,
    .flags = RP_POINTWISE, .in_place = RP_OVER_BOTH,
    .type = rp_type_broadcast, .grad = bce_grad, .cost = rp_cost_function,
};
