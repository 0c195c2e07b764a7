/* cuDNN's classic convolutions. Its _v7 heuristics model what an algorithm
   would take and run nothing, so a plan depends on shapes and on the device's
   kind alone. */
#include "conv.h"

#include <climits>
#include <new>

#include "base/status.h"
#include "product.h"

namespace rp {

namespace {

/* A faster algorithm is not worth more scratch than this. */
constexpr size_t SCRATCH_BYTES = 64 << 20;

enum { X, W, Y, SIDES };

} // namespace

struct conv {
  conv_kind kind;
  bool is_f64;
  cudnnTensorDescriptor_t x, y;
  cudnnFilterDescriptor_t w;
  cudnnConvolutionDescriptor_t operation;
  int algorithm; /* of the kind's enum */
  size_t scratch_bytes;
};

bool conv_is_empty(const conv_shape &s) {
  return s.n == 0 || s.out == 0 || s.in == 0 || s.size[0] == 0 ||
         s.size[1] == 0 || s.count[0] == 0 || s.count[1] == 0;
}

namespace {

rp_status said(const rp_kernel_args *args, cudnnStatus_t status) {
  return rp_cudnn_ok(args->ctx, status, "a convolution");
}

/* ---- descriptors -------------------------------------------------------- */

cudnnDataType_t dnn_type(rp_dtype dtype) {
  return dtype == RP_F64    ? CUDNN_DATA_DOUBLE
         : dtype == RP_BF16 ? CUDNN_DATA_BFLOAT16
                            : CUDNN_DATA_FLOAT;
}

cudnnStatus_t describe_images(const conv_shape &s, int side,
                              cudnnTensorDescriptor_t *out) {
  const int64_t *size = side == X ? s.size : s.count;
  const cudnnStatus_t status = cudnnCreateTensorDescriptor(out);
  return status ? status
                : cudnnSetTensor4dDescriptor(
                      *out, CUDNN_TENSOR_NCHW, dnn_type(s.dtype), (int)s.n,
                      (int)(s.groups * (side == X ? s.in : s.out)),
                      (int)size[0], (int)size[1]);
}

cudnnStatus_t describe(const conv_shape &s, conv *c) {
  const rp_window &w = s.window;
  cudnnStatus_t status = describe_images(s, X, &c->x);
  if (!status) status = describe_images(s, Y, &c->y);
  if (!status) status = cudnnCreateFilterDescriptor(&c->w);
  if (!status)
    status = cudnnSetFilter4dDescriptor(
        c->w, dnn_type(s.dtype), CUDNN_TENSOR_NCHW, (int)(s.groups * s.out),
        (int)s.in, (int)w.kernel[0], (int)w.kernel[1]);
  if (!status) status = cudnnCreateConvolutionDescriptor(&c->operation);
  if (!status)
    status = cudnnSetConvolution2dDescriptor(
        c->operation, (int)w.pad[0], (int)w.pad[1], (int)w.stride[0],
        (int)w.stride[1], (int)w.dilation[0], (int)w.dilation[1],
        CUDNN_CROSS_CORRELATION,
        s.dtype == RP_F64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT);
  if (!status && s.groups > 1)
    status = cudnnSetConvolutionGroupCount(c->operation, (int)s.groups);
  return status;
}

/* cuDNN counts in int. */
rp_status check_counts(const rp_kernel_args *args, const conv_shape &s) {
  const rp_window &w = s.window;
  const int64_t elements[SIDES] = {
      s.n * s.groups * s.in * s.size[0] * s.size[1],
      s.groups * s.out * s.in * w.kernel[0] * w.kernel[1],
      s.n * s.groups * s.out * s.count[0] * s.count[1]};
  int64_t most = 0;
  for (int64_t each : elements) most = each > most ? each : most;
  for (int d = 0; d < 2; d++) {
    const int64_t each[3] = {w.pad[d], w.stride[d], w.dilation[d]};
    for (int64_t value : each) most = value > most ? value : most;
  }
  return most <= INT_MAX ? RP_OK
                         : rp_fail(args->ctx, RP_UNSUPPORTED,
                                   "a convolution over %lld elements: at most "
                                   "%d on cuda; use a smaller batch",
                                   (long long)most, INT_MAX);
}

/* ---- algorithms --------------------------------------------------------- */

/* An algorithm that cuDNN's heuristic proposes; the three kinds say the same
   in types of their own. */
struct proposal {
  int algorithm;
  cudnnMathType_t math;
  bool sums_in_one_order;
};

enum { PROPOSALS = 16 };

template <typename P> int proposals_of(const P *perf, int n, proposal *out) {
  int found = 0;
  for (int i = 0; i < n; i++)
    if (perf[i].status == CUDNN_STATUS_SUCCESS)
      out[found++] = {(int)perf[i].algo, perf[i].mathType,
                      perf[i].determinism == CUDNN_DETERMINISTIC};
  return found;
}

/* Best first, by a model of their speed: nothing runs. */
cudnnStatus_t propose(const conv *c, cudnnHandle_t handle, proposal *out,
                      int *found) {
  int n = 0;
  cudnnStatus_t status;
  if (c->kind == CONV_FORWARD) {
    cudnnConvolutionFwdAlgoPerf_t perf[PROPOSALS];
    status = cudnnGetConvolutionForwardAlgorithm_v7(
        handle, c->x, c->w, c->operation, c->y, PROPOSALS, &n, perf);
    *found = status ? 0 : proposals_of(perf, n, out);
  } else if (c->kind == CONV_GRAD_INPUT) {
    cudnnConvolutionBwdDataAlgoPerf_t perf[PROPOSALS];
    status = cudnnGetConvolutionBackwardDataAlgorithm_v7(
        handle, c->w, c->y, c->operation, c->x, PROPOSALS, &n, perf);
    *found = status ? 0 : proposals_of(perf, n, out);
  } else {
    cudnnConvolutionBwdFilterAlgoPerf_t perf[PROPOSALS];
    status = cudnnGetConvolutionBackwardFilterAlgorithm_v7(
        handle, c->x, c->y, c->operation, c->w, PROPOSALS, &n, perf);
    *found = status ? 0 : proposals_of(perf, n, out);
  }
  return status == CUDNN_STATUS_NOT_SUPPORTED ? CUDNN_STATUS_SUCCESS : status;
}

/* Implicit products, in one order, for any shape and dtype: what is left
   where nothing better is proposed. */
int plain_algorithm(conv_kind kind) {
  if (kind == CONV_FORWARD) return CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
  return kind == CONV_GRAD_INPUT ? (int)CUDNN_CONVOLUTION_BWD_DATA_ALGO_1
                                 : (int)CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
}

cudnnStatus_t measure(const conv *c, cudnnHandle_t handle, int algorithm,
                      size_t *bytes) {
  if (c->kind == CONV_FORWARD)
    return cudnnGetConvolutionForwardWorkspaceSize(
        handle, c->x, c->w, c->operation, c->y,
        (cudnnConvolutionFwdAlgo_t)algorithm, bytes);
  if (c->kind == CONV_GRAD_INPUT)
    return cudnnGetConvolutionBackwardDataWorkspaceSize(
        handle, c->w, c->y, c->operation, c->x,
        (cudnnConvolutionBwdDataAlgo_t)algorithm, bytes);
  return cudnnGetConvolutionBackwardFilterWorkspaceSize(
      handle, c->x, c->y, c->operation, c->w,
      (cudnnConvolutionBwdFilterAlgo_t)algorithm, bytes);
}

/* What an algorithm may round factors to: by dtype and what it holds, never by
   the proposal. */
cudnnMathType_t math_of(const conv_shape &s) {
  if (s.dtype == RP_BF16) return CUDNN_TENSOR_OP_MATH;
  return s.dtype == RP_F32 && !s.holds_bf16 && !tf32_is_allowed()
             ? CUDNN_FMA_MATH
             : CUDNN_DEFAULT_MATH;
}

bool rounds_factors(const proposal &p) {
  return p.math == CUDNN_TENSOR_OP_MATH ||
         p.math == CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
}

/* Whether its factors are what they are asked to be. Those that hold bf16 are
   exact in TF32, but not sums of them (Winograd's and Fourier's transforms):
   the plain algorithm alone takes them as they are. Conversion is to f16, which
   has not f32's range. */
bool keeps_factors(const conv_shape &s, const proposal &p) {
  if (s.holds_bf16 && p.algorithm != plain_algorithm(s.kind)) return false;
  if (math_of(s) == CUDNN_FMA_MATH) return !rounds_factors(p);
  return s.dtype != RP_F32 || p.math != CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION;
}

/* The first proposal that fits, the plain algorithm if none does.
   CUDNN_STATUS_NOT_SUPPORTED: neither. */
cudnnStatus_t choose(conv *c, cudnnHandle_t handle, const conv_shape &s) {
  const cudnnMathType_t math = math_of(s);
  proposal proposals[PROPOSALS + 1];
  int n = 0;
  cudnnStatus_t status = cudnnSetConvolutionMathType(c->operation, math);
  if (!status) status = propose(c, handle, proposals, &n);
  if (status) return status;
  proposals[n++] = {plain_algorithm(c->kind), math, true};
  for (int i = 0; i < n; i++) {
    const proposal &p = proposals[i];
    const bool is_last = i == n - 1;
    if (!p.sums_in_one_order || !keeps_factors(s, p)) continue;
    /* Tensor cores are the algorithm's other half, where they may be used. */
    status = cudnnSetConvolutionMathType(
        c->operation, math == CUDNN_FMA_MATH ? math : p.math);
    if (status) return status;
    size_t bytes = 0;
    status = measure(c, handle, p.algorithm, &bytes);
    if (status == CUDNN_STATUS_NOT_SUPPORTED || (!is_last && status) ||
        (!is_last && bytes > SCRATCH_BYTES))
      continue;
    c->algorithm = p.algorithm;
    c->scratch_bytes = bytes;
    return status;
  }
  return CUDNN_STATUS_NOT_SUPPORTED;
}

} // namespace

rp_status conv_make(const rp_kernel_args *args, const conv_shape &shape,
                    conv **out, int64_t *workspace_bytes) {
  *out = nullptr;
  *workspace_bytes = 0;
  const rp_status counts = check_counts(args, shape);
  if (counts != RP_OK) return counts;
  conv *c = new (std::nothrow) conv();
  if (c == nullptr)
    return rp_fail(args->ctx, RP_NOMEM, "no memory for a convolution");
  c->kind = shape.kind;
  c->is_f64 = shape.dtype == RP_F64;
  cudnnStatus_t status = describe(shape, c);
  if (!status) status = choose(c, rp_cuda_of(args)->dnn, shape);
  if (status) {
    conv_free(c);
    return status != CUDNN_STATUS_NOT_SUPPORTED
               ? said(args, status)
               : rp_fail(args->ctx, RP_UNSUPPORTED,
                         "cuDNN has no algorithm for this convolution of %s "
                         "that sums in one order", rp_dtype_name(shape.dtype));
  }
  *out = c;
  *workspace_bytes = (int64_t)c->scratch_bytes;
  return RP_OK;
}

void conv_free(conv *c) {
  if (c == nullptr) return;
  if (c->x) cudnnDestroyTensorDescriptor(c->x);
  if (c->y) cudnnDestroyTensorDescriptor(c->y);
  if (c->w) cudnnDestroyFilterDescriptor(c->w);
  if (c->operation) cudnnDestroyConvolutionDescriptor(c->operation);
  delete c;
}

rp_status conv_run(const conv *c, const rp_kernel_args *args, void *x, void *w,
                   void *y, void *workspace, bool adds) {
  const cudnnHandle_t handle = rp_cuda_of(args)->dnn;
  const float one_f32 = 1, kept_f32 = adds ? 1 : 0;
  const double one_f64 = 1, kept_f64 = adds ? 1 : 0;
  const void *one = c->is_f64 ? (const void *)&one_f64 : &one_f32;
  const void *kept = c->is_f64 ? (const void *)&kept_f64 : &kept_f32;
  if (c->kind == CONV_FORWARD)
    return said(args, cudnnConvolutionForward(
        handle, one, c->x, x, c->w, w, c->operation,
        (cudnnConvolutionFwdAlgo_t)c->algorithm, workspace, c->scratch_bytes,
        kept, c->y, y));
  if (c->kind == CONV_GRAD_INPUT)
    return said(args, cudnnConvolutionBackwardData(
        handle, one, c->w, w, c->y, y, c->operation,
        (cudnnConvolutionBwdDataAlgo_t)c->algorithm, workspace,
        c->scratch_bytes, kept, c->x, x));
  return said(args, cudnnConvolutionBackwardFilter(
      handle, one, c->x, x, c->y, y, c->operation,
      (cudnnConvolutionBwdFilterAlgo_t)c->algorithm, workspace,
      c->scratch_bytes, kept, c->w, w));
}

} // namespace rp
