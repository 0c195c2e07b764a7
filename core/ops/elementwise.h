/* What elementwise records share. */
#ifndef RP_OPS_ELEMENTWISE_H
#define RP_OPS_ELEMENTWISE_H

#include "graph/op.h"

enum {
  /* Every elementwise kernel walks inputs of any strides. */
  RP_POINTWISE = RP_ELEMENTWISE | RP_STRIDED,
  /* in_place of one and of two inputs. */
  RP_OVER_FIRST = 1, RP_OVER_BOTH = 3
};

/* A function made of polynomials: about 20 FLOPs an element. */
static inline rp_cost rp_cost_function(const rp_node *node) {
  rp_cost cost = rp_cost_elementwise(node);
  cost.flops *= 20;
  return cost;
}

#endif
