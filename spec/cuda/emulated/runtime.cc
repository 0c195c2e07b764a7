/* The device itself: what it says of itself, its errors, its launches. */
#include <map>
#include <set>

#include <unistd.h>

#include "queue.h"

using namespace emulated;

namespace {

struct named {
  cudaError_t error;
  const char *name, *text;
};
#define RP_EMULATED_ERROR(error, text) {error, #error, text}
const named errors[] = {
    RP_EMULATED_ERROR(cudaSuccess, "no error"),
    RP_EMULATED_ERROR(cudaErrorInvalidValue, "invalid argument"),
    RP_EMULATED_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    RP_EMULATED_ERROR(cudaErrorInitializationError, "initialization error"),
    RP_EMULATED_ERROR(cudaErrorInvalidConfiguration,
                      "invalid configuration argument"),
    RP_EMULATED_ERROR(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    RP_EMULATED_ERROR(cudaErrorInvalidMemcpyDirection,
                      "invalid copy direction for memcpy"),
    RP_EMULATED_ERROR(cudaErrorInsufficientDriver,
                      "CUDA driver version is insufficient for CUDA runtime "
                      "version"),
    RP_EMULATED_ERROR(cudaErrorInvalidDeviceFunction,
                      "invalid device function"),
    RP_EMULATED_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    RP_EMULATED_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    RP_EMULATED_ERROR(cudaErrorInvalidKernelImage,
                      "device kernel image is invalid"),
    RP_EMULATED_ERROR(cudaErrorNoKernelImageForDevice,
                      "no kernel image is available for execution on the "
                      "device"),
    RP_EMULATED_ERROR(cudaErrorInvalidResourceHandle,
                      "invalid resource handle"),
    RP_EMULATED_ERROR(cudaErrorIllegalState,
                      "the operation cannot be performed in the present state"),
    RP_EMULATED_ERROR(cudaErrorSymbolNotFound, "named symbol not found"),
    RP_EMULATED_ERROR(cudaErrorNotReady, "device not ready"),
    RP_EMULATED_ERROR(cudaErrorIllegalAddress,
                      "an illegal memory access was encountered"),
    RP_EMULATED_ERROR(cudaErrorLaunchOutOfResources,
                      "too many resources requested for launch"),
    RP_EMULATED_ERROR(cudaErrorAssert, "device-side assert triggered"),
    RP_EMULATED_ERROR(cudaErrorHostMemoryAlreadyRegistered,
                      "part or all of the requested memory range is already "
                      "mapped"),
    RP_EMULATED_ERROR(cudaErrorHostMemoryNotRegistered,
                      "pointer does not correspond to a registered memory "
                      "region"),
    RP_EMULATED_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    RP_EMULATED_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    RP_EMULATED_ERROR(cudaErrorNotSupported, "operation not supported"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureUnsupported,
                      "operation not permitted when stream is capturing"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureInvalidated,
                      "operation failed due to a previous error during "
                      "capture"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureMerge,
                      "operation would result in a merge of separate capture "
                      "sequences"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureUnmatched,
                      "capture was not ended in the same stream as it began"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureUnjoined,
                      "capturing stream has unjoined work"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureIsolation,
                      "dependency created on uncaptured work in another "
                      "stream"),
    RP_EMULATED_ERROR(cudaErrorStreamCaptureImplicit,
                      "operation would make the legacy stream depend on a "
                      "capturing blocking stream"),
    RP_EMULATED_ERROR(cudaErrorCapturedEvent,
                      "operation not permitted on an event last recorded in a "
                      "capturing stream"),
    RP_EMULATED_ERROR(cudaErrorUnknown, "unknown error"),
};

cudaError_t last_error = cudaSuccess, lost_to = cudaSuccess;
std::string message;
std::map<const void *, size_t> shared_limits;
thread_local int current = 0;

/* They share one memory and one clock; what keeps them apart is that neither
   takes the other's work. RP_EMULATED_DEVICES, read each time. */
int devices() {
  const char *text = getenv("RP_EMULATED_DEVICES");
  const int n = text && *text ? atoi(text) : 1;
  return n > 0 ? n : 0;
}
/* RP_EMULATED_DRIVER=0: none is installed. */
bool has_driver() {
  const char *text = getenv("RP_EMULATED_DRIVER");
  return !text || strcmp(text, "0") != 0;
}

enum { SHARED_DEFAULT = 48 << 10, SHARED_MOST = 227 << 10 };

cudaError_t check_launch(dim3 grid, dim3 block, size_t shared,
                         const void *function) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 ||
      block.y == 0 || block.z == 0)
    return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
      block.x > 1024 || block.y > 1024 || block.z > 64 ||
      (uint64_t)block.x * block.y * block.z > 1024)
    return cudaErrorInvalidConfiguration;
  if (shared > (function ? shared_limit(function) : (size_t)SHARED_MOST))
    return cudaErrorInvalidValue;
  return cudaSuccess;
}

} // namespace

