/* A device for tests that run rows by hand: what rp_cuda_device has for a
   kernel to find, and nothing of heaps and programs. */
#ifndef RP_SPEC_CUDA_OPENED_H
#define RP_SPEC_CUDA_OPENED_H

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "device.h"

static inline void must(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

/* Whether there is one to run on. */
static inline bool has_device() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess && n > 0;
}

static inline rp_cuda_device *open_device() {
  static rp_cuda_device device = {};
  if (device.stream) return &device;
  must(cudaSetDevice(0), "cudaSetDevice");
  must(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking),
       "cudaStreamCreateWithFlags");
  must(cudaHostAlloc((void **)&device.host_fault, sizeof *device.host_fault,
                     cudaHostAllocMapped), "cudaHostAlloc");
  memset(device.host_fault, 0, sizeof *device.host_fault);
  must(cudaHostGetDevicePointer((void **)&device.fault, device.host_fault, 0),
       "cudaHostGetDevicePointer");
  int major = 0, minor = 0, shared = 0;
  must(cudaDeviceGetAttribute(&device.multiprocessors,
                              cudaDevAttrMultiProcessorCount, 0), "attribute");
  must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0),
       "attribute");
  must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0),
       "attribute");
  must(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                              0), "attribute");
  device.capability = 10 * major + minor;
  device.shared_per_block = shared;
  if (cublasLtCreate(&device.blas) != CUBLAS_STATUS_SUCCESS ||
      cudnnCreate(&device.dnn) != CUDNN_STATUS_SUCCESS ||
      cudnnSetStream(device.dnn, device.stream) != CUDNN_STATUS_SUCCESS) {
    fprintf(stderr, "cuBLASLt or cuDNN did not open\n");
    exit(1);
  }
  return &device;
}

#endif
