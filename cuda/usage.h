/* What of a device's memory, by the driver's own account, is neither storage
   nor arena: its context, the libraries' handles, code, recordings. No plan
   counts it. Each is measured where it comes into being: what the driver has
   less of from the beginning of a stretch to its end, but for the pages of our
   heaps and what stretches within it have taken for themselves. */
#ifndef RP_CUDA_USAGE_H
#define RP_CUDA_USAGE_H

#include "device.h"

/* Puts the unit's context into being: it becomes the calling thread's. */
rp_status rp_cuda_usage_open(rp_context *ctx, rp_cuda_device *device);

rp_cuda_stretch rp_cuda_stretch_begin(const rp_cuda_device *device);
void rp_cuda_stretch_end(rp_cuda_device *device, rp_cuda_part part,
                         rp_cuda_stretch stretch);

/* rp_backend.loading and .usage */
void rp_cuda_loading(rp_device *device, bool begins);
void rp_cuda_usage(rp_device *device, rp_device_usage *out);

#endif
