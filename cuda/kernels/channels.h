/* x:(N, C, S...) as runs of `run` values, one for each image and channel. */
#ifndef RP_CUDA_CHANNELS_H
#define RP_CUDA_CHANNELS_H

#include "kernels/sums.h"

namespace rp {

struct channel_shape {
  int64_t images, channels, run; /* N, C, S */
};

static inline channel_shape channels_of(const rp_type *x) {
  channel_shape s = {x->dims[0], x->dims[1], 1};
  for (int i = 2; i < x->rank; i++) s.run *= x->dims[i];
  return s;
}

/* Adds a pack's sums of dy and of dy (x - mean). */
template <typename T, int V>
__device__ __forceinline__ void add_products(const pack<T, V> &dy,
                                             const pack<T, V> &x, wide<T> mean,
                                             wide<T> *sum, wide<T> *product) {
  for (int k = 0; k < V; k++) {
    const wide<T> d = widen(dy.at[k]);
    *sum += d;
    *product += d * (widen(x.at[k]) - mean);
  }
}

/* y = (x - mean) scale + b. */
template <typename T, int V>
__device__ __forceinline__ pack<T, V> affine(pack<T, V> x, wide<T> mean,
                                             wide<T> scale, wide<T> b) {
  for (int k = 0; k < V; k++)
    x.at[k] = narrow<T>((widen(x.at[k]) - mean) * scale + b);
  return x;
}

/* dx = scale dy - level - slope (x - mean). */
template <typename T, int V>
__device__ __forceinline__ pack<T, V> affine_grad(pack<T, V> dy,
                                                  const pack<T, V> &x,
                                                  wide<T> mean, wide<T> scale,
                                                  wide<T> level,
                                                  wide<T> slope) {
  for (int k = 0; k < V; k++)
    dy.at[k] = narrow<T>(widen(dy.at[k]) * scale - level -
                         (widen(x.at[k]) - mean) * slope);
  return dy;
}

template <typename T> wide<T> eps_of(const rp_kernel_args *args) {
  return (wide<T>)(args->n_reals > 0 ? args->reals[0] : 1e-5);
}

/* Blocks for items of a block each. */
static inline unsigned blocks_of(int64_t items) {
  return (unsigned)(items < 0x7fffffff ? items : 0x7fffffff);
}

} // namespace rp

#endif
