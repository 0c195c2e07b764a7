/* One GPU that a context uses: its queue, its libraries' handles and what its
   kernels need to know of it. Kernels get it as rp_kernel_args.device. */
#ifndef RP_CUDA_DEVICE_H
#define RP_CUDA_DEVICE_H

#ifdef RP_EMULATED
#include "emulated.h"
#else
#include <cuda.h>
#include <cuda_runtime.h>
#endif
#include <cublasLt.h>
#include <cudnn.h>

#include "exec/backend.h"

/* What a kernel found wrong with a value. A kernel that meets an index out of
   its range writes `found` and sets `node` (from 0 to its own number + 1, so
   the first fault stays), and goes on with index 0; effects look at `node`
   first and write nothing where it is not 0. The run then fails with
   RP_VALUE. */
typedef struct rp_cuda_fault {
  int node;
  long long found, limit;
} rp_cuda_fault;

/* What of a device's memory no plan counts (usage.h). */
typedef enum rp_cuda_part {
  RP_CUDA_CONTEXT,
  RP_CUDA_QUEUES,
  RP_CUDA_CUBLAS,
  RP_CUDA_CUDNN,
  RP_CUDA_CODE,   /* kernels: loaded when first launched, or compiled */
  RP_CUDA_GRAPHS,
  RP_CUDA_PARTS
} rp_cuda_part;

typedef struct rp_cuda_stretch {
  int64_t outside, noted;
} rp_cuda_stretch;

typedef struct rp_cuda_device {
  int unit;
  cudaStream_t stream;        /* everything a program does */
  cudaStream_t copies;        /* batches on their way in */
  cublasLtHandle_t blas;
  cudnnHandle_t dnn;          /* set to `stream` */
  int multiprocessors;
  int capability;             /* 80, 90, ... */
  int64_t shared_per_block;   /* the most a block may opt in to, bytes */
  bool check;                 /* RP_CUDA_CHECK=1: synchronise after launches */
  rp_cuda_fault *fault;       /* in its memory: effects read it often */
  rp_cuda_fault *host_fault;  /* pinned: where it is copied to */
  struct rp_cuda_heap *heap;  /* storage: heap.h */
  struct rp_cuda_heap *arena;
  struct rp_cuda_memory *memory;
  struct rp_cuda_delivery *delivery;
  struct {
    int64_t before; /* handed out by the driver before the context was made */
    int64_t parts[RP_CUDA_PARTS];
    rp_cuda_stretch loading;
  } usage;
} rp_cuda_device;

static inline rp_cuda_device *rp_cuda_of(const rp_kernel_args *args) {
  return (rp_cuda_device *)args->device;
}

/* The backend's state of a device, which becomes the calling thread's: kernels
   go to the queues of no other. */
rp_cuda_device *rp_cuda_enter(rp_device *device);

/* RP_OK, or the status and message for a failure of CUDA, cuBLASLt, cuDNN or
   NVRTC in `what`. A device that is lost stays so, and says so. */
rp_status rp_cuda_ok(rp_context *ctx, cudaError_t error, const char *what);
rp_status rp_cublas_ok(rp_context *ctx, cublasStatus_t status,
                       const char *what);
rp_status rp_cudnn_ok(rp_context *ctx, cudnnStatus_t status, const char *what);

/* RP_CUDA_CHECK=1 is in the environment. */
bool rp_cuda_checks(void);
/* After a launch: its error, if any; under RP_CUDA_CHECK=1 (and outside a
   recording) it waits for the kernel and names it where it failed. */
rp_status rp_cuda_launched(const rp_kernel_args *args, const char *kernel,
                           cudaError_t error);

#endif
