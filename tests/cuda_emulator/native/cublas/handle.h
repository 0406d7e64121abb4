// A handle of cuBLAS, and how its functions queue their work.
#pragma once
#include <functional>
#include <string>

#include "../device/streams.h"

namespace cuda_emulator {

enum Status { success = 0, invalid_value = 7, execution_failed = 13, not_supported = 15 };
enum PointerMode { of_host, of_device };

struct Handle {
  cudaStream_t stream = nullptr;
  int pointer_mode = of_host;
  int math_mode = 0;
};

// alpha or beta: read at the call if it is the host's, and when the stream comes to it if it is the device's.
template <class T> class Scalar {
  T value{};
  const T* device = nullptr;

 public:
  Scalar(const Handle* handle, const T* address) {
    if (handle->pointer_mode == of_device) device = address;
    else value = *address;
  }
  T get() const { return device ? *device : value; }
};

inline Status queue(const Handle* handle, std::function<void()> work, std::string name) {
  return submit(handle->stream, std::move(work), std::move(name)) ? execution_failed : success;
}

}  // namespace cuda_emulator
