// What the device says of itself: the figures of an H100, without the parts that are not emulated.
#include <cstdio>
#include <cstring>

#include "errors.h"
#include "settings.h"

using namespace cuda_emulator;

namespace {

constexpr int threads_of_block = 1024, threads_of_multiprocessor = 2048, multiprocessors = 132, registers = 65536;
constexpr int widest_grid = 2147483647, highest_grid = 65535, highest_block_z = 64;
constexpr int shared_of_block = 48 << 10, most_shared_of_block = 227 << 10, shared_of_multiprocessor = 228 << 10;

}  // namespace

extern "C" {

cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { RETURN(device ? cudaErrorInvalidDevice : cudaSuccess); }

cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  if (device) RETURN(cudaErrorInvalidDevice);
  snprintf(id, size, "0000:00:00.0");
  return cudaSuccess;
}
cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* id) {
  *device = 0;
  RETURN(strcmp(id, "0000:00:00.0") ? cudaErrorInvalidDevice : cudaSuccess);
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { RETURN(cudaErrorPeerAccessUnsupported); }
cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit) {
  *value = 1024;
  return cudaSuccess;
}
cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device) RETURN(cudaErrorInvalidDevice);
  auto found = [&]() -> int {
    switch (attribute) {
      case cudaDevAttrMaxThreadsPerBlock:
      case cudaDevAttrMaxBlockDimX:
      case cudaDevAttrMaxBlockDimY: return threads_of_block;
      case cudaDevAttrMaxBlockDimZ: return highest_block_z;
      case cudaDevAttrMaxGridDimX: return widest_grid;
      case cudaDevAttrMaxGridDimY:
      case cudaDevAttrMaxGridDimZ: return highest_grid;
      case cudaDevAttrMaxSharedMemoryPerBlock: return shared_of_block;
      case cudaDevAttrMaxSharedMemoryPerBlockOptin: return most_shared_of_block;
      case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return shared_of_multiprocessor;
      case cudaDevAttrTotalConstantMemory: return 65536;
      case cudaDevAttrWarpSize: return 32;
      case cudaDevAttrMaxRegistersPerBlock:
      case cudaDevAttrMaxRegistersPerMultiprocessor: return registers;
      case cudaDevAttrClockRate: return 1980000;
      case cudaDevAttrMemoryClockRate: return 2619000;
      case cudaDevAttrMultiProcessorCount: return multiprocessors;
      case cudaDevAttrMaxThreadsPerMultiProcessor: return threads_of_multiprocessor;
      case cudaDevAttrMaxBlocksPerMultiprocessor: return 32;
      case cudaDevAttrComputeCapabilityMajor: return settings().capability / 10;
      case cudaDevAttrComputeCapabilityMinor: return settings().capability % 10;
      case cudaDevAttrL2CacheSize: return 50 << 20;
      case cudaDevAttrAsyncEngineCount: return 3;
      case cudaDevAttrUnifiedAddressing:
      case cudaDevAttrManagedMemory:
      case cudaDevAttrConcurrentManagedAccess:
      case cudaDevAttrMemoryPoolsSupported:
      case cudaDevAttrConcurrentKernels:
      case cudaDevAttrCanMapHostMemory: return 1;
      default: return 0;
    }
  };
  *value = found();
  return cudaSuccess;
}

// CUDA 12 headers rename it by a macro, to a symbol that ends with _v2.
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device) RETURN(cudaErrorInvalidDevice);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "emulated on a CPU");
  p->totalGlobalMem = settings().memory;
  p->sharedMemPerBlock = shared_of_block;
  p->sharedMemPerBlockOptin = most_shared_of_block;
  p->sharedMemPerMultiprocessor = shared_of_multiprocessor;
  p->regsPerBlock = p->regsPerMultiprocessor = registers;
  p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = threads_of_block;
  p->maxThreadsDim[2] = highest_block_z;
  p->maxGridSize[0] = widest_grid;
  p->maxGridSize[1] = p->maxGridSize[2] = highest_grid;
  p->totalConstMem = 65536;
  p->major = settings().capability / 10;
  p->minor = settings().capability % 10;
  p->textureAlignment = 512;
  p->multiProcessorCount = multiprocessors;
  p->maxThreadsPerMultiProcessor = threads_of_multiprocessor;
  p->l2CacheSize = 50 << 20;
  p->memoryBusWidth = 5120;
  p->concurrentKernels = p->unifiedAddressing = p->managedMemory = p->canMapHostMemory = 1;
  p->asyncEngineCount = 3;
  return cudaSuccess;
}

// The driver's contexts: there is one, which is always current.
static char context;
int cuCtxGetCurrent(void** out) {
  *out = &context;
  return 0;
}
int cuCtxSetCurrent(void*) { return 0; }
int cuCtxGetDevice(int* device) {
  *device = 0;
  return 0;
}
int cuStreamGetCtx(void*, void** out) { return cuCtxGetCurrent(out); }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }

}  // extern "C"
