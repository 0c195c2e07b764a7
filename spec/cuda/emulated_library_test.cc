/* The emulated libraries keep to the real ones' conventions. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cudnn.h>

#include "emulated_test.h"
#include "totals.h"

#define BLAS_OK(call) CHECK((call) == CUBLAS_STATUS_SUCCESS)

namespace {

/* ---- products ----------------------------------------------------------- */

struct product {
  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t a, b, d;
  uint64_t workspace_most = 0;

  product(cublasComputeType_t compute, cudaDataType_t scale) {
    BLAS_OK(cublasLtCreate(&handle));
    BLAS_OK(cublasLtMatmulDescCreate(&op, compute, scale));
    a = b = d = nullptr;
  }
  ~product() {
    cublasLtMatrixLayoutDestroy(a);
    cublasLtMatrixLayoutDestroy(b);
    cublasLtMatrixLayoutDestroy(d);
    cublasLtMatmulDescDestroy(op);
    cublasLtDestroy(handle);
  }
  template <typename V> void set(cublasLtMatmulDescAttributes_t which, V value) {
    BLAS_OK(cublasLtMatmulDescSetAttribute(op, which, &value, sizeof value));
  }
  static void batches(cublasLtMatrixLayout_t l, int count, int64_t stride) {
    BLAS_OK(cublasLtMatrixLayoutSetAttribute(
        l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    BLAS_OK(cublasLtMatrixLayoutSetAttribute(
        l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
  }
  static void by_rows(cublasLtMatrixLayout_t l) {
    const int32_t order = CUBLASLT_ORDER_ROW;
    BLAS_OK(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ORDER,
                                             &order, sizeof order));
  }
  cublasStatus_t ask(cublasLtMatmulHeuristicResult_t *result, int *found) {
    cublasLtMatmulPreference_t preference;
    BLAS_OK(cublasLtMatmulPreferenceCreate(&preference));
    BLAS_OK(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_most,
        sizeof workspace_most));
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, op, a, b, d, d, preference, 1, result, found);
    BLAS_OK(cublasLtMatmulPreferenceDestroy(preference));
    return status;
  }
  template <typename S>
  cublasStatus_t run(S alpha, const void *A, const void *B, S beta, void *D,
                     const cublasLtMatmulAlgo_t *algo = nullptr,
                     void *workspace = nullptr, size_t bytes = 0,
                     cudaStream_t stream = nullptr) {
    return cublasLtMatmul(handle, op, &alpha, A, a, B, b, &beta, D, d, D, d,
                          algo, workspace, bytes, stream);
  }
};

cublasLtMatrixLayout_t layout(cudaDataType type, uint64_t rows, uint64_t cols,
                              int64_t ld) {
  cublasLtMatrixLayout_t made;
  BLAS_OK(cublasLtMatrixLayoutCreate(&made, type, rows, cols, ld));
  return made;
}

/* (1 2 3; 4 5 6) x (1 0; 2 1; 0 3) = (5 11; 14 23), worked out by hand. */
void a_product_by_hand() {
  const std::vector<float> expected = {5, 14, 11, 23}; /* by columns */
  {
    product p(CUBLAS_COMPUTE_32F, CUDA_R_32F);
    on_device<float> a({1, 4, 2, 5, 3, 6}), b({1, 2, 0, 0, 1, 3}), d({0, 0, 0, 0});
    p.a = layout(CUDA_R_32F, 2, 3, 2);
    p.b = layout(CUDA_R_32F, 3, 2, 3);
    p.d = layout(CUDA_R_32F, 2, 2, 2);
    BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
    CHECK(d.host() == expected);
    BLAS_OK(p.run(2.0f, a.data, b.data, 1.0f, d.data));
    CHECK(d.host() == std::vector<float>({15, 42, 33, 69}));
  }
  { /* transposed, with padding between the columns */
    product p(CUBLAS_COMPUTE_32F, CUDA_R_32F);
    on_device<float> a({1, 2, 3, -9, 4, 5, 6, -9}), b({1, 0, -9, 2, 1, -9, 0, 3, -9}),
        d({0, 0, 0, 0});
    p.a = layout(CUDA_R_32F, 3, 2, 4);
    p.b = layout(CUDA_R_32F, 2, 3, 3);
    p.d = layout(CUDA_R_32F, 2, 2, 2);
    p.set(CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)CUBLAS_OP_T);
    p.set(CUBLASLT_MATMUL_DESC_TRANSB, (int32_t)CUBLAS_OP_T);
    BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
    CHECK(d.host() == expected);
  }
  { /* by rows, f64 */
    product p(CUBLAS_COMPUTE_64F, CUDA_R_64F);
    on_device<double> a({1, 2, 3, 4, 5, 6}), b({1, 0, 2, 1, 0, 3}),
        d({0, 0, 0, 0});
    p.a = layout(CUDA_R_64F, 2, 3, 3);
    p.b = layout(CUDA_R_64F, 3, 2, 2);
    p.d = layout(CUDA_R_64F, 2, 2, 2);
    product::by_rows(p.a);
    product::by_rows(p.b);
    product::by_rows(p.d);
    BLAS_OK(p.run(1.0, a.data, b.data, 0.0, d.data));
    CHECK(d.host() == std::vector<double>({5, 11, 14, 23}));
  }
}

