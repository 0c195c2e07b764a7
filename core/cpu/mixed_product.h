/* Products of bf16 that accumulate in f32, on any processor. */
#ifndef RP_CPU_MIXED_PRODUCT_H
#define RP_CPU_MIXED_PRODUCT_H

#include "exec/backend.h"

/* As rp_dnnl_product of dnnl.h: a and b bf16; bias and y bf16 or f32; or all
   of them f32. Where the processor has no bf16 instructions the operands are
   widened into the workspace and f32 is multiplied: the same values but for the
   order of sums. That is said once a process. */
typedef struct rp_mixed_product rp_mixed_product;

/* adds: y += a b; y is then f32, and there is no bias. NULL after rp_fail:
   RP_NOMEM, RP_INTERNAL. */
rp_mixed_product *rp_mixed_product_new(rp_context *ctx, const rp_array *a,
                                       const rp_array *b,
                                       const rp_array *bias, const rp_array *y,
                                       bool adds, int64_t *workspace_bytes);
/* Arrays as new was given, with data. */
rp_status rp_mixed_product_run(rp_mixed_product *product, rp_context *ctx,
                               const rp_array *a, const rp_array *b,
                               const rp_array *bias, const rp_array *y,
                               void *workspace);
void rp_mixed_product_free(rp_mixed_product *product);

#endif
