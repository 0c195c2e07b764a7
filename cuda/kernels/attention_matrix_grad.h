/* The backward pass of attention_matrix.h: first queries by rows for dq, which
   leaves delta[i] = dout[i] . out[i] behind, then keys by rows for dk and dv.
   The weights are made twice; in exchange no sum is shared between blocks.

     w = exp(s - lse)    a = dropout(w)      dv = a^T dout
     da = dout v^T       ds = w (dropout(da) - delta)
     dq = scale ds k     dk = scale ds^T q */
#ifndef RP_CUDA_ATTENTION_MATRIX_GRAD_H
#define RP_CUDA_ATTENTION_MATRIX_GRAD_H

#include "attention_matrix.h"

namespace rp {
namespace {

/* From scores and da, in base 2: what dropout leaves of w, and ds. */
template <bool DROPS>
__device__ __forceinline__ void
weigh_again(const attention_problem &p, bool seen, bool kept, float scale,
            float lse, float delta, float &s, float &da) {
  const float w = seen ? power_of_two(__fmaf_rn(s, scale, -lse)) : 0;
  const float factor = !DROPS ? 1 : kept ? (float)p.factor : 0;
  da = w * (da * factor - delta);
  s = w * factor;
}

/* The same for a warp's strip of queries from i on and PART keys from j on;
   lse and delta of this lane's two queries. ALL: each sees each. */
template <int PART, bool DROPS, bool ALL>
__device__ __forceinline__ void
weigh_keys(const attention_problem &p, const attention_item &at, int64_t i,
           int64_t j, float scale, const float (&lse)[2],
           const float (&delta)[2], sum_tile (&s)[PART / 8],
           sum_tile (&da)[PART / 8]) {
  const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  int seen[2] = {PART, PART};
  if (!ALL)
    for (int k = 0; k < 2; k++) seen[k] = seen_of(p, i + g + 8 * k, j, PART);
#pragma unroll
  for (int n = 0; n < PART / 8; n++) {
    const uint32_t kept = DROPS ? kept_keys(p, at, i, j + 8 * n) : 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int key = 8 * n + 2 * t + k % 2;
      const bool sees = ALL || (key < seen[k / 2] &&
                                unmasked(p, at, i + g + k / 2 * 8, j + key));
      weigh_again<DROPS>(p, sees, kept >> k & 1, scale, lse[k / 2],
                         delta[k / 2], s[n].at[k], da[n].at[k]);
    }
  }
}

/* The same where rows are 16 keys from j on and columns PART queries from i
   on, whose lse (in base e) and delta are in shared memory. */
template <int PART, bool DROPS, bool ALL>
__device__ __forceinline__ void
weigh_queries(const attention_problem &p, const attention_item &at, int64_t i,
              int64_t j, float scale, const float *lse, const float *delta,
              sum_tile (&s)[PART / 8], sum_tile (&da)[PART / 8]) {
  const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < PART / 8; n++) {
    const uint32_t kept = DROPS ? kept_queries(p, at, i + 8 * n, j) : 0;
#pragma unroll
    for (int c = 0; c < 2; c++) {
      const int query = 8 * n + 2 * t + c;
      const float base = lse[query] * LOG2_E, level = delta[query];
      const int seen = ALL ? 16 : seen_of(p, i + query, j, 16);
#pragma unroll
      for (int e = c; e < 4; e += 2) {
        const int key = g + e / 2 * 8;
        const bool sees =
            ALL || (key < seen && unmasked(p, at, i + query, j + key));
        weigh_again<DROPS>(p, sees, kept >> e & 1, scale, base, level,
                           s[n].at[e], da[n].at[e]);
      }
    }
  }
}

