// Inner products of vectors.
#include <complex>

#include "handle.h"

namespace cuda_emulator {
namespace {

// BLAS counts a negative step from the other end.
template <class T> const T* start(const T* x, int n, int step) { return step < 0 ? x - (n - 1LL) * step : x; }

template <class T, class Product>
Status dot(Handle* handle, int n, const T* x, int step_x, const T* y, int step_y, T* result, Product product) {
  Status status = queue(handle, [=] {
    T sum = 0;
    for (long long i = 0; i < n; i++) sum += product(start(x, n, step_x)[i * step_x], start(y, n, step_y)[i * step_y]);
    *result = sum;
  }, "dot");
  // A result for the host is there when the function returns.
  if (status == success && handle->pointer_mode == of_host && cudaStreamSynchronize(handle->stream))
    return execution_failed;
  return status;
}

}  // namespace
}  // namespace cuda_emulator

using namespace cuda_emulator;
using C32 = std::complex<float>;
using C64 = std::complex<double>;

extern "C" {

#define DOT(name, T, product)                                                                                 \
  int cublas##name##_v2(Handle* handle, int n, const T* x, int step_x, const T* y, int step_y, T* result) {    \
    return dot(handle, n, x, step_x, y, step_y, result, [](T a, T b) { return product; });                    \
  }
DOT(Sdot, float, a * b)
DOT(Ddot, double, a * b)
DOT(Cdotu, C32, a * b)
DOT(Cdotc, C32, std::conj(a) * b)
DOT(Zdotu, C64, a * b)
DOT(Zdotc, C64, std::conj(a) * b)

}  // extern "C"
