// Functions by which the 32 lanes of a warp exchange values.
#pragma once

namespace cuda_emulator {

inline unsigned lane() {
  const Place& p = place;
  return (p.thread.x + p.block_dim.x * (p.thread.y + p.block_dim.y * p.thread.z)) % 32;
}

// The values of all lanes that take part, up to 8 bytes each.
template <class T> class Lanes {
  static_assert(sizeof(T) <= 8, "a lane passes 8 bytes at most");
  unsigned long long values[32];
  T mine;

 public:
  unsigned present;

  Lanes(unsigned mask, T value) : mine(value) {
    CUDA_EMULATOR_WAITS
    unsigned long long passed = 0;
    memcpy(&passed, &value, sizeof value);
    place.barriers->exchange(mask, passed, values, &present);
  }
  // A lane that takes no part has no value; CUDA leaves open what is read there, here it is the reader's own.
  T of(unsigned other) const {
    T found = mine;
    if (other < 32 && present >> other & 1) memcpy(&found, &values[other], sizeof found);
    return found;
  }
};

}  // namespace cuda_emulator

inline void __syncwarp(unsigned mask = ~0u) {
  CUDA_EMULATOR_WAITS
  cuda_emulator::place.barriers->warp(mask);
}

// In all of these a warp falls into parts of `width` lanes, which see nothing of each other.
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  unsigned first = cuda_emulator::lane() / width * width;
  return cuda_emulator::Lanes<T>(mask, value).of(first + (unsigned)source % width);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  unsigned lane = cuda_emulator::lane();
  return cuda_emulator::Lanes<T>(mask, value).of(lane % width >= distance ? lane - distance : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  unsigned lane = cuda_emulator::lane();
  return cuda_emulator::Lanes<T>(mask, value).of(lane % width + distance < (unsigned)width ? lane + distance : lane);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  unsigned lane = cuda_emulator::lane(), other = lane ^ bits;
  // A lane of a later part is out of reach, one of an earlier part is not.
  return cuda_emulator::Lanes<T>(mask, value).of(other / width > lane / width ? lane : other);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  cuda_emulator::Lanes<int> lanes(mask, predicate);
  unsigned found = 0;
  for (unsigned i = 0; i < 32; i++)
    if (lanes.present >> i & 1 && lanes.of(i)) found |= 1u << i;
  return found;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
