#include "recording.h"

#include "usage.h"

/* Relaxed: at addresses of another alignment than the first run's a row may
   take a kernel that nobody has loaded yet, and libraries load theirs through
   calls that the other modes refuse. Nothing here synchronises or allocates
   in between: the rows' tests capture in the strict mode. */
rp_status rp_cuda_record(rp_device *device) {
  return rp_cuda_ok(device->ctx,
                    cudaStreamBeginCapture(rp_cuda_enter(device)->stream,
                                           cudaStreamCaptureModeRelaxed),
                    "beginning to capture");
}

rp_status rp_cuda_end_record(rp_device *device, void **recording) {
  rp_cuda_device *d = rp_cuda_enter(device);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(d->stream, &graph);
  if (recording == nullptr) { /* what failed has been said */
    (void)cudaGetLastError();
    if (graph) cudaGraphDestroy(graph);
    return RP_OK;
  }
  rp_status status = rp_cuda_ok(device->ctx, ended, "capturing a program");
  cudaGraphExec_t made = nullptr;
  const rp_cuda_stretch stretch = rp_cuda_stretch_begin(d);
  if (status == RP_OK)
    status = rp_cuda_ok(device->ctx, cudaGraphInstantiate(&made, graph, 0),
                        "making a CUDA graph");
  /* What it takes of the device's memory it takes now, not when launched. */
  if (status == RP_OK && cudaGraphUpload(made, d->stream) != cudaSuccess)
    (void)cudaGetLastError();
  rp_cuda_stretch_end(d, RP_CUDA_GRAPHS, stretch);
  if (graph) cudaGraphDestroy(graph);
  if (status == RP_OK) *recording = made;
  return status;
}

rp_status rp_cuda_replay(rp_device *device, void *recording) {
  return rp_cuda_ok(device->ctx,
                    cudaGraphLaunch((cudaGraphExec_t)recording,
                                    rp_cuda_enter(device)->stream),
                    "replaying a CUDA graph");
}

void rp_cuda_forget(rp_device *device, void *recording) {
  /* It may still run. */
  rp_cuda_device *d = rp_cuda_enter(device);
  cudaStreamSynchronize(d->stream);
  const rp_cuda_stretch stretch = rp_cuda_stretch_begin(d);
  cudaGraphExecDestroy((cudaGraphExec_t)recording);
  rp_cuda_stretch_end(d, RP_CUDA_GRAPHS, stretch);
}
