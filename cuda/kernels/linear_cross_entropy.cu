/* linear_cross_entropy and its gradient: logits live in the workspace, a chunk
   of rows at a time, and turn there into dlogits.

   The forward op and the gradient op share their chunks, products and row
   sums, so the loss has the same bits whichever of them makes it. Chunks are
   taken in order and depend on shapes alone; dw is added to in that order.

   bf16 factors give f32 logits. Their dlogits are rounded where they lie, each
   row into the first half of its own bytes: for the products, and for the
   bias's gradient too, which is summed in f64. */
#include <cmath>
#include <new>

#include "kernel.h"
#include "product.h"

#include "base/status.h"

namespace rp {

namespace {

/* A chunk passes over the whole weight, and over dw, which it reads and
   writes. At 50257 classes of 768 features and 128 MiB (640 rows) that is half
   as much traffic as the logits make; at 64 MiB (256 rows) a third more. */
#ifdef RP_EMULATED
constexpr int64_t CHUNK_BYTES = 64 << 10; /* tests have few logits */
#else
constexpr int64_t CHUNK_BYTES = 128 << 20;
#endif
/* Rows are dealt in the height of a product's tile. */
constexpr int64_t ROW_GRAIN = 128;
/* Logits of a row, so that rows begin at 128 bytes, rounded ones too. */
constexpr int64_t COLUMN_GRAIN = 64;

constexpr int64_t MEAN = 0, IGNORE_NOTHING = -100;
/* Threads of a block: of one that is alone, and the most that a row has. */
enum { ONE_BLOCK = 1024 };
enum { WANTS_X = 1, WANTS_W = 2, WANTS_BIAS = 4 };
enum { X, W, LABELS, BIAS };

/* ---- the problem -------------------------------------------------------- */

struct problem {
  int64_t rows, width, classes;
  int64_t chunk;   /* rows of a chunk; the last one may have fewer */
  int64_t leading; /* elements from one row of logits to the next */
  rp_dtype factor, made; /* of x and w; of logits and of what is made */
  int64_t ignored;
  bool mean;
  const rp_array *bias, *dx, *dw, *dbias; /* NULL: none */
};

int64_t round_up(int64_t x, int64_t grain) {
  return (x + grain - 1) / grain * grain;
}

/* Chunks of nearly one size. */
int64_t rows_of_chunk(int64_t rows, int64_t row_bytes) {
  int64_t most = row_bytes > 0 ? CHUNK_BYTES / row_bytes : rows;
  most = most / ROW_GRAIN * ROW_GRAIN;
  if (most < ROW_GRAIN) most = ROW_GRAIN;
  if (rows <= most) return rows;
  const int64_t chunks = (rows + most - 1) / most;
  return round_up((rows + chunks - 1) / chunks, ROW_GRAIN);
}

/* ints: those of the forward op, in the gradient op behind its n_outputs and
   before its wants. */
problem problem_of(const rp_kernel_args *args, bool with_gradient) {
  const rp_type &x = args->in[X].type, &w = args->in[W].type;
  const int from = with_gradient ? 1 : 0;
  problem p = {};
  p.rows = rp_type_count(&args->in[LABELS].type);
  p.width = w.dims[1];
  p.classes = w.dims[0];
  p.leading = round_up(p.classes, COLUMN_GRAIN);
  p.factor = (rp_dtype)x.dtype;
  p.made = p.factor == RP_BF16 ? RP_F32 : p.factor;
  p.ignored = args->n_ints > from ? args->ints[from] : IGNORE_NOTHING;
  p.mean = args->n_ints < from + 2 || args->ints[from + 1] == MEAN;
  p.bias = args->n_in > BIAS ? &args->in[BIAS] : nullptr;
  p.chunk = rows_of_chunk(p.rows, p.leading * (int64_t)rp_dtype_size(p.made));
  const int64_t wants = with_gradient ? args->ints[3] : 0;
  const rp_array *out = args->out + 1;
  if (wants & WANTS_X) p.dx = out++;
  if (wants & WANTS_W) p.dw = out++;
  if (wants & WANTS_BIAS) p.dbias = out++;
  return p;
}

bool makes_dlogits(const problem &p) { return p.dx || p.dw || p.dbias; }

/* The workspace: a chunk of logits, every row's loss, the share of a row in
   the loss and the number of labels that count, the products' scratch. */
struct layout {
  int64_t losses, share, scratch;
};

layout layout_of(const problem &p) {
  layout l;
  l.losses = aligned(p.chunk * p.leading * (int64_t)rp_dtype_size(p.made));
  l.share = l.losses + aligned(p.rows * (int64_t)sizeof(double));
  l.scratch = l.share + aligned(2 * sizeof(double));
  return l;
}

/* ---- products ----------------------------------------------------------- */

/* Of a chunk of n rows: logits:(n, V) = x w^T + bias, dx:(n, C) = dlogits w,
   dw:(V, C) = or += dlogits^T x. */
enum role { LOGITS, DX, DW, ROLES };

/* For whole chunks [0] and for a shorter last one [1]. */
struct products {
  product *of[2][ROLES];
};

struct factors {
  rp_array a, b, y;
};

char *element(const rp_array *x, int64_t i) {
  if (x == nullptr || x->data == nullptr) return nullptr;
  return static_cast<char *>(x->data) +
         i * (int64_t)rp_dtype_size((rp_dtype)x->type.dtype);
}

/* Of rows first, first + 1, ... first + n - 1. */
factors factors_of(const rp_kernel_args *args, const problem &p, role role,
                   int64_t first, int64_t n) {
  const rp_array x =
      rp_matrix(p.factor, element(&args->in[X], first * p.width), n, p.width,
                p.width);
  const rp_array w = rp_matrix(p.factor, args->in[W].data, p.classes, p.width,
                               p.width);
  const rp_array logits =
      rp_matrix(p.made, args->workspace, n, p.classes, p.leading);
  const rp_array dlogits =
      rp_matrix(p.factor, args->workspace, n, p.classes,
                p.leading * (p.factor == RP_BF16 ? 2 : 1));
  switch (role) {
    case LOGITS: return {x, rp_matrix_transposed(w), logits};
    case DX:
      return {dlogits, w, rp_matrix(p.made, element(p.dx, first * p.width), n,
                                    p.width, p.width)};
    default:
      return {rp_matrix_transposed(dlogits), x,
              rp_matrix(p.made, element(p.dw, 0), p.classes, p.width, p.width)};
  }
}

void destroy(void *state) {
  products *all = static_cast<products *>(state);
  if (all == nullptr) return;
  for (auto &of_size : all->of)
    for (product *each : of_size) product_free(each);
  delete all;
}

/* *bytes becomes the largest scratch of any. */
rp_status make_products(products *all, const rp_kernel_args *args,
                        const problem &p, int64_t *bytes) {
  const int64_t sizes[2] = {p.chunk, p.chunk ? p.rows % p.chunk : 0};
  const bool needed[ROLES] = {true, p.dx != nullptr, p.dw != nullptr};
  rp_kernel_args nowhere = *args;
  nowhere.workspace = nullptr;
  for (int i = 0; i < 2; i++)
    for (int role = 0; role < ROLES; role++) {
      if (sizes[i] == 0 || !needed[role]) continue;
      int64_t scratch = 0;
      const factors f =
          factors_of(&nowhere, p, (enum role)role, 0, sizes[i]);
      const rp_status status =
          product_make(args, f.a, f.b, role == LOGITS ? p.bias : nullptr, f.y,
                       &all->of[i][role], &scratch);
      if (status != RP_OK) return status;
      if (scratch > *bytes) *bytes = scratch;
    }
  return RP_OK;
}

rp_status multiply(const rp_kernel_args *args, const problem &p, role role,
                   int64_t first, int64_t n) {
  const products *all = static_cast<const products *>(args->state);
  const factors f = factors_of(args, p, role, first, n);
  char *scratch = static_cast<char *>(args->workspace) + layout_of(p).scratch;
  return product_run(all->of[n == p.chunk ? 0 : 1][role], args, f.a, f.b,
                     role == LOGITS ? p.bias : nullptr, f.y, scratch,
                     role == DW && first > 0);
}

/* ---- kernels ------------------------------------------------------------ */

struct labels {
  const void *data;
  bool is_i32;
  __device__ int64_t operator[](int64_t i) const {
    return is_i32 ? ((const int32_t *)data)[i] : ((const int64_t *)data)[i];
  }
};

/* share[0]: a counted row's share in the loss; share[1]: how many count. One
   block. */
__global__ void __launch_bounds__(ONE_BLOCK)
count_kernel(labels labels, int64_t rows, int64_t ignored, bool mean,
             double *share) {
  __shared__ long long scratch[WARP];
  long long count = 0;
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x)
    count += labels[i] != ignored;
  count = block_reduce(count, 0ll, scratch, sum_of());
  if (threadIdx.x > 0) return;
  share[0] = mean ? 1 / (double)count : 1;
  share[1] = (double)count;
}

/* A number of elements at a time: 16 bytes of what rows begin aligned to. */
template <typename T> struct alignas(16) quad {
  enum { N = 16 / sizeof(T) };
  T at[N];
};

/* sum of exp(x - top) over what was seen, top its largest; -infinity alone
   counts as nothing, so that a row of it gives NaN as its definition has it,
   and what comes beside it does not. */
template <typename T> struct partial {
  T top, sum;
};

template <typename T> __device__ __forceinline__ T base_of(T top) {
  return top == -INFINITY ? T(0) : top;
}
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }

