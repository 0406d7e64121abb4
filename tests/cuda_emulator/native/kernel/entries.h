// How the device calls a kernel: by addresses of its arguments, for one thread or for all.
#pragma once

// CuPy's array arguments, whose header comes later.
template <typename T, int dimensions, bool contiguous, bool index_32_bits> class CArray;

namespace cuda_emulator {

// Whether an argument is a double, or the address or an array of some.
template <class T> constexpr bool mentions_double = std::is_same<std::remove_cv_t<T>, double>::value;
template <class T> constexpr bool mentions_double<T*> = mentions_double<T>;
template <class T> constexpr bool mentions_double<T&> = mentions_double<T>;
template <template <class> class Of, class T> constexpr bool mentions_double<Of<T>> = mentions_double<T>;
template <class T, int n, bool c, bool i> constexpr bool mentions_double<CArray<T, n, c, i>> = mentions_double<T>;

template <class F> inline void for_each_place(Dim& at, Dim size, bool reversed, F f) {
  uint64_t n = uint64_t(size.x) * size.y * size.z;
  for (uint64_t k = 0; k < n; k++) {
    uint64_t i = reversed ? n - 1 - k : k;
    at = {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
    f();
  }
}

template <auto kernel> struct Entry;
template <class... A, void (*kernel)(A...)> struct Entry<kernel> {
  template <size_t... i> static void call(void** arguments, std::index_sequence<i...>) {
    kernel(*(std::remove_cv_t<A>*)arguments[i]...);
  }
  static void one_thread(void** arguments) { call(arguments, std::index_sequence_for<A...>()); }
  static void all_threads(void** arguments, bool reversed) {
    for_each_place(place.block, place.grid_dim, reversed, [=] {
      for_each_place(place.thread, place.block_dim, reversed, [=] { one_thread(arguments); });
    });
  }
  static constexpr unsigned sizes[sizeof...(A) + 1] = {(unsigned)sizeof(A)..., 0};
  static constexpr KernelEntry of(const char* name) {
    return {name, one_thread, all_threads, (unsigned)sizeof...(A), sizes, (mentions_double<std::remove_cv_t<A>> || ...)};
  }
};

}  // namespace cuda_emulator

// Made by the linker for sections of these names, if there are any.
extern "C" {
extern char __start_cuda_emulator_waiting[] __attribute__((weak, visibility("hidden")));
extern char __start_cuda_emulator_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cuda_emulator_shared[] __attribute__((weak, visibility("hidden")));
}
