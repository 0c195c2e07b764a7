/* Copies between strided arrays; see copy.c. */
#ifndef RP_CPU_COPY_H
#define RP_CPU_COPY_H

#include "exec/backend.h"

/* Element by element, `type` giving dims and dtype: to[...] = from[...].
   Strides in elements; 0 is fine in `from_strides`. The two do not overlap. */
void rp_copy_strided(const rp_type *type, void *to, const int64_t *to_strides,
                     const void *from, const int64_t *from_strides);

#endif
