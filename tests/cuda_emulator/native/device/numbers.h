// The number types of CuPy's modules of CUB and Thrust, by the ids that they use, and the order of their values.
#pragma once
#include <cmath>
#include <complex>
#include <cstdint>
#include <type_traits>

namespace cuda_emulator {

template <class T> constexpr bool is_complex = false;
template <class T> constexpr bool is_complex<std::complex<T>> = true;
template <class T> constexpr bool is_integer = std::is_integral<T>::value;
// Half-precision floats are the compiler's own, which computes with them as with float.
using Half = _Float16;

template <class T> bool is_nan(T x) {
  if constexpr (is_complex<T>) return std::isnan(x.real()) || std::isnan(x.imag());
  else if constexpr (is_integer<T>) return false;
  else return x != x;
}

// Complex numbers by their real parts first, as in NumPy. Not an order where NaN is.
template <class T> bool less(T a, T b) {
  if constexpr (is_complex<T>) return a.real() != b.real() ? a.real() < b.real() : a.imag() < b.imag();
  else return a < b;
}

// Calls f with a number of the type, and returns false if there is none.
template <class F> bool with_type(int id, F f) {
  switch (id) {
    case 0: f(int8_t()); return true;
    case 1: f(uint8_t()); return true;
    case 2: f(int16_t()); return true;
    case 3: f(uint16_t()); return true;
    case 4: f(int32_t()); return true;
    case 5: f(uint32_t()); return true;
    case 6: f(int64_t()); return true;
    case 7: f(uint64_t()); return true;
    case 8: f(Half()); return true;
    case 9: f(float()); return true;
    case 10: f(double()); return true;
    case 11: f(std::complex<float>()); return true;
    case 12: f(std::complex<double>()); return true;
    case 13: f(bool()); return true;
    default: return false;
  }
}

}  // namespace cuda_emulator
