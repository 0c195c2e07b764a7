/* One run of a finished plan, as its files share it: run_data.c keeps what runs
   need, run.c binds one, launch.c runs its instructions. */
#ifndef RP_EXEC_RUN_H
#define RP_EXEC_RUN_H

#include "exec/bound.h"
#include "exec/cache.h"
#include "exec/recording.h"
#include "exec/watch.h"

/* What runs need of a plan beyond its program, made once. */
struct rp_run_data {
  rp_array *arrays;  /* by ref, with room for data pointers */
  int32_t n;
  rp_kernel_args *many; /* room for the largest call of several RUNs */
  int32_t most;         /* how many those are, 0 where there is none */
  bool may_fault;    /* an index is computed on a device that says so later */
  bool has_run, is_unrecordable;
  rp_bound bound;
  rp_recordings recordings;
  int32_t *slots;    /* by graph target: where its result is delivered, -1 */
};

typedef struct rp_execution {
  rp_plan *plan;
  rp_context *ctx;
  rp_binding_set set;
  void **leaf_data;      /* by graph leaf, on the plan's device */
  bool *fresh;           /* by graph leaf: its first bytes came with this run */
  rp_storage **results;  /* by graph target, NULL for leaves */
  int64_t other_bytes;   /* storage that is not this program's */
  rp_watch watch;        /* plan NULL: nothing is watched */
} rp_execution;

/* The tensor bound to a leaf; NULL for a constant. */
static inline rp_tensor *rp_bound_tensor(const rp_execution *e, int32_t leaf) {
  const int32_t binding = e->plan->graph.leaves.at[leaf].binding;
  return binding < 0 ? NULL : e->set.bindings.tensors.at[binding];
}

/* RUNs from instruction i on that are one call. */
static inline int32_t rp_call_length(const rp_program *program, int32_t i) {
  int32_t n = 1;
  while (i + n < program->instructions.n &&
         program->instructions.at[i + n].joins)
    n++;
  return n;
}

/* Makes plan->run where there is none yet. RP_NOMEM. */
rp_status rp_run_data_new(rp_plan *plan);
/* Runs all instructions: one by one, or from a recording of an earlier run
   where the device has such and nobody watches or traces. Small results are
   in their storage then. */
rp_status rp_launch(rp_execution *e);

#endif
