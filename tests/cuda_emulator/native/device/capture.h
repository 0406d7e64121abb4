// The capture of streams into a graph, and what CUDA refuses while it goes on.
#pragma once
#include <vector>

#include "streams.h"

namespace cuda_emulator {

struct Node {
  Task task;
  // Its stream and place there, and what it comes after.
  Stream* stream;
  uint64_t position;
  Clock after;
};

struct Capture {
  Stream* origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  bool invalid = false, ended = false;
  std::vector<Node> nodes;
  // What each stream of the capture comes after by now, its own nodes included.
  std::map<Stream*, Clock> reached;

  bool has_blocking_stream() const;
};

cudaError_t add_to_capture(Stream* stream, Task task);

// Each of these returns an error if a capture forbids what the caller is about to do, and invalidates that capture.
cudaError_t refuse_in_capture(Stream* stream, cudaError_t error);
// Work of the legacy stream would have to wait for a blocking stream that is in a capture.
cudaError_t refuse_legacy_work(Stream* stream);
// What waits for the whole device.
cudaError_t refuse_in_any_capture();
// What CUDA calls potentially unsafe, such as an allocation: a capture in global mode forbids it to all threads, one in
// thread-local mode to its own, a relaxed one to none.
cudaError_t refuse_unsafe_call();

}  // namespace cuda_emulator
