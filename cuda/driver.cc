#include "driver.h"

#ifndef RP_EMULATED
#include <dlfcn.h>
#endif

#include "base/status.h"

const rp_cuda_driver *rp_cuda_driver_get(rp_context *ctx) {
  static rp_cuda_driver driver;
  static bool found;
  if (found) return &driver;
#ifdef RP_EMULATED
#define RP_DRIVER_FIND(name) driver.name = &::name;
#else
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    rp_fail(ctx, RP_UNSUPPORTED, "[device] cuda: there is no NVIDIA driver "
            "(libcuda.so.1)");
    return nullptr;
  }
  const char *missing = nullptr;
#define RP_DRIVER_FIND(name)                                                 \
  driver.name = (decltype(&::name))dlsym(library, #name);                    \
  if (driver.name == nullptr) missing = #name;
#endif
  RP_DRIVER_FUNCTIONS(RP_DRIVER_FIND)
#undef RP_DRIVER_FIND
#ifndef RP_EMULATED
  if (missing) {
    rp_fail(ctx, RP_UNSUPPORTED, "[device] cuda: the driver is too old: it has "
            "no %s", missing);
    return nullptr;
  }
#endif
  found = true;
  return &driver;
}

rp_status rp_cuda_driver_ok(rp_context *ctx, CUresult result,
                            const char *what) {
  if (result == CUDA_SUCCESS) return RP_OK;
  const rp_cuda_driver *driver = rp_cuda_driver_get(ctx);
  const char *text = nullptr;
  if (driver) driver->cuGetErrorString(result, &text);
  return rp_fail(ctx, result == CUDA_ERROR_OUT_OF_MEMORY ? RP_NOMEM
                                                         : RP_INTERNAL,
                 "[cuda] %s: %s", what, text ? text : "an unknown error");
}
