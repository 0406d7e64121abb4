// The products of matrices that CuPy asks for: single ones, batches by strides or by addresses, and mixed types.
#include "handle.h"
#include "multiply.h"
#include "types.h"

namespace cuda_emulator {
namespace {

enum Operation { none, transposed, conjugated };
// cublasComputeType_t and cublasMath_t, as far as they say how the factors are rounded.
constexpr int compute_32f_fast_tf32 = 77, math_tf32 = 3;

struct Sizes {
  int m, n, k;
};

// A factor, or each of a batch: op(X), its leading dimension, and the distance to the next.
struct Factor {
  const void* data;
  int operation, leading;
  long long stride;
  // Rows and columns as stored, which the leading dimension must hold.
  bool holds(int rows, int columns) const { return leading >= std::max(1, operation == none ? rows : columns); }
};

bool valid(Sizes s, const Factor& a, const Factor& b, int ldc, int count) {
  return s.m >= 0 && s.n >= 0 && s.k >= 0 && count >= 0 && a.holds(s.m, s.k) && b.holds(s.k, s.n) &&
         ldc >= std::max(1, s.m);
}

template <class T> T maybe_conjugate(T x, bool conjugate) {
  if constexpr (is_complex_number<T>) return conjugate ? std::conj(x) : x;
  else return x;
}

// C = alpha op(A) op(B) + beta C, computed in T; `round` is applied to each entry of the factors.
template <class T, class Of, class Out, class Round>
void gemm(Sizes s, T alpha, const Of* a, const Factor& fa, const Of* b, const Factor& fb, T beta, Out* c, size_t ldc,
          Round round) {
  auto reader = [=](const Of* x, const Factor& f, bool vectors_are_columns) {
    size_t step = vectors_are_columns ? size_t(f.leading) : 1, along = vectors_are_columns ? 1 : size_t(f.leading);
    bool conjugate = f.operation == conjugated;
    return [=](size_t i, size_t p) { return round(maybe_conjugate(T(x[i * step + p * along]), conjugate)); };
  };
  auto store = [=](size_t i, size_t j, T sum) {
    T value = alpha == T(1) ? sum : T(alpha * sum);
    Out& at = c[j * ldc + i];
    // By BLAS, what is multiplied by zero is not read.
    if (beta != T(0)) value += T(beta * T(at));
    at = value;
  };
  multiply<T>(size_t(s.m), size_t(s.n), size_t(s.k), reader(a, fa, fa.operation != none),
              reader(b, fb, fb.operation == none), store);
}

std::string name_of(Sizes s, int count) {
  return "gemm " + std::to_string(s.m) + " x " + std::to_string(s.n) + " x " + std::to_string(s.k) + ", " +
         std::to_string(count) + " of them";
}

template <class T, class Of, class Out>
Status strided(Handle* handle, Sizes s, const T* alpha, Factor a, Factor b, const T* beta, Out* c, int ldc,
               long long stride, int count, bool tf32, Of = {}) {
  if (!valid(s, a, b, ldc, count)) return invalid_value;
  Scalar<T> x(handle, alpha), y(handle, beta);
  return queue(handle, [=] {
    auto run = [=](auto round) {
      for (long long i = 0; i < count; i++)
        gemm<T>(s, x.get(), (const Of*)a.data + i * a.stride, a, (const Of*)b.data + i * b.stride, b, y.get(),
                c + i * stride, size_t(ldc), round);
    };
    if constexpr (std::is_same<T, float>::value) {
      if (tf32) return run(rounded_to_tf32);
    }
    run([](T value) { return value; });
  }, name_of(s, count));
}

template <class T> Status of_one_type(Handle* handle, Sizes s, const void* alpha, Factor a, Factor b, const void* beta,
                                      void* c, int ldc, long long stride, int count, bool tf32) {
  return strided<T, T>(handle, s, (const T*)alpha, a, b, (const T*)beta, (T*)c, ldc, stride, count, tf32);
}

template <class T> Status by_addresses(Handle* handle, Sizes s, const T* alpha, const T* const* a, Factor fa,
                                       const T* const* b, Factor fb, const T* beta, T* const* c, int ldc, int count) {
  if (!valid(s, fa, fb, ldc, count)) return invalid_value;
  Scalar<T> x(handle, alpha), y(handle, beta);
  return queue(handle, [=] {
    for (int i = 0; i < count; i++)
      gemm<T>(s, x.get(), a[i], fa, b[i], fb, y.get(), c[i], size_t(ldc), [](T value) { return value; });
  }, name_of(s, count));
}

Status mixed(Handle* handle, Sizes s, const void* alpha, Factor a, int type_a, Factor b, int type_b, const void* beta,
             void* c, int type_c, int ldc, long long stride, int count, int compute) {
  bool tf32 = type_a == CUDA_R_32F && (compute == compute_32f_fast_tf32 || (handle->math_mode & 15) == math_tf32);
  if (type_a == type_b && type_a == type_c) switch (type_a) {
    case CUDA_R_64F: return of_one_type<double>(handle, s, alpha, a, b, beta, c, ldc, stride, count, false);
    case CUDA_C_32F: return of_one_type<std::complex<float>>(handle, s, alpha, a, b, beta, c, ldc, stride, count, false);
    case CUDA_C_64F: return of_one_type<std::complex<double>>(handle, s, alpha, a, b, beta, c, ldc, stride, count, false);
  }
  Status status = not_supported;
  if (type_a == type_b)
    with_float_type(type_a, [&](auto of) {
      with_float_type(type_c, [&](auto out) {
        status = strided<float, decltype(of)>(handle, s, (const float*)alpha, a, b, (const float*)beta,
                                              (decltype(out)*)c, ldc, stride, count, tf32);
      });
    });
  if (status == not_supported)
    fprintf(stderr, "[cuda_emulator] a product of types %d and %d in type %d is not emulated\n", type_a, type_b, type_c);
  return status;
}

bool rounds(const Handle* handle) { return (handle->math_mode & 15) == math_tf32; }

}  // namespace
}  // namespace cuda_emulator

