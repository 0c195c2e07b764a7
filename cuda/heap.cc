#include "heap.h"

#include <algorithm>
#include <new>

#include "base/status.h"

namespace {

/* Free memory at the end of a heap that is kept for what comes next. */
const int64_t SPARE = 32 << 20;
/* Chunks of storage: what lies free is taken away by whole ones. */
const int64_t CHUNK = 8 << 20;

CUmemAllocationProp where(int unit) {
  CUmemAllocationProp p = {};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p.location.id = unit;
  return p;
}

/* Puts memory behind a chunk that has none. */
bool back(rp_cuda_heap *heap, rp_cuda_heap::chunk &chunk) {
  const rp_cuda_driver *driver = heap->driver;
  const int64_t size = chunk.size;
  const CUmemAllocationProp p = where(heap->device->unit);
  if (driver->cuMemCreate(&chunk.handle, (size_t)size, &p, 0) != CUDA_SUCCESS)
    return false;
  const CUdeviceptr at = heap->base + (CUdeviceptr)chunk.offset;
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
  chunk.is_backed = true;
  return true;
}

/* Takes the memory behind it away; nothing that runs may use it. */
void strip(rp_cuda_heap *heap, rp_cuda_heap::chunk &chunk) {
  if (!chunk.is_backed) return;
  heap->driver->cuMemUnmap(heap->base + (CUdeviceptr)chunk.offset,
                           (size_t)chunk.size);
  heap->driver->cuMemRelease(chunk.handle);
  chunk.is_backed = false;
}

void wait(const rp_cuda_heap *heap) {
  cudaStreamSynchronize(heap->device->stream);
  cudaStreamSynchronize(heap->device->copies);
}

/* Takes the memory behind chunks that lie in free blocks away; whether there
   was any. */
bool trim(rp_cuda_heap *heap) {
  bool found = false;
  for (rp_cuda_heap::chunk &chunk : heap->chunks) {
    auto block = heap->free.upper_bound(chunk.offset);
    if (!chunk.is_backed || block == heap->free.begin()) continue;
    --block;
    if (block->first + block->second < chunk.offset + chunk.size) continue;
    if (!found) wait(heap);
    found = true;
    strip(heap, chunk);
  }
  return found;
}

/* The same, with what the device's storage can spare where it must. */
bool back_at_last(rp_cuda_heap *heap, rp_cuda_heap::chunk &chunk) {
  rp_cuda_heap *storage = heap->device->heap;
  return back(heap, chunk) ||
         (storage && trim(storage) && back(heap, chunk));
}

/* Puts so many more bytes, a multiple of the granularity, behind the range. */
bool extend(rp_cuda_heap *heap, int64_t size) {
  if (heap->mapped + size > heap->reserved) return false;
  rp_cuda_heap::chunk chunk = {0, heap->mapped, size, false};
  if (!back_at_last(heap, chunk)) return false;
  heap->chunks.push_back(chunk);
  heap->mapped += size;
  return true;
}

/* Memory behind a block that is no longer among the free. */
bool back_block(rp_cuda_heap *heap, int64_t offset, int64_t size) {
  for (rp_cuda_heap::chunk &chunk : heap->chunks)
    if (!chunk.is_backed && chunk.offset < offset + size &&
        offset < chunk.offset + chunk.size && !back_at_last(heap, chunk))
      return false;
  return true;
}

/* Takes the memory behind whole chunks at the end away, down to `least`. */
void shrink(rp_cuda_heap *heap, int64_t least) {
  if (heap->chunks.empty() ||
      heap->mapped - heap->chunks.back().size < least)
    return;
  wait(heap);
  while (!heap->chunks.empty() &&
         heap->mapped - heap->chunks.back().size >= least) {
    heap->mapped -= heap->chunks.back().size;
    strip(heap, heap->chunks.back());
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
  /* A process may have few addresses (a limit, a container): less will do,
     as long as what the device has can lie in it. */
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  for (int part = 1; part <= 4 && result != CUDA_SUCCESS; part *= 2) {
    heap->reserved = round_up(most / part, heap->granularity);
    result = driver->cuMemAddressReserve(&heap->base, (size_t)heap->reserved,
                                         0, 0, 0);
  }
  status = rp_cuda_driver_ok(ctx, result, "reserving addresses");
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
    bool extended = true;
    while (extended && heap->mapped - from < size)
      extended = extend(heap, round_up(std::min(size + from - heap->mapped,
                                                CHUNK),
                                       heap->granularity));
    if (heap->mapped > from) heap->free[from] = heap->mapped - from;
    if (!extended) return nullptr;
    at = heap->free.find(from);
  }
  const int64_t offset = at->first, rest = at->second - size;
  heap->free.erase(at);
  if (!back_block(heap, offset, size)) {
    heap->free[offset] = size + rest;
    return nullptr;
  }
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
