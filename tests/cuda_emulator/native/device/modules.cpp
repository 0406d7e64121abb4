#include "modules.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "../kernel/image.h"
#include "errors.h"
#include "lock.h"
#include "memory.h"

namespace cuda_emulator {

struct Module {
  void* library;
  std::map<std::string, Function> functions;
};

constexpr int invalid_image = 200, not_found = 500, unknown = 999;

// The dynamic loader opens files only, and the file may go once it is open.
static void* open_library(const char* image, size_t bytes) {
  const char* folder = getenv("TMPDIR");
  std::string path = std::string(folder && *folder ? folder : "/tmp") + "/cuda_emulator-XXXXXX";
  int file = mkstemp(path.data());
  if (file < 0) return nullptr;
  bool written = true;
  for (size_t done = 0; written && done < bytes;) {
    ssize_t n = write(file, image + done, bytes - done);
    written = n > 0;
    done += std::max<ssize_t>(n, 0);
  }
  close(file);
  void* library = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
  unlink(path.c_str());
  return library;
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

extern "C" {

int cuModuleLoadData(Module** out, const char* image) {
  Locked locked;
  ImageHeader header;
  memcpy(&header, image, sizeof header);
  if (memcmp(header.mark, ImageHeader::expected, sizeof header.mark)) return invalid_image;
  void* library = open_library(image + sizeof header, header.bytes);
  if (!library) {
    const char* error = dlerror();
    fprintf(stderr, "[cuda_emulator] a kernel module cannot be loaded: %s\n", error ? error : strerror(errno));
    return unknown;
  }
  auto* table = (const ModuleTable*)dlsym(library, "cuda_emulator_module");
  if (!table || table->size != sizeof *table) return invalid_image;
  *out = new Module{library, {}};
  for (unsigned i = 0; i < table->kernel_count; i++)
    (*out)->functions[table->kernels[i].name] = {table, &table->kernels[i]};
  return 0;
}

// Graphs may still launch its functions, so it stays.
int cuModuleUnload(Module*) { return 0; }

int cuModuleGetFunction(Function** out, Module* module, const char* name) {
  Locked locked;
  auto found = module->functions.find(name);
  if (found == module->functions.end()) return not_found;
  *out = &found->second;
  return 0;
}

int cuModuleGetGlobal_v2(void** address, size_t* bytes, Module* module, const char* name) {
  Locked locked;
  *address = dlsym(module->library, name);
  if (!*address) return not_found;
  Dl_info info;
  ElfW(Sym)* symbol = nullptr;
  dladdr1(*address, &info, (void**)&symbol, RTLD_DL_SYMENT);
  size_t size = symbol ? symbol->st_size : sizeof(void*);
  if (bytes) *bytes = size;
  note_variable(*address, size);
  return 0;
}

int cuFuncGetAttribute(int* value, int attribute, Function*) {
  switch (attribute) {
    case 0: *value = 1024; break;                                // threads of a block
    case 4: *value = 32; break;                                  // registers
    case 5: case 6: *value = 90; break;                          // versions of the compiler's output
    case 8: *value = int(Function::usual_shared); break;         // dynamic shared memory
    default: *value = 0;
  }
  return 0;
}

int cuFuncSetAttribute(Function* function, int attribute, int value) {
  Locked locked;
  if (attribute != 8) return 0;
  if (value < 0 || unsigned(value) > Function::most_shared) return cudaErrorInvalidValue;
  function->shared_limit = unsigned(value);
  return 0;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function*, int threads, size_t) {
  *blocks = std::min(32, std::max(1, 2048 / std::max(threads, 1)));
  return 0;
}

int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, Function*, void*, size_t, int limit) {
  *block = limit > 0 ? std::min(limit, 1024) : 1024;
  *grid = 132 * (2048 / *block);
  return 0;
}

}  // extern "C"
