/* Pooling of planes by means, and resizing. A thread an element of what is
   written: a gradient's element looks for the outputs that reach it and adds
   them in order, so nothing is scattered. */
#include "planes.h"

namespace rp {
namespace {

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
    pool, row("avg_pool2d", RP_F32, means<float, WINDOWS>),
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
