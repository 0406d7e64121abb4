// The threads of one block, each with a stack of its own, so that one can stop at a barrier and go on later.
#pragma once
#include "../kernel/module.h"

namespace cuda_emulator {

extern const Barriers fiber_barriers;

// Runs one block. False if its threads wait for each other for ever.
bool run_block(void (*thread)(void**), void** arguments, Place& place, bool reversed);

}  // namespace cuda_emulator