using namespace cuda_emulator;
using C32 = std::complex<float>;
using C64 = std::complex<double>;

extern "C" {

#define PRODUCTS(letter, T)                                                                                           \
  int cublas##letter##gemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const T* alpha, const T* a,      \
                              int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {                            \
    return of_one_type<T>(handle, {m, n, k}, alpha, {a, op_a, lda, 0}, {b, op_b, ldb, 0}, beta, c, ldc, 0, 1,          \
                          rounds(handle));                                                                             \
  }                                                                                                                   \
  int cublas##letter##gemmStridedBatched(Handle* handle, int op_a, int op_b, int m, int n, int k, const T* alpha,       \
                                         const T* a, int lda, long long next_a, const T* b, int ldb,                   \
                                         long long next_b, const T* beta, T* c, int ldc, long long next_c,             \
                                         int count) {                                                                 \
    return of_one_type<T>(handle, {m, n, k}, alpha, {a, op_a, lda, next_a}, {b, op_b, ldb, next_b}, beta, c, ldc,      \
                          next_c, count, rounds(handle));                                                              \
  }                                                                                                                   \
  int cublas##letter##gemmBatched(Handle* handle, int op_a, int op_b, int m, int n, int k, const T* alpha,              \
                                  const T* const* a, int lda, const T* const* b, int ldb, const T* beta,               \
                                  T* const* c, int ldc, int count) {                                                   \
    return by_addresses<T>(handle, {m, n, k}, alpha, a, {nullptr, op_a, lda, 0}, b, {nullptr, op_b, ldb, 0}, beta, c,  \
                           ldc, count);                                                                                \
  }
PRODUCTS(S, float)
PRODUCTS(D, double)
PRODUCTS(C, C32)
PRODUCTS(Z, C64)

int cublasSgemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const void* a,
                  int type_a, int lda, const void* b, int type_b, int ldb, const float* beta, void* c, int type_c,
                  int ldc) {
  return mixed(handle, {m, n, k}, alpha, {a, op_a, lda, 0}, type_a, {b, op_b, ldb, 0}, type_b, beta, c, type_c, ldc, 0,
               1, 0);
}

int cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int type_a,
                 int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc,
                 int compute, int) {
  return mixed(handle, {m, n, k}, alpha, {a, op_a, lda, 0}, type_a, {b, op_b, ldb, 0}, type_b, beta, c, type_c, ldc, 0,
               1, compute);
}

int cublasGemmStridedBatchedEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha,
                               const void* a, int type_a, int lda, long long next_a, const void* b, int type_b, int ldb,
                               long long next_b, const void* beta, void* c, int type_c, int ldc, long long next_c,
                               int count, int compute, int) {
  return mixed(handle, {m, n, k}, alpha, {a, op_a, lda, next_a}, type_a, {b, op_b, ldb, next_b}, type_b, beta, c,
               type_c, ldc, next_c, count, compute);
}

}  // extern "C"
