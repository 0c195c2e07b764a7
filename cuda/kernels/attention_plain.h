/* Attention by multiply-adds, for any dtype and any head size.

   A block of 16 x 16 threads makes a tile of 64 x 64 scores, 4 x 4 a thread,
   and sums products with it into a chunk of COLUMNS columns, 4 rows a thread.
   Operands come through shared memory a stretch of STRETCH rows or columns at
   a time, so no head size is too large; where the columns are more than a
   chunk, each chunk's block makes the scores again. */
#ifndef RP_CUDA_ATTENTION_PLAIN_H
#define RP_CUDA_ATTENTION_PLAIN_H

#include "attention.h"

namespace rp {
namespace {

constexpr int TILE = 64, PITCH = TILE + 4;

__device__ __forceinline__ float fused(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
__device__ __forceinline__ double fused(double a, double b, double c) {
  return __fma_rn(a, b, c);
}
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) {
  return scalar::exp(x);
}
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) {
  return scalar::log(x);
}

template <typename N> struct alignas(16) four {
  N at[4];
};
template <typename N> __device__ __forceinline__ four<N> &four_at(N *x) {
  return *reinterpret_cast<four<N> *>(x);
}

/* QUADS groups of 4 columns to a thread. */
template <typename T, int QUADS> struct plain {
  typedef wide<T> number;
  static constexpr int COLUMNS = TILE * QUADS;
  static constexpr int STRETCH = 128 / (int)sizeof(number);
  static constexpr int STAGE =
      STRETCH * (2 * PITCH > COLUMNS ? 2 * PITCH : COLUMNS);
  static constexpr int SHARED = (STAGE + TILE * PITCH) * (int)sizeof(number);
  number *stage, *weights; /* shared; weights[inner][outer] */

  __device__ __forceinline__ explicit plain(number *shared)
      : stage(shared), weights(shared + STAGE) {}

  static __device__ __forceinline__ int x() { return (int)threadIdx.x % 16; }
  static __device__ __forceinline__ int y() { return (int)threadIdx.x / 16; }

  /* to[d][r] of TILE rows from t on, STRETCH columns from d on; zeros where
     there are none. Eight neighbours of four rows at a time, which fall into
     different banks. */
  static __device__ __forceinline__ void
  read_across(const attention_array &from, const attention_item &at, int64_t t,
              int64_t rows, int64_t d, int64_t width, number *to) {
    const int left = (int)(width - d < STRETCH ? width - d : STRETCH);
    for (int r = (int)threadIdx.x / 8; r < TILE; r += BLOCK / 8) {
      const bool there = t + r < rows;
      const T *row = row_of<const T>(from, at, there ? t + r : 0) + d * from.d;
      for (int c = (int)threadIdx.x % 8; c < STRETCH; c += 8)
        to[c * PITCH + r] = there && c < left ? widen<T>(row[c * from.d])
                                              : number(0);
    }
  }

  /* to[r][c] of STRETCH rows from t on, COLUMNS columns from d on. */
  static __device__ __forceinline__ void
  read_along(const attention_array &from, const attention_item &at, int64_t t,
             int64_t rows, int64_t d, int64_t width, number *to) {
    const int c = (int)threadIdx.x % COLUMNS;
    const int left = (int)(rows - t < STRETCH ? rows - t : STRETCH);
    const T *column = row_of<const T>(from, at, t) + (d + c) * from.d;
    for (int r = (int)threadIdx.x / COLUMNS; r < STRETCH; r += BLOCK / COLUMNS)
      to[r * COLUMNS + c] = r < left && d + c < width
                                ? widen<T>(column[r * from.t])
                                : number(0);
  }

  /* s[r][c] = sum_d a[i + 4 y + r, d] b[j + 4 x + c, d]. */
  __device__ __forceinline__ void
  score(const attention_array &a, int64_t i, int64_t a_rows,
        const attention_array &b, int64_t j, int64_t b_rows,
        const attention_item &at, int64_t width, number (&s)[4][4]) const {
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4; c++) s[r][c] = 0;
    for (int64_t d = 0; d < width; d += STRETCH) {
      __syncthreads();
      read_across(a, at, i, a_rows, d, width, stage);
      read_across(b, at, j, b_rows, d, width, stage + STRETCH * PITCH);
      __syncthreads();
#pragma unroll 8
      for (int k = 0; k < STRETCH; k++) {
        const four<number> p = four_at(&stage[k * PITCH + 4 * y()]);
        const four<number> q =
            four_at(&stage[(STRETCH + k) * PITCH + 4 * x()]);
        for (int r = 0; r < 4; r++)
          for (int c = 0; c < 4; c++)
            s[r][c] = fused(p.at[r], q.at[c], s[r][c]);
      }
    }
  }

