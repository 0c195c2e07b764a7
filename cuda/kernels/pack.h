/* V neighbours in memory, moved in as few accesses as there can be: one of 16
   bytes, or less. */
#ifndef RP_CUDA_PACK_H
#define RP_CUDA_PACK_H

#include "kernel.h"

namespace rp {

template <typename T, int V> struct alignas(sizeof(T) * V) pack {
  T at[V];
};

/* Elements of T in 16 bytes. */
template <typename T> constexpr int pack_size() { return 16 / sizeof(T); }

/* The pack at `from`, which need not be aligned unless it is said to be: the
   same elements either way, so that no bit depends on where an array lies. */
template <typename T, int V>
__device__ __forceinline__ pack<T, V> read_pack(const T *from, bool aligned) {
  if (aligned) return *(const pack<T, V> *)from;
  pack<T, V> p;
  for (int k = 0; k < V; k++) p.at[k] = from[k];
  return p;
}
template <typename T, int V>
__device__ __forceinline__ void write_pack(T *to, const pack<T, V> &p,
                                           bool aligned) {
  if (aligned) *(pack<T, V> *)to = p;
  else
    for (int k = 0; k < V; k++) to[k] = p.at[k];
}

/* a / b for a, b >= 0: 64-bit division is slow, only where it is needed. */
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  return (a | b) >> 31 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}

static inline bool is_aligned(const void *p, size_t bytes) {
  return (uintptr_t)p % bytes == 0;
}

} // namespace rp

#endif
