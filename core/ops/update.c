/* Effects: what writes leaves.

   sgd, sgd_momentum, adam, adamw (param, grad, states..., numbers)
     one optimizer step of one parameter; PyTorch's formulas in PyTorch's
     order (torch.optim, single-tensor). numbers is an f64 vector: what the
     record names, then the step count, 1 for the first step.
   accumulate(leaf, g)   leaf += g
   assign(leaf, x)       leaf = x; x of any strides
   running_update(leaf, x) {} {momentum, scale}
                         leaf = (1 - momentum) leaf + momentum scale x

   No other attributes, no outputs, no gradient. Each takes a guard as a further
   input (RP_GUARDABLE); the optimizers' a factor for the gradient before it
   (RP_SCALABLE), rounded where a product of its own would be. */
#include "graph/op.h"

static rp_status check_like_leaf(const rp_node *node, int i,
                                 const char *what) {
  const rp_type *leaf = rp_in(node, 0), *x = rp_in(node, i);
  char leaf_text[RP_DIMS_TEXT], text[RP_DIMS_TEXT];
  if (!rp_is_leaf(node->inputs[0]))
    return rp_node_fail(node, RP_VALUE, "writes a leaf, this is a recipe");
  if (!rp_dims_equal(leaf, x))
    return rp_node_fail(node, RP_SHAPE, "%s is %s, what it is for is %s",
                        what, rp_dims_text(x, text),
                        rp_dims_text(leaf, leaf_text));
  if (leaf->dtype != x->dtype)
    return rp_node_fail(node, RP_DTYPE, "%s is %s, what it is for is %s",
                        what, rp_dtype_name((rp_dtype)x->dtype),
                        rp_dtype_name((rp_dtype)leaf->dtype));
  return RP_OK;
}

static rp_cost update_cost(const rp_node *node) {
  const double values = (double)rp_type_bytes(rp_in(node, 0));
  rp_cost cost = rp_cost_elementwise(node);
  cost.bytes += values * (1 + node->op->states);
  cost.flops =
      (double)rp_type_count(rp_in(node, 0)) * (2 + 6 * node->op->states);
  return cost;
}

/* ---- optimizers --------------------------------------------------------- */

static rp_status update_type(const rp_node *node, rp_type *out) {
  (void)out;
  const int states = node->op->states;
  rp_status status = check_like_leaf(node, 1, "the gradient");
  for (int k = 0; status == RP_OK && k < states; k++)
    status = check_like_leaf(node, 2 + k, "the optimizer's state");
  if (status != RP_OK) return status;
  int n = 1;
  while (node->op->numbers[n - 1]) n++;
  const rp_type *numbers = rp_in(node, 2 + states);
  if (numbers->dtype != RP_F64 || numbers->rank != 1 || numbers->dims[0] != n)
    return rp_node_fail(node, RP_VALUE,
                        "takes its %d numbers and the step count as one f64 "
                        "vector", n - 1);
  for (int k = 3 + states; k < node->n_inputs; k++) {
    const rp_type *x = rp_in(node, k);
    const bool is_factor =
        k == 3 + states && x->dtype == rp_in(node, 1)->dtype;
    if (x->rank != 0 || !(is_factor || x->dtype == RP_BOOL))
      return rp_node_fail(node, RP_VALUE, "takes a factor of the gradient's "
                          "dtype and a bool besides, each a single number");
  }
  return RP_OK;
}

static const char *const sgd_numbers[] = {"lr", "weight_decay", NULL};
static const char *const momentum_numbers[] = {
    "lr", "momentum", "dampening", "weight_decay", "nesterov", NULL};
static const char *const adam_numbers[] = {"lr", "beta1", "beta2", "eps",
                                           "weight_decay", NULL};

/* g += weight_decay param;  param -= lr g. */
const rp_op rp_op_sgd = {
    .name = "sgd", .inputs = 3, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_GUARDABLE | RP_SCALABLE,
    .writes = 1,
    .type = update_type, .cost = update_cost,
    .states = 0, .numbers = sgd_numbers,
};

/* g += weight_decay param;  v = momentum v + (1 - dampening) g, and v = g in
   step 1;  param -= lr v, or lr (g + momentum v) when nesterov is not 0. */
const rp_op rp_op_sgd_momentum = {
    .name = "sgd_momentum", .inputs = 4, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_GUARDABLE | RP_SCALABLE,
    .writes = 1 | 1 << 2,
    .type = update_type, .cost = update_cost,
    .states = 1, .numbers = momentum_numbers,
};

/* g += weight_decay param;  m = lerp(m, g, 1 - beta1);
   v = beta2 v + (1 - beta2) g g;
   param -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
   (Kingma and Ba, "Adam", 2015). */
const rp_op rp_op_adam = {
    .name = "adam", .inputs = 5, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_GUARDABLE | RP_SCALABLE,
    .writes = 1 | 1 << 2 | 1 << 3,
    .type = update_type, .cost = update_cost,
    .states = 2, .numbers = adam_numbers,
};

/* param *= 1 - lr weight_decay, then adam without weight decay (Loshchilov
   and Hutter, "Decoupled weight decay regularization", 2019). */
const rp_op rp_op_adamw = {
    .name = "adamw", .inputs = 5, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_GUARDABLE | RP_SCALABLE,
    .writes = 1 | 1 << 2 | 1 << 3,
    .type = update_type, .cost = update_cost,
    .states = 2, .numbers = adam_numbers,
};

/* ---- accumulate, assign, running_update --------------------------------- */

static rp_status write_type(const rp_node *node, rp_type *out) {
  (void)out;
  return check_like_leaf(node, 1, "the value");
}

const rp_op rp_op_accumulate = {
    .name = "accumulate", .inputs = 2, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_GUARDABLE,
    .writes = 1,
    .type = write_type, .cost = update_cost,
};

/* Another view of the leaf that is written would be overwritten while it is
   read: it is copied first. */
static bool assign_accepts(const rp_node *node, int input) {
  return input == 0 || node->inputs[1]->root != node->inputs[0]->root;
}

const rp_op rp_op_assign = {
    .name = "assign", .inputs = 2, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_STRIDED | RP_GUARDABLE,
    .writes = 1,
    .type = write_type, .accepts = assign_accepts, .cost = update_cost,
};

const rp_op rp_op_running_update = {
    .name = "running_update", .inputs = 2, .outputs = 0,
    .flags = RP_EFFECT | RP_NOT_DIFFERENTIABLE | RP_GUARDABLE,
    .writes = 1,
    .type = write_type, .cost = update_cost,
};
