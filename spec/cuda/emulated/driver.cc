/* The driver's functions: memory that is mapped by hand, and modules. */
#include <map>

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"
#include "image.h"

using namespace emulated;

namespace {

const size_t GRANULE = (size_t)2 << 20;

/* Freed when it is released and mapped nowhere. */
struct handle {
  size_t bytes;
  int fd, mapped;
  bool released;
};
struct mapped {
  size_t bytes;
  handle *of;
};

std::map<char *, size_t> reservations;
std::map<char *, mapped> maps;

void free_if_done(handle *h) {
  if (!h->released || h->mapped) return;
  close(h->fd);
  give_bytes(h->bytes);
  delete h;
}

bool is_reserved(char *start, size_t bytes) {
  auto after = reservations.upper_bound(start);
  if (after == reservations.begin()) return false;
  auto at = std::prev(after);
  return start + bytes <= at->first + at->second;
}

bool is_any_mapped(char *start, size_t bytes) {
  auto after = maps.upper_bound(start);
  if (after != maps.end() && after->first < start + bytes) return true;
  if (after == maps.begin()) return false;
  auto at = std::prev(after);
  return at->first + at->second.bytes > start;
}

/* The mappings that make up the range exactly; empty where none do. */
std::vector<char *> covering(char *start, size_t bytes) {
  std::vector<char *> found;
  char *at = start;
  while (at < start + bytes) {
    auto each = maps.find(at);
    if (each == maps.end()) return {};
    found.push_back(at);
    at += each->second.bytes;
  }
  return at == start + bytes ? found : std::vector<char *>();
}

char *address(CUdeviceptr p) { return reinterpret_cast<char *>(p); }

struct entry {
  const char *name;
  void *function;
};

} // namespace

namespace emulated {

CUresult driver_result(cudaError_t error) {
  switch (error) {
  case cudaErrorInvalidResourceHandle: return CUDA_ERROR_INVALID_HANDLE;
  case cudaErrorInvalidConfiguration: return CUDA_ERROR_INVALID_VALUE;
  /* Of most errors both have the same number. */
  default: return static_cast<CUresult>(error);
  }
}

} // namespace emulated

struct CUmod_st {
  void *library;
  std::vector<CUfunc_st *> functions;
};
struct CUfunc_st {
  std::string name;
  rp_emulated_binder *bind;
};

