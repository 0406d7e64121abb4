#include "streams.h"

#include <algorithm>
#include <vector>

#include "capture.h"
#include "counts.h"
#include "errors.h"
#include "lock.h"
#include "settings.h"

namespace cuda_emulator {

std::mutex device_mutex;
std::condition_variable host_function_ended;
std::atomic<long> counts[count_of_counts];

// Streams are never deleted: events and clocks point to them.
static std::vector<std::unique_ptr<Stream>> streams;

static Stream* make_stream(unsigned flags, int priority) {
  streams.push_back(std::make_unique<Stream>());
  streams.back()->flags = flags;
  streams.back()->priority = priority;
  return streams.back().get();
}

Stream* legacy_stream() {
  static Stream* made = make_stream(0, 0);
  return made;
}

static Stream* per_thread_stream() {
  static thread_local Stream* made = make_stream(0, 0);
  return made;
}

Stream* stream_of(cudaStream_t handle) {
  if (!handle || handle == cudaStreamLegacy) return legacy_stream();
  if (handle == cudaStreamPerThread) return per_thread_stream();
  for (auto& stream : streams)
    if (stream.get() == (Stream*)handle) return stream->destroyed ? nullptr : stream.get();
  return nullptr;
}

void advance(Clock& clock, const Clock& other) {
  for (auto& [stream, position] : other) clock[stream] = std::max(clock[stream], position);
}

static void run_first(Stream* stream) {
  Stream::Entry entry = std::move(stream->queue.front());
  stream->queue.pop_front();
  stream->runner = std::this_thread::get_id();
  for (auto& [other, position] : entry.after) run_until(other, position);
  if (entry.task.on_host) {
    device_mutex.unlock();
    entry.task.run();
    device_mutex.lock();
  } else if (entry.task.run) {
    entry.task.run();
  }
  stream->done++;
  stream->runner = {};
  host_function_ended.notify_all();
}

void run_until(Stream* stream, uint64_t position) {
  while (stream->done < std::min(position, stream->end)) {
    // A host function that waits for its own stream would wait for ever.
    if (stream->runner == std::this_thread::get_id()) return;
    if (stream->runner == std::thread::id()) {
      run_first(stream);
    } else {
      std::unique_lock<std::mutex> held(device_mutex, std::adopt_lock);
      host_function_ended.wait(held);
      held.release();
    }
  }
}

void run_all_streams() {
  for (size_t i = 0; i < streams.size(); i++) run_until(streams[i].get(), streams[i]->end);
}

static uint64_t draw(uint64_t below) {
  static uint64_t state = 2 * settings().seed + 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (state >> 33) % below;
}

// Runs what goes on by itself, now that the stream got a task. Nothing here waits for another thread.
static void go_on(Stream* changed) {
  auto run = [](Stream* stream, uint64_t tasks) {
    while (tasks-- && !stream->queue.empty() && stream->runner == std::thread::id()) run_first(stream);
  };
  switch (settings().late) {
    case Late::none: return run(changed, UINT64_MAX);
    case Late::all: return;
    case Late::blocking: return changed->blocking() ? void() : run(changed, UINT64_MAX);
    case Late::nonblocking: return changed->blocking() ? run(changed, UINT64_MAX) : void();
    case Late::random:
      for (size_t i = 0; i < streams.size(); i++)
        if (size_t waiting = streams[i]->queue.size()) run(streams[i].get(), draw(std::min<size_t>(3, waiting) + 1));
  }
}

cudaError_t enqueue(Stream* stream, Task task, Clock after) {
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return add_to_capture(stream, std::move(task));
  if (cudaError_t error = refuse_legacy_work(stream)) return error;
  trace("%s", task.name.c_str());
  // Work of the legacy stream is after that of all blocking streams before it, and before theirs after it.
  Stream* legacy = legacy_stream();
  if (stream == legacy) {
    for (auto& other : streams)
      if (other->blocking() && other->done < other->end) advance(after, {{other.get(), other->end}});
    after.erase(legacy);
  } else if (stream->blocking() && legacy->done < legacy->end) {
    advance(after, {{legacy, legacy->end}});
  }
  stream->queue.push_back({std::move(task), std::move(after)});
  stream->end++;
  go_on(stream);
  return cudaSuccess;
}

cudaError_t submit(cudaStream_t handle, std::function<void()> run, std::string name) {
  Locked locked;
  counts[others]++;
  return enqueue(stream_of(handle), {std::move(run), std::move(name)});
}

cudaError_t synchronize(Stream* stream) {
  counts[waits]++;
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return refuse_in_capture(stream, cudaErrorStreamCaptureUnsupported);
  if (cudaError_t error = refuse_legacy_work(stream)) return error;
  if (stream == legacy_stream())
    for (size_t i = 0; i < streams.size(); i++)
      if (streams[i]->blocking()) run_until(streams[i].get(), streams[i]->end);
  run_until(stream, stream->end);
  return error_of_queued();
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int priority) {
  Locked locked;
  if (!out || flags > cudaStreamNonBlocking) RETURN(cudaErrorInvalidValue);
  *out = (cudaStream_t)make_stream(flags, priority);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  return cudaStreamCreateWithPriority(out, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithPriority(out, 0, 0); }

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  *flags = stream->flags;
  return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  *priority = stream->priority;
  return cudaSuccess;
}

// What is queued still runs.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (!stream || !handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread)
    RETURN(cudaErrorInvalidResourceHandle);
  if (stream->capture) refuse_in_capture(stream, cudaErrorStreamCaptureUnsupported);
  stream->destroyed = true;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Locked locked;
  RETURN(synchronize(stream_of(handle)));
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  if (stream->capture) RETURN(refuse_in_capture(stream, cudaErrorStreamCaptureUnsupported));
  if (cudaError_t error = refuse_legacy_work(stream)) RETURN(error);
  RETURN(stream->done < stream->end ? cudaErrorNotReady : cudaSuccess);
}

cudaError_t cudaDeviceSynchronize() {
  Locked locked;
  counts[waits]++;
  if (cudaError_t error = refuse_in_any_capture()) RETURN(error);
  run_all_streams();
  RETURN(error_of_queued());
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  Locked locked;
  counts[others]++;
  RETURN(enqueue(stream_of(handle), {[=] { function(data); }, "host function", true}));
}

// Unlike a host function, a callback is refused in a capture.
cudaError_t cudaStreamAddCallback(cudaStream_t handle, cudaStreamCallback_t function, void* data, unsigned) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (stream && stream->capture) RETURN(refuse_in_capture(stream, cudaErrorStreamCaptureUnsupported));
  counts[others]++;
  RETURN(enqueue(stream, {[=] { function(handle, cudaSuccess, data); }, "callback", true}));
}

}  // extern "C"
