#include "recording.h"

static rp_cuda_device *state_of(rp_device *device) {
  return (rp_cuda_device *)device->state;
}

rp_status rp_cuda_record(rp_device *device) {
  return rp_cuda_ok(device->ctx,
                    cudaStreamBeginCapture(state_of(device)->stream,
                                           cudaStreamCaptureModeThreadLocal),
                    "beginning to capture");
}

rp_status rp_cuda_end_record(rp_device *device, void **recording) {
  cudaGraph_t graph = nullptr;
  rp_status status =
      rp_cuda_ok(device->ctx,
                 cudaStreamEndCapture(state_of(device)->stream, &graph),
                 "capturing a program");
  cudaGraphExec_t made = nullptr;
  if (status == RP_OK && recording)
    status = rp_cuda_ok(device->ctx, cudaGraphInstantiate(&made, graph, 0),
                        "making a CUDA graph");
  if (graph) cudaGraphDestroy(graph);
  if (status == RP_OK && recording) *recording = made;
  return status;
}

rp_status rp_cuda_replay(rp_device *device, void *recording) {
  return rp_cuda_ok(device->ctx,
                    cudaGraphLaunch((cudaGraphExec_t)recording,
                                    state_of(device)->stream),
                    "replaying a CUDA graph");
}

void rp_cuda_forget(rp_device *device, void *recording) {
  /* It may still run. */
  cudaStreamSynchronize(state_of(device)->stream);
  cudaGraphExecDestroy((cudaGraphExec_t)recording);
}
