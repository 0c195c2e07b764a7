/* Plans, found again by their key; and the last request prepared, so that
   running it does not walk its graph again.

   Invariant: at most PLANS_MAX plans; the one used longest ago goes first. */
#ifndef RP_EXEC_CACHE_H
#define RP_EXEC_CACHE_H

#include "plan/plan.h"

/* What a request is bound to: made anew for every step. */
typedef struct rp_binding_set {
  rp_bindings bindings;
  RP_ARRAY(rp_tensor *) targets; /* loss, targets, taps: as graph.targets */
  RP_ARRAY(rp_tensor *) grads;   /* parameters whose .grad a minimize takes */
  RP_ARRAY(rp_node *) effectful; /* nodes whose effects run with it */
} rp_binding_set;

void rp_binding_set_free(rp_binding_set *set, rp_context *ctx);

typedef struct rp_plans {
  RP_ARRAY(rp_plan *) plans; /* most recently used last */
  int64_t misses;
  rp_plan *prepared;         /* borrowed from plans; NULL: none */
  rp_request request;
  uint64_t ordinal;          /* the recorder's, when it was prepared */
  rp_binding_set set;
} rp_plans;

rp_plan *rp_cache_find(rp_context *ctx, const rp_key *key);
rp_status rp_cache_add(rp_context *ctx, rp_plan *plan);
void rp_cache_forget_prepared(rp_context *ctx);
void rp_cache_free(rp_context *ctx);

#endif
