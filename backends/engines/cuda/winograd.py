"""Winograd's minimal filtering in three kernels and one batched product.

The formulas are in `xpnn.layers.convolution.winograd`. ``T`` tiles, of the whole batch or of a part, are transformed to
``(n^2, T, C)``, multiplied by the transformed weight at each of the ``n^2`` points, and transformed back. A thread
transforms one tile of one channel in registers; neighbouring threads have neighbouring channels. The code of the
transforms is generated from their matrices, without products by 0 and 1.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from math import prod
from typing import Any, Protocol

from ....common.types import Array
from .compilation import MOST_ENTRIES, Source, address, dense, loaded_cupy
from .elementwise import rectify
from .im2col import ConvolutionProblem
from .prelude import geometry, strides, strides_of

Matrix = tuple[tuple[float, ...], ...]

# Most bytes of transformed tiles of input and output at a time.
PART_BYTES = 1 << 28


class WinogradTiling(Protocol):
    """Tiles of a convolution and their transforms: see `xpnn.layers.convolution.winograd_tiles.Tiling`."""

    problem: ConvolutionProblem
    m: int

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis."""

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        """The transforms of inputs ``(n, n)``, of kernels ``(n, 3)`` and of outputs ``(m, n)``."""


TEMPLATE = """
// Transformed tiles y (P, T, C) of an input x; one thread for each tile and channel
extern "C" __global__ void input_points(
    const T* x, T* y, Strides at, Geometry g, int rows, int columns, int channels, Index count)
{
    const Index first = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (first >= count) return;
    Index i = first;
    const int c = part(i, channels), column = part(i, columns), row = part(i, rows);
    const T* from = x + i * at.n + c * at.c;
    const int i1 = row * SIZE - g.before[1], i2 = column * SIZE - g.before[2];
    T d[SIDE][SIDE], t[SIDE][SIDE];
    for (int a = 0; a < SIDE; ++a)
        for (int b = 0; b < SIDE; ++b) {
            const bool inside = i1 + a >= 0 && i1 + a < g.input[1] && i2 + b >= 0 && i2 + b < g.input[2];
            d[a][b] = inside ? from[(i1 + a) * at.s[1] + (i2 + b) * at.s[2]] : (T)0;
        }
    @input_points@
}

// Transformed tiles y (P, T, F) of an upstream gradient x; one thread for each tile and feature
extern "C" __global__ void output_points(
    const T* x, T* y, Strides at, Geometry g, int rows, int columns, int channels, Index count)
{
    const Index first = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (first >= count) return;
    Index i = first;
    const int c = part(i, channels), column = part(i, columns), row = part(i, rows);
    const T* from = x + i * at.n + c * at.c;
    const int o1 = row * SIZE, o2 = column * SIZE;
    T d[SIZE][SIZE], t[SIDE][SIZE];
    for (int a = 0; a < SIZE; ++a)
        for (int b = 0; b < SIZE; ++b) {
            const bool inside = o1 + a < g.output[1] && o2 + b < g.output[2];
            d[a][b] = inside ? from[(o1 + a) * at.s[1] + (o2 + b) * at.s[2]] : (T)0;
        }
    @output_points@
}

// Outputs y (N, O1, O2, F) of transformed tiles x (P, T, F); one thread for each tile and feature
extern "C" __global__ void outputs(
    const T* x, const T* bias, T* y, Geometry g, int rows, int columns, int channels, Index count)
{
    const Index first = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (first >= count) return;
    Index i = first;
    const int c = part(i, channels), column = part(i, columns), row = part(i, rows);
    T d[SIDE][SIDE], t[SIZE][SIDE], e[SIZE][SIZE];
    for (int a = 0; a < SIDE; ++a)
        for (int b = 0; b < SIDE; ++b) d[a][b] = x[(a * SIDE + b) * count + first];
    @outputs@
    const T more = bias ? bias[c] : (T)0;
    for (int a = 0; a < SIZE; ++a)
        for (int b = 0; b < SIZE; ++b) {
            const int o1 = row * SIZE + a, o2 = column * SIZE + b;
            if (o1 < g.output[1] && o2 < g.output[2])
                y[((i * g.output[1] + o1) * (Index)g.output[2] + o2) * channels + c] = e[a][b] + more;
        }
}

// The transformed weight y (P, A, B) of x (A, B, 3, 3), which is first rotated by 180 degrees if turned is 1;
// one thread for each of (A, B)
extern "C" __global__ void weight_points(const T* x, T* y, Strides at, int channels, int turned, Index count)
{
    const Index first = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (first >= count) return;
    Index i = first;
    const int c = part(i, channels);
    const T* from = x + i * at.n + c * at.c;
    T d[3][3], t[SIDE][3];
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) d[a][b] = from[(turned ? 2 - a : a) * at.s[1] + (turned ? 2 - b : b) * at.s[2]];
    @weight_points@
}

// The gradient y (F, 3, 3, C) of a weight from that of the transformed weight, x (P, F, C); one thread for each
// feature and channel
extern "C" __global__ void weight_gradient(const T* x, T* y, int channels, Index count)
{
    const Index first = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (first >= count) return;
    Index i = first;
    const int c = part(i, channels);
    T d[SIDE][SIDE], t[3][SIDE], e[3][3];
    for (int a = 0; a < SIDE; ++a)
        for (int b = 0; b < SIDE; ++b) d[a][b] = x[(a * SIDE + b) * count + first];
    @weight_gradient@
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) y[((i * 3 + a) * 3 + b) * channels + c] = e[a][b];
}
"""


