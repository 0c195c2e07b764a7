/* layer_norm and rms_norm work on rows, one at a time: what norm.c and
   norm_grad.c see alike. bf16 is widened a block at a time; its weights and
   statistics are f32. */
#ifndef RP_CPU_NORM_H
#define RP_CPU_NORM_H

#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "exec/backend.h"

typedef struct shape {
  int64_t rows, width; /* N, D */
} shape;

static inline shape shape_of(const rp_type *x, const rp_type *w) {
  shape s = {1, rp_type_count(w)};
  for (int i = 0; i < x->rank - w->rank; i++) s.rows *= x->dims[i];
  return s;
}

#endif
