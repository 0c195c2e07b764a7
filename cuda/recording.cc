#include "recording.h"

rp_status rp_cuda_record(rp_device *device) {
  return rp_cuda_ok(device->ctx,
                    cudaStreamBeginCapture(rp_cuda_enter(device)->stream,
                                           cudaStreamCaptureModeThreadLocal),
                    "beginning to capture");
}

rp_status rp_cuda_end_record(rp_device *device, void **recording) {
  cudaGraph_t graph = nullptr;
  const cudaError_t ended =
      cudaStreamEndCapture(rp_cuda_enter(device)->stream, &graph);
  if (recording == nullptr) { /* what failed has been said */
    (void)cudaGetLastError();
    if (graph) cudaGraphDestroy(graph);
    return RP_OK;
  }
  rp_status status = rp_cuda_ok(device->ctx, ended, "capturing a program");
  cudaGraphExec_t made = nullptr;
  if (status == RP_OK)
    status = rp_cuda_ok(device->ctx, cudaGraphInstantiate(&made, graph, 0),
                        "making a CUDA graph");
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
  cudaStreamSynchronize(rp_cuda_enter(device)->stream);
  cudaGraphExecDestroy((cudaGraphExec_t)recording);
}
