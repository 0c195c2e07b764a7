/* What the backend says of failures, for where it does not say it yet itself:
   its own definitions come before these. */
#include "base/status.h"
#include "device.h"

__attribute__((weak)) rp_status rp_cuda_ok(rp_context *ctx, cudaError_t error,
                                           const char *what) {
  if (error == cudaSuccess) return RP_OK;
  return rp_fail(ctx, RP_INTERNAL, "[%s] %s", what, cudaGetErrorString(error));
}

__attribute__((weak)) rp_status rp_cuda_launched(const rp_kernel_args *args,
                                                 const char *kernel,
                                                 cudaError_t error) {
  return rp_cuda_ok(args->ctx, error, kernel);
}
