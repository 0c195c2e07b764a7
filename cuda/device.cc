/* The backend: its record, and the life of a device. */
#include "device.h"

#include <stdio.h>

#include <new>

#include "base/status.h"
#include "delivery.h"
#include "heap.h"
#include "memory.h"
#include "recording.h"
#include "timer.h"
#include "usage.h"

/* ---- open and close ----------------------------------------------------- */

static int32_t count(void) {
  int n = 0;
  if (cudaGetDeviceCount(&n) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return n;
}

/* Says why there is no device. */
static rp_status missing(rp_context *ctx, int unit) {
  int n = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  (void)cudaGetLastError();
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return rp_fail(ctx, RP_UNSUPPORTED, "[device] cuda: there is no NVIDIA "
                   "driver (%s)", cudaGetErrorString(error));
  if (error != cudaSuccess)
    return rp_fail(ctx, RP_UNSUPPORTED, "[device] cuda: %s (the driver is for "
                   "CUDA %d.%d)", cudaGetErrorString(error), driver / 1000,
                   driver % 1000 / 10);
  return rp_fail(ctx, RP_UNSUPPORTED, "[device] cuda: there is no device %d; "
                 "the driver sees %d", unit, n);
}

/* FLOP/s and bytes/s that such a device reaches on long matrices in bf16, half
   of which the cost model takes for the f32 rate, and on long vectors. */
static rp_rates rates_of(const cudaDeviceProp *p, int unit) {
  int clock_khz = 0, memory_khz = 0, bus_bits = 0;
  cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, unit);
  cudaDeviceGetAttribute(&memory_khz, cudaDevAttrMemoryClockRate, unit);
  cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, unit);
  /* FLOPs a clock and multiprocessor: CUDA C++ programming guide, tensor
     core throughput. */
  const double a_clock = p->major >= 9 ? 4096 : 2048;
  const double flops =
      0.6 * a_clock * p->multiProcessorCount * 1e3 * clock_khz;
  const double bytes = 0.8 * 2 * 1e3 * memory_khz * bus_bits / 8;
  return rp_rates{flops > 0 ? flops / 2 : 100e12,
                  bytes > 0 ? bytes : 1e12};
}

static void enter(rp_device *device) { (void)rp_cuda_enter(device); }

static void close_device(rp_device *device) {
  if (device->state == nullptr) return;
  rp_cuda_device *d = rp_cuda_enter(device);
  if (d->stream) cudaStreamSynchronize(d->stream);
  if (d->copies) cudaStreamSynchronize(d->copies);
  if (d->dnn) cudnnDestroy(d->dnn);
  if (d->blas) cublasLtDestroy(d->blas);
  rp_cuda_memory_close(d);
  rp_cuda_delivery_close(d);
  rp_cuda_heap_close(d->heap);
  rp_cuda_heap_close(d->arena);
  if (d->host_fault) cudaFreeHost(d->host_fault);
  if (d->fault) cudaFree(d->fault);
  if (d->copies) cudaStreamDestroy(d->copies);
  if (d->stream) cudaStreamDestroy(d->stream);
  delete d;
  device->state = nullptr;
}

static rp_status open_streams(rp_context *ctx, rp_cuda_device *d) {
  rp_status status = rp_cuda_ok(
      ctx, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking),
      "a stream");
  if (status == RP_OK)
    status = rp_cuda_ok(
        ctx, cudaStreamCreateWithFlags(&d->copies, cudaStreamNonBlocking),
        "a stream");
  if (status == RP_OK)
    status = rp_cuda_ok(ctx, cudaMallocHost((void **)&d->host_fault,
                                            sizeof *d->host_fault),
                        "pinned memory");
  if (status == RP_OK)
    status = rp_cuda_ok(ctx, cudaMalloc((void **)&d->fault, sizeof *d->fault),
                        "memory for faults");
  if (status == RP_OK)
    status = rp_cuda_ok(
        ctx, cudaMemsetAsync(d->fault, 0, sizeof *d->fault, d->stream),
        "memory for faults");
  return status;
}

static rp_status open_libraries(rp_context *ctx, rp_cuda_device *d) {
  rp_cuda_stretch stretch = rp_cuda_stretch_begin(d);
  rp_status status =
      rp_cublas_ok(ctx, cublasLtCreate(&d->blas), "opening cuBLASLt");
  rp_cuda_stretch_end(d, RP_CUDA_CUBLAS, stretch);
  stretch = rp_cuda_stretch_begin(d);
  if (status == RP_OK)
    status = rp_cudnn_ok(ctx, cudnnCreate(&d->dnn), "opening cuDNN");
  if (status == RP_OK)
    status = rp_cudnn_ok(ctx, cudnnSetStream(d->dnn, d->stream),
                         "opening cuDNN");
  rp_cuda_stretch_end(d, RP_CUDA_CUDNN, stretch);
  return status;
}

