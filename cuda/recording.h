/* Programs as CUDA graphs: captured once, replayed. */
#ifndef RP_CUDA_RECORDING_H
#define RP_CUDA_RECORDING_H

#include "device.h"

rp_status rp_cuda_record(rp_device *device);
rp_status rp_cuda_end_record(rp_device *device, void **recording);
rp_status rp_cuda_replay(rp_device *device, void *recording);
void rp_cuda_forget(rp_device *device, void *recording);

#endif
