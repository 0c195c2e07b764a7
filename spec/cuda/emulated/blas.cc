/* cuBLASLt: one plain loop, behind the checks of the real one, those among them
   that its log spells out: a bias or an aux is there where the epilogue takes
   one and only there, and aux's leading dimension and batch stride hold D.

   Where its documentation leaves a combination open the emulation is the
   stricter: bias and GELU for f32 and bf16 alone, not for f64 and not where D
   is stored by rows; a size of 0 is CUBLAS_STATUS_INVALID_VALUE. Sums go over k
   in order, in f32 (f64 for f64). GELU is the tanh form, as in cuBLASLt. */
#include <cublasLt.h>
#include <cuda_bf16.h>

#include "engine.h"

using namespace emulated;

namespace {

struct layout {
  int32_t type, order;
  uint64_t rows, cols;
  int64_t ld;
  int32_t batch, mode;
  int64_t stride, plane;
};
static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "room");

struct matmul {
  int32_t compute, scale, pointer_mode, transa, transb, transc, fill, sms;
  uint32_t epilogue;
  int32_t bias_type, aux_type;
  void *bias, *aux;
  int64_t bias_stride, aux_ld, aux_stride;
  const void *scales[5];
  int8_t fast;
};
static_assert(sizeof(matmul) <= sizeof(cublasLtMatmulDescOpaque_t), "room");

struct preference {
  uint64_t workspace;
  uint32_t search, reduction, alignment[4];
  float waves;
  uint64_t implementation;
};
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t),
              "room");

const uint32_t ALGORITHM = 0x52504c54;
struct algorithm {
  uint32_t magic;
  int32_t id;
  uint64_t workspace, m, n, k;
  uint16_t alignment[6]; /* of A, B, C, D, bias and aux */
  uint32_t epilogue;     /* that it was chosen for */
};
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "room");

template <typename T, typename O> T *inside(O *opaque) {
  return reinterpret_cast<T *>(opaque->data);
}
template <typename T, typename O> const T *inside(const O *opaque) {
  return reinterpret_cast<const T *>(opaque->data);
}

/* ---- attributes --------------------------------------------------------- */

struct field {
  int attribute;
  size_t offset, bytes;
};
#define RP_EMULATED_FIELD(attribute, in, name)                               \
  {attribute, offsetof(in, name), sizeof(in::name)}

const field layout_fields[] = {
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_TYPE, layout, type),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_ORDER, layout, order),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_ROWS, layout, rows),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_COLS, layout, cols),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_LD, layout, ld),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, layout, batch),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, layout,
                      stride),
    RP_EMULATED_FIELD(CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET, layout, plane),
};
const field matmul_fields[] = {
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, matmul, compute),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_SCALE_TYPE, matmul, scale),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_POINTER_MODE, matmul, pointer_mode),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_TRANSA, matmul, transa),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_TRANSB, matmul, transb),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_TRANSC, matmul, transc),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_FILL_MODE, matmul, fill),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, matmul, epilogue),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, matmul, bias),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, matmul,
                      bias_stride),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, matmul, bias_type),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, matmul, aux),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, matmul, aux_ld),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, matmul,
                      aux_stride),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, matmul,
                      aux_type),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, matmul, sms),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_DESC_FAST_ACCUM, matmul, fast),
};
const field preference_fields[] = {
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_SEARCH_MODE, preference, search),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, preference,
                      workspace),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, preference,
                      reduction),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, preference,
                      alignment[0]),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, preference,
                      alignment[1]),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, preference,
                      alignment[2]),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, preference,
                      alignment[3]),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT, preference, waves),
    RP_EMULATED_FIELD(CUBLASLT_MATMUL_PREF_IMPL_MASK, preference,
                      implementation),
};

