// Atomic functions: a thread runs until it waits, so that nothing comes between a load and a store.
#pragma once

#define CUDA_EMULATOR_ATOMIC(name, T, result) \
  inline T name(T* address, T value) {        \
    T old = *address;                         \
    *address = result;                        \
    return old;                               \
  }
#define CUDA_EMULATOR_ATOMICS(T)                                      \
  CUDA_EMULATOR_ATOMIC(atomicAdd, T, old + value)                     \
  CUDA_EMULATOR_ATOMIC(atomicMin, T, value < old ? value : old)       \
  CUDA_EMULATOR_ATOMIC(atomicMax, T, old < value ? value : old)       \
  CUDA_EMULATOR_ATOMIC(atomicExch, T, value)
#define CUDA_EMULATOR_INTEGER_ATOMICS(T)                              \
  CUDA_EMULATOR_ATOMICS(T)                                            \
  CUDA_EMULATOR_ATOMIC(atomicSub, T, old - value)                     \
  CUDA_EMULATOR_ATOMIC(atomicAnd, T, old & value)                     \
  CUDA_EMULATOR_ATOMIC(atomicOr, T, old | value)                      \
  CUDA_EMULATOR_ATOMIC(atomicXor, T, old ^ value)
#define CUDA_EMULATOR_CAS(T)                          \
  inline T atomicCAS(T* address, T expected, T value) { \
    T old = *address;                                 \
    if (old == expected) *address = value;            \
    return old;                                       \
  }

CUDA_EMULATOR_INTEGER_ATOMICS(int)
CUDA_EMULATOR_INTEGER_ATOMICS(unsigned)
CUDA_EMULATOR_INTEGER_ATOMICS(unsigned long long)
CUDA_EMULATOR_ATOMIC(atomicMin, long long, value < old ? value : old)
CUDA_EMULATOR_ATOMIC(atomicMax, long long, old < value ? value : old)
CUDA_EMULATOR_ATOMIC(atomicAdd, float, old + value)
CUDA_EMULATOR_ATOMIC(atomicAdd, double, old + value)
CUDA_EMULATOR_ATOMIC(atomicExch, float, value)
CUDA_EMULATOR_CAS(int)
CUDA_EMULATOR_CAS(unsigned)
CUDA_EMULATOR_CAS(unsigned short)
CUDA_EMULATOR_CAS(unsigned long long)
