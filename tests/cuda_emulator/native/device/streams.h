// Streams as queues of tasks. A task runs when its stream is made to go on: at once by default, or, in one of the late
// modes, not before something waits for it, which shows what was not waited for.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

namespace cuda_emulator {

struct Capture;
struct Stream;

// How far each stream must be, counted in tasks.
using Clock = std::map<Stream*, uint64_t>;
void advance(Clock& clock, const Clock& other);

struct Task {
  std::function<void()> run;
  std::string name;
  // A function of the host, which may wait for another thread that waits for this device: it runs without the lock.
  bool on_host = false;
};

struct Stream {
  unsigned flags = 0;
  int priority = 0;
  bool destroyed = false;
  std::shared_ptr<Capture> capture;
  uint64_t done = 0, end = 0;

  struct Entry {
    Task task;
    Clock after;
  };
  std::deque<Entry> queue;
  // The thread that runs a task of this stream now.
  std::thread::id runner;

  // Whether work waits for that of the legacy stream, and that for this.
  bool blocking() const { return !(flags & cudaStreamNonBlocking); }
};

Stream* legacy_stream();
// Null if the handle is of no stream, or of one that was destroyed.
Stream* stream_of(cudaStream_t handle);

// Puts a task into the queue, or into the graph if the stream is in a capture.
cudaError_t enqueue(Stream* stream, Task task, Clock after = {});
// The same for code outside of the device: takes the lock, and counts it among the `others`.
cudaError_t submit(cudaStream_t stream, std::function<void()> run, std::string name);

void run_until(Stream* stream, uint64_t position);
void run_all_streams();
// Waits as cudaStreamSynchronize does, and counts it.
cudaError_t synchronize(Stream* stream);

}  // namespace cuda_emulator
