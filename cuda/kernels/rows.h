/* Rows of contiguous arrays, read and written 16 bytes at a time, and teams of
   threads that share a row.

   An array is cut into units of 16 bytes from its first element on. Which
   thread takes which element of a row follows from the row's place in the
   array alone, so a sum's bits do not depend on the array's address: where
   that is no multiple of 16, the same units are read in pieces. */
#ifndef RP_CUDA_KERNELS_ROWS_H
#define RP_CUDA_KERNELS_ROWS_H

#include <cstring>
#include <type_traits>

#include "kernel.h"

namespace rp {

/* ---- units --------------------------------------------------------------- */

/* Elements of a unit. */
template <typename T> constexpr int UNIT = 16 / (int)sizeof(T);

static inline bool is_aligned(const void *data) {
  return (uintptr_t)data % 16 == 0;
}

template <typename T>
__device__ __forceinline__ void read_unit(const T *from, bool aligned,
                                          T (&to)[UNIT<T>]) {
  if (aligned) {
    const uint4 bits = *reinterpret_cast<const uint4 *>(from);
    memcpy((void *)to, &bits, 16);
  } else {
    for (int j = 0; j < UNIT<T>; j++) to[j] = from[j];
  }
}

template <typename T>
__device__ __forceinline__ void write_unit(T *to, bool aligned,
                                           const T (&from)[UNIT<T>]) {
  if (aligned) {
    uint4 bits;
    memcpy(&bits, (const void *)from, 16);
    *reinterpret_cast<uint4 *>(to) = bits;
  } else {
    for (int j = 0; j < UNIT<T>; j++) to[j] = from[j];
  }
}

/* Elements first..last-1 of an array, and the units that they touch. */
struct stretch {
  int64_t first, last;

  template <typename T> __device__ __forceinline__ int64_t begin() const {
    return first / UNIT<T>;
  }
  template <typename T> __device__ __forceinline__ int64_t end() const {
    return (last + UNIT<T> - 1) / UNIT<T>;
  }
  __device__ __forceinline__ bool has(int64_t i) const {
    return i >= first && i < last;
  }

  /* Unit u in wide; `fill` where it lies outside. */
  template <typename T>
  __device__ __forceinline__ void read(const T *x, bool aligned, int64_t u,
                                       wide<T> fill,
                                       wide<T> (&to)[UNIT<T>]) const {
    const int64_t at = u * UNIT<T>;
    if (at >= first && at + UNIT<T> <= last) {
      T raw[UNIT<T>];
      read_unit(x + at, aligned, raw);
      for (int j = 0; j < UNIT<T>; j++) to[j] = widen<T>(raw[j]);
    } else {
      for (int j = 0; j < UNIT<T>; j++)
        to[j] = has(at + j) ? widen<T>(x[at + j]) : fill;
    }
  }

  /* Nothing outside is written. */
  template <typename T>
  __device__ __forceinline__ void write(T *y, bool aligned, int64_t u,
                                        const wide<T> (&from)[UNIT<T>]) const {
    const int64_t at = u * UNIT<T>;
    if (at >= first && at + UNIT<T> <= last) {
      T raw[UNIT<T>];
      for (int j = 0; j < UNIT<T>; j++) raw[j] = narrow<T>(from[j]);
      write_unit(y + at, aligned, raw);
    } else {
      for (int j = 0; j < UNIT<T>; j++)
        if (has(at + j)) y[at + j] = narrow<T>(from[j]);
    }
  }
};

/* ---- teams --------------------------------------------------------------- */

/* So many threads of a block of BLOCK share a row: 1, WARP or BLOCK. */
struct team {
  int size;

  __device__ __forceinline__ int lane() const {
    return (int)threadIdx.x & (size - 1);
  }
  /* Rows first(), first() + step(), ... are this team's. */
  __device__ __forceinline__ int64_t first() const {
    return ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / size;
  }
  __device__ __forceinline__ int64_t step() const {
    return (int64_t)gridDim.x * (BLOCK / size);
  }
  /* Over the team; the same value in each of its threads. `scratch`: shared,
     WARP elements. */
  template <typename T, typename F>
  __device__ __forceinline__ T reduce(T x, T identity, T *scratch, F f) const {
    if (size == 1) return x;
    if (size == WARP) return warp_reduce(x, f);
    return block_reduce(x, identity, scratch, f);
  }
};

static inline dim3 grid_of(team t, int64_t rows) {
  return grid_for(rows * t.size);
}

/* As many threads as find work in a row of so many units. */
static inline team team_for(int64_t units) {
  return team{units <= 2 ? 1 : units <= 8 * WARP ? (int)WARP : (int)BLOCK};
}

/* ---- arithmetic ---------------------------------------------------------- */

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return scalar::exp(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return scalar::log(x); }

/* sum of exp(x) = rest * exp(top), top the greatest x. As in exp's sums, NaN
   and +inf make rest NaN; nothing seen yet is top -inf, rest 0. */
template <typename W> struct exp_sum {
  W top, rest;
};

template <typename W>
__device__ __forceinline__ exp_sum<W> exp_sum_of_none() {
  return exp_sum<W>{(W)-INFINITY, (W)0};
}

/* n more, of which `top` is the greatest number. */
template <typename W, int N>
__device__ __forceinline__ void exp_sum_add(exp_sum<W> *s, const W (&x)[N]) {
  W top = s->top;
  for (int j = 0; j < N; j++) top = x[j] > top ? x[j] : top;
  if (top > s->top) {
    s->rest *= exp_of(s->top - top);
    s->top = top;
  }
  for (int j = 0; j < N; j++)
    s->rest += x[j] == (W)-INFINITY ? (W)0 : exp_of(x[j] - top);
}

template <typename W>
__device__ __forceinline__ exp_sum<W> exp_sum_join(team t, exp_sum<W> s,
                                                   W *scratch) {
  const W top = t.reduce(s.top, (W)-INFINITY, scratch, max_of());
  const W mine = s.top == top ? s.rest : s.rest * exp_of(s.top - top);
  return exp_sum<W>{top, t.reduce(mine, (W)0, scratch, sum_of())};
}

/* ---- (outer, n, inner) --------------------------------------------------- */

/* A contiguous array around the one dim that a kernel walks. */
struct extent {
  int64_t outer, n, inner;
};

static inline extent extent_of(const rp_type *x, int64_t dim) {
  extent e = {1, 1, 1};
  for (int i = 0; i < x->rank; i++) {
    if (i < dim) e.outer *= x->dims[i];
    else if (i == dim) e.n = x->dims[i];
    else e.inner *= x->dims[i];
  }
  return e;
}

/* i = *quotient * by + the result. */
__device__ __forceinline__ int64_t divide(int64_t i, int64_t by,
                                          int64_t *quotient) {
  *quotient = (i | by) <= 0xffffffff ? (int64_t)((uint32_t)i / (uint32_t)by)
                                     : i / by;
  return i - *quotient * by;
}

} // namespace rp

#endif
