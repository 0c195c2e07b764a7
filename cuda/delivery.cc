#include "delivery.h"

#include <string.h>

#include <new>

#include "base/status.h"

/* Invariant: arrived[i] has been recorded behind the last copy into slot i. */
struct rp_cuda_delivery {
  char *bytes; /* pinned: RP_SLOTS * RP_SLOT */
  cudaEvent_t arrived[RP_SLOTS];
  bool taken[RP_SLOTS];
};

rp_status rp_cuda_delivery_open(rp_context *ctx, rp_cuda_device *device) {
  rp_cuda_delivery *all = new (std::nothrow) rp_cuda_delivery();
  device->delivery = all;
  if (all == nullptr)
    return rp_fail(ctx, RP_NOMEM, "[cuda] no memory for results");
  rp_status status = rp_cuda_ok(
      ctx, cudaMallocHost((void **)&all->bytes, RP_SLOTS * RP_SLOT),
      "pinned memory");
  for (int i = 0; i < RP_SLOTS && status == RP_OK; i++)
    status = rp_cuda_ok(ctx, cudaEventCreateWithFlags(&all->arrived[i],
                                                      cudaEventDisableTiming),
                        "an event");
  return status;
}

void rp_cuda_delivery_close(rp_cuda_device *device) {
  rp_cuda_delivery *all = device->delivery;
  if (all == nullptr) return;
  for (cudaEvent_t arrived : all->arrived)
    if (arrived) cudaEventDestroy(arrived);
  if (all->bytes) cudaFreeHost(all->bytes);
  delete all;
  device->delivery = nullptr;
}

int32_t rp_cuda_take_slot(rp_device *device) {
  rp_cuda_delivery *all = rp_cuda_enter(device)->delivery;
  for (int32_t i = 0; i < RP_SLOTS; i++)
    if (!all->taken[i]) {
      all->taken[i] = true;
      return i;
    }
  return -1;
}

void rp_cuda_give_slot(rp_device *device, int32_t slot) {
  rp_cuda_enter(device)->delivery->taken[slot] = false;
}

rp_status rp_cuda_deliver(rp_device *device, int32_t slot, const void *from,
                          int64_t size) {
  rp_cuda_device *d = rp_cuda_enter(device);
  rp_cuda_delivery *all = d->delivery;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  rp_status status = rp_cuda_ok(
      device->ctx, cudaStreamIsCapturing(d->stream, &capture), "a result");
  if (status == RP_OK)
    status = rp_cuda_ok(
        device->ctx, cudaMemcpyAsync(all->bytes + slot * RP_SLOT, from,
                                     (size_t)size, cudaMemcpyDeviceToHost,
                                     d->stream),
        "a result's copy");
  /* In a recording an external record is a node of its own, so that the host
     can wait for it in each replay. */
  if (status == RP_OK)
    status = rp_cuda_ok(
        device->ctx, cudaEventRecordWithFlags(
                         all->arrived[slot], d->stream,
                         capture == cudaStreamCaptureStatusActive
                             ? cudaEventRecordExternal : cudaEventRecordDefault),
        "an event");
  return status;
}

rp_status rp_cuda_collect(rp_device *device, int32_t slot, void *to,
                          int64_t size) {
  rp_cuda_delivery *all = rp_cuda_enter(device)->delivery;
  const rp_status status = rp_cuda_ok(
      device->ctx, cudaEventSynchronize(all->arrived[slot]),
      "waiting for a result");
  if (status == RP_OK) memcpy(to, all->bytes + slot * RP_SLOT, (size_t)size);
  return status;
}
