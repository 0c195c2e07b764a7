/* Reading indices: i32 or i64, checked before they are used. */
#ifndef RP_CPU_INDICES_H
#define RP_CPU_INDICES_H

#include "base/status.h"
#include "exec/backend.h"

static inline int64_t rp_index_at(const rp_array *indices, int64_t i) {
  return indices->type.dtype == RP_I32
             ? ((const int32_t *)indices->data)[i]
             : ((const int64_t *)indices->data)[i];
}

/* All in 0..limit-1 or equal to *allowed (NULL: no exception); else RP_VALUE
   for the first that is not. `what`: "label". */
static inline rp_status rp_indices_check(const rp_kernel_args *args, int input,
                                         int64_t limit, const int64_t *allowed,
                                         const char *what) {
  const rp_array *indices = &args->in[input];
  const int64_t n = rp_type_count(&indices->type);
  for (int64_t i = 0; i < n; i++) {
    const int64_t index = rp_index_at(indices, i);
    if (index >= 0 && index < limit) continue;
    if (allowed && index == *allowed) continue;
    if (limit == 0)
      return rp_fail(args->ctx, RP_VALUE, "%s %lld, none is valid", what,
                     (long long)index);
    return rp_fail(args->ctx, RP_VALUE, "%s %lld, valid 0..%lld", what,
                   (long long)index, (long long)limit - 1);
  }
  return RP_OK;
}

#endif
