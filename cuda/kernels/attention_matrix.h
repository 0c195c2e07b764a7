/* Attention in bf16 by tensor cores, for heads of up to 128 columns.

   A warp has 16 rows of the scores (queries; in dk and dv, keys) to itself,
   STRIPS times, and all their columns: scores, weights and sums stay in its
   registers, where one product's sums are the next one's left operand
   (matrix.h). What all warps read lies in shared memory, twice: the next tile
   comes while this one is worked on. Columns beyond the head's are zeros.

   Products are of bf16 and sums f32: the weights and the gradients of scores
   are rounded before they are multiplied, beside what f32 would do (Dao,
   FlashAttention-2, 2023). */
#ifndef RP_CUDA_ATTENTION_MATRIX_H
#define RP_CUDA_ATTENTION_MATRIX_H

#include "attention.h"
#include "matrix.h"

namespace rp {
namespace {

const float LOG2_E = 1.44269504088896340736f, LN_2 = 0.69314718055994530942f;

struct greater_of { /* a number beside NaN */
  __device__ __forceinline__ float operator()(float a, float b) const {
    return fmaxf(a, b);
  }
};

/* Over the four lanes that share a row. */
template <typename F>
__device__ __forceinline__ float four_reduce(float x, F f) {
  x = f(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return f(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Rows of DEPTH columns in shared memory, for a block of THREADS. */
template <int DEPTH, int THREADS> struct rows_of {
  static constexpr int PITCH = DEPTH + 8;

  /* ROWS rows from t on. They may be read after copies_done() and a
     barrier. */
  template <int ROWS>
  static __device__ __forceinline__ void
  copy(const attention_array &from, const attention_item &at, int64_t t,
       int64_t rows, int64_t width, bf16 *to) {
    /* Threads to a row, eight columns each. */
    constexpr int ACROSS = DEPTH <= 32 ? 4 : DEPTH <= 64 ? 8 : 16;
    constexpr int STEP = THREADS / ACROSS;
    static_assert(ROWS % STEP == 0, "whole steps");
    const int left = (int)(rows - t < ROWS ? rows - t : ROWS);
    const int c = (int)threadIdx.x % ACROSS * 8;
    int r = (int)threadIdx.x / ACROSS;
    if (c >= DEPTH) return;
    const bf16 *data = row_of<const bf16>(from, at, 0);
    const bf16 *x = data + (t + r) * from.t + c * from.d;
    const int64_t step = STEP * from.t;
    to += r * PITCH + c;
    if (from.by_eights) {
#pragma unroll
      for (int k = 0; k < ROWS / STEP; k++) {
        const bool there = r < left && c < width;
        copy_ahead(to, there ? x : data, there);
        r += STEP;
        x += step;
        to += STEP * PITCH;
      }
      return;
    }
#pragma unroll 1
    for (; r < ROWS; r += STEP) {
      for (int e = 0; e < 8; e++)
        to[e] = r < left && c + e < width ? x[e * from.d] : narrow<bf16>(0);
      x += step;
      to += STEP * PITCH;
    }
  }

  /* Left operands of a warp's 16 rows. */
  static __device__ __forceinline__ void
  read_left(const bf16 *x, left_tile (&y)[DEPTH / 16]) {
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++) y[d] = left_of(x + 16 * d, PITCH);
  }

  /* s[.., 8 n + ..] = sum_d a[.., d] b[8 n + .., d] for COLUMNS rows of b. */
  template <int COLUMNS, int STRIPS>
  static __device__ __forceinline__ void
  score(const left_tile (&a)[STRIPS][DEPTH / 16], const bf16 *b,
        sum_tile (&s)[STRIPS][COLUMNS / 8]) {
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
      for (int n = 0; n < COLUMNS / 8; n++) s[m][n] = sum_tile{{0, 0, 0, 0}};
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++)
#pragma unroll
      for (int n = 0; n < COLUMNS / 16; n++) {
        right_tile right[2];
        right_of_rows(b + 16 * n * PITCH + 16 * d, PITCH, right);
#pragma unroll
        for (int m = 0; m < STRIPS; m++) {
          multiply(s[m][2 * n], a[m][d], right[0]);
          multiply(s[m][2 * n + 1], a[m][d], right[1]);
        }
      }
  }
  /* The same with the left operands read as they are needed. */
  template <int COLUMNS>
  static __device__ __forceinline__ void
  score_from(const bf16 *a, const bf16 *b, sum_tile (&s)[COLUMNS / 8]) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) s[n] = sum_tile{{0, 0, 0, 0}};
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++) {
      const left_tile left = left_of(a + 16 * d, PITCH);
#pragma unroll
      for (int n = 0; n < COLUMNS / 16; n++) {
        right_tile right[2];
        right_of_rows(b + 16 * n * PITCH + 16 * d, PITCH, right);
        multiply(s[2 * n], left, right[0]);
        multiply(s[2 * n + 1], left, right[1]);
      }
    }
  }

