/* Products described and run; product_choice.cc asks cuBLASLt how.

   cuBLASLt has one batch dim. Of ours the largest is that one, the others are a
   loop; so are counts that pass what a grid's third dim takes. */
#include "product_state.h"

#include <cstring>
#include <new>

#include "base/status.h"

namespace rp {
namespace {

rp_status said(const rp_kernel_args *args, cublasStatus_t status) {
  return rp_cublas_ok(args->ctx, status, "a matrix product");
}

/* ---- shapes ------------------------------------------------------------- */

/* Whether rows or columns follow each other at one distance. */
bool has_leading_dim(const rp_array &x) {
  const int r = x.type.rank;
  for (int i = 0; i < r - 2; i++)
    if (x.strides[i] < 0 && x.type.dims[i] > 1) return false;
  const int64_t rows = x.type.dims[r - 2], columns = x.type.dims[r - 1];
  const int64_t row = x.strides[r - 2], column = x.strides[r - 1];
  if (rows <= 1 && columns <= 1) return true;
  if (rows <= 1) return column >= 1;
  if (columns <= 1) return row >= 1;
  return (column == 1 && row >= columns) || (row == 1 && column >= rows);
}

rp_array packed(const rp_array &x) {
  rp_array y = {nullptr, x.type, {}};
  rp_strides strides;
  rp_strides_contiguous(&x.type, &strides);
  memcpy(y.strides, strides.at, sizeof y.strides);
  return y;
}

/* The library's batch dim is the largest; the others keep their order. */
void choose_batch(product *p) {
  rp_product &s = p->shape;
  p->batch = rp_product_dim{1, 0, 0, 0};
  p->loops = 0;
  if (s.n_batch == 0) return;
  int best = 0;
  for (int i = 1; i < s.n_batch; i++)
    if (s.batch[i].count >= s.batch[best].count) best = i;
  p->batch = s.batch[best];
  for (int i = best; i + 1 < s.n_batch; i++) s.batch[i] = s.batch[i + 1];
  p->loops = s.n_batch - 1;
}

rp_status make_for_library(product *p, const rp_kernel_args *args) {
  const cublasStatus_t status = product_choose(p, rp_cuda_of(args)->blas);
  if (status) return said(args, status);
  if (p->has[ALIGNED] || p->has[ANYHOW]) return RP_OK;
  const rp_product &s = p->shape;
  return rp_fail(args->ctx, RP_UNSUPPORTED,
                 "cuBLASLt has no algorithm for a product of %s (%lld,%lld) "
                 "x (%lld,%lld)",
                 rp_dtype_name((rp_dtype)p->sides[A].type.dtype),
                 (long long)s.m, (long long)s.k, (long long)s.k,
                 (long long)s.n);
}

/* ---- the workspace ------------------------------------------------------ */

int64_t take(int64_t *total, int64_t bytes) {
  const int64_t at = *total;
  *total += aligned(bytes);
  return at;
}

void *piece(void *workspace, int64_t at) {
  return static_cast<char *>(workspace) + at;
}

bool has_product(const product *p) {
  return !p->shape.empty && p->shape.k > 0;
}

/* NULL: no memory. */
product *describe(const rp_array &a, const rp_array &b, const rp_array *bias,
                  const rp_array &y, int64_t *workspace_bytes) {
  *workspace_bytes = 0;
  product *p = new (std::nothrow) product();
  if (p == nullptr) return nullptr;
  const rp_array *given[2] = {&a, &b};
  for (int side = 0; side < 2; side++) {
    const bool as_it_is = has_leading_dim(*given[side]);
    p->sides[side] = as_it_is ? *given[side] : packed(*given[side]);
    p->copy_at[side] =
        as_it_is ? -1
                 : take(workspace_bytes, rp_type_bytes(&given[side]->type));
  }
  p->sides[Y] = y;
  p->alpha = 1;
  p->is_f64 = y.type.dtype == RP_F64;
  p->has_bias = bias != nullptr;
  p->bias_dtype = (rp_dtype)y.type.dtype;
  p->bias_at = -1;
  p->shape = rp_product_from(&p->sides[A], &p->sides[B], &y);
  choose_batch(p);
  return p;
}

/* Room for the library's scratch and for a bias in another dtype. */
void take_scratch(product *p, const rp_array *bias, int64_t *workspace_bytes) {
  if (p->in_epilogue && bias->type.dtype != p->bias_dtype)
    p->bias_at = take(workspace_bytes,
                      p->shape.n * (int64_t)rp_dtype_size(p->bias_dtype));
  size_t scratch = 0;
  for (int i = 0; i < ALGORITHMS; i++)
    if (p->has[i] && p->scratch_bytes[i] > scratch)
      scratch = p->scratch_bytes[i];
  p->scratch_at = take(workspace_bytes, (int64_t)scratch);
}

rp_status no_memory(const rp_kernel_args *args) {
  return rp_fail(args->ctx, RP_NOMEM, "no memory for a matrix product");
}

} // namespace

rp_status product_make(const rp_kernel_args *args, const rp_array &a,
                       const rp_array &b, const rp_array *bias,
                       const rp_array &y, product **out,
                       int64_t *workspace_bytes, double alpha) {
  *out = nullptr;
  product *p = describe(a, b, bias, y, workspace_bytes);
  if (p == nullptr) return no_memory(args);
  p->alpha = alpha;
  if (has_product(p)) {
    const rp_status status = make_for_library(p, args);
    if (status != RP_OK) {
      product_free(p);
      return status;
    }
    take_scratch(p, bias, workspace_bytes);
  }
  *out = p;
  return RP_OK;
}

rp_status product_make_ended(const rp_kernel_args *args, const rp_array &a,
                             const rp_array &b, const rp_array *bias,
                             const rp_array &y, ending end,
                             const rp_array *aux, product **out,
                             int64_t *workspace_bytes) {
  *out = nullptr;
  product *p = describe(a, b, bias, y, workspace_bytes);
  if (p == nullptr) return no_memory(args);
  p->end = end;
  p->has_aux = aux != nullptr;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  if (has_product(p))
    status = product_choose_ended(p, rp_cuda_of(args)->blas);
  if (!status && p->has[ALIGNED]) {
    take_scratch(p, bias, workspace_bytes);
    *out = p;
    return RP_OK;
  }
  product_free(p);
  *workspace_bytes = 0;
  return said(args, status);
}

void product_free(product *p) {
  if (p == nullptr) return;
  if (p->operation) cublasLtMatmulDescDestroy(p->operation);
  for (cublasLtMatrixLayout_t layout : p->layouts)
    if (layout) cublasLtMatrixLayoutDestroy(layout);
  delete p;
}

/* ---- running ------------------------------------------------------------ */

namespace {

struct execution {
  const product *p;
  const rp_kernel_args *args;
  char *data[SIDES];
  const void *bias;
  void *scratch;
  bool adds;
};

bool is_multiple(const void *pointer, uint32_t of) {
  return reinterpret_cast<uintptr_t>(pointer) % of == 0;
}

cublasStatus_t set_count(const product *p, int64_t count) {
  const int32_t n = (int32_t)count;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  for (int side = 0; side < SIDES && !status; side++)
    status = cublasLtMatrixLayoutSetAttribute(
        p->layouts[side], CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &n, sizeof n);
  return status;
}

rp_status multiply(const execution *e, char *const at[SIDES]) {
  const product *p = e->p;
  bool aligned_16 = !p->in_epilogue || is_multiple(e->bias, WIDE_ALIGNMENT);
  for (int side = 0; side < SIDES; side++)
    aligned_16 = aligned_16 && is_multiple(at[side], WIDE_ALIGNMENT);
  int which = aligned_16 ? ALIGNED : ANYHOW;
  if (!p->has[which] && which == ALIGNED) which = ANYHOW;
  if (!p->has[which])
    return rp_fail(e->args->ctx, RP_UNSUPPORTED, "cuBLASLt has no algorithm "
                   "for this product's operands where they do not begin at "
                   "16 bytes; make them contiguous first");
  const double alpha = p->alpha, beta = e->adds ? 1 : 0;
  const float alpha_f32 = (float)alpha, beta_f32 = (float)beta;
  return said(e->args, cublasLtMatmul(
      rp_cuda_of(e->args)->blas, p->operation,
      p->is_f64 ? (const void *)&alpha : &alpha_f32, at[B], p->layouts[B],
      at[A], p->layouts[A], p->is_f64 ? (const void *)&beta : &beta_f32,
      at[Y], p->layouts[Y], at[Y], p->layouts[Y], &p->algorithms[which],
      e->scratch, p->scratch_bytes[which], rp_cuda_of(e->args)->stream));
}

int64_t size_of(const product *p, int side) {
  return (int64_t)rp_dtype_size((rp_dtype)p->sides[side].type.dtype);
}

/* One round of the loop: the library's batch, in as few calls as it takes. */
rp_status run_batch(void *user, int64_t a, int64_t b, int64_t y) {
  const execution *e = static_cast<const execution *>(user);
  const product *p = e->p;
  const int64_t count = p->batch.count;
  for (int64_t first = 0; first < count; first += MOST_MATRICES) {
    const int64_t n =
        count - first < MOST_MATRICES ? count - first : MOST_MATRICES;
    char *const at[SIDES] = {
        e->data[A] + (a + first * p->batch.a) * size_of(p, A),
        e->data[B] + (b + first * p->batch.b) * size_of(p, B),
        e->data[Y] + (y + first * p->batch.y) * size_of(p, Y)};
    if (count > MOST_MATRICES) {
      const cublasStatus_t status = set_count(p, n);
      if (status) return said(e->args, status);
    }
    const rp_status status = multiply(e, at);
    if (status != RP_OK) return status;
  }
  return RP_OK;
}

} // namespace

rp_status product_run(const product *p, const rp_kernel_args *args,
                      const rp_array &a, const rp_array &b,
                      const rp_array *bias, const rp_array &y,
                      void *workspace, bool adds) {
  if (p->shape.empty) return RP_OK;
  if (!has_product(p)) return adds ? RP_OK : fill_with_bias(args, bias, y);
  execution e = {p, args, {static_cast<char *>(a.data),
                           static_cast<char *>(b.data),
                           static_cast<char *>(y.data)},
                 bias ? bias->data : nullptr,
                 piece(workspace, p->scratch_at), adds};
  const rp_array *given[2] = {&a, &b};
  for (int side = 0; side < 2; side++) {
    if (p->copy_at[side] < 0) continue;
    void *copy = piece(workspace, p->copy_at[side]);
    const rp_status status = pack(args, *given[side], copy);
    if (status != RP_OK) return status;
    e.data[side] = static_cast<char *>(copy);
  }
  if (p->bias_at >= 0) {
    rp_array cast = packed(*bias);
    cast.type.dtype = p->bias_dtype;
    cast.data = piece(workspace, p->bias_at);
    const rp_status status = fill_with_bias(args, bias, cast);
    if (status != RP_OK) return status;
    e.bias = cast.data;
  }
  if (p->in_epilogue) {
    const cublasStatus_t status = cublasLtMatmulDescSetAttribute(
        p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &e.bias,
        sizeof e.bias);
    if (status) return said(args, status);
  }
  const rp_status status =
      rp_product_loop(&p->shape, p->loops, run_batch, &e);
  if (status != RP_OK || !p->has_bias || p->in_epilogue) return status;
  return add_bias(args, *bias, y);
}

bool product_takes(const product *p, const rp_array &a, const rp_array &b,
                   const rp_array *bias, const rp_array &y,
                   const rp_array *aux) {
  const bool copies[] = {p->copy_at[A] >= 0, p->copy_at[B] >= 0,
                         p->bias_at >= 0 || bias == nullptr, false,
                         aux == nullptr};
  const rp_array *const all[] = {&a, &b, bias, &y, aux};
  for (int i = 0; i < 5; i++)
    if (!copies[i] && !is_multiple(all[i]->data, WIDE_ALIGNMENT)) return false;
  return true;
}

rp_status product_run_ended(const product *p, const rp_kernel_args *args,
                            const rp_array &a, const rp_array &b,
                            const rp_array *bias, const rp_array &y,
                            const rp_array *aux, void *workspace) {
  if (aux) {
    const cublasStatus_t status = cublasLtMatmulDescSetAttribute(
        p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux->data,
        sizeof aux->data);
    if (status) return said(args, status);
  }
  return product_run(p, args, a, b, bias, y, workspace);
}

} // namespace rp
