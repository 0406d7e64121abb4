// Events: a position in a stream, or in a capture.
#include <chrono>
#include <set>

#include "capture.h"
#include "errors.h"
#include "lock.h"

namespace cuda_emulator {

struct Event {
  unsigned flags = 0;
  // Recorded here last; null if it never was.
  Stream* stream = nullptr;
  uint64_t position = 0;
  // Seconds, not negative once the stream got there.
  std::shared_ptr<double> time;
  // In place of the position, if that stream was in a capture.
  std::shared_ptr<Capture> capture;
  Clock reached;

  bool happened() const { return !stream || stream->done >= position; }
};

static std::set<Event*> events;

static Event* event_of(cudaEvent_t handle) { return events.count((Event*)handle) ? (Event*)handle : nullptr; }

// An event that was recorded in a capture is no place in time.
static cudaError_t refuse_captured(Event* event) {
  if (!event->capture) return cudaSuccess;
  event->capture->invalid = true;
  return cudaErrorCapturedEvent;
}

static cudaError_t join_capture(Stream* stream, Event* event) {
  std::shared_ptr<Capture> theirs = event->capture;
  if (theirs->ended) return cudaErrorCapturedEvent;
  if (theirs->invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream == legacy_stream()) {
    theirs->invalid = true;
    return cudaErrorStreamCaptureImplicit;
  }
  if (stream->capture && stream->capture != theirs) {
    theirs->invalid = stream->capture->invalid = true;
    return cudaErrorStreamCaptureMerge;
  }
  stream->capture = theirs;
  advance(theirs->reached[stream], event->reached);
  return cudaSuccess;
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  Locked locked;
  auto* event = new Event;
  event->flags = flags;
  events.insert(event);
  *out = (cudaEvent_t)event;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  Locked locked;
  Event* event = event_of(handle);
  if (!event) RETURN(cudaErrorInvalidResourceHandle);
  events.erase(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on) {
  Locked locked;
  Event* event = event_of(handle);
  Stream* stream = stream_of(on);
  if (!event || !stream) RETURN(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    if (stream->capture->invalid) RETURN(cudaErrorStreamCaptureInvalidated);
    event->capture = stream->capture;
    event->reached = stream->capture->reached[stream];
    return cudaSuccess;
  }
  auto time = std::make_shared<double>(-1);
  auto note = [=] {
    *time = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  // The position is that of the note itself, which may run within the call.
  uint64_t position = stream->end + 1;
  if (cudaError_t error = enqueue(stream, {note, "record event"})) RETURN(error);
  event->capture = nullptr;
  event->stream = stream;
  event->position = position;
  event->time = time;
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t by, cudaEvent_t handle, unsigned) {
  Locked locked;
  Event* event = event_of(handle);
  Stream* stream = stream_of(by);
  if (!event || !stream) RETURN(cudaErrorInvalidResourceHandle);
  if (event->capture) RETURN(join_capture(stream, event));
  if (!event->stream) return cudaSuccess;
  if (stream->capture) RETURN(refuse_in_capture(stream, cudaErrorStreamCaptureIsolation));
  RETURN(enqueue(stream, {nullptr, "wait for event"}, {{event->stream, event->position}}));
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  Locked locked;
  Event* event = event_of(handle);
  if (!event) RETURN(cudaErrorInvalidResourceHandle);
  if (cudaError_t error = refuse_captured(event)) RETURN(error);
  RETURN(event->happened() ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  Locked locked;
  Event* event = event_of(handle);
  if (!event) RETURN(cudaErrorInvalidResourceHandle);
  if (cudaError_t error = refuse_captured(event)) RETURN(error);
  if (event->stream) run_until(event->stream, event->position);
  RETURN(error_of_queued());
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Locked locked;
  Event *first = event_of(start), *last = event_of(end);
  if (!first || !last || !first->time || !last->time || (first->flags | last->flags) & cudaEventDisableTiming)
    RETURN(cudaErrorInvalidResourceHandle);
  if (*first->time < 0 || *last->time < 0) RETURN(cudaErrorNotReady);
  *milliseconds = float((*last->time - *first->time) * 1e3);
  return cudaSuccess;
}

}  // extern "C"
