// Half-precision floats: conversions round to the nearest even, as on a GPU. Arithmetic is by way of float.
#pragma once
#include <string.h>
#include <type_traits>

struct __half_raw { unsigned short x; };

struct __half {
  unsigned short bits;

  __half() = default;
  __half(float x) { set((_Float16)x); }
  __half(double x) { set((_Float16)x); }
  __half(const __half_raw& raw) : bits(raw.x) {}
  template <class T, class = std::enable_if_t<std::is_integral<T>::value>> __half(T x) { set((_Float16)(double)x); }
  operator float() const {
    _Float16 x;
    memcpy(&x, &bits, 2);
    return x;
  }
  operator __half_raw() const { return {bits}; }
  __half operator-() const { return __half(__half_raw{(unsigned short)(bits ^ 0x8000)}); }

 private:
  void set(_Float16 x) { memcpy(&bits, &x, 2); }
};
using half = __half;

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline __half __double2half(double x) { return x; }
inline float __half2float(__half x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
inline bool __hisnan(__half x) { return (x.bits & 0x7fff) > 0x7c00; }
inline int __hisinf(__half x) { return (x.bits & 0x7fff) != 0x7c00 ? 0 : x.bits & 0x8000 ? -1 : 1; }
