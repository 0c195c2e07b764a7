/* batch_norm, its two parts and its gradient. A channel's values are taken in
   slices, a block each, whose number follows from the shape alone; a warp
   joins a channel's slices in order. Statistics and weights are f32 where x is
   bf16. y may lie over x, dx over dy or x. */
#include "kernels/channels.h"

namespace rp {
namespace {

enum { SLICE = 8192, SLICES = 64 };

int64_t slices_of(const channel_shape &s) {
  const int64_t n = (s.images * s.run + SLICE - 1) / SLICE;
  return n < 1 ? 1 : n < SLICES ? n : (int64_t)SLICES;
}

/* Calls f(at) for each pack of this thread in slice `slice` of channel c. */
template <int V, typename F>
__device__ __forceinline__ void each_pack(const channel_shape &s, int64_t c,
                                          int64_t slice, int64_t slices,
                                          F f) {
  const int64_t packs = s.images * s.run / V;
  const int64_t length = (packs + slices - 1) / slices;
  const int64_t end = min(packs, (slice + 1) * length);
  for (int64_t p = slice * length + threadIdx.x; p < end; p += blockDim.x) {
    const int64_t image = quotient(p * V, s.run);
    f((image * s.channels + c) * s.run + (p * V - image * s.run));
  }
}

/* ---- statistics ---------------------------------------------------------- */

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
slice_moments(const T *x, channel_shape s, int64_t slices,
              moments<wide<T>> *out, bool aligned) {
  typedef wide<T> W;
  __shared__ W scratch[3 * WARP];
  for (int64_t item = blockIdx.x; item < s.channels * slices;
       item += gridDim.x) {
    moments<W> m = {0, 0, 0};
    each_pack<V>(s, item / slices, item % slices, slices, [&](int64_t at) {
      const pack<T, V> raw = read_pack<T, V>(x + at, aligned);
      W values[V];
      for (int k = 0; k < V; k++) values[k] = widen(raw.at[k]);
      m = join(m, moments_of(values));
    });
    m = block_join(m, scratch);
    if (threadIdx.x == 0) out[item] = m;
  }
}

/* A warp a channel. */
template <typename W>
__global__ void __launch_bounds__(WARP)
join_moments(const moments<W> *slice, int64_t channels, int64_t slices,
             W *mean, W *var) {
  for (int64_t c = blockIdx.x; c < channels; c += gridDim.x) {
    moments<W> m = {0, 0, 0};
    for (int64_t k = threadIdx.x; k < slices; k += WARP)
      m = join(m, slice[c * slices + k]);
    m = warp_join(m);
    if (threadIdx.x == 0) mean[c] = m.mean, var[c] = m.squares / m.count;
  }
}

template <typename T>
rp_status find_statistics(const rp_kernel_args *args, const char *name,
                          const rp_array *mean, const rp_array *var) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const channel_shape s = channels_of(&args->in[0].type);
  const int64_t slices = slices_of(s);
  const T *x = (const T *)args->in[0].data;
  moments<W> *parts = (moments<W> *)args->workspace;
  rp_status status = launch(
      args, name, s.run % V ? slice_moments<T, 1> : slice_moments<T, V>,
      blocks_of(s.channels * slices), BLOCK, 0, x, s, slices, parts,
      is_aligned(x, 16));
  if (status != RP_OK) return status;
  return launch(args, name, join_moments<W>, blocks_of(s.channels), WARP, 0,
                parts, s.channels, slices, (W *)mean->data, (W *)var->data);
}

template <typename T>
rp_status prepare_statistics(const rp_kernel_args *args, void **state,
                             int64_t *bytes) {
  const channel_shape s = channels_of(&args->in[0].type);
  *state = nullptr;
  *bytes = rp_align(s.channels * slices_of(s) *
                    (int64_t)sizeof(moments<wide<T>>));
  return RP_OK;
}

/* ---- y from x and the statistics ----------------------------------------- */

template <typename T> struct apply_arrays {
  const T *x;
  const wide<T> *w, *b, *mean, *var;
  T *y;
};

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
apply_channels(apply_arrays<T> a, channel_shape s, wide<T> eps, bool aligned) {
  RP_EACH(p, s.images * s.channels * s.run / V) {
    const int64_t c = quotient(p * V, s.run) % s.channels;
    const wide<T> scale = a.w[c] / scalar::sqrt(a.var[c] + eps);
    write_pack(a.y + p * V,
               affine(read_pack<T, V>(a.x + p * V, aligned), a.mean[c], scale,
                      a.b[c]),
               aligned);
  }
}

template <typename T>
rp_status apply_statistics(const rp_kernel_args *args, const char *name,
                           const rp_array *mean, const rp_array *var) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const channel_shape s = channels_of(&args->in[0].type);
  const apply_arrays<T> a = {
      (const T *)args->in[0].data, (const W *)args->in[1].data,
      (const W *)args->in[2].data, (const W *)mean->data,
      (const W *)var->data,        (T *)args->out[0].data};
  const int64_t count = s.images * s.channels * s.run;
  if (count == 0) return RP_OK;
  return launch(args, name,
                s.run % V ? apply_channels<T, 1> : apply_channels<T, V>,
                grid_for(s.run % V ? count : count / V), BLOCK, 0, a, s,
                eps_of<T>(args), is_aligned(a.x, 16) && is_aligned(a.y, 16));
}

template <typename T> rp_status batch_norm(const rp_kernel_args *args) {
  const rp_array *mean = &args->out[1], *var = &args->out[2];
  const rp_status status = find_statistics<T>(args, "batch_norm", mean, var);
  if (status != RP_OK) return status;
  return apply_statistics<T>(args, "batch_norm", mean, var);
}
template <typename T> rp_status statistics(const rp_kernel_args *args) {
  return find_statistics<T>(args, "batch_norm_statistics", &args->out[0],
                            &args->out[1]);
}
template <typename T> rp_status apply(const rp_kernel_args *args) {
  return apply_statistics<T>(args, "batch_norm_apply", &args->in[3],
                             &args->in[4]);
}

