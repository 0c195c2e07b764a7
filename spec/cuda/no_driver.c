/* A driver without a device, for cudnn_test: cuDNN asks for one to put the
   kernels that it compiled into, and for what they need set, and is told that
   all went well. Whatever would need a device is refused. */

enum { SUCCESS = 0, STUB_LIBRARY = 34 };

#define ACCEPTED(name)                                                       \
  int name(void);                                                            \
  int name(void) { return SUCCESS; }
#define MADE(name)                                                           \
  int name(void **made);                                                     \
  int name(void **made) {                                                    \
    static char something;                                                   \
    *made = &something;                                                      \
    return SUCCESS;                                                          \
  }
#define REFUSED(name)                                                        \
  int name(void);                                                            \
  int name(void) { return STUB_LIBRARY; }

MADE(cuLibraryLoadData)
MADE(cuLibraryGetKernel)
MADE(cuLibraryGetModule)
MADE(cuKernelGetFunction)
MADE(cuModuleLoadData)
MADE(cuModuleGetFunction)
ACCEPTED(cuLibraryUnload)
ACCEPTED(cuKernelSetAttribute)
ACCEPTED(cuModuleUnload)
ACCEPTED(cuFuncSetAttribute)
ACCEPTED(cuFuncSetCacheConfig)

REFUSED(cuCtxGetCurrent)
REFUSED(cuCtxGetLimit)
REFUSED(cuCtxPopCurrent)
REFUSED(cuCtxPushCurrent)
REFUSED(cuDeviceGet)
REFUSED(cuDeviceGetCount)
REFUSED(cuDriverGetVersion)
REFUSED(cuGetErrorName)
REFUSED(cuGetErrorString)
REFUSED(cuKernelGetAttribute)
REFUSED(cuLaunchCooperativeKernel)
REFUSED(cuLaunchKernel)
REFUSED(cuLaunchKernelEx)
REFUSED(cuLibraryLoadFromFile)
REFUSED(cuLinkAddData)
REFUSED(cuLinkComplete)
REFUSED(cuLinkCreate)
REFUSED(cuLinkDestroy)
REFUSED(cuOccupancyMaxPotentialClusterSize)
REFUSED(cuStreamGetCtx)
