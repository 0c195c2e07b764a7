/* Arrays of planes and windows over them, as pooling and resizing see them. */
#ifndef RP_CUDA_KERNELS_PLANES_H
#define RP_CUDA_KERNELS_PLANES_H

#include "base/window.h"

#include "rows.h"

namespace rp {

/* Planes of x's and y's sizes. */
struct planes {
  int64_t count, x[2], y[2];
};

static inline planes planes_of(const rp_type *x, const rp_type *y) {
  planes p = {1, {0, 0}, {0, 0}};
  for (int i = 0; i < x->rank - 2; i++) p.count *= x->dims[i];
  for (int d = 0; d < 2; d++) {
    p.x[d] = x->dims[x->rank - 2 + d];
    p.y[d] = y->dims[y->rank - 2 + d];
  }
  return p;
}

/* Element i of arrays of planes of `size`: plane, row, column. */
struct spot {
  int64_t plane, at[2];
};

__device__ __forceinline__ spot spot_of(int64_t i, const int64_t (&size)[2]) {
  spot s;
  int64_t rows;
  s.at[1] = divide(i, size[1], &rows);
  s.at[0] = divide(rows, size[0], &s.plane);
  return s;
}

static inline rp_window window_of(const rp_kernel_args *args) {
  rp_window w;
  for (int d = 0; d < 2; d++) {
    w.kernel[d] = args->ints[d];
    w.stride[d] = args->ints[2 + d];
    w.pad[d] = args->ints[4 + d];
    w.dilation[d] = args->ints[6 + d];
  }
  return w;
}

/* a / b for a >= 0: strides and dilations are mostly 1 or 2, and a division is
   dozens of instructions. */
template <typename I> __device__ __forceinline__ I over(I a, I b) {
  return b <= 2 ? a >> (b - 1) : a / b;
}

/* The outputs along d whose windows may reach x's index r: first..last. */
template <typename I>
__device__ __forceinline__ void windows_at(const rp_window &w, int d, I r,
                                           I count, I *first, I *last) {
  const I stride = (I)w.stride[d];
  const I reach = ((I)w.kernel[d] - 1) * (I)w.dilation[d];
  const I least = r + (I)w.pad[d] - reach;
  *first = least <= 0 ? 0 : over<I>(least + stride - 1, stride);
  *last = over<I>(r + (I)w.pad[d], stride);
  if (*last >= count) *last = count - 1;
}

} // namespace rp

#endif