void epilogues_in_their_order() {
  /* One sum of one product each: D(i,j) = a(i) b(j), a = (1, -2), b = (3, 1, 2). */
  product p(CUBLAS_COMPUTE_32F, CUDA_R_32F);
  on_device<float> a({1, -2}), b({3, 1, 2}), bias({10, 20}),
      d(std::vector<float>(6)), aux(std::vector<float>(24, -7));
  p.a = layout(CUDA_R_32F, 2, 1, 2);
  p.b = layout(CUDA_R_32F, 1, 3, 1);
  p.d = layout(CUDA_R_32F, 2, 3, 2);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)CUBLASLT_EPILOGUE_BIAS);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_INVALID_VALUE); /* no bias */
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, (void *)bias.data);
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
  CHECK(d.host() == std::vector<float>({13, 14, 11, 18, 12, 16}));
  /* GELU of what the bias was added to, which aux keeps. */
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE,
        (uint32_t)CUBLASLT_EPILOGUE_GELU_AUX_BIAS);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (void *)aux.data);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, (int64_t)4);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_INVALID_VALUE); /* ld of 8s */
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, (int64_t)8);
  BLAS_OK(p.run(0.1f, a.data, b.data, 0.0f, d.data));
  const std::vector<float> kept = aux.host(), y = d.host();
  CHECK(std::fabs(kept[0] - 10.3f) < 1e-5f && kept[2] == -7);
  CHECK(std::fabs(kept[8 + 1] - 19.8f) < 1e-5f);
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 3; j++) {
      const double x = kept[i + 8 * j];
      const double g =
          0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
      CHECK(std::fabs(y[i + 2 * j] - g) < 1e-5);
    }
  /* Its gradient, and the sums over columns that are the bias's. */
  const std::vector<float> at = {0.5f, -1.0f, 0, 0, 0, 0, 0, 0, 1.5f, 2, 0, 0,
                                 0, 0, 0, 0, -0.25f, 0};
  on_device<float> before(at), dbias({0, 0});
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)CUBLASLT_EPILOGUE_DGELU_BGRAD);
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (void *)before.data);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, (void *)dbias.data);
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
  const std::vector<float> dx = d.host(), db = dbias.host();
  const double as[] = {1, -2}, bs[] = {3, 1, 2};
  for (int i = 0; i < 2; i++) {
    double sum = 0;
    for (int j = 0; j < 3; j++) {
      const auto g = [](double x) {
        return 0.5 * x *
               (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
      };
      const double x = at[i + 8 * j], h = 1e-5;
      const double slope = (g(x + h) - g(x - h)) / (2 * h);
      CHECK(std::fabs(dx[i + 2 * j] - as[i] * bs[j] * slope) < 1e-5);
      sum += as[i] * bs[j] * slope;
    }
    CHECK(std::fabs(db[i] - sum) < 1e-5);
  }
  /* Sums of an operand over k. */
  on_device<float> sums({0, 0, 0});
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)CUBLASLT_EPILOGUE_BGRADB);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, (void *)sums.data);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_INVALID_VALUE); /* an aux that it does not read */
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (void *)nullptr);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_NOT_SUPPORTED); /* B as it is */
  p.b = layout(CUDA_R_32F, 3, 1, 3);
  p.set(CUBLASLT_MATMUL_DESC_TRANSB, (int32_t)CUBLAS_OP_T);
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
  CHECK(sums.host() == std::vector<float>({3, 1, 2}));
  /* GELU alone takes neither; an algorithm is one epilogue's. */
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)CUBLASLT_EPILOGUE_GELU);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_INVALID_VALUE);
  p.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, (void *)nullptr);
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
  CHECK(std::fabs(d.host()[0] - 2.9963627f) < 1e-5f);
  cublasLtMatmulHeuristicResult_t result;
  int found;
  BLAS_OK(p.ask(&result, &found));
  p.set(CUBLASLT_MATMUL_DESC_EPILOGUE, (uint32_t)CUBLASLT_EPILOGUE_DEFAULT);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data, &result.algo) ==
        CUBLAS_STATUS_NOT_SUPPORTED);
}

