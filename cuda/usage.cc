#include "usage.h"

#include <map>
#include <mutex>

#ifndef RP_EMULATED
#include <dlfcn.h>
#endif

#include "heap.h"

/* ---- before there is a context ------------------------------------------ */

/* CUDA tells of memory only within a context. NVML does without; it comes with
   the driver, and the toolkit's header for it need not be there. */
extern "C" {
typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlMemory_st {
  unsigned long long total, free, used;
} nvmlMemory_t;
int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device);
int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
}

namespace {

struct nvml {
  decltype(&nvmlInit_v2) init;
  decltype(&nvmlShutdown) shutdown;
  decltype(&nvmlDeviceGetHandleByPciBusId_v2) find;
  decltype(&nvmlDeviceGetMemoryInfo) memory;
};

bool load(nvml *library) {
#ifdef RP_EMULATED
  *library = {nvmlInit_v2, nvmlShutdown, nvmlDeviceGetHandleByPciBusId_v2,
              nvmlDeviceGetMemoryInfo};
#else
  void *file = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) return false;
  library->init = (decltype(library->init))dlsym(file, "nvmlInit_v2");
  library->shutdown = (decltype(library->shutdown))dlsym(file, "nvmlShutdown");
  library->find = (decltype(library->find))dlsym(
      file, "nvmlDeviceGetHandleByPciBusId_v2");
  library->memory = (decltype(library->memory))dlsym(
      file, "nvmlDeviceGetMemoryInfo");
#endif
  return library->init && library->shutdown && library->find &&
         library->memory;
}

/* Bytes in use on the unit, whoever uses them; -1 where nobody says. */
int64_t used_of_all(const nvml &library, int unit) {
  char bus_id[32];
  nvmlDevice_t device = nullptr;
  nvmlMemory_t memory = {};
  if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, unit) != cudaSuccess) {
    (void)cudaGetLastError();
    return -1;
  }
  if (library.find(bus_id, &device) || library.memory(device, &memory))
    return -1;
  return (int64_t)(memory.total - memory.free);
}

/* ---- what is ours ------------------------------------------------------- */

int64_t backed_bytes(const rp_cuda_heap *heap) {
  int64_t bytes = 0;
  for (size_t i = 0; heap && i < heap->chunks.size(); i++)
    if (heap->chunks[i].is_backed) bytes += heap->chunks[i].size;
  return bytes;
}

int64_t page_bytes(const rp_cuda_device *device) {
  return backed_bytes(device->heap) + backed_bytes(device->arena);
}

/* What the driver has handed out, whoever has it. */
int64_t handed_out(void) {
  size_t free_now = 0, all = 0;
  if (cudaMemGetInfo(&free_now, &all) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return (int64_t)(all - free_now);
}

int64_t noted(const rp_cuda_device *device) {
  int64_t bytes = 0;
  for (const int64_t each : device->usage.parts) bytes += each;
  return bytes;
}

} // namespace

/* A process makes one context a unit, which stays until it ends. */
rp_status rp_cuda_usage_open(rp_context *ctx, rp_cuda_device *device) {
  static std::map<int, int64_t> contexts;
  static std::mutex lock;
  const std::lock_guard<std::mutex> hold(lock);
  const auto known = contexts.find(device->unit);
  nvml library = {};
  const bool is_there =
      known == contexts.end() && load(&library) && library.init() == 0;
  const int64_t before = is_there ? used_of_all(library, device->unit) : -1;
  rp_status status =
      rp_cuda_ok(ctx, cudaSetDevice(device->unit), "opening the device");
  /* Where contexts are made lazily, this makes it. */
  if (status == RP_OK)
    status = rp_cuda_ok(ctx, cudaFree(nullptr), "opening the device");
  const int64_t after =
      before >= 0 && status == RP_OK ? used_of_all(library, device->unit) : -1;
  if (is_there) library.shutdown();
  if (status != RP_OK) return status;
  if (known == contexts.end())
    contexts[device->unit] =
        before >= 0 && after >= before ? after - before : handed_out();
  device->usage.parts[RP_CUDA_CONTEXT] = contexts[device->unit];
  device->usage.before = handed_out() - contexts[device->unit];
  return RP_OK;
}

rp_cuda_stretch rp_cuda_stretch_begin(const rp_cuda_device *device) {
  return {handed_out() - page_bytes(device), noted(device)};
}

void rp_cuda_stretch_end(rp_cuda_device *device, rp_cuda_part part,
                         rp_cuda_stretch stretch) {
  const rp_cuda_stretch now = rp_cuda_stretch_begin(device);
  device->usage.parts[part] +=
      now.outside - stretch.outside - (now.noted - stretch.noted);
}

void rp_cuda_loading(rp_device *device, bool begins) {
  rp_cuda_device *d = rp_cuda_enter(device);
  if (begins)
    d->usage.loading = rp_cuda_stretch_begin(d);
  else
    rp_cuda_stretch_end(d, RP_CUDA_CODE, d->usage.loading);
}

void rp_cuda_usage(rp_device *device, rp_device_usage *out) {
  static const char *const names[RP_CUDA_PARTS] = {
      "context", "queues", "cuBLASLt", "cuDNN", "code", "graphs"};
  const rp_cuda_device *d = rp_cuda_enter(device);
  *out = {};
  out->driver_bytes = handed_out() - d->usage.before;
  out->page_bytes = page_bytes(d);
  out->fixed_bytes = noted(d);
  for (int i = 0; i < RP_CUDA_PARTS; i++)
    out->parts[out->n_parts++] = {names[i], d->usage.parts[i]};
}
