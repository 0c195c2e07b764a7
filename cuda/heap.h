/* Device memory: a range of addresses of its own, behind which memory is put
   as it is needed and taken away again. What lies in it never moves, and
   neither does its beginning, however it grows: addresses in recordings stay
   good. (CUDA's virtual memory management: reserve, create, map.)

   Invariants: chunks of whole granules follow each other over the first
   `mapped` bytes, with memory behind each that holds a byte in use; free blocks
   are disjoint, apart by at least one block in use, and end at `mapped` at the
   latest. */
#ifndef RP_CUDA_HEAP_H
#define RP_CUDA_HEAP_H

#include <map>
#include <vector>

#include "driver.h"

struct rp_cuda_heap {
  rp_cuda_device *device;
  const rp_cuda_driver *driver;
  CUdeviceptr base;
  int64_t reserved, mapped, granularity;
  struct chunk {
    CUmemGenericAllocationHandle handle;
    int64_t offset, size;
    bool is_backed;
  };
  std::vector<chunk> chunks;
  std::map<int64_t, int64_t> free; /* offset -> size */
};

/* Reserves addresses for `most` bytes, of which not all can have memory at a
   time, or for a half or a quarter of them. RP_UNSUPPORTED, RP_NOMEM. */
rp_status rp_cuda_heap_open(rp_cuda_heap **heap, rp_context *ctx,
                            rp_cuda_device *device, int64_t most);
void rp_cuda_heap_close(rp_cuda_heap *heap);

/* A block: the lowest that fits. NULL: the device has no more. */
void *rp_cuda_heap_alloc(rp_cuda_heap *heap, int64_t size);
/* Memory at the end that has become free goes back to the device once there is
   much of it, after all that runs has run; that in between when either heap of
   the device would get no more otherwise. */
void rp_cuda_heap_free(rp_cuda_heap *heap, void *p, int64_t size);

/* For a heap that is one block: exactly so many bytes, rounded up to whole
   granules. False: the device has no more; what was there stays. */
bool rp_cuda_heap_resize(rp_cuda_heap *heap, int64_t size);

#endif
