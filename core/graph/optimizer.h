/* Optimizers: parameters in groups, their states, and the effects that update
   them.

   Numbers (learning rate, ..., step count) are one f64 leaf a group, written
   before a step: they are bound at run time and in no plan's key. */
#ifndef RP_GRAPH_OPTIMIZER_H
#define RP_GRAPH_OPTIMIZER_H

#include "graph/tape.h"

typedef struct rp_optimizer_slot {
  rp_tensor *param;
  rp_tensor *states[4];
  int32_t group;
} rp_optimizer_slot;

struct rp_optimizer {
  rp_context *ctx;
  const rp_op *update;
  int32_t n_numbers; /* without the step count */
  RP_ARRAY(rp_optimizer_slot) slots;
  RP_ARRAY(rp_tensor *) groups; /* the numbers leaf of each */
  rp_tensor *max_norm;          /* RP_NUMBER f64, NULL: no clipping */
  int64_t step;
};

/* op over all xs that are not NULL, in order: a node for each dtype (and for
   each RP_INPUTS_MAX), put together by `join`. NULL where there is none. */
rp_tensor *rp_emit_over_all(rp_tape *tape, const char *op, const char *join,
                            rp_tensor *const *xs, int32_t n);
/* Emits, for each slot whose gradient grads[i] is not NULL, its update (after
   clipping); updates[i] is the effect's handle or NULL. */
rp_status rp_optimizer_emit(rp_optimizer *opt, rp_tape *tape,
                            rp_tensor **grads, rp_tensor **updates);
/* Writes step + 1 where the kernels read it; and takes it for done. */
void rp_optimizer_begin_step(rp_optimizer *opt);
void rp_optimizer_end_step(rp_optimizer *opt);

#endif