def _combination(coefficients: Sequence[float], names: Sequence[str]) -> str:
    """C++ of a linear combination, without products by 0 and 1."""
    terms = []
    for factor, name in zip(coefficients, names, strict=True):
        if factor == 0:
            continue
        size = name if abs(factor) == 1 else f"(T){abs(float(factor))!r} * {name}"
        terms.append((" - " if factor < 0 else " + ") + size)
    text = "".join(terms) or "(T)0"
    return text.removeprefix(" + ").strip()


def _two_sides(matrix: Matrix, to: str) -> str:
    """C++ of ``matrix d matrix^T``, with ``t`` for the first product; ``to`` is the target of an entry."""
    lines, size, inner = [], len(matrix), len(matrix[0])
    for a in range(size):
        for k in range(inner):
            lines.append(f"t[{a}][{k}] = {_combination(matrix[a], [f'd[{j}][{k}]' for j in range(inner)])};")
    for a in range(size):
        for b in range(size):
            value = _combination(matrix[b], [f"t[{a}][{k}]" for k in range(inner)])
            lines.append(f"{to.format(a=a, b=b, p=a * size + b)} = {value};")
    return "\n    ".join(lines)


@cache
def source(matrices: tuple[Matrix, Matrix, Matrix]) -> Source:
    """The source for transforms of inputs, kernels and outputs."""
    inputs, kernels, outputs = matrices
    point, entry = "y[{p} * count + first]", "e[{a}][{b}]"
    parts = {
        "input_points": _two_sides(inputs, point),
        "output_points": _two_sides(_transposed(outputs), point),
        "outputs": _two_sides(outputs, entry),
        "weight_points": _two_sides(kernels, point),
        "weight_gradient": _two_sides(_transposed(kernels), entry),
    }
    text = TEMPLATE
    for name, code in parts.items():
        text = text.replace(f"@{name}@", code)
    return Source(f"#define SIDE {len(inputs)}\n#define SIZE {len(outputs)}\n{text}")


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


