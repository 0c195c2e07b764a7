/* layer_norm, rms_norm and their gradients. A block takes a row at a time and
   keeps it in registers, SLOTS values a thread, so that x (and dy) are read
   once; rows wider than that are read again. A thread always has the same
   columns, so that the weights' gradients grow in its registers too, over the
   rows first, first + partials, ...; the partials' number follows from the
   shape alone. They are joined in order, in f64.

   Weights and statistics are f32 where x is bf16. y may lie over x, dx over
   dy or x. */
#include "kernels/sums.h"

namespace rp {
namespace {

/* Threads a row at most: backward needs twice the registers. */
enum { SLOTS = 8, FORWARD_THREADS = 1024, BACKWARD_THREADS = 512 };
/* Partials: never more than one for so many rows. */
enum { PARTIALS = 512, PARTIAL_ROWS = 8 };

struct shape {
  int64_t rows, width;
};

shape shape_of(const rp_type *x, const rp_type *w) {
  shape s = {1, rp_type_count(w)};
  for (int i = 0; i < x->rank - w->rank; i++) s.rows *= x->dims[i];
  return s;
}

/* Threads for a row. */
dim3 threads_for(int64_t width, int most) {
  const int64_t warps = (width + SLOTS * WARP - 1) / (SLOTS * WARP);
  if (warps < 1) return dim3(WARP);
  return dim3(warps * WARP < most ? (unsigned)(warps * WARP) : most);
}

/* A thread's part of a row: packs threadIdx.x, threadIdx.x + blockDim.x, ... */
template <typename T, int V> struct part {
  pack<T, V> at[SLOTS / V];
};
template <typename T, int V>
__device__ __forceinline__ part<T, V> read_part(const T *row, int64_t width,
                                                bool aligned) {
  part<T, V> p;
  for (int k = 0; k < SLOTS / V; k++) {
    const int64_t i = threadIdx.x + k * (int64_t)blockDim.x;
    if (i < width / V) p.at[k] = read_pack<T, V>(row + i * V, aligned);
    else
      for (int j = 0; j < V; j++) p.at[k].at[j] = narrow<T>(0);
  }
  return p;
}
template <typename T, int V>
__device__ __forceinline__ void write_part(T *row, int64_t width,
                                           const part<T, V> &p, bool aligned) {
  for (int k = 0; k < SLOTS / V; k++) {
    const int64_t i = threadIdx.x + k * (int64_t)blockDim.x;
    if (i < width / V) write_pack(row + i * V, p.at[k], aligned);
  }
}

/* ---- forward ------------------------------------------------------------- */

template <typename T> struct forward_arrays {
  const T *x;
  const wide<T> *w, *b;
  T *y;
  wide<T> *mean, *rstd;
};

/* y = (x - mean) rstd w + b, or x rstd w. */
template <bool centred, typename W>
__device__ __forceinline__ W normalised(W x, W mean, W rstd, W w, W b) {
  return centred ? (x - mean) * rstd * w + b : x * rstd * w;
}

template <typename T, int V, bool centred>
__global__ void __launch_bounds__(FORWARD_THREADS)
normalise(forward_arrays<T> a, int64_t rows, int64_t width, wide<T> eps,
          bool aligned) {
  typedef wide<T> W;
  __shared__ W scratch[WARP];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    part<T, V> p = read_part<T, V>(a.x + row * width, width, aligned);
    W mean = 0, squares = 0;
    if (centred) {
      for (int s = 0; s < SLOTS; s++) mean += widen(p.at[s / V].at[s % V]);
      mean = block_reduce(mean, (W)0, scratch, sum_of()) / (W)width;
    }
    for (int s = 0; s < SLOTS; s++) {
      const W d = widen(p.at[s / V].at[s % V]) - mean;
      const int64_t i = threadIdx.x + s / V * (int64_t)blockDim.x;
      if (i < width / V) squares += d * d;
    }
    squares = block_reduce(squares, (W)0, scratch, sum_of());
    const W rstd = (W)1 / scalar::sqrt(squares / (W)width + eps);
    if (threadIdx.x == 0) {
      if (centred) a.mean[row] = mean;
      a.rstd[row] = rstd;
    }
    const part<W, V> w = read_part<W, V>(a.w, width, aligned);
    part<W, V> b;
    if (centred) b = read_part<W, V>(a.b, width, aligned);
    for (int s = 0; s < SLOTS; s++) {
      T *value = &p.at[s / V].at[s % V];
      *value = narrow<T>(normalised<centred>(
          widen(*value), mean, rstd, w.at[s / V].at[s % V],
          centred ? b.at[s / V].at[s % V] : (W)0));
    }
    write_part(a.y + row * width, width, p, aligned);
  }
}

template <typename T, bool centred>
__global__ void __launch_bounds__(FORWARD_THREADS)
normalise_wide(forward_arrays<T> a, int64_t rows, int64_t width, wide<T> eps,
               bool) {
  typedef wide<T> W;
  __shared__ W scratch[WARP];
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *x = a.x + row * width;
    T *y = a.y + row * width;
    W mean = 0, squares = 0;
    if (centred) {
      for (int64_t j = threadIdx.x; j < width; j += blockDim.x)
        mean += widen(x[j]);
      mean = block_reduce(mean, (W)0, scratch, sum_of()) / (W)width;
    }
    for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      const W d = widen(x[j]) - mean;
      squares += d * d;
    }
    squares = block_reduce(squares, (W)0, scratch, sum_of());
    const W rstd = (W)1 / scalar::sqrt(squares / (W)width + eps);
    if (threadIdx.x == 0) {
      if (centred) a.mean[row] = mean;
      a.rstd[row] = rstd;
    }
    for (int64_t j = threadIdx.x; j < width; j += blockDim.x)
      y[j] = narrow<T>(normalised<centred>(widen(x[j]), mean, rstd, a.w[j],
                                           centred ? a.b[j] : (W)0));
  }
}