#define RP_EMULATED_DRIVER_ALIVE()                                           \
  do {                                                                       \
    if (lost() != cudaSuccess) return driver_result(lost());                 \
  } while (0)

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) {
  *count = 1;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute,
                              CUdevice device) {
  if (attribute == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) {
    *value = 1;
    return CUDA_SUCCESS;
  }
  /* The first of them have the runtime's numbers. */
  return driver_result(cudaDeviceGetAttribute(
      value, static_cast<cudaDeviceAttr>(attribute), device));
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
  *context = reinterpret_cast<CUcontext>(1);
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = reinterpret_cast<CUcontext>(1);
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) {
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = cudaGetErrorString(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char **name) {
  switch (error) {
  case CUDA_SUCCESS: *name = "CUDA_SUCCESS"; break;
  case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
  case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
  case CUDA_ERROR_INVALID_HANDLE: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
  case CUDA_ERROR_NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
  case CUDA_ERROR_INVALID_IMAGE: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
  case CUDA_ERROR_LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
  case CUDA_ERROR_ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
  default: *name = "CUDA_ERROR_UNKNOWN";
  }
  return CUDA_SUCCESS;
}
CUresult cuMemGetInfo(size_t *free_bytes, size_t *total) {
  return driver_result(cudaMemGetInfo(free_bytes, total));
}

/* ---- memory mapped by hand ---------------------------------------------- */

CUresult cuMemGetAllocationGranularity(size_t *bytes,
                                       const CUmemAllocationProp *,
                                       CUmemAllocationGranularity_flags) {
  *bytes = GRANULE;
  return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *p, size_t bytes, size_t alignment,
                             CUdeviceptr, unsigned long long flags) {
  RP_EMULATED_DRIVER_ALIVE();
  if (!p || bytes == 0 || bytes % GRANULE || flags ||
      (alignment & (alignment - 1)))
    return CUDA_ERROR_INVALID_VALUE;
  char *start = reserve_addresses(bytes, alignment > GRANULE ? alignment
                                                             : GRANULE);
  if (!start) return CUDA_ERROR_OUT_OF_MEMORY;
  reservations[start] = bytes;
  *p = reinterpret_cast<CUdeviceptr>(start);
  return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr p, size_t bytes) {
  auto found = reservations.find(address(p));
  if (found == reservations.end() || found->second != bytes ||
      is_any_mapped(address(p), bytes))
    return CUDA_ERROR_INVALID_VALUE;
  reservations.erase(found);
  release_addresses(address(p), bytes);
  return CUDA_SUCCESS;
}

static bool is_device(int ordinal) {
  int n = 0;
  cudaGetDeviceCount(&n);
  return ordinal >= 0 && ordinal < n;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *made, size_t bytes,
                     const CUmemAllocationProp *prop,
                     unsigned long long flags) {
  RP_EMULATED_DRIVER_ALIVE();
  if (!made || bytes == 0 || bytes % GRANULE || flags ||
      prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
      prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      !is_device(prop->location.id))
    return CUDA_ERROR_INVALID_VALUE;
  if (!take_bytes(bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
  const int fd = memfd_create("emulated device", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)bytes)) {
    if (fd >= 0) close(fd);
    give_bytes(bytes);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const std::vector<char> garbage(GRANULE, (char)0xff);
  for (size_t at = 0; at < bytes && at < 32 * GRANULE; at += GRANULE)
    if (pwrite(fd, garbage.data(), GRANULE, (off_t)at) != (ssize_t)GRANULE)
      break;
  *made = reinterpret_cast<CUmemGenericAllocationHandle>(
      new handle{bytes, fd, 0, false});
  return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle released) {
  handle *h = reinterpret_cast<handle *>(released);
  if (!h || h->released) return CUDA_ERROR_INVALID_VALUE;
  h->released = true;
  free_if_done(h);
  return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr p, size_t bytes, size_t offset,
                  CUmemGenericAllocationHandle what,
                  unsigned long long flags) {
  RP_EMULATED_DRIVER_ALIVE();
  handle *h = reinterpret_cast<handle *>(what);
  if (!h || offset || flags || bytes == 0 || bytes % GRANULE ||
      p % GRANULE || bytes > h->bytes || !is_reserved(address(p), bytes) ||
      is_any_mapped(address(p), bytes))
    return CUDA_ERROR_INVALID_VALUE;
  if (!map_bytes(address(p), bytes, h->fd, false))
    return CUDA_ERROR_OUT_OF_MEMORY;
  maps[address(p)] = mapped{bytes, h};
  h->mapped++;
  return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr p, size_t bytes) {
  const std::vector<char *> found = covering(address(p), bytes);
  if (found.empty()) return CUDA_ERROR_INVALID_VALUE;
  for (char *each : found) {
    handle *h = maps[each].of;
    unmap_bytes(each);
    maps.erase(each);
    h->mapped--;
    free_if_done(h);
  }
  return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr p, size_t bytes,
                        const CUmemAccessDesc *access, size_t count) {
  RP_EMULATED_DRIVER_ALIVE();
  const std::vector<char *> found = covering(address(p), bytes);
  if (found.empty() || count != 1 ||
      access->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      !is_device(access->location.id))
    return CUDA_ERROR_INVALID_VALUE;
  for (char *each : found)
    make_accessible(each,
                    access->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
  return CUDA_SUCCESS;
}

/* ---- modules ------------------------------------------------------------ */

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  RP_EMULATED_DRIVER_ALIVE();
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return driver_result(refused);
  const image_header *header = static_cast<const image_header *>(image);
  if (!module || !image || memcmp(header->magic, IMAGE_MAGIC, 8))
    return CUDA_ERROR_INVALID_IMAGE;
  if (!take_bytes(MODULE_BYTES)) return CUDA_ERROR_OUT_OF_MEMORY;
  const int fd = memfd_create("emulated module", MFD_CLOEXEC);
  if (fd < 0) return CUDA_ERROR_OUT_OF_MEMORY;
  const char *bytes = reinterpret_cast<const char *>(header + 1);
  for (uint64_t at = 0; at < header->bytes;) {
    const ssize_t wrote = write(fd, bytes + at, header->bytes - at);
    if (wrote <= 0) {
      close(fd);
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
    at += (uint64_t)wrote;
  }
  /* The loader takes a name that it has open for the file it opened then, and
     descriptors' numbers come again: each path is spelled its own way, with
     the bits of a count as "/" and "/.". */
  static size_t loaded = 0;
  std::string path = "/proc/self/fd";
  for (size_t rest = ++loaded; rest > 0; rest /= 2)
    path += rest % 2 ? "/." : "/";
  path += "/" + std::to_string(fd);
  void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  close(fd);
  if (!library) {
    fprintf(stderr, "emulated device: %s\n", dlerror());
    return CUDA_ERROR_INVALID_IMAGE;
  }
  *module = new CUmod_st{library, {}};
  return CUDA_SUCCESS;
}
CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned,
                            CUjit_option *, void **) {
  return cuModuleLoadData(module, image);
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module,
                             const char *name) {
  RP_EMULATED_DRIVER_ALIVE();
  const std::string binder = std::string(IMAGE_BINDER) + name;
  void *found = dlsym(module->library, binder.c_str());
  if (!found) return CUDA_ERROR_NOT_FOUND;
  *function = new CUfunc_st{name, reinterpret_cast<rp_emulated_binder *>(found)};
  module->functions.push_back(*function);
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
  if (!module) return CUDA_ERROR_INVALID_VALUE;
  /* What is queued still runs its kernels. */
  drain_all();
  for (CUfunc_st *function : module->functions) delete function;
  dlclose(module->library);
  give_bytes(MODULE_BYTES);
  delete module;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode) {
  *mode = CU_MODULE_EAGER_LOADING;
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which,
                            int value) {
  if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
    return CUDA_SUCCESS;
  return driver_result(cudaFuncSetAttribute(
      function, cudaFuncAttributeMaxDynamicSharedMemorySize, value));
}

/* arguments[i] points at the i-th argument, of the kernel's own type: they are
   copied before the call returns. */
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                        unsigned grid_z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned shared, CUstream stream,
                        void **arguments, void **extra) {
  if (!function || extra) return CUDA_ERROR_INVALID_VALUE;
  std::function<void()> thread;
  function->bind(arguments, &thread);
  return driver_result(rp_emulated_launch(
      function->name.c_str(), dim3(grid_x, grid_y, grid_z),
      dim3(block_x, block_y, block_z), shared, stream, std::move(thread),
      function));
}

/* ---- finding them ------------------------------------------------------- */

#define RP_EMULATED_ENTRY(name) {#name, reinterpret_cast<void *>(&name)}

cudaError_t cudaGetDriverEntryPointByVersion(
    const char *name, void **function, unsigned, unsigned long long,
    cudaDriverEntryPointQueryResult *result) {
  static const entry entries[] = {
      RP_EMULATED_ENTRY(cuInit),
      RP_EMULATED_ENTRY(cuDriverGetVersion),
      RP_EMULATED_ENTRY(cuDeviceGet),
      RP_EMULATED_ENTRY(cuDeviceGetCount),
      RP_EMULATED_ENTRY(cuDeviceGetAttribute),
      RP_EMULATED_ENTRY(cuDevicePrimaryCtxRetain),
      RP_EMULATED_ENTRY(cuDevicePrimaryCtxRelease),
      RP_EMULATED_ENTRY(cuCtxSetCurrent),
      RP_EMULATED_ENTRY(cuCtxGetCurrent),
      RP_EMULATED_ENTRY(cuCtxGetDevice),
      RP_EMULATED_ENTRY(cuGetErrorString),
      RP_EMULATED_ENTRY(cuGetErrorName),
      RP_EMULATED_ENTRY(cuMemGetInfo),
      RP_EMULATED_ENTRY(cuMemGetAllocationGranularity),
      RP_EMULATED_ENTRY(cuMemAddressReserve),
      RP_EMULATED_ENTRY(cuMemAddressFree),
      RP_EMULATED_ENTRY(cuMemCreate),
      RP_EMULATED_ENTRY(cuMemRelease),
      RP_EMULATED_ENTRY(cuMemMap),
      RP_EMULATED_ENTRY(cuMemUnmap),
      RP_EMULATED_ENTRY(cuMemSetAccess),
      RP_EMULATED_ENTRY(cuModuleLoadData),
      RP_EMULATED_ENTRY(cuModuleLoadDataEx),
      RP_EMULATED_ENTRY(cuModuleGetFunction),
      RP_EMULATED_ENTRY(cuModuleUnload),
      RP_EMULATED_ENTRY(cuModuleGetLoadingMode),
      RP_EMULATED_ENTRY(cuFuncSetAttribute),
      RP_EMULATED_ENTRY(cuLaunchKernel),
  };
  for (const entry &each : entries) {
    /* Some are macros for a later version of themselves. */
    const size_t length = strlen(name);
    if (strncmp(each.name, name, length) ||
        (each.name[length] && strncmp(each.name + length, "_v", 2)))
      continue;
    *function = each.function;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
  }
  *function = nullptr;
  if (result) *result = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPoint(const char *name, void **function,
                                    unsigned long long flags,
                                    cudaDriverEntryPointQueryResult *result) {
  return cudaGetDriverEntryPointByVersion(name, function, CUDART_VERSION,
                                          flags, result);
}

} // extern "C"
