#include "memory.h"

#include <string.h>

#include <algorithm>
#include <new>

#include "base/status.h"
#include "heap.h"
#include "kernels/upload.h"
#include "usage.h"

/* Invariants: slot r % RUNS of `runs` is the event of run r, for the last RUNS
   runs; a pinned buffer is free once its event has passed. */
enum { BUFFERS = 2, RUNS = 8, SMALL = 4 * RP_UPLOAD_BYTES };
static const int64_t BUFFER = 8 << 20;

struct rp_cuda_memory {
  struct {
    char *bytes;
    cudaEvent_t free;
  } buffers[BUFFERS];
  int next;
  cudaEvent_t runs[RUNS];
  int64_t last_run;
  cudaEvent_t written; /* the last write on the copies' queue */
  cudaEvent_t now;     /* all that was handed over when it was recorded last */
  bool has_uploaded;   /* the kernel that writes small ones is loaded */
};

namespace {

rp_status ok(rp_device *device, cudaError_t error, const char *what) {
  return rp_cuda_ok(device->ctx, error, what);
}

/* ---- storage and arena -------------------------------------------------- */

void *alloc(rp_device *device, int64_t size) {
  return rp_cuda_heap_alloc(rp_cuda_enter(device)->heap, size);
}

void release(rp_device *device, void *p, int64_t size) {
  rp_cuda_heap_free(rp_cuda_enter(device)->heap, p, size);
}

void *resize_arena(rp_device *device, void *p, int64_t old_size,
                   int64_t size) {
  (void)p;
  (void)old_size;
  rp_cuda_heap *arena = rp_cuda_enter(device)->arena;
  if (rp_cuda_heap_resize(arena, size) && size > 0) return (void *)arena->base;
  rp_cuda_heap_resize(arena, 0);
  return nullptr;
}

/* ---- on the device ------------------------------------------------------ */

rp_status zero(rp_device *device, void *p, int64_t size) {
  if (size == 0) return RP_OK;
  return ok(device, cudaMemsetAsync(p, 0, (size_t)size,
                                    rp_cuda_enter(device)->stream), "zeroing");
}

rp_status copy(rp_device *device, void *to, const void *from, int64_t size) {
  if (size == 0) return RP_OK;
  return ok(device, cudaMemcpyAsync(to, from, (size_t)size,
                                    cudaMemcpyDeviceToDevice,
                                    rp_cuda_enter(device)->stream), "a copy");
}

/* ---- in ----------------------------------------------------------------- */

/* A pinned buffer that nothing reads any more. */
rp_status take_buffer(rp_device *device, int *taken) {
  rp_cuda_memory *memory = rp_cuda_enter(device)->memory;
  *taken = memory->next;
  memory->next = (memory->next + 1) % BUFFERS;
  return ok(device, cudaEventSynchronize(memory->buffers[*taken].free),
            "waiting for a pinned buffer");
}

/* The copies' queue waits for run `after`, or, where that is none yet, for
   whatever there is; runs that are too long ago to have an event of their own
   are before the oldest that has. */
rp_status wait_for_run(rp_device *device, int64_t after) {
  rp_cuda_device *d = rp_cuda_enter(device);
  rp_cuda_memory *memory = d->memory;
  if (after > memory->last_run) {
    const rp_status status =
        ok(device, cudaEventRecord(memory->now, d->stream), "an event");
    return status != RP_OK
               ? status
               : ok(device, cudaStreamWaitEvent(d->copies, memory->now, 0),
                    "waiting for what runs");
  }
  if (after <= 0) return RP_OK;
  const int64_t oldest = std::max<int64_t>(memory->last_run - RUNS + 1, 1);
  const int64_t run = std::max(after, oldest);
  return ok(device, cudaStreamWaitEvent(d->copies, memory->runs[run % RUNS], 0),
            "waiting for a run");
}

rp_status write_large(rp_device *device, char *to, const char *from,
                      int64_t size, int64_t after) {
  rp_cuda_device *d = rp_cuda_enter(device);
  rp_cuda_memory *memory = d->memory;
  rp_status status = wait_for_run(device, after);
  for (int64_t at = 0; at < size && status == RP_OK; at += BUFFER) {
    const int64_t n = std::min(BUFFER, size - at);
    int taken = 0;
    status = take_buffer(device, &taken);
    if (status != RP_OK) break;
    auto &buffer = memory->buffers[taken];
    memcpy(buffer.bytes, from + at, (size_t)n);
    status = ok(device, cudaMemcpyAsync(to + at, buffer.bytes, (size_t)n,
                                        cudaMemcpyHostToDevice, d->copies),
                "a copy to the device");
    if (status == RP_OK)
      status = ok(device, cudaEventRecord(buffer.free, d->copies), "an event");
  }
  if (status == RP_OK)
    status = ok(device, cudaEventRecord(memory->written, d->copies),
                "an event");
  if (status == RP_OK)
    status = ok(device, cudaStreamWaitEvent(d->stream, memory->written, 0),
                "waiting for a copy");
  return status;
}

rp_status write(rp_device *device, void *to, const void *from, int64_t size,
                int64_t after) {
  if (size > SMALL)
    return write_large(device, (char *)to, (const char *)from, size, after);
  rp_cuda_device *d = rp_cuda_enter(device);
  const bool loads = !d->memory->has_uploaded;
  const rp_cuda_stretch stretch =
      loads ? rp_cuda_stretch_begin(d) : rp_cuda_stretch{};
  rp_status status = RP_OK;
  for (int64_t at = 0; at < size && status == RP_OK; at += RP_UPLOAD_BYTES)
    status = ok(device, rp_cuda_upload(
        (char *)to + at, (const char *)from + at,
        (int)std::min<int64_t>(RP_UPLOAD_BYTES, size - at), d->stream),
                "a write to the device");
  if (loads) rp_cuda_stretch_end(d, RP_CUDA_CODE, stretch);
  d->memory->has_uploaded = true;
  return status;
}

/* ---- out ---------------------------------------------------------------- */

rp_status read(rp_device *device, void *to, const void *from, int64_t size) {
  rp_cuda_device *d = rp_cuda_enter(device);
  rp_status status = RP_OK;
  for (int64_t at = 0; at < size && status == RP_OK; at += BUFFER) {
    const int64_t n = std::min(BUFFER, size - at);
    int taken = 0;
    status = take_buffer(device, &taken);
    if (status != RP_OK) break;
    char *bytes = d->memory->buffers[taken].bytes;
    status = ok(device, cudaMemcpyAsync(bytes, (const char *)from + at,
                                        (size_t)n, cudaMemcpyDeviceToHost,
                                        d->stream), "a copy from the device");
    if (status == RP_OK)
      status = ok(device, cudaStreamSynchronize(d->stream),
                  "waiting for the device");
    if (status == RP_OK) memcpy((char *)to + at, bytes, (size_t)n);
  }
  return status;
}

} // namespace