template <size_t N>
cublasStatus_t set(const field (&fields)[N], void *object, int attribute,
                   const void *value, size_t bytes) {
  for (const field &each : fields)
    if (each.attribute == attribute) {
      if (!object || !value || bytes != each.bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
      memcpy(static_cast<char *>(object) + each.offset, value, bytes);
      return CUBLAS_STATUS_SUCCESS;
    }
  return CUBLAS_STATUS_INVALID_VALUE;
}
template <size_t N>
cublasStatus_t get(const field (&fields)[N], const void *object, int attribute,
                   void *value, size_t bytes, size_t *written) {
  for (const field &each : fields)
    if (each.attribute == attribute) {
      if (written) *written = each.bytes;
      if (bytes == 0)
        return written ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
      if (!value || bytes != each.bytes) return CUBLAS_STATUS_INVALID_VALUE;
      memcpy(value, static_cast<const char *>(object) + each.offset, bytes);
      return CUBLAS_STATUS_SUCCESS;
    }
  return CUBLAS_STATUS_INVALID_VALUE;
}

/* ---- checks ------------------------------------------------------------- */

size_t size_of(int type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
}
bool is_64(const matmul &op) {
  return op.compute == CUBLAS_COMPUTE_64F ||
         op.compute == CUBLAS_COMPUTE_64F_PEDANTIC;
}

/* Of op(A) (m, k), op(B) (k, n), D (m, n). */
struct problem {
  matmul op;
  layout a, b, c, d;
  int64_t m, n, k;
};

bool has(const matmul &op, uint32_t bits) { return (op.epilogue & bits) != 0; }
enum : uint32_t {
  RELU = 2, BIAS = 4, DRELU = 8, BGRAD = 16, GELU = 32, DGELU = 64, AUX = 128,
  BGRADA = 256, BGRADB = 512
};

bool takes_bias(const matmul &op) {
  return has(op, BIAS | BGRAD | BGRADA | BGRADB);
}
bool writes_aux(const matmul &op) { return has(op, GELU | RELU); }

cublasStatus_t check(const problem &p) {
  const layout *const all[] = {&p.a, &p.b, &p.c, &p.d};
  for (const layout *each : all) {
    if (each->rows == 0 || each->cols == 0 || each->batch < 1 ||
        each->batch != p.d.batch || each->plane || each->mode)
      return CUBLAS_STATUS_INVALID_VALUE;
    if (each->order != CUBLASLT_ORDER_COL && each->order != CUBLASLT_ORDER_ROW)
      return CUBLAS_STATUS_NOT_SUPPORTED;
    if (each->ld < (int64_t)(each->order == CUBLASLT_ORDER_COL ? each->rows
                                                                : each->cols))
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (p.op.transa == CUBLAS_OP_C || p.op.transb == CUBLAS_OP_C ||
      p.op.transc != CUBLAS_OP_N || p.op.fill != CUBLAS_FILL_MODE_FULL)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool ta = p.op.transa == CUBLAS_OP_T, tb = p.op.transb == CUBLAS_OP_T;
  if ((int64_t)(ta ? p.a.cols : p.a.rows) != p.m ||
      (int64_t)(tb ? p.b.cols : p.b.rows) != p.k ||
      (int64_t)(tb ? p.b.rows : p.b.cols) != p.n ||
      (int64_t)p.c.rows != p.m || (int64_t)p.c.cols != p.n)
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool by_cols = p.d.order == CUBLASLT_ORDER_COL;
  if (p.d.batch > 1 &&
      p.d.stride < p.d.ld * (int64_t)(by_cols ? p.d.cols - 1 : p.d.rows - 1) +
                       (int64_t)(by_cols ? p.d.rows : p.d.cols))
    return CUBLAS_STATUS_INVALID_VALUE; /* matrices of D in one another */

  /* Types. */
  if (p.a.type != p.b.type || p.c.type != p.d.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  switch (p.op.compute) {
  case CUBLAS_COMPUTE_64F:
  case CUBLAS_COMPUTE_64F_PEDANTIC:
    if (p.op.scale != CUDA_R_64F || p.a.type != CUDA_R_64F ||
        p.d.type != CUDA_R_64F || p.op.epilogue != CUBLASLT_EPILOGUE_DEFAULT)
      return CUBLAS_STATUS_NOT_SUPPORTED;
    break;
  case CUBLAS_COMPUTE_32F:
  case CUBLAS_COMPUTE_32F_PEDANTIC:
    if (p.op.scale != CUDA_R_32F ||
        !((p.a.type == CUDA_R_32F && p.d.type == CUDA_R_32F) ||
          (p.a.type == CUDA_R_16BF &&
           (p.d.type == CUDA_R_16BF || p.d.type == CUDA_R_32F))))
      return CUBLAS_STATUS_NOT_SUPPORTED;
    break;
  case CUBLAS_COMPUTE_32F_FAST_TF32:
  case CUBLAS_COMPUTE_32F_FAST_16BF:
    if (p.op.scale != CUDA_R_32F || p.a.type != CUDA_R_32F ||
        p.d.type != CUDA_R_32F)
      return CUBLAS_STATUS_NOT_SUPPORTED;
    break;
  default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }

  switch (p.op.epilogue) {
  case CUBLASLT_EPILOGUE_DEFAULT: case CUBLASLT_EPILOGUE_RELU:
  case CUBLASLT_EPILOGUE_BIAS: case CUBLASLT_EPILOGUE_RELU_BIAS:
  case CUBLASLT_EPILOGUE_RELU_AUX: case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
  case CUBLASLT_EPILOGUE_DRELU: case CUBLASLT_EPILOGUE_DRELU_BGRAD:
  case CUBLASLT_EPILOGUE_GELU: case CUBLASLT_EPILOGUE_GELU_AUX:
  case CUBLASLT_EPILOGUE_GELU_BIAS: case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
  case CUBLASLT_EPILOGUE_DGELU: case CUBLASLT_EPILOGUE_DGELU_BGRAD:
  case CUBLASLT_EPILOGUE_BGRADA: case CUBLASLT_EPILOGUE_BGRADB: break;
  default: return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (p.op.epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
      p.d.order != CUBLASLT_ORDER_COL)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (takes_bias(p.op) != (p.op.bias != nullptr) ||
      has(p.op, AUX) != (p.op.aux != nullptr) ||
      (!p.op.bias && p.op.bias_stride) || (!p.op.aux && p.op.aux_stride))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (has(p.op, BGRADA | BGRADB) &&
      (p.a.order != CUBLASLT_ORDER_COL || p.b.order != CUBLASLT_ORDER_COL ||
       (has(p.op, BGRADA) ? ta : !tb)))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (takes_bias(p.op) && p.op.bias_type != -1 && p.op.bias_type != p.d.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (has(p.op, AUX)) {
    const bool bits = has(p.op, RELU | DRELU);
    const int64_t unit = bits ? 128 : 8;
    if (p.op.aux_ld < p.m || p.op.aux_ld % unit ||
        p.op.aux_stride % unit)
      return CUBLAS_STATUS_INVALID_VALUE;
    /* Matrices of aux in one another. */
    if (p.d.batch > 1 && p.op.aux_stride < p.n * p.op.aux_ld &&
        (writes_aux(p.op) || p.op.aux_stride))
      return CUBLAS_STATUS_INVALID_VALUE;
    if (!bits && p.op.aux_type != -1 && p.op.aux_type != p.d.type)
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

bool make_problem(cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                  cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                  cublasLtMatrixLayout_t d, problem *p) {
  if (!op || !a || !b || !c || !d) return false;
  *p = problem{*inside<matmul>(op), *inside<layout>(a), *inside<layout>(b),
               *inside<layout>(c), *inside<layout>(d), 0, 0, 0};
  p->m = (int64_t)p->d.rows;
  p->n = (int64_t)p->d.cols;
  p->k = (int64_t)(p->op.transa == CUBLAS_OP_T ? p->a.rows : p->a.cols);
  return true;
}

/* The widest load that the matrix allows, up to 16 bytes. */
uint32_t alignment_of(const layout &l, uint64_t base) {
  uint64_t all = base | (uint64_t)l.ld * size_of(l.type);
  if (l.batch > 1) all |= (uint64_t)l.stride * size_of(l.type);
  uint32_t alignment = 16;
  while (alignment > size_of(l.type) && all % alignment) alignment /= 2;
  return alignment;
}

uint16_t base_alignment(const problem &p, const void *pointer) {
  uint16_t alignment = 16;
  while (alignment > size_of(p.d.type) &&
         reinterpret_cast<uint64_t>(pointer) % alignment)
    alignment /= 2;
  return alignment;
}

/* aux's and D's. */
bool overlap(const problem &p, const void *d) {
  const uint64_t size = size_of(p.d.type);
  const uint64_t a = reinterpret_cast<uint64_t>(p.op.aux);
  const uint64_t b = reinterpret_cast<uint64_t>(d);
  return a < b + (uint64_t)(p.n * p.d.ld) * size &&
         b < a + (uint64_t)(p.n * p.op.aux_ld) * size;
}

/* Long sums over few results are split, where there is room for the parts. */
algorithm choose(const problem &p, uint64_t most_workspace, int nth,
                 const uint64_t (&bases)[4]) {
  algorithm chosen = {};
  chosen.magic = ALGORITHM;
  chosen.id = 66 + nth;
  chosen.m = (uint64_t)p.m;
  chosen.n = (uint64_t)p.n;
  chosen.k = (uint64_t)p.k;
  const uint64_t parts = (uint64_t)p.m * p.n * p.d.batch * 2 *
                         (is_64(p.op) ? 8 : 4);
  if (p.k >= 2 * (p.m < p.n ? p.m : p.n) && parts <= most_workspace && nth == 0)
    chosen.workspace = parts;
  const layout *const all[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; i++)
    chosen.alignment[i] = (uint16_t)alignment_of(*all[i], bases[i]);
  /* What is said of those pointers at that time. */
  chosen.alignment[4] = takes_bias(p.op) ? base_alignment(p, p.op.bias) : 1;
  chosen.alignment[5] = has(p.op, AUX) ? 16 : 1;
  chosen.epilogue = p.op.epilogue;
  return chosen;
}

/* ---- the product -------------------------------------------------------- */

template <typename T> T load(const void *data, int type, int64_t i) {
  switch (type) {
  case CUDA_R_64F: return (T)static_cast<const double *>(data)[i];
  case CUDA_R_32F: return (T)static_cast<const float *>(data)[i];
  default:
    return (T)__bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
  }
}
template <typename T> void store(void *data, int type, int64_t i, T x) {
  switch (type) {
  case CUDA_R_64F: static_cast<double *>(data)[i] = (double)x; break;
  case CUDA_R_32F: static_cast<float *>(data)[i] = (float)x; break;
  default:
    static_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16_rn((float)x);
  }
}
int64_t index_of(const layout &l, int64_t row, int64_t col) {
  return l.order == CUBLASLT_ORDER_COL ? row + col * l.ld : row * l.ld + col;
}

float as_tf32(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  bits += 0x0fffu + (bits >> 13 & 1);
  return __uint_as_float(bits & ~0x1fffu);
}

const double TANH_SCALE = 0.79788456080286535588; /* sqrt(2/pi) */
float gelu(float x) {
  return 0.5f * x *
         (1.0f + tanhf((float)TANH_SCALE * (x + 0.044715f * x * x * x)));
}
float gelu_slope(float x) {
  const float u = (float)TANH_SCALE * (x + 0.044715f * x * x * x);
  const float t = tanhf(u);
  const float du = (float)TANH_SCALE * (1.0f + 3.0f * 0.044715f * x * x);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * du;
}

struct operands {
  const void *a, *b, *c;
  void *d;
};

template <typename T>
void multiply(const problem &p, const operands &at, T alpha, T beta) {
  const int64_t m = p.m, n = p.n, k = p.k;
  const bool ta = p.op.transa == CUBLAS_OP_T, tb = p.op.transb == CUBLAS_OP_T;
  const bool tf32 = p.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  std::vector<T> a((size_t)(m * k)), b((size_t)(k * n)), row((size_t)n);
  for (int64_t batch = 0; batch < p.d.batch; batch++) {
    const int64_t a0 = batch * p.a.stride, b0 = batch * p.b.stride;
    for (int64_t i = 0; i < m; i++)
      for (int64_t l = 0; l < k; l++)
        a[i * k + l] = load<T>(at.a, p.a.type,
                               a0 + (ta ? index_of(p.a, l, i)
                                        : index_of(p.a, i, l)));
    for (int64_t l = 0; l < k; l++)
      for (int64_t j = 0; j < n; j++)
        b[l * n + j] = load<T>(at.b, p.b.type,
                               b0 + (tb ? index_of(p.b, j, l)
                                        : index_of(p.b, l, j)));
    if (tf32) {
      for (T &each : a) each = (T)as_tf32((float)each);
      for (T &each : b) each = (T)as_tf32((float)each);
    }
    void *bias = p.op.bias;
    const int64_t bias0 = batch * p.op.bias_stride;
    const int64_t aux0 = batch * p.op.aux_stride;
    std::vector<T> bias_grad((size_t)(has(p.op, BGRADB) ? n : m));
    for (int64_t i = 0; i < m; i++) {
      std::fill(row.begin(), row.end(), T(0));
      for (int64_t l = 0; l < k; l++) {
        const T x = a[i * k + l];
        const T *from = &b[l * n];
        for (int64_t j = 0; j < n; j++) row[j] += x * from[j];
      }
      for (int64_t j = 0; j < n; j++) {
        T y = alpha * row[j];
        if (beta != T(0))
          y += beta * load<T>(at.c, p.c.type,
                              batch * p.c.stride + index_of(p.c, i, j));
        if (has(p.op, BIAS)) y += load<T>(bias, p.d.type, bias0 + i);
        const int64_t aux = aux0 + i + j * p.op.aux_ld;
        uint8_t *mask = static_cast<uint8_t *>(p.op.aux);
        if (has(p.op, GELU)) {
          if (has(p.op, AUX)) store(p.op.aux, p.d.type, aux, y);
          y = (T)gelu((float)y);
        } else if (has(p.op, RELU)) {
          if (has(p.op, AUX))
            mask[aux / 8] = (uint8_t)((mask[aux / 8] & ~(1 << aux % 8)) |
                                      (y > T(0)) << aux % 8);
          y = y > T(0) ? y : T(0);
        } else if (has(p.op, DGELU)) {
          y *= (T)gelu_slope(load<float>(p.op.aux, p.d.type, aux));
        } else if (has(p.op, DRELU)) {
          y = mask[aux / 8] >> aux % 8 & 1 ? y : T(0);
        }
        if (has(p.op, BGRAD)) bias_grad[i] += y;
        store(at.d, p.d.type, batch * p.d.stride + index_of(p.d, i, j), y);
      }
    }
    if (has(p.op, BGRADA))
      for (int64_t i = 0; i < m; i++)
        for (int64_t l = 0; l < k; l++) bias_grad[i] += a[i * k + l];
    if (has(p.op, BGRADB))
      for (int64_t l = 0; l < k; l++)
        for (int64_t j = 0; j < n; j++) bias_grad[j] += b[l * n + j];
    if (has(p.op, BGRAD | BGRADA | BGRADB))
      for (size_t i = 0; i < bias_grad.size(); i++)
        store(bias, p.d.type, bias0 + (int64_t)i, bias_grad[i]);
  }
}

} // namespace

extern "C" {

/* ---- handles ------------------------------------------------------------ */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
  if (lost() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!take_bytes(BLAS_BYTES)) return CUBLAS_STATUS_ALLOC_FAILED;
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (handle) give_bytes(BLAS_BYTES);
  delete reinterpret_cast<int *>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
const char *cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
  case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
  case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
  case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
  case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
  case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
  case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
  case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
  default: return "CUBLAS_STATUS_UNKNOWN";
  }
}
const char *cublasLtGetStatusString(cublasStatus_t status) {
  return cublasLtGetStatusName(status);
}
size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }

/* ---- descriptions ------------------------------------------------------- */

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t made,
                                                 size_t, cudaDataType type,
                                                 uint64_t rows, uint64_t cols,
                                                 int64_t ld) {
  memset(made, 0, sizeof *made);
  *inside<layout>(made) = layout{type, CUBLASLT_ORDER_COL, rows, cols, ld,
                                 1, 0, 0, 0};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *made,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  if (!made) return CUBLAS_STATUS_INVALID_VALUE;
  *made = new cublasLtMatrixLayoutOpaque_t;
  return cublasLtMatrixLayoutInit_internal(*made, sizeof **made, type, rows,
                                           cols, ld);
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
    const void *value, size_t bytes) {
  return set(layout_fields, layout, attribute, value, bytes);
}
cublasStatus_t cublasLtMatrixLayoutGetAttribute(
    cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
    void *value, size_t bytes, size_t *written) {
  return get(layout_fields, layout, attribute, value, bytes, written);
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t made,
                                               size_t,
                                               cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  memset(made, 0, sizeof *made);
  matmul *op = inside<matmul>(made);
  op->compute = compute;
  op->scale = scale;
  op->fill = CUBLAS_FILL_MODE_FULL;
  op->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  op->bias_type = op->aux_type = -1;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *made,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (!made) return CUBLAS_STATUS_INVALID_VALUE;
  *made = new cublasLtMatmulDescOpaque_t;
  return cublasLtMatmulDescInit_internal(*made, sizeof **made, compute, scale);
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op) {
  delete op;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t attribute,
    const void *value, size_t bytes) {
  return set(matmul_fields, op, attribute, value, bytes);
}
cublasStatus_t cublasLtMatmulDescGetAttribute(
    cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t attribute,
    void *value, size_t bytes, size_t *written) {
  return get(matmul_fields, op, attribute, value, bytes, written);
}

cublasStatus_t
cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t made, size_t) {
  memset(made, 0, sizeof *made);
  preference *p = inside<preference>(made);
  for (uint32_t &each : p->alignment) each = 256;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *made) {
  if (!made) return CUBLAS_STATUS_INVALID_VALUE;
  *made = new cublasLtMatmulPreferenceOpaque_t;
  return cublasLtMatmulPreferenceInit_internal(*made, sizeof **made);
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  delete p;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t p,
    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
    size_t bytes) {
  return set(preference_fields, p, attribute, value, bytes);
}
cublasStatus_t cublasLtMatmulPreferenceGetAttribute(
    cublasLtMatmulPreference_t p,
    cublasLtMatmulPreferenceAttributes_t attribute, void *value, size_t bytes,
    size_t *written) {
  return get(preference_fields, p, attribute, value, bytes, written);
}

/* ---- algorithms --------------------------------------------------------- */

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preferred,
    int requested, cublasLtMatmulHeuristicResult_t results[], int *found) {
  problem p;
  if (!handle || !preferred || requested < 1 || !results || !found ||
      !make_problem(op, a, b, c, d, &p))
    return CUBLAS_STATUS_INVALID_VALUE;
  *found = 0;
  const cublasStatus_t status = check(p);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const preference *wanted = inside<preference>(preferred);
  uint64_t bases[4];
  for (int i = 0; i < 4; i++) bases[i] = wanted->alignment[i];
  for (int i = 0; i < requested && i < 2; i++) {
    const algorithm chosen = choose(p, wanted->workspace, i, bases);
    if (i == 1 && chosen.workspace == results[0].workspaceSize) break;
    memset(&results[i], 0, sizeof results[i]);
    *inside<algorithm>(&results[i].algo) = chosen;
    results[i].workspaceSize = chosen.workspace;
    results[i].state = CUBLAS_STATUS_SUCCESS;
    results[i].wavesCount = 1;
    *found = i + 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
    cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
    cublasLtMatmulHeuristicResult_t *result) {
  problem p;
  if (!handle || !algo || !result || !make_problem(op, a, b, c, d, &p))
    return CUBLAS_STATUS_INVALID_VALUE;
  const algorithm *chosen = inside<algorithm>(algo);
  if (chosen->magic != ALGORITHM) return CUBLAS_STATUS_INVALID_VALUE;
  const cublasStatus_t status = check(p);
  result->workspaceSize = chosen->workspace;
  result->state = status;
  result->wavesCount = 1;
  return status;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(
    const cublasLtMatmulAlgo_t *algo,
    cublasLtMatmulAlgoConfigAttributes_t attribute, void *value, size_t bytes,
    size_t *written) {
  const algorithm *chosen = inside<algorithm>(algo);
  if (chosen->magic != ALGORITHM) return CUBLAS_STATUS_INVALID_VALUE;
  const size_t needed = attribute == CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID ||
                                attribute == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID
                            ? 2 : 4;
  if (written) *written = needed;
  if (bytes == 0)
    return written ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
  if (!value || bytes != needed) return CUBLAS_STATUS_INVALID_VALUE;
  const int32_t x = attribute == CUBLASLT_ALGO_CONFIG_ID ? chosen->id
                    : attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM
                        ? chosen->workspace ? 2 : 1
                    : attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME
                        ? chosen->workspace ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                                            : CUBLASLT_REDUCTION_SCHEME_NONE
                        : 0;
  memcpy(value, &x, needed);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha,
    const void *A, cublasLtMatrixLayout_t a, const void *B,
    cublasLtMatrixLayout_t b, const void *beta, const void *C,
    cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t d,
    const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
    cudaStream_t stream) {
  problem p;
  if (!handle || !alpha || !beta || !A || !B || !D ||
      !make_problem(op, a, b, c, d, &p))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (lost() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  const cublasStatus_t status = check(p);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  const bool by_host = p.op.pointer_mode == CUBLASLT_POINTER_MODE_HOST;
  if (!by_host && p.op.pointer_mode != CUBLASLT_POINTER_MODE_DEVICE)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool wide = is_64(p.op);
  double by = 1, plus = 0;
  if (by_host) {
    by = wide ? *static_cast<const double *>(alpha)
              : *static_cast<const float *>(alpha);
    plus = wide ? *static_cast<const double *>(beta)
                : *static_cast<const float *>(beta);
    if (plus != 0 && !C) return CUBLAS_STATUS_INVALID_VALUE;
    if (plus == 0 && !C) C = D;
  }
  if (C == D && (p.c.ld != p.d.ld || p.c.order != p.d.order ||
                 p.c.stride != p.d.stride))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void *const pointers[] = {A, B, C, D, p.op.bias, p.op.aux};
  uint64_t bases[6];
  for (int i = 0; i < 6; i++) bases[i] = reinterpret_cast<uint64_t>(pointers[i]);
  algorithm chosen = choose(p, 0, 1, {bases[0], bases[1], bases[2], bases[3]});
  if (algo) {
    chosen = *inside<algorithm>(algo);
    if (chosen.magic != ALGORITHM || chosen.m != (uint64_t)p.m ||
        chosen.n != (uint64_t)p.n || chosen.k != (uint64_t)p.k)
      return CUBLAS_STATUS_INVALID_VALUE;
    if (chosen.epilogue != p.op.epilogue) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  for (int i = 0; i < 6; i++)
    if ((i < 4 || (i == 4 ? takes_bias(p.op) : has(p.op, AUX))) &&
        bases[i] % chosen.alignment[i])
      return CUBLAS_STATUS_NOT_SUPPORTED;
  if (has(p.op, AUX) && has(p.op, GELU) && overlap(p, D))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (chosen.workspace > workspace_bytes ||
      (chosen.workspace && (!workspace || (uintptr_t)workspace % 16)))
    return CUBLAS_STATUS_INVALID_VALUE;

  const cudaError_t error =
      enqueue_library(stream, "cublasLtMatmul", [=] {
        double times = by, more = plus;
        if (!by_host) {
          times = wide ? *static_cast<const double *>(alpha)
                       : *static_cast<const float *>(alpha);
          more = wide ? *static_cast<const double *>(beta)
                      : *static_cast<const float *>(beta);
        }
        /* It is scratch, all that was offered: nobody else's bytes are in
           it. */
        if (chosen.workspace) memset(workspace, 0xa5, chosen.workspace);
        const operands at = {A, B, C, D};
        if (wide)
          multiply<double>(p, at, times, more);
        else
          multiply<float>(p, at, (float)times, (float)more);
      });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                              : CUBLAS_STATUS_EXECUTION_FAILED;
}

} // extern "C"
