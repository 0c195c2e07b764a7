#include "kernels/upload.h"

#include <string.h>

#include "kernel.h"

namespace {

struct payload {
  unsigned char bytes[RP_UPLOAD_BYTES];
};

enum { THREADS = 256 };

__global__ void __launch_bounds__(THREADS)
upload(unsigned char *to, payload from, int size) {
  for (int i = (int)threadIdx.x; i < size; i += (int)blockDim.x)
    to[i] = from.bytes[i];
}

} // namespace

cudaError_t rp_cuda_upload(void *to, const void *from, int size,
                           cudaStream_t stream) {
  if (size == 0) return cudaSuccess;
  payload bytes;
  memcpy(bytes.bytes, from, (size_t)size);
  unsigned char *target = (unsigned char *)to;
#ifdef RP_EMULATED
  return rp_emulated_launch("upload", dim3(1), dim3(THREADS), 0, stream,
                            [=] { upload(target, bytes, size); });
#else
  void *arguments[] = {&target, &bytes, &size};
  return cudaLaunchKernel((const void *)upload, dim3(1), dim3(THREADS), arguments,
                          0, stream);
#endif
}
