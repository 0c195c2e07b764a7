/* Folds of rows and columns, of which reduce.cu makes sums, extrema, variances.

   Adjacent dims of the same kind (kept or reduced) are one group. Where the
   innermost group is reduced ("rows"), a team of threads folds an output;
   where it is kept ("columns"), threads side by side fold columns side by
   side. Long folds are cut into parts, whose number follows from the shape
   alone. */
#ifndef RP_CUDA_KERNELS_FOLD_H
#define RP_CUDA_KERNELS_FOLD_H

#include "rows.h"

namespace rp {
namespace {

/* ---- folds -------------------------------------------------------------- */
/* step takes one more element, the operator joins two results; `again` folds
   results. `shift` is what an earlier fold of the same elements gave. */

template <typename A> struct fold_sum {
  typedef A type;
  typedef fold_sum again;
  static __device__ __forceinline__ A start() { return 0; }
  static __device__ __forceinline__ A step(A a, A x, A) { return a + x; }
  __device__ __forceinline__ A operator()(A a, A b) const { return a + b; }
};

template <typename A> struct fold_squares : fold_sum<A> {
  static __device__ __forceinline__ A step(A a, A x, A) { return a + x * x; }
};

template <typename A> struct fold_deviation : fold_sum<A> {
  static __device__ __forceinline__ A step(A a, A x, A shift) {
    return a + (x - shift) * (x - shift);
  }
};

template <typename A> struct fold_exp : fold_sum<A> {
  static __device__ __forceinline__ A step(A a, A x, A shift) {
    return a + exp_of(x - shift);
  }
};

/* NaN wins, here and below. */
template <typename A> struct fold_top {
  typedef A type;
  typedef fold_top again;
  static __device__ __forceinline__ A start() {
    if constexpr (std::is_floating_point<A>::value) return (A)-INFINITY;
    else return scalar::traits<A>::least;
  }
  static __device__ __forceinline__ A step(A a, A x, A) {
    return max_of()(a, x);
  }
  __device__ __forceinline__ A operator()(A a, A b) const {
    return max_of()(a, b);
  }
};

template <typename A> struct fold_bottom {
  typedef A type;
  typedef fold_bottom again;
  static __device__ __forceinline__ A start() {
    if constexpr (std::is_floating_point<A>::value) return (A)INFINITY;
    else return scalar::traits<A>::most;
  }
  static __device__ __forceinline__ A join(A a, A b) {
    return a < b || a != a ? a : b;
  }
  static __device__ __forceinline__ A step(A a, A x, A) { return join(a, x); }
  __device__ __forceinline__ A operator()(A a, A b) const {
    return join(a, b);
  }
};

/* What a fold leaves is turned into the value. */
enum finish {
  AS_IS,
  DIVIDE, /* v / divisor */
  LOG     /* log(v) + shift; shift where it is no number to subtract */
};

struct ending {
  finish how;
  double divisor;

