#include "capture.h"

#include <algorithm>

#include "errors.h"
#include "graph.h"
#include "lock.h"

namespace cuda_emulator {

static std::vector<std::shared_ptr<Capture>> going_on;
static thread_local cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;

bool Capture::has_blocking_stream() const {
  return std::any_of(reached.begin(), reached.end(), [](auto& each) { return each.first->blocking(); });
}

cudaError_t add_to_capture(Stream* stream, Task task) {
  Capture& c = *stream->capture;
  if (c.invalid) return cudaErrorStreamCaptureInvalidated;
  trace("capture: %s", task.name.c_str());
  Clock& clock = c.reached[stream];
  Clock before = clock;
  uint64_t position = ++clock[stream];
  c.nodes.push_back({std::move(task), stream, position, std::move(before)});
  return cudaSuccess;
}

cudaError_t refuse_in_capture(Stream* stream, cudaError_t error) {
  stream->capture->invalid = true;
  return error;
}

cudaError_t refuse_legacy_work(Stream* stream) {
  if (stream != legacy_stream()) return cudaSuccess;
  for (auto& capture : going_on)
    if (capture->has_blocking_stream()) {
      capture->invalid = true;
      return cudaErrorStreamCaptureImplicit;
    }
  return cudaSuccess;
}

cudaError_t refuse_in_any_capture() {
  for (auto& capture : going_on) capture->invalid = true;
  return going_on.empty() ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t refuse_unsafe_call() {
  if (mode_of_thread == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (auto& capture : going_on) {
    bool own = capture->thread == std::this_thread::get_id();
    bool global = capture->mode == cudaStreamCaptureModeGlobal && mode_of_thread == cudaStreamCaptureModeGlobal;
    if (capture->mode != cudaStreamCaptureModeRelaxed && (own || global)) {
      capture->invalid = true;
      return cudaErrorStreamCaptureUnsupported;
    }
  }
  return cudaSuccess;
}

// Whether all work of other streams comes before what the first stream does next.
static bool joined(Capture& c) {
  Clock& origin = c.reached[c.origin];
  for (auto& [stream, clock] : c.reached)
    if (origin[stream] < clock[stream]) return false;
  return true;
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  if (stream == legacy_stream()) RETURN(cudaErrorStreamCaptureUnsupported);
  if (stream->capture) RETURN(cudaErrorIllegalState);
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->mode = mode;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->reached[stream];
  going_on.push_back(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  Locked locked;
  *out = nullptr;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) RETURN(cudaErrorIllegalState);
  if (capture->origin != stream) RETURN(refuse_in_capture(stream, cudaErrorStreamCaptureUnmatched));
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id())
    RETURN(refuse_in_capture(stream, cudaErrorStreamCaptureWrongThread));
  bool all_joined = joined(*capture);
  for (auto& [member, clock] : capture->reached) member->capture = nullptr;
  going_on.erase(std::find(going_on.begin(), going_on.end(), capture));
  capture->ended = true;
  if (capture->invalid) RETURN(cudaErrorStreamCaptureInvalidated);
  if (!all_joined) RETURN(cudaErrorStreamCaptureUnjoined);
  *out = graph_of(std::move(capture->nodes));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  Locked locked;
  *status = cudaStreamCaptureStatusNone;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  // Unlike work of the legacy stream, this question is refused without harm to the capture.
  if (stream == legacy_stream())
    for (auto& capture : going_on)
      if (capture->has_blocking_stream()) RETURN(cudaErrorStreamCaptureImplicit);
  if (stream->capture)
    *status = stream->capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, mode_of_thread);
  return cudaSuccess;
}

}  // extern "C"
