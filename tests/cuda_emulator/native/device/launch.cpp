// Launches: what CUDA refuses, the copy of the arguments, and the execution of a grid.
#include <xmmintrin.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "counts.h"
#include "errors.h"
#include "fibers.h"
#include "lock.h"
#include "modules.h"
#include "settings.h"
#include "streams.h"

namespace cuda_emulator {

// Arguments are copied at the launch; each starts where a number of 16 bytes may.
class Arguments {
  struct alignas(16) Slot {
    char bytes[16];
  };
  std::vector<Slot> slots;
  std::vector<void*> pointers;

  static size_t slots_of(unsigned bytes) { return (bytes + sizeof(Slot) - 1) / sizeof(Slot); }

 public:
  Arguments(const KernelEntry& kernel, void** given) {
    size_t total = 0;
    for (unsigned i = 0; i < kernel.argument_count; i++) total += slots_of(kernel.argument_sizes[i]);
    slots.resize(total);
    Slot* next = slots.data();
    for (unsigned i = 0; i < kernel.argument_count; i++) {
      memcpy((void*)next, given[i], kernel.argument_sizes[i]);
      pointers.push_back(next);
      next += slots_of(kernel.argument_sizes[i]);
    }
  }
  void** get() { return pointers.data(); }
};

static char dynamic_shared[Function::most_shared] __attribute__((aligned(256)));

// On a GPU subnormal floats are flushed, and doubles never are; the processor's switch is for both.
struct Flushing {
  unsigned before = _mm_getcsr();
  explicit Flushing(bool on) {
    if (on) _mm_setcsr(before | _MM_FLUSH_ZERO_ON | 0x40 /* subnormal inputs are zeros */);
  }
  ~Flushing() { _mm_setcsr(before); }
};

static void run_grid(const Function& f, Dim grid, Dim block, unsigned dynamic, void** arguments) {
  const ModuleTable& module = *f.module;
  Place& place = *module.place;
  bool reversed = settings().reversed;
  size_t shared = module.shared_end - module.shared_begin;
  bool flush = settings().flush == Flush::all || (settings().flush == Flush::as_compiled && module.flush_subnormals);
  Flushing flushing(flush && !f.kernel->has_double);
  place = {{}, {}, block, grid, dynamic_shared, &fiber_barriers};
  if (!module.waiting && !shared && !dynamic) {
    if (module.one_thread_is_all && !reversed) place.block_dim = place.grid_dim = {1, 1, 1};
    f.kernel->all_threads(arguments, reversed);
    return;
  }
  uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  for (uint64_t k = 0; k < blocks; k++) {
    uint64_t i = reversed ? blocks - 1 - k : k;
    place.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    if (settings().poisoned) {
      memset(module.shared_begin, 0xff, shared);
      memset(dynamic_shared, 0xff, dynamic);
    }
    if (!run_block(f.kernel->one_thread, arguments, place, reversed)) {
      fprintf(stderr, "[cuda_emulator] threads of kernel %s wait for each other for ever\n", f.kernel->name);
      return fail_later(cudaErrorLaunchFailure);
    }
  }
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" int cuLaunchKernel(Function* f, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                              unsigned block_y, unsigned block_z, unsigned shared, cudaStream_t handle,
                              void** arguments, void** extra) {
  Locked locked;
  if (!f) return cudaErrorInvalidResourceHandle;
  Dim grid = {grid_x, grid_y, grid_z}, block = {block_x, block_y, block_z};
  bool fits = grid.x && grid.y && grid.z && block.x && block.y && block.z && grid.x <= 0x7fffffff &&
              grid.y <= 0xffff && grid.z <= 0xffff && block.x <= 1024 && block.y <= 1024 && block.z <= 64 &&
              uint64_t(block.x) * block.y * block.z <= 1024;
  if (!fits || shared > f->shared_limit || extra) return cudaErrorInvalidValue;
  counts[kernels]++;
  auto copied = std::make_shared<Arguments>(*f->kernel, arguments);
  std::string name = std::string("kernel ") + f->kernel->name;
  return enqueue(stream_of(handle), {[=] { run_grid(*f, grid, block, shared, copied->get()); }, std::move(name)});
}
