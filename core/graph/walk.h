/* Walks: what a set of tensors is made of, without recursion. */
#ifndef RP_GRAPH_WALK_H
#define RP_GRAPH_WALK_H

#include "graph/node.h"

typedef struct rp_walk {
  RP_ARRAY(rp_node *) nodes;  /* ordinal order; node->walk_index is here ... */
  RP_ARRAY(rp_node *) leaves; /* ... or, for leaves, here (order of meeting:
                                 newest reader first, inputs in order) */
  RP_ARRAY(rp_node *) taps;   /* nodes with a tapped output */
  uint64_t epoch;             /* node->walk of all that was met */
} rp_walk;

/* Which nodes to look through. */
typedef enum rp_walk_rule {
  RP_WALK_ALL,      /* every recipe down to the leaves */
  RP_WALK_VALUES,   /* stop at held values: what running needs */
  RP_WALK_GRADIENT  /* stop at held values that need no gradient */
} rp_walk_rule;

/* Collects the nodes behind roots. Held values stopped at are included; the
   nodes of `stops` are too, whatever the rule, and nothing behind them.
   walk_index of a node stays valid until another walk meets it. Views'
   recipe-only inputs (custom gradients) are followed too. RP_NOMEM. */
rp_status rp_walk_collect(rp_walk *walk, rp_context *ctx,
                          rp_tensor *const *roots, int n_roots,
                          rp_walk_rule rule, rp_tensor *const *stops,
                          int n_stops);
void rp_walk_free(rp_walk *walk, rp_context *ctx);

static inline bool rp_walk_met(const rp_walk *walk, const rp_node *node) {
  return node->walk == walk->epoch;
}

#endif
