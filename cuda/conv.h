/* One convolution over cuDNN, chosen when it is made and kept.

   y = x * w, or one of its adjoints: what is made and what is read follows
   from the kind. x:(n, groups in, size), w:(groups out, in, kernel),
   y:(n, groups out, count), contiguous. f32, f64, or bf16, which is summed in
   f32 and rounded; f32 of bf16 is wide_conv.h's.

   f32 is multiplied as f32; with RP_CUDA_TF32=1 factors may have 10 bits, and
   where they have no more anyway. Only algorithms that sum in one order are
   taken. */
#ifndef RP_CUDA_CONV_H
#define RP_CUDA_CONV_H

#include "device.h"

#include "base/window.h"

namespace rp {

enum conv_kind {
  CONV_FORWARD,     /* x, w -> y */
  CONV_GRAD_INPUT,  /* y, w -> x */
  CONV_GRAD_WEIGHT, /* y, x -> w */
  CONV_KINDS
};

struct conv_shape {
  conv_kind kind;
  rp_window window;
  int64_t n, groups, in, out; /* channels of a group */
  int64_t size[2], count[2];
  rp_dtype dtype;
  bool holds_bf16; /* f32: the factors are bf16 values */
};

/* Something to do for cuDNN, which takes no size of 0: without it what is
   made is empty or 0. */
bool conv_is_empty(const conv_shape &shape);

struct conv;

/* *out is NULL after a failure: RP_NOMEM, RP_UNSUPPORTED (no algorithm, or
   2^31 elements), RP_INTERNAL. */
rp_status conv_make(const rp_kernel_args *args, const conv_shape &shape,
                    conv **out, int64_t *workspace_bytes);
/* adds: to what is there, instead of over it. */
rp_status conv_run(const conv *c, const rp_kernel_args *args, void *x, void *w,
                   void *y, void *workspace, bool adds = false);
void conv_free(conv *c);

} // namespace rp

#endif
