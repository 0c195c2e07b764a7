/* group_norm and its gradient. A group of an image is one dense stretch of
   width runs. Statistics and weights are f32 where x is bf16. y may lie over
   x, dx over dy or x. */
#include "kernels/channels.h"

namespace rp {
namespace {

/* From here on a run has a block of its own, else a warp. */
enum { LONG_RUN = 512 };

int64_t groups_of(const rp_kernel_args *args) {
  return args->n_ints > 0 ? args->ints[0] : 1;
}

/* ---- forward ------------------------------------------------------------- */

template <typename T> struct forward_arrays {
  const T *x;
  const wide<T> *w, *b;
  T *y;
  wide<T> *mean, *rstd;
};

/* A block a group; the second time its x comes from a cache, where it fits. */
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
normalise_groups(forward_arrays<T> a, channel_shape s, int64_t groups,
                 wide<T> eps, bool aligned) {
  typedef wide<T> W;
  __shared__ W scratch[3 * WARP];
  const int64_t width = s.channels / groups, n = width * s.run;
  for (int64_t g = blockIdx.x; g < s.images * groups; g += gridDim.x) {
    moments<W> m = {0, 0, 0};
    for (int64_t p = threadIdx.x; p < n / V; p += blockDim.x) {
      const pack<T, V> raw = read_pack<T, V>(a.x + g * n + p * V, aligned);
      W values[V];
      for (int k = 0; k < V; k++) values[k] = widen(raw.at[k]);
      m = join(m, moments_of(values));
    }
    m = block_join(m, scratch);
    const W mean = n > 0 ? m.mean : (W)0 / (W)n;
    const W rstd = (W)1 / scalar::sqrt(m.squares / (W)n + eps);
    if (threadIdx.x == 0) a.mean[g] = mean, a.rstd[g] = rstd;
    for (int64_t p = threadIdx.x; p < n / V; p += blockDim.x) {
      const int64_t c = g % groups * width + quotient(p * V, s.run);
      const int64_t at = g * n + p * V;
      write_pack(a.y + at,
                 affine(read_pack<T, V>(a.x + at, aligned), mean,
                        rstd * a.w[c], a.b[c]),
                 aligned);
    }
  }
}

template <typename T> rp_status forward(const rp_kernel_args *args) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const rp_array *in = args->in, *out = args->out;
  const channel_shape s = channels_of(&in[0].type);
  const int64_t groups = groups_of(args);
  if (s.images == 0) return RP_OK;
  const forward_arrays<T> a = {(const T *)in[0].data, (const W *)in[1].data,
                               (const W *)in[2].data, (T *)out[0].data,
                               (W *)out[1].data,      (W *)out[2].data};
  return launch(args, "group_norm",
                s.run % V ? normalise_groups<T, 1> : normalise_groups<T, V>,
                blocks_of(s.images * groups), BLOCK, 0, a, s, groups,
                eps_of<T>(args), is_aligned(a.x, 16) && is_aligned(a.y, 16));
}

/* ---- backward ------------------------------------------------------------ */

template <typename T> struct backward_arrays {
  const T *dy, *x;
  const wide<T> *w, *mean, *rstd;
  T *dx;
  wide<T> *dw, *db;
  wide<T> *runs;   /* of a run: the sums of dy and of dy (x - mean) */
  wide<T> *levels; /* of a group: the same of dy w */
};

/* `lanes` threads a run: a warp or the block. */
template <typename T, int V, int lanes>
__global__ void __launch_bounds__(BLOCK)
run_sums(backward_arrays<T> a, channel_shape s, int64_t groups, bool aligned) {
  typedef wide<T> W;
  __shared__ W scratch[2 * WARP];
  enum { RUNS = BLOCK / lanes };
  const int64_t width = s.channels / groups, lane = threadIdx.x % lanes;
  for (int64_t first = blockIdx.x * (int64_t)RUNS;
       first < s.images * s.channels; first += gridDim.x * (int64_t)RUNS) {
    const int64_t run = first + threadIdx.x / lanes;
    if (run >= s.images * s.channels) break;
    const W mean = a.mean[quotient(run, width)];
    W sum = 0, product = 0;
    for (int64_t p = lane; p < s.run / V; p += lanes) {
      const int64_t at = run * s.run + p * V;
      add_products(read_pack<T, V>(a.dy + at, aligned),
                   read_pack<T, V>(a.x + at, aligned), mean, &sum, &product);
    }
    if (lanes == BLOCK) {
      block_sums(&sum, &product, scratch);
    } else {
      sum = warp_reduce(sum, sum_of());
      product = warp_reduce(product, sum_of());
    }
    if (lane == 0) a.runs[2 * run] = sum, a.runs[2 * run + 1] = product;
  }
}

/* A warp a group. */
template <typename T>
__global__ void __launch_bounds__(WARP)
group_sums(backward_arrays<T> a, channel_shape s, int64_t groups) {
  typedef wide<T> W;
  const int64_t width = s.channels / groups;
  for (int64_t g = blockIdx.x; g < s.images * groups; g += gridDim.x) {
    double level = 0, slope = 0;
    for (int64_t k = threadIdx.x; k < width; k += WARP) {
      const double w = a.w[g % groups * width + k];
      level += w * a.runs[2 * (g * width + k)];
      slope += w * a.runs[2 * (g * width + k) + 1];
    }
    level = warp_reduce(level, sum_of());
    slope = warp_reduce(slope, sum_of());
    if (threadIdx.x == 0)
      a.levels[2 * g] = (W)level, a.levels[2 * g + 1] = (W)slope;
  }
}

/* dw and db: a channel's runs, image by image. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
weight_sums(backward_arrays<T> a, channel_shape s, int64_t groups) {
  typedef wide<T> W;
  const int64_t width = s.channels / groups;
  RP_EACH(c, s.channels) {
    double dw = 0, db = 0;
    for (int64_t i = 0; i < s.images; i++) {
      const W *sums = a.runs + 2 * (i * s.channels + c);
      dw += (double)sums[1] * a.rstd[i * groups + c / width];
      db += sums[0];
    }
    a.dw[c] = (W)dw;
    a.db[c] = (W)db;
  }
}

/* dx = rstd (dy w - mean(dy w) - h mean(dy w h)). */
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK)
group_grads(backward_arrays<T> a, channel_shape s, int64_t groups,
            bool aligned) {
  typedef wide<T> W;
  const int64_t width = s.channels / groups;
  const W n = (W)(width * s.run);
  RP_EACH(p, s.images * s.channels * s.run / V) {
    const int64_t run = quotient(p * V, s.run), g = quotient(run, width);
    const W rstd = a.rstd[g];
    write_pack(a.dx + p * V,
               affine_grad(read_pack<T, V>(a.dy + p * V, aligned),
                           read_pack<T, V>(a.x + p * V, aligned), a.mean[g],
                           a.w[run % s.channels] * rstd,
                           rstd * a.levels[2 * g] / n,
                           rstd * rstd * rstd * a.levels[2 * g + 1] / n),
               aligned);
  }
}