template <typename T>
__device__ __forceinline__ void see(partial<T> *p, const T *x, int n) {
  T top = p->top;
  for (int k = 0; k < n; k++) top = max_of()(top, x[k]);
  const T base = base_of(top);
  if (top != p->top) p->sum *= exponential(p->top - base);
  for (int k = 0; k < n; k++) p->sum += exponential(x[k] - base);
  p->top = top;
}

/* One block a row: its loss, 0 where the label is ignored; with `dlogits`
   those too, over the logits: share (softmax - onehot). */
template <typename T, typename G>
__global__ void __launch_bounds__(ONE_BLOCK)
row_kernel(T *logits, int64_t leading, int64_t classes, labels labels,
           int64_t first, int64_t ignored, const double *share, double *losses,
           G *dlogits, rp_cuda_fault *fault, int node) {
  enum { N = quad<T>::N };
  __shared__ T scratch[WARP];
  __shared__ int64_t shared_label;
  T *row = logits + (int64_t)blockIdx.x * leading;
  if (threadIdx.x == 0) {
    const int64_t label = labels[first + blockIdx.x];
    shared_label =
        label == ignored ? -1 : checked_index(label, classes, fault, node);
  }
  __syncthreads();
  const int64_t label = shared_label;
  const quad<T> *quads = reinterpret_cast<const quad<T> *>(row);
  const int64_t whole = classes / N;

  T scale = 0, top = 0, total = 1;
  if (label >= 0) {
    partial<T> mine = {T(-INFINITY), 0};
    for (int64_t i = threadIdx.x; i < whole; i += blockDim.x) {
      const quad<T> x = quads[i];
      see(&mine, x.at, N);
    }
    for (int64_t j = whole * N + threadIdx.x; j < classes; j += blockDim.x)
      see(&mine, &row[j], 1);
    top = block_reduce(mine.top, T(-INFINITY), scratch, max_of());
    const T base = base_of(top);
    const T sum = mine.sum * exponential(mine.top - base);
    total = block_reduce(sum, T(0), scratch, sum_of());
    scale = (T)share[0] / total;
    top = base;
  }
  if (threadIdx.x == 0)
    losses[first + blockIdx.x] =
        label >= 0 && classes > 0
            ? (double)top + log((double)total) - (double)row[label] : 0;
  if (dlogits == nullptr) return;

  /* What a round writes lies where this round or one before has read, and all
     threads have read before any writes. */
  G *drow = dlogits + (int64_t)blockIdx.x * leading * (sizeof(T) / sizeof(G));
  const int64_t round = (int64_t)blockDim.x * N;
  for (int64_t at = 0; at < classes; at += round) {
    const int64_t j = at + (int64_t)threadIdx.x * N;
    quad<T> x = {};
    if (j + N <= classes) x = quads[j / N];
    else
      for (int k = 0; k < N; k++)
        if (j + k < classes) x.at[k] = row[j + k];
    __syncthreads();
    struct alignas(N * sizeof(G)) { G at[N]; } d;
    for (int k = 0; k < N; k++) {
      const T e = label >= 0 ? exponential(x.at[k] - top) : T(0);
      const T g = j + k == label ? (e / total - 1) * (T)share[0] : e * scale;
      d.at[k] = narrow<G>(g);
    }
    if (j + N <= classes)
      *reinterpret_cast<decltype(d) *>(drow + j) = d;
    else
      for (int k = 0; k < N; k++)
        if (j + k < classes) drow[j + k] = d.at[k];
  }
}

