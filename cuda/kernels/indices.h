/* Indices, i32 or i64. */
#ifndef RP_CUDA_KERNELS_INDICES_H
#define RP_CUDA_KERNELS_INDICES_H

#include "kernel.h"

namespace rp {

struct indices {
  const void *data;
  bool is_i64;

  __device__ __forceinline__ int64_t operator[](int64_t i) const {
    return is_i64 ? ((const int64_t *)data)[i] : ((const int32_t *)data)[i];
  }
};

static inline indices indices_of(const rp_array *a) {
  return indices{a->data, a->type.dtype == RP_I64};
}

/* Indices that are to lie in 0..limit-1, and where to note one that does
   not. */
struct checked_indices {
  indices of;
  int64_t limit;
  rp_cuda_fault *fault;
  int node;

  __device__ __forceinline__ int64_t operator[](int64_t i) const {
    return checked_index(of[i], limit, fault, node);
  }
};

static inline checked_indices checked(const rp_kernel_args *args, int input,
                                      int64_t limit) {
  return checked_indices{indices_of(&args->in[input]), limit,
                         rp_cuda_of(args)->fault, args->node};
}

} // namespace rp

#endif
