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

static inline bool is_aligned(const void *p, size_t bytes) {
  return (uintptr_t)p % bytes == 0;
}

} // namespace rp

#endif
