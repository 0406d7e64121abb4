// One lock for the state of the device. Functions of the CUDA interface take it; all others expect it to be held.
#pragma once
#include <condition_variable>
#include <mutex>

namespace cuda_emulator {

extern std::mutex device_mutex;
extern std::condition_variable host_function_ended;

struct Locked {
  std::lock_guard<std::mutex> guard{device_mutex};
};

}  // namespace cuda_emulator
