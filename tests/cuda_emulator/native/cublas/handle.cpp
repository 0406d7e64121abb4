// Handles and their settings.
#include "handle.h"

#include <cstdio>

using namespace cuda_emulator;

extern "C" {

int cuda_emulator_is_device_memory(const void* address);

int cublasCreate_v2(Handle** out) {
  *out = new Handle;
  return success;
}
int cublasDestroy_v2(Handle* handle) {
  delete handle;
  return success;
}
int cublasGetVersion_v2(Handle*, int* version) {
  *version = CUDART_VERSION * 10;
  return success;
}
int cublasSetStream_v2(Handle* handle, cudaStream_t stream) {
  handle->stream = stream;
  return success;
}
int cublasGetStream_v2(Handle* handle, cudaStream_t* stream) {
  *stream = handle->stream;
  return success;
}
int cublasSetPointerMode_v2(Handle* handle, int mode) {
  handle->pointer_mode = mode;
  return success;
}
int cublasGetPointerMode_v2(Handle* handle, int* mode) {
  *mode = handle->pointer_mode;
  return success;
}
int cublasSetMathMode(Handle* handle, int mode) {
  handle->math_mode = mode;
  return success;
}
int cublasGetMathMode(Handle* handle, int* mode) {
  *mode = handle->math_mode;
  return success;
}
int cublasSetWorkspace_v2(Handle*, void* workspace, size_t bytes) {
  bool aligned = uintptr_t(workspace) % 256 == 0;
  return aligned && (!bytes || cuda_emulator_is_device_memory(workspace)) ? success : invalid_value;
}

// What CuPy's extension wants of cuBLAS and is not here.
#define MISSING(name)                                                \
  int name() {                                                       \
    fprintf(stderr, "[cuda_emulator] " #name " is not emulated\n");  \
    return not_supported;                                            \
  }
#include "missing.h"

}  // extern "C"
