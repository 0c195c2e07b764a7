#include "timer.h"

#include <new>

namespace {

struct timer {
  cudaEvent_t begin, end;
};

} // namespace

void rp_cuda_time(rp_device *device, void **at, bool begins) {
  rp_cuda_device *d = rp_cuda_enter(device);
  if (*at == nullptr) {
    timer *made = new (std::nothrow) timer();
    if (made == nullptr) return;
    *at = made;
    if (cudaEventCreate(&made->begin) != cudaSuccess ||
        cudaEventCreate(&made->end) != cudaSuccess) {
      rp_cuda_free_timer(device, made);
      *at = nullptr;
      return;
    }
  }
  const timer *t = (const timer *)*at;
  (void)cudaEventRecord(begins ? t->begin : t->end, d->stream);
}

double rp_cuda_seconds(rp_device *device, void *of) {
  rp_cuda_enter(device);
  const timer *t = (const timer *)of;
  float milliseconds = 0;
  if (cudaEventSynchronize(t->end) == cudaSuccess &&
      cudaEventElapsedTime(&milliseconds, t->begin, t->end) == cudaSuccess)
    return 1e-3 * (double)milliseconds;
  (void)cudaGetLastError();
  return -1;
}

void rp_cuda_free_timer(rp_device *device, void *of) {
  rp_cuda_enter(device);
  timer *t = (timer *)of;
  if (t->begin) cudaEventDestroy(t->begin);
  if (t->end) cudaEventDestroy(t->end);
  (void)cudaGetLastError();
  delete t;
}