  /* sum[.., d] += sum_k w[.., k] b[k, d] for the INNER rows of b. */
  template <int INNER, int STRIPS>
  static __device__ __forceinline__ void
  gather(const sum_tile (&w)[STRIPS][INNER / 8], const bf16 *b,
         sum_tile (&sum)[STRIPS][DEPTH / 8]) {
#pragma unroll
    for (int k = 0; k < INNER / 16; k++) {
      left_tile left[STRIPS];
#pragma unroll
      for (int m = 0; m < STRIPS; m++)
        left[m] = rounded(w[m][2 * k], w[m][2 * k + 1]);
#pragma unroll
      for (int d = 0; d < DEPTH / 16; d++) {
        right_tile right[2];
        right_of(b + 16 * k * PITCH + 16 * d, PITCH, right);
#pragma unroll
        for (int m = 0; m < STRIPS; m++) {
          multiply(sum[m][2 * d], left[m], right[0]);
          multiply(sum[m][2 * d + 1], left[m], right[1]);
        }
      }
    }
  }

  /* sum[k] = sum_d a[g + 8 k, d] b[g + 8 k, d] of a warp's 16 rows. */
  static __device__ __forceinline__ void
  along(const left_tile (&a)[DEPTH / 16], const bf16 *b, float (&sum)[2]) {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int d = 0; d < DEPTH / 16; d++) {
      const left_tile right = left_of(b + 16 * d, PITCH);
#pragma unroll
      for (int w = 0; w < 4; w++) {
        float &to = sum[w % 2];
        to = __fmaf_rn(low_of(a[d].at[w]), low_of(right.at[w]), to);
        to = __fmaf_rn(high_of(a[d].at[w]), high_of(right.at[w]), to);
      }
    }
    for (float &each : sum) each = four_reduce(each, sum_of());
  }

  static __device__ __forceinline__ void clear(sum_tile (&sum)[DEPTH / 8]) {
#pragma unroll
    for (int d = 0; d < DEPTH / 8; d++) sum[d] = sum_tile{{0, 0, 0, 0}};
  }

  /* The warp's 16 rows from t on, row g + 8 k times factor[k]. */
  static __device__ __forceinline__ void
  write(const sum_tile (&sum)[DEPTH / 8], const float (&factor)[2],
        const attention_array &to, const attention_item &at, int64_t t,
        int64_t rows, int64_t width) {
    const int lane = (int)threadIdx.x % WARP, column = lane % 4 * 2;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const int64_t i = t + lane / 4 + 8 * k;
      if (i >= rows) continue;
      bf16 *row = row_of<bf16>(to, at, i);
#pragma unroll
      for (int d = 0; d < DEPTH / 8; d++) {
        const int c = 8 * d + column;
        const float low = sum[d].at[2 * k] * factor[k];
        const float high = sum[d].at[2 * k + 1] * factor[k];
        if (to.by_eights) {
          if (c < width) *(uint32_t *)(row + c) = pack(low, high);
        } else {
          if (c < width) row[c] = narrow<bf16>(low);
          if (c + 1 < width) row[c + 1] = narrow<bf16>(high);
        }
      }
    }
  }
};

