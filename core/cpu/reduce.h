/* How a contiguous array lies for a reduction.

   Adjacent dims of the same kind (kept or reduced) are one group, dims of
   size 1 none; what is left alternates. The last group is the run. Where it
   is reduced ("rows"), an output folds runs; where it is kept ("columns"),
   runs of outputs fold rows of x.

   A long fold is cut into chunks whose bounds follow from the shape alone, so
   that a sum's bits do not depend on who takes which chunk. */
#ifndef RP_CPU_REDUCE_H
#define RP_CPU_REDUCE_H

#include "exec/backend.h"

enum {
  RP_COLUMN_TILE = 4096, /* outputs that stay in the first-level cache */
  RP_FOLD_ROWS = 8       /* rows that are folded into them at once */
};

typedef struct rp_groups {
  int n;
  int64_t dims[RP_RANK], strides[RP_RANK], count;
} rp_groups;

typedef struct rp_layout {
  rp_groups kept, reduced; /* without the run */
  int64_t run;
  bool rows;               /* the run is reduced */
  int64_t chunk, chunks;   /* elements (rows) or rows (columns) of a partial,
                              and partials of an output, at least 1 */
} rp_layout;

/* Bit i of set: dim i of x is reduced. */
void rp_layout_of(rp_layout *out, const rp_type *x, uint32_t set);
/* Where entry `index`, in row-major order over the groups, lies. */
int64_t rp_groups_offset(const rp_groups *groups, int64_t index);
/* The dims among the attributes from `first` on; all when there is none. */
uint32_t rp_reduced_set(const rp_kernel_args *args, int first);

#endif