/* PART keys' scores at a time. */
template <int DEPTH, int WARPS, int STRIPS, int PART, bool DROPS>
__global__ void __launch_bounds__(WARPS *WARP)
matrix_queries(attention_problem p, int64_t items) {
  typedef rows_of<DEPTH, WARPS * WARP> rows;
  constexpr int KEYS = MATRIX_KEYS, QUERIES = 16 * STRIPS * WARPS;
  constexpr int HALF = 2 * KEYS * rows::PITCH;
  static_assert(QUERIES <= 2 * KEYS, "queries pass through the same memory");
  RP_DYNAMIC_SHARED(bf16, shared);
  const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
  const int g = lane / 4, t = lane % 4;
  const float scale = (float)p.scale * LOG2_E;
  const int64_t tiles = (p.queries + QUERIES - 1) / QUERIES;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const attention_item at = item_of(p, item, tiles, 1);
    const int64_t first = (tiles - 1 - at.tile) * QUERIES;
    const int64_t i = first + warp * 16 * STRIPS;
    const int64_t limit = keys_until(
        p, (first + QUERIES < p.queries ? first + QUERIES : p.queries) - 1);
    const int64_t own_limit = keys_until(p, i + 16 * STRIPS - 1);

    left_tile q[STRIPS][DEPTH / 16], dout[STRIPS][DEPTH / 16];
    __syncthreads();
    rows::template copy<QUERIES>(p.q, at, first, p.queries, p.depth, shared);
    rows::template copy<QUERIES>(p.dout, at, first, p.queries, p.value_depth,
                                 shared + HALF);
    copies_done();
    __syncthreads();
    float lse[STRIPS][2], delta[STRIPS][2];
    sum_tile dq[STRIPS][DEPTH / 8];
#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
      const int strip = (warp * STRIPS + m) * 16;
      rows::read_left(shared + strip * rows::PITCH, q[m]);
      rows::read_left(shared + HALF + strip * rows::PITCH, dout[m]);
      rows::clear(dq[m]);
    }
    __syncthreads();

    /* out comes along with the first keys, into what the second will have. */
    bf16 *now = shared + HALF, *next = shared;
    rows::template copy<QUERIES>(p.out, at, first, p.queries, p.value_depth,
                                 next);
    rows::template copy<KEYS>(p.k, at, 0, p.keys, p.depth, now);
    rows::template copy<KEYS>(p.v, at, 0, p.keys, p.value_depth,
                              now + KEYS * rows::PITCH);
    copies_done();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
      rows::along(dout[m], next + (warp * STRIPS + m) * 16 * rows::PITCH,
                  delta[m]);
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const int64_t query = i + 16 * m + g + 8 * k;
        const bool there = query < p.queries;
        lse[m][k] =
            there ? *row_of<const float>(p.lse, at, query) * LOG2_E : 0;
        if (there && t == 0)
          ((float *)p.delta)[at.head * p.queries + query] = delta[m][k];
      }
    }
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
#pragma unroll 1
      for (int part = 0; part < KEYS; part += PART) {
        const int64_t key = j + part;
        if (key >= own_limit) break;
        const bf16 *const k_rows = keys + part * rows::PITCH;
        sum_tile s[STRIPS][PART / 8], ds[STRIPS][PART / 8];
        rows::template score<PART, STRIPS>(q, k_rows, s);
        rows::template score<PART, STRIPS>(dout, k_rows + KEYS * rows::PITCH,
                                           ds);
        const bool all = sees_all(p, i, 16 * STRIPS, key, PART);
#pragma unroll
        for (int m = 0; m < STRIPS; m++) {
          const int64_t query = i + 16 * m;
          if (all)
            weigh_keys<PART, DROPS, true>(p, at, query, key, scale, lse[m],
                                          delta[m], s[m], ds[m]);
          else
            weigh_keys<PART, DROPS, false>(p, at, query, key, scale, lse[m],
                                           delta[m], s[m], ds[m]);
        }
        rows::template gather<PART, STRIPS>(ds, k_rows, dq);
      }
    }
    copies_done();
    const float factor[2] = {(float)p.scale, (float)p.scale};
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
      rows::write(dq[m], factor, p.dq, at, i + 16 * m, p.queries, p.depth);
  }
}

/* QUERIES queries at a time, PART of them in registers. Where HOLDS, the
   warp's keys and values are too; else they stay in shared memory. */
template <int DEPTH, int WARPS, int QUERIES, int PART, bool HOLDS,
          bool DROPS>
