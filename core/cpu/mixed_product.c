#include "cpu/mixed_product.h"

#include "base/memory.h"
#include "base/status.h"
#include "cpu/dnnl.h"
#include "cpu/elementwise.h"

enum { WIDE_A, WIDE_B, WIDE_BIAS, WIDE_Y, WIDE };

struct rp_mixed_product {
  rp_context *ctx;
  rp_dnnl_product *product;
  int64_t offset[WIDE];    /* of f32 copies in the workspace; -1: as it is */
  int64_t scratch_offset;  /* of the product's own workspace, behind them */
};

static float same(float x) { return x; }
static void copy_row(const rp_row *row) { rp_map_f32(row, same); }

/* from, of any strides, into the contiguous `to`; one of them is bf16, the
   other f32. */
static rp_status convert(const rp_array *from, const rp_array *to) {
  const rp_kernel_args args = {.in = from, .out = to, .n_in = 1, .n_out = 1};
  return rp_rows_run_narrow(&args, copy_row);
}

static rp_array wide_array(const rp_array *x, void *workspace,
                           int64_t offset) {
  if (offset < 0) return *x;
  rp_array wide = {.type = x->type};
  wide.type.dtype = RP_F32;
  wide.data = workspace ? (char *)workspace + offset : NULL;
  rp_strides strides;
  rp_strides_contiguous(&wide.type, &strides);
  for (int i = 0; i < RP_RANK; i++) wide.strides[i] = strides.at[i];
  return wide;
}

rp_mixed_product *rp_mixed_product_new(rp_context *ctx, const rp_array *a,
                                       const rp_array *b,
                                       const rp_array *bias, const rp_array *y,
                                       bool adds, int64_t *workspace_bytes) {
  rp_mixed_product *p = rp_alloc(ctx, sizeof *p);
  if (p == NULL) return NULL;
  p->ctx = ctx;
  const rp_array *arrays[WIDE] = {a, b, bias, y};
  const bool native = rp_dnnl_has_bf16();
  int64_t bytes = 0;
  for (int i = 0; i < WIDE; i++) {
    p->offset[i] = -1;
    if (native || !arrays[i] || arrays[i]->type.dtype != RP_BF16) continue;
    p->offset[i] = bytes;
    bytes += rp_align(2 * rp_type_bytes(&arrays[i]->type));
  }
  rp_array wide[WIDE];
  for (int i = 0; i < WIDE; i++)
    if (arrays[i]) wide[i] = wide_array(arrays[i], NULL, p->offset[i]);
  p->product =
      adds ? rp_dnnl_product_new_adding(ctx, &wide[WIDE_A], &wide[WIDE_B],
                                        &wide[WIDE_Y], workspace_bytes)
           : rp_dnnl_product_new(ctx, &wide[WIDE_A], &wide[WIDE_B],
                                 bias ? &wide[WIDE_BIAS] : NULL,
                                 &wide[WIDE_Y], workspace_bytes);
  if (p->product == NULL) {
    rp_mixed_product_free(p);
    return NULL;
  }
  if (a->type.dtype == RP_BF16) rp_dnnl_notice_bf16(ctx);
  p->scratch_offset = bytes;
  *workspace_bytes += bytes;
  return p;
}

rp_status rp_mixed_product_run(rp_mixed_product *p, rp_context *ctx,
                               const rp_array *a, const rp_array *b,
                               const rp_array *bias, const rp_array *y,
                               void *workspace) {
  const rp_array *arrays[WIDE] = {a, b, bias, y};
  rp_array wide[WIDE] = {0};
  rp_status status = RP_OK;
  for (int i = 0; i < WIDE && status == RP_OK; i++) {
    if (!arrays[i]) continue;
    wide[i] = wide_array(arrays[i], workspace, p->offset[i]);
    if (i != WIDE_Y && p->offset[i] >= 0) status = convert(arrays[i], &wide[i]);
  }
  if (status == RP_OK)
    status = rp_dnnl_product_run(p->product, ctx, wide[WIDE_A].data,
                                 wide[WIDE_B].data, wide[WIDE_BIAS].data,
                                 wide[WIDE_Y].data,
                                 (char *)workspace + p->scratch_offset);
  if (status == RP_OK && p->offset[WIDE_Y] >= 0)
    status = convert(&wide[WIDE_Y], y);
  return status;
}

void rp_mixed_product_free(rp_mixed_product *p) {
  if (p == NULL) return;
  rp_dnnl_product_free(p->product);
  rp_free(p->ctx, p, sizeof *p);
}
