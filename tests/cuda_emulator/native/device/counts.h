// How often each kind of operation was asked of the device. Tests read the numbers: cuda_emulator.counts().
#pragma once
#include <atomic>

namespace cuda_emulator {

enum Count { kernels, to_device, to_host, within, fills, waits, allocations, others, count_of_counts };

extern std::atomic<long> counts[count_of_counts];

}  // namespace cuda_emulator
