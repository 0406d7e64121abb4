// Replaces functions of a loaded extension module of CuPy. Its wheels link CUDA's runtime statically, so that no other
// library can take its place, but they keep their symbol tables, which say where each function is.
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

#include "replacements.h"

namespace cuda_emulator {
namespace {

// A file in memory.
struct Mapped {
  char* bytes = nullptr;
  size_t size = 0;
  explicit Mapped(const char* path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0) return;
    if (!fstat(file, &status)) {
      void* at = mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
      if (at != MAP_FAILED) bytes = (char*)at, size = size_t(status.st_size);
    }
    close(file);
  }
  ~Mapped() {
    if (bytes) munmap(bytes, size);
  }
};

// Where the module was loaded; null if it was not.
char* base_of(const char* path) {
  void* handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  link_map* map = nullptr;
  if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map)) return nullptr;
  dlclose(handle);
  return (char*)map->l_addr;
}

int not_emulated(const char* name) {
  fprintf(stderr, "[cuda_emulator] %s is not emulated\n", name);
  return 801;  // cudaErrorNotSupported
}

// jmp *(%rip), and the address that it jumps to.
constexpr size_t jump_bytes = 14;
void write_jump(unsigned char* at, const void* to) {
  const unsigned char code[6] = {0xff, 0x25, 0, 0, 0, 0};
  memcpy(at, code, 6);
  memcpy(at + 6, &to, 8);
}

// A function that calls not_emulated with a name: mov $name, %rdi; jmp not_emulated.
const void* refusal(const char* name) {
  constexpr size_t size = 24, page = 64 << 10;
  static unsigned char *next = nullptr, *end = nullptr;
  if (end - next < std::ptrdiff_t(size)) {
    void* fresh = mmap(nullptr, page, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) return nullptr;
    next = (unsigned char*)fresh;
    end = next + page;
  }
  unsigned char* made = next;
  next += size;
  const char* kept = strdup(name);
  made[0] = 0x48, made[1] = 0xbf;
  memcpy(made + 2, &kept, 8);
  write_jump(made + 10, (void*)not_emulated);
  return made;
}

bool overwrite(char* function, const void* to) {
  auto page = uintptr_t(sysconf(_SC_PAGESIZE));
  uintptr_t first = uintptr_t(function) / page * page, bytes = uintptr_t(function) + jump_bytes - first;
  if (mprotect((void*)first, bytes, PROT_READ | PROT_WRITE | PROT_EXEC)) return false;
  write_jump((unsigned char*)function, to);
  return !mprotect((void*)first, bytes, PROT_READ | PROT_EXEC);
}

// The emulator's function of the same name; for one of CUDA's runtime that it lacks, one that says so; else null.
const void* replacement(const char* name) {
  if (const void* found = device_wide_function(name)) return found;
  if (strncmp(name, "cuda", 4) || name[4] < 'A' || name[4] > 'Z') return nullptr;
  static void* self = [] {
    Dl_info info;
    dladdr((void*)not_emulated, &info);
    return dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  }();
  const void* found = dlsym(self, name);
  return found ? found : refusal(name);
}

}  // namespace
}  // namespace cuda_emulator

using namespace cuda_emulator;

// The number of functions replaced. Negative: -1 the module is not loaded or its file cannot be read, -2 it is no ELF
// file with a symbol table, -3 a function could not be overwritten.
extern "C" int cuda_emulator_replace(const char* path) {
  char* base = base_of(path);
  Mapped file(path);
  if (!base || !file.bytes) return -1;
  auto* header = (const Elf64_Ehdr*)file.bytes;
  if (file.size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG)) return -2;
  auto* sections = (const Elf64_Shdr*)(file.bytes + header->e_shoff);
  const Elf64_Shdr* table = nullptr;
  for (int i = 0; i < header->e_shnum; i++)
    if (sections[i].sh_type == SHT_SYMTAB) table = &sections[i];
  if (!table) return -2;
  auto* symbols = (const Elf64_Sym*)(file.bytes + table->sh_offset);
  const char* names = file.bytes + sections[table->sh_link].sh_offset;
  int replaced = 0;
  for (size_t i = 0; i < table->sh_size / sizeof(Elf64_Sym); i++) {
    const Elf64_Sym& symbol = symbols[i];
    if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF) continue;
    const char* name = names + symbol.st_name;
    const void* to = replacement(name);
    if (!to) continue;
    if (symbol.st_size < jump_bytes || !overwrite(base + symbol.st_value, to)) {
      fprintf(stderr, "[cuda_emulator] %s of %s cannot be replaced\n", name, path);
      return -3;
    }
    replaced++;
  }
  return replaced;
}
