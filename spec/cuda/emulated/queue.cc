/* Streams, events and copies. */
#include <algorithm>
#include <ctime>
#include <map>
#include <set>
#include <string>

#include "queue.h"

using namespace emulated;

namespace {

CUstream_st legacy_stream, per_thread_stream;
std::set<CUstream_st *> streams;
int eager = -1;
long long fail_in = 0, launches = 0;
std::map<std::string, long long> launches_of;

double now_ms() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

bool is_eager() {
  if (eager < 0) {
    const char *text = getenv("RP_EMULATED_EAGER");
    eager = text && *text && strcmp(text, "0");
  }
  return eager;
}

/* Works the stream off up to a position. */
cudaError_t advance(CUstream_st *stream, uint64_t position) {
  while (stream->done < position) {
    item next = std::move(stream->queue.front());
    stream->queue.pop_front();
    for (const record &each : next.waits) {
      if (each->done) continue;
      const cudaError_t error = advance(each->stream, each->position);
      if (error != cudaSuccess) return error;
    }
    const cudaError_t error = lost() == cudaSuccess && next.run ? next.run()
                                                                : lost();
    stream->done++;
    if (next.made) {
      next.made->done = true;
      next.made->milliseconds = now_ms();
    }
    if (error != cudaSuccess && lost() == cudaSuccess)
      lose(error, next.name + ": " + cudaGetErrorString(error));
  }
  return lost();
}

bool is_known(CUstream_st *stream) {
  return stream == &legacy_stream || stream == &per_thread_stream ||
         streams.count(stream);
}

cudaError_t check_stream(CUstream_st *stream) {
  if (!is_known(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capturing && stream->capturing->invalid)
    return cudaErrorStreamCaptureInvalidated;
  return cudaSuccess;
}

cudaError_t copy_now(void *to, const void *from, size_t bytes) {
  opened memory;
  return run_guarded("cudaMemcpy", [=] { memmove(to, from, bytes); });
}

/* Both ends, against what the direction says of them. */
cudaError_t check_copy(const void *to, const void *from, size_t bytes,
                       cudaMemcpyKind kind) {
  const bool to_device = owner(to) == DEVICE;
  const bool from_device = owner(from) == DEVICE;
  if (to_device && !is_on_device(to, bytes)) return cudaErrorInvalidValue;
  if (from_device && !is_on_device(from, bytes)) return cudaErrorInvalidValue;
  switch (kind) {
  case cudaMemcpyDefault: return cudaSuccess;
  case cudaMemcpyHostToHost:
    return to_device || from_device ? cudaErrorInvalidValue : cudaSuccess;
  case cudaMemcpyHostToDevice:
    return (to_device || owner(to) == PINNED) && !from_device
               ? cudaSuccess : cudaErrorInvalidValue;
  case cudaMemcpyDeviceToHost:
    return !to_device && (from_device || owner(from) == PINNED)
               ? cudaSuccess : cudaErrorInvalidValue;
  case cudaMemcpyDeviceToDevice:
    return owner(to) != PAGEABLE && owner(from) != PAGEABLE
               ? cudaSuccess : cudaErrorInvalidValue;
  }
  return cudaErrorInvalidMemcpyDirection;
}

void fill(char *to, int value, size_t bytes) { memset(to, value, bytes); }

} // namespace

namespace emulated {

CUstream_st *resolve(CUstream_st *stream) {
  if (!stream || stream == cudaStreamLegacy) {
    legacy_stream.legacy = true;
    return &legacy_stream;
  }
  return stream == cudaStreamPerThread ? &per_thread_stream : stream;
}

bool is_capturing(cudaStream_t stream) {
  return resolve(stream)->capturing != nullptr;
}

cudaError_t refuse_in_capture() {
  for (CUstream_st *stream : streams)
    if (stream->capturing && !stream->capturing->invalid &&
        stream->capturing->mode != cudaStreamCaptureModeRelaxed) {
      invalidate(stream);
      return cudaErrorStreamCaptureUnsupported;
    }
  return cudaSuccess;
}

record push(CUstream_st *stream, item made) {
  /* The legacy stream and those that are not NonBlocking wait for each
     other. */
  auto wait_for = [&](CUstream_st *other) {
    if (other != stream && other->done < other->enqueued)
      made.waits.push_back(std::make_shared<emulated_record>(
          emulated_record{other, other->enqueued, false, 0}));
  };
  if (stream->legacy) {
    for (CUstream_st *other : streams)
      if (!(other->flags & cudaStreamNonBlocking)) wait_for(other);
  } else if (!(stream->flags & cudaStreamNonBlocking)) {
    wait_for(&legacy_stream);
  }
  if (!made.made) made.made = std::make_shared<emulated_record>();
  *made.made = emulated_record{stream, ++stream->enqueued, false, 0};
  record point = made.made;
  stream->queue.push_back(std::move(made));
  if (is_eager()) drain(stream);
  return point;
}

cudaError_t enqueue(cudaStream_t handle, const std::string &name, bool counts,
                    operation run) {
  RP_EMULATED_ALIVE();
  CUstream_st *stream = resolve(handle);
  const cudaError_t wrong = check_stream(stream);
  if (wrong != cudaSuccess) return fail(wrong);
  operation counted = run;
  if (counts)
    counted = [name, run] {
      if (fail_in && --fail_in == 0)
        return lose(cudaErrorLaunchFailure, name + ": failed as asked");
      launches++;
      launches_of[name]++;
      return run();
    };
  if (stream->capturing) {
    stream->capturing->nodes.push_back(
        node{name, counted, stream->frontier, nullptr});
    stream->frontier = {(int)stream->capturing->nodes.size() - 1};
    return cudaSuccess;
  }
  if (stream->legacy)
    for (CUstream_st *other : streams)
      if (other->capturing && !(other->flags & cudaStreamNonBlocking)) {
        invalidate(other);
        return fail(cudaErrorStreamCaptureImplicit);
      }
  item made;
  made.name = name;
  made.run = std::move(counted);
  push(stream, std::move(made));
  return is_eager() && lost() != cudaSuccess ? fail(lost()) : cudaSuccess;
}

cudaError_t check_current(cudaStream_t handle) {
  CUstream_st *stream = resolve(handle);
  return stream == &legacy_stream || stream == &per_thread_stream ||
                 stream->device == current_device()
             ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t enqueue_library(cudaStream_t stream, const std::string &name,
                            std::function<void()> f) {
  const cudaError_t other = check_current(stream);
  if (other != cudaSuccess) return fail(other);
  const cudaError_t loaded = load_code(name);
  if (loaded != cudaSuccess) return loaded;
  return enqueue(stream, name, true,
                 [name, f] { return run_guarded(name, f); });
}

cudaError_t drain(cudaStream_t handle) {
  CUstream_st *stream = resolve(handle);
  if (stream->done == stream->enqueued) return lost();
  opened memory;
  return advance(stream, stream->enqueued);
}

void drop_all() {
  std::vector<CUstream_st *> all(streams.begin(), streams.end());
  all.push_back(&legacy_stream);
  all.push_back(&per_thread_stream);
  for (CUstream_st *stream : all) {
    for (item &each : stream->queue) each.made->done = true;
    stream->queue.clear();
    stream->done = stream->enqueued;
    stream->capturing = nullptr;
    stream->frontier.clear();
  }
}

cudaError_t drain_all() {
  opened memory;
  /* Which of several streams is ahead is nobody's business: by the order. */
  for (;;) {
    std::vector<CUstream_st *> busy;
    for (CUstream_st *stream : streams)
      if (stream->done < stream->enqueued) busy.push_back(stream);
    for (CUstream_st *stream : {&legacy_stream, &per_thread_stream})
      if (stream->done < stream->enqueued) busy.push_back(stream);
    if (busy.empty()) return lost();
    CUstream_st *chosen = busy[pick(busy.size())];
    const cudaError_t error = advance(chosen, chosen->done + 1);
    if (error != cudaSuccess) return error;
  }
}

} // namespace emulated

extern "C" {

void rp_emulated_eager(int now) {
  eager = now;
  if (now) drain_all();
}
void rp_emulated_fail_launch(long long k) { fail_in = k; }
long long rp_emulated_launches(void) { return launches; }
long long rp_emulated_launches_of(const char *name) {
  const auto found = launches_of.find(name);
  return found == launches_of.end() ? 0 : found->second;
}
const char *rp_emulated_launch_counts(void) {
  static std::string text;
  text.clear();
  for (const auto &each : launches_of)
    text += each.first + " " + std::to_string(each.second) + "\n";
  return text.c_str();
}

/* ---- streams ------------------------------------------------------------ */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  RP_EMULATED_ALIVE();
  if (!stream || flags & ~cudaStreamNonBlocking)
    return fail(cudaErrorInvalidValue);
  *stream = new CUstream_st;
  (*stream)->flags = flags;
  (*stream)->device = current_device();
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags,
                                         int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!streams.count(stream)) return fail(cudaErrorInvalidResourceHandle);
  const cudaError_t error = drain(stream);
  /* Records of it may be waited for still. */
  for (CUstream_st *other : streams)
    if (other != stream)
      for (item &each : other->queue)
        each.waits.erase(
            std::remove_if(each.waits.begin(), each.waits.end(),
                           [&](const record &r) { return r->stream == stream; }),
            each.waits.end());
  streams.erase(stream);
  delete stream;
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  RP_EMULATED_ALIVE();
  CUstream_st *stream = resolve(handle);
  if (!is_known(stream)) return fail(cudaErrorInvalidResourceHandle);
  if (stream->capturing) {
    invalidate(stream);
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  const cudaError_t error = drain(stream);
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  RP_EMULATED_ALIVE();
  CUstream_st *stream = resolve(handle);
  if (!is_known(stream)) return fail(cudaErrorInvalidResourceHandle);
  if (stream->capturing) {
    invalidate(stream);
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  if (stream->done == stream->enqueued) return cudaSuccess;
  opened memory;
  const cudaError_t error = advance(stream, stream->done + 1);
  return error == cudaSuccess ? cudaErrorNotReady : fail(error);
}
cudaError_t cudaDeviceSynchronize(void) {
  RP_EMULATED_ALIVE();
  for (CUstream_st *stream : streams)
    if (stream->capturing) {
      invalidate(stream);
      return fail(cudaErrorStreamCaptureUnsupported);
    }
  const cudaError_t error = drain_all();
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f,
                               void *data) {
  return enqueue(stream, "host function", false, [=] {
    f(data);
    return cudaSuccess;
  });
}

/* ---- events ------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  RP_EMULATED_ALIVE();
  if (!event) return fail(cudaErrorInvalidValue);
  *event = new CUevent_st;
  (*event)->flags = flags;
  (*event)->device = current_device();
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle,
                                     unsigned flags) {
  RP_EMULATED_ALIVE();
  CUstream_st *stream = resolve(handle);
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  const cudaError_t wrong = check_stream(stream);
  if (wrong != cudaSuccess) return fail(wrong);
  if (stream != &legacy_stream && stream != &per_thread_stream &&
      stream->device != event->device)
    return fail(cudaErrorInvalidResourceHandle);
  if (stream->capturing && flags & cudaEventRecordExternal) {
    stream->capturing->nodes.push_back(
        node{"event", [] { return cudaSuccess; }, stream->frontier, event});
    stream->frontier = {(int)stream->capturing->nodes.size() - 1};
    return cudaSuccess;
  }
  if (stream->capturing) {
    event->captured = stream->capturing;
    event->frontier = stream->frontier;
    return cudaSuccess;
  }
  if (flags & cudaEventRecordExternal) return fail(cudaErrorIllegalState);
  event->captured = nullptr;
  item made;
  made.name = "event";
  event->last = push(stream, std::move(made));
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event,
                                unsigned flags) {
  RP_EMULATED_ALIVE();
  CUstream_st *stream = resolve(handle);
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  const cudaError_t wrong = check_stream(stream);
  if (wrong != cudaSuccess) return fail(wrong);
  const bool external = flags & cudaEventWaitExternal;
  if (event->captured && event->captured->invalid)
    return fail(cudaErrorStreamCaptureInvalidated);
  if (event->captured && !external) {
    if (stream->capturing && stream->capturing != event->captured) {
      invalidate(stream);
      return fail(cudaErrorStreamCaptureMerge);
    }
    if (!stream->capturing) {
      if (stream->legacy) return fail(cudaErrorStreamCaptureImplicit);
      stream->capturing = event->captured;
      stream->frontier.clear();
      stream->capturing->streams.push_back(stream);
    }
    for (int each : event->frontier)
      if (std::find(stream->frontier.begin(), stream->frontier.end(), each) ==
          stream->frontier.end())
        stream->frontier.push_back(each);
    return cudaSuccess;
  }
  if (stream->capturing) {
    if (!external) {
      invalidate(stream);
      return fail(cudaErrorStreamCaptureIsolation);
    }
    stream->capturing->nodes.push_back(node{
        "wait", [event] {
          return event->last && !event->last->done
                     ? advance(event->last->stream, event->last->position)
                     : cudaSuccess;
        }, stream->frontier, nullptr});
    stream->frontier = {(int)stream->capturing->nodes.size() - 1};
    return cudaSuccess;
  }
  if (!event->last || event->last->done) return cudaSuccess;
  item made;
  made.name = "wait";
  made.waits = {event->last};
  push(stream, std::move(made));
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  RP_EMULATED_ALIVE();
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  if (event->captured) return fail(cudaErrorCapturedEvent);
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  if (!event->last || event->last->done) return cudaSuccess;
  opened memory;
  const cudaError_t error = advance(event->last->stream, event->last->position);
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  RP_EMULATED_ALIVE();
  if (!event) return fail(cudaErrorInvalidResourceHandle);
  if (event->captured) return fail(cudaErrorCapturedEvent);
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  if (!event->last || event->last->done) return cudaSuccess;
  /* Asking makes some headway, so that a loop around it ends. */
  opened memory;
  CUstream_st *stream = event->last->stream;
  const cudaError_t error = advance(stream, stream->done + 1);
  return error == cudaSuccess ? cudaErrorNotReady : fail(error);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start,
                                 cudaEvent_t end) {
  RP_EMULATED_ALIVE();
  if (!start || !end || !start->last || !end->last ||
      (start->flags | end->flags) & cudaEventDisableTiming)
    return fail(cudaErrorInvalidResourceHandle);
  if (!start->last->done || !end->last->done) return fail(cudaErrorNotReady);
  *ms = (float)(end->last->milliseconds - start->last->milliseconds);
  return cudaSuccess;
}

/* ---- copies ------------------------------------------------------------- */

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  RP_EMULATED_ALIVE();
  if (bytes == 0) return cudaSuccess;
  const cudaError_t wrong = check_copy(to, from, bytes, kind);
  if (wrong != cudaSuccess) return fail(wrong);
  const bool pageable_to = owner(to) == PAGEABLE;
  const bool pageable_from = owner(from) == PAGEABLE;
  if ((pageable_to || pageable_from) && is_capturing(stream)) {
    invalidate(resolve(stream));
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  /* Pageable memory is read before the call returns, and has been written when
     it does. */
  if (pageable_from) {
    auto staged = std::make_shared<std::vector<char>>(
        static_cast<const char *>(from),
        static_cast<const char *>(from) + bytes);
    const cudaError_t error = enqueue(stream, "cudaMemcpyAsync", false, [=] {
      return copy_now(to, staged->data(), bytes);
    });
    if (error != cudaSuccess || !pageable_to) return error;
  } else {
    const cudaError_t error =
        enqueue(stream, "cudaMemcpyAsync", false,
                [=] { return copy_now(to, from, bytes); });
    if (error != cudaSuccess || !pageable_to) return error;
  }
  const cudaError_t error = drain(stream);
  return error == cudaSuccess ? error : fail(error);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes,
                       cudaMemcpyKind kind) {
  RP_EMULATED_ALIVE();
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  if (error != cudaSuccess) return error;
  const cudaError_t ran = drain(nullptr);
  return ran == cudaSuccess ? ran : fail(ran);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from,
                              size_t from_pitch, size_t width, size_t height,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch)
    return fail(cudaErrorInvalidPitchValue);
  for (size_t row = 0; row < height; row++) {
    const cudaError_t error = cudaMemcpyAsync(
        static_cast<char *>(to) + row * to_pitch,
        static_cast<const char *>(from) + row * from_pitch, width, kind,
        stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes,
                            cudaStream_t stream) {
  RP_EMULATED_ALIVE();
  if (bytes == 0) return cudaSuccess;
  if (owner(to) == PAGEABLE || (owner(to) == DEVICE && !is_on_device(to, bytes)))
    return fail(cudaErrorInvalidValue);
  const cudaError_t other = check_current(stream);
  if (other != cudaSuccess) return fail(other);
  return enqueue(stream, "cudaMemsetAsync", false, [=] {
    return run_guarded("cudaMemset",
                       [=] { fill(static_cast<char *>(to), value, bytes); });
  });
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
  const cudaError_t refused = refuse_in_capture();
  if (refused != cudaSuccess) return fail(refused);
  /* To the device it is asynchronous, as on a real one. */
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

} // extern "C"
