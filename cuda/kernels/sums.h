/* Sums over a block in a fixed order, beside kernel.h's block_reduce: two at
   once, and means with their sums of squared deviations. */
#ifndef RP_CUDA_SUMS_H
#define RP_CUDA_SUMS_H

#include "kernels/pack.h"

namespace rp {

/* a and b, each summed over the block's threads, in every thread. `scratch`
   is shared, 2 WARP elements. */
template <typename W>
__device__ __forceinline__ void block_sums(W *a, W *b, W *scratch) {
  *a = warp_reduce(*a, sum_of());
  *b = warp_reduce(*b, sum_of());
  const int warps = (int)blockDim.x / WARP, lane = threadIdx.x % WARP;
  if (warps == 1) return;
  __syncthreads();
  if (lane == 0) {
    scratch[threadIdx.x / WARP] = *a;
    scratch[WARP + threadIdx.x / WARP] = *b;
  }
  __syncthreads();
  *a = warp_reduce(lane < warps ? scratch[lane] : (W)0, sum_of());
  *b = warp_reduce(lane < warps ? scratch[WARP + lane] : (W)0, sum_of());
}

/* Of `count` values: their mean and the sum of their squared deviations from
   it. Joined by the formulas of Chan, Golub and LeVeque ("Updating formulae
   and a pairwise algorithm for computing sample variances", 1979): no
   cancellation, whatever the mean. */
template <typename W> struct moments {
  W count, mean, squares;
};

template <typename W>
__device__ __forceinline__ moments<W> join(moments<W> a, moments<W> b) {
  const W count = a.count + b.count;
  const W share = count > 0 ? b.count / count : (W)0;
  const W apart = b.mean - a.mean;
  return moments<W>{count, a.mean + apart * share,
                    a.squares + b.squares + apart * apart * a.count * share};
}

template <typename W, int V>
__device__ __forceinline__ moments<W> moments_of(const W (&x)[V]) {
  W mean = x[0], squares = 0;
  for (int k = 1; k < V; k++) mean += x[k];
  mean /= (W)V;
  for (int k = 0; k < V; k++) squares += (x[k] - mean) * (x[k] - mean);
  return moments<W>{(W)V, mean, squares};
}

/* The lower lane is always the first of the two: every lane has the same. */
template <typename W>
__device__ __forceinline__ moments<W> warp_join(moments<W> m) {
  for (int step = 1; step < WARP; step *= 2) {
    const moments<W> other{__shfl_xor_sync(0xffffffffu, m.count, step),
                           __shfl_xor_sync(0xffffffffu, m.mean, step),
                           __shfl_xor_sync(0xffffffffu, m.squares, step)};
    m = threadIdx.x & step ? join(other, m) : join(m, other);
  }
  return m;
}

/* Over the block, the same in every thread. `scratch` is shared, 3 WARP
   elements. */
template <typename W>
__device__ __forceinline__ moments<W> block_join(moments<W> m, W *scratch) {
  m = warp_join(m);
  const int warps = (int)blockDim.x / WARP, lane = threadIdx.x % WARP;
  if (warps == 1) return m;
  __syncthreads();
  if (lane == 0) {
    W *at = scratch + 3 * (threadIdx.x / WARP);
    at[0] = m.count, at[1] = m.mean, at[2] = m.squares;
  }
  __syncthreads();
  m = moments<W>{0, 0, 0};
  if (lane < warps)
    m = moments<W>{scratch[3 * lane], scratch[3 * lane + 1],
                   scratch[3 * lane + 2]};
  return warp_join(m);
}

} // namespace rp

#endif
