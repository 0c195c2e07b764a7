/* All that talks to oneDNN is behind this header, in dnnl_*.c: what its
   version 3 would change. f32 and bf16. Scratchpads are ours: their size is
   known when a product or a convolution is prepared. */
#ifndef RP_CPU_DNNL_H
#define RP_CPU_DNNL_H

#include "base/window.h"
#include "exec/backend.h"

/* Whether the processor multiplies bf16: oneDNN's AVX512_BF16 or AMX kernels.
   Without them its bf16 products are three times slower than those of f32,
   or there are none. */
bool rp_dnnl_has_bf16(void);
/* Says so, once a process, where it does not. */
void rp_dnnl_notice_bf16(rp_context *ctx);

/* y = a b (+ bias), batched and broadcast, over the operands' own strides. */
typedef struct rp_dnnl_product rp_dnnl_product;

/* a:(..., M, K), b:(..., K, N), bias:(N) or NULL, y:(..., M, N); leading dims
   equal or 1, 2 to RP_RANK dims, at least one of the last two strides 1. All
   f32; or a and b bf16, bias and y each bf16 or f32.
   NULL after rp_fail: RP_NOMEM, RP_INTERNAL. */
rp_dnnl_product *rp_dnnl_product_new(rp_context *ctx, const rp_array *a,
                                     const rp_array *b, const rp_array *bias,
                                     const rp_array *y,
                                     int64_t *workspace_bytes);
/* y += a b. */
rp_dnnl_product *rp_dnnl_product_new_adding(rp_context *ctx, const rp_array *a,
                                            const rp_array *b,
                                            const rp_array *y,
                                            int64_t *workspace_bytes);
rp_status rp_dnnl_product_run(rp_dnnl_product *product, rp_context *ctx,
                              const void *a, const void *b, const void *bias,
                              void *y, void *workspace);
void rp_dnnl_product_free(rp_dnnl_product *product);
/* y = x * w (+ bias), or one of its adjoints: what is made and what is read
   follows from the kind. x:(n, groups in, size), w:(groups out, in, kernel),
   y:(n, groups out, count), contiguous. */
typedef enum rp_conv_kind {
  RP_CONV_FORWARD,     /* x, w -> y */
  RP_CONV_GRAD_INPUT,  /* y, w -> x */
  RP_CONV_GRAD_WEIGHT  /* y, x -> w */
} rp_conv_kind;

typedef struct rp_conv {
  rp_conv_kind kind;
  rp_window window;
  int64_t n, groups, in, out; /* channels of a group */
  int64_t size[2], count[2];
  rp_dtype dtype, made;       /* of what is read, and of what is made: f32, or
                                 bf16, of which f32 may be made */
} rp_conv;

typedef struct rp_dnnl_conv rp_dnnl_conv;

/* A bias is f32. Without bf16 instructions f32 is convolved.
   NULL after rp_fail: RP_NOMEM, RP_INTERNAL. No size is 0. */
rp_dnnl_conv *rp_dnnl_conv_new(rp_context *ctx, const rp_conv *shape,
                               bool has_bias, int64_t *workspace_bytes);
rp_status rp_dnnl_conv_run(rp_dnnl_conv *conv, rp_context *ctx, void *x,
                           void *w, void *y, const float *bias,
                           void *workspace);
void rp_dnnl_conv_free(rp_dnnl_conv *conv);

/* Thread buffers and one compiled kernel, so that a program's memory is not
   theirs. */
rp_status rp_dnnl_warm_up(rp_device *device);

#endif