namespace emulated {

cudaError_t fail(cudaError_t error) { return last_error = error; }
int current_device() { return current; }
/* A process that was forked from one that used the device cannot. */
cudaError_t lost() {
  static const pid_t user = getpid();
  return getpid() == user ? lost_to : cudaErrorInitializationError;
}
cudaError_t lose(cudaError_t error, const std::string &text) {
  if (lost_to == cudaSuccess) {
    lost_to = last_error = error;
    message = text;
    fprintf(stderr, "emulated device: %s: %s\n", text.c_str(),
            cudaGetErrorString(error));
  }
  return lost_to;
}

size_t shared_limit(const void *function) {
  auto found = shared_limits.find(function);
  return found == shared_limits.end() ? (size_t)SHARED_DEFAULT : found->second;
}

} // namespace emulated

cudaError_t rp_emulated_launch(const char *name, dim3 grid, dim3 block,
                               size_t shared, cudaStream_t stream,
                               std::function<void()> thread,
                               const void *function) {
  RP_EMULATED_ALIVE();
  cudaError_t wrong = check_launch(grid, block, shared, function);
  if (wrong == cudaSuccess) wrong = check_current(stream);
  if (wrong != cudaSuccess) return fail(wrong);
  const std::string called = name ? name : "?";
  wrong = load_code(called);
  if (wrong != cudaSuccess) return wrong;
  return enqueue(stream, called, true, [=] {
    return run_grid(called, grid, block, shared, thread);
  });
}

