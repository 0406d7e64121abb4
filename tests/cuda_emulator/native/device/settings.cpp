#include "settings.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cuda_emulator {
namespace {

long number(const char* name, long usual) {
  const char* text = getenv(name);
  if (!text || !*text) return usual;
  char* end;
  long value = strtol(text, &end, 10);
  if (!*end) return value;
  fprintf(stderr, "%s must be an integer, got %s\n", name, text);
  exit(2);
}

// The position of an environment variable's value in a list of names; the first is usual.
template <class T, size_t n> T choice(const char* name, const char* const (&names)[n]) {
  const char* text = getenv(name);
  if (!text || !*text) return T(0);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(text, names[i])) return T(i);
  fprintf(stderr, "%s must be one of", name);
  for (const char* each : names) fprintf(stderr, " %s", each);
  fprintf(stderr, ", got %s\n", text);
  exit(2);
}

}  // namespace

const Settings& settings() {
  static const Settings found = {
      choice<Late>("CUDA_EMULATOR_LATE", {"none", "all", "blocking", "nonblocking", "random"}),
      uint64_t(number("CUDA_EMULATOR_SEED", 1)),
      choice<Flush>("CUDA_EMULATOR_FLUSH", {"as_compiled", "none", "all"}),
      number("CUDA_EMULATOR_REVERSED", 0) != 0,
      number("CUDA_EMULATOR_POISONED", 1) != 0,
      size_t(number("CUDA_EMULATOR_MEMORY_MB", 8192)) << 20,
      int(number("CUDA_EMULATOR_TRACE", 0)),
      int(number("CUDA_EMULATOR_CAPABILITY", 90)),
      CUDART_VERSION,
  };
  return found;
}

}  // namespace cuda_emulator
