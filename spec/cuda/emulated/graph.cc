/* Capturing streams, and replaying what was captured. */
#include <algorithm>

#include "queue.h"

using namespace emulated;

namespace {

unsigned long long captures = 0;
long long fail_in = 0;

/* A topological order by the chosen order: forward is as captured. */
cudaError_t replay(const std::vector<node> &nodes) {
  std::vector<int> waiting(nodes.size());
  std::vector<std::vector<int>> next(nodes.size());
  std::vector<int> ready;
  for (size_t i = 0; i < nodes.size(); i++) {
    waiting[i] = (int)nodes[i].after.size();
    for (int before : nodes[i].after) next[before].push_back((int)i);
    if (!waiting[i]) ready.push_back((int)i);
  }
  while (!ready.empty()) {
    const size_t at = pick(ready.size());
    const int chosen = ready[at];
    ready.erase(ready.begin() + at);
    const cudaError_t error = nodes[chosen].run();
    if (error != cudaSuccess) return error;
    for (int each : next[chosen])
      if (--waiting[each] == 0)
        ready.insert(std::lower_bound(ready.begin(), ready.end(), each), each);
  }
  return cudaSuccess;
}

} // namespace

namespace emulated {
void invalidate(CUstream_st *stream) {
  if (stream->capturing) stream->capturing->invalid = true;
}
} // namespace emulated

extern "C" {

void rp_emulated_fail_instantiate(long long k) { fail_in = k; }

cudaError_t cudaStreamBeginCapture(cudaStream_t handle,
                                   cudaStreamCaptureMode mode) {
  RP_EMULATED_ALIVE();
  CUstream_st *stream = resolve(handle);
  if (stream->legacy) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream->capturing) return fail(cudaErrorIllegalState);
  stream->capturing = std::make_shared<capture>();
  stream->capturing->mode = mode;
  stream->capturing->origin = stream;
  stream->capturing->id = ++captures;
  stream->capturing->streams = {stream};
  stream->frontier.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
  CUstream_st *stream = resolve(handle);
  if (graph) *graph = nullptr;
  if (!stream->capturing) return fail(cudaErrorIllegalState);
  if (stream->capturing->origin != stream)
    return fail(cudaErrorStreamCaptureUnmatched);
  const std::shared_ptr<capture> ended = stream->capturing;
  /* Joined: every node comes before something, or is where the origin is. */
  std::vector<bool> followed(ended->nodes.size());
  for (const node &each : ended->nodes)
    for (int before : each.after) followed[before] = true;
  for (int last : stream->frontier) followed[last] = true;
  const bool joined =
      std::find(followed.begin(), followed.end(), false) == followed.end();
  for (CUstream_st *each : ended->streams) {
    each->capturing = nullptr;
    each->frontier.clear();
  }
  RP_EMULATED_ALIVE();
  if (ended->invalid) return fail(cudaErrorStreamCaptureInvalidated);
  /* Events of it are no longer of any use, as on a device. */
  ended->invalid = true;
  if (!joined) return fail(cudaErrorStreamCaptureUnjoined);
  if (graph) *graph = new CUgraph_st{std::move(ended->nodes)};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle,
                                  cudaStreamCaptureStatus *status) {
  CUstream_st *stream = resolve(handle);
  *status = !stream->capturing ? cudaStreamCaptureStatusNone
            : stream->capturing->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  static cudaStreamCaptureMode own = cudaStreamCaptureModeGlobal;
  std::swap(own, *mode);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph,
                                 unsigned long long) {
  RP_EMULATED_ALIVE();
  if (!made || !graph) return fail(cudaErrorInvalidValue);
  if (fail_in && --fail_in == 0) return fail(cudaErrorMemoryAllocation);
  *made = new CUgraphExec_st{
      std::make_shared<std::vector<node>>(graph->nodes), 0};
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *made,
                                          cudaGraph_t graph,
                                          unsigned long long flags) {
  return cudaGraphInstantiate(made, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t) {
  RP_EMULATED_ALIVE();
  if (!graph) return fail(cudaErrorInvalidValue);
  const size_t bytes = graph->nodes->size() * NODE_BYTES;
  if (graph->bytes || !take_bytes(bytes))
    return graph->bytes ? cudaSuccess : fail(cudaErrorMemoryAllocation);
  graph->bytes = bytes;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t handle) {
  RP_EMULATED_ALIVE();
  if (!graph) return fail(cudaErrorInvalidValue);
  const cudaError_t uploaded = cudaGraphUpload(graph, handle);
  if (uploaded != cudaSuccess) return uploaded;
  const cudaError_t other = check_current(handle);
  if (other != cudaSuccess) return fail(other);
  const auto nodes = graph->nodes;
  const cudaError_t error = enqueue(handle, "cudaGraphLaunch", false,
                                    [nodes] { return replay(*nodes); });
  if (error != cudaSuccess) return error;
  CUstream_st *stream = resolve(handle);
  if (stream->capturing) return cudaSuccess;
  for (const node &each : *nodes)
    if (each.external) {
      each.external->captured = nullptr;
      /* At eager work the event has been reached already. */
      item made;
      made.name = "event";
      each.external->last = push(stream, std::move(made));
    }
  return cudaSuccess;
}
/* A replay that is queued keeps its nodes. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  if (graph) give_bytes(graph->bytes);
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes,
                              size_t *count) {
  if (!graph || !count) return fail(cudaErrorInvalidValue);
  if (!nodes) *count = graph->nodes.size();
  for (size_t i = 0; nodes && i < *count; i++)
    nodes[i] = i < graph->nodes.size()
                   ? reinterpret_cast<cudaGraphNode_t>(&graph->nodes[i])
                   : nullptr;
  return cudaSuccess;
}

} // extern "C"
