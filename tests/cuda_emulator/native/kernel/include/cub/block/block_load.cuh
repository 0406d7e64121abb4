// How the threads of a block load a tile of consecutive items, for CuPy's reductions of rows.
#pragma once

namespace cub {

enum BlockLoadAlgorithm { BLOCK_LOAD_DIRECT };

template <class T, int threads, int items, BlockLoadAlgorithm = BLOCK_LOAD_DIRECT> struct BlockLoad {
  struct TempStorage { char none; };
  BlockLoad(TempStorage&) {}

  template <class In, class Other> void Load(In tile, T (&loaded)[items], int valid, Other otherwise) {
    int first = (int)threadIdx.x * items;
    for (int i = 0; i < items; i++)
      loaded[i] = first + i < valid ? static_cast<T>(tile[first + i]) : static_cast<T>(otherwise);
  }
};

}  // namespace cub