  /* sum[r][c] += sum_k w[4 y + r][k] from[t + k, d + column c], where thread
     (x, y) brings w[r][c] of row 4 y + r and k = 4 x + c. */
  __device__ __forceinline__ void
  gather(const number (&w)[4][4], const attention_array &from, int64_t t,
         int64_t rows, const attention_item &at, int64_t d, int64_t width,
         number (&sum)[4][4 * QUADS]) const {
    __syncthreads();
    for (int c = 0; c < 4; c++)
      four_at(&weights[(4 * x() + c) * PITCH + 4 * y()]) =
          four<number>{{w[0][c], w[1][c], w[2][c], w[3][c]}};
    for (int first = 0; first < TILE; first += STRETCH) {
      if (t + first >= rows) break;
      __syncthreads();
      read_along(from, at, t + first, rows, d, width, stage);
      __syncthreads();
#pragma unroll 4
      for (int k = 0; k < STRETCH; k++) {
        const four<number> p =
            four_at(&weights[(first + k) * PITCH + 4 * y()]);
        for (int n = 0; n < QUADS; n++) {
          const four<number> q =
              four_at(&stage[k * COLUMNS + n * TILE + 4 * x()]);
          for (int r = 0; r < 4; r++)
            for (int c = 0; c < 4; c++)
              sum[r][4 * n + c] = fused(p.at[r], q.at[c], sum[r][4 * n + c]);
        }
      }
    }
  }

  static __device__ __forceinline__ void clear(number (&sum)[4][4 * QUADS]) {
    for (int r = 0; r < 4; r++)
      for (int c = 0; c < 4 * QUADS; c++) sum[r][c] = 0;
  }

  /* Rows times factor[r], which lie contiguous in their last dim. */
  static __device__ __forceinline__ void
  write(const number (&sum)[4][4 * QUADS], const number (&factor)[4],
        const attention_array &to, int64_t t, int64_t rows,
        const attention_item &at, int64_t d, int64_t width) {
    for (int r = 0; r < 4; r++) {
      const int64_t i = t + 4 * y() + r;
      if (i >= rows) break;
      T *row = row_of<T>(to, at, i);
      for (int c = 0; c < 4 * QUADS; c++) {
        const int64_t column = d + c / 4 * TILE + 4 * x() + c % 4;
        if (column < width) row[column] = narrow<T>(sum[r][c] * factor[r]);
      }
    }
  }
};

