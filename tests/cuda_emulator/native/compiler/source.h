// What must be known of a kernel's source before a compiler of C++ sees it, and what must be changed in it.
#pragma once
#include <string>
#include <vector>

namespace cuda_emulator {

struct Source {
  std::string text;
  // Kernels that are launched by their own names, because they are extern "C".
  std::vector<std::string> kernels;
  // Whether each kernel is a loop (CuPy's CUPY_FOR) over all entries from the thread's own on, with a stride of the
  // number of threads, and nothing else tells threads apart: then one thread can do the work of all.
  bool one_thread_is_all;
};

Source read_source(const std::string& text);

}  // namespace cuda_emulator