extern "C" {

const char *rp_emulated_message(void) { return message.c_str(); }
void rp_emulated_reset(void) {
  drop_all();
  lost_to = last_error = cudaSuccess;
  message.clear();
}

/* ---- errors ------------------------------------------------------------- */

cudaError_t cudaGetLastError(void) {
  const cudaError_t error = lost_to != cudaSuccess ? lost_to : last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError(void) {
  return lost_to != cudaSuccess ? lost_to : last_error;
}
const char *cudaGetErrorString(cudaError_t error) {
  for (const named &each : errors)
    if (each.error == error) return each.text;
  return "unrecognized error code";
}
const char *cudaGetErrorName(cudaError_t error) {
  for (const named &each : errors)
    if (each.error == error) return each.name;
  return "unrecognized error code";
}

/* ---- the device --------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count) {
  *count = has_driver() ? devices() : 0;
  return !has_driver() ? fail(cudaErrorInsufficientDriver)
         : *count      ? cudaSuccess
                       : fail(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  RP_EMULATED_ALIVE();
  if (device < 0 || device >= devices()) return fail(cudaErrorInvalidDevice);
  static std::set<int> contexts;
  if (!contexts.count(device)) {
    if (!take_bytes(CONTEXT_BYTES)) return fail(cudaErrorMemoryAllocation);
    contexts.insert(device);
  }
  current = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
  if (device < 0 || device >= devices()) return fail(cudaErrorInvalidDevice);
  snprintf(text, (size_t)size, "0000:%02X:00.0", device + 1);
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
  return cudaSetDevice(device);
}
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceReset(void) {
  RP_EMULATED_ALIVE();
  return drain_all();
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  if (device < 0 || device >= devices()) return fail(cudaErrorInvalidDevice);
  size_t total;
  RP_EMULATED_ALIVE();
  cudaMemGetInfo(nullptr, &total);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "emulated (host)");
  p->totalGlobalMem = total;
  p->sharedMemPerBlock = SHARED_DEFAULT;
  p->sharedMemPerBlockOptin = SHARED_MOST;
  p->sharedMemPerMultiprocessor = 228 << 10;
  p->reservedSharedMemPerBlock = 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->memPitch = 0x7fffffff;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = 9;
  p->minor = 0;
  p->textureAlignment = 512;
  p->multiProcessorCount = 132;
  p->canMapHostMemory = p->unifiedAddressing = 1;
  p->concurrentKernels = 1;
  p->asyncEngineCount = 3;
  p->memoryBusWidth = 5120;
  p->l2CacheSize = 50 << 20;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->streamPrioritiesSupported = 1;
  p->globalL1CacheSupported = p->localL1CacheSupported = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute,
                                   int device) {
  cudaDeviceProp p;
  const cudaError_t error = cudaGetDeviceProperties(&p, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
  case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
  case cudaDevAttrMaxBlockDimX: *value = p.maxThreadsDim[0]; break;
  case cudaDevAttrMaxBlockDimY: *value = p.maxThreadsDim[1]; break;
  case cudaDevAttrMaxBlockDimZ: *value = p.maxThreadsDim[2]; break;
  case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
  case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
  case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
  case cudaDevAttrMaxSharedMemoryPerBlock:
    *value = (int)p.sharedMemPerBlock; break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = (int)p.sharedMemPerBlockOptin; break;
  case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
    *value = (int)p.sharedMemPerMultiprocessor; break;
  case cudaDevAttrReservedSharedMemoryPerBlock:
    *value = (int)p.reservedSharedMemPerBlock; break;
  case cudaDevAttrTotalConstantMemory: *value = (int)p.totalConstMem; break;
  case cudaDevAttrWarpSize: *value = p.warpSize; break;
  case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
  case cudaDevAttrClockRate: *value = 1980000; break;
  case cudaDevAttrMemoryClockRate: *value = 2619000; break;
  case cudaDevAttrGlobalMemoryBusWidth: *value = p.memoryBusWidth; break;
  case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
  case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
  case cudaDevAttrMaxThreadsPerMultiProcessor:
    *value = p.maxThreadsPerMultiProcessor; break;
  case cudaDevAttrMaxBlocksPerMultiprocessor:
    *value = p.maxBlocksPerMultiProcessor; break;
  case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
  case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
  case cudaDevAttrCanMapHostMemory:
  case cudaDevAttrUnifiedAddressing:
  case cudaDevAttrConcurrentKernels:
  case cudaDevAttrStreamPrioritiesSupported: *value = 1; break;
  case cudaDevAttrAsyncEngineCount: *value = p.asyncEngineCount; break;
  default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
  *version = has_driver() ? CUDART_VERSION : 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

/* ---- functions ---------------------------------------------------------- */

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute which,
                                 int value) {
  RP_EMULATED_ALIVE();
  if (!function) return fail(cudaErrorInvalidDeviceFunction);
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize)
    return cudaSuccess;
  if (value < 0 || value > SHARED_MOST) return fail(cudaErrorInvalidValue);
  shared_limits[function] = (size_t)value;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes,
                                  const void *function) {
  RP_EMULATED_ALIVE();
  memset(attributes, 0, sizeof *attributes);
  attributes->maxThreadsPerBlock = 1024;
  attributes->maxDynamicSharedSizeBytes = (int)shared_limit(function);
  attributes->binaryVersion = attributes->ptxVersion = 90;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks,
                                                          const void *,
                                                          int threads,
                                                          size_t shared) {
  RP_EMULATED_ALIVE();
  if (threads <= 0 || threads > 1024) return fail(cudaErrorInvalidValue);
  int most = 2048 / ((threads + 31) / 32 * 32);
  const int by_shared = (int)((228 << 10) / (shared + 1024));
  if (by_shared < most) most = by_shared;
  *blocks = most < 32 ? most : 32;
  return cudaSuccess;
}

} // extern "C"
