/* The emulated device does what a device does, and refuses what one refuses. */
#include <sys/wait.h>
#include <unistd.h>

#include <nvrtc.h>

#include "emulated_test.h"
#include "totals.h"

namespace {

/* ---- threads ------------------------------------------------------------ */

__global__ void number(int *out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread =
      threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread]++;
}

void every_thread_runs_once() {
  const dim3 grid(3, 2, 2), block(5, 4, 3);
  on_device<int> out(std::vector<int>(12 * 60, 0));
  in_every_order([&] {
    OK(launch("number", number, grid, block, 0, nullptr, out.data));
  });
  for (int each : out.host()) CHECK(each == 5);
}

/* Compilers keep vectors on the stack where they trust it to be aligned. */
struct alignas(16) four {
  float at[4];
};
__global__ void through_the_stack(const four *in, four *out, int shift) {
  const four x = in[threadIdx.x];
  four y;
  for (int k = 0; k < 4; k++) y.at[k] = x.at[(k + shift) % 4];
  CHECK(reinterpret_cast<uintptr_t>(&y) % 16 == 0);
  CHECK(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) % 16 == 0);
  __syncthreads();
  out[threadIdx.x] = y;
}

void stacks_are_aligned() {
  on_device<four> in(std::vector<four>(64, four{{1, 2, 3, 4}})),
      out(std::vector<four>(64));
  OK(launch("through_the_stack", through_the_stack, 1, 64, 0, nullptr,
            in.data, out.data, 1));
  for (const four &each : out.host())
    CHECK(each.at[0] == 2 && each.at[3] == 1);
}

__global__ void reverse_block(const int *in, int *out) {
  __shared__ int tile[256];
  tile[threadIdx.x] = in[blockIdx.x * 256 + threadIdx.x];
  __syncthreads();
  out[blockIdx.x * 256 + threadIdx.x] = tile[255 - threadIdx.x];
}

void barriers_separate() {
  std::vector<int> values(512);
  for (int i = 0; i < 512; i++) values[i] = i;
  on_device<int> in(values), out(values);
  in_every_order([&] {
    OK(cudaMemset(out.data, 0, 512 * sizeof(int)));
    OK(launch("reverse", reverse_block, 2, 256, 0, nullptr, in.data,
              out.data));
    const std::vector<int> got = out.host();
    for (int i = 0; i < 512; i++)
      CHECK(got[i] == i / 256 * 256 + 255 - i % 256);
  });
}

__global__ void sums(const float *in, float *out) {
  RP_DYNAMIC_SHARED(float, scratch);
  float x = in[threadIdx.x];
  for (int step = 16; step > 0; step /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, step);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  float all = 0;
  for (unsigned i = 0; i < blockDim.x / 32; i++) all += scratch[i];
  out[threadIdx.x] = all;
}

void shuffles_and_dynamic_shared_memory() {
  std::vector<float> values(128);
  for (int i = 0; i < 128; i++) values[i] = (float)i;
  on_device<float> in(values), out(values);
  in_every_order([&] {
    OK(launch("sums", sums, 1, 128, 4 * sizeof(float), nullptr, in.data,
              out.data));
    for (float each : out.host()) CHECK(each == 127 * 128 / 2);
  });
}

__global__ void warp_words(int *out) {
  const int lane = (int)threadIdx.x;
  out[lane] = __shfl_sync(0xffffffffu, lane, 5);
  out[32 + lane] = __shfl_up_sync(0xffffffffu, lane, 3);
  out[64 + lane] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
  out[96 + lane] = (int)__ballot_sync(0xffffffffu, lane % 2);
  out[128 + lane] = __any_sync(0xffffffffu, lane == 7);
  out[160 + lane] = __all_sync(0xffffffffu, lane != 7);
  out[192 + lane] = __shfl_xor_sync(0xffffffffu, lane, 9, 8);
  out[224 + lane] = __syncthreads_count(lane < 11);
  if (lane < 16)
    out[256 + lane] = __reduce_add_sync(0xffffu, lane);
  else
    out[256 + lane] = __reduce_max_sync(0xffff0000u, lane);
}

