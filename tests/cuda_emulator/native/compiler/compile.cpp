#include "compile.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../kernel/image.h"
// Written by the build: the compiler, its flags, and the folder of the compiled prelude.
#include "configuration.h"
#include "source.h"

extern char** environ;

namespace cuda_emulator {
namespace {

namespace fs = std::filesystem;

bool starts(const std::string& text, const char* with) { return !text.compare(0, strlen(with), with); }

// NVRTC's options, as far as they mean something here.
struct Options {
  bool fused = true, flush = false;
  std::string standard = "-std=c++17";
  std::vector<std::string> passed;

  explicit Options(const std::vector<std::string>& given) {
    for (const std::string& each : given) {
      // NVRTC has both -name and --name.
      std::string option = starts(each, "--") ? each.substr(1) : each;
      if (option == "-fmad=false") fused = false;
      else if (option == "-ftz=true" || option == "-use_fast_math") flush = true;
      // The prelude needs C++17.
      else if (option == "-std=c++20") standard = option;
      else if (starts(option, "-D") || starts(option, "-U")) passed.push_back(option);
      // NVIDIA's headers are replaced.
      else if (starts(option, "-I") && option.find("/nvidia/") == std::string::npos &&
               option.find("_cccl") == std::string::npos) passed.push_back(option);
    }
    const char* fmad = getenv("CUDA_EMULATOR_FMAD");
    if (fmad && !strcmp(fmad, "0")) fused = false;
  }
};

// A folder for one compilation.
struct Folder {
  std::string path;
  Folder() {
    std::string pattern = fs::temp_directory_path() / "cuda_emulator-XXXXXX";
    if (mkdtemp(pattern.data())) path = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Runs a command with its output in a file; true if it succeeded.
bool run(const std::vector<std::string>& command, const std::string& output) {
  std::vector<char*> arguments;
  for (auto& each : command) arguments.push_back(const_cast<char*>(each.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child;
  int error = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (!error)
    while (waitpid(child, &status, 0) < 0)
      if (errno != EINTR) return false;
  return !error && !status;
}

// The table that the device reads, after the kernels.
std::string table_of(const Source& source, const Request& request, const Options& options) {
  std::ostringstream text;
  text << "\n#line 1 \"table of kernels\"\nnamespace cuda_emulator {\nstatic const KernelEntry kernels[] = {\n";
  for (auto& name : source.kernels) text << "  Entry<&::" << name << ">::of(\"" << name << "\"),\n";
  for (size_t i = 0; i < request.expressions.size(); i++)
    text << "  Entry<&" << request.expressions[i] << ">::of(\"" << name_of_expression(i) << "\"),\n";
  text << "  {}};\n}\nextern \"C\" __attribute__((visibility(\"default\"), externally_visible))\n"
       << "const cuda_emulator::ModuleTable cuda_emulator_module = {sizeof(cuda_emulator::ModuleTable), "
       << source.kernels.size() + request.expressions.size() << ", cuda_emulator::kernels, &cuda_emulator::place, "
       << options.flush << ", " << source.one_thread_is_all
       << ", __start_cuda_emulator_waiting, __start_cuda_emulator_shared, __stop_cuda_emulator_shared};\n";
  return text.str();
}

}  // namespace

std::string name_of_expression(size_t i) { return "cuda_emulator_expression_" + std::to_string(i); }

std::string compiler_version() {
  const char* fmad = getenv("CUDA_EMULATOR_FMAD");
  return "cuda_emulator " CUDA_EMULATOR_DIGEST + std::string(fmad && !strcmp(fmad, "0") ? " plain" : " fused");
}

Result compile(const Request& request) {
  Options options(request.options);
  Source source = read_source(request.source);
  Folder folder;
  if (folder.path.empty()) return {false, "", std::string("no temporary folder: ") + strerror(errno)};
  auto inside = [&](const char* name) { return folder.path + "/" + name; };
  std::ofstream(inside("kernel.cpp")) << "#line 1 \"kernel.cu\"\n" << source.text << table_of(source, request, options);
  for (auto& [name, text] : request.headers) {
    fs::path path = fs::path(folder.path) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::vector<std::string> command = {CUDA_EMULATOR_COMPILER, options.standard};
  for (const char* flag : {CUDA_EMULATOR_FLAGS}) command.push_back(flag);
  if (options.fused) command.insert(command.end(), {CUDA_EMULATOR_FUSED});
  else command.insert(command.end(), {CUDA_EMULATOR_PLAIN});
  command.push_back("-I" + folder.path);
  command.insert(command.end(), options.passed.begin(), options.passed.end());
  command.insert(command.end(), {"-shared", "-o", inside("kernel.so"), inside("kernel.cpp")});
  bool succeeded = run(command, inside("log"));
  std::string log = read_file(inside("log"));
  if (!succeeded) return {false, "", log.empty() ? CUDA_EMULATOR_COMPILER " could not be run" : log};
  std::string library = read_file(inside("kernel.so"));
  ImageHeader header{{}, library.size()};
  memcpy(header.mark, ImageHeader::expected, sizeof header.mark);
  return {true, std::string((char*)&header, sizeof header) + library, log};
}

}  // namespace cuda_emulator
