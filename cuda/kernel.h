/* What every file of kernels shares: launching, walking strided arrays,
   reductions in a fixed order, dtypes, random words.

   Rules of a kernel here
     - Bits depend on the arguments alone: no atomics on floating point, every
       sum in one order whatever the grid. A replay has the bits of the first
       run.
     - Nothing in it reads the host's memory; what changes from step to step
       (draws, numbers) is read from device memory, since launches are
       recorded once and replayed.
     - It allocates nothing; scratch is args->workspace, of the size that
       prepare asked for (aligned to 256 bytes).
     - It says with __launch_bounds__ how many threads it has at most; (BLOCK,
       1) where nvcc would else save registers and spill
       (spec/cuda/resources.lua).
     - A size of zero launches nothing. Counts may pass 2^31: indices of
       elements are int64_t.
     - f32 elementwise arithmetic is not contracted (-fmad=false for these
       files), so a fused node has the bits of its parts. Products that want
       FMA say __fmaf_rn. */
#ifndef RP_CUDA_KERNEL_H
#define RP_CUDA_KERNEL_H

#include <utility>

#include "device.h"

#include "base/random.h"
#include "graph/op.h"
#include "kernels/scalar.h" /* dtypes, random words, the elementwise ops */

#ifndef RP_EMULATED
/* `type *name` on the block's dynamic shared memory. */
#define RP_DYNAMIC_SHARED(type, name)                                        \
  extern __shared__ __align__(16) unsigned char rp_dynamic_shared[];         \
  type *name = reinterpret_cast<type *>(rp_dynamic_shared)
#endif

