// What the compiler returns in place of a cubin: this header, then a shared library.
#pragma once
#include <cstdint>

namespace cuda_emulator {

struct ImageHeader {
  static constexpr char expected[] = "CUDAEMU";  // 8 bytes with the zero
  char mark[8];
  uint64_t bytes;
};

}  // namespace cuda_emulator
