// Memory of the device and pinned memory of the host: which address belongs to what.
#pragma once
#include <cstddef>
#include <cuda_runtime_api.h>

namespace cuda_emulator {

enum class Kind { pageable, pinned, device };

// What an address is: pageable if nobody allocated it here.
Kind kind_of(const void* address);
// Whether the bytes are within one allocation. Those of pageable memory are not known.
bool within_allocation(const void* address, size_t bytes);
// A variable of a module, which is memory of the device.
void note_variable(void* address, size_t bytes);

}  // namespace cuda_emulator