/* Over the 16 threads of a row. */
template <typename N, typename F>
__device__ __forceinline__ N row_reduce(N x, F f) {
  for (int step = 8; step > 0; step /= 2)
    x = f(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

template <typename N> __device__ __forceinline__ N minus_infinity() {
  return -(N)INFINITY;
}

/* ---- forward ------------------------------------------------------------ */

template <typename T, int QUADS>
__global__ void __launch_bounds__(BLOCK, 1)
plain_forward(attention_problem p, int64_t items, int64_t chunks) {
  typedef plain<T, QUADS> block;
  typedef wide<T> N;
  RP_DYNAMIC_SHARED(N, shared);
  const block own(shared);
  const int64_t tiles = (p.queries + TILE - 1) / TILE;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const attention_item at = item_of(p, item, tiles, chunks);
    const int64_t i = (tiles - 1 - at.tile) * TILE, row = i + 4 * block::y();
    const int64_t first = at.chunk * block::COLUMNS;
    const int64_t last = (i + TILE < p.queries ? i + TILE : p.queries) - 1;
    const int64_t limit = keys_until(p, last);
    N sum[4][4 * QUADS], top[4], total[4];
    block::clear(sum);
    for (int r = 0; r < 4; r++) {
      top[r] = minus_infinity<N>();
      total[r] = 0;
    }
    for (int64_t j = 0; j < limit; j += TILE) {
      N s[4][4];
      own.score(p.q, i, p.queries, p.k, j, p.keys, at, p.depth, s);
      const int64_t key = j + 4 * block::x();
      for (int r = 0; r < 4; r++) {
        const int seen = seen_of(p, row + r, key, 4);
        N most = top[r];
        for (int c = 0; c < 4; c++) {
          s[r][c] = c < seen && unmasked(p, at, row + r, key + c)
                        ? s[r][c] * (N)p.scale
                        : minus_infinity<N>();
          most = max_of()(most, s[r][c]);
        }
        most = row_reduce(most, max_of());
        /* A query that has attended to nothing so far. */
        const N shift = most == minus_infinity<N>() ? N(0) : most;
        const N factor = exponential(top[r] - shift);
        top[r] = most;
        N part = 0;
        for (int c = 0; c < 4; c++) {
          s[r][c] = exponential(s[r][c] - shift);
          part += s[r][c];
        }
        total[r] = fused(total[r], factor, row_reduce(part, sum_of()));
        for (int c = 0; c < 4 * QUADS; c++) sum[r][c] *= factor;
        if (!p.drops) continue;
        const uint32_t kept = kept_of(p, at, row + r, key / 4);
        for (int c = 0; c < 4; c++)
          if (!(kept >> c & 1)) s[r][c] = 0;
      }
      own.gather(s, p.v, j, p.keys, at, first, p.value_depth, sum);
    }
    N factor[4];
    for (int r = 0; r < 4; r++)
      factor[r] = total[r] == 0 ? N(0) : (N)p.factor / total[r];
    block::write(sum, factor, p.out, i, p.queries, at, first, p.value_depth);
    if (at.chunk || block::x()) continue;
    for (int r = 0; r < 4; r++)
      if (row + r < p.queries)
        *row_of<N>(p.lse, at, row + r) =
            total[r] == 0 ? N(0) : top[r] + logarithm(total[r]);
  }
}

/* ---- backward ----------------------------------------------------------- */

/* From s and da = dout . v to what dropout leaves of w = exp(s - lse), and
   ds = w (dropout(da) - delta). */
template <typename N>
__device__ __forceinline__ void again(const attention_problem &p, bool seen,
                                      bool kept, N lse, N delta, N &s, N &da) {
  const N w = seen ? exponential(s * (N)p.scale - lse) : N(0);
  const N factor = !p.drops ? N(1) : kept ? (N)p.factor : N(0);
  da = w * (da * factor - delta);
  s = w * factor;
}

/* dq, and delta on the way. */
template <typename T, int QUADS>
__global__ void __launch_bounds__(BLOCK, 1)
plain_queries(attention_problem p, int64_t items, int64_t chunks) {
  typedef plain<T, QUADS> block;
  typedef wide<T> N;
  RP_DYNAMIC_SHARED(N, shared);
  const block own(shared);
  const int64_t tiles = (p.queries + TILE - 1) / TILE;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const attention_item at = item_of(p, item, tiles, chunks);
    const int64_t i = (tiles - 1 - at.tile) * TILE, row = i + 4 * block::y();
    const int64_t first = at.chunk * block::COLUMNS;
    const int64_t last = (i + TILE < p.queries ? i + TILE : p.queries) - 1;
    const int64_t limit = keys_until(p, last);
    N sum[4][4 * QUADS], lse[4], delta[4];
    block::clear(sum);
    for (int r = 0; r < 4; r++) {
      lse[r] = delta[r] = 0;
      const bool there = row + r < p.queries;
      for (int64_t e = block::x(); there && e < p.value_depth; e += 16)
        delta[r] = fused(
            widen<T>(row_of<const T>(p.dout, at, row + r)[e * p.dout.d]),
            widen<T>(row_of<const T>(p.out, at, row + r)[e * p.out.d]),
            delta[r]);
      delta[r] = row_reduce(delta[r], sum_of());
      if (!there) continue;
      lse[r] = *row_of<const N>(p.lse, at, row + r);
      if (at.chunk == 0 && block::x() == 0)
        ((N *)p.delta)[at.head * p.queries + row + r] = delta[r];
    }
    for (int64_t j = 0; j < limit; j += TILE) {
      N s[4][4], da[4][4];
      own.score(p.q, i, p.queries, p.k, j, p.keys, at, p.depth, s);
      own.score(p.dout, i, p.queries, p.v, j, p.keys, at, p.value_depth, da);
      const int64_t key = j + 4 * block::x();
      for (int r = 0; r < 4; r++) {
        const uint32_t kept =
            p.drops ? kept_of(p, at, row + r, key / 4) : 0;
        const int seen = seen_of(p, row + r, key, 4);
        for (int c = 0; c < 4; c++)
          again(p, c < seen && unmasked(p, at, row + r, key + c),
                kept >> c & 1, lse[r], delta[r], s[r][c], da[r][c]);
      }
      own.gather(da, p.k, j, p.keys, at, first, p.depth, sum);
    }
    const N factor[4] = {(N)p.scale, (N)p.scale, (N)p.scale, (N)p.scale};
    block::write(sum, factor, p.dq, i, p.queries, at, first, p.depth);
  }
}

