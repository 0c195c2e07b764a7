/* cuBLASLt counts by columns: our rows are its columns, so y^T = b^T a^T is
   what it is asked for, and b is its A.

   It has one batch dim. Of ours the largest is that one, the others are a
   loop; so are counts that pass what a grid's third dim takes.

   Pointers are not known when an algorithm is chosen. Arena and storage align
   to 256 bytes, so almost all are multiples of 16; views may begin anywhere.
   Two algorithms are kept, for those and for whatever lies as an element
   must. Which one runs depends on where a view begins in its root, never on
   where that lies: the bits are the same in every plan. */
#include "product.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "base/status.h"

namespace rp {

namespace {

/* The most scratch that a product may ask for: what NVIDIA advises for
   Hopper. */
constexpr uint64_t SCRATCH_BYTES = 32 << 20;
/* Matrices in one call. Of larger counts some kernels make a grid that no
   device takes (65535); this is a multiple of many alignments. */
constexpr int64_t MOST_MATRICES = 63 * 1024;
/* Bytes that pointers are multiples of. */
constexpr uint32_t WIDE_ALIGNMENT = 16;
/* Elements that the rows of what an epilogue reads or writes besides y are
   multiples of. */
constexpr int64_t AUX_UNIT = 8;

enum { A, B, Y, SIDES };
enum { ALIGNED, ANYHOW, ALGORITHMS };

} // namespace

struct product {
  rp_product shape;
  rp_array sides[SIDES]; /* as multiplied, without data */
  rp_dtype bias_dtype;   /* as added */
  bool has_bias, in_epilogue, is_f64;
  ending end;
  bool has_aux;
  double alpha;
  int loops;             /* batch dims that are looped over */
  rp_product_dim batch;  /* the library's */
  int64_t copy_at[2], bias_at, scratch_at; /* in the workspace; -1: none */
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t layouts[SIDES];
  bool has[ALGORITHMS];
  cublasLtMatmulAlgo_t algorithms[ALGORITHMS];
  size_t scratch_bytes[ALGORITHMS];
};

bool tf32_is_allowed() {
  const char *value = getenv("RP_CUDA_TF32");
  return value && strcmp(value, "1") == 0;
}

namespace {

cudaDataType_t lt_type(rp_dtype dtype) {
  return dtype == RP_F64    ? CUDA_R_64F
         : dtype == RP_BF16 ? CUDA_R_16BF
                            : CUDA_R_32F;
}

cublasComputeType_t lt_compute(rp_dtype dtype) {
  if (dtype == RP_F64) return CUBLAS_COMPUTE_64F;
  if (dtype == RP_F32 && tf32_is_allowed())
    return CUBLAS_COMPUTE_32F_FAST_TF32;
  return CUBLAS_COMPUTE_32F;
}

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

/* ---- descriptors -------------------------------------------------------- */

/* A matrix of ours as the library sees it: transposed, which for one that
   goes on by columns is as it lies. */
bool goes_by_columns(const product *p, int side) {
  return (side == A ? p->shape.a[1] : p->shape.b[1]) != 1;
}

cublasStatus_t make_layout(product *p, int side) {
  const rp_product &s = p->shape;
  const int64_t rows = side == B ? s.k : s.m, columns = side == A ? s.k : s.n;
  const int64_t *strides = side == A ? s.a : side == B ? s.b : s.y;
  const bool by_columns = side != Y && goes_by_columns(p, side);
  const int64_t leading = strides[by_columns ? 1 : 0];
  const int64_t step = side == A ? p->batch.a
                       : side == B ? p->batch.b
                                   : p->batch.y;
  const int32_t count = (int32_t)(p->batch.count < MOST_MATRICES
                                      ? p->batch.count : MOST_MATRICES);
  cublasLtMatrixLayout_t &layout = p->layouts[side];
  cublasStatus_t status = cublasLtMatrixLayoutCreate(
      &layout, lt_type((rp_dtype)p->sides[side].type.dtype),
      (uint64_t)(by_columns ? rows : columns),
      (uint64_t)(by_columns ? columns : rows), leading);
  if (status || count == 1) return status;
  status = cublasLtMatrixLayoutSetAttribute(
      layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
  return status ? status
                : cublasLtMatrixLayoutSetAttribute(
                      layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                      &step, sizeof step);
}

template <typename T>
cublasStatus_t set(product *p, cublasLtMatmulDescAttributes_t name, T value) {
  return cublasLtMatmulDescSetAttribute(p->operation, name, &value,
                                        sizeof value);
}

cublasStatus_t make_operation(product *p) {
  const rp_dtype dtype = (rp_dtype)p->sides[A].type.dtype;
  cublasStatus_t status =
      cublasLtMatmulDescCreate(&p->operation, lt_compute(dtype),
                               dtype == RP_F64 ? CUDA_R_64F : CUDA_R_32F);
  const int32_t transposed = CUBLAS_OP_T;
  if (!status && goes_by_columns(p, B))
    status = set(p, CUBLASLT_MATMUL_DESC_TRANSA, transposed);
  if (!status && goes_by_columns(p, A))
    status = set(p, CUBLASLT_MATMUL_DESC_TRANSB, transposed);
  for (int side = 0; side < SIDES && !status; side++)
    status = make_layout(p, side);
  return status;
}

int32_t epilogue_of(const product *p, bool with_bias) {
  switch (p->end) {
    case ending::GELU:
      if (p->has_aux)
        return with_bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS
                         : CUBLASLT_EPILOGUE_GELU_AUX;
      return with_bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    case ending::GELU_GRAD: return CUBLASLT_EPILOGUE_DGELU;
    default:
      return with_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
}

/* The dtypes of bias and aux are y's, which is what the library takes them
   for. Pointers are not known yet: they are stood for by any as aligned. One
   that an epilogue does not read must not be there. */
cublasStatus_t set_epilogue(product *p, bool with_bias) {
  cublasStatus_t status =
      set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p, with_bias));
  if (!status && !with_bias)
    status = set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, (const void *)nullptr);
  if (status || !p->has_aux) return status;
  status = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p->shape.y[0]);
  return status ? status
                : set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                      (const void *)(uintptr_t)256);
}

