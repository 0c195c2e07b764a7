/* The source of a fused node's kernels, and how they are launched. Nothing
   here needs a device. */
#ifndef RP_CUDA_FUSED_TEXT_H
#define RP_CUDA_FUSED_TEXT_H

#include <string>

#include "exec/backend.h"
#include "graph/op.h"

namespace rp {

enum { FUSED_OPERANDS = 16 };

/* Two kernels of the same parameters: each operand's data, the output's, the
   draw, the index of the first element, and how many there are.

     fused_each    an element a thread, any addresses
     fused_packs   `pack` elements a thread; 0: these strides do not allow it.
                   Addresses are multiples of `aligned`, 1 where none is asked
                   for. */
struct fused_text {
  std::string source;
  int64_t count;
  int pack;
  int aligned[FUSED_OPERANDS], out_aligned;
  bool random; /* then packs start at whole blocks of words */
};

/* args as prepare gets them. n_in is at most FUSED_OPERANDS. */
fused_text fused_source(const rp_kernel_args *args);

} // namespace rp

#endif
