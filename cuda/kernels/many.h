/* What kernels share that take many arrays in one launch: the arrays' addresses
   are their arguments, and each block finds the array that it is for. */
#ifndef RP_CUDA_MANY_H
#define RP_CUDA_MANY_H

#include "kernels/pack.h"

namespace rp {

/* Bytes that every driver takes as arguments of one kernel, and the most arrays
   that piece_of tells apart. */
enum { ARGUMENTS = 4096, MOST_PIECES = 256 };

/* Elements go 16 bytes at a time where every array is aligned to that. */
template <typename T> constexpr int PACK = pack_size<T>();

/* The k whose blocks are first[k] .. first[k + 1] - 1; there are n. */
__device__ __forceinline__ int piece_of(const int *first, int n, int block) {
  int k = 0;
#pragma unroll 1
  for (int step = MOST_PIECES / 2; step > 0; step /= 2)
    if (k + step < n && first[k + step] <= block) k += step;
  return k;
}

} // namespace rp

#endif