const rp_device_memory rp_cuda_memory_functions = {
    256, false, alloc, release, resize_arena, zero, write, read, copy,
};

/* ---- life --------------------------------------------------------------- */

rp_status rp_cuda_memory_open(rp_context *ctx, rp_cuda_device *device) {
  rp_cuda_memory *memory = new (std::nothrow) rp_cuda_memory();
  device->memory = memory;
  if (memory == nullptr)
    return rp_fail(ctx, RP_NOMEM, "[cuda] no memory for buffers");
  rp_status status = RP_OK;
  for (int i = 0; i < BUFFERS && status == RP_OK; i++) {
    status = rp_cuda_ok(ctx, cudaMallocHost((void **)&memory->buffers[i].bytes,
                                            (size_t)BUFFER),
                        "pinned memory");
    if (status == RP_OK)
      status = rp_cuda_ok(ctx, cudaEventCreateWithFlags(
                                   &memory->buffers[i].free,
                                   cudaEventDisableTiming),
                          "an event");
  }
  for (int i = 0; i < RUNS && status == RP_OK; i++)
    status = rp_cuda_ok(ctx, cudaEventCreateWithFlags(&memory->runs[i],
                                                      cudaEventDisableTiming),
                        "an event");
  for (cudaEvent_t *event : {&memory->written, &memory->now})
    if (status == RP_OK)
      status = rp_cuda_ok(
          ctx, cudaEventCreateWithFlags(event, cudaEventDisableTiming),
          "an event");
  return status;
}

void rp_cuda_memory_close(rp_cuda_device *device) {
  rp_cuda_memory *memory = device->memory;
  if (memory == nullptr) return;
  for (auto &buffer : memory->buffers) {
    if (buffer.free) cudaEventDestroy(buffer.free);
    if (buffer.bytes) cudaFreeHost(buffer.bytes);
  }
  for (cudaEvent_t run : memory->runs)
    if (run) cudaEventDestroy(run);
  if (memory->written) cudaEventDestroy(memory->written);
  if (memory->now) cudaEventDestroy(memory->now);
  delete memory;
  device->memory = nullptr;
}

void rp_cuda_memory_ran(rp_cuda_device *device, int64_t run) {
  rp_cuda_memory *memory = device->memory;
  cudaEventRecord(memory->runs[run % RUNS], device->stream);
  memory->last_run = run;
}
