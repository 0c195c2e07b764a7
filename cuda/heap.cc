#include "heap.h"

#include <new>

#include "base/status.h"

namespace {

/* Free memory at the end of a heap that is kept for what comes next. */
const int64_t SPARE = 32 << 20;

CUmemAllocationProp where(int unit) {
  CUmemAllocationProp p = {};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p.location.id = unit;
  return p;
}

/* Puts so many more bytes, a multiple of the granularity, behind the range. */
bool extend(rp_cuda_heap *heap, int64_t size) {
  const rp_cuda_driver *driver = heap->driver;
  if (heap->mapped + size > heap->reserved) return false;
  const CUmemAllocationProp p = where(heap->device->unit);
  rp_cuda_heap::chunk chunk = {0, size};
  if (driver->cuMemCreate(&chunk.handle, (size_t)size, &p, 0) != CUDA_SUCCESS)
    return false;
  const CUdeviceptr at = heap->base + (CUdeviceptr)heap->mapped;
  CUmemAccessDesc access = {};
  access.location = p.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  if (driver->cuMemMap(at, (size_t)size, 0, chunk.handle, 0) != CUDA_SUCCESS) {
    driver->cuMemRelease(chunk.handle);
    return false;
  }
  if (driver->cuMemSetAccess(at, (size_t)size, &access, 1) != CUDA_SUCCESS) {
    driver->cuMemUnmap(at, (size_t)size);
    driver->cuMemRelease(chunk.handle);
    return false;
  }
  heap->chunks.push_back(chunk);
  heap->mapped += size;
  return true;
}

/* Takes the memory behind whole chunks at the end away, down to `least`. */
void shrink(rp_cuda_heap *heap, int64_t least) {
  if (heap->chunks.empty() ||
      heap->mapped - heap->chunks.back().size < least)
    return;
  cudaStreamSynchronize(heap->device->stream);
  cudaStreamSynchronize(heap->device->copies);
  while (!heap->chunks.empty() &&
         heap->mapped - heap->chunks.back().size >= least) {
    const rp_cuda_heap::chunk last = heap->chunks.back();
    heap->mapped -= last.size;
    heap->driver->cuMemUnmap(heap->base + (CUdeviceptr)heap->mapped,
                             (size_t)last.size);
    heap->driver->cuMemRelease(last.handle);
    heap->chunks.pop_back();
  }
}

int64_t round_up(int64_t size, int64_t to) {
  return (size + to - 1) / to * to;
}

/* The free block that ends where memory does, or end(). */
std::map<int64_t, int64_t>::iterator tail(rp_cuda_heap *heap) {
  if (heap->free.empty()) return heap->free.end();
  auto last = std::prev(heap->free.end());
  return last->first + last->second == heap->mapped ? last : heap->free.end();
}

} // namespace

rp_status rp_cuda_heap_open(rp_cuda_heap **out, rp_context *ctx,
                            rp_cuda_device *device, int64_t most) {
  const rp_cuda_driver *driver = rp_cuda_driver_get(ctx);
  if (driver == nullptr) return RP_UNSUPPORTED;
  const CUmemAllocationProp p = where(device->unit);
  size_t granularity = 0;
  rp_status status = rp_cuda_driver_ok(
      ctx, driver->cuMemGetAllocationGranularity(
               &granularity, &p, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
      "virtual memory management");
  if (status != RP_OK) return status;
  rp_cuda_heap *heap = new (std::nothrow) rp_cuda_heap();
  if (heap == nullptr)
    return rp_fail(ctx, RP_NOMEM, "[cuda] no memory for a heap");
  heap->device = device;
  heap->driver = driver;
  heap->granularity = (int64_t)granularity;
  heap->reserved = round_up(most, heap->granularity);
  status = rp_cuda_driver_ok(
      ctx, driver->cuMemAddressReserve(&heap->base, (size_t)heap->reserved, 0,
                                       0, 0),
      "reserving addresses");
  if (status != RP_OK) {
    delete heap;
    return status;
  }
  *out = heap;
  return RP_OK;
}

void rp_cuda_heap_close(rp_cuda_heap *heap) {
  if (heap == nullptr) return;
  shrink(heap, 0);
  heap->driver->cuMemAddressFree(heap->base, (size_t)heap->reserved);
  delete heap;
}

void *rp_cuda_heap_alloc(rp_cuda_heap *heap, int64_t size) {
  if (size == 0) size = 256;
  auto at = heap->free.begin();
  while (at != heap->free.end() && at->second < size) ++at;
  if (at == heap->free.end()) {
    auto last = tail(heap);
    const int64_t has = last == heap->free.end() ? 0 : last->second;
    const int64_t from = heap->mapped - has;
    if (!extend(heap, round_up(size - has, heap->granularity)))
      return nullptr;
    heap->free[from] = heap->mapped - from;
    at = heap->free.find(from);
  }
  const int64_t offset = at->first, rest = at->second - size;
  heap->free.erase(at);
  if (rest > 0) heap->free[offset + size] = rest;
  return (void *)(heap->base + (CUdeviceptr)offset);
}

void rp_cuda_heap_free(rp_cuda_heap *heap, void *p, int64_t size) {
  if (size == 0) size = 256;
  int64_t offset = (int64_t)((CUdeviceptr)p - heap->base);
  auto next = heap->free.lower_bound(offset);
  if (next != heap->free.end() && next->first == offset + size) {
    size += next->second;
    next = heap->free.erase(next);
  }
  if (next != heap->free.begin()) {
    auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      heap->free.erase(before);
    }
  }
  heap->free[offset] = size;
  auto last = tail(heap);
  if (last == heap->free.end() || last->second < SPARE) return;
  const int64_t from = last->first;
  shrink(heap, from);
  heap->free.erase(last);
  if (heap->mapped > from) heap->free[from] = heap->mapped - from;
}

bool rp_cuda_heap_resize(rp_cuda_heap *heap, int64_t size) {
  if (size < heap->mapped) {
    shrink(heap, size);
    return true;
  }
  const int64_t more = round_up(size - heap->mapped, heap->granularity);
  return more == 0 || extend(heap, more);
}