__global__ void __launch_bounds__(WARPS *WARP)
matrix_keys(attention_problem p, int64_t items) {
  typedef rows_of<DEPTH, WARPS * WARP> rows;
  constexpr int KEYS = 16 * WARPS;
  constexpr int HALF = 2 * QUERIES * rows::PITCH;
  static_assert(!HOLDS || KEYS <= 2 * QUERIES,
                "keys pass through the same memory");
  RP_DYNAMIC_SHARED(bf16, shared);
  bf16 *const held = HOLDS ? shared : shared + 2 * HALF;
  bf16 *const values = held + (HOLDS ? HALF : KEYS * rows::PITCH);
  /* Of the queries that are in each half: their lse, then delta. */
  float *const numbers = (float *)(shared + 2 * HALF +
                                   (HOLDS ? 0 : 2 * KEYS * rows::PITCH));
  static_assert(QUERIES <= WARPS * WARP, "a thread a query");
  const int warp = (int)threadIdx.x / WARP;
  const float scale = (float)p.scale * LOG2_E;
  const int64_t tiles = (p.keys + KEYS - 1) / KEYS;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const attention_item at = item_of(p, item, tiles, 1);
    const int64_t first = at.tile * KEYS, j = first + warp * 16;
    __syncthreads();
    rows::template copy<KEYS>(p.k, at, first, p.keys, p.depth, held);
    rows::template copy<KEYS>(p.v, at, first, p.keys, p.value_depth, values);
    left_tile k[1][DEPTH / 16], v[1][DEPTH / 16];
    if (HOLDS) {
      copies_done();
      __syncthreads();
      rows::read_left(held + warp * 16 * rows::PITCH, k[0]);
      rows::read_left(values + warp * 16 * rows::PITCH, v[0]);
      __syncthreads();
    }
    sum_tile dk[1][DEPTH / 8], dv[1][DEPTH / 8];
    rows::clear(dk[0]);
    rows::clear(dv[0]);

    const int64_t from = queries_from(p, first) / QUERIES * QUERIES;
    const int64_t own_from = queries_from(p, j);
    const float *const lse = row_of<const float>(p.lse, at, 0);
    const float *const delta = (const float *)p.delta + at.head * p.queries;
    const auto copy_queries = [&](int64_t i, bf16 *to, float *beside) {
      rows::template copy<QUERIES>(p.q, at, i, p.queries, p.depth, to);
      rows::template copy<QUERIES>(p.dout, at, i, p.queries, p.value_depth,
                                   to + QUERIES * rows::PITCH);
      if (threadIdx.x >= QUERIES) return;
      const int64_t query = i + threadIdx.x;
      const bool there = query < p.queries;
      beside += threadIdx.x;
      copy_ahead(beside, there ? lse + query * p.lse.t : lse, there);
      copy_ahead(beside + QUERIES, there ? delta + query : delta, there);
    };
    bf16 *now = shared, *next = shared + HALF;
    float *now_beside = numbers, *next_beside = numbers + 2 * QUERIES;
    copy_queries(from, now, now_beside);
    for (int64_t i = from; i < p.queries; i += QUERIES) {
      copies_done();
      __syncthreads();
      if (i + QUERIES < p.queries)
        copy_queries(i + QUERIES, next, next_beside);
      bf16 *const queries = now;
      float *const beside = now_beside;
      now = next;
      next = queries;
      now_beside = next_beside;
      next_beside = beside;
#pragma unroll 1
      for (int part = 0; part < QUERIES; part += PART) {
        const int64_t query = i + part;
        if (query + PART <= own_from || query >= p.queries) continue;
        const bf16 *const q_rows = queries + part * rows::PITCH;
        const bf16 *const dout_rows = q_rows + QUERIES * rows::PITCH;
        sum_tile s[1][PART / 8], ds[1][PART / 8];
        if (HOLDS) {
          rows::template score<PART, 1>(k, q_rows, s);
          rows::template score<PART, 1>(v, dout_rows, ds);
        } else {
          rows::template score_from<PART>(held + warp * 16 * rows::PITCH,
                                          q_rows, s[0]);
          rows::template score_from<PART>(values + warp * 16 * rows::PITCH,
                                          dout_rows, ds[0]);
        }
        const float *const own = beside + part;
        if (sees_all(p, query, PART, j, 16))
          weigh_queries<PART, DROPS, true>(p, at, query, j, scale, own,
                                           own + QUERIES, s[0], ds[0]);
        else
          weigh_queries<PART, DROPS, false>(p, at, query, j, scale, own,
                                            own + QUERIES, s[0], ds[0]);
        rows::template gather<PART, 1>(s, dout_rows, dv);
        rows::template gather<PART, 1>(ds, q_rows, dk);
      }
    }
    copies_done();
    const float factor[2] = {(float)p.scale, (float)p.scale};
    const float one[2] = {1, 1};
    rows::write(dk[0], factor, p.dk, at, j, p.keys, p.depth);
    rows::write(dv[0], one, p.dv, at, j, p.keys, p.value_depth);
  }
}

} // namespace
} // namespace rp

#endif
