/* Pooling and resizing of planes. A thread an element of what is written: a
   gradient's element looks for the outputs that reach it and adds them in
   order, so nothing is scattered. */
#include "base/window.h"

#include "rows.h"

namespace rp {
namespace {

/* Planes of x's and y's sizes. */
struct planes {
  int64_t count, x[2], y[2];
};

planes planes_of(const rp_type *x, const rp_type *y) {
  planes p = {1, {0, 0}, {0, 0}};
  for (int i = 0; i < x->rank - 2; i++) p.count *= x->dims[i];
  for (int d = 0; d < 2; d++) {
    p.x[d] = x->dims[x->rank - 2 + d];
    p.y[d] = y->dims[y->rank - 2 + d];
  }
  return p;
}

/* Element i of arrays of planes of `size`: plane, row, column. */
struct spot {
  int64_t plane, at[2];
};

__device__ __forceinline__ spot spot_of(int64_t i, const int64_t (&size)[2]) {
  spot s;
  int64_t rows;
  s.at[1] = divide(i, size[1], &rows);
  s.at[0] = divide(rows, size[0], &s.plane);
  return s;
}

/* ---- the greatest -------------------------------------------------------- */

rp_window window_of(const rp_kernel_args *args) {
  rp_window w;
  for (int d = 0; d < 2; d++) {
    w.kernel[d] = args->ints[d];
    w.stride[d] = args->ints[2 + d];
    w.pad[d] = args->ints[4 + d];
    w.dilation[d] = args->ints[6 + d];
  }
  return w;
}

/* a / b for a >= 0: strides and dilations are mostly 1 or 2, and a division is
   dozens of instructions. */
template <typename I> __device__ __forceinline__ I over(I a, I b) {
  return b <= 2 ? a >> (b - 1) : a / b;
}

/* Taps first..end-1 of window `output` along d lie inside. */
template <typename I>
__device__ __forceinline__ void taps_inside(const rp_window &w, int d, I size,
                                            I output, I *first, I *end) {
  const I start = output * (I)w.stride[d] - (I)w.pad[d];
  const I by = (I)w.dilation[d];
  *first = start < 0 ? over<I>(by - 1 - start, by) : 0;
  *end = start >= size ? 0 : over<I>(size - 1 - start, by) + 1;
  if (*end > (I)w.kernel[d]) *end = (I)w.kernel[d];
}

/* The place in its plane of the greatest of y's window, the first of equals,
   or of its last NaN; -1 where it holds no element. */
template <typename T, typename I>
__device__ __forceinline__ I greatest(const T *x, const rp_window &w,
                                      const planes &p, const I (&y)[2],
                                      wide<T> *value) {
  I first[2], end[2], place = -1;
  wide<T> best = (wide<T>)-INFINITY;
  for (int d = 0; d < 2; d++)
    taps_inside<I>(w, d, (I)p.x[d], y[d], &first[d], &end[d]);
  for (I a = first[0]; a < end[0]; a++) {
    const I row =
        y[0] * (I)w.stride[0] - (I)w.pad[0] + a * (I)w.dilation[0];
    for (I b = first[1]; b < end[1]; b++) {
      const I at = row * (I)p.x[1] + y[1] * (I)w.stride[1] - (I)w.pad[1] +
                   b * (I)w.dilation[1];
      const wide<T> v = widen<T>(x[at]);
      if (place < 0 || v > best || v != v) best = v, place = at;
    }
  }
  *value = best;
  return place;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
max_pool(const T *x, T *y, rp_window w, planes p) {
  RP_EACH(i, p.count * p.y[0] * p.y[1]) {
    const spot s = spot_of(i, p.y);
    wide<T> value;
    greatest<T>(x + s.plane * p.x[0] * p.x[1], w, p, s.at, &value);
    y[i] = narrow<T>(value);
  }
}

/* y = v where x has its greatest. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
max_pool_take(const T *v, const T *x, T *y, rp_window w, planes p) {
  RP_EACH(i, p.count * p.y[0] * p.y[1]) {
    const spot s = spot_of(i, p.y);
    const int64_t from = s.plane * p.x[0] * p.x[1];
    wide<T> value;
    const int64_t place = greatest<T>(x + from, w, p, s.at, &value);
    y[i] = place < 0 ? narrow<T>(0) : v[from + place];
  }
}

/* Whether greatest() is at `place`, whose value is v: at the first element
   that says no, it is not. */
template <typename T>
__device__ __forceinline__ bool is_greatest(const T *x, const rp_window &w,
                                            const planes &p, int64_t i,
                                            int64_t j, int64_t place,
                                            wide<T> v) {
  const int64_t outputs[2] = {i, j};
  int64_t first[2], end[2];
  for (int d = 0; d < 2; d++)
    taps_inside<int64_t>(w, d, p.x[d], outputs[d], &first[d], &end[d]);
  for (int64_t a = first[0]; a < end[0]; a++) {
    const int64_t row = i * w.stride[0] - w.pad[0] + a * w.dilation[0];
    for (int64_t b = first[1]; b < end[1]; b++) {
      const int64_t at =
          row * p.x[1] + j * w.stride[1] - w.pad[1] + b * w.dilation[1];
      if (at == place) continue;
      const wide<T> other = widen<T>(x[at]);
      if (at > place ? other > v || other != other
                     : v == v && !(other < v))
        return false;
    }
  }
  return true;
}

/* The outputs along d whose windows may reach x's index r: first..last. */
template <typename I>
__device__ __forceinline__ void windows_at(const rp_window &w, int d, I r,
                                           I count, I *first, I *last) {
  const I stride = (I)w.stride[d];
  const I reach = ((I)w.kernel[d] - 1) * (I)w.dilation[d];
  const I least = r + (I)w.pad[d] - reach;
  *first = least <= 0 ? 0 : over<I>(least + stride - 1, stride);
  *last = over<I>(r + (I)w.pad[d], stride);
  if (*last >= count) *last = count - 1;
}

/* dx = the sum of dy over the windows whose greatest this is. Windows are
   looked at again: their places would be an array as large as dy. */
template <typename T>
__global__ void __launch_bounds__(BLOCK, 1)
max_pool_grad(const T *dy, const T *x, wide<T> *dx, rp_window w, planes p) {
  RP_EACH(k, p.count * p.x[0] * p.x[1]) {
    const spot s = spot_of(k, p.x);
    const int64_t from = s.plane * p.x[0] * p.x[1];
    const int64_t place = s.at[0] * p.x[1] + s.at[1];
    const wide<T> v = widen<T>(x[k]);
    wide<T> sum = 0;
    int64_t first[2], last[2];
    for (int d = 0; d < 2; d++)
      windows_at(w, d, s.at[d], p.y[d], &first[d], &last[d]);
    for (int64_t i = first[0]; i <= last[0]; i++) {
      if ((s.at[0] + w.pad[0] - i * w.stride[0]) % w.dilation[0]) continue;
      for (int64_t j = first[1]; j <= last[1]; j++) {
        if ((s.at[1] + w.pad[1] - j * w.stride[1]) % w.dilation[1]) continue;
        if (is_greatest<T>(x + from, w, p, i, j, place, v))
          sum += widen<T>(dy[(s.plane * p.y[0] + i) * p.y[1] + j]);
      }
    }
    dx[k] = sum;
  }
}

/* x's planes in tiles. */
struct tiles {
  int32_t size[2], n[2];
  size_t places; /* bytes of the windows that can reach a tile; 0: no tiles */
};

enum { TILE_COLUMNS = 64, TILE = 1024, LEAST_TILE = 128, PLACES = 16 * 1024 };

/* None where planes are small, windows many or numbers large. */
tiles tiles_of(const rp_window &w, const planes &p) {
  tiles t = {};
  int64_t most = p.x[0] * p.x[1];
  if (most < LEAST_TILE) return t;
  t.size[1] =
      (int32_t)(p.x[1] < TILE_COLUMNS ? p.x[1] : (int64_t)TILE_COLUMNS);
  const int64_t rows = TILE / t.size[1];
  t.size[0] = (int32_t)(rows < p.x[0] ? rows : p.x[0]);
  int64_t windows = 1;
  for (int d = 0; d < 2; d++) {
    const int64_t reach = w.kernel[d] * w.dilation[d];
    const int64_t sum = p.x[d] + 2 * w.pad[d] + reach + w.stride[d];
    if (sum > most) most = sum;
    const int64_t reaching =
        (t.size[d] - 1 + reach - w.dilation[d]) / w.stride[d] + 1;
    windows *= reaching < p.y[d] ? reaching : p.y[d];
    t.n[d] = (int32_t)((p.x[d] + t.size[d] - 1) / t.size[d]);
  }
  const int64_t bytes = windows * (int64_t)sizeof(int32_t);
  if (bytes <= PLACES && most < INT32_MAX / 2) t.places = (size_t)bytes;
  return t;
}

/* The same sums in the same order, a block a tile: where the greatest is of
   each window that reaches it is found once, not by each of its elements. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
max_pool_grad_tiles(const T *dy, const T *x, wide<T> *dx, rp_window w,
                    planes p, tiles t) {
  RP_DYNAMIC_SHARED(int32_t, places);
  const int width = (int)p.x[1], y_width = (int)p.y[1];
  for (int64_t item = blockIdx.x; item < p.count * t.n[0] * t.n[1];
       item += gridDim.x) {
    int64_t rows, plane;
    const int across = (int)divide(item, t.n[1], &rows);
    const int tile[2] = {(int)divide(rows, t.n[0], &plane), across};
    int begin[2], inside[2], first[2], windows[2];
    for (int d = 0; d < 2; d++) {
      int other, last;
      begin[d] = tile[d] * t.size[d];
      inside[d] = min(t.size[d], (int)p.x[d] - begin[d]);
      windows_at<int>(w, d, begin[d], (int)p.y[d], &first[d], &other);
      windows_at<int>(w, d, begin[d] + inside[d] - 1, (int)p.y[d], &other,
                      &last);
      windows[d] = max(last - first[d] + 1, 0);
    }
    const T *const from = x + plane * p.x[0] * p.x[1];
    __syncthreads();
    for (int k = threadIdx.x; k < windows[0] * windows[1]; k += BLOCK) {
      const int i = k / windows[1];
      const int y[2] = {first[0] + i, first[1] + k - i * windows[1]};
      wide<T> value;
      places[k] = greatest<T>(from, w, p, y, &value);
    }
    __syncthreads();
    const T *const shares = dy + plane * p.y[0] * p.y[1];
    wide<T> *const to = dx + plane * p.x[0] * p.x[1];
    for (int k = threadIdx.x; k < inside[0] * inside[1]; k += BLOCK) {
      const int i = k / inside[1];
      const int row = begin[0] + i, column = begin[1] + k - i * inside[1];
      const int place = row * width + column;
      int top, bottom, left, right;
      windows_at<int>(w, 0, row, (int)p.y[0], &top, &bottom);
      windows_at<int>(w, 1, column, (int)p.y[1], &left, &right);
      wide<T> sum = 0;
      for (int a = top; a <= bottom; a++)
        for (int b = left; b <= right; b++)
          if (places[(a - first[0]) * windows[1] + b - first[1]] == place)
            sum += widen<T>(shares[a * y_width + b]);
      to[place] = sum;
    }
  }
}

template <typename T> rp_status run_max_pool(const rp_kernel_args *args) {
  const planes p = planes_of(&args->in[0].type, &args->out[0].type);
  const int64_t count = rp_type_count(&args->out[0].type);
  if (count == 0) return RP_OK;
  return launch(args, "max_pool2d", max_pool<T>, grid_for(count), dim3(BLOCK),
                0, (const T *)args->in[0].data, (T *)args->out[0].data,
                window_of(args), p);
}

template <typename T> rp_status run_max_pool_take(const rp_kernel_args *args) {
  const planes p = planes_of(&args->in[1].type, &args->out[0].type);
  const int64_t count = rp_type_count(&args->out[0].type);
  if (count == 0) return RP_OK;
  return launch(args, "max_pool2d_take", max_pool_take<T>, grid_for(count),
                dim3(BLOCK), 0, (const T *)args->in[0].data,
                (const T *)args->in[1].data, (T *)args->out[0].data,
                window_of(args), p);
}

template <typename T> rp_status run_max_pool_grad(const rp_kernel_args *args) {
  const planes p = planes_of(&args->in[1].type, &args->in[0].type);
  const int64_t count = rp_type_count(&args->out[0].type);
  if (count == 0) return RP_OK;
  const rp_window w = window_of(args);
  const tiles t = tiles_of(w, p);
  const T *dy = (const T *)args->in[0].data, *x = (const T *)args->in[1].data;
  wide<T> *dx = (wide<T> *)args->out[0].data;
  if (t.places == 0)
    return launch(args, "max_pool2d_grad", max_pool_grad<T>, grid_for(count),
                  dim3(BLOCK), 0, dy, x, dx, w, p);
  const int64_t blocks = p.count * t.n[0] * t.n[1];
  return launch(args, "max_pool2d_grad", max_pool_grad_tiles<T>,
                dim3((unsigned)(blocks < INT32_MAX ? blocks : INT32_MAX)),
                dim3(BLOCK), t.places, dy, x, dx, w, p, t);
}

/* ---- means of spans ------------------------------------------------------ */

enum kind { WINDOWS, ADAPTIVE, NEAREST };

/* What output i along one dim reads: first..end-1, the sum divided by
   `divisor` (and by that of the other dim). */
struct span {
  int64_t first, end, divisor;
};

struct spans {
  kind is;
  rp_window w;       /* of WINDOWS */
  bool include_pad;  /* whether what lies in the padding counts */
  int64_t divisor;   /* what to divide by instead, or 0 */
  planes p;

  /* PyTorch's count: a window that hangs over the padding is cut there. */
  __device__ __forceinline__ span of(int d, int64_t i) const {
    const int64_t size = p.x[d], count = p.y[d];
    if (is == WINDOWS) {
      const int64_t begin = i * w.stride[d] - w.pad[d];
      const int64_t stop = begin + w.kernel[d] < size + w.pad[d]
                               ? begin + w.kernel[d] : size + w.pad[d];
      span s = {begin < 0 ? 0 : begin, stop < size ? stop : size, 1};
      if (s.end < s.first) s.end = s.first;
      if (divisor) s.divisor = d ? 1 : divisor;
      else s.divisor = include_pad ? stop - begin : s.end - s.first;
      return s;
    }
    const int64_t first = i * size / count;
    const int64_t end =
        is == NEAREST ? first + 1 : ((i + 1) * size + count - 1) / count;
    return span{first, end, end - first};
  }

  /* The outputs whose spans hold x's index r: *first..*last. */
  __device__ __forceinline__ void reaching(int d, int64_t r, int64_t *first,
                                           int64_t *last) const {
    const int64_t size = p.x[d], count = p.y[d];
    if (is == WINDOWS) {
      windows_at(w, d, r, count, first, last);
    } else {
      *first = is == NEAREST ? (r * count + size - 1) / size : r * count / size;
      *last = ((r + 1) * count + size - 1) / size - 1;
    }
  }
};

/* WARP threads an output where it reads much, else one. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
pool_means(const T *x, T *y, spans s, team by) {
  typedef wide<T> W;
  const int64_t count = s.p.count * s.p.y[0] * s.p.y[1];
  for (int64_t i = by.first(); i < count; i += by.step()) {
    const spot at = spot_of(i, s.p.y);
    const span rows = s.of(0, at.at[0]), columns = s.of(1, at.at[1]);
    const int64_t width = columns.end - columns.first;
    const int64_t elements = (rows.end - rows.first) * width;
    const T *from = x + at.plane * s.p.x[0] * s.p.x[1] + columns.first;
    W sum = 0;
    for (int64_t k = by.lane(); k < elements; k += by.size) {
      int64_t row;
      const int64_t column = divide(k, width, &row);
      sum += widen<T>(from[(rows.first + row) * s.p.x[1] + column]);
    }
    if (by.size == WARP) sum = warp_reduce(sum, sum_of());
    if (by.lane() == 0)
      y[i] = narrow<T>(sum / (W)(rows.divisor * columns.divisor));
  }
}

template <typename T>
__global__ void __launch_bounds__(BLOCK, 1)
pool_shares(const T *dy, wide<T> *dx, spans s) {
  typedef wide<T> W;
  RP_EACH(k, s.p.count * s.p.x[0] * s.p.x[1]) {
    const spot at = spot_of(k, s.p.x);
    int64_t first[2], last[2];
    for (int d = 0; d < 2; d++)
      s.reaching(d, at.at[d], &first[d], &last[d]);
    W sum = 0;
    for (int64_t i = first[0]; i <= last[0]; i++)
      for (int64_t j = first[1]; j <= last[1]; j++)
        sum += widen<T>(dy[(at.plane * s.p.y[0] + i) * s.p.y[1] + j]) /
               (W)(s.of(0, i).divisor * s.of(1, j).divisor);
    dx[k] = sum;
  }
}

spans spans_of(const rp_kernel_args *args, kind is, const rp_type *x,
               const rp_type *y) {
  spans s = {};
  s.is = is;
  s.p = planes_of(x, y);
  if (is == WINDOWS) {
    s.w = window_of(args);
    for (int d = 0; d < 2; d++) s.w.dilation[d] = 1;
    s.include_pad = args->ints[9] != 0;
    s.divisor = args->ints[10];
  }
  return s;
}

template <typename T, kind K> rp_status means(const rp_kernel_args *args) {
  const rp_array *x = &args->in[0], *y = &args->out[0];
  const int64_t count = rp_type_count(&y->type);
  if (count == 0) return RP_OK;
  const spans s = spans_of(args, K, &x->type, &y->type);
  const int64_t area = K == WINDOWS ? s.w.kernel[0] * s.w.kernel[1]
                       : K == NEAREST
                           ? 1
                           : s.p.x[0] * s.p.x[1] / (s.p.y[0] * s.p.y[1]);
  const team by = {area >= WARP ? (int)WARP : 1};
  return launch(args, "pool2d", pool_means<T>, grid_of(by, count), dim3(BLOCK),
                0, (const T *)x->data, (T *)y->data, s, by);
}

template <typename T, kind K> rp_status shares(const rp_kernel_args *args) {
  const rp_array *dy = &args->in[0], *dx = &args->out[0];
  const int64_t count = rp_type_count(&dx->type);
  if (count == 0) return RP_OK;
  return launch(args, "pool2d_grad", pool_shares<T>, grid_for(count),
                dim3(BLOCK), 0, (const T *)dy->data, (wide<T> *)dx->data,
                spans_of(args, K, &dx->type, &dy->type));
}

} // namespace

RP_ROWS(
    pool, row("max_pool2d", RP_F32, run_max_pool<float>),
    row("max_pool2d", RP_F64, run_max_pool<double>),
    row("max_pool2d", RP_BF16, run_max_pool<bf16>),
    row("max_pool2d_grad", RP_F32, run_max_pool_grad<float>),
    row("max_pool2d_grad", RP_F64, run_max_pool_grad<double>),
    row("max_pool2d_grad", RP_BF16, run_max_pool_grad<bf16>),
    row("max_pool2d_take", RP_F32, run_max_pool_take<float>),
    row("max_pool2d_take", RP_F64, run_max_pool_take<double>),
    row("max_pool2d_take", RP_BF16, run_max_pool_take<bf16>),
    row("avg_pool2d", RP_F32, means<float, WINDOWS>),
    row("avg_pool2d", RP_F64, means<double, WINDOWS>),
    row("avg_pool2d", RP_BF16, means<bf16, WINDOWS>),
    row("avg_pool2d_grad", RP_F32, shares<float, WINDOWS>),
    row("avg_pool2d_grad", RP_F64, shares<double, WINDOWS>),
    row("avg_pool2d_grad", RP_BF16, shares<bf16, WINDOWS>),
    row("adaptive_avg_pool2d", RP_F32, means<float, ADAPTIVE>),
    row("adaptive_avg_pool2d", RP_F64, means<double, ADAPTIVE>),
    row("adaptive_avg_pool2d", RP_BF16, means<bf16, ADAPTIVE>),
    row("adaptive_avg_pool2d_grad", RP_F32, shares<float, ADAPTIVE>),
    row("adaptive_avg_pool2d_grad", RP_F64, shares<double, ADAPTIVE>),
    row("adaptive_avg_pool2d_grad", RP_BF16, shares<bf16, ADAPTIVE>),
    row("upsample_nearest2d", RP_F32, means<float, NEAREST>),
    row("upsample_nearest2d", RP_F64, means<double, NEAREST>),
    row("upsample_nearest2d", RP_BF16, means<bf16, NEAREST>),
    row("upsample_nearest2d_grad", RP_F32, shares<float, NEAREST>),
    row("upsample_nearest2d_grad", RP_F64, shares<double, NEAREST>),
    row("upsample_nearest2d_grad", RP_BF16, shares<bf16, NEAREST>));

} // namespace rp
