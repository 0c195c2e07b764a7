/* How long programs take on the device: a pair of events. */
#ifndef RP_CUDA_TIMER_H
#define RP_CUDA_TIMER_H

#include "device.h"

/* rp_backend.time, .seconds and .free_timer */
void rp_cuda_time(rp_device *device, void **timer, bool begins);
double rp_cuda_seconds(rp_device *device, void *timer);
void rp_cuda_free_timer(rp_device *device, void *timer);

#endif
