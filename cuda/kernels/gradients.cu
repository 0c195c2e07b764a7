/* What is asked of all gradients at once, in a few launches: all_finite and
   total_squares, over as many arrays a launch as their addresses fit into a
   kernel's arguments.

   Blocks have a fixed share of an array, so the order of a sum is that of the
   shapes alone. An exponent of all ones is a NaN's or an infinity's. */
#include "kernels/many.h"

namespace rp {
namespace {

enum { SHARE = 16384 }; /* elements of a block */

/* Invariant: blocks first[k] .. first[k + 1] - 1 are array k's. */
template <typename T> struct arrays {
  enum { MOST = (ARGUMENTS - 64) / (sizeof(T *) + 8 + sizeof(int)) };
  const T *at[MOST];
  int64_t count[MOST];
  int first[MOST];
  int n, blocks;

  /* f(pack) for each whole pack of this block's share, f(element) for what is
     left; who gets what does not depend on where the array lies. */
  template <typename F> __device__ __forceinline__ void share(F &f) const {
    const int k = piece_of(first, n, (int)blockIdx.x);
    const int64_t from = ((int64_t)blockIdx.x - first[k]) * SHARE;
    const int64_t rest = count[k] - from;
    const int here = rest < SHARE ? (int)rest : SHARE;
    const T *x = at[k] + from;
    const bool aligned = (uintptr_t)x % 16 == 0;
    const int packs = here / PACK<T>;
    for (int p = (int)threadIdx.x; p < packs; p += BLOCK)
      f.many(read_pack<T, PACK<T>>(x + p * PACK<T>, aligned));
    for (int i = packs * PACK<T> + (int)threadIdx.x; i < here; i += BLOCK)
      f.one(x[i]);
  }
};

int64_t blocks_of(const rp_array *a) {
  return (rp_type_count(&a->type) + SHARE - 1) / SHARE;
}

/* run(arrays, blocks before them) for as many launches as it takes. */
template <typename T, typename F>
rp_status each_launch(const rp_kernel_args *args, const F &run) {
  arrays<T> some;
  static_assert(sizeof some <= ARGUMENTS - 32 &&
                    (int)arrays<T>::MOST <= (int)MOST_PIECES, "");
  some.n = some.blocks = 0;
  int64_t before = 0;
  rp_status status = RP_OK;
  for (int32_t k = 0; k < args->n_in && status == RP_OK; k++) {
    const int64_t blocks = blocks_of(&args->in[k]);
    if (blocks > 0) {
      some.at[some.n] = (const T *)args->in[k].data;
      some.count[some.n] = rp_type_count(&args->in[k].type);
      some.first[some.n++] = some.blocks;
      some.blocks += (int)blocks;
    }
    if (some.n < arrays<T>::MOST && k + 1 < args->n_in) continue;
    if (some.n > 0) status = run(some, before);
    before += some.blocks;
    some.n = some.blocks = 0;
  }
  return status;
}

/* ---- all_finite --------------------------------------------------------- */

__global__ void __launch_bounds__(1)
yes_kernel(uint8_t *answer) { *answer = 1; }

/* W: an element's bits, MASK: its exponent's. */
template <typename W, W MASK> struct finite_search {
  bool bad;
  __device__ __forceinline__ void one(W x) { bad |= (x & MASK) == MASK; }
  template <typename P> __device__ __forceinline__ void many(const P &p) {
#pragma unroll
    for (W x : p.at) one(x);
  }
};

/* Whoever finds one says so: all write the same byte. */
template <typename W, W MASK>
__global__ void __launch_bounds__(BLOCK)
    finite_kernel(const __grid_constant__ arrays<W> all, uint8_t *answer) {
  finite_search<W, MASK> search = {false};
  all.share(search);
  if (search.bad) *answer = 0;
}

template <typename W, W MASK>
rp_status run_all_finite(const rp_kernel_args *args) {
  uint8_t *answer = (uint8_t *)args->out[0].data;
  const rp_status status =
      launch(args, "all_finite", yes_kernel, dim3(1), dim3(1), 0, answer);
  if (status != RP_OK) return status;
  return each_launch<W>(args, [=](const arrays<W> &some, int64_t) {
    return launch(args, "all_finite", finite_kernel<W, MASK>,
                  dim3((unsigned)some.blocks), dim3(BLOCK), 0, some, answer);
  });
}

/* ---- total_squares ------------------------------------------------------ */

template <typename T> struct squares {
  double sum;
  __device__ __forceinline__ void one(T x) { sum += (double)x * (double)x; }
  template <typename P> __device__ __forceinline__ void many(const P &p) {
#pragma unroll
    for (T x : p.at) one(x);
  }
};

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    squares_kernel(const __grid_constant__ arrays<T> all, double *parts) {
  __shared__ double scratch[WARP];
  squares<T> mine = {0};
  all.share(mine);
  const double sum = block_reduce(mine.sum, 0.0, scratch, sum_of());
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(BLOCK)
    total_kernel(const double *parts, int64_t n, double *total) {
  __shared__ double scratch[WARP];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += BLOCK) sum += parts[i];
  sum = block_reduce(sum, 0.0, scratch, sum_of());
  if (threadIdx.x == 0) *total = sum;
}

int64_t all_blocks(const rp_kernel_args *args) {
  int64_t n = 0;
  for (int32_t k = 0; k < args->n_in; k++) n += blocks_of(&args->in[k]);
  return n;
}

rp_status prepare_total_squares(const rp_kernel_args *args, void **,
                                int64_t *workspace_bytes) {
  *workspace_bytes = all_blocks(args) * (int64_t)sizeof(double);
  return RP_OK;
}

template <typename T> rp_status run_total_squares(const rp_kernel_args *args) {
  double *parts = (double *)args->workspace;
  const rp_status status =
      each_launch<T>(args, [=](const arrays<T> &some, int64_t before) {
        return launch(args, "total_squares", squares_kernel<T>,
                      dim3((unsigned)some.blocks), dim3(BLOCK), 0, some,
                      parts + before);
      });
  if (status != RP_OK) return status;
  return launch(args, "total_squares", total_kernel, dim3(1), dim3(BLOCK), 0,
                (const double *)parts, all_blocks(args),
                (double *)args->out[0].data);
}

} // namespace

RP_ROWS(gradients,
        row("all_finite", RP_F32, run_all_finite<uint32_t, 0x7f800000u>),
        row("all_finite", RP_F64,
            run_all_finite<uint64_t, 0x7ff0000000000000u>),
        row("all_finite", RP_BF16, run_all_finite<uint16_t, 0x7f80u>),
        row("total_squares", RP_F32, run_total_squares<float>,
            prepare_total_squares),
        row("total_squares", RP_F64, run_total_squares<double>,
            prepare_total_squares));

} // namespace rp
