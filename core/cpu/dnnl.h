/* All that talks to oneDNN is behind this header, in dnnl.c: the one file
   that its version 3 would change.

   y = a b (+ bias): f32, batched and broadcast, over the operands' own
   strides. The scratchpad is ours: its size is known when the product is
   prepared. */
#ifndef RP_CPU_DNNL_H
#define RP_CPU_DNNL_H

#include "exec/backend.h"

typedef struct rp_dnnl_product rp_dnnl_product;

/* a:(..., M, K), b:(..., K, N), bias:(N) or NULL, y:(..., M, N); leading dims
   equal or 1, 2 to RP_RANK dims, at least one of the last two strides 1.
   NULL after rp_fail: RP_NOMEM, RP_INTERNAL. */
rp_dnnl_product *rp_dnnl_product_new(rp_context *ctx, const rp_array *a,
                                     const rp_array *b, const rp_array *bias,
                                     const rp_array *y,
                                     int64_t *workspace_bytes);
rp_status rp_dnnl_product_run(rp_dnnl_product *product, rp_context *ctx,
                              const void *a, const void *b, const void *bias,
                              void *y, void *workspace);
void rp_dnnl_product_free(rp_dnnl_product *product);
/* Thread buffers and one compiled kernel, so that a program's memory is not
   theirs. */
void rp_dnnl_warm_up(rp_context *ctx);

#endif
