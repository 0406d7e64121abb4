// The reduction of a block, for CuPy's reductions of rows. Only the first thread gets the result, as with CUB.
//
// Each thread reduces its items in their order, each warp its threads in pairs at growing distances, as by shuffles,
// and the first thread the warps in their order.
#pragma once
#include <string.h>

namespace cub {

template <class T, int threads> class BlockReduce {
 public:
  struct TempStorage { alignas(16) char bytes[sizeof(T) * threads]; };
  BlockReduce(TempStorage& storage) : of_threads(reinterpret_cast<T*>(storage.bytes)) {}

  template <int items, class Operation> T Reduce(T (&in)[items], Operation operation) {
    T own = in[0];
    for (int i = 1; i < items; i++) own = operation(own, in[i]);
    // T may have no trivial assignment.
    memcpy((void*)(of_threads + threadIdx.x), (const void*)&own, sizeof own);
    __syncthreads();
    if (threadIdx.x) return own;
    T all = of_warp(0, operation);
    for (int first = warpSize; first < threads; first += warpSize) all = operation(all, of_warp(first, operation));
    return all;
  }

 private:
  T* of_threads;

  template <class Operation> T of_warp(int first, Operation operation) {
    int last = first + warpSize < threads ? first + warpSize : threads;
    for (int distance = 1; distance < warpSize; distance *= 2)
      for (int i = first; i + distance < last; i += 2 * distance)
        of_threads[i] = operation(of_threads[i], of_threads[i + distance]);
    return of_threads[first];
  }
};

}  // namespace cub
