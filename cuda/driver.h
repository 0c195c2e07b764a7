/* The driver's functions that the runtime has no equal of. They are looked up
   when a device is opened, so that this library loads on machines without a
   driver and can say what is missing. */
#ifndef RP_CUDA_DRIVER_H
#define RP_CUDA_DRIVER_H

#include "device.h"

#define RP_DRIVER_FUNCTIONS(F)                                               \
  F(cuGetErrorString)                                                        \
  F(cuMemAddressReserve)                                                     \
  F(cuMemAddressFree)                                                        \
  F(cuMemCreate)                                                             \
  F(cuMemRelease)                                                            \
  F(cuMemMap)                                                                \
  F(cuMemUnmap)                                                              \
  F(cuMemSetAccess)                                                          \
  F(cuMemGetAllocationGranularity)                                           \
  F(cuModuleLoadData)                                                        \
  F(cuModuleGetFunction)                                                     \
  F(cuModuleUnload)                                                          \
  F(cuLaunchKernel)

typedef struct rp_cuda_driver {
#define RP_DRIVER_MEMBER(name) decltype(&::name) name;
  RP_DRIVER_FUNCTIONS(RP_DRIVER_MEMBER)
#undef RP_DRIVER_MEMBER
} rp_cuda_driver;

/* NULL with RP_UNSUPPORTED said where there is no driver. */
const rp_cuda_driver *rp_cuda_driver_get(rp_context *ctx);
rp_status rp_cuda_driver_ok(rp_context *ctx, CUresult result,
                            const char *what);

#endif
