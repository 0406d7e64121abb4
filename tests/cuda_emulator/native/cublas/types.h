// The number types of matrices (cudaDataType), read as and written from the type that is computed in.
#pragma once
#include <library_types.h>

#include <cstdint>
#include <cstring>

namespace cuda_emulator {

struct BFloat16 {
  uint16_t bits;
  operator float() const {
    uint32_t all = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &all, 4);
    return x;
  }
  BFloat16& operator=(float x) {
    uint32_t all;
    memcpy(&all, &x, 4);
    bits = x != x ? 0x7fff : uint16_t((all + 0x7fff + (all >> 16 & 1)) >> 16);
    return *this;
  }
};

// A float with the 10 bits after the point that TensorFloat-32 has, rounded to the nearest even.
inline float rounded_to_tf32(float x) {
  uint32_t all;
  memcpy(&all, &x, 4);
  if ((all & 0x7f800000) == 0x7f800000) return x;
  all = (all + 0xfff + (all >> 13 & 1)) & ~uint32_t(0x1fff);
  memcpy(&x, &all, 4);
  return x;
}

// Calls f with a number of a real type that is not computed in itself but in float; false if there is none.
template <class F> bool with_float_type(int type, F f) {
  switch (type) {
    case CUDA_R_32F: f(float()); return true;
    case CUDA_R_16F: f(_Float16()); return true;
    case CUDA_R_16BF: f(BFloat16()); return true;
    default: return false;
  }
}

}  // namespace cuda_emulator
