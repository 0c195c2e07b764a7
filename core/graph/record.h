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
/* A node with room for its attributes and counted inputs, of which it has none
   yet: one reference, not linked. NULL: RP_NOMEM. */
rp_node *rp_node_new(rp_context *ctx, const rp_op *op, int n_inputs,
                     int n_outputs, int n_ints, int n_reals);
/* Puts it last in record order. */
void rp_node_link(rp_node *node);
/* Takes back one that was never linked, with the inputs it has. */
void rp_node_discard(rp_node *node);
/* Says RP_STALE where t can have no value any more and `op` wants it. */
rp_status rp_check_fresh(const rp_tensor *t, const char *op);
/* Says RP_STALE: `op` wanted the value of a node that is dead. */
rp_status rp_stale_fail(const rp_node *node, const char *op);

#endif
