/* all_finite(x, ...) -> bool, rank 0: whether no element of any x is a NaN or
   an infinity; of empty ones, true. One dtype. */
#include "graph/op.h"

static rp_status all_finite_type(const rp_node *node, rp_type *out) {
  for (int i = 1; i < node->n_inputs; i++)
    if (rp_in(node, i)->dtype != rp_in(node, 0)->dtype)
      return rp_node_fail(node, RP_DTYPE, "%s and %s differ",
                          rp_dtype_name((rp_dtype)rp_in(node, 0)->dtype),
                          rp_dtype_name((rp_dtype)rp_in(node, i)->dtype));
  *out = rp_type_scalar(RP_BOOL);
  return RP_OK;
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
