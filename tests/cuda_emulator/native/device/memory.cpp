#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <map>

#include "capture.h"
#include "counts.h"
#include "errors.h"
#include "lock.h"
#include "settings.h"
#include "streams.h"

namespace cuda_emulator {

struct Allocation {
  size_t bytes;
  Kind kind;
  bool managed, ours;
};

// By first address.
static std::map<uintptr_t, Allocation> known;
static size_t used = 0;

static std::map<uintptr_t, Allocation>::iterator containing(const void* address) {
  auto next = known.upper_bound(uintptr_t(address));
  if (next == known.begin()) return known.end();
  auto found = std::prev(next);
  return uintptr_t(address) - found->first < found->second.bytes ? found : known.end();
}

Kind kind_of(const void* address) {
  auto found = containing(address);
  return found == known.end() ? Kind::pageable : found->second.kind;
}

bool within_allocation(const void* address, size_t bytes) {
  auto found = containing(address);
  return found == known.end() || uintptr_t(address) - found->first + bytes <= found->second.bytes;
}

void note_variable(void* address, size_t bytes) { known[uintptr_t(address)] = {bytes, Kind::device, false, false}; }

static cudaError_t allocate(void** out, size_t bytes, Kind kind, bool managed = false) {
  if (!out) return cudaErrorInvalidValue;
  *out = nullptr;
  if (!bytes) return cudaSuccess;
  if (kind == Kind::device && bytes > settings().memory - used) return cudaErrorMemoryAllocation;
  // CUDA aligns to 256 bytes at least.
  if (posix_memalign(out, 512, bytes)) return cudaErrorMemoryAllocation;
  if (settings().poisoned) memset(*out, 0xff, bytes);
  known[uintptr_t(*out)] = {bytes, kind, managed, true};
  if (kind == Kind::device) used += bytes;
  counts[allocations]++;
  return cudaSuccess;
}

static cudaError_t release(void* address, Kind kind) {
  auto found = known.find(uintptr_t(address));
  if (found == known.end() || found->second.kind != kind || !found->second.ours) return cudaErrorInvalidValue;
  if (kind == Kind::device) used -= found->second.bytes;
  if (settings().poisoned) memset(address, 0xff, found->second.bytes);
  known.erase(found);
  free(address);
  return cudaSuccess;
}

// Both wait for the whole device, which a capture forbids.
static cudaError_t release_now(void* address, Kind kind) {
  if (!address) return cudaSuccess;
  if (cudaError_t error = refuse_unsafe_call()) return error;
  run_all_streams();
  return release(address, kind);
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  Locked locked;
  if (cudaError_t error = refuse_unsafe_call()) RETURN(error);
  RETURN(allocate(out, bytes, Kind::device));
}

cudaError_t cudaMallocManaged(void** out, size_t bytes, unsigned) {
  Locked locked;
  if (cudaError_t error = refuse_unsafe_call()) RETURN(error);
  RETURN(allocate(out, bytes, Kind::device, true));
}

cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  Locked locked;
  if (cudaError_t error = refuse_unsafe_call()) RETURN(error);
  RETURN(allocate(out, bytes, Kind::pinned));
}

cudaError_t cudaMallocHost(void** out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }

cudaError_t cudaFree(void* address) {
  Locked locked;
  RETURN(release_now(address, Kind::device));
}

cudaError_t cudaFreeHost(void* address) {
  Locked locked;
  RETURN(release_now(address, Kind::pinned));
}

// In CUDA memory of a pool is allocated in the order of a stream; here it exists as soon as it is asked for, and is
// freed in the order. In a capture both would be nodes of the graph, which are refused.
cudaError_t cudaMallocAsync(void** out, size_t bytes, cudaStream_t handle) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (!stream) RETURN(cudaErrorInvalidResourceHandle);
  if (stream->capture) RETURN(refuse_in_capture(stream, cudaErrorNotSupported));
  RETURN(allocate(out, bytes, Kind::device));
}

cudaError_t cudaMallocFromPoolAsync(void** out, size_t bytes, cudaMemPool_t, cudaStream_t stream) {
  return cudaMallocAsync(out, bytes, stream);
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t handle) {
  Locked locked;
  Stream* stream = stream_of(handle);
  if (stream && stream->capture) RETURN(refuse_in_capture(stream, cudaErrorNotSupported));
  counts[others]++;
  RETURN(enqueue(stream, {[=] { release(address, Kind::device); }, "free"}));
}

cudaError_t cudaHostRegister(void* address, size_t bytes, unsigned) {
  Locked locked;
  if (cudaError_t error = refuse_unsafe_call()) RETURN(error);
  if (containing(address) != known.end()) RETURN(cudaErrorHostMemoryAlreadyRegistered);
  known[uintptr_t(address)] = {bytes, Kind::pinned, false, false};
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* address) {
  Locked locked;
  if (cudaError_t error = refuse_unsafe_call()) RETURN(error);
  auto found = known.find(uintptr_t(address));
  if (found == known.end() || found->second.ours) RETURN(cudaErrorHostMemoryNotRegistered);
  run_all_streams();
  known.erase(found);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Locked locked;
  *free = settings().memory - used;
  *total = settings().memory;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* address) {
  Locked locked;
  memset(out, 0, sizeof *out);
  void* same = const_cast<void*>(address);
  auto found = containing(address);
  if (found == known.end()) {
    out->type = cudaMemoryTypeUnregistered;
    out->device = -2;
    out->hostPointer = same;
    return cudaSuccess;
  }
  const Allocation& a = found->second;
  out->type = a.kind == Kind::pinned ? cudaMemoryTypeHost : a.managed ? cudaMemoryTypeManaged : cudaMemoryTypeDevice;
  out->devicePointer = same;
  out->hostPointer = a.kind == Kind::pinned || a.managed ? same : nullptr;
  return cudaSuccess;
}

// One pool, without limits or attributes.
static char pool;
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* out, int) {
  *out = (cudaMemPool_t)&pool;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* out, int device) { return cudaDeviceGetDefaultMemPool(out, device); }
cudaError_t cudaDeviceSetMemPool(int, cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  memset(value, 0, sizeof(int));
  return cudaSuccess;
}

int cuda_emulator_is_device_memory(const void* address) {
  Locked locked;
  return kind_of(address) == Kind::device;
}

}  // extern "C"
