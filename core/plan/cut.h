/* Which values of a stretch to keep and which to replay, at a given price of
   memory: a minimum cut.

   Source: Jain et al.'s and PyTorch's min-cut partitioners, with replays
   chained: a value that is replayed asks for its inputs, kept or replayed. */
#ifndef RP_PLAN_CUT_H
#define RP_PLAN_CUT_H

#include "base/memory.h"

typedef struct rp_cut_value {
  bool needed;        /* backward reads it */
  double keep_cost;   /* price * bytes */
  double replay_cost; /* seconds of its node */
  int32_t first_input, n_inputs; /* in inputs: values of the stretch */
} rp_cut_value;

/* keep[v]: whether v is kept in a cheapest choice in which every needed value
   is kept or replayed, and a replayed one's inputs are too. RP_NOMEM. */
rp_status rp_cut_solve(rp_context *ctx, const rp_cut_value *values, int32_t n,
                       const int32_t *inputs, bool *keep);

#endif