/* A warp's 16 x 8 weights take 32 blocks of words, one a lane. Bit k: element
   k of this lane's sum_tile is kept, which is of queries from i, keys from
   j on. */
__device__ __forceinline__ uint32_t kept_keys(const attention_problem &p,
                                              const attention_item &at,
                                              int64_t i, int64_t j) {
  const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  const uint32_t mine =
      kept_of(p, at, i + lane % 16, j / 4 + lane / 16);
  const int from = t / 2 * 16 + g, shift = t % 2 * 2;
  const uint32_t low = __shfl_sync(0xffffffffu, mine, from);
  const uint32_t high = __shfl_sync(0xffffffffu, mine, from + 8);
  return (low >> shift & 3) | (high >> shift & 3) << 2;
}
/* The same where rows are keys and columns queries. */
__device__ __forceinline__ uint32_t kept_queries(const attention_problem &p,
                                                 const attention_item &at,
                                                 int64_t i, int64_t j) {
  const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  const uint32_t mine = kept_of(p, at, i + lane % 8, j / 4 + lane / 8);
  uint32_t kept = 0;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const int key = g + k / 2 * 8, query = 2 * t + k % 2;
    const uint32_t of =
        __shfl_sync(0xffffffffu, mine, key / 4 * 8 + query);
    kept |= (of >> key % 4 & 1) << k;
  }
  return kept;
}

/* ---- forward ------------------------------------------------------------ */

constexpr int MATRIX_KEYS = 64;

/* -inf where the warp's queries from i on do not see a key from j on. */
template <int KEYS>
__device__ __forceinline__ void
hide(const attention_problem &p, const attention_item &at, int64_t i,
     int64_t j, sum_tile (&s)[KEYS / 8]) {
  const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const int64_t query = i + g + 8 * k;
    const int seen = seen_of(p, query, j, KEYS);
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const int key = 8 * n + 2 * t + c;
        if (key >= seen || !unmasked(p, at, query, j + key))
          s[n].at[2 * k + c] = -INFINITY;
      }
  }
}

template <int DEPTH, int WARPS, int STRIPS, bool DROPS>
__global__ void __launch_bounds__(WARPS *WARP)
matrix_forward(attention_problem p, int64_t items) {
  typedef rows_of<DEPTH, WARPS * WARP> rows;
  constexpr int KEYS = MATRIX_KEYS, QUERIES = 16 * STRIPS * WARPS;
  constexpr int HALF = 2 * KEYS * rows::PITCH;
  static_assert(QUERIES <= 4 * KEYS, "queries pass through the same memory");
  RP_DYNAMIC_SHARED(bf16, shared);
  const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
  const int g = lane / 4, t = lane % 4;
  /* The greatest scores are found before the scale, which is therefore above
     0: queries take its sign, and 0 itself would make NaN of what is hidden. */
  const uint32_t sign = p.scale < 0 ? 0x80008000u : 0;
  const float given = fabsf((float)p.scale) * LOG2_E;
  const float scale = given == 0 ? 1e-30f : given;
  const int64_t tiles = (p.queries + QUERIES - 1) / QUERIES;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const attention_item at = item_of(p, item, tiles, 1);
    /* Where causal, long tiles first. */
    const int64_t first = (tiles - 1 - at.tile) * QUERIES;
    const int64_t i = first + warp * 16 * STRIPS;
    const int64_t limit = keys_until(
        p, (first + QUERIES < p.queries ? first + QUERIES : p.queries) - 1);
    const int64_t own_limit = keys_until(p, i + 16 * STRIPS - 1);

    left_tile q[STRIPS][DEPTH / 16];
    __syncthreads();
    rows::template copy<QUERIES>(p.q, at, first, p.queries, p.depth, shared);
    copies_done();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
      rows::read_left(shared + (warp * STRIPS + m) * 16 * rows::PITCH, q[m]);
#pragma unroll
      for (int d = 0; d < DEPTH / 16; d++)
#pragma unroll
        for (int k = 0; k < 4; k++) q[m][d].at[k] ^= sign;
    }
    __syncthreads();

    sum_tile sum[STRIPS][DEPTH / 8];
    float top[STRIPS][2], total[STRIPS][2];