/* ---- algorithms --------------------------------------------------------- */

cublasStatus_t prefer(cublasLtMatmulPreference_t preference,
                      uint32_t alignments[SIDES]) {
  static const cublasLtMatmulPreferenceAttributes_t names[] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  const uint32_t by_name[] = {alignments[B], alignments[A], alignments[Y],
                              alignments[Y]};
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &SCRATCH_BYTES,
      sizeof SCRATCH_BYTES);
  if (!status)
    status = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
        sizeof reductions);
  for (int i = 0; i < 4 && !status; i++)
    status = cublasLtMatmulPreferenceSetAttribute(
        preference, names[i], &by_name[i], sizeof by_name[i]);
  return status;
}

/* The first of the library's choices; has[which] says whether there is one.
   Pointers are stood for by their alignment, the bias's by an address. */
cublasStatus_t choose(product *p, cublasLtHandle_t handle, int which) {
  uint32_t alignments[SIDES];
  for (int side = 0; side < SIDES; side++)
    alignments[side] =
        which == ALIGNED ? WIDE_ALIGNMENT
                         : (uint32_t)rp_dtype_size(
                               (rp_dtype)p->sides[side].type.dtype);
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  if (p->in_epilogue)
    status = set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                 (const void *)(uintptr_t)(
                     256 + (which == ALIGNED ? 0 : alignments[Y])));
  cublasLtMatmulPreference_t preference = nullptr;
  if (!status) status = cublasLtMatmulPreferenceCreate(&preference);
  if (!status) status = prefer(preference, alignments);
  enum { CHOICES = 4 };
  cublasLtMatmulHeuristicResult_t choices[CHOICES];
  int n = 0;
  if (!status)
    status = cublasLtMatmulAlgoGetHeuristic(
        handle, p->operation, p->layouts[B], p->layouts[A], p->layouts[Y],
        p->layouts[Y], preference, CHOICES, choices, &n);
  if (preference) cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return CUBLAS_STATUS_SUCCESS;
  for (int i = 0; i < n && !status && !p->has[which]; i++) {
    if (choices[i].state != CUBLAS_STATUS_SUCCESS ||
        choices[i].workspaceSize > SCRATCH_BYTES)
      continue;
    p->has[which] = true;
    p->algorithms[which] = choices[i].algo;
    p->scratch_bytes[which] = choices[i].workspaceSize;
  }
  return status;
}

/* A bias that the library does not add for this product is added after it;
   what it says of one that it does not know differs between its versions. */
cublasStatus_t choose_both(product *p, cublasLtHandle_t handle) {
  for (p->in_epilogue = p->has_bias;; p->in_epilogue = false) {
    cublasStatus_t status = set_epilogue(p, p->in_epilogue);
    for (int which = 0; which < ALGORITHMS && !status; which++) {
      p->has[which] = false;
      status = choose(p, handle, which);
    }
    if (!p->in_epilogue ||
        (!status && p->has[ALIGNED] && p->has[ANYHOW]))
      return status;
  }
}

/* With an ending there is one algorithm, for what is aligned, or none. What the
   library says of an epilogue that it lacks differs between its versions. */
cublasStatus_t choose_ended(product *p, cublasLtHandle_t handle) {
  p->in_epilogue = p->has_bias;
  cublasStatus_t status = set_epilogue(p, p->has_bias);
  if (!status) status = choose(p, handle, ALIGNED);
  return status == CUBLAS_STATUS_INVALID_VALUE ? CUBLAS_STATUS_SUCCESS
                                               : status;
}

bool may_end(const product *p) {
  return p->sides[A].type.dtype == RP_BF16 && p->bias_dtype == RP_BF16 &&
         p->batch.count == 1 && p->loops == 0 &&
         (!p->has_aux || p->shape.y[0] % AUX_UNIT == 0);
}

rp_status make_for_library(product *p, const rp_kernel_args *args) {
  cublasStatus_t status = make_operation(p);
  if (!status) status = choose_both(p, rp_cuda_of(args)->blas);
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

} // namespace

namespace {

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
  if (has_product(p) && may_end(p)) {
    status = make_operation(p);
    if (!status) status = choose_ended(p, rp_cuda_of(args)->blas);
  }
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
