// Copies and fills. Copies from or to pageable memory make the host wait, as on a GPU.
#include <cstring>
#include <vector>

#include "capture.h"
#include "counts.h"
#include "errors.h"
#include "lock.h"
#include "memory.h"
#include "settings.h"

namespace cuda_emulator {

// Rows of equal width, whose first bytes are a pitch apart.
struct Rows {
  char* first;
  size_t pitch;
  Kind kind;

  Rows(const void* address, size_t pitch) : first((char*)address), pitch(pitch), kind(kind_of(address)) {}
  bool within(size_t width, size_t height) const { return within_allocation(first, (height - 1) * pitch + width); }
};

static void copy_rows(char* to, size_t to_pitch, const char* from, size_t from_pitch, size_t width, size_t height) {
  if (width == to_pitch && width == from_pitch) width *= height, height = 1;
  for (size_t i = 0; i < height; i++) memmove(to + i * to_pitch, from + i * from_pitch, width);
}

static bool agrees(cudaMemcpyKind kind, bool to_is_device, bool from_is_device) {
  switch (kind) {
    case cudaMemcpyHostToHost: return !to_is_device && !from_is_device;
    case cudaMemcpyHostToDevice: return to_is_device && !from_is_device;
    case cudaMemcpyDeviceToHost: return !to_is_device && from_is_device;
    case cudaMemcpyDeviceToDevice: return to_is_device && from_is_device;
    default: return true;
  }
}

static cudaError_t copy(Rows to, Rows from, size_t width, size_t height, cudaMemcpyKind kind, Stream* stream,
                        bool wait) {
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (!width || !height) return cudaSuccess;
  bool to_is_device = to.kind == Kind::device, from_is_device = from.kind == Kind::device;
  if (!agrees(kind, to_is_device, from_is_device) || !to.within(width, height) || !from.within(width, height))
    return cudaErrorInvalidValue;
  bool pageable = to.kind == Kind::pageable || from.kind == Kind::pageable;
  if (stream->capture && (pageable || wait)) return refuse_in_capture(stream, cudaErrorStreamCaptureUnsupported);

  counts[!to_is_device ? to_host : from_is_device ? within : to_device]++;
  std::string name = "copy " + std::to_string(height) + " x " + std::to_string(width) + " bytes";
  Task task;
  if (from.kind == Kind::pageable && !wait) {
    // The caller may overwrite pageable memory as soon as the function returns.
    auto staged = std::make_shared<std::vector<char>>(width * height);
    copy_rows(staged->data(), width, from.first, from.pitch, width, height);
    task = {[=] { copy_rows(to.first, to.pitch, staged->data(), width, width, height); }, name};
  } else {
    task = {[=] { copy_rows(to.first, to.pitch, from.first, from.pitch, width, height); }, name};
  }
  if (cudaError_t error = enqueue(stream, std::move(task))) return error;
  return wait || to.kind == Kind::pageable ? synchronize(stream) : cudaSuccess;
}

static cudaError_t copy_now(Rows to, Rows from, size_t width, size_t height, cudaMemcpyKind kind) {
  if (cudaError_t error = refuse_unsafe_call()) return error;
  return copy(to, from, width, height, kind, legacy_stream(), true);
}

static cudaError_t fill(void* address, int value, size_t bytes, Stream* stream) {
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (!bytes) return cudaSuccess;
  if (kind_of(address) == Kind::pageable || !within_allocation(address, bytes)) return cudaErrorInvalidValue;
  counts[fills]++;
  return enqueue(stream, {[=] { memset(address, value, bytes); }, "fill " + std::to_string(bytes) + " bytes"});
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  Locked locked;
  RETURN(copy_now({to, bytes}, {from, bytes}, bytes, 1, kind));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Locked locked;
  RETURN(copy({to, bytes}, {from, bytes}, bytes, 1, kind, stream_of(stream), false));
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  Locked locked;
  RETURN(copy_now({to, to_pitch}, {from, from_pitch}, width, height, kind));
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  Locked locked;
  RETURN(copy({to, to_pitch}, {from, from_pitch}, width, height, kind, stream_of(stream), false));
}

// There is one device.
cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  return cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemset(void* address, int value, size_t bytes) {
  Locked locked;
  RETURN(fill(address, value, bytes, legacy_stream()));
}

cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t stream) {
  Locked locked;
  RETURN(fill(address, value, bytes, stream_of(stream)));
}

}  // extern "C"
