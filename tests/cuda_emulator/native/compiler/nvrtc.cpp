// The functions of NVRTC that CuPy calls. What NVRTC calls a cubin is a shared library here.
#include <cstring>
#include <exception>
#include <map>

#include "compile.h"
#include "configuration.h"

using namespace cuda_emulator;

namespace {

enum Status { success = 0, compilation_failed = 6, no_such_expression = 8, internal_error = 11 };

struct Program {
  Request request;
  Result result;
  std::map<std::string, std::string> lowered;
};

Status copy_out(const std::string& text, char* out) {
  memcpy(out, text.data(), text.size());
  return success;
}

// An empty program: CuPy reads the compiler's version off its PTX, for the keys of its cache.
bool asks_for_version(const std::string& source) { return source.find_first_not_of(" \t\n") == std::string::npos; }

}  // namespace

extern "C" {

const char* nvrtcGetErrorString(int status) {
  switch (status) {
    case success: return "NVRTC_SUCCESS";
    case compilation_failed: return "NVRTC_ERROR_COMPILATION";
    case no_such_expression: return "NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID";
    default: return "NVRTC_ERROR_INTERNAL_ERROR";
  }
}

int nvrtcVersion(int* major, int* minor) {
  *major = CUDA_EMULATOR_MAJOR;
  *minor = CUDA_EMULATOR_MINOR;
  return success;
}

static const int architectures[] = {80, 90, 100};
int nvrtcGetNumSupportedArchs(int* count) {
  *count = 3;
  return success;
}
int nvrtcGetSupportedArchs(int* out) {
  memcpy(out, architectures, sizeof architectures);
  return success;
}

int nvrtcCreateProgram(Program** out, const char* source, const char*, int count, const char** headers,
                       const char** names) {
  *out = new Program;
  (*out)->request.source = source;
  for (int i = 0; i < count; i++) (*out)->request.headers.push_back({names[i], headers[i]});
  return success;
}

int nvrtcDestroyProgram(Program** program) {
  delete *program;
  *program = nullptr;
  return success;
}

int nvrtcAddNameExpression(Program* program, const char* expression) {
  program->lowered[expression] = name_of_expression(program->request.expressions.size());
  program->request.expressions.push_back(expression);
  return success;
}

int nvrtcCompileProgram(Program* program, int count, const char** options) {
  if (asks_for_version(program->request.source)) {
    program->result = {true, "// " + compiler_version() + "\n" + '\0', ""};
    return success;
  }
  program->request.options.assign(options, options + count);
  try {
    program->result = compile(program->request);
  } catch (const std::exception& error) {
    program->result = {false, "", error.what()};
    return internal_error;
  }
  return program->result.succeeded ? success : compilation_failed;
}

int nvrtcGetPTXSize(Program* program, size_t* size) {
  *size = program->result.image.size();
  return success;
}
int nvrtcGetPTX(Program* program, char* out) { return copy_out(program->result.image, out); }
int nvrtcGetCUBINSize(Program* program, size_t* size) { return nvrtcGetPTXSize(program, size); }
int nvrtcGetCUBIN(Program* program, char* out) { return nvrtcGetPTX(program, out); }

int nvrtcGetProgramLogSize(Program* program, size_t* size) {
  *size = program->result.log.size() + 1;
  return success;
}
int nvrtcGetProgramLog(Program* program, char* out) { return copy_out(program->result.log + '\0', out); }

int nvrtcGetLoweredName(Program* program, const char* expression, const char** name) {
  auto found = program->lowered.find(expression);
  if (found == program->lowered.end()) return no_such_expression;
  *name = found->second.c_str();
  return success;
}

}  // extern "C"
