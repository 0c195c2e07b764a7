/* Mixed precision: the casts that recording adds while rp_autocast is on. */
#ifndef RP_GRAPH_AUTOCAST_H
#define RP_GRAPH_AUTOCAST_H

#include "graph/node.h"

/* rp_record, with the casts of its inputs. */
rp_tensor *rp_autocast_record(rp_context *ctx, const rp_op *op,
                              rp_tensor *const *inputs, int n_inputs,
                              const int64_t *ints, int n_ints,
                              const double *reals, int n_reals);

#endif
