/* Reverse-mode differentiation: recipes in, recipes out. */
#ifndef RP_GRAPH_AUTODIFF_H
#define RP_GRAPH_AUTODIFF_H

#include "graph/tape.h"

/* dx[i] = sum over k of (d y[k] / d x[i])^T dy[k], emitted through the tape
   (borrowed from it); NULL where y does not depend on x[i]. dy[k] NULL: no
   gradient there. Inputs between x and y only; with `local`, what lies behind
   x is not looked at (the x are independent of each other).
   Contributions to one value are added in the reverse of its readers' record
   order: an order no strategy changes.
   Source: the usual reverse sweep (Griewank & Walther, "Evaluating
   Derivatives", ch. 3), on recipes. */
rp_status rp_vjp(rp_tape *tape, rp_tensor *const *y, rp_tensor *const *dy,
                 int n_y, rp_tensor *const *x, int n_x, bool local,
                 rp_tensor **dx);

#endif
