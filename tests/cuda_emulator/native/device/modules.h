// Kernel modules that were loaded, and their functions.
#pragma once
#include "../kernel/module.h"

namespace cuda_emulator {

struct Function {
  // Bytes of dynamic shared memory: what a launch gets unasked, and the most that it can be allowed.
  static constexpr unsigned usual_shared = 48 << 10, most_shared = 227 << 10;
  const ModuleTable* module;
  const KernelEntry* kernel;
  unsigned shared_limit = usual_shared;
};

}  // namespace cuda_emulator