void warp_functions() {
  on_device<int> out(std::vector<int>(288));
  in_every_order([&] {
    OK(launch("words", warp_words, 1, 32, 0, nullptr, out.data));
    const std::vector<int> got = out.host();
    for (int lane = 0; lane < 32; lane++) {
      CHECK(got[lane] == 5);
      CHECK(got[32 + lane] == (lane < 3 ? lane : lane - 3));
      CHECK(got[64 + lane] == (lane % 16 + 3 < 16 ? lane + 3 : lane));
      CHECK(got[96 + lane] == (int)0xaaaaaaaau);
      CHECK(got[128 + lane] == 1);
      CHECK(got[160 + lane] == 0);
      /* lane ^ 9 lies in a later part of 8 for parts 0 and 2: one's own. */
      CHECK(got[192 + lane] == (lane % 16 < 8 ? lane : lane ^ 9));
      CHECK(got[224 + lane] == 11);
      CHECK(got[256 + lane] == (lane < 16 ? 120 : 31));
    }
  });
}

/* ---- faults ------------------------------------------------------------- */

/* Runs it, which loses the device, and finds the device again. */
template <typename F>
void expect_lost(cudaError_t error, const char *word, F launched) {
  const int err = dup(2);
  FILE *quiet = freopen("/dev/null", "w", stderr);
  CHECK(quiet);
  launched();
  const cudaError_t got = cudaDeviceSynchronize();
  fflush(stderr);
  dup2(err, 2);
  close(err);
  CHECK(got == error);
  CHECK(cudaGetLastError() == error);
  void *p;
  CHECK(cudaMalloc(&p, 16) == error);
  if (!strstr(rp_emulated_message(), word)) {
    fprintf(stderr, "no '%s' in '%s'\n", word, rp_emulated_message());
    exit(1);
  }
  rp_emulated_reset();
  OK(cudaGetLastError());
}