/* Whether the packs of rows and of vectors (weights, partials) are aligned. */
template <typename T>
bool are_aligned(std::initializer_list<const void *> rows,
                 std::initializer_list<const void *> vectors) {
  for (const void *p : rows)
    if (!is_aligned(p, 16)) return false;
  for (const void *p : vectors)
    if (!is_aligned(p, sizeof(wide<T>) * pack_size<T>())) return false;
  return true;
}

unsigned blocks_for(int64_t rows) {
  return (unsigned)(rows < 0x7fffffff ? rows : 0x7fffffff);
}

template <typename T, bool centred>
rp_status forward(const rp_kernel_args *args) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const char *name = centred ? "layer_norm" : "rms_norm";
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[0].type, &in[1].type);
  if (s.rows == 0) return RP_OK;
  const forward_arrays<T> a = {
      (const T *)in[0].data, (const W *)in[1].data,
      centred ? (const W *)in[2].data : nullptr, (T *)out[0].data,
      centred ? (W *)out[1].data : nullptr, (W *)out[centred ? 2 : 1].data};
  const W eps = (W)(args->n_reals > 0 ? args->reals[0] : 1e-5);
  const dim3 threads = threads_for(s.width, FORWARD_THREADS);
  const unsigned blocks = blocks_for(s.rows);
  const bool aligned = are_aligned<T>({a.x, a.y}, {a.w, a.b});
  const auto kernel = s.width > FORWARD_THREADS * SLOTS
                          ? normalise_wide<T, centred>
                      : s.width % V == 0 ? normalise<T, V, centred>
                                         : normalise<T, 1, centred>;
  return launch(args, name, kernel, blocks, threads, 0, a, s.rows, s.width,
                eps, aligned);
}

/* ---- backward ------------------------------------------------------------ */

template <typename T> struct backward_arrays {
  const T *dy, *x;
  const wide<T> *w, *mean, *rstd;
  T *dx;
  wide<T> *partials; /* of a block: dw and (centred) db */
};

/* With g = dy w and h = (x - mean) rstd: dx = rstd (g - a - h b), a = mean(g)
   (0 unless centred), b = mean(g h). */
