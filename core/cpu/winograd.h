/* Convolutions of 3x3 kernels at stride 1 by Winograd's minimal filtering,
   F(4x4, 3x3): a quarter of the multiplications. f32. */
#ifndef RP_CPU_WINOGRAD_H
#define RP_CPU_WINOGRAD_H

#include "cpu/dnnl.h"

/* Whether it is the faster way for that shape: a rule over the shape alone. */
bool rp_winograd_suits(const rp_conv *shape);

typedef struct rp_winograd rp_winograd;

/* NULL after rp_fail: RP_NOMEM, RP_INTERNAL. */
rp_winograd *rp_winograd_new(rp_context *ctx, const rp_conv *shape,
                             int64_t *workspace_bytes);
/* x, w and y as for rp_dnnl_conv_run; a bias or NULL. */
rp_status rp_winograd_run(const rp_winograd *winograd, rp_context *ctx,
                          float *x, float *w, float *y, const float *bias,
                          void *workspace);
/* What it takes, besides its products' FLOPs the bytes of its transforms. */
void rp_winograd_cost(const rp_winograd *winograd, double *flops,
                      double *bytes);
void rp_winograd_free(rp_winograd *winograd);

#endif