__global__ void some_return(int *out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void different_barriers(int *out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void half_a_shuffle(int *out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void beyond(int *out) { out[threadIdx.x + 64] = 1; }
__global__ void misaligned(float *out) {
  *reinterpret_cast<float4 *>(out + 1) = make_float4(0, 0, 0, 0);
}
__global__ void beyond_shared(int *out, int n) {
  __shared__ int tile[64];
  tile[threadIdx.x + n] = 1;
  out[threadIdx.x] = tile[threadIdx.x];
}

void faults_are_named() {
  on_device<int> out(std::vector<int>(64));
  in_every_order([&] {
    expect_lost(cudaErrorLaunchFailure, "some_return", [&] {
      launch("some_return", some_return, 1, 64, 0, nullptr, out.data);
    });
    expect_lost(cudaErrorLaunchFailure, "different barriers", [&] {
      launch("two", different_barriers, 1, 64, 0, nullptr, out.data);
    });
    expect_lost(cudaErrorLaunchFailure, "half_a_shuffle", [&] {
      launch("half_a_shuffle", half_a_shuffle, 1, 32, 0, nullptr, out.data);
    });
    expect_lost(cudaErrorIllegalAddress, "beyond", [&] {
      launch("beyond", beyond, 1, 64, 0, nullptr, out.data);
    });
    expect_lost(cudaErrorMisalignedAddress, "misaligned", [&] {
      launch("misaligned", misaligned, 1, 1, 0, nullptr, (float *)out.data);
    });
    expect_lost(cudaErrorMisalignedAddress, "index outside", [&] {
      launch("tile", beyond_shared, 1, 64, 0, nullptr, out.data, 1);
    });
  });
  /* And what comes after runs. */
  OK(launch("number", number, 1, 64, 0, nullptr, out.data));
  OK(cudaDeviceSynchronize());
}

void launches_fail_when_asked() {
  on_device<int> out(std::vector<int>(64));
  rp_emulated_fail_launch(2);
  expect_lost(cudaErrorLaunchFailure, "second", [&] {
    OK(launch("first", number, 1, 64, 0, nullptr, out.data));
    OK(launch("second", number, 1, 64, 0, nullptr, out.data));
    OK(launch("third", number, 1, 64, 0, nullptr, out.data));
  });
  for (int each : out.host()) CHECK(each == 1);
}

void host_may_not_touch_the_device() {
  on_device<int> out(std::vector<int>(64));
  OK(launch("number", number, 1, 64, 0, nullptr, out.data));
  const pid_t child = fork();
  if (child == 0) {
    volatile int *p = out.data;
    _exit(*p == 12345);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* ---- launches ----------------------------------------------------------- */

void launch_limits() {
  on_device<int> out(std::vector<int>(64));
  const auto refuses = [&](dim3 grid, dim3 block, size_t shared) {
    const cudaError_t error =
        launch("number", number, grid, block, shared, nullptr, out.data);
    CHECK(cudaGetLastError() == error);
    return error;
  };
  CHECK(refuses(0, 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(1, 0, 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(1, 1025, 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(1, dim3(32, 33), 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(1, dim3(1, 1, 65), 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(dim3(1, 65536), 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(dim3(1, 1, 65536), 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(0x80000000u, 1, 0) == cudaErrorInvalidConfiguration);
  CHECK(refuses(1, 1, (48 << 10) + 1) == cudaErrorInvalidValue);
  OK(cudaFuncSetAttribute((const void *)number,
                          cudaFuncAttributeMaxDynamicSharedMemorySize,
                          227 << 10));
  CHECK(refuses(1, 1, 227 << 10) == cudaSuccess);
  CHECK(refuses(1, 1, (227 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute((const void *)number,
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             228 << 10) == cudaErrorInvalidValue);
  cudaGetLastError();
}

/* ---- races -------------------------------------------------------------- */

__global__ void racy(const int *in, int *out) {
  __shared__ int tile[256];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[(threadIdx.x + 255) % 256]; /* no barrier */
}

void an_order_finds_a_race() {
  std::vector<int> values(256);
  for (int i = 0; i < 256; i++) values[i] = i * 7 + 1;
  on_device<int> in(values), out(values);
  std::vector<std::vector<int>> got;
  in_every_order([&] {
    OK(launch("racy", racy, 1, 256, 0, nullptr, in.data, out.data));
    got.push_back(out.host());
    values[0]++;
    OK(cudaMemcpy(in.data, values.data(), 4, cudaMemcpyHostToDevice));
  });
  CHECK(got[0] != got[1]);
}

/* ---- queues and graphs -------------------------------------------------- */

__global__ void add_into(int *to, const int *what) {
  to[threadIdx.x] += what[threadIdx.x];
}

void work_runs_when_waited_for() {
  on_device<int> out(std::vector<int>(64, 0)), one(std::vector<int>(64, 1));
  cudaStream_t stream;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  int *host;
  OK(cudaMallocHost((void **)&host, 64 * sizeof(int)));
  host[0] = -1;
  OK(launch("add", add_into, 1, 64, 0, stream, out.data, one.data));
  OK(cudaMemcpyAsync(host, out.data, 64 * sizeof(int), cudaMemcpyDeviceToHost,
                     stream));
  CHECK(host[0] == -1);
  OK(cudaStreamSynchronize(stream));
  CHECK(host[0] == 1);

  /* Another stream sees it after an event. */
  cudaStream_t other;
  cudaEvent_t event;
  OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  OK(launch("add", add_into, 1, 64, 0, stream, out.data, one.data));
  OK(cudaEventRecord(event, stream));
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  OK(cudaStreamWaitEvent(other, event, 0));
  OK(cudaMemcpyAsync(host, out.data, 64 * sizeof(int), cudaMemcpyDeviceToHost,
                     other));
  OK(cudaStreamSynchronize(other));
  CHECK(host[0] == 2);
  OK(cudaEventQuery(event));
  OK(cudaEventDestroy(event));
  OK(cudaFreeHost(host));
  OK(cudaStreamDestroy(other));
  OK(cudaStreamDestroy(stream));
}

void replays_read_the_device() {
  on_device<int> out(std::vector<int>(64, 0)), what(std::vector<int>(64, 1));
  cudaStream_t stream;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const int *argument = what.data;
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  OK(launch("add", add_into, 1, 64, 0, stream, out.data, argument));
  OK(launch("add", add_into, 1, 64, 0, stream, out.data, argument));
  argument = nullptr;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  OK(cudaStreamEndCapture(stream, &graph));
  OK(cudaGraphInstantiate(&replay, graph, 0));
  OK(cudaGraphDestroy(graph));
  CHECK(out.host()[0] == 0);
  OK(cudaGraphLaunch(replay, stream));
  CHECK(out.host()[0] == 2);
  const std::vector<int> ten(64, 10);
  OK(cudaMemcpy(what.data, ten.data(), 64 * sizeof(int),
                cudaMemcpyHostToDevice));
  OK(cudaGraphLaunch(replay, stream));
  OK(cudaGraphLaunch(replay, stream));
  CHECK(out.host()[0] == 42);
  OK(cudaGraphExecDestroy(replay));
  OK(cudaStreamDestroy(stream));
}

void captures_refuse_what_waits() {
  on_device<int> out(std::vector<int>(64, 0));
  cudaStream_t stream, fork;
  cudaEvent_t event;
  OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  OK(cudaStreamCreateWithFlags(&fork, cudaStreamNonBlocking));
  OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  cudaGraph_t graph;
  int host[64];
  void *p;
  const auto refused = [&](cudaError_t expected, std::function<cudaError_t()> f) {
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    CHECK(f() == expected);
    CHECK(cudaStreamEndCapture(stream, &graph) ==
          cudaErrorStreamCaptureInvalidated);
    CHECK(!graph);
    cudaGetLastError();
  };
  refused(cudaErrorStreamCaptureUnsupported,
          [&] { return cudaStreamSynchronize(stream); });
  refused(cudaErrorStreamCaptureUnsupported,
          [&] { return cudaDeviceSynchronize(); });
  refused(cudaErrorStreamCaptureUnsupported, [&] { return cudaMalloc(&p, 8); });
  refused(cudaErrorStreamCaptureUnsupported, [&] {
    return cudaMemcpyAsync(host, out.data, 256, cudaMemcpyDeviceToHost, stream);
  });
  refused(cudaErrorStreamCaptureUnsupported, [&] {
    return cudaMemcpy(host, out.data, 256, cudaMemcpyDeviceToHost);
  });

  /* A stream that forks off must come back. */
  for (const bool joins : {true, false}) {
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    OK(cudaEventRecord(event, stream));
    OK(cudaStreamWaitEvent(fork, event, 0));
    OK(launch("number", number, 1, 64, 0, fork, out.data));
    if (joins) {
      OK(cudaEventRecord(event, fork));
      OK(cudaStreamWaitEvent(stream, event, 0));
    }
    CHECK(cudaStreamEndCapture(stream, &graph) ==
          (joins ? cudaSuccess : cudaErrorStreamCaptureUnjoined));
    if (joins) OK(cudaGraphDestroy(graph));
  }
  cudaGetLastError();
  OK(cudaEventDestroy(event));
  OK(cudaStreamDestroy(fork));
  OK(cudaStreamDestroy(stream));
}

/* ---- the driver --------------------------------------------------------- */

#define DRIVER_OK(call) CHECK((call) == CUDA_SUCCESS)

void memory_is_mapped_by_hand() {
  const size_t granule = 2u << 20;
  CUmemAllocationProp prop = {};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  CUmemAccessDesc access = {};
  access.location = prop.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  size_t bytes;
  DRIVER_OK(cuMemGetAllocationGranularity(
      &bytes, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  CHECK(bytes == granule);
  const unsigned long long before = rp_emulated_used();
  CUdeviceptr p;
  CUmemGenericAllocationHandle first, second;
  CHECK(cuMemAddressReserve(&p, granule + 1, 0, 0, 0) ==
        CUDA_ERROR_INVALID_VALUE);
  DRIVER_OK(cuMemAddressReserve(&p, 4 * granule, 0, 0, 0));
  DRIVER_OK(cuMemCreate(&first, granule, &prop, 0));
  DRIVER_OK(cuMemCreate(&second, granule, &prop, 0));
  CHECK(rp_emulated_used() == before + 2 * granule);
  DRIVER_OK(cuMemMap(p, granule, 0, first, 0));
  CHECK(cuMemMap(p, granule, 0, second, 0) == CUDA_ERROR_INVALID_VALUE);
  DRIVER_OK(cuMemMap(p + granule, granule, 0, second, 0));
  /* Mapped is not yet accessible. */
  CHECK(cudaMemset((void *)p, 1, 8) == cudaErrorInvalidValue);
  cudaGetLastError();
  DRIVER_OK(cuMemSetAccess(p, 2 * granule, &access, 1));
  OK(cudaMemset((void *)(p + granule - 4), 1, 8));
  CHECK(cudaMemset((void *)(p + 2 * granule - 4), 1, 8) ==
        cudaErrorInvalidValue);
  cudaGetLastError();
  OK(cudaDeviceSynchronize());
  DRIVER_OK(cuMemUnmap(p, granule));
  /* The bytes go with the handle, not with the address. */
  DRIVER_OK(cuMemMap(p + 2 * granule, granule, 0, first, 0));
  DRIVER_OK(cuMemSetAccess(p + 2 * granule, granule, &access, 1));
  unsigned char got[8];
  OK(cudaMemcpy(got, (void *)(p + 3 * granule - 4), 4, cudaMemcpyDeviceToHost));
  CHECK(got[0] == 1 && got[3] == 1);
  CHECK(cuMemAddressFree(p, 4 * granule) == CUDA_ERROR_INVALID_VALUE);
  DRIVER_OK(cuMemRelease(first));
  DRIVER_OK(cuMemRelease(second));
  CHECK(rp_emulated_used() == before + 2 * granule);
  DRIVER_OK(cuMemUnmap(p + granule, 2 * granule));
  CHECK(rp_emulated_used() == before);
  DRIVER_OK(cuMemAddressFree(p, 4 * granule));
}

/* The image of a program: what cuModuleLoadData takes. */
std::vector<char> compiled(const char *source, int headers = 0,
                           const char *const *texts = nullptr,
                           const char *const *names = nullptr) {
  nvrtcProgram program;
  const char *options[] = {"--gpu-architecture=sm_90", "--fmad=false"};
  CHECK(nvrtcCreateProgram(&program, source, "compiled.cu", headers, texts,
                           names) == NVRTC_SUCCESS);
  if (nvrtcCompileProgram(program, 2, options) != NVRTC_SUCCESS) {
    size_t n;
    nvrtcGetProgramLogSize(program, &n);
    std::vector<char> log(n);
    nvrtcGetProgramLog(program, log.data());
    fputs(log.data(), stderr);
    exit(1);
  }
  size_t bytes;
  CHECK(nvrtcGetCUBINSize(program, &bytes) == NVRTC_SUCCESS);
  std::vector<char> image(bytes);
  CHECK(nvrtcGetCUBIN(program, image.data()) == NVRTC_SUCCESS);
  CHECK(nvrtcDestroyProgram(&program) == NVRTC_SUCCESS);
  return image;
}

void kernels_are_compiled_at_run_time() {
  const char *source =
      "struct pair { float scale; int n; };\n"
      "/* __global__ in a comment */\n"
      "extern \"C\" __global__ void __launch_bounds__(64)\n"
      "scaled(float *out, const float *in, pair p) {\n"
      "  __shared__ float tile[64];\n"
      "  const int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
      "  tile[threadIdx.x] = i < p.n ? in[i] : 0.0f;\n"
      "  __syncthreads();\n"
      "  if (i < p.n) out[i] = __fmul_rn(tile[threadIdx.x], p.scale);\n"
      "}\n";
  const std::vector<char> image = compiled(source);
  CUmodule module;
  CUfunction function;
  DRIVER_OK(cuModuleLoadData(&module, image.data()));
  DRIVER_OK(cuModuleGetFunction(&function, module, "scaled"));
  CHECK(cuModuleGetFunction(&function, module, "other") ==
        CUDA_ERROR_NOT_FOUND);
  std::vector<float> values(100, 3.0f);
  on_device<float> in(values), out(values);
  struct { float scale; int n; } pair = {2.5f, 100};
  void *arguments[] = {&out.data, &in.data, &pair};
  in_every_order([&] {
    DRIVER_OK(cuLaunchKernel(function, 2, 1, 1, 64, 1, 1, 0, nullptr,
                             arguments, nullptr));
    for (float each : out.host()) CHECK(each == 7.5f);
  });
  CHECK(cuLaunchKernel(function, 0, 1, 1, 64, 1, 1, 0, nullptr, arguments,
                       nullptr) == CUDA_ERROR_INVALID_VALUE);
  cudaGetLastError();
  DRIVER_OK(cuModuleUnload(module));

  /* A header that is given; of bf16 the emulation has its own. */
  const char *names[] = {"twice.h", "cuda_bf16.h"};
  const char *texts[] = {
      "__device__ float twice(float x) { return 2 * x; }\n",
      "__device__ void f() { asm(\"a device's\" :: \"nowhere\"(1)); }\n"};
  const std::vector<char> other = compiled(
      "#include \"twice.h\"\n"
      "#include \"cuda_bf16.h\"\n"
      "extern \"C\" __global__ void f(float *x) {\n"
      "  *x = twice(__bfloat162float(__float2bfloat16_rn(1.001f)));\n}\n",
      2, texts, names);
  DRIVER_OK(cuModuleLoadData(&module, other.data()));
  DRIVER_OK(cuModuleGetFunction(&function, module, "f"));
  void *only[] = {&out.data};
  DRIVER_OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, only,
                           nullptr));
  CHECK(out.host()[0] == 2);
  DRIVER_OK(cuModuleUnload(module));

  nvrtcProgram program;
  CHECK(nvrtcCreateProgram(&program, "#include <math.h>\n", "m.cu", 0,
                           nullptr, nullptr) == NVRTC_SUCCESS);
  CHECK(nvrtcCompileProgram(program, 0, nullptr) == NVRTC_ERROR_COMPILATION);
  CHECK(nvrtcDestroyProgram(&program) == NVRTC_SUCCESS);
}

/* However many are loaded, each is itself, though the loader knows files by
   their names and a file's number comes again. */
void modules_stay_apart() {
  const std::vector<char> images[] = {
      compiled("extern \"C\" __global__ void f(float *x) { *x = 0; }\n"),
      compiled("extern \"C\" __global__ void f(float *x) { *x = 1; }\n"),
      compiled("extern \"C\" __global__ void f(float *x) { *x = 2; }\n")};
  on_device<float> out(std::vector<float>(1));
  void *arguments[] = {&out.data};
  std::vector<CUmodule> modules(600);
  for (size_t i = 0; i < modules.size(); i++) {
    CUfunction function;
    DRIVER_OK(cuModuleLoadData(&modules[i], images[i % 3].data()));
    DRIVER_OK(cuModuleGetFunction(&function, modules[i], "f"));
    DRIVER_OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments,
                             nullptr));
    CHECK(out.host()[0] == i % 3);
  }
  for (CUmodule each : modules) DRIVER_OK(cuModuleUnload(each));
  const size_t before = rp_emulated_used();
  CHECK(cuModuleLoadData(&modules[0], "no image") == CUDA_ERROR_INVALID_IMAGE);
  CHECK(rp_emulated_used() == before);
}

void memory_runs_out() {
  size_t free_before, total, free_now;
  OK(cudaMemGetInfo(&free_before, &total));
  rp_emulated_limit(rp_emulated_used() + (8u << 20));
  void *p, *q;
  OK(cudaMalloc(&p, 6u << 20));
  CHECK(cudaMalloc(&q, 3u << 20) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  OK(cudaGetLastError());
  OK(cudaFree(p));
  OK(cudaMalloc(&q, 3u << 20));
  OK(cudaFree(q));
  CHECK(cudaFree(q) == cudaErrorInvalidValue);
  cudaGetLastError();
  rp_emulated_limit(total);
  OK(cudaMemGetInfo(&free_now, &total));
  CHECK(free_now == free_before);
}

} // namespace

int main() {
  void (*const tests[])() = {
      every_thread_runs_once,
      stacks_are_aligned,
      barriers_separate,
      shuffles_and_dynamic_shared_memory,
      warp_functions,
      faults_are_named,
      launches_fail_when_asked,
      host_may_not_touch_the_device,
      launch_limits,
      an_order_finds_a_race,
      work_runs_when_waited_for,
      replays_read_the_device,
      captures_refuse_what_waits,
      memory_runs_out,
      memory_is_mapped_by_hand,
      kernels_are_compiled_at_run_time,
      modules_stay_apart};
  int passed = 0;
  for (const auto test : tests) test(), passed++;
  say_totals(passed, 0);
  return 0;
}
