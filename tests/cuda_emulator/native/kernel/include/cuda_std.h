// The standard library in place of NVIDIA's libcu++: each <cuda/std/...> includes this.
#pragma once
#include <array>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cuda {
namespace std {

using namespace ::std;

template <class T> T byteswap(T x) {
  static_assert(sizeof(T) <= 8, "");
  if constexpr (sizeof(T) == 2) return T(__builtin_bswap16(x));
  else if constexpr (sizeof(T) == 4) return T(__builtin_bswap32(x));
  else if constexpr (sizeof(T) == 8) return T(__builtin_bswap64(x));
  else return x;
}

}  // namespace std
}  // namespace cuda
