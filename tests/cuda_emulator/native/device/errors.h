// Errors: what a function returns, and what cudaGetLastError tells the same thread afterwards.
#pragma once
#include <cuda_runtime_api.h>

namespace cuda_emulator {

// Notes an error for cudaGetLastError, and returns it.
cudaError_t returned(cudaError_t error, const char* function);
// An error of something that had been queued, such as a kernel: the next function that waits returns it.
void fail_later(cudaError_t error);
cudaError_t error_of_queued();

void trace(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace cuda_emulator

#define RETURN(error) return cuda_emulator::returned(error, __func__)
