// bfloat16: the upper half of a float, rounded to the nearest even. Arithmetic is by way of float.
#pragma once
#include <string.h>
#include <type_traits>

struct __nv_bfloat16 {
  unsigned short bits;

  __nv_bfloat16() = default;
  __nv_bfloat16(float x) {
    unsigned all;
    memcpy(&all, &x, 4);
    bool nan = (all & 0x7fffffff) > 0x7f800000;
    bits = nan ? 0x7fff : (unsigned short)((all + 0x7fff + (all >> 16 & 1)) >> 16);
  }
  __nv_bfloat16(double x) : __nv_bfloat16((float)x) {}
  template <class T, class = std::enable_if_t<std::is_integral<T>::value>>
  __nv_bfloat16(T x) : __nv_bfloat16((float)x) {}
  operator float() const {
    unsigned all = (unsigned)bits << 16;
    float x;
    memcpy(&x, &all, 4);
    return x;
  }
};

inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 x;
  x.bits = bits;
  return x;
}
inline bool __hisnan(__nv_bfloat16 x) { return (x.bits & 0x7fff) > 0x7f80; }
inline int __hisinf(__nv_bfloat16 x) { return (x.bits & 0x7fff) != 0x7f80 ? 0 : x.bits & 0x8000 ? -1 : 1; }
