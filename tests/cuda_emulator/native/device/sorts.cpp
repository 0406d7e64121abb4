// CuPy's functions on top of Thrust: stable sorts of the rows of an array. NaN is the largest number.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "numbers.h"
#include "replacements.h"
#include "streams.h"

namespace cuda_emulator {
namespace {

using Shape = std::vector<ptrdiff_t>;

// An order of all values. Complex ones with a NaN are last: those where it is the imaginary part only come first, and
// numbers beside a NaN are compared.
template <class T> bool before(T a, T b) {
  if constexpr (is_complex<T>) {
    auto rank = [](T z) { return 2 * is_nan(z.real()) + is_nan(z.imag()); };
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    if (before(a.real(), b.real()) || before(b.real(), a.real())) return before(a.real(), b.real());
    return before(a.imag(), b.imag());
  } else {
    return is_nan(b) ? !is_nan(a) : a < b;
  }
}

size_t entries(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), size_t(1), [](size_t n, ptrdiff_t size) { return n * size; });
}

void sort(int type, void* data, size_t*, const Shape& shape, intptr_t stream, void*) {
  size_t n = entries(shape), row = size_t(shape.back());
  submit((cudaStream_t)stream, [=] {
    with_type(type, [=](auto zero) {
      using T = decltype(zero);
      for (T* first = (T*)data; first < (T*)data + n; first += row) std::stable_sort(first, first + row, before<T>);
    });
  }, "Thrust sort");
}

// Sorts by the last key first, so that the order of the others remains among equals.
void lexsort(int type, size_t* index, void* keys, size_t count, size_t n, intptr_t stream, void*) {
  submit((cudaStream_t)stream, [=] {
    with_type(type, [=](auto zero) {
      using T = decltype(zero);
      std::iota(index, index + n, size_t(0));
      for (const T* key = (const T*)keys; key < (const T*)keys + count * n; key += n)
        std::stable_sort(index, index + n, [=](size_t a, size_t b) { return before(key[a], key[b]); });
    });
  }, "Thrust lexsort");
}

// The data are sorted too: CuPy passes a copy.
void argsort(int type, size_t* index, void* data, void*, const Shape& shape, intptr_t stream, void*) {
  size_t n = entries(shape), row = size_t(shape.back());
  submit((cudaStream_t)stream, [=] {
    with_type(type, [=](auto zero) {
      using T = decltype(zero);
      std::vector<T> copy(row);
      for (size_t start = 0; start < n; start += row) {
        size_t* at = index + start;
        T* x = (T*)data + start;
        std::copy_n(x, row, copy.begin());
        std::iota(at, at + row, size_t(0));
        std::stable_sort(at, at + row, [&](size_t a, size_t b) { return before<T>(copy[a], copy[b]); });
        for (size_t i = 0; i < row; i++) x[i] = copy[at[i]];
      }
    });
  }, "Thrust argsort");
}

const Replacement functions[] = {
    {"_Z11thrust_sortiPvPmRKSt6vectorIlSaIlEElS_", (void*)sort},
    {"_Z14thrust_lexsortiPmPvmmlS0_", (void*)lexsort},
    {"_Z14thrust_argsortiPmPvS0_RKSt6vectorIlSaIlEElS0_", (void*)argsort},
};

}  // namespace

const void* sort_function(const char* mangled) {
  for (auto& each : functions)
    if (!strcmp(each.mangled, mangled)) return each.function;
  return nullptr;
}

}  // namespace cuda_emulator
