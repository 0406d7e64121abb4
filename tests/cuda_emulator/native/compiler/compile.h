// Compiles a kernel's source to a shared library.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace cuda_emulator {

struct Request {
  std::string source;
  std::vector<std::string> options;
  // Kernels to be launched by the name of a C++ expression, such as f<float>.
  std::vector<std::string> expressions;
  // Names and texts of headers.
  std::vector<std::pair<std::string, std::string>> headers;
};

struct Result {
  bool succeeded = false;
  std::string image, log;
};

// The name by which the device knows the kernel of an expression.
std::string name_of_expression(size_t i);
Result compile(const Request& request);
// What the result depends on besides the request.
std::string compiler_version();

}  // namespace cuda_emulator