/* ---- backward ------------------------------------------------------------ */

template <typename T> struct backward_arrays {
  const T *dy, *x;
  const wide<T> *w, *mean, *var;
  T *dx;
  wide<T> *dw, *db;
};

/* Of a slice: the sums of dy and of dy (x - mean). */
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
slice_sums(backward_arrays<T> a, channel_shape s, int64_t slices,
           wide<T> *out, bool aligned) {
  typedef wide<T> W;
  __shared__ W scratch[2 * WARP];
  for (int64_t item = blockIdx.x; item < s.channels * slices;
       item += gridDim.x) {
    const int64_t c = item / slices;
    const W mean = a.mean[c];
    W sum = 0, product = 0;
    each_pack<V>(s, c, item % slices, slices, [&](int64_t at) {
      add_products(read_pack<T, V>(a.dy + at, aligned),
                   read_pack<T, V>(a.x + at, aligned), mean, &sum, &product);
    });
    block_sums(&sum, &product, scratch);
    if (threadIdx.x == 0) out[2 * item] = sum, out[2 * item + 1] = product;
  }
}

/* db = sum of dy, dw = sum of dy h. A warp a channel. */
template <typename T>
__global__ void __launch_bounds__(WARP)
join_sums(const wide<T> *slice, backward_arrays<T> a, int64_t channels,
          int64_t slices, wide<T> eps) {
  typedef wide<T> W;
  for (int64_t c = blockIdx.x; c < channels; c += gridDim.x) {
    double sum = 0, product = 0;
    for (int64_t k = threadIdx.x; k < slices; k += WARP) {
      sum += slice[2 * (c * slices + k)];
      product += slice[2 * (c * slices + k) + 1];
    }
    sum = warp_reduce(sum, sum_of());
    product = warp_reduce(product, sum_of());
    if (threadIdx.x == 0) {
      a.dw[c] = (W)product / scalar::sqrt(a.var[c] + eps);
      a.db[c] = (W)sum;
    }
  }
}

/* dx = w rstd (dy - db / n - h dw / n). */
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
channel_grads(backward_arrays<T> a, channel_shape s, wide<T> eps,
              bool aligned) {
  typedef wide<T> W;
  const W n = (W)(s.images * s.run);
  RP_EACH(p, s.images * s.channels * s.run / V) {
    const int64_t c = quotient(p * V, s.run) % s.channels;
    const W rstd = (W)1 / scalar::sqrt(a.var[c] + eps);
    const W scale = a.w[c] * rstd;
    write_pack(a.dx + p * V,
               affine_grad(read_pack<T, V>(a.dy + p * V, aligned),
                           read_pack<T, V>(a.x + p * V, aligned), a.mean[c],
                           scale, scale * a.db[c] / n,
                           scale * a.dw[c] * rstd / n),
               aligned);
  }
}

template <typename T>
rp_status prepare_backward(const rp_kernel_args *args, void **state,
                           int64_t *bytes) {
  const channel_shape s = channels_of(&args->in[1].type);
  *state = nullptr;
  *bytes = rp_align(2 * s.channels * slices_of(s) * (int64_t)sizeof(wide<T>));
  return RP_OK;
}

template <typename T> rp_status backward(const rp_kernel_args *args) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const char *name = "batch_norm_grad";
  const rp_array *in = args->in, *out = args->out;
  const channel_shape s = channels_of(&in[1].type);
  const int64_t slices = slices_of(s);
  const int64_t count = s.images * s.channels * s.run;
  const bool packs = s.run % V == 0;
  const backward_arrays<T> a = {
      (const T *)in[0].data, (const T *)in[1].data, (const W *)in[2].data,
      (const W *)in[3].data, (const W *)in[4].data, (T *)out[0].data,
      (W *)out[1].data,      (W *)out[2].data};
  const bool aligned =
      is_aligned(a.dy, 16) && is_aligned(a.x, 16) && is_aligned(a.dx, 16);
  W *parts = (W *)args->workspace;
  rp_status status =
      launch(args, name, packs ? slice_sums<T, V> : slice_sums<T, 1>,
             blocks_of(s.channels * slices), BLOCK, 0, a, s, slices, parts,
             aligned);
  if (status == RP_OK)
    status = launch(args, name, join_sums<T>, blocks_of(s.channels), WARP, 0,
                    parts, a, s.channels, slices, eps_of<T>(args));
  if (status != RP_OK || count == 0) return status;
  return launch(args, name, packs ? channel_grads<T, V> : channel_grads<T, 1>,
                grid_for(packs ? count / V : count), BLOCK, 0, a, s,
                eps_of<T>(args), aligned);
}

} // namespace

#define RP_EVERY(op, run, prepare)                                           \
  row(op, RP_F32, run<float>, prepare<float>),                               \
      row(op, RP_F64, run<double>, prepare<double>),                         \
      row(op, RP_BF16, run<bf16>, prepare<bf16>)

RP_ROWS(batch_norm,
        RP_EVERY("batch_norm", batch_norm, prepare_statistics),
        RP_EVERY("batch_norm_statistics", statistics, prepare_statistics),
        RP_EVERY("batch_norm_grad", backward, prepare_backward),
        row("batch_norm_apply", RP_F32, apply<float>),
        row("batch_norm_apply", RP_F64, apply<double>),
        row("batch_norm_apply", RP_BF16, apply<bf16>));

} // namespace rp
