/* all_finite(x, ...) -> bool, rank 0: whether no element of any x is a NaN or
   an infinity; of empty ones, true. One dtype. */
#include "graph/op.h"

static rp_status all_finite_type(const rp_node *node, rp_type *out) {
  *out = rp_type_scalar(RP_BOOL);
  return rp_type_one_dtype(node);
}

static rp_cost all_finite_cost(const rp_node *node) {
  rp_cost cost = {0};
  for (int i = 0; i < node->n_inputs; i++) {
    cost.flops += (double)rp_type_count(rp_in(node, i));
    cost.bytes += (double)rp_type_bytes(rp_in(node, i));
  }
  return cost;
}

const rp_op rp_op_all_finite = {
    .name = "all_finite", .inputs = 1, .outputs = 1,
    .flags = RP_VARIADIC | RP_NOT_DIFFERENTIABLE,
    .type = all_finite_type, .cost = all_finite_cost,
};
