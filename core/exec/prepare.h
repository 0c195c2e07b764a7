/* What a request is on its way to a plan, as its files share it: prepare.c
   collects and keys it, emit.c makes its graph. */
#ifndef RP_EXEC_PREPARE_H
#define RP_EXEC_PREPARE_H

#include "exec/cache.h"
#include "graph/graph.h"
#include "graph/walk.h"

typedef struct rp_preparation {
  rp_context *ctx;
  const rp_request *request;
  rp_walk walk;
  rp_key key;
  rp_binding_set set;
  RP_ARRAY(rp_tensor *) wrt; /* leaves to differentiate by; for MINIMIZE and
                                STEP one a slot, NULL where none */
  int device;                /* the slot it runs in */
} rp_preparation;

/* Whether updates wait until the loss and all gradients are known to be
   finite. */
static inline bool rp_is_guarded(const rp_request *r) {
  return r->action == RP_MINIMIZE && r->if_finite;
}

/* The graph of all that the request asks for, gradients and updates included,
   as its passes leave it. After a failure there is none. */
rp_status rp_graph_emit(rp_preparation *p, rp_graph *graph);

#endif