void batches_bf16_and_broadcasts() {
  product p(CUBLAS_COMPUTE_32F, CUDA_R_32F);
  std::vector<__nv_bfloat16> as, bs;
  for (float each : {1, 4, 2, 5, 3, 6}) as.push_back(__float2bfloat16(each));
  for (float each : {1, 2, 0, 0, 1, 3, 2, 4, 0, 0, 2, 6})
    bs.push_back(__float2bfloat16(each));
  on_device<__nv_bfloat16> a(as), b(bs), d(std::vector<__nv_bfloat16>(8));
  p.a = layout(CUDA_R_16BF, 2, 3, 2);
  p.b = layout(CUDA_R_16BF, 3, 2, 3);
  p.d = layout(CUDA_R_16BF, 2, 2, 2);
  product::batches(p.a, 2, 0); /* one A for all */
  product::batches(p.b, 2, 6);
  product::batches(p.d, 2, 4);
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data));
  const float expected[] = {5, 14, 11, 23, 10, 28, 22, 46};
  const std::vector<__nv_bfloat16> got = d.host();
  for (int i = 0; i < 8; i++) CHECK(__bfloat162float(got[i]) == expected[i]);
  product::batches(p.d, 2, 2);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_INVALID_VALUE); /* results in one another */
  product::batches(p.d, 1, 4);
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data) ==
        CUBLAS_STATUS_INVALID_VALUE);
}

void algorithms_and_what_they_ask_for() {
  const int m = 8, n = 4, k = 64;
  product p(CUBLAS_COMPUTE_32F, CUDA_R_32F);
  on_device<float> a(std::vector<float>(m * k, 1)),
      b(std::vector<float>(k * n, 1)), d(std::vector<float>(m * n + 4));
  p.a = layout(CUDA_R_32F, m, k, m);
  p.b = layout(CUDA_R_32F, k, n, k);
  p.d = layout(CUDA_R_32F, m, n, m);
  cublasLtMatmulHeuristicResult_t result;
  int found;
  BLAS_OK(p.ask(&result, &found));
  CHECK(found == 1 && result.workspaceSize == 0);
  p.workspace_most = 1 << 20;
  BLAS_OK(p.ask(&result, &found));
  CHECK(found == 1 && result.workspaceSize > 0);
  on_device<char> workspace(std::vector<char>(result.workspaceSize, 1));
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data, &result.algo, workspace.data,
              result.workspaceSize - 1) == CUBLAS_STATUS_INVALID_VALUE);
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data, &result.algo,
                workspace.data, result.workspaceSize));
  CHECK(d.host()[0] == 64);
  CHECK(workspace.host()[0] != 1); /* it is scratch */
  CHECK(p.run(1.0f, a.data, b.data, 0.0f, d.data + 1, &result.algo,
              workspace.data, result.workspaceSize) ==
        CUBLAS_STATUS_NOT_SUPPORTED); /* aligned to 4 bytes */
  BLAS_OK(p.run(1.0f, a.data, b.data, 0.0f, d.data + 1));

  product wrong(CUBLAS_COMPUTE_32F, CUDA_R_32F);
  wrong.a = layout(CUDA_R_32F, m, k, m - 1);
  wrong.b = layout(CUDA_R_32F, k, n, k);
  wrong.d = layout(CUDA_R_32F, m, n, m);
  CHECK(wrong.ask(&result, &found) == CUBLAS_STATUS_INVALID_VALUE);
  product mixed(CUBLAS_COMPUTE_32F, CUDA_R_32F);
  mixed.a = layout(CUDA_R_32F, m, k, m);
  mixed.b = layout(CUDA_R_16BF, k, n, k);
  mixed.d = layout(CUDA_R_32F, m, n, m);
  CHECK(mixed.ask(&result, &found) == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(found == 0);
}

