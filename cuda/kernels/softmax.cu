/* Softmax and its kin. A row along the last dim is read once, into registers,
   while it has at most some thousands of columns; a longer one is read twice,
   the first time for its greatest and the sum of exponentials together. Every
   kernel may write over its inputs: a thread reads what it writes, before. */
#include "rows.h"

namespace rp {
namespace {

/* ---- rows ---------------------------------------------------------------- */

/* Rows of n; `limit` of them count where causal, so many more in each row of
   `queries`. The mask's entry for (row, j) is at mask[walk(row) + j * step];
   NULL: all are true. */
struct scores {
  int64_t rows, n, queries;
  bool causal, lenient, aligned; /* lenient: a row of -inf gives zeros */
  double scale;
  const uint8_t *mask;
  int64_t step;
  walk<1> mask_rows;
  team by;

  __device__ __forceinline__ int64_t limit(int64_t row) const {
    if (!causal) return n;
    int64_t k;
    const int64_t keys = divide(row, queries, &k) + n - queries + 1;
    return keys < 0 ? 0 : keys < n ? keys : n;
  }
};

/* A row's values as they count: scale * x, -inf where masked or past the
   limit. */
template <typename T> struct masked_row {
  const T *x;
  const uint8_t *mask;
  int64_t first, step;
  stretch counted;
  T scale;
  bool aligned;

  __device__ __forceinline__ masked_row(const T *values, const scores &s,
                                        int64_t row)
      : x(values), mask(nullptr), first(row * s.n), step(s.step),
        counted{row * s.n, row * s.n + s.limit(row)}, scale((T)s.scale),
        aligned(s.aligned) {
    if (s.mask == nullptr) return;
    int64_t offset[1];
    s.mask_rows.at(row, offset);
    mask = s.mask + offset[0];
  }

  __device__ __forceinline__ void read(int64_t u, T (&to)[UNIT<T>]) const {
    counted.read<T>(x, aligned, u, (T)-INFINITY, to);
    for (int j = 0; j < UNIT<T>; j++) {
      const int64_t at = u * UNIT<T> + j;
      if (!counted.has(at)) continue;
      to[j] = mask && !mask[(at - first) * step] ? (T)-INFINITY
                                                 : scale * to[j];
    }
  }
};

/* What a row's values become: softmax's, once their exponentials' sum is
   known. `by`: its reciprocal, or its logarithm. */
template <typename T, bool IS_LOG>
__device__ __forceinline__ void turn(T (&v)[UNIT<T>], int64_t u,
                                     const stretch &counted, T top, T by,
                                     bool nothing) {
  for (int j = 0; j < UNIT<T>; j++) {
    if (nothing || !counted.has(u * UNIT<T> + j)) v[j] = 0;
    else v[j] = IS_LOG ? (v[j] - top) - by : exp_of(v[j] - top) * by;
  }
}

/* R units of a row in each thread; 0: it is read again. */
template <typename T, bool IS_LOG, int R>
__global__ void __launch_bounds__(BLOCK, 1)
softmax_row(const T *x, T *y, scores s) {
  __shared__ T scratch[WARP];
  for (int64_t row = s.by.first(); row < s.rows; row += s.by.step()) {
    const masked_row<T> from(x, s, row);
    const stretch all = {row * s.n, (row + 1) * s.n};
    const int64_t begin = all.begin<T>() + s.by.lane(), end = all.end<T>();
    T kept[R ? R : 1][UNIT<T>];
    exp_sum<T> sum = exp_sum_of_none<T>();
    if constexpr (R > 0) {
      T top = (T)-INFINITY, rest = 0;
#pragma unroll
      for (int r = 0; r < R; r++) {
        const int64_t u = begin + r * s.by.size;
        if (u < end) from.read(u, kept[r]);
        else
          for (int j = 0; j < UNIT<T>; j++) kept[r][j] = (T)-INFINITY;
        for (int j = 0; j < UNIT<T>; j++) top = max_of()(top, kept[r][j]);
      }
      top = s.by.reduce(top, (T)-INFINITY, scratch, max_of());
#pragma unroll
      for (int r = 0; r < R; r++)
        if (begin + r * s.by.size < end)
          for (int j = 0; j < UNIT<T>; j++) rest += exp_of(kept[r][j] - top);
      sum = exp_sum<T>{top, s.by.reduce(rest, (T)0, scratch, sum_of())};
    } else {
      for (int64_t u = begin; u < end; u += s.by.size) {
        from.read(u, kept[0]);
        exp_sum_add(&sum, kept[0]);
      }
      sum = exp_sum_join(s.by, sum, scratch);
    }
    const bool nothing = s.lenient && sum.top == (T)-INFINITY &&
                         (R > 0 || sum.rest == 0);
    const T by = IS_LOG ? log_of(sum.rest) : 1 / sum.rest;
    if constexpr (R > 0) {
#pragma unroll
      for (int r = 0; r < R; r++) {
        const int64_t u = begin + r * s.by.size;
        if (u >= end) continue;
        turn<T, IS_LOG>(kept[r], u, from.counted, sum.top, by, nothing);
        all.write<T>(y, s.aligned, u, kept[r]);
      }
    } else {
      for (int64_t u = begin; u < end; u += s.by.size) {
        from.read(u, kept[0]);
        turn<T, IS_LOG>(kept[0], u, from.counted, sum.top, by, nothing);
        all.write<T>(y, s.aligned, u, kept[0]);
      }
    }
  }
}

/* dx = y (dy - sum(dy y)) scale, or dy - exp(y) sum(dy); 0 past the limit,
   where nothing is read. */
template <typename T, bool IS_LOG, int R>
__global__ void __launch_bounds__(BLOCK, 1)
softmax_grad_row(const T *dy, const T *y, T *dx, scores s) {
  __shared__ T scratch[WARP];
  for (int64_t row = s.by.first(); row < s.rows; row += s.by.step()) {
    const stretch all = {row * s.n, (row + 1) * s.n};
    const stretch counted = {all.first, all.first + s.limit(row)};
    const int64_t begin = all.begin<T>() + s.by.lane(), end = all.end<T>();
    T kept_dy[R ? R : 1][UNIT<T>], kept_y[R ? R : 1][UNIT<T>], sum = 0;
#pragma unroll
    for (int r = 0; R ? r < R : begin + r * s.by.size < end; r++) {
      const int64_t u = begin + r * s.by.size;
      if (u >= end) continue;
      const int k = R ? r : 0;
      counted.read<T>(dy, s.aligned, u, 0, kept_dy[k]);
      counted.read<T>(y, s.aligned, u, 0, kept_y[k]);
      for (int j = 0; j < UNIT<T>; j++)
        sum += IS_LOG ? kept_dy[k][j] : kept_dy[k][j] * kept_y[k][j];
    }
    sum = s.by.reduce(sum, (T)0, scratch, sum_of());
    const T scale = (T)s.scale;
#pragma unroll
    for (int r = 0; R ? r < R : begin + r * s.by.size < end; r++) {
      const int64_t u = begin + r * s.by.size;
      if (u >= end) continue;
      const int k = R ? r : 0;
      if constexpr (R == 0) {
        counted.read<T>(dy, s.aligned, u, 0, kept_dy[0]);
        counted.read<T>(y, s.aligned, u, 0, kept_y[0]);
      }
      T v[UNIT<T>];
      for (int j = 0; j < UNIT<T>; j++) {
        if (!counted.has(u * UNIT<T> + j)) v[j] = 0;
        else if (IS_LOG) v[j] = kept_dy[k][j] - exp_of(kept_y[k][j]) * sum;
        else v[j] = kept_y[k][j] * (kept_dy[k][j] - sum) * scale;
      }
      all.write<T>(dx, s.aligned, u, v);
    }
  }
}

/* ---- along an earlier dim ------------------------------------------------ */

template <typename T, bool IS_LOG>
__global__ void __launch_bounds__(BLOCK)
softmax_columns(const T *x, T *y, extent e) {
  RP_EACH(i, e.outer * e.inner) {
    int64_t o;
    const int64_t j = divide(i, e.inner, &o);
    const int64_t from = o * e.n * e.inner + j;
    exp_sum<T> sum = exp_sum_of_none<T>();
    for (int64_t k = 0; k < e.n; k++) {
      const T one[1] = {x[from + k * e.inner]};
      exp_sum_add(&sum, one);
    }
    const T by = IS_LOG ? log_of(sum.rest) : 1 / sum.rest;
    for (int64_t k = 0; k < e.n; k++) {
      const T v = x[from + k * e.inner] - sum.top;
      y[from + k * e.inner] = IS_LOG ? v - by : exp_of(v) * by;
    }
  }
}

template <typename T, bool IS_LOG>
__global__ void __launch_bounds__(BLOCK)
softmax_grad_columns(const T *dy, const T *y, T *dx, extent e) {
  RP_EACH(i, e.outer * e.inner) {
    int64_t o;
    const int64_t j = divide(i, e.inner, &o);
    const int64_t from = o * e.n * e.inner + j;
    T sum = 0;
    for (int64_t k = 0; k < e.n; k++) {
      const int64_t at = from + k * e.inner;
      sum += IS_LOG ? dy[at] : dy[at] * y[at];
    }
    for (int64_t k = 0; k < e.n; k++) {
      const int64_t at = from + k * e.inner;
      dx[at] = IS_LOG ? dy[at] - exp_of(y[at]) * sum : y[at] * (dy[at] - sum);
    }
  }
}

/* ---- launching ----------------------------------------------------------- */

/* Units that a row may touch: one more where rows begin inside of one. */
template <typename T> int64_t units_of(int64_t n) {
  return (n + UNIT<T> - 1) / UNIT<T> + (n % UNIT<T> ? 1 : 0);
}

/* How many units of a row each thread of its team holds: 1, 4 or 8, or 0. Only
   f32 has kernels that hold any: f64's would compile for long. */
int held(int64_t units, team *by) {
  *by = team{units <= 8 * WARP ? (int)WARP : (int)BLOCK};
  const int64_t each = (units + by->size - 1) / by->size;
  return each <= 1 ? 1 : each <= 4 ? 4 : each <= 8 ? 8 : 0;
}

template <typename T, bool IS_LOG>
rp_status launch_rows(const rp_kernel_args *args, const char *name, scores s) {
  const T *x = (const T *)args->in[0].data;
  T *y = (T *)args->out[0].data;
  s.aligned = is_aligned(x) && is_aligned(y);
  const int r = held(units_of<T>(s.n), &s.by);
  auto kernel = softmax_row<T, IS_LOG, 0>;
  if constexpr (sizeof(T) == 4)
    kernel = r == 1   ? softmax_row<T, IS_LOG, 1>
             : r == 4 ? softmax_row<T, IS_LOG, 4>
             : r == 8 ? softmax_row<T, IS_LOG, 8> : kernel;
  return launch(args, name, kernel, grid_of(s.by, s.rows), dim3(BLOCK), 0, x,
                y, s);
}

template <typename T, bool IS_LOG>
rp_status launch_grad_rows(const rp_kernel_args *args, const char *name,
                           scores s) {
  const T *dy = (const T *)args->in[0].data, *y = (const T *)args->in[1].data;
  T *dx = (T *)args->out[0].data;
  s.aligned = is_aligned(dy) && is_aligned(y) && is_aligned(dx);
  const int r = held(units_of<T>(s.n), &s.by);
  auto kernel = softmax_grad_row<T, IS_LOG, 0>;
  if constexpr (sizeof(T) == 4)
    kernel = r == 1   ? softmax_grad_row<T, IS_LOG, 1>
             : r == 4 ? softmax_grad_row<T, IS_LOG, 4>
             : r == 8 ? softmax_grad_row<T, IS_LOG, 8> : kernel;
  return launch(args, name, kernel, grid_of(s.by, s.rows), dim3(BLOCK), 0, dy,
                y, dx, s);
}

scores plain(extent e) {
  scores s = {};
  s.rows = e.outer;
  s.n = e.n;
  s.queries = 1;
  s.scale = 1;
  return s;
}

template <typename T, bool IS_LOG>
rp_status softmax(const rp_kernel_args *args) {
  const char *name = IS_LOG ? "log_softmax" : "softmax";
  const extent e = extent_of(&args->in[0].type, args->ints[0]);
  if (e.outer * e.n * e.inner == 0) return RP_OK;
  if (e.inner == 1) return launch_rows<T, IS_LOG>(args, name, plain(e));
  return launch(args, name, softmax_columns<T, IS_LOG>,
                grid_for(e.outer * e.inner), dim3(BLOCK), 0,
                (const T *)args->in[0].data, (T *)args->out[0].data, e);
}

template <typename T, bool IS_LOG>
rp_status softmax_grad(const rp_kernel_args *args) {
  const char *name = IS_LOG ? "log_softmax_grad" : "softmax_grad";
  const extent e = extent_of(&args->in[0].type, args->ints[0]);
  if (e.outer * e.n * e.inner == 0) return RP_OK;
  if (e.inner == 1) return launch_grad_rows<T, IS_LOG>(args, name, plain(e));
  return launch(args, name, softmax_grad_columns<T, IS_LOG>,
                grid_for(e.outer * e.inner), dim3(BLOCK), 0,
                (const T *)args->in[0].data, (const T *)args->in[1].data,
                (T *)args->out[0].data, e);
}

/* ---- attention ----------------------------------------------------------- */

/* Scores (..., queries, keys), row by row. */
scores scores_of(const rp_kernel_args *args) {
  const rp_type *x = &args->in[0].type;
  scores s = plain(extent_of(x, x->rank - 1));
  s.queries = x->rank > 1 ? x->dims[x->rank - 2] : 1;
  s.causal = args->n_ints > 0 && args->ints[0];
  s.scale = args->n_reals > 0 ? args->reals[0] : 1;
  s.lenient = true;
  return s;
}

template <typename T> rp_status masked(const rp_kernel_args *args) {
  scores s = scores_of(args);
  if (s.rows * s.n == 0) return RP_OK;
  if (args->n_in > 1) {
    rp_type over = args->in[0].type;
    rp_array mask = args->in[1];
    over.rank--;
    s.mask = (const uint8_t *)mask.data;
    if (mask.type.rank > 0) {
      mask.type.rank--;
      s.step = mask.type.dims[mask.type.rank] == 1 ? 0 : 1;
    }
    const rp_array *const arrays[1] = {&mask};
    s.mask_rows = walk_over<1>(&over, arrays);
  }
  return launch_rows<T, false>(args, "scaled_masked_softmax", s);
}

template <typename T> rp_status masked_grad(const rp_kernel_args *args) {
  const scores s = scores_of(args);
  if (s.rows * s.n == 0) return RP_OK;
  return launch_grad_rows<T, false>(args, "scaled_masked_softmax_grad", s);
}

} // namespace

RP_ROWS(softmax, row("softmax", RP_F32, softmax<float, false>),
        row("softmax", RP_F64, softmax<double, false>),
        row("softmax_grad", RP_F32, softmax_grad<float, false>),
        row("softmax_grad", RP_F64, softmax_grad<double, false>),
        row("log_softmax", RP_F32, softmax<float, true>),
        row("log_softmax", RP_F64, softmax<double, true>),
        row("log_softmax_grad", RP_F32, softmax_grad<float, true>),
        row("log_softmax_grad", RP_F64, softmax_grad<double, true>),
        row("scaled_masked_softmax", RP_F32, masked<float>),
        row("scaled_masked_softmax", RP_F64, masked<double>),
        row("scaled_masked_softmax_grad", RP_F32, masked_grad<float>),
        row("scaled_masked_softmax_grad", RP_F64, masked_grad<double>));

} // namespace rp
