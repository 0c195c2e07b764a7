/* Bytes that reach the device as a kernel's arguments: taken when it is
   launched, there when it has run. */
#ifndef RP_CUDA_UPLOAD_H
#define RP_CUDA_UPLOAD_H

#include "device.h"

enum { RP_UPLOAD_BYTES = 2048 };

/* At most RP_UPLOAD_BYTES. */
cudaError_t rp_cuda_upload(void *to, const void *from, int size,
                           cudaStream_t stream);

#endif
