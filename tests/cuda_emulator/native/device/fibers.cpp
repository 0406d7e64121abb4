#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// Saves the registers that a call must preserve on the present stack, and returns on the other one.
extern "C" void cuda_emulator_switch(void** save_stack, void* to_stack);
asm(R"(
.text
.type cuda_emulator_switch, @function
.globl cuda_emulator_switch
.hidden cuda_emulator_switch
cuda_emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

namespace cuda_emulator {
namespace {

constexpr unsigned most_threads = 1024, warp = 32;
constexpr size_t stack_bytes = 128 << 10, page = 4 << 10;

enum class State { ready, at_block_barrier, at_warp_barrier, finished };

struct Fiber {
  void* stack;
  State state;
  unsigned mask;  // of the lanes that the warp's barrier waits for
  unsigned long long passed;
  bool passes;
};

// The device runs one block at a time.
Fiber fibers[most_threads];
unsigned count, current;
void* scheduler_stack;
void (*body)(void**);
void** body_arguments;

void stop(State state, unsigned mask = 0) {
  fibers[current].state = state;
  fibers[current].mask = mask;
  cuda_emulator_switch(&fibers[current].stack, scheduler_stack);
}

void start() {
  body(body_arguments);
  stop(State::finished);
  abort();
}

void wait_for_block() { stop(State::at_block_barrier); }
void wait_for_warp(unsigned mask) { stop(State::at_warp_barrier, mask); }

void exchange(unsigned mask, unsigned long long mine, unsigned long long* all, unsigned* present) {
  Fiber* lanes = fibers + current / warp * warp;
  Fiber& me = fibers[current];
  me.passed = mine;
  me.passes = true;
  wait_for_warp(mask);
  *present = 0;
  for (unsigned i = 0; i < warp && lanes + i < fibers + count; i++)
    if (lanes[i].passes && mask >> i & 1) {
      *present |= 1u << i;
      all[i] = lanes[i].passed;
    }
  // Nobody passes the next value before all have read this one.
  wait_for_warp(mask);
  me.passes = false;
}

char* stacks() {
  static char* found = [] {
    auto* memory = (char*)mmap(nullptr, stack_bytes * most_threads, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("cuda_emulator: no memory for the stacks of a block");
      abort();
    }
    // A thread that needs more than its stack faults, instead of writing to its neighbour's.
    for (unsigned i = 0; i < most_threads; i++) mprotect(memory + i * stack_bytes, page, PROT_NONE);
    return memory;
  }();
  return found;
}

void prepare(unsigned i) {
  // Tops at different distances from a page, or all would share the same lines of the cache.
  auto** top = (void**)(stacks() + (i + 1) * stack_bytes - 64 - i % 32 * 192);
  *--top = nullptr;  // the return address of start, and what aligns its stack
  *--top = (void*)start;
  for (int registers = 0; registers < 6; registers++) *--top = nullptr;
  fibers[i] = {top, State::ready, 0, 0, false};
}

// Whether every lane that the waiting ones wait for is there, or has finished.
bool release_warp(unsigned first) {
  unsigned last = std::min(first + warp, count), waiting = 0, running = 0, awaited = 0;
  for (unsigned i = first; i < last; i++) {
    unsigned bit = 1u << (i - first);
    if (fibers[i].state == State::at_warp_barrier) waiting |= bit, awaited |= fibers[i].mask;
    else if (fibers[i].state != State::finished) running |= bit;
  }
  if (!waiting || (awaited & running)) return false;
  for (unsigned i = first; i < last; i++)
    if (fibers[i].state == State::at_warp_barrier) fibers[i].state = State::ready;
  return true;
}

bool all_at_block_barrier() {
  return std::all_of(fibers, fibers + count, [](const Fiber& each) {
    return each.state == State::at_block_barrier || each.state == State::finished;
  });
}

}  // namespace

const Barriers fiber_barriers = {wait_for_block, wait_for_warp, exchange};

bool run_block(void (*thread)(void**), void** arguments, Place& place, bool reversed) {
  body = thread;
  body_arguments = arguments;
  Dim size = place.block_dim;
  count = size.x * size.y * size.z;
  for (unsigned i = 0; i < count; i++) prepare(i);
  for (unsigned finished = 0;;) {
    bool progress = false;
    for (unsigned k = 0; k < count; k++) {
      unsigned i = reversed ? count - 1 - k : k;
      if (fibers[i].state != State::ready) continue;
      current = i;
      place.thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
      cuda_emulator_switch(&scheduler_stack, fibers[i].stack);
      finished += fibers[i].state == State::finished;
      progress = true;
    }
    if (finished == count) return true;
    if (all_at_block_barrier()) {
      for (unsigned i = 0; i < count; i++)
        if (fibers[i].state == State::at_block_barrier) fibers[i].state = State::ready;
      continue;
    }
    for (unsigned first = 0; first < count; first += warp) progress |= release_warp(first);
    if (!progress) return false;
  }
}

}  // namespace cuda_emulator