template <typename T>
rp_status prepare_backward(const rp_kernel_args *args, void **state,
                           int64_t *bytes) {
  const channel_shape s = channels_of(&args->in[1].type);
  *state = nullptr;
  *bytes = rp_align(2 * s.images * (s.channels + groups_of(args)) *
                    (int64_t)sizeof(wide<T>));
  return RP_OK;
}

template <typename T> rp_status backward(const rp_kernel_args *args) {
  typedef wide<T> W;
  enum { V = pack_size<T>() };
  const char *name = "group_norm_grad";
  const rp_array *in = args->in, *out = args->out;
  const channel_shape s = channels_of(&in[1].type);
  const int64_t groups = groups_of(args), runs = s.images * s.channels;
  W *sums = (W *)args->workspace;
  const backward_arrays<T> a = {
      (const T *)in[0].data, (const T *)in[1].data, (const W *)in[2].data,
      (const W *)in[3].data, (const W *)in[4].data, (T *)out[0].data,
      (W *)out[1].data,      (W *)out[2].data,      sums,
      sums + 2 * runs};
  const bool packs = s.run % V == 0;
  const bool aligned =
      is_aligned(a.dy, 16) && is_aligned(a.x, 16) && is_aligned(a.dx, 16);
  rp_status status = RP_OK;
  if (runs > 0) {
    const bool whole = s.run >= LONG_RUN;
    const auto kernel = whole ? packs ? run_sums<T, V, BLOCK>
                                      : run_sums<T, 1, BLOCK>
                              : packs ? run_sums<T, V, WARP>
                                      : run_sums<T, 1, WARP>;
    const int64_t each = whole ? 1 : BLOCK / WARP;
    status = launch(args, name, kernel, blocks_of((runs + each - 1) / each),
                    BLOCK, 0, a, s, groups, aligned);
    if (status == RP_OK)
      status = launch(args, name, group_sums<T>, blocks_of(s.images * groups),
                      WARP, 0, a, s, groups);
    if (status != RP_OK) return status;
  }
  status = launch(args, name, weight_sums<T>, grid_for(s.channels), BLOCK, 0,
                  a, s, groups);
  const int64_t count = runs * s.run;
  if (status != RP_OK || count == 0) return status;
  return launch(args, name, packs ? group_grads<T, V> : group_grads<T, 1>,
                grid_for(packs ? count / V : count), BLOCK, 0, a, s, groups,
                aligned);
}

} // namespace

RP_ROWS(group_norm,
        row("group_norm", RP_F32, forward<float>),
        row("group_norm", RP_F64, forward<double>),
        row("group_norm", RP_BF16, forward<bf16>),
        row("group_norm_grad", RP_F32, backward<float>,
            prepare_backward<float>),
        row("group_norm_grad", RP_F64, backward<double>,
            prepare_backward<double>),
        row("group_norm_grad", RP_BF16, backward<bf16>,
            prepare_backward<bf16>));

} // namespace rp
