/* A contiguous array as (outer, n, inner) around the one dim that a kernel
   walks. */
#ifndef RP_CPU_EXTENT_H
#define RP_CPU_EXTENT_H

#include "exec/backend.h"

typedef struct rp_extent {
  int64_t outer, n, inner;
} rp_extent;

static inline rp_extent rp_extent_of(const rp_type *x, int64_t dim) {
  rp_extent e = {1, 1, 1};
  for (int i = 0; i < x->rank; i++) {
    if (i < dim) e.outer *= x->dims[i];
    else if (i == dim) e.n = x->dims[i];
    else e.inner *= x->dims[i];
  }
  return e;
}

#endif