/* dbias = or += the sum of dlogits over the chunk's rows. */
template <typename T, typename G>
__global__ void __launch_bounds__(BLOCK)
bias_gradient_kernel(const G *dlogits, int64_t leading, int64_t rows,
                     int64_t classes, bool adds, T *dbias) {
  RP_EACH(j, classes) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++)
      sum += (double)widen<G>(dlogits[i * leading + j]);
    dbias[j] = (T)(adds ? (double)dbias[j] + sum : sum);
  }
}

/* The rows' losses, in order of lanes. One block. */
template <typename T>
__global__ void __launch_bounds__(ONE_BLOCK)
total_kernel(const double *losses, int64_t rows, const double *share,
             bool mean, T *loss) {
  __shared__ double scratch[WARP];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) sum += losses[i];
  sum = block_reduce(sum, 0.0, scratch, sum_of());
  if (threadIdx.x == 0) *loss = (T)(mean ? sum / share[1] : sum);
}

/* ---- running ------------------------------------------------------------ */

/* Threads of a row: from its length alone. */
unsigned threads_of(int64_t classes) {
  const int64_t threads = round_up((classes + 3) / 4, WARP);
  if (threads < WARP) return WARP;
  return (unsigned)(threads < ONE_BLOCK ? threads : (int64_t)ONE_BLOCK);
}