namespace rp {

/* ---- launching ---------------------------------------------------------- */

enum { WARP = 32, BLOCK = 256 };

#ifndef RP_EMULATED
/* P are the kernel's own parameters. */
template <typename... P>
cudaError_t launch_with(void (*kernel)(P...), dim3 grid, dim3 block,
                        size_t shared, cudaStream_t stream, P... values) {
  void *pointers[] = {(void *)&values..., nullptr};
  return cudaLaunchKernel((const void *)kernel, grid, block, pointers, shared,
                          stream);
}
#endif

/* Launches kernel on the device's queue. `name` is the op's, for messages. */
template <typename... P, typename... A>
rp_status launch(const rp_kernel_args *args, const char *name,
                 void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                 A... values) {
  cudaStream_t stream = rp_cuda_of(args)->stream;
#ifdef RP_EMULATED
  return rp_cuda_launched(args, name, rp_emulated_launch(
      name, grid, block, shared, stream,
      [=] { kernel(static_cast<P>(values)...); }));
#else
  if (shared > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(
        (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
        (int)shared);
    if (error != cudaSuccess) return rp_cuda_launched(args, name, error);
  }
  return rp_cuda_launched(args, name, launch_with<P...>(
      kernel, grid, block, shared, stream, static_cast<P>(values)...));
#endif
}

/* Blocks of BLOCK threads for `count` elements, for kernels that go on by
   whole grids (RP_EACH); the result does not depend on how many there are. */
static inline dim3 grid_for(int64_t count) {
  const int64_t blocks = (count + BLOCK - 1) / BLOCK;
  return dim3((unsigned)(blocks < 65535 * 16 ? blocks : 65535 * 16));
}

/* for each element i of this thread: one, but in the largest arrays, so
   nothing is gained by copies of the body. */
#define RP_EACH(i, count)                                                    \
  _Pragma("unroll 1")                                                        \
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;           \
       i < (count); i += (int64_t)gridDim.x * blockDim.x)

/* ---- dtypes ------------------------------------------------------------- */

/* A float array whose dtype is known at run time (f32 beside bf16): element i
   in f32. */
struct narrow_or_f32 {
  const void *data;
  int is_bf16;
  __device__ __forceinline__ float operator[](int64_t i) const {
    return is_bf16 ? __bfloat162float(((const bf16 *)data)[i])
                   : ((const float *)data)[i];
  }
};
static inline narrow_or_f32 mixed(const rp_array *a) {
  return narrow_or_f32{a->data, a->type.dtype == RP_BF16};
}

/* ---- walking ------------------------------------------------------------ */

/* Where element i (row-major over dims) of N arrays lies. Dims of size 1 are
   left out and neighbours merged where all N go on with one stride; dims are
   innermost first. */
template <int N> struct walk {
  int64_t count;
  int rank;
  bool flat; /* every array is at i */
  int64_t dims[RP_RANK];
  int64_t strides[N][RP_RANK];

  __device__ __forceinline__ void at(int64_t i, int64_t (&offsets)[N]) const {
    if (flat) {
      for (int k = 0; k < N; k++) offsets[k] = i;
      return;
    }
    for (int k = 0; k < N; k++) offsets[k] = 0;
    /* Unrolled, its divisions would be most of what nvcc compiles. */
#pragma unroll 1
    for (int d = 0; d < rank; d++) {
      int64_t index = i;
      if (d + 1 < rank) {
        /* 64-bit division is slow: only where it is needed. */
        const int64_t next = i < 0x7fffffff
                                 ? (int64_t)((uint32_t)i / (uint32_t)dims[d])
                                 : i / dims[d];
        index = i - next * dims[d];
        i = next;
      }
      for (int k = 0; k < N; k++) offsets[k] += index * strides[k][d];
    }
  }
};

/* Over the elements of `over`; arrays of lower rank or with dims of 1 are
   broadcast against it. */
template <int N>
walk<N> walk_over(const rp_type *over, const rp_array *const (&arrays)[N]) {
  walk<N> w = {};
  w.count = rp_type_count(over);
  for (int d = over->rank - 1; d >= 0; d--) {
    if (over->dims[d] == 1) continue;
    int64_t strides[N];
    bool merges = w.rank > 0;
    for (int k = 0; k < N; k++) {
      const int at = d - (over->rank - arrays[k]->type.rank);
      strides[k] = at < 0 || arrays[k]->type.dims[at] == 1
                       ? 0 : arrays[k]->strides[at];
      merges = merges && strides[k] ==
               w.strides[k][w.rank - 1] * w.dims[w.rank - 1];
    }
    if (merges) {
      w.dims[w.rank - 1] *= over->dims[d];
      continue;
    }
    w.dims[w.rank] = over->dims[d];
    for (int k = 0; k < N; k++) w.strides[k][w.rank] = strides[k];
    w.rank++;
  }
  w.flat = w.rank <= 1;
  for (int k = 0; k < N && w.flat; k++)
    w.flat = w.rank == 0 ? w.count == 1 : w.strides[k][0] == 1;
  return w;
}

static inline bool is_contiguous(const rp_array *a) {
  rp_strides strides = {};
  for (int d = 0; d < RP_RANK; d++) strides.at[d] = a->strides[d];
  return rp_strides_are_contiguous(&a->type, &strides);
}

/* ---- reductions in a fixed order ---------------------------------------- */

struct sum_of {
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct max_of { /* NaN wins */
  template <typename T> __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

/* The same value in every lane. */
template <typename T, typename F>
__device__ __forceinline__ T warp_reduce(T x, F f) {
  for (int step = WARP / 2; step > 0; step /= 2)
    x = f(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/* Over all threads of a block of a multiple of WARP threads, at most 1024;
   the same value in every thread. `scratch` is shared, WARP elements, and may
   be used again at once. */
template <typename T, typename F>
__device__ __forceinline__ T block_reduce(T x, T identity, T *scratch, F f) {
  x = warp_reduce(x, f);
  const int warps = (int)blockDim.x / WARP;
  if (warps == 1) return x;
  __syncthreads();
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  const int lane = (int)threadIdx.x % WARP;
  T all = lane < warps ? scratch[lane] : identity;
  return warp_reduce(all, f);
}

/* ---- faults ------------------------------------------------------------- */

/* index, or 0 with the fault noted where it is not in 0..limit-1. */
__device__ __forceinline__ int64_t checked_index(int64_t index, int64_t limit,
                                                 rp_cuda_fault *fault,
                                                 int node) {
  if (index >= 0 && index < limit) return index;
  if (atomicCAS(&fault->node, 0, node + 1) == 0) {
    fault->found = index;
    fault->limit = limit;
  }
  return 0;
}

/* ---- rows --------------------------------------------------------------- */

typedef rp_status run_function(const rp_kernel_args *args);
typedef rp_status run_many_function(const rp_kernel_args *args, int32_t n);
typedef rp_status prepare_function(const rp_kernel_args *args, void **state,
                                   int64_t *workspace_bytes);

static inline rp_kernel row(const char *name, rp_dtype dtype, run_function *run,
                            prepare_function *prepare = nullptr,
                            void (*destroy)(void *) = nullptr,
                            run_many_function *run_many = nullptr) {
  return rp_kernel{nullptr, dtype, run, prepare, destroy, name, nullptr,
                   run_many};
}

/* At the end of a file: RP_ROWS(pointwise, row("add", RP_F32, add<float>), ...)
   and one line in tables.def. */
#define RP_ROWS(table, ...)                                                  \
  static rp_kernel table##_rows[] = {__VA_ARGS__};                           \
  extern "C" rp_kernel_table rp_cuda_##table;                                \
  rp_kernel_table rp_cuda_##table = {                                        \
      table##_rows, (int32_t)(sizeof table##_rows / sizeof *table##_rows)}

} // namespace rp

#endif
