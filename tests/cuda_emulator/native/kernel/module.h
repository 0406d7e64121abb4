// The interface between a compiled kernel module, which is a shared library, and the device that launches its kernels.
// Kernels include this first, so it includes nothing.
#pragma once

namespace cuda_emulator {

// What a thread calls to wait for others. Each function returns when all that it waits for have arrived.
struct Barriers {
  void (*block)();
  void (*warp)(unsigned mask);
  // Passes 8 bytes to the other lanes of the warp; fills in those of all 32 and the mask of lanes that took part.
  void (*exchange)(unsigned mask, unsigned long long mine, unsigned long long* all, unsigned* present);
};

struct Dim { unsigned x, y, z; };

// The variables that CUDA C++ predefines, as one thread at a time sees them.
struct Place {
  Dim thread, block, block_dim, grid_dim;
  void* dynamic_shared;
  const Barriers* barriers;
};

struct KernelEntry {
  const char* name;
  void (*one_thread)(void** arguments);
  // All threads of the grid in place, one after the other.
  void (*all_threads)(void** arguments, bool reversed);
  unsigned argument_count;
  const unsigned* argument_sizes;
  bool has_double;
};

struct ModuleTable {
  unsigned size;  // of this struct, which differs if module and device were built from different sources
  unsigned kernel_count;
  const KernelEntry* kernels;
  Place* place;
  bool flush_subnormals;   // compiled with -ftz=true
  bool one_thread_is_all;  // every kernel is a loop in which a single thread can do the work of all
  // Not null if any compiled function waits: see the marks in threads.h.
  const char* waiting;
  // The static __shared__ variables.
  char *shared_begin, *shared_end;
};

}  // namespace cuda_emulator
