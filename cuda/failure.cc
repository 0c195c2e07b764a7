/* What CUDA and its libraries say, as statuses; which device they are spoken to
   about. All of the backend stands on this. */
#include <stdlib.h>
#include <string.h>

#include "device.h"

#include "base/status.h"

rp_cuda_device *rp_cuda_enter(rp_device *device) {
  rp_cuda_device *d = (rp_cuda_device *)device->state;
  /* Where this fails, whatever comes next does. */
  (void)cudaSetDevice(d->unit);
  return d;
}

/* After these nothing runs on the device any more in this process. */
static bool is_lost(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorLaunchTimeout:
      return true;
    default:
      return false;
  }
}

bool rp_cuda_checks(void) {
  const char *check = getenv("RP_CUDA_CHECK");
  return check && *check && strcmp(check, "0") != 0;
}

static rp_status out_of_memory(rp_context *ctx, const char *what) {
  return rp_fail(ctx, RP_NOMEM, "[cuda] %s: the device is out of memory", what);
}

rp_status rp_cuda_ok(rp_context *ctx, cudaError_t error, const char *what) {
  if (error == cudaSuccess) return RP_OK;
  (void)cudaGetLastError(); /* one that can pass has been said */
  if (error == cudaErrorMemoryAllocation) return out_of_memory(ctx, what);
  return rp_fail(ctx, RP_INTERNAL, "[cuda] %s: %s%s", what,
                 cudaGetErrorString(error),
                 !is_lost(error) ? ""
                 : rp_cuda_checks()
                     ? "; the device is lost to this process"
                     : "; the device is lost to this process. RP_CUDA_CHECK=1 "
                       "names the op that did it");
}

rp_status rp_cublas_ok(rp_context *ctx, cublasStatus_t status,
                       const char *what) {
  if (status == CUBLAS_STATUS_SUCCESS) return RP_OK;
  if (status == CUBLAS_STATUS_ALLOC_FAILED) return out_of_memory(ctx, what);
  return rp_fail(ctx, RP_INTERNAL, "[cuda] %s: cuBLASLt status %d", what,
                 (int)status);
}

rp_status rp_cudnn_ok(rp_context *ctx, cudnnStatus_t status,
                      const char *what) {
  if (status == CUDNN_STATUS_SUCCESS) return RP_OK;
  if (status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)
    return out_of_memory(ctx, what);
  return rp_fail(ctx, RP_INTERNAL, "[cuda] %s: cuDNN: %s", what,
                 cudnnGetErrorString(status));
}

rp_status rp_cuda_launched(const rp_kernel_args *args, const char *kernel,
                           cudaError_t error) {
  if (error != cudaSuccess) return rp_cuda_ok(args->ctx, error, kernel);
  rp_cuda_device *device = rp_cuda_of(args);
  if (!device->check) return RP_OK;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  (void)cudaStreamIsCapturing(device->stream, &capture);
  if (capture != cudaStreamCaptureStatusNone) return RP_OK;
  return rp_cuda_ok(args->ctx, cudaStreamSynchronize(device->stream), kernel);
}
