/* An attention problem as its kernels see it: operands of any strides, whether
   they came packed or apart. */
#ifndef RP_CUDA_ATTENTION_H
#define RP_CUDA_ATTENTION_H

#include "kernel.h"

namespace rp {

/* Element (b, h, t, d); lse has no d, a mask has (b, h, i, j). Strides in
   elements. */
struct attention_array {
  void *data;
  int64_t b, h, t, d;
  bool by_eights; /* a row is whole groups of 8 numbers, each aligned */
};

struct attention_problem {
  int64_t batch, heads, queries, keys, depth, value_depth;
  int64_t diagonal; /* query i sees the keys j <= i + diagonal */
  double scale;
  bool drops;
  uint32_t from;    /* a word from here on keeps, ... */
  double factor;    /* ... and what is kept is multiplied by this */
  const uint64_t *draw;
  attention_array q, k, v, mask, out, lse, dout, dq, dk, dv;
  void *delta; /* (B, H, Tq): sum_e dout out */
};

/* What a block works on: a tile of one head's queries or keys, and a chunk of
   the columns. */
struct attention_item {
  int64_t head, b, h, tile;
  int64_t chunk;
};
__device__ __forceinline__ attention_item
item_of(const attention_problem &p, int64_t item, int64_t tiles,
        int64_t chunks) {
  attention_item x;
  x.chunk = item % chunks;
  item /= chunks;
  x.tile = item % tiles;
  x.head = item / tiles;
  x.b = x.head / p.heads;
  x.h = x.head % p.heads;
  return x;
}

template <typename T>
__device__ __forceinline__ T *row_of(const attention_array &x,
                                     const attention_item &at, int64_t t) {
  return (T *)x.data + (at.b * x.b + at.h * x.h + t * x.t);
}

/* Keys that queries up to i see: the first so many. */
__device__ __forceinline__ int64_t keys_until(const attention_problem &p,
                                              int64_t i) {
  const int64_t n = i + p.diagonal + 1;
  return n < 0 ? 0 : n < p.keys ? n : p.keys;
}
/* The first query that sees key j. */
__device__ __forceinline__ int64_t queries_from(const attention_problem &p,
                                                int64_t j) {
  return j > p.diagonal ? j - p.diagonal : 0;
}

/* Of n keys from j on, the first so many that query i sees, the mask aside. */
__device__ __forceinline__ int seen_of(const attention_problem &p, int64_t i,
                                       int64_t j, int n) {
  if (i >= p.queries) return 0;
  const int64_t seen = keys_until(p, i) - j;
  return seen < 0 ? 0 : seen < n ? (int)seen : n;
}
/* Whether the mask, where there is one, lets query i see key j. Both are
   there. */
__device__ __forceinline__ bool unmasked(const attention_problem &p,
                                         const attention_item &at, int64_t i,
                                         int64_t j) {
  return p.mask.data == nullptr ||
         row_of<const uint8_t>(p.mask, at, i)[j * p.mask.d];
}
/* Whether every query of i .. i + m - 1 sees every key of j .. j + n - 1. */
__device__ __forceinline__ bool sees_all(const attention_problem &p, int64_t i,
                                         int m, int64_t j, int n) {
  return p.mask.data == nullptr && i + m <= p.queries && j + n <= p.keys &&
         j + n - 1 <= i + p.diagonal;
}

/* Bit k: key 4 quad + k of query i is kept. Word 4 ceil(Tk / 4) r + j is that
   of key j of row r = head Tq + i. */
__device__ __forceinline__ uint32_t kept_of(const attention_problem &p,
                                            const attention_item &at,
                                            int64_t i, int64_t quad) {
  const uint64_t row = (uint64_t)(at.head * p.queries + i);
  const uint64_t blocks = (uint64_t)(p.keys + 3) / 4;
  const uint4 w = philox(p.draw, row * blocks + (uint64_t)quad);
  return (uint32_t)(w.x >= p.from) | (uint32_t)(w.y >= p.from) << 1 |
         (uint32_t)(w.z >= p.from) << 2 | (uint32_t)(w.w >= p.from) << 3;
}

} // namespace rp

#endif
