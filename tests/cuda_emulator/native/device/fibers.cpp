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
  Dim thread;
  State state;
  unsigned mask;  // of the lanes that the warp's barrier waits for
  bool passes;
  unsigned long long passed;
};

// The device runs one block at a time.
Fiber fibers[most_threads];
unsigned count, current, finished, at_block_barrier;
void* scheduler_stack;
Place* place;
bool reversed_order;
void (*body)(void**);
void** body_arguments;

// The next thread that can go on, in the order of a round.
int next_ready(int i) {
  int step = reversed_order ? -1 : 1;
  for (; i >= 0 && i < int(count); i += step)
    if (fibers[i].state == State::ready) return i;
  return -1;
}

void switch_to(void** save_stack, unsigned i) {
  current = i;
  place->thread = fibers[i].thread;
  cuda_emulator_switch(save_stack, fibers[i].stack);
}

// Goes on with the next thread, or at the end of a round with the scheduler.
void stop(State state, unsigned mask = 0) {
  Fiber& me = fibers[current];
  me.state = state;
  me.mask = mask;
  int next = next_ready(reversed_order ? int(current) - 1 : int(current) + 1);
  if (next < 0) cuda_emulator_switch(&me.stack, scheduler_stack);
  else switch_to(&me.stack, unsigned(next));
}

// A stack serves one block after another.
void start() {
  for (;;) {
    body(body_arguments);
    finished++;
    stop(State::finished);
  }
}

void wait_for_block() {
  at_block_barrier++;
  stop(State::at_block_barrier);
}

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
  fibers[i].stack = top;
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

void release_block() {
  for (unsigned i = 0; i < count; i++)
    if (fibers[i].state == State::at_block_barrier) fibers[i].state = State::ready;
  at_block_barrier = 0;
}

}  // namespace

const Barriers fiber_barriers = {wait_for_block, wait_for_warp, exchange};

bool run_block(void (*thread)(void**), void** arguments, Place& of_module, bool reversed) {
  static unsigned prepared = 0;
  body = thread;
  body_arguments = arguments;
  place = &of_module;
  reversed_order = reversed;
  Dim size = place->block_dim;
  count = size.x * size.y * size.z;
  finished = at_block_barrier = 0;
  for (; prepared < count; prepared++) prepare(prepared);
  for (unsigned i = 0; i < count; i++) {
    fibers[i].state = State::ready;
    fibers[i].passes = false;
    fibers[i].thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
  }
  while (finished < count) {
    int first = next_ready(reversed ? int(count) - 1 : 0);
    if (first >= 0) {
      switch_to(&scheduler_stack, unsigned(first));
    } else if (finished + at_block_barrier == count) {
      release_block();
    } else {
      bool released = false;
      for (unsigned lane = 0; lane < count; lane += warp) released |= release_warp(lane);
      // For ever. What the stacks hold is lost.
      if (!released) return prepared = 0, false;
    }
  }
  return true;
}

}  // namespace cuda_emulator