/* G: what dlogits are rounded to. */
template <typename T, typename G>
rp_status run_chunk(const rp_kernel_args *args, const problem &p,
                    const char *name, int64_t first, int64_t n) {
  char *workspace = static_cast<char *>(args->workspace);
  const layout l = layout_of(p);
  const rp_array &in = args->in[LABELS];
  G *dlogits = makes_dlogits(p) ? reinterpret_cast<G *>(workspace) : nullptr;
  rp_status status = multiply(args, p, LOGITS, first, n);
  if (status == RP_OK)
    status = launch(args, name, row_kernel<T, G>, dim3((unsigned)n),
                    threads_of(p.classes), 0,
                    reinterpret_cast<T *>(workspace), p.leading, p.classes,
                    labels{in.data, in.type.dtype == RP_I32}, first, p.ignored,
                    reinterpret_cast<const double *>(workspace + l.share),
                    reinterpret_cast<double *>(workspace + l.losses), dlogits,
                    rp_cuda_of(args)->fault, args->node);
  if (status == RP_OK && p.dbias && p.classes > 0)
    status = launch(args, name, bias_gradient_kernel<T, G>,
                    grid_for(p.classes), BLOCK, 0, dlogits,
                    p.leading * (int64_t)(sizeof(T) / sizeof(G)), n, p.classes,
                    first > 0, static_cast<T *>(p.dbias->data));
  if (status == RP_OK && p.dw) status = multiply(args, p, DW, first, n);
  if (status == RP_OK && p.dx) status = multiply(args, p, DX, first, n);
  return status;
}

template <typename T, typename G, bool with_gradient>
rp_status run(const rp_kernel_args *args) {
  const char *name = with_gradient ? "linear_cross_entropy_grad"
                                   : "linear_cross_entropy";
  const problem p = problem_of(args, with_gradient);
  char *workspace = static_cast<char *>(args->workspace);
  const layout l = layout_of(p);
  double *share = reinterpret_cast<double *>(workspace + l.share);
  const rp_array &in = args->in[LABELS];
  rp_status status = launch(args, name, count_kernel, 1, ONE_BLOCK, 0,
                            labels{in.data, in.type.dtype == RP_I32}, p.rows,
                            p.ignored, p.mean, share);
  for (int64_t first = 0; first < p.rows && status == RP_OK;
       first += p.chunk) {
    const int64_t left = p.rows - first;
    status = run_chunk<T, G>(args, p, name, first,
                             left < p.chunk ? left : p.chunk);
  }
  if (status == RP_OK && p.rows == 0 && p.dw)
    status = fill_with_bias(args, nullptr, *p.dw);
  if (status == RP_OK && p.rows == 0 && p.dbias)
    status = fill_with_bias(args, nullptr, *p.dbias);
  if (status != RP_OK) return status;
  return launch(args, name, total_kernel<T>, 1, ONE_BLOCK, 0,
                reinterpret_cast<const double *>(workspace + l.losses), p.rows,
                share, p.mean, static_cast<T *>(args->out[0].data));
}

template <bool with_gradient>
rp_status prepare(const rp_kernel_args *args, void **state,
                  int64_t *workspace_bytes) {
  const problem p = problem_of(args, with_gradient);
  *state = nullptr;
  products *all = new (std::nothrow) products();
  if (all == nullptr)
    return rp_fail(args->ctx, RP_NOMEM, "no memory for a chunk's products");
  int64_t scratch = 0;
  const rp_status status = make_products(all, args, p, &scratch);
  if (status != RP_OK) {
    destroy(all);
    return status;
  }
  *state = all;
  *workspace_bytes = layout_of(p).scratch + scratch;
  return RP_OK;
}

template <typename T, typename G>
rp_kernel forward_row(rp_dtype dtype) {
  return row("linear_cross_entropy", dtype, run<T, G, false>, prepare<false>,
             destroy);
}
template <typename T, typename G> rp_kernel grad_row(rp_dtype dtype) {
  return row("linear_cross_entropy_grad", dtype, run<T, G, true>,
             prepare<true>, destroy);
}

} // namespace

RP_ROWS(linear_cross_entropy,
        forward_row<float, float>(RP_F32),
        forward_row<double, double>(RP_F64),
        forward_row<float, bf16>(RP_BF16),
        grad_row<float, float>(RP_F32),
        grad_row<double, double>(RP_F64),
        grad_row<float, bf16>(RP_BF16));

} // namespace rp
