// Mathematical functions that CUDA C++ has without a header or a namespace.
#pragma once

using std::acosh;
using std::asinh;
using std::atanh;
using std::cbrt;
using std::copysign;
using std::erf;
using std::erfc;
using std::exp2;
using std::expm1;
using std::fdim;
using std::fma;
using std::fmax;
using std::fmin;
using std::frexp;
using std::hypot;
using std::ilogb;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::ldexp;
using std::lgamma;
using std::log1p;
using std::log2;
using std::logb;
using std::nearbyint;
using std::nextafter;
using std::remainder;
using std::rint;
using std::round;
using std::signbit;
using std::tgamma;
using std::trunc;

namespace cuda_emulator {

template <class A, class B>
using Common = std::enable_if_t<std::is_arithmetic<A>::value && std::is_arithmetic<B>::value, std::common_type_t<A, B>>;

}  // namespace cuda_emulator

// Of a number and NaN, the number.
template <class A, class B> inline cuda_emulator::Common<A, B> min(A a, B b) {
  cuda_emulator::Common<A, B> x = a, y = b;
  if constexpr (std::is_floating_point<decltype(x)>::value) return std::fmin(x, y);
  else return y < x ? y : x;
}
template <class A, class B> inline cuda_emulator::Common<A, B> max(A a, B b) {
  cuda_emulator::Common<A, B> x = a, y = b;
  if constexpr (std::is_floating_point<decltype(x)>::value) return std::fmax(x, y);
  else return x < y ? y : x;
}

// Each is rounded by itself: the compiler must not make one instruction of a product and a sum.
#define CUDA_EMULATOR_ROUNDED(name, T, expression) \
  inline T name(T a, T b) {                        \
    T found = expression;                          \
    asm("" : "+x"(found));                         \
    return found;                                  \
  }
CUDA_EMULATOR_ROUNDED(__fadd_rn, float, a + b)
CUDA_EMULATOR_ROUNDED(__fsub_rn, float, a - b)
CUDA_EMULATOR_ROUNDED(__fmul_rn, float, a * b)
CUDA_EMULATOR_ROUNDED(__fdiv_rn, float, a / b)
CUDA_EMULATOR_ROUNDED(__dadd_rn, double, a + b)
CUDA_EMULATOR_ROUNDED(__dsub_rn, double, a - b)
CUDA_EMULATOR_ROUNDED(__dmul_rn, double, a * b)
CUDA_EMULATOR_ROUNDED(__ddiv_rn, double, a / b)
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __double2int_rn(double x) { return (int)rint(x); }
inline long long __double2ll_rn(double x) { return (long long)rint(x); }

// CUDA's fast versions, which here are no less accurate than the others.
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
template <class T> inline T __ldg(const T* address) { return *address; }

inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrtf(float x) { return (float)rsqrt((double)x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rcbrt(double x) { return 1 / cbrt(x); }
inline float rcbrt(float x) { return (float)rcbrt((double)x); }
inline float exp10(float x) { return exp10f(x); }
inline double sinpi(double x) { return sin(M_PI * x); }
inline float sinpi(float x) { return (float)sinpi((double)x); }
inline double cospi(double x) { return cos(M_PI * x); }
inline float cospi(float x) { return (float)cospi((double)x); }
inline double normcdf(double x) { return erfc(-x * M_SQRT1_2) / 2; }
inline float normcdf(float x) { return (float)normcdf((double)x); }