template <typename W>
__device__ __forceinline__ W slope(W g, W h, W a, W b, W rstd) {
  return rstd * (g - a - h * b);
}

template <typename T, int V, bool centred>
__global__ void __launch_bounds__(BACKWARD_THREADS)
grad_rows(backward_arrays<T> a, int64_t rows, int64_t width, bool aligned) {
  typedef wide<T> W;
  __shared__ W scratch[2 * WARP];
  const part<W, V> weights = read_part<W, V>(a.w, width, aligned);
  part<W, V> dw, db;
  for (int s = 0; s < SLOTS; s++)
    dw.at[s / V].at[s % V] = db.at[s / V].at[s % V] = 0;
  part<T, V> dy, x;
  int64_t row = blockIdx.x;
  if (row < rows) {
    dy = read_part<T, V>(a.dy + row * width, width, aligned);
    x = read_part<T, V>(a.x + row * width, width, aligned);
  }
  while (row < rows) {
    /* The next row is on its way while this one is summed. */
    const int64_t next = row + gridDim.x;
    part<T, V> next_dy, next_x;
    if (next < rows) {
      next_dy = read_part<T, V>(a.dy + next * width, width, aligned);
      next_x = read_part<T, V>(a.x + next * width, width, aligned);
    }
    const W mean = centred ? a.mean[row] : (W)0, rstd = a.rstd[row];
    W g_sum = 0, gh_sum = 0;
    for (int s = 0; s < SLOTS; s++) {
      const W d = widen(dy.at[s / V].at[s % V]);
      const W g = d * weights.at[s / V].at[s % V];
      g_sum += g;
      gh_sum += g * (widen(x.at[s / V].at[s % V]) - mean);
    }
    block_sums(&g_sum, &gh_sum, scratch);
    const W level = centred ? g_sum / (W)width : (W)0;
    const W along = gh_sum * rstd / (W)width;
    for (int s = 0; s < SLOTS; s++) {
      const W d = widen(dy.at[s / V].at[s % V]);
      const W h = (widen(x.at[s / V].at[s % V]) - mean) * rstd;
      dw.at[s / V].at[s % V] += d * h;
      if (centred) db.at[s / V].at[s % V] += d;
      dy.at[s / V].at[s % V] = narrow<T>(slope(
          d * weights.at[s / V].at[s % V], h, level, along, rstd));
    }
    write_part(a.dx + row * width, width, dy, aligned);
    dy = next_dy;
    x = next_x;
    row = next;
  }
  W *own = a.partials + blockIdx.x * (centred ? 2 : 1) * width;
  write_part(own, width, dw, aligned);
  if (centred) write_part(own + width, width, db, aligned);
}

template <typename T, bool centred>
__global__ void __launch_bounds__(BACKWARD_THREADS)
grad_wide_rows(backward_arrays<T> a, int64_t rows, int64_t width, bool) {
  typedef wide<T> W;
  __shared__ W scratch[2 * WARP];
  W *dw = a.partials + blockIdx.x * (centred ? 2 : 1) * width;
  W *db = dw + width;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const bool first = row < gridDim.x;
    const T *dy = a.dy + row * width, *x = a.x + row * width;
    T *dx = a.dx + row * width;
    const W mean = centred ? a.mean[row] : (W)0, rstd = a.rstd[row];
    W g_sum = 0, gh_sum = 0;
    for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      const W g = widen(dy[j]) * a.w[j];
      g_sum += g;
      gh_sum += g * (widen(x[j]) - mean);
    }
    block_sums(&g_sum, &gh_sum, scratch);
    const W level = centred ? g_sum / (W)width : (W)0;
    const W along = gh_sum * rstd / (W)width;
    for (int64_t j = threadIdx.x; j < width; j += blockDim.x) {
      const W d = widen(dy[j]), h = (widen(x[j]) - mean) * rstd;
      dw[j] = (first ? (W)0 : dw[j]) + d * h;
      if (centred) db[j] = (first ? (W)0 : db[j]) + d;
      dx[j] = narrow<T>(slope(d * a.w[j], h, level, along, rstd));
    }
  }
}