void products_are_captured() {
  product p(CUBLAS_COMPUTE_32F, CUDA_R_32F);
  on_device<float> a({2}), b({3}), d({0});
  p.a = layout(CUDA_R_32F, 1, 1, 1);
  p.b = layout(CUDA_R_32F, 1, 1, 1);
  p.d = layout(CUDA_R_32F, 1, 1, 1);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  BLAS_OK(p.run(1.0f, a.data, b.data, 1.0f, d.data, nullptr, nullptr, 0,
                stream));
  OK(cudaStreamEndCapture(stream, &graph));
  OK(cudaGraphInstantiate(&replay, graph, 0));
  CHECK(d.host()[0] == 0);
  OK(cudaGraphLaunch(replay, stream));
  OK(cudaGraphLaunch(replay, stream));
  CHECK(d.host()[0] == 12);
  OK(cudaGraphExecDestroy(replay));
  OK(cudaGraphDestroy(graph));
  OK(cudaStreamDestroy(stream));
}

/* ---- convolutions ------------------------------------------------------- */

#define DNN_OK(call) CHECK((call) == CUDNN_STATUS_SUCCESS)

struct images {
  cudnnHandle_t handle;
  cudnnTensorDescriptor_t x, y;
  cudnnFilterDescriptor_t w;
  cudnnConvolutionDescriptor_t how;
  explicit images(int groups) {
    DNN_OK(cudnnCreate(&handle));
    DNN_OK(cudnnCreateTensorDescriptor(&x));
    DNN_OK(cudnnCreateTensorDescriptor(&y));
    DNN_OK(cudnnCreateFilterDescriptor(&w));
    DNN_OK(cudnnCreateConvolutionDescriptor(&how));
    DNN_OK(cudnnSetConvolutionGroupCount(how, groups));
  }
  ~images() {
    cudnnDestroyConvolutionDescriptor(how);
    cudnnDestroyFilterDescriptor(w);
    cudnnDestroyTensorDescriptor(y);
    cudnnDestroyTensorDescriptor(x);
    cudnnDestroy(handle);
  }
};

/* (1 2 3; 4 5 6; 7 8 9) with (1 2; 3 4), by hand; its mirror image where it is
   a convolution in the mathematician's sense. */
void a_convolution_by_hand() {
  images c(1);
  DNN_OK(cudnnSetTensor4dDescriptor(c.x, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT,
                                    1, 1, 3, 3));
  DNN_OK(cudnnSetTensor4dDescriptor(c.y, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT,
                                    1, 1, 2, 2));
  DNN_OK(cudnnSetFilter4dDescriptor(c.w, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW,
                                    1, 1, 2, 2));
  on_device<float> x({1, 2, 3, 4, 5, 6, 7, 8, 9}), w({1, 2, 3, 4}),
      y({0, 0, 0, 0});
  const float one = 1, zero = 0;
  for (const auto mode : {CUDNN_CROSS_CORRELATION, CUDNN_CONVOLUTION}) {
    DNN_OK(cudnnSetConvolution2dDescriptor(c.how, 0, 0, 1, 1, 1, 1, mode,
                                           CUDNN_DATA_FLOAT));
    DNN_OK(cudnnConvolutionForward(
        c.handle, &one, c.x, x.data, c.w, w.data, c.how,
        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, nullptr, 0, &zero, c.y,
        y.data));
    CHECK(y.host() == (mode == CUDNN_CROSS_CORRELATION
                           ? std::vector<float>({37, 47, 67, 77})
                           : std::vector<float>({23, 33, 53, 63})));
  }
  DNN_OK(cudnnSetConvolution2dDescriptor(c.how, 1, 0, 1, 1, 1, 1,
                                         CUDNN_CROSS_CORRELATION,
                                         CUDNN_DATA_FLOAT));
  CHECK(cudnnConvolutionForward(
            c.handle, &one, c.x, x.data, c.w, w.data, c.how,
            CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, nullptr, 0, &zero, c.y,
            y.data) == CUDNN_STATUS_BAD_PARAM);
}

/* Both gradients are the adjoints of the convolution: <y(x, w), dy> is
   <x, dx(dy, w)> and <w, dw(x, dy)>, whatever stride, padding, dilation and
   groups. */
