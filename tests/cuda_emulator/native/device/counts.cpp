#include "counts.h"

extern "C" void cuda_emulator_counts(long* out) {
  for (int i = 0; i < cuda_emulator::count_of_counts; i++) out[i] = cuda_emulator::counts[i];
}
