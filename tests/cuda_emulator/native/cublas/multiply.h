// Products of matrices, column by column as in BLAS. Each entry is summed in the order of k with fused multiply-adds,
// whatever the sizes: the same product has the same bits alone and as a part of a batch or of a larger one.
#pragma once
#include <algorithm>
#include <complex>
#include <cstring>
#include <vector>

namespace cuda_emulator {

template <class T> constexpr bool is_complex_number = false;
template <class T> constexpr bool is_complex_number<std::complex<T>> = true;

// A tile is computed in registers: so many rows of the left factor by so many columns of the right one.
template <class T> struct Tile {
  typedef T Vector __attribute__((vector_size(32)));
  static constexpr size_t lanes = 32 / sizeof(T), vectors = 2, rows = vectors * lanes, columns = 4;

  static void multiply(size_t k, const T* left, const T* right, T (&out)[columns][rows]) {
    Vector sum[columns][vectors] = {};
    for (size_t p = 0; p < k; p++) {
      Vector column[vectors];
      memcpy(column, left + p * rows, sizeof column);
      for (size_t j = 0; j < columns; j++)
        for (size_t v = 0; v < vectors; v++) sum[j][v] += column[v] * right[p * columns + j];
    }
    memcpy(out, sum, sizeof sum);
  }
};

template <class T> struct Tile<std::complex<T>> {
  using Z = std::complex<T>;
  static constexpr size_t rows = 1, columns = 1;

  static void multiply(size_t k, const Z* left, const Z* right, Z (&out)[columns][rows]) {
    T re = 0, im = 0;
    for (size_t p = 0; p < k; p++) {
      re += left[p].real() * right[p].real() - left[p].imag() * right[p].imag();
      im += left[p].real() * right[p].imag() + left[p].imag() * right[p].real();
    }
    out[0][0] = Z(re, im);
  }
};

// n vectors of length k in strips of a few vectors, as a tile reads them: the first entries of a strip's vectors, then
// the second ones. `read(vector, position)` converts to the type that is computed in.
template <class T, class Read> std::vector<T> strips(size_t n, size_t k, size_t width, Read read) {
  std::vector<T> packed((n + width - 1) / width * width * k);
  for (size_t i = 0; i < n; i++)
    for (size_t p = 0; p < k; p++) packed[i / width * width * k + p * width + i % width] = read(i, p);
  return packed;
}

// Calls store(i, j, sum) for each entry of an m x n product.
template <class T, class Left, class Right, class Store>
void multiply(size_t m, size_t n, size_t k, Left read_left, Right read_right, Store store) {
  constexpr size_t rows = Tile<T>::rows, columns = Tile<T>::columns;
  if (!m || !n) return;
  std::vector<T> left = strips<T>(m, k, rows, read_left), right = strips<T>(n, k, columns, read_right);
  T tile[columns][rows];
  for (size_t j = 0; j < n; j += columns)
    for (size_t i = 0; i < m; i += rows) {
      Tile<T>::multiply(k, left.data() + i * k, right.data() + j * k, tile);
      for (size_t c = 0; c < std::min(columns, n - j); c++)
        for (size_t r = 0; r < std::min(rows, m - i); r++) store(i + r, j + c, tile[c][r]);
    }
}

}  // namespace cuda_emulator