void gradients_are_adjoints() {
  images c(2);
  const int n = 2, in = 4, out = 6, h = 7, v = 6;
  DNN_OK(cudnnSetTensor4dDescriptor(c.x, CUDNN_TENSOR_NCHW, CUDNN_DATA_DOUBLE,
                                    n, in, h, v));
  DNN_OK(cudnnSetFilter4dDescriptor(c.w, CUDNN_DATA_DOUBLE, CUDNN_TENSOR_NCHW,
                                    out, in / 2, 3, 2));
  DNN_OK(cudnnSetConvolution2dDescriptor(c.how, 2, 1, 2, 1, 1, 2,
                                         CUDNN_CROSS_CORRELATION,
                                         CUDNN_DATA_DOUBLE));
  int y_n, y_c, y_h, y_w;
  DNN_OK(cudnnGetConvolution2dForwardOutputDim(c.how, c.x, c.w, &y_n, &y_c,
                                               &y_h, &y_w));
  CHECK(y_n == n && y_c == out && y_h == 5 && y_w == 6);
  DNN_OK(cudnnSetTensor4dDescriptor(c.y, CUDNN_TENSOR_NCHW, CUDNN_DATA_DOUBLE,
                                    n, out, y_h, y_w));
  const auto values = [](size_t count, unsigned seed) {
    std::vector<double> all(count);
    for (double &each : all) {
      seed = seed * 1664525u + 1013904223u;
      each = (double)(seed >> 8) / (1 << 23) - 1;
    }
    return all;
  };
  const auto dot = [](const std::vector<double> &a, const std::vector<double> &b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
    return sum;
  };
  on_device<double> x(values(n * in * h * v, 1)), w(values(out * 2 * 6, 2)),
      dy(values(n * out * y_h * y_w, 3)), y(dy.host()), dx(x.host()),
      dw(w.host());
  const double one = 1, zero = 0;
  int found;
  cudnnConvolutionBwdFilterAlgoPerf_t proposals[4];
  DNN_OK(cudnnGetConvolutionBackwardFilterAlgorithm_v7(
      c.handle, c.x, c.y, c.how, c.w, 4, &found, proposals));
  CHECK(found == 2);
  size_t bytes;
  DNN_OK(cudnnGetConvolutionBackwardFilterWorkspaceSize(
      c.handle, c.x, c.y, c.how, c.w, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
      &bytes));
  on_device<char> workspace(std::vector<char>(bytes + 1024));
  DNN_OK(cudnnConvolutionForward(
      c.handle, &one, c.x, x.data, c.w, w.data, c.how,
      CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, nullptr, 0, &zero, c.y,
      y.data));
  CHECK(cudnnConvolutionBackwardFilter(
            c.handle, &one, c.x, x.data, c.y, dy.data, c.how,
            CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, workspace.data, bytes - 1,
            &zero, c.w, dw.data) == CUDNN_STATUS_BAD_PARAM);
  DNN_OK(cudnnConvolutionBackwardFilter(
      c.handle, &one, c.x, x.data, c.y, dy.data, c.how,
      CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, workspace.data, bytes, &zero, c.w,
      dw.data));
  DNN_OK(cudnnGetConvolutionBackwardDataWorkspaceSize(
      c.handle, c.w, c.y, c.how, c.x, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
      &bytes));
  CHECK(bytes <= workspace.count);
  DNN_OK(cudnnConvolutionBackwardData(
      c.handle, &one, c.w, w.data, c.y, dy.data, c.how,
      CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, workspace.data, bytes, &zero, c.x,
      dx.data));
  const double by_y = dot(y.host(), dy.host());
  double total = 0; /* rounding is of the terms' size, not of their sum's */
  for (double each : y.host()) total += std::fabs(each);
  CHECK(std::fabs(by_y) > 1);
  CHECK(std::fabs(by_y - dot(x.host(), dx.host())) < 1e-12 * total);
  CHECK(std::fabs(by_y - dot(w.host(), dw.host())) < 1e-12 * total);
}

} // namespace

int main() {
  void (*const tests[])() = {
      a_product_by_hand,
      epilogues_in_their_order,
      batches_bf16_and_broadcasts,
      algorithms_and_what_they_ask_for,
      products_are_captured,
      a_convolution_by_hand,
      gradients_are_adjoints};
  int passed = 0;
  for (const auto test : tests) test(), passed++;
  say_totals(passed, 0);
  return 0;
}
