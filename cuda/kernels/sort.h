/* Positions 0..n-1 sorted by a key, those of equal keys in order: 8 bits a
   pass, the least significant first. A pass counts the digits of each tile of
   positions, then each tile finds its places among all others' and moves.
   Integers are counted by atomics: the counts do not depend on their order. */
#ifndef RP_CUDA_KERNELS_SORT_H
#define RP_CUDA_KERNELS_SORT_H

#include "kernel.h"

namespace rp {

enum { DIGITS = 256, LEAST_TILE = 2 * BLOCK, MOST_TILES = 128 };
static_assert((int)DIGITS == (int)BLOCK, "a thread a digit");

struct sorting {
  int64_t n, tile, tiles;
  int passes;
  /* In the workspace: of each tile, its digits' numbers; and what is sorted,
     back and forth. */
  uint32_t *counts, *keys[2], *positions[2];
};

/* n positions, below 2^32, with keys in 0..limit-1, limit at most 2^32. */
static inline sorting sorting_of(int64_t n, int64_t limit) {
  sorting s = {};
  s.n = n;
  s.tile = (n + MOST_TILES - 1) / MOST_TILES;
  s.tile = (s.tile + BLOCK - 1) / BLOCK * BLOCK;
  if (s.tile < LEAST_TILE) s.tile = LEAST_TILE;
  s.tiles = (n + s.tile - 1) / s.tile;
  s.passes = 1;
  while (s.passes < 4 && (limit - 1) >> 8 * s.passes) s.passes++;
  return s;
}

/* What it needs of the workspace, after `bytes` that are taken; *s then knows
   where. */
static inline int64_t sorting_place(sorting *s, void *workspace,
                                    int64_t bytes) {
  uint32_t **const arrays[5] = {&s->counts, &s->keys[0], &s->positions[0],
                                &s->keys[1], &s->positions[1]};
  for (int i = 0; i < (s->passes > 1 ? 5 : 3); i++) {
    const int64_t count = i == 0 ? s->tiles * DIGITS : s->n;
    bytes = (bytes + 255) / 256 * 256;
    if (workspace) *arrays[i] = (uint32_t *)((char *)workspace + bytes);
    bytes += count * (int64_t)sizeof(uint32_t);
  }
  return bytes;
}

/* What pass p reads: for p > 0, what the one before wrote. */
struct sorted_keys {
  const uint32_t *keys, *positions;
  __device__ __forceinline__ uint32_t key(int64_t i) const { return keys[i]; }
  __device__ __forceinline__ uint32_t position(int64_t i) const {
    return positions[i];
  }
};

/* Keys is sorted_keys, or the caller's, whose position(i) is i. */
template <typename Keys>
__global__ void __launch_bounds__(BLOCK)
sort_count(Keys from, sorting s, int shift) {
  __shared__ uint32_t counts[DIGITS];
  for (int64_t t = blockIdx.x; t < s.tiles; t += gridDim.x) {
    const int64_t first = t * s.tile;
    const int64_t last = s.n - first < s.tile ? s.n : first + s.tile;
    counts[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = first + threadIdx.x; i < last; i += BLOCK)
      atomicAdd(&counts[from.key(i) >> shift & (DIGITS - 1)], 1u);
    __syncthreads();
    s.counts[t * DIGITS + threadIdx.x] = counts[threadIdx.x];
    __syncthreads();
  }
}

/* The sum over the block's threads before this one. */
__device__ __forceinline__ uint32_t sum_before(uint32_t x, uint32_t *scratch) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  uint32_t sum = x;
  for (int by = 1; by < WARP; by *= 2) {
    const uint32_t left = __shfl_up_sync(0xffffffffu, sum, by);
    if (lane >= by) sum += left;
  }
  __syncthreads();
  if (lane == WARP - 1) scratch[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; w++) sum += scratch[w];
  return sum - x;
}

/* The lanes of the warp that have this digit, among those that are `in`. */
__device__ __forceinline__ unsigned same_digit(bool in, uint32_t digit) {
  unsigned lanes = __ballot_sync(0xffffffffu, in);
  for (int bit = 0; bit < 8; bit++) {
    const bool is = digit >> bit & 1u;
    const unsigned set = __ballot_sync(0xffffffffu, is);
    lanes &= is ? set : ~set;
  }
  return lanes;
}

template <typename Keys>
__global__ void __launch_bounds__(BLOCK)
sort_move(Keys from, sorting s, int shift, uint32_t *keys,
          uint32_t *positions) {
  enum { WARPS = BLOCK / WARP };
  __shared__ uint32_t scratch[WARP], places[WARPS][DIGITS];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  for (int64_t t = blockIdx.x; t < s.tiles; t += gridDim.x) {
    /* This thread's digit: where the tile's first such goes. */
    uint32_t next = 0, all = 0;
    for (int64_t k = 0; k < s.tiles; k++) {
      const uint32_t count = s.counts[k * DIGITS + threadIdx.x];
      if (k < t) next += count;
      all += count;
    }
    next += sum_before(all, scratch);
    const int64_t first = t * s.tile;
    const int64_t last = s.n - first < s.tile ? s.n : first + s.tile;
    for (int64_t from_here = first; from_here < last; from_here += BLOCK) {
      const int64_t i = from_here + threadIdx.x;
      const bool in = i < last;
      const uint32_t key = in ? from.key(i) : 0;
      const uint32_t digit = key >> shift & (DIGITS - 1);
      const unsigned same = same_digit(in, digit);
      const int rank = __popc(same & ((1u << lane) - 1u));
      for (int w = 0; w < WARPS; w++) places[w][threadIdx.x] = 0;
      __syncthreads();
      if (in && rank == 0) places[warp][digit] = (uint32_t)__popc(same);
      __syncthreads();
      for (int w = 0; w < WARPS; w++) {
        const uint32_t count = places[w][threadIdx.x];
        places[w][threadIdx.x] = next;
        next += count;
      }
      __syncthreads();
      if (in) {
        const uint32_t to = places[warp][digit] + (uint32_t)rank;
        keys[to] = key;
        positions[to] = from.position(i);
      }
      __syncthreads();
    }
  }
}

/* Sorts; *out: where the sorted keys and positions are. */
template <typename Keys>
rp_status sort(const rp_kernel_args *args, const char *name, const sorting &s,
               Keys first, sorted_keys *out) {
  const dim3 grid((unsigned)s.tiles);
  for (int p = 0; p < s.passes; p++) {
    uint32_t *keys = s.keys[p % 2], *positions = s.positions[p % 2];
    rp_status status =
        p == 0 ? launch(args, name, sort_count<Keys>, grid, dim3(BLOCK), 0,
                        first, s, 0)
               : launch(args, name, sort_count<sorted_keys>, grid, dim3(BLOCK),
                        0, *out, s, 8 * p);
    if (status != RP_OK) return status;
    status = p == 0 ? launch(args, name, sort_move<Keys>, grid, dim3(BLOCK), 0,
                             first, s, 0, keys, positions)
                    : launch(args, name, sort_move<sorted_keys>, grid,
                             dim3(BLOCK), 0, *out, s, 8 * p, keys, positions);
    if (status != RP_OK) return status;
    *out = sorted_keys{keys, positions};
  }
  return RP_OK;
}

} // namespace rp

#endif
