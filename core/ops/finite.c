/* all_finite(x) -> bool, rank 0: whether no element of x is a NaN or an
   infinity; of an empty x, true. */
#include "graph/op.h"

static rp_status all_finite_type(const rp_node *node, rp_type *out) {
  (void)node;
  *out = rp_type_scalar(RP_BOOL);
  return RP_OK;
}

static rp_cost all_finite_cost(const rp_node *node) {
  return (rp_cost){.flops = (double)rp_type_count(rp_in(node, 0)),
                   .bytes = (double)rp_type_bytes(rp_in(node, 0))};
}

const rp_op rp_op_all_finite = {
    .name = "all_finite", .inputs = 1, .outputs = 1,
    .flags = RP_NOT_DIFFERENTIABLE,
    .type = all_finite_type, .cost = all_finite_cost,
};