/* dw and db from the partials: a block takes 32 columns, a line of threads
   every 32nd partial. */
template <typename W>
__global__ void __launch_bounds__(WARP *WARP)
join_partials(const W *partials, int64_t n, int64_t columns, W *dw, W *db,
              int64_t width) {
  __shared__ double sums[WARP][WARP + 1];
  const int64_t column = blockIdx.x * (int64_t)WARP + threadIdx.x;
  double sum = 0;
  if (column < columns)
    for (int64_t p = threadIdx.y; p < n; p += WARP)
      sum += partials[p * columns + column];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int k = 1; k < WARP; k++) sum += sums[k][threadIdx.x];
  if (column < width) dw[column] = (W)sum;
  else db[column - width] = (W)sum;
}

int64_t partials_of(const shape *s) {
  const int64_t n = (s->rows + PARTIAL_ROWS - 1) / PARTIAL_ROWS;
  return n < PARTIALS ? n : (int64_t)PARTIALS;
}

rp_status prepare_grad(const rp_kernel_args *args, void **state,
                       int64_t *bytes) {
  const rp_type *x = &args->in[1].type;
  const shape s = shape_of(x, &args->in[2].type);
  *state = nullptr;
  *bytes = rp_align(partials_of(&s) * (args->n_out - 1) * s.width *
                    (int64_t)(x->dtype == RP_F64 ? sizeof(double)
                                                 : sizeof(float)));
  return RP_OK;
}

template <typename T, bool centred>
rp_status backward(const rp_kernel_args *args) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const char *name = centred ? "layer_norm_grad" : "rms_norm_grad";
  const rp_array *in = args->in, *out = args->out;
  const shape s = shape_of(&in[1].type, &in[2].type);
  if (s.width == 0) return RP_OK;
  const int64_t partials = partials_of(&s);
  const int64_t columns = (centred ? 2 : 1) * s.width;
  const backward_arrays<T> a = {
      (const T *)in[0].data, (const T *)in[1].data, (const W *)in[2].data,
      centred ? (const W *)in[3].data : nullptr,
      (const W *)in[centred ? 4 : 3].data, (T *)out[0].data,
      (W *)args->workspace};
  const dim3 threads = threads_for(s.width, BACKWARD_THREADS);
  if (s.rows > 0) {
    const bool aligned =
        are_aligned<T>({a.dy, a.x, a.dx}, {a.w, a.partials});
    const auto kernel = s.width > BACKWARD_THREADS * SLOTS
                            ? grad_wide_rows<T, centred>
                        : s.width % V == 0 ? grad_rows<T, V, centred>
                                           : grad_rows<T, 1, centred>;
    const rp_status status = launch(args, name, kernel, (unsigned)partials,
                                    threads, 0, a, s.rows, s.width, aligned);
    if (status != RP_OK) return status;
  }
  return launch(args, name, join_partials<W>,
                (unsigned)((columns + WARP - 1) / WARP), dim3(WARP, WARP), 0,
                a.partials, partials, columns, (W *)out[1].data,
                centred ? (W *)out[2].data : nullptr, s.width);
}

} // namespace

RP_ROWS(norm,
        row("layer_norm", RP_F32, forward<float, true>),
        row("layer_norm", RP_F64, forward<double, true>),
        row("layer_norm", RP_BF16, forward<bf16, true>),
        row("rms_norm", RP_F32, forward<float, false>),
        row("rms_norm", RP_F64, forward<double, false>),
        row("rms_norm", RP_BF16, forward<bf16, false>),
        row("layer_norm_grad", RP_F32, backward<float, true>, prepare_grad),
        row("layer_norm_grad", RP_F64, backward<double, true>, prepare_grad),
        row("layer_norm_grad", RP_BF16, backward<bf16, true>, prepare_grad),
        row("rms_norm_grad", RP_F32, backward<float, false>, prepare_grad),
        row("rms_norm_grad", RP_F64, backward<double, false>, prepare_grad),
        row("rms_norm_grad", RP_BF16, backward<bf16, false>, prepare_grad));

} // namespace rp
