/* How cuBLASLt is to multiply. See product_choose.

   Pointers are not known when an algorithm is chosen. Arena and storage align
   to 256 bytes, so almost all are multiples of 16; views may begin anywhere.
   Two algorithms are kept, for those and for whatever lies as an element
   must. Which one runs depends on where a view begins in its root, never on
   where that lies: the bits are the same in every plan. */
#include "product_state.h"

#include <cstdlib>
#include <cstring>

namespace rp {

bool tf32_is_allowed() {
  const char *value = getenv("RP_CUDA_TF32");
  return value && strcmp(value, "1") == 0;
}

namespace {

/* The most scratch that a product may ask for: what NVIDIA advises for
   Hopper. */
constexpr uint64_t SCRATCH_BYTES = 32 << 20;
/* Elements that the rows of what an epilogue reads or writes besides y are
   multiples of. */
constexpr int64_t AUX_UNIT = 8;


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

} // namespace

cublasStatus_t product_choose(product *p, cublasLtHandle_t handle) {
  const cublasStatus_t status = make_operation(p);
  return status ? status : choose_both(p, handle);
}

cublasStatus_t product_choose_ended(product *p, cublasLtHandle_t handle) {
  if (!may_end(p)) return CUBLAS_STATUS_SUCCESS;
  const cublasStatus_t status = make_operation(p);
  return status ? status : choose_ended(p, handle);
}

} // namespace rp