static rp_status open_device(rp_device *device) {
  rp_context *ctx = device->ctx;
  if (device->unit >= count()) return missing(ctx, device->unit);
  if (rp_cuda_driver_get(ctx) == nullptr) return RP_UNSUPPORTED;
  rp_cuda_device *d = new (std::nothrow) rp_cuda_device();
  if (d == nullptr) return rp_fail(ctx, RP_NOMEM, "[cuda] no memory");
  device->state = d;
  d->unit = device->unit;
  cudaDeviceProp p = {};
  rp_status status = rp_cuda_usage_open(ctx, d);
  if (status == RP_OK)
    status = rp_cuda_ok(ctx, cudaGetDeviceProperties(&p, d->unit),
                        "opening the device");
  if (status == RP_OK) {
    d->multiprocessors = p.multiProcessorCount;
    d->capability = 10 * p.major + p.minor;
    d->shared_per_block = (int64_t)p.sharedMemPerBlockOptin;
    device->rates = rates_of(&p, d->unit);
    d->check = rp_cuda_checks();
    device->records = !d->check;
    const rp_cuda_stretch stretch = rp_cuda_stretch_begin(d);
    status = open_streams(ctx, d);
    if (status == RP_OK) status = rp_cuda_memory_open(ctx, d);
    if (status == RP_OK) status = rp_cuda_delivery_open(ctx, d);
    rp_cuda_stretch_end(d, RP_CUDA_QUEUES, stretch);
  }
  /* Addresses cost nothing, and what is free in between has them, too. */
  const int64_t most = 4 * (int64_t)p.totalGlobalMem;
  if (status == RP_OK) status = rp_cuda_heap_open(&d->heap, ctx, d, most);
  if (status == RP_OK) status = rp_cuda_heap_open(&d->arena, ctx, d, most);
  if (status == RP_OK) status = open_libraries(ctx, d);
  if (status != RP_OK) close_device(device);
  return status;
}

/* ---- while it runs ------------------------------------------------------ */

static void ran(rp_device *device) {
  rp_cuda_memory_ran(rp_cuda_enter(device), device->runs);
}

static rp_status synchronize(rp_device *device) {
  rp_cuda_device *d = rp_cuda_enter(device);
  rp_status status = rp_cuda_ok(device->ctx, cudaStreamSynchronize(d->copies),
                                "copies to the device");
  if (status == RP_OK)
    status = rp_cuda_ok(device->ctx, cudaStreamSynchronize(d->stream),
                        "what ran on the device");
  return status;
}

static bool take_fault(rp_device *device, rp_fault *out) {
  rp_cuda_device *d = rp_cuda_enter(device);
  if (cudaMemcpyAsync(d->host_fault, d->fault, sizeof *d->fault,
                      cudaMemcpyDeviceToHost, d->stream) != cudaSuccess ||
      cudaStreamSynchronize(d->stream) != cudaSuccess)
    return false;
  const rp_cuda_fault found = *d->host_fault;
  if (found.node == 0) return false;
  *out = rp_fault{found.node - 1, found.found, found.limit};
  (void)cudaMemsetAsync(d->fault, 0, sizeof *d->fault, d->stream);
  return true;
}

static const char *describe(rp_device *device, int64_t *total,
                            int64_t *free_bytes) {
  static char text[320];
  rp_cuda_device *d = rp_cuda_enter(device);
  cudaDeviceProp p = {};
  size_t free_now = 0, all = 0;
  if (cudaGetDeviceProperties(&p, d->unit) != cudaSuccess ||
      cudaMemGetInfo(&free_now, &all) != cudaSuccess)
    return "";
  *total = (int64_t)all;
  *free_bytes = (int64_t)free_now;
  snprintf(text, sizeof text, "%s, %d multiprocessors of capability %d.%d",
           p.name, d->multiprocessors, d->capability / 10, d->capability % 10);
  return text;
}

/* ---- the record --------------------------------------------------------- */

extern "C" {
#define RP_TABLE(name) extern rp_kernel_table rp_cuda_##name;
#include "tables.def"
#undef RP_TABLE
}

static const rp_kernel_table *const tables[] = {
#define RP_TABLE(name) &rp_cuda_##name,
#include "tables.def"
#undef RP_TABLE
};

static const rp_backend backend = {
    "cuda",
    tables,
    sizeof tables / sizeof *tables,
    &rp_cuda_memory_functions,
    count,
    open_device,
    close_device,
    {100e12, 1e12},
    enter,
    ran,
    rp_cuda_record,
    rp_cuda_end_record,
    rp_cuda_replay,
    rp_cuda_forget,
    rp_cuda_take_slot,
    rp_cuda_give_slot,
    rp_cuda_deliver,
    rp_cuda_collect,
    synchronize,
    take_fault,
    describe,
    rp_cuda_loading,
    rp_cuda_usage,
    rp_cuda_time,
    rp_cuda_seconds,
    rp_cuda_free_timer,
};

extern "C" __attribute__((visibility("default")))
const rp_loaded_backend *rp_backend_load(void) {
  static const rp_loaded_backend loaded = {RP_BACKEND_ABI, &backend};
  return &loaded;
}
