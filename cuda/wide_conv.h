/* A gradient of a bf16 convolution in f32: sums of f32, never rounded to bf16,
   which is what cuDNN makes of bf16 (it gives what it was given).

   Factors are widened to f32, a slice of the batch at a time, and multiplied as
   f32 by tensor cores: TF32's 10 bits hold all 8 of bf16. A weight's gradient
   is added up slice by slice in their order. How many images a slice has
   follows from the shape alone. */
#ifndef RP_CUDA_WIDE_CONV_H
#define RP_CUDA_WIDE_CONV_H

#include "conv.h"

namespace rp {

/* Of the images of a slice in f32, x's and y's, or one where that is more. */
constexpr int64_t WIDE_CONV_BYTES = 32 << 20;

struct wide_conv;

/* shape is that of the bf16 convolution: CONV_GRAD_INPUT or CONV_GRAD_WEIGHT,
   not empty. Failures are conv_make's. */
rp_status wide_conv_make(const rp_kernel_args *args, const conv_shape &shape,
                         int64_t slice_bytes, wide_conv **out,
                         int64_t *workspace_bytes);
/* dx or dw, f32, of dy and w or x, bf16. */
rp_status wide_conv_run(const wide_conv *c, const rp_kernel_args *args,
                        const void *dy, const void *other, void *made,
                        void *workspace);
void wide_conv_free(wide_conv *c);

/* ---- kernels/widen.cu --------------------------------------------------- */

/* count bf16 values as f32; `to` is aligned to 16 bytes. */
rp_status widen(const rp_kernel_args *args, const void *from, float *to,
                int64_t count);

} // namespace rp

#endif
