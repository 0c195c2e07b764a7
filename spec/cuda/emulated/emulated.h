/* CUDA's device language for g++: kernels compile as they stand and run on the
   host, every thread of a block a fiber (fibers.cc). Included in place of
   <cuda.h> and <cuda_runtime.h> where RP_EMULATED is defined; types and
   prototypes are the toolkit's own.

   One block runs at a time, so __shared__ is `static`. A barrier that not
   every thread of the block reaches, or that threads reach at different lines,
   is an error that names the kernel. A lane that a shuffle reads though it
   takes no part gives bytes of 0xff (NaN). Arithmetic is the host's, without
   contraction.

   Not there: inline PTX, cooperative groups, asynchronous copies, textures,
   clusters, wmma. A kernel that has them says them in functions of its own,
   with a second body for RP_EMULATED: lanes that work together meet in
   rp_emulated_meet. */
#ifndef RP_EMULATED_H
#define RP_EMULATED_H

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <cuda.h>

#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

#define RP_EMULATED_API __attribute__((visibility("default")))

/* `type *name` on the block's dynamic shared memory, which ends at a page that
   nothing may touch. */
#define RP_DYNAMIC_SHARED(type, name)                                        \
  type *name = reinterpret_cast<type *>(rp_emulated_shared())

/* ---- what runs ---------------------------------------------------------- */

