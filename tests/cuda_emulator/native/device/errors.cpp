#include "errors.h"

#include <cstdarg>
#include <cstdio>
#include <utility>

#include "settings.h"

namespace cuda_emulator {

static thread_local cudaError_t last = cudaSuccess;
static cudaError_t queued = cudaSuccess;

void trace(const char* format, ...) {
  if (!settings().trace) return;
  va_list list;
  va_start(list, format);
  fputs("[cuda_emulator] ", stderr);
  vfprintf(stderr, format, list);
  fputc('\n', stderr);
  va_end(list);
}

cudaError_t returned(cudaError_t error, const char* function) {
  if (error) trace("%s: %s", function, cudaGetErrorName(error));
  if (error && error != cudaErrorNotReady) last = error;
  return error;
}

void fail_later(cudaError_t error) { queued = error; }
cudaError_t error_of_queued() { return std::exchange(queued, cudaSuccess); }

// Errors that the emulator returns, with the words of NVIDIA's manual.
static const struct {
  cudaError_t error;
  const char *name, *text;
} table[] = {
#define X(name, text) {name, #name, text},
    X(cudaSuccess, "no error")
    X(cudaErrorInvalidValue, "invalid argument")
    X(cudaErrorMemoryAllocation, "out of memory")
    X(cudaErrorInitializationError, "initialization error")
    X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")
    X(cudaErrorInvalidDevice, "invalid device ordinal")
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")
    X(cudaErrorIllegalState, "the operation cannot be performed in the present state")
    X(cudaErrorNotReady, "device not ready")
    X(cudaErrorLaunchFailure, "unspecified launch failure")
    X(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is already mapped")
    X(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region")
    X(cudaErrorPeerAccessUnsupported, "peer access is not supported between these two devices")
    X(cudaErrorNotSupported, "operation not supported")
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")
    X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")
    X(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences")
    X(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began")
    X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")
    X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")
    X(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream")
    X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")
    X(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread")
    X(cudaErrorUnknown, "unknown error")
#undef X
};

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
  for (auto& row : table)
    if (row.error == error) return row.name;
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  for (auto& row : table)
    if (row.error == error) return row.text;
  return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last; }

int cuGetErrorString(int error, const char** text) {
  *text = cudaGetErrorString(cudaError_t(error));
  return 0;
}

// The driver's errors have the runtime's numbers, and names of their own.
int cuGetErrorName(int error, const char** name) {
  switch (error) {
    case 0: *name = "CUDA_SUCCESS"; break;
    case 1: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case 2: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case 200: *name = "CUDA_ERROR_INVALID_IMAGE"; break;
    case 400: *name = "CUDA_ERROR_INVALID_HANDLE"; break;
    case 500: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case 719: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    case 801: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
    case 900: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    case 901: *name = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"; break;
    case 905: *name = "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"; break;
    case 906: *name = "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
  }
  return 0;
}

}  // extern "C"
