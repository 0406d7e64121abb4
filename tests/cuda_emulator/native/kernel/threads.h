// Words of CUDA C++, the place of a thread in its grid, and the barrier of a block.
#pragma once

#define __global__
#define __device__
#define __host__
// One block runs at a time, so its shared memory is static. A section of its own can be filled before each block.
#define __shared__ static __attribute__((aligned(16), section("cuda_emulator_shared")))
#define __constant__ __attribute__((externally_visible))
#define __managed__ __attribute__((externally_visible))
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

using uint3 = cuda_emulator::Dim;
using dim3 = cuda_emulator::Dim;

namespace cuda_emulator {
static Place place;
}

static uint3 &threadIdx = cuda_emulator::place.thread, &blockIdx = cuda_emulator::place.block;
static dim3 &blockDim = cuda_emulator::place.block_dim, &gridDim = cuda_emulator::place.grid_dim;
constexpr int warpSize = 32;

// Leaves a mark in a module that holds any function which waits, by whatever header it came: its threads need stacks
// of their own.
#define CUDA_EMULATOR_WAITS asm volatile(".pushsection cuda_emulator_waiting, \"a\"\n.byte 1\n.popsection");

inline void __syncthreads() {
  CUDA_EMULATOR_WAITS
  cuda_emulator::place.barriers->block();
}
// Threads take turns, so memory is always in order.
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
