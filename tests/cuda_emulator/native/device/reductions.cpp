// CuPy's functions on top of CUB: reductions, scans and histograms of whole arrays.
//
// The order of sums is the emulator's: each of 256 lanes adds up every 256th entry, then the lanes are added in pairs.
// CUB's is another one, and differs between devices; both are far from the order of a loop.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "numbers.h"
#include "replacements.h"
#include "streams.h"

namespace cuda_emulator {
namespace {

enum Operation { sum, minimum, maximum, arg_minimum, arg_maximum, cumulative_sum, cumulative_product, product };
constexpr size_t lanes = 256;

// The extremes return NaN where there is one, as CuPy's do.
template <class T> T combined(int operation, T a, T b) {
  switch (operation) {
    case sum: case cumulative_sum: return T(a + b);
    case product: case cumulative_product: return T(a * b);
    case minimum: return is_nan(a) || (!is_nan(b) && !less(b, a)) ? a : b;
    default: return is_nan(a) || (!is_nan(b) && !less(a, b)) ? a : b;
  }
}

template <class T> T reduced(int operation, const T* x, size_t n) {
  if (!n) return operation == product ? T(1) : T(0);
  T lane[lanes];
  size_t used = std::min(n, lanes);
  std::copy_n(x, used, lane);
  for (size_t i = used; i < n; i++) lane[i % lanes] = combined(operation, lane[i % lanes], x[i]);
  for (size_t step = 1; step < used; step *= 2)
    for (size_t i = 0; i + step < used; i += 2 * step) lane[i] = combined(operation, lane[i], lane[i + step]);
  return lane[0];
}

// As cub::KeyValuePair, with the alignment of CUDA's complex numbers.
template <class T> struct IndexAndValue {
  int index;
  alignas(is_complex<T> ? sizeof(T) : alignof(T)) T value;
};

// The first of equal entries, or the first NaN.
template <class T> IndexAndValue<T> extreme(int operation, const T* x, size_t n) {
  IndexAndValue<T> best{0, x[0]};
  for (size_t i = 1; i < n && !is_nan(best.value); i++) {
    bool better = operation == arg_minimum ? less(x[i], best.value) : less(best.value, x[i]);
    if (better || is_nan(x[i])) best = {int(i), x[i]};
  }
  return best;
}

// Queues a function of a number of that type.
template <class F> void queue(cudaStream_t stream, const char* name, int type, F f) {
  submit(stream, [=] {
    if (!with_type(type, f)) fprintf(stderr, "[cuda_emulator] %s: unknown type %d\n", name, type);
  }, name);
}

void reduce(void*, size_t&, void* x, void* y, int n, cudaStream_t stream, int operation, int type) {
  queue(stream, "CUB reduction", type, [=](auto zero) {
    using T = decltype(zero);
    if (operation == arg_minimum || operation == arg_maximum) {
      IndexAndValue<T> found = extreme(operation, (const T*)x, size_t(n));
      memcpy(y, (void*)&found, sizeof found);
    } else {
      *(T*)y = reduced(operation, (const T*)x, size_t(n));
    }
  });
}

void reduce_segments(void*, size_t&, void* x, void* y, int count, int size, cudaStream_t stream, int operation,
                     int type) {
  queue(stream, "CUB segmented reduction", type, [=](auto zero) {
    using T = decltype(zero);
    for (size_t i = 0; i < size_t(count); i++)
      ((T*)y)[i] = reduced(operation, (const T*)x + i * size_t(size), size_t(size));
  });
}

void scan(void*, size_t&, void* x, void* y, int n, cudaStream_t stream, int operation, int type) {
  queue(stream, "CUB scan", type, [=](auto zero) {
    using T = decltype(zero);
    T total{};
    for (int i = 0; i < n; i++) {
      T next = ((const T*)x)[i];
      ((T*)y)[i] = total = i ? combined(operation, total, next) : next;
    }
  });
}

// Bins between ascending edges; CuPy passes those of integers as doubles.
void histogram_by_edges(void*, size_t&, void* x, void* y, int edges, void* edge, size_t n, cudaStream_t stream,
                        int type) {
  queue(stream, "CUB histogram", type, [=](auto zero) {
    using T = decltype(zero);
    if constexpr (!is_complex<T>) {
      using Edge = std::conditional_t<is_integer<T>, double, T>;
      const Edge *first = (const Edge*)edge, *last = first + edges;
      auto* counts = (long long*)y;
      std::fill_n(counts, edges - 1, 0);
      for (size_t i = 0; i < n; i++) {
        Edge value = Edge(((const T*)x)[i]);
        if (value >= *first && value < last[-1]) counts[std::upper_bound(first, last, value) - first - 1]++;
      }
    }
  });
}

void histogram_of_equal_bins(void*, size_t&, void* x, void* y, int edges, int from, int to, size_t n,
                             cudaStream_t stream, int type) {
  queue(stream, "CUB histogram", type, [=](auto zero) {
    using T = decltype(zero);
    if constexpr (is_integer<T>) {
      auto* counts = (long long*)y;
      std::fill_n(counts, edges - 1, 0);
      for (size_t i = 0; i < n; i++) {
        auto value = (long long)((const T*)x)[i];
        if (value >= from && value < to) counts[(value - from) * (edges - 1) / (to - from)]++;
      }
    }
  });
}

// No function here needs workspace, and CuPy allocates no array of size zero.
size_t workspace() { return 1; }

const Replacement functions[] = {
    {"_Z17cub_device_reducePvRmS_S_iP11CUstream_stii", (void*)reduce},
    {"_Z27cub_device_segmented_reducePvRmS_S_iiP11CUstream_stii", (void*)reduce_segments},
    {"_Z15cub_device_scanPvRmS_S_iP11CUstream_stii", (void*)scan},
    {"_Z26cub_device_histogram_rangePvRmS_S_iS_mP11CUstream_sti", (void*)histogram_by_edges},
    {"_Z25cub_device_histogram_evenPvRmS_S_iiimP11CUstream_sti", (void*)histogram_of_equal_bins},
    {"_Z36cub_device_reduce_get_workspace_sizePvS_iP11CUstream_stii", (void*)workspace},
    {"_Z46cub_device_segmented_reduce_get_workspace_sizePvS_iiP11CUstream_stii", (void*)workspace},
    {"_Z34cub_device_scan_get_workspace_sizePvS_iP11CUstream_stii", (void*)workspace},
    {"_Z45cub_device_histogram_range_get_workspace_sizePvS_iS_mP11CUstream_sti", (void*)workspace},
    {"_Z44cub_device_histogram_even_get_workspace_sizePvS_iiimP11CUstream_sti", (void*)workspace},
};

}  // namespace

const void* reduction_function(const char* mangled) {
  for (auto& each : functions)
    if (!strcmp(each.mangled, mangled)) return each.function;
  return nullptr;
}

const void* device_wide_function(const char* mangled) {
  if (strncmp(mangled, "_Z", 2)) return nullptr;
  const void* found = reduction_function(mangled);
  return found ? found : sort_function(mangled);
}

}  // namespace cuda_emulator
