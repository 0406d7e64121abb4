// Functions of CuPy's modules of CUB and Thrust, found by their names as C++ mangles them, and so by their types too.
#pragma once

namespace cuda_emulator {

// Null if the name is of neither.
const void* device_wide_function(const char* mangled);
const void* reduction_function(const char* mangled);
const void* sort_function(const char* mangled);

struct Replacement {
  const char* mangled;
  const void* function;
};

}  // namespace cuda_emulator
