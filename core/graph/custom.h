/* A gradient of the user's (rp_custom_vjp): the recipe of the backward
   function, recorded once over placeholders, is recorded again over the real
   gradients. */
#ifndef RP_GRAPH_CUSTOM_H
#define RP_GRAPH_CUSTOM_H

#include "graph/tape.h"

void rp_custom_grad(rp_tape *tape, const rp_node *node, rp_tensor *const *dy,
                    rp_tensor **dx);
/* The same recipes over other inputs: out[i] is roots[i] with from[k]
   replaced by to[k]; what does not depend on any from is shared. */
rp_status rp_substitute(rp_tape *tape, rp_tensor *const *roots, int n_roots,
                        rp_tensor *const *from, rp_tensor *const *to, int n,
                        rp_tensor **out);

#endif
