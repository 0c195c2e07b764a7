/* Small results on their way to the host while their program still runs: a
   loss is read, and the next step recorded, while the backward pass goes on. */
#ifndef RP_CUDA_DELIVERY_H
#define RP_CUDA_DELIVERY_H

#include "device.h"

rp_status rp_cuda_delivery_open(rp_context *ctx, rp_cuda_device *device);
void rp_cuda_delivery_close(rp_cuda_device *device);

int32_t rp_cuda_take_slot(rp_device *device);
void rp_cuda_give_slot(rp_device *device, int32_t slot);
rp_status rp_cuda_deliver(rp_device *device, int32_t slot, const void *from,
                          int64_t size);
rp_status rp_cuda_collect(rp_device *device, int32_t slot, void *to,
                          int64_t size);

#endif