struct rp_emulated_place {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern RP_EMULATED_API rp_emulated_place rp_emulated_here;

#define threadIdx (rp_emulated_here.thread)
#define blockIdx (rp_emulated_here.block)
#define blockDim (rp_emulated_here.block_size)
#define gridDim (rp_emulated_here.grid_size)
constexpr int warpSize = 32;

RP_EMULATED_API void *rp_emulated_shared();

/* Puts a launch on the stream (or into its capture): `thread` runs once for
   each thread, with its arguments as they were. The errors of a real launch:
   cudaErrorInvalidConfiguration for sizes no device takes. `function`: the
   kernel's address where cudaFuncSetAttribute is to have been called for more
   than 48 KiB of dynamic shared memory; NULL where the caller sees to it. */
RP_EMULATED_API cudaError_t rp_emulated_launch(
    const char *name, dim3 grid, dim3 block, size_t shared_bytes,
    cudaStream_t stream, std::function<void()> thread,
    const void *function = nullptr);

/* A kernel with the arguments that p points at, copied. */
typedef void rp_emulated_binder(void **p, std::function<void()> *bound);
template <typename... P, size_t... I>
inline void rp_emulated_bind(void (*kernel)(P...), void **p,
                             std::function<void()> *bound,
                             std::index_sequence<I...>) {
  (void)p;
  const std::tuple<typename std::decay<P>::type...> values(
      *static_cast<typename std::decay<P>::type *>(p[I])...);
  *bound = [=] { std::apply(kernel, values); };
}
template <typename... P>
inline void rp_emulated_bind(void (*kernel)(P...), void **p,
                             std::function<void()> *bound) {
  rp_emulated_bind(kernel, p, bound, std::index_sequence_for<P...>());
}

/* ---- barriers ----------------------------------------------------------- */

enum rp_emulated_vote { RP_EMULATED_ALL, RP_EMULATED_ANY, RP_EMULATED_COUNT };
RP_EMULATED_API int rp_emulated_barrier(int predicate, rp_emulated_vote vote,
                                        const char *file, int line);
/* Ends the kernel with cudaErrorAssert or the like, named. */
[[noreturn]] RP_EMULATED_API void rp_emulated_stop(cudaError_t error,
                                                   const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define RP_EMULATED_SITE                                                     \
  const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(RP_EMULATED_SITE) {
  rp_emulated_barrier(0, RP_EMULATED_ALL, file, line);
}
inline int __syncthreads_and(int predicate, RP_EMULATED_SITE) {
  return rp_emulated_barrier(predicate, RP_EMULATED_ALL, file, line);
}
inline int __syncthreads_or(int predicate, RP_EMULATED_SITE) {
  return rp_emulated_barrier(predicate, RP_EMULATED_ANY, file, line);
}
inline int __syncthreads_count(int predicate, RP_EMULATED_SITE) {
  return rp_emulated_barrier(predicate, RP_EMULATED_COUNT, file, line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}
[[noreturn]] inline void __trap() {
  rp_emulated_stop(cudaErrorLaunchFailure, "__trap()");
}

/* ---- warps -------------------------------------------------------------- */

/* Lanes of one warp that have come together: what each brought. */
struct rp_emulated_meeting {
  unsigned mask, arrived;
  int to_leave;
  const char *file;
  int line;
  bool complete;
  alignas(16) unsigned char value[32][16];
  void *object[32];
};
/* Waits for every lane of mask that has not returned. Every lane reads the
   meeting and leaves it. */
RP_EMULATED_API rp_emulated_meeting *rp_emulated_meet(
    unsigned mask, const void *value, size_t size, void *object,
    const char *file, int line);
RP_EMULATED_API void rp_emulated_leave(rp_emulated_meeting *meeting);
RP_EMULATED_API int rp_emulated_lane();

inline void __syncwarp(unsigned mask = 0xffffffffu, RP_EMULATED_SITE) {
  rp_emulated_leave(rp_emulated_meet(mask, nullptr, 0, nullptr, file, line));
}

template <typename T>
inline T rp_emulated_read(unsigned mask, T value, int source, const char *file,
                          int line) {
  static_assert(sizeof(T) <= 16, "at most 16 bytes");
  rp_emulated_meeting *meeting =
      rp_emulated_meet(mask, &value, sizeof value, nullptr, file, line);
  T result;
  if (meeting->arrived >> source & 1)
    memcpy((void *)&result, meeting->value[source], sizeof result);
  else
    memset((void *)&result, 0xff, sizeof result);
  rp_emulated_leave(meeting);
  return result;
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                     RP_EMULATED_SITE) {
  const int lane = rp_emulated_lane();
  return rp_emulated_read(mask, value,
                          (lane & ~(width - 1)) | (source & (width - 1)), file,
                          line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32,
                         RP_EMULATED_SITE) {
  const int lane = rp_emulated_lane(), from = lane ^ with;
  /* Of a later part: one's own. Of an earlier one: that lane's. */
  return rp_emulated_read(mask, value,
                          from > (lane | (width - 1)) ? lane : from, file,
                          line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                          RP_EMULATED_SITE) {
  const int lane = rp_emulated_lane();
  const int from = (lane & (width - 1)) + (int)by < width ? lane + (int)by
                                                          : lane;
  return rp_emulated_read(mask, value, from, file, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                        RP_EMULATED_SITE) {
  const int lane = rp_emulated_lane();
  const int from = (lane & (width - 1)) >= (int)by ? lane - (int)by : lane;
  return rp_emulated_read(mask, value, from, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, RP_EMULATED_SITE) {
  rp_emulated_meeting *meeting = rp_emulated_meet(
      mask, &predicate, sizeof predicate, nullptr, file, line);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; lane++) {
    int other;
    memcpy(&other, meeting->value[lane], sizeof other);
    if (meeting->arrived >> lane & 1 && other) votes |= 1u << lane;
  }
  rp_emulated_leave(meeting);
  return votes;
}
inline int __any_sync(unsigned mask, int predicate, RP_EMULATED_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, RP_EMULATED_SITE) {
  return __ballot_sync(mask, !predicate, file, line) == 0;
}
template <typename T, typename F>
inline T rp_emulated_warp_reduce(unsigned mask, T value, F f, const char *file,
                                 int line) {
  rp_emulated_meeting *meeting =
      rp_emulated_meet(mask, &value, sizeof value, nullptr, file, line);
  T result{};
  bool first = true;
  for (int lane = 0; lane < 32; lane++) {
    if (!(meeting->arrived >> lane & 1)) continue;
    T other;
    memcpy(&other, meeting->value[lane], sizeof other);
    result = first ? other : f(result, other);
    first = false;
  }
  rp_emulated_leave(meeting);
  return result;
}
template <typename T>
inline T __reduce_add_sync(unsigned mask, T value, RP_EMULATED_SITE) {
  return rp_emulated_warp_reduce(
      mask, value, [](T a, T b) { return (T)(a + b); }, file, line);
}
template <typename T>
inline T __reduce_max_sync(unsigned mask, T value, RP_EMULATED_SITE) {
  return rp_emulated_warp_reduce(
      mask, value, [](T a, T b) { return a > b ? a : b; }, file, line);
}
template <typename T>
inline T __reduce_min_sync(unsigned mask, T value, RP_EMULATED_SITE) {
  return rp_emulated_warp_reduce(
      mask, value, [](T a, T b) { return a < b ? a : b; }, file, line);
}
/* Lanes that are known to run together: all of the warp's that have not
   returned and have arrived; one's own alone is a legal answer. */
inline unsigned __activemask() { return 1u << rp_emulated_lane(); }

/* ---- memory ------------------------------------------------------------- */

template <typename T> inline T __ldg(const T *p) { return *p; }
template <typename T> inline T __ldcg(const T *p) { return *p; }
template <typename T> inline T __ldcs(const T *p) { return *p; }
template <typename T> inline T __ldca(const T *p) { return *p; }
template <typename T> inline void __stcg(T *p, T value) { *p = value; }
template <typename T> inline void __stcs(T *p, T value) { *p = value; }

template <typename T, typename F>
inline T rp_emulated_atomic(T *p, F f) {
  const T old = *p;
  *p = f(old);
  return old;
}
#define RP_EMULATED_ATOMIC(name, expression)                                 \
  template <typename T>                                                      \
  inline T name(T *p, typename std::common_type<T>::type value) {            \
    return rp_emulated_atomic(p, [=](T old) { return (T)(expression); });    \
  }                                                                          \
  template <typename T>                                                      \
  inline T name##_block(T *p, typename std::common_type<T>::type value) {    \
    return name(p, value);                                                   \
  }
RP_EMULATED_ATOMIC(atomicAdd, old + value)
RP_EMULATED_ATOMIC(atomicSub, old - value)
RP_EMULATED_ATOMIC(atomicExch, ((void)old, value))
RP_EMULATED_ATOMIC(atomicMax, old > value ? old : value)
RP_EMULATED_ATOMIC(atomicMin, old < value ? old : value)
RP_EMULATED_ATOMIC(atomicAnd, old & value)
RP_EMULATED_ATOMIC(atomicOr, old | value)
RP_EMULATED_ATOMIC(atomicXor, old ^ value)
RP_EMULATED_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
RP_EMULATED_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef RP_EMULATED_ATOMIC
template <typename T>
inline T atomicCAS(T *p, typename std::common_type<T>::type expected,
                   typename std::common_type<T>::type value) {
  return rp_emulated_atomic(
      p, [=](T old) { return old == expected ? value : old; });
}

#include "arithmetic.h"

#endif