  template <typename A>
  __device__ __forceinline__ A of(A v, A shift) const {
    if constexpr (std::is_floating_point<A>::value)
      if (how != AS_IS) return changed(v, shift);
    return v;
  }
  /* Called once an output, so not inlined. */
  template <typename A> RP_CALLED A changed(A v, A shift) const {
    if (how == DIVIDE) return v / (A)divisor;
    return isfinite(shift) ? log_of(v) + shift : shift;
  }
};

/* Elements that are read in units, and ahead: f32 and bf16. Other dtypes do
   with a plain loop, which compiles in a fraction of the time. */
template <typename T>
constexpr bool is_fast = std::is_same<wide<T>, float>::value;

/* ---- rows --------------------------------------------------------------- */

enum reading {
  WHOLE,  /* a row is one stretch of x */
  UNITS,  /* it is made of runs of whole units */
  SINGLES /* ... of other runs */
};

struct row_layout {
  walk<1> kept, reduced; /* UNITS: reduced counts units */
  reading how;
  int64_t rows, length, chunk, parts; /* a part is `chunk` elements */
  team by;
  bool aligned;
};

template <typename F, typename T>
__device__ __forceinline__ void step_unit(const T (&raw)[UNIT<T>],
                                          typename F::type shift,
                                          typename F::type (&to)[UNIT<T>]) {
  typedef typename F::type A;
  for (int j = 0; j < UNIT<T>; j++)
    to[j] = F::step(to[j], (A)widen<T>(raw[j]), shift);
}

/* Units lane, lane + size, ... of n from `x` on; four are read ahead. */
template <typename F, typename T>
__device__ __forceinline__ void fold_units(const T *x, bool aligned, int64_t n,
                                           int lane, int size,
                                           typename F::type shift,
                                           typename F::type (&to)[UNIT<T>]) {
  int64_t u = lane;
  if constexpr (is_fast<T>) {
    for (; u + 3 * size < n; u += 4 * size) {
      T raw[4][UNIT<T>];
      for (int k = 0; k < 4; k++)
        read_unit(x + (u + k * size) * UNIT<T>, aligned, raw[k]);
      for (int k = 0; k < 4; k++) step_unit<F, T>(raw[k], shift, to);
    }
  }
#pragma unroll 1
  for (; u < n; u += size) {
    T raw[UNIT<T>];
    read_unit(x + u * UNIT<T>, aligned, raw);
    step_unit<F, T>(raw, shift, to);
  }
}

/* What this thread of the team folds of elements first..last-1 of row k. */
template <typename F, typename T>
__device__ typename F::type fold_part(const T *x, const row_layout &l,
                                      int64_t k, int64_t first, int64_t last,
                                      typename F::type shift) {
  typedef typename F::type A;
  const int lane = l.by.lane(), size = l.by.size;
  A total[UNIT<T>];
  for (int j = 0; j < UNIT<T>; j++) total[j] = F::start();
  if (l.how == WHOLE) {
    first += k * l.length;
    last += k * l.length;
    int64_t head = (first + UNIT<T> - 1) / UNIT<T> * UNIT<T>;
    if (head > last) head = last;
    const int64_t units = (last - head) / UNIT<T>;
#pragma unroll 1
    for (int64_t i = first + lane; i < head; i += size)
      total[0] = F::step(total[0], (A)widen<T>(x[i]), shift);
    fold_units<F, T>(x + head, l.aligned, units, lane, size, shift, total);
#pragma unroll 1
    for (int64_t i = head + units * UNIT<T> + lane; i < last; i += size)
      total[0] = F::step(total[0], (A)widen<T>(x[i]), shift);
  } else {
    int64_t base[1], offset[1];
    l.kept.at(k, base);
    if (l.how == UNITS) {
#pragma unroll 1
      for (int64_t u = first / UNIT<T> + lane; u < last / UNIT<T>; u += size) {
        T raw[UNIT<T>];
        l.reduced.at(u, offset);
        read_unit(x + base[0] + offset[0], l.aligned, raw);
        step_unit<F, T>(raw, shift, total);
      }
    } else {
#pragma unroll 1
      for (int64_t i = first + lane; i < last; i += size) {
        l.reduced.at(i, offset);
        total[0] =
            F::step(total[0], (A)widen<T>(x[base[0] + offset[0]]), shift);
      }
    }
  }
  for (int half = UNIT<T> / 2; half > 0; half /= 2)
    for (int j = 0; j < half; j++) total[j] = F()(total[j], total[j + half]);
  return total[0];
}

/* y[k * parts + p]: the fold of part p of row k. */
template <typename T, typename Y, typename F>
__global__ void __launch_bounds__(BLOCK, 1)
fold_rows(const T *x, Y *y, row_layout l, ending e,
          const typename F::type *shifts) {
  typedef typename F::type A;
  __shared__ A scratch[WARP];
#pragma unroll 1
  for (int64_t i = l.by.first(); i < l.rows * l.parts; i += l.by.step()) {
    int64_t k = i;
    const int64_t first =
        l.parts == 1 ? 0 : divide(i, l.parts, &k) * l.chunk;
    const int64_t last =
        l.length - first < l.chunk ? l.length : first + l.chunk;
    const A shift = shifts ? shifts[k] : A(0);
    A v = fold_part<F, T>(x, l, k, first, last, shift);
    v = l.by.reduce(v, F::start(), scratch, F());
    if (l.by.lane() == 0) y[i] = (Y)e.of(v, shift);
  }
}

/* y[k]: the G of row k, shifted by its F. The second reading finds the row in
   the cache. */
template <typename T, typename F, typename G>
__global__ void __launch_bounds__(BLOCK, 1)
fold_rows_twice(const T *x, typename F::type *y, row_layout l, ending first,
                ending second) {
  typedef typename F::type A;
  __shared__ A scratch[WARP];
#pragma unroll 1
  for (int64_t k = l.by.first(); k < l.rows; k += l.by.step()) {
    A shift = fold_part<F, T>(x, l, k, 0, l.length, 0);
    shift = first.of(l.by.reduce(shift, F::start(), scratch, F()), A(0));
    A v = fold_part<G, T>(x, l, k, 0, l.length, shift);
    v = l.by.reduce(v, G::start(), scratch, G());
    if (l.by.lane() == 0) y[k] = second.of(v, shift);
  }
}

/* ---- columns ------------------------------------------------------------ */

/* x is `outer` times rows of `run` neighbouring columns. */
struct column_layout {
  walk<1> kept, reduced;
  int64_t outer, rows, run, chunk, parts; /* a part is `chunk` rows */
  int64_t across, tiles; /* threads side by side, a power of two; blocks */
  bool aligned;
};

/* Rows first, first + step, ... of V columns; four are read ahead. */
template <typename T, typename F, int V>
__device__ __forceinline__ void fold_down(const T *x, const column_layout &l,
                                          int64_t first, int64_t last,
                                          int64_t step,
                                          const typename F::type (&shift)[V],
                                          typename F::type (&to)[V]) {
  typedef typename F::type A;
  const auto read = [&](int64_t r, T(&raw)[V]) {
    int64_t offset[1];
    l.reduced.at(r, offset);
    if constexpr (V == 1) raw[0] = x[offset[0]];
    else read_unit(x + offset[0], l.aligned, raw);
  };
  const auto take = [&](const T(&raw)[V]) {
    for (int j = 0; j < V; j++)
      to[j] = F::step(to[j], (A)widen<T>(raw[j]), shift[j]);
  };
  int64_t r = first;
  if constexpr (is_fast<T>) {
    for (; r + 3 * step < last; r += 4 * step) {
      T raw[4][V];
      for (int k = 0; k < 4; k++) read(r + k * step, raw[k]);
      for (int k = 0; k < 4; k++) take(raw[k]);
    }
  }
#pragma unroll 1
  for (; r < last; r += step) {
    T raw[V];
    read(r, raw);
    take(raw);
  }
}

/* y[(k * parts + p) * run + j]: the fold of part p of column j of k. V is 1
   or a unit: so many columns are one thread's. */
template <typename T, typename Y, typename F, int V>
__global__ void __launch_bounds__(BLOCK, 1)
fold_columns(const T *x, Y *y, column_layout l, ending e,
             const typename F::type *shifts) {
  typedef typename F::type A;
  __shared__ A scratch[V][BLOCK];
  const int64_t down = BLOCK / l.across, here = threadIdx.x / l.across;
#pragma unroll 1
  for (int64_t i = blockIdx.x; i < l.outer * l.parts * l.tiles;
       i += gridDim.x) {
    int64_t part, k;
    const int64_t column =
        (divide(i, l.tiles, &part) * l.across + threadIdx.x % l.across) * V;
    const int64_t first = divide(part, l.parts, &k) * l.chunk;
    const int64_t last = l.rows - first < l.chunk ? l.rows : first + l.chunk;
    const bool inside = column < l.run;
    A total[V], shift[V];
    for (int j = 0; j < V; j++) {
      total[j] = F::start();
      shift[j] =
          inside && shifts ? shifts[k * l.run + column + j] : A(0);
    }
    if (inside) {
      int64_t base[1];
      l.kept.at(k, base);
      fold_down<T, F, V>(x + base[0] + column, l, first + here, last, down,
                         shift, total);
    }
    for (int j = 0; j < V; j++) scratch[j][threadIdx.x] = total[j];
#pragma unroll 1
    for (int64_t half = down / 2; half > 0; half /= 2) {
      __syncthreads();
      if (here < half)
        for (int j = 0; j < V; j++)
          scratch[j][threadIdx.x] =
              F()(scratch[j][threadIdx.x],
                  scratch[j][threadIdx.x + half * l.across]);
    }
    if (here == 0 && inside)
      for (int j = 0; j < V; j++)
        y[part * l.run + column + j] =
            (Y)e.of(scratch[j][threadIdx.x], shift[j]);
    __syncthreads();
  }
}

/* A thread a column: where there are many, of few rows each. */
template <typename T, typename Y, typename F>
__global__ void __launch_bounds__(BLOCK, 1)
fold_each_column(const T *x, Y *y, column_layout l, ending e,
                 const typename F::type *shifts) {
  typedef typename F::type A;
  RP_EACH(i, l.outer * l.run) {
    int64_t k, base[1], offset[1];
    const int64_t column = divide(i, l.run, &k);
    const A shift = shifts ? shifts[i] : A(0);
    A total = F::start();
    l.kept.at(k, base);
#pragma unroll 4
    for (int64_t r = 0; r < l.rows; r++) {
      l.reduced.at(r, offset);
      total = F::step(total, (A)widen<T>(x[base[0] + offset[0] + column]),
                      shift);
    }
    y[i] = (Y)e.of(total, shift);
  }
}

} // namespace
} // namespace rp

#endif
