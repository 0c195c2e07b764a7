/* cuDNN's convolutions: plain loops, behind the checks of the real ones.

   f32, f64 and bf16 alike on all sides, in two dimensions, with groups; sums in
   f32 (f64 for f64), in one order. The algorithms that cuDNN says are not
   deterministic sum in another order at each call, so that who takes one sees
   it. Factors of f32 have 10 bits (TF32) wherever the math type allows, and so
   have the sums of them that Winograd's algorithm multiplies. */
#include <cuda_bf16.h>
#include <cudnn.h>

#include "engine.h"

using namespace emulated;

struct cudnnContext {
  cudaStream_t stream;
};
struct cudnnTensorStruct {
  cudnnDataType_t type;
  int64_t dims[4], strides[4]; /* n c h w */
};
struct cudnnFilterStruct {
  cudnnDataType_t type;
  int64_t dims[4], strides[4]; /* k c h w */
};
struct cudnnConvolutionStruct {
  int64_t pad[2], stride[2], dilation[2], groups;
  cudnnConvolutionMode_t mode;
  cudnnDataType_t compute;
  cudnnMathType_t math;
};

namespace {

struct side {
  cudnnDataType_t type;
  int64_t dims[4], strides[4];
};
template <typename T> side side_of(const T *d) {
  side s;
  s.type = d->type;
  memcpy(s.dims, d->dims, sizeof s.dims);
  memcpy(s.strides, d->strides, sizeof s.strides);
  return s;
}

struct convolution {
  side x, w, y;
  cudnnConvolutionStruct how;
};

enum kind { FORWARD, DATA, FILTER };

struct offered {
  int algorithm;
  cudnnDeterminism_t determinism;
};
enum { OFFERS = 3 };
/* Best first, as the heuristic says them. */
const offered offers[3][OFFERS] = {
    {{CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED, CUDNN_DETERMINISTIC},
     {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, CUDNN_DETERMINISTIC},
     {CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, CUDNN_DETERMINISTIC}},
    {{CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED, CUDNN_DETERMINISTIC},
     {CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_NON_DETERMINISTIC},
     {CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, CUDNN_DETERMINISTIC}},
    {{CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
      CUDNN_DETERMINISTIC},
     {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, CUDNN_NON_DETERMINISTIC},
     {CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, CUDNN_DETERMINISTIC}}};

/* Winograd's is the first of each kind, and takes kernels of 3 x 3 alone, by
   single steps. */
bool takes(kind which, int algorithm, const convolution &c) {
  if (algorithm != offers[which][0].algorithm) return true;
  bool plain = c.x.type == CUDNN_DATA_FLOAT && c.how.groups == 1;
  for (int d = 0; d < 2; d++)
    plain = plain && c.w.dims[2 + d] == 3 && c.how.stride[d] == 1 &&
            c.how.dilation[d] == 1;
  return plain;
}

const offered *offer_of(kind which, int algorithm, const convolution &c) {
  for (const offered &each : offers[which])
    if (each.algorithm == algorithm && takes(which, algorithm, c))
      return &each;
  return nullptr;
}

/* A table of indices for the precomputed product, parts of the sums for the
   backward ones; the plain forward one needs none. */
size_t workspace_of(kind which, int algorithm, const convolution &c) {
  if (which == FORWARD)
    return algorithm == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM
               ? 0
               : (size_t)(16 * c.w.dims[1] * c.w.dims[2] * c.w.dims[3]);
  if (offer_of(which, algorithm, c)->determinism == CUDNN_NON_DETERMINISTIC)
    return 0;
  return (size_t)(256 + 4 * c.w.dims[0] * c.w.dims[1] * c.w.dims[2] *
                            c.w.dims[3]);
}

int64_t out_size(const convolution &c, int d) {
  return (c.x.dims[2 + d] + 2 * c.how.pad[d] -
          ((c.w.dims[2 + d] - 1) * c.how.dilation[d] + 1)) /
             c.how.stride[d] + 1;
}

cudnnStatus_t check(const convolution &c) {
  if (c.x.type != c.w.type || c.x.type != c.y.type)
    return CUDNN_STATUS_NOT_SUPPORTED;
  if (c.x.type != CUDNN_DATA_FLOAT && c.x.type != CUDNN_DATA_DOUBLE &&
      c.x.type != CUDNN_DATA_BFLOAT16)
    return CUDNN_STATUS_NOT_SUPPORTED;
  if (c.how.compute !=
      (c.x.type == CUDNN_DATA_DOUBLE ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT))
    return CUDNN_STATUS_NOT_SUPPORTED;
  if (c.how.groups < 1 || c.x.dims[1] != c.w.dims[1] * c.how.groups ||
      c.w.dims[0] % c.how.groups || c.y.dims[1] != c.w.dims[0] ||
      c.y.dims[0] != c.x.dims[0])
    return CUDNN_STATUS_BAD_PARAM;
  for (int d = 0; d < 2; d++)
    if (c.y.dims[2 + d] < 1 || c.y.dims[2 + d] != out_size(c, d))
      return CUDNN_STATUS_BAD_PARAM;
  return CUDNN_STATUS_SUCCESS;
}

/* ---- the loops ---------------------------------------------------------- */

template <typename T> T load(const void *data, cudnnDataType_t type, int64_t i) {
  if (type == CUDNN_DATA_DOUBLE) return (T)static_cast<const double *>(data)[i];
  if (type == CUDNN_DATA_FLOAT) return (T)static_cast<const float *>(data)[i];
  return (T)__bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
}
template <typename T>
void store(void *data, cudnnDataType_t type, int64_t i, T x) {
  if (type == CUDNN_DATA_DOUBLE)
    static_cast<double *>(data)[i] = (double)x;
  else if (type == CUDNN_DATA_FLOAT)
    static_cast<float *>(data)[i] = (float)x;
  else
    static_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16_rn((float)x);
}

float as_tf32(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  bits += 0x0fffu + (bits >> 13 & 1);
  return __uint_as_float(bits & ~0x1fffu);
}

int64_t count_of(const side &s) {
  return s.dims[0] * s.dims[1] * s.dims[2] * s.dims[3];
}
int64_t offset_of(const side &s, int64_t i) {
  int64_t offset = 0;
  for (int d = 3; d >= 0; d--) {
    offset += i % s.dims[d] * s.strides[d];
    i /= s.dims[d];
  }
  return offset;
}
template <typename T>
std::vector<T> packed(const side &s, const void *data, bool tf32) {
  std::vector<T> all((size_t)count_of(s));
  for (int64_t i = 0; i < (int64_t)all.size(); i++) {
    all[i] = load<T>(data, s.type, offset_of(s, i));
    if (tf32) all[i] = (T)as_tf32((float)all[i]);
  }
  return all;
}
template <typename T>
void unpack(const side &s, void *data, const std::vector<T> &all, T alpha,
            T beta) {
  for (int64_t i = 0; i < (int64_t)all.size(); i++) {
    const int64_t at = offset_of(s, i);
    T value = alpha * all[i];
    if (beta != T(0)) value += beta * load<T>(data, s.type, at);
    store(data, s.type, at, value);
  }
}

/* term(x index, w index, y index) for every product of the sum, output
   position by output position, or the other way round. */
template <typename F>
void each_term(const convolution &c, bool backwards, F term) {
  const int64_t N = c.x.dims[0], H = c.x.dims[2], W = c.x.dims[3];
  const int64_t K = c.w.dims[0], C = c.w.dims[1], R = c.w.dims[2],
                S = c.w.dims[3];
  const int64_t P = c.y.dims[2], Q = c.y.dims[3], G = c.how.groups;
  const auto at = [backwards](int64_t i, int64_t n) {
    return backwards ? n - 1 - i : i;
  };
  for (int64_t n_ = 0; n_ < N; n_++)
    for (int64_t k_ = 0; k_ < K; k_++)
      for (int64_t c_ = 0; c_ < C; c_++)
        for (int64_t r_ = 0; r_ < R; r_++)
          for (int64_t s_ = 0; s_ < S; s_++) {
            const int64_t n = at(n_, N), k = at(k_, K), ch = at(c_, C);
            const int64_t r = at(r_, R), s = at(s_, S);
            const bool flips = c.how.mode == CUDNN_CONVOLUTION;
            const int64_t channel = k / (K / G) * C + ch;
            const int64_t w = ((k * C + ch) * R + (flips ? R - 1 - r : r)) * S +
                              (flips ? S - 1 - s : s);
            for (int64_t p_ = 0; p_ < P; p_++) {
              const int64_t p = at(p_, P);
              const int64_t h = p * c.how.stride[0] - c.how.pad[0] +
                                r * c.how.dilation[0];
              if (h < 0 || h >= H) continue;
              for (int64_t q_ = 0; q_ < Q; q_++) {
                const int64_t q = at(q_, Q);
                const int64_t v = q * c.how.stride[1] - c.how.pad[1] +
                                  s * c.how.dilation[1];
                if (v < 0 || v >= W) continue;
                term(((n * (C * G) + channel) * H + h) * W + v, w,
                     ((n * K + k) * P + p) * Q + q);
              }
            }
          }
}

/* What is left of factors that were added to their neighbours, rounded as
   TF32 and taken apart again. */
template <typename T> void transform(std::vector<T> &all) {
  for (size_t i = 0; i + 1 < all.size(); i++)
    all[i] = (T)(as_tf32((float)(all[i] + all[i + 1])) - (float)all[i + 1]);
}

template <typename T>
void convolve(kind which, const convolution &c, void *x, void *w, void *y,
              T alpha, T beta, bool backwards, bool transforms) {
  const bool tf32 = c.x.type == CUDNN_DATA_FLOAT && c.how.math != CUDNN_FMA_MATH;
  const side *const sides[] = {&c.x, &c.w, &c.y};
  void *const data[] = {x, w, y};
  const int made = which == FORWARD ? 2 : which == DATA ? 0 : 1;
  std::vector<T> all[3];
  for (int i = 0; i < 3; i++)
    all[i] = i == made ? std::vector<T>((size_t)count_of(*sides[i]))
                       : packed<T>(*sides[i], data[i], tf32);
  for (int i = 0; i < 3 && tf32 && transforms; i++)
    if (i != made) transform(all[i]);
  T *const px = all[0].data(), *const pw = all[1].data(),
    *const py = all[2].data();
  if (which == FORWARD)
    each_term(c, backwards, [=](int64_t i, int64_t j, int64_t k) {
      py[k] += px[i] * pw[j];
    });
  else if (which == DATA)
    each_term(c, backwards, [=](int64_t i, int64_t j, int64_t k) {
      px[i] += pw[j] * py[k];
    });
  else
    each_term(c, backwards, [=](int64_t i, int64_t j, int64_t k) {
      pw[j] += px[i] * py[k];
    });
  unpack(*sides[made], data[made], all[made], alpha, beta);
}

cudnnStatus_t run(kind which, cudnnHandle_t handle, const convolution &c,
                  int algorithm, const void *alpha, const void *beta,
                  const void *x, const void *w, const void *y, void *workspace,
                  size_t bytes) {
  if (!handle || !alpha || !beta || !x || !w || !y)
    return CUDNN_STATUS_BAD_PARAM;
  if (lost() != cudaSuccess) return CUDNN_STATUS_EXECUTION_FAILED;
  const cudnnStatus_t status = check(c);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  const offered *offer = offer_of(which, algorithm, c);
  if (!offer) return CUDNN_STATUS_NOT_SUPPORTED;
  const size_t needed = workspace_of(which, algorithm, c);
  if (bytes < needed || (needed && !workspace)) return CUDNN_STATUS_BAD_PARAM;
  static unsigned calls = 0;
  const bool backwards = offer->determinism == CUDNN_NON_DETERMINISTIC &&
                         calls++ % 2;
  const bool transforms = algorithm == offers[which][0].algorithm;
  const bool wide = c.how.compute == CUDNN_DATA_DOUBLE;
  const double by = wide ? *static_cast<const double *>(alpha)
                         : *static_cast<const float *>(alpha);
  const double plus = wide ? *static_cast<const double *>(beta)
                           : *static_cast<const float *>(beta);
  static const char *const names[] = {"cudnnConvolutionForward",
                                      "cudnnConvolutionBackwardData",
                                      "cudnnConvolutionBackwardFilter"};
  const cudaError_t error =
      enqueue_library(handle->stream, names[which], [=] {
        if (needed) memset(workspace, 0xa5, needed);
        void *const px = const_cast<void *>(x), *const pw = const_cast<void *>(w),
                    *const py = const_cast<void *>(y);
        if (wide)
          convolve<double>(which, c, px, pw, py, by, plus, backwards,
                           transforms);
        else
          convolve<float>(which, c, px, pw, py, (float)by, (float)plus,
                          backwards, transforms);
      });
  return error == cudaSuccess ? CUDNN_STATUS_SUCCESS
                              : CUDNN_STATUS_EXECUTION_FAILED;
}

convolution of(cudnnTensorDescriptor_t x, cudnnFilterDescriptor_t w,
               cudnnConvolutionDescriptor_t how, cudnnTensorDescriptor_t y) {
  return convolution{side_of(x), side_of(w), side_of(y), *how};
}

template <typename P, typename A>
cudnnStatus_t propose(kind which, const convolution &c, int requested,
                      int *returned, P *results) {
  if (requested < 1 || !returned || !results) return CUDNN_STATUS_BAD_PARAM;
  *returned = 0;
  const cudnnStatus_t status = check(c);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  for (const offered &offer : offers[which]) {
    if (!takes(which, offer.algorithm, c) || *returned == requested) continue;
    P &result = results[(*returned)++];
    memset(&result, 0, sizeof result);
    result.algo = (A)offer.algorithm;
    result.status = CUDNN_STATUS_SUCCESS;
    result.time = -1;
    result.memory = workspace_of(which, offer.algorithm, c);
    result.determinism = offer.determinism;
    result.mathType = c.x.type == CUDNN_DATA_BFLOAT16 ? CUDNN_TENSOR_OP_MATH
                      : c.x.type == CUDNN_DATA_DOUBLE ? CUDNN_DEFAULT_MATH
                                                      : c.how.math;
  }
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t measure(kind which, const convolution &c, int algorithm,
                      size_t *bytes) {
  const cudnnStatus_t status = check(c);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  if (!offer_of(which, algorithm, c)) return CUDNN_STATUS_NOT_SUPPORTED;
  *bytes = workspace_of(which, algorithm, c);
  return CUDNN_STATUS_SUCCESS;
}

template <typename T> cudnnStatus_t create(T **made) {
  if (!made) return CUDNN_STATUS_BAD_PARAM;
  *made = new T();
  return CUDNN_STATUS_SUCCESS;
}

bool is_positive(const int *dims, int n) {
  for (int d = 0; d < n; d++)
    if (dims[d] < 1) return false;
  return true;
}
template <typename T>
void set_packed(T *d, cudnnTensorFormat_t format, cudnnDataType_t type,
                const int *dims) {
  d->type = type;
  for (int i = 0; i < 4; i++) d->dims[i] = dims[i];
  static const int orders[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
  const int *order = orders[format == CUDNN_TENSOR_NHWC];
  int64_t stride = 1;
  for (int i = 3; i >= 0; i--) {
    d->strides[order[i]] = stride;
    stride *= dims[order[i]];
  }
}

} // namespace

extern "C" {

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion(void) { return CUDART_VERSION; }
const char *cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
  case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
  case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
  case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
  case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
  case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
  default: return "CUDNN_STATUS_INTERNAL_ERROR";
  }
}
void cudnnGetLastErrorString(char *message, size_t most) {
  if (most) *message = 0;
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  if (lost() != cudaSuccess) return CUDNN_STATUS_NOT_INITIALIZED;
  if (!take_bytes(DNN_BYTES)) return CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  return create(handle);
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  if (handle) give_bytes(DNN_BYTES);
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  if (!handle) return CUDNN_STATUS_BAD_PARAM;
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream) {
  *stream = handle->stream;
  return CUDNN_STATUS_SUCCESS;
}

/* ---- descriptions ------------------------------------------------------- */

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *made) {
  return create(made);
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) {
  delete d;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t d,
                                         cudnnTensorFormat_t format,
                                         cudnnDataType_t type, int n, int c,
                                         int h, int w) {
  const int dims[] = {n, c, h, w};
  if (!d || !is_positive(dims, 4)) return CUDNN_STATUS_BAD_PARAM;
  if (format == CUDNN_TENSOR_NCHW_VECT_C) return CUDNN_STATUS_NOT_SUPPORTED;
  set_packed(d, format, type, dims);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptorEx(cudnnTensorDescriptor_t d,
                                           cudnnDataType_t type, int n, int c,
                                           int h, int w, int n_stride,
                                           int c_stride, int h_stride,
                                           int w_stride) {
  const int dims[] = {n, c, h, w};
  const int strides[] = {n_stride, c_stride, h_stride, w_stride};
  return cudnnSetTensorNdDescriptor(d, type, 4, dims, strides);
}
cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t d,
                                         cudnnDataType_t type, int n,
                                         const int dims[], const int strides[]) {
  if (!d || n < 1 || !is_positive(dims, n) || !is_positive(strides, n))
    return CUDNN_STATUS_BAD_PARAM;
  if (n != 4) return CUDNN_STATUS_NOT_SUPPORTED;
  d->type = type;
  for (int i = 0; i < 4; i++) {
    d->dims[i] = dims[i];
    d->strides[i] = strides[i];
  }
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *made) {
  return create(made);
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) {
  delete d;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t d,
                                         cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int k,
                                         int c, int h, int w) {
  const int dims[] = {k, c, h, w};
  return cudnnSetFilterNdDescriptor(d, type, format, 4, dims);
}
cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t d,
                                         cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int n,
                                         const int dims[]) {
  if (!d || n < 1 || !is_positive(dims, n)) return CUDNN_STATUS_BAD_PARAM;
  if (n != 4 || format == CUDNN_TENSOR_NCHW_VECT_C)
    return CUDNN_STATUS_NOT_SUPPORTED;
  set_packed(d, format, type, dims);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t
cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *made) {
  const cudnnStatus_t status = create(made);
  if (status == CUDNN_STATUS_SUCCESS) (*made)->groups = 1;
  return status;
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t d) {
  delete d;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolution2dDescriptor(
    cudnnConvolutionDescriptor_t d, int pad_h, int pad_w, int stride_h,
    int stride_w, int dilation_h, int dilation_w, cudnnConvolutionMode_t mode,
    cudnnDataType_t compute) {
  if (!d || pad_h < 0 || pad_w < 0 || stride_h < 1 || stride_w < 1 ||
      dilation_h < 1 || dilation_w < 1)
    return CUDNN_STATUS_BAD_PARAM;
  const int64_t groups = d->groups;
  *d = cudnnConvolutionStruct{{pad_h, pad_w}, {stride_h, stride_w},
                              {dilation_h, dilation_w}, groups, mode, compute,
                              CUDNN_DEFAULT_MATH};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionNdDescriptor(
    cudnnConvolutionDescriptor_t d, int n, const int pad[], const int stride[],
    const int dilation[], cudnnConvolutionMode_t mode,
    cudnnDataType_t compute) {
  if (n != 2) return CUDNN_STATUS_NOT_SUPPORTED;
  return cudnnSetConvolution2dDescriptor(d, pad[0], pad[1], stride[0],
                                         stride[1], dilation[0], dilation[1],
                                         mode, compute);
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t d,
                                            int groups) {
  if (!d || groups < 1) return CUDNN_STATUS_BAD_PARAM;
  d->groups = groups;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t d,
                                          cudnnMathType_t math) {
  if (!d) return CUDNN_STATUS_BAD_PARAM;
  d->math = math;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolution2dForwardOutputDim(
    const cudnnConvolutionDescriptor_t how, const cudnnTensorDescriptor_t x,
    const cudnnFilterDescriptor_t w, int *n, int *c, int *h, int *v) {
  if (!how || !x || !w) return CUDNN_STATUS_BAD_PARAM;
  const convolution all = of(x, w, how, x);
  *n = (int)x->dims[0];
  *c = (int)w->dims[0];
  *h = (int)out_size(all, 0);
  *v = (int)out_size(all, 1);
  return CUDNN_STATUS_SUCCESS;
}

/* ---- algorithms --------------------------------------------------------- */

cudnnStatus_t cudnnGetConvolutionForwardAlgorithmMaxCount(cudnnHandle_t,
                                                          int *count) {
  *count = OFFERS;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithmMaxCount(cudnnHandle_t,
                                                               int *count) {
  *count = OFFERS;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(cudnnHandle_t,
                                                                 int *count) {
  *count = OFFERS;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
    const cudnnFilterDescriptor_t w, const cudnnConvolutionDescriptor_t how,
    const cudnnTensorDescriptor_t y, const int requested, int *returned,
    cudnnConvolutionFwdAlgoPerf_t *results) {
  if (!handle || !x || !w || !how || !y) return CUDNN_STATUS_BAD_PARAM;
  return propose<cudnnConvolutionFwdAlgoPerf_t, cudnnConvolutionFwdAlgo_t>(
      FORWARD, of(x, w, how, y), requested, returned, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(
    cudnnHandle_t handle, const cudnnFilterDescriptor_t w,
    const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t how,
    const cudnnTensorDescriptor_t dx, const int requested, int *returned,
    cudnnConvolutionBwdDataAlgoPerf_t *results) {
  if (!handle || !dx || !w || !how || !dy) return CUDNN_STATUS_BAD_PARAM;
  return propose<cudnnConvolutionBwdDataAlgoPerf_t,
                 cudnnConvolutionBwdDataAlgo_t>(
      DATA, of(dx, w, how, dy), requested, returned, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t handle, const cudnnTensorDescriptor_t x,
    const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t how,
    const cudnnFilterDescriptor_t dw, const int requested, int *returned,
    cudnnConvolutionBwdFilterAlgoPerf_t *results) {
  if (!handle || !x || !dw || !how || !dy) return CUDNN_STATUS_BAD_PARAM;
  return propose<cudnnConvolutionBwdFilterAlgoPerf_t,
                 cudnnConvolutionBwdFilterAlgo_t>(
      FILTER, of(x, dw, how, dy), requested, returned, results);
}
cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(
    cudnnHandle_t, const cudnnTensorDescriptor_t x,
    const cudnnFilterDescriptor_t w, const cudnnConvolutionDescriptor_t how,
    const cudnnTensorDescriptor_t y, cudnnConvolutionFwdAlgo_t algorithm,
    size_t *bytes) {
  return measure(FORWARD, of(x, w, how, y), algorithm, bytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(
    cudnnHandle_t, const cudnnFilterDescriptor_t w,
    const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t how,
    const cudnnTensorDescriptor_t dx, cudnnConvolutionBwdDataAlgo_t algorithm,
    size_t *bytes) {
  return measure(DATA, of(dx, w, how, dy), algorithm, bytes);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(
    cudnnHandle_t, const cudnnTensorDescriptor_t x,
    const cudnnTensorDescriptor_t dy, const cudnnConvolutionDescriptor_t how,
    const cudnnFilterDescriptor_t dw, cudnnConvolutionBwdFilterAlgo_t algorithm,
    size_t *bytes) {
  return measure(FILTER, of(x, dw, how, dy), algorithm, bytes);
}

cudnnStatus_t cudnnConvolutionForward(
    cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t x,
    const void *x_data, const cudnnFilterDescriptor_t w, const void *w_data,
    const cudnnConvolutionDescriptor_t how,
    cudnnConvolutionFwdAlgo_t algorithm, void *workspace, size_t bytes,
    const void *beta, const cudnnTensorDescriptor_t y, void *y_data) {
  if (!x || !w || !how || !y) return CUDNN_STATUS_BAD_PARAM;
  return run(FORWARD, handle, of(x, w, how, y), algorithm, alpha, beta, x_data,
             w_data, y_data, workspace, bytes);
}
cudnnStatus_t cudnnConvolutionBackwardData(
    cudnnHandle_t handle, const void *alpha, const cudnnFilterDescriptor_t w,
    const void *w_data, const cudnnTensorDescriptor_t dy, const void *dy_data,
    const cudnnConvolutionDescriptor_t how,
    cudnnConvolutionBwdDataAlgo_t algorithm, void *workspace, size_t bytes,
    const void *beta, const cudnnTensorDescriptor_t dx, void *dx_data) {
  if (!dx || !w || !how || !dy) return CUDNN_STATUS_BAD_PARAM;
  return run(DATA, handle, of(dx, w, how, dy), algorithm, alpha, beta, dx_data,
             w_data, dy_data, workspace, bytes);
}
cudnnStatus_t cudnnConvolutionBackwardFilter(
    cudnnHandle_t handle, const void *alpha, const cudnnTensorDescriptor_t x,
    const void *x_data, const cudnnTensorDescriptor_t dy, const void *dy_data,
    const cudnnConvolutionDescriptor_t how,
    cudnnConvolutionBwdFilterAlgo_t algorithm, void *workspace, size_t bytes,
    const void *beta, const cudnnFilterDescriptor_t dw, void *dw_data) {
  if (!x || !dw || !how || !dy) return CUDNN_STATUS_BAD_PARAM;
  return run(FILTER, handle, of(x, dw, how, dy), algorithm, alpha, beta, x_data,
             dw_data, dy_data, workspace, bytes);
}

} // extern "C"
