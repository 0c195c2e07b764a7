/* Bytes in and out of a device. Small ones go in as a kernel's arguments, so
   that the host neither waits nor keeps them; large ones go through pinned
   buffers: on the copies' own queue where what they overwrite is no longer
   read, so that a batch arrives while the step before it still runs. */
#ifndef RP_CUDA_MEMORY_H
#define RP_CUDA_MEMORY_H

#include "device.h"

rp_status rp_cuda_memory_open(rp_context *ctx, rp_cuda_device *device);
void rp_cuda_memory_close(rp_cuda_device *device);
/* All of run number `run` has been handed over. */
void rp_cuda_memory_ran(rp_cuda_device *device, int64_t run);

extern const rp_device_memory rp_cuda_memory_functions;

#endif