class WinogradKernels:
    """Forward and the weight's gradient of a 3x3 convolution at stride 1, in tiles.

    Parameters
    ----------
    tiling : WinogradTiling
    ops : Operations
        Whose `matmul` multiplies.
    """

    def __init__(self, tiling: WinogradTiling, ops: Any) -> None:
        self.tiling, self.problem, self.ops = tiling, tiling.problem, ops
        p = self.problem
        self.source = source(tiling.matrices)
        self.points = len(tiling.matrices[0]) ** 2
        self.tiles = prod(tiling.grid)
        self.geometry = geometry(p.spatial, p.windows, p.padding)

    def parts(self, itemsize: int) -> list[slice]:
        """Slices of the samples whose transformed tiles take at most `PART_BYTES`, or of one sample."""
        p = self.problem
        size = self.points * self.tiles * (p.channels + p.features) * itemsize
        most = max(1, PART_BYTES // max(1, size))
        return [slice(start, min(start + most, p.samples)) for start in range(0, p.samples, most)]

    def pack(self, weight: Array) -> None:
        """Nothing: kernels read the weight as it is."""

    def forward(self, x: Array, weight: Array, bias: Array | None, packed: None = None, relu: bool = False) -> Array:
        """``y (N, *O, F)``, or its ReLU.

        The weight of a rotated problem is ``(C, F, 3, 3)``, and is rotated by 180 degrees here.
        """
        cupy, p = loaded_cupy(), self.problem
        y = cupy.empty((p.samples, *p.windows.count, p.features), x.dtype)
        points = cupy.empty((self.points, *weight.shape[:2]), x.dtype)
        arguments = (_weight_strides(weight), weight.shape[1], int(p.rotated))
        self.source.each("weight_points", p.dtype, prod(weight.shape[:2]), address(weight), points, *arguments)
        matrices = points if p.rotated else points.transpose(0, 2, 1)
        for part in self.parts(x.itemsize):
            inputs = self._points("input_points", x[part], p.channels)
            products = cupy.empty((self.points, inputs.shape[1], p.features), x.dtype)
            self.ops.matmul(inputs, matrices, products)
            sizes = (self.geometry, *self.tiling.grid, p.features)
            count = products.shape[1] * p.features
            self.source.each("outputs", p.dtype, count, products, dense(bias), y[part], *sizes)
        return rectify(y) if relu else y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, 3, 3)``; in memory, channels vary faster than cells."""
        cupy, p = loaded_cupy(), self.problem
        total = None
        for part in self.parts(x.itemsize):
            inputs = self._points("input_points", x[part], p.channels)
            upstream = self._points("output_points", dy[part], p.features)
            sums = cupy.empty((self.points, p.features, p.channels), x.dtype)
            self.ops.matmul(upstream.transpose(0, 2, 1), inputs, sums)
            if total is None:
                total = sums
            else:
                total += sums
        dw = cupy.empty((p.features, 3, 3, p.channels), x.dtype)
        self.source.each("weight_gradient", p.dtype, p.features * p.channels, total, dw, p.channels)
        return dw.transpose(0, 3, 1, 2)

    def _points(self, kernel: str, x: Array, channels: int) -> Array:
        """Transformed tiles ``(P, T, C)`` of ``x (n, *S, C)``."""
        cupy = loaded_cupy()
        y = cupy.empty((self.points, x.shape[0] * self.tiles, channels), x.dtype)
        arguments = (strides(x), self.geometry, *self.tiling.grid, channels)
        self.source.each(kernel, self.problem.dtype, y.shape[1] * channels, address(x), y, *arguments)
        return y


def _weight_strides(weight: Array) -> Any:
    """The struct ``Strides`` for a weight ``(A, B, 3, 3)``, with axes in the order ``(A, 3, 3, B)``."""
    first, second, *cells = weight.strides
    return strides_of((first, *cells, second), weight.itemsize)


@lru_cache(maxsize=1024)
def prepare(problem: WinogradTiling, dtype: str, ops: Any) -> WinogradKernels | None:
    """Kernels for a tiling of a batch that is not empty."""
    p = problem.problem
    fits = p.samples and prod(problem.grid) * p.samples * max(p.channels, p.features) < MOST_ENTRIES
    return WinogradKernels(problem, ops) if fits else None
