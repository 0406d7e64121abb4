// The environment variables of the emulator, each read once. README.md describes them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cuda_emulator {

// Which streams run late: only when something waits for them.
enum class Late { none, all, blocking, nonblocking, random };

// Which kernels flush subnormal floats: those compiled with -ftz=true, which CuPy passes always; none; all.
enum class Flush { as_compiled, none, all };

struct Settings {
  Late late;
  uint64_t seed;
  Flush flush;
  bool reversed;         // threads and blocks run in reversed order
  bool poisoned;         // memory that was not written is 0xff
  size_t memory;         // bytes of the device
  int trace;             // 1: each operation on stderr, 2: those of replayed graphs too
  int capability;        // 10 * major + minor
  int version;           // of CUDA, as the runtime's and the driver's
};

const Settings& settings();

}  // namespace cuda_emulator
