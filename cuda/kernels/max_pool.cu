/* Pooling of planes, the greatest of each window. A thread an element of what
   is written: a gradient's element looks for the windows that reach it and adds
   them in order, so nothing is scattered. */
#include "planes.h"

namespace rp {
namespace {

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

} // namespace

RP_ROWS(
    max_pool, row("max_pool2d", RP_F32, run_max_pool<float>),
    row("max_pool2d", RP_F64, run_max_pool<double>),
    row("max_pool2d", RP_BF16, run_max_pool<bf16>),
    row("max_pool2d_grad", RP_F32, run_max_pool_grad<float>),
    row("max_pool2d_grad", RP_F64, run_max_pool_grad<double>),
    row("max_pool2d_grad", RP_BF16, run_max_pool_grad<bf16>),
    row("max_pool2d_take", RP_F32, run_max_pool_take<float>),
    row("max_pool2d_take", RP_F64, run_max_pool_take<double>),
    row("max_pool2d_take", RP_BF16, run_max_pool_take<bf16>));

} // namespace rp
