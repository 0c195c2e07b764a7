/* The registry: every op's record, found by name or by index. */
#ifndef RP_GRAPH_REGISTRY_H
#define RP_GRAPH_REGISTRY_H

#include "graph/op.h"

/* Position in registry.def; -1 for a record that is not in it. */
int rp_op_index(const rp_op *op);
/* Backends say which dtypes of which op they can run (bit = dtype). */
void rp_op_add_kernel(const rp_op *op, rp_dtype dtype);

#endif
