/* Recording, from inside. */
#ifndef RP_GRAPH_RECORD_H
#define RP_GRAPH_RECORD_H

#include "graph/node.h"

enum { RP_INPUTS_MAX = 4096 };

/* Any op, effects included; random ops draw from *stream when it is given,
   from a new one when it is NULL. Returns a reference. */
rp_tensor *rp_record_with_stream(rp_context *ctx, const rp_op *op,
                                 rp_tensor *const *inputs, int n_inputs,
                                 const int64_t *ints, int n_ints,
                                 const double *reals, int n_reals,
                                 const rp_stream *stream);
/* Says RP_STALE: `op` wanted the value of a node that is dead. */
rp_status rp_stale_fail(const rp_node *node, const char *op);

#endif
