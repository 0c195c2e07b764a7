/* cross_entropy and its gradient: each row of logits is read once. */
#include "indices.h"
#include "rows.h"

namespace rp {
namespace {

enum { MEAN, SUM, NONE, IGNORE_NOTHING = -100, ONE_BLOCK = 1024 };

struct problem {
  int64_t rows, classes, ignored;
  checked_indices labels;
  bool mean, none, aligned;

  __device__ __forceinline__ bool counts(int64_t i) const {
    return labels.of[i] != ignored;
  }
};

problem problem_of(const rp_kernel_args *args, int logits) {
  const rp_type *x = &args->in[logits].type;
  const extent e = extent_of(x, x->rank - 1);
  const int64_t reduction = args->n_ints > 1 ? args->ints[1] : (int)MEAN;
  problem p = {};
  p.rows = e.outer;
  p.classes = e.n;
  p.ignored = args->n_ints > 0 ? args->ints[0] : (int)IGNORE_NOTHING;
  if (args->device) p.labels = checked(args, logits + 1, e.n);
  p.mean = reduction == MEAN;
  p.none = reduction == NONE;
  return p;
}

/* ---- forward ------------------------------------------------------------- */

/* Each row's lse, and its loss: 0 where it is ignored. `losses` are the rows'
   for the sum, or the op's own output. */
template <typename T, typename L>
__global__ void __launch_bounds__(BLOCK)
lse_rows(const T *x, wide<T> *lses, L *losses, problem p, team by) {
  typedef wide<T> W;
  __shared__ W scratch[WARP];
  for (int64_t i = by.first(); i < p.rows; i += by.step()) {
    const stretch all = {i * p.classes, (i + 1) * p.classes};
    exp_sum<W> sum = exp_sum_of_none<W>();
    const int64_t end = all.end<T>();
    for (int64_t u = all.begin<T>() + by.lane(); u < end; u += by.size) {
      W v[UNIT<T>];
      all.read<T>(x, p.aligned, u, (W)-INFINITY, v);
      exp_sum_add(&sum, v);
    }
    sum = exp_sum_join(by, sum, scratch);
    if (by.lane() != 0) continue;
    const double lse = (double)sum.top + log((double)sum.rest);
    lses[i] = (W)lse;
    double loss = 0;
    if (p.counts(i)) {
      const int64_t label = p.labels[i];
      loss = p.classes ? lse - (double)widen<T>(x[all.first + label]) : 0;
    }
    losses[i] = (L)loss;
  }
}

template <typename W>
__global__ void __launch_bounds__(ONE_BLOCK)
sum_losses(const double *losses, W *y, problem p) {
  __shared__ double sums[WARP];
  __shared__ int64_t counts[WARP];
  double sum = 0;
  int64_t count = 0;
  for (int64_t i = threadIdx.x; i < p.rows; i += ONE_BLOCK) {
    sum += losses[i];
    if (p.mean) count += p.counts(i);
  }
  sum = block_reduce(sum, 0.0, sums, sum_of());
  count = block_reduce(count, (int64_t)0, counts, sum_of());
  if (threadIdx.x == 0) *y = (W)(p.mean ? sum / (double)count : sum);
}

rp_status prepare(const rp_kernel_args *args, void **, int64_t *bytes) {
  const problem p = problem_of(args, 0);
  *bytes = p.none ? 0 : p.rows * (int64_t)sizeof(double);
  return RP_OK;
}

template <typename T> rp_status cross_entropy(const rp_kernel_args *args) {
  typedef wide<T> W;
  problem p = problem_of(args, 0);
  const T *x = (const T *)args->in[0].data;
  W *loss = (W *)args->out[0].data, *lses = (W *)args->out[1].data;
  double *losses = (double *)args->workspace;
  p.aligned = is_aligned(x);
  const team by = {p.classes <= 8 * WARP * UNIT<T> ? (int)WARP
                                                      : (int)BLOCK};
  if (p.rows > 0) {
    const dim3 grid = grid_of(by, p.rows);
    const rp_status status =
        p.none ? launch(args, "cross_entropy", lse_rows<T, W>, grid,
                        dim3(BLOCK), 0, x, lses, loss, p, by)
               : launch(args, "cross_entropy", lse_rows<T, double>, grid,
                        dim3(BLOCK), 0, x, lses, losses, p, by);
    if (status != RP_OK) return status;
  }
  if (p.none) return RP_OK;
  return launch(args, "cross_entropy", sum_losses<W>, dim3(1),
                dim3(ONE_BLOCK), 0, losses, loss, p);
}

/* ---- backward ------------------------------------------------------------ */

__global__ void __launch_bounds__(ONE_BLOCK)
count_labels(int64_t *count, problem p) {
  __shared__ int64_t scratch[WARP];
  int64_t mine = 0;
  for (int64_t i = threadIdx.x; i < p.rows; i += ONE_BLOCK)
    mine += p.counts(i);
  mine = block_reduce(mine, (int64_t)0, scratch, sum_of());
  if (threadIdx.x == 0) *count = mine;
}

/* dx = (exp(x - lse) - [j == label]) dloss / count. dx may be x. */
template <typename T>
__global__ void __launch_bounds__(BLOCK)
grad_rows(const wide<T> *dloss, const T *x, const wide<T> *lses,
          const int64_t *count, T *dx, problem p, team by) {
  typedef wide<T> W;
  for (int64_t i = by.first(); i < p.rows; i += by.step()) {
    const stretch all = {i * p.classes, (i + 1) * p.classes};
    const bool counts = p.counts(i);
    const W lse = lses[i];
    const W share = (W)((double)dloss[p.none ? i : 0] /
                        (p.mean ? (double)*count : 1.0));
    const int64_t label = counts ? all.first + p.labels[i] : -1;
    const int64_t end = all.end<T>();
    for (int64_t u = all.begin<T>() + by.lane(); u < end; u += by.size) {
      W v[UNIT<T>];
      if (counts) all.read<T>(x, p.aligned, u, 0, v);
      for (int j = 0; j < UNIT<T>; j++) {
        const int64_t at = u * UNIT<T> + j;
        const W off = at == label ? 1 : 0;
        v[j] = counts ? (exp_of(v[j] - lse) - off) * share : 0;
      }
      all.write<T>(dx, p.aligned, u, v);
    }
  }
}

rp_status prepare_grad(const rp_kernel_args *, void **, int64_t *bytes) {
  *bytes = sizeof(int64_t);
  return RP_OK;
}

template <typename T> rp_status grad(const rp_kernel_args *args) {
  typedef wide<T> W;
  problem p = problem_of(args, 1);
  const T *x = (const T *)args->in[1].data;
  T *dx = (T *)args->out[0].data;
  int64_t *count = (int64_t *)args->workspace;
  p.aligned = is_aligned(x) && is_aligned(dx);
  if (p.rows * p.classes == 0) return RP_OK;
  if (p.mean) {
    const rp_status status =
        launch(args, "cross_entropy_grad", count_labels, dim3(1),
               dim3(ONE_BLOCK), 0, count, p);
    if (status != RP_OK) return status;
  }
  const team by = {p.classes <= 8 * WARP * UNIT<T> ? (int)WARP
                                                      : (int)BLOCK};
  return launch(args, "cross_entropy_grad", grad_rows<T>, grid_of(by, p.rows),
                dim3(BLOCK), 0, (const W *)args->in[0].data, x,
                (const W *)args->in[3].data, count, dx, p, by);
}

/* The gradient's dtype is that of its first input, dloss: f32 where logits
   are bf16. */
rp_status grad_f32(const rp_kernel_args *args) {
  return args->in[1].type.dtype == RP_BF16 ? grad<bf16>(args)
                                           : grad<float>(args);
}

} // namespace

RP_ROWS(loss, row("cross_entropy", RP_F32, cross_entropy<float>, prepare),
        row("cross_entropy", RP_F64, cross_entropy<double>, prepare),
        row("cross_entropy", RP_BF16, cross_entropy<bf16>, prepare),
        row("cross_entropy_grad", RP_F32, grad_f32, prepare_grad),
        row("cross_entropy_grad", RP_F64, grad<double>, prepare_grad));

} // namespace rp