/* dk and dv: rows of the tile are keys, its columns queries. */
template <typename T, int QUADS>
__global__ void __launch_bounds__(BLOCK, 1)
plain_keys(attention_problem p, int64_t items, int64_t chunks) {
  typedef plain<T, QUADS> block;
  typedef wide<T> N;
  RP_DYNAMIC_SHARED(N, shared);
  const block own(shared);
  const int64_t tiles = (p.keys + TILE - 1) / TILE;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const attention_item at = item_of(p, item, tiles, chunks);
    const int64_t j = at.tile * TILE, key = j + 4 * block::y();
    const int64_t first = at.chunk * block::COLUMNS;
    N dk[4][4 * QUADS], dv[4][4 * QUADS];
    block::clear(dk);
    block::clear(dv);
    for (int64_t i = queries_from(p, j) / TILE * TILE; i < p.queries;
         i += TILE) {
      N s[4][4], da[4][4];
      own.score(p.k, j, p.keys, p.q, i, p.queries, at, p.depth, s);
      own.score(p.v, j, p.keys, p.dout, i, p.queries, at, p.value_depth, da);
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const int64_t query = i + 4 * block::x() + c;
        const bool there = query < p.queries;
        const N lse = there ? *row_of<const N>(p.lse, at, query) : N(0);
        const N delta =
            there ? ((const N *)p.delta)[at.head * p.queries + query] : N(0);
        const uint32_t kept = p.drops ? kept_of(p, at, query, key / 4) : 0;
        const int seen = seen_of(p, query, key, 4);
#pragma unroll
        for (int r = 0; r < 4; r++)
          again(p, r < seen && unmasked(p, at, query, key + r), kept >> r & 1,
                lse, delta, s[r][c], da[r][c]);
      }
      own.gather(s, p.dout, i, p.queries, at, first, p.value_depth, dv);
      own.gather(da, p.q, i, p.queries, at, first, p.depth, dk);
    }
    const N scale[4] = {(N)p.scale, (N)p.scale, (N)p.scale, (N)p.scale};
    const N one[4] = {1, 1, 1, 1};
    block::write(dk, scale, p.dk, j, p.keys, at, first, p.depth);
    block::write(dv, one, p.dv, j, p.keys, at, first, p.value_depth);
  }
}

} // namespace
} // namespace rp

#endif