#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
      rows::clear(sum[m]);
      top[m][0] = top[m][1] = -INFINITY;
      total[m][0] = total[m][1] = 0;
    }
    bf16 *now = shared, *next = shared + HALF;
    rows::template copy<KEYS>(p.k, at, 0, p.keys, p.depth, now);
    rows::template copy<KEYS>(p.v, at, 0, p.keys, p.value_depth,
                              now + KEYS * rows::PITCH);
    for (int64_t j = 0; j < limit; j += KEYS) {
      copies_done();
      __syncthreads();
      if (j + KEYS < limit) {
        rows::template copy<KEYS>(p.k, at, j + KEYS, p.keys, p.depth, next);
        rows::template copy<KEYS>(p.v, at, j + KEYS, p.keys, p.value_depth,
                                  next + KEYS * rows::PITCH);
      }
      bf16 *const keys = now;
      now = next;
      next = keys;
      if (j >= own_limit) continue;
      sum_tile s[STRIPS][KEYS / 8];
      rows::template score<KEYS, STRIPS>(q, keys, s);
      const bool all = sees_all(p, i, 16 * STRIPS, j, KEYS);
#pragma unroll
      for (int m = 0; m < STRIPS; m++) {
        const int64_t row = i + 16 * m;
        if (!all) hide<KEYS>(p, at, row, j, s[m]);
#pragma unroll
        for (int k = 0; k < 2; k++) {
          /* A NaN need not win: its power is NaN, and so is the sum. */
          float most = top[m][k];
#pragma unroll
          for (int n = 0; n < KEYS / 8; n++)
            most = fmaxf(most, fmaxf(s[m][n].at[2 * k],
                                     s[m][n].at[2 * k + 1]));
          most = four_reduce(most, greater_of());
          /* A query that has attended to nothing so far. */
          const float shift = most == -INFINITY ? 0 : most * scale;
          const float factor =
              power_of_two(__fmaf_rn(top[m][k], scale, -shift));
          top[m][k] = most;
          float part = 0;
#pragma unroll
          for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int c = 2 * k; c < 2 * k + 2; c++) {
              s[m][n].at[c] =
                  power_of_two(__fmaf_rn(s[m][n].at[c], scale, -shift));
              part += s[m][n].at[c];
            }
          total[m][k] = __fmaf_rn(total[m][k], factor, part);
#pragma unroll
          for (int d = 0; d < DEPTH / 8; d++) {
            sum[m][d].at[2 * k] *= factor;
            sum[m][d].at[2 * k + 1] *= factor;
          }
        }
        if (DROPS)
#pragma unroll
          for (int n = 0; n < KEYS / 8; n++) {
            const uint32_t kept = kept_keys(p, at, row, j + 8 * n);
#pragma unroll
            for (int k = 0; k < 4; k++)
              if (!(kept >> k & 1)) s[m][n].at[k] = 0;
          }
      }
      rows::template gather<KEYS, STRIPS>(s, keys + KEYS * rows::PITCH, sum);
    }
    copies_done();

#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
      float factor[2];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const float all = four_reduce(total[m][k], sum_of());
        factor[k] = all == 0 ? 0 : (float)p.factor / all;
        const int64_t query = i + 16 * m + g + 8 * k;
        if (t == 0 && query < p.queries)
          *row_of<float>(p.lse, at, query) =
              all == 0 ? 0 : top[m][k] * scale * LN_2 + logf(all);
      }
      rows::write(sum[m], factor, p.out, at, i + 16 * m, p.queries,
                  p.value_depth);
    }
  }
}

} // namespace
} // namespace rp

#endif
