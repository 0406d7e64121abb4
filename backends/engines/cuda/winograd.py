"""Winograd's minimal filtering in three kernels and one batched product; the formulas are the layer's.

Tiles of the whole batch, or of as much as is held at a time, are transformed to points ``(n^2, T, C)``, multiplied with
the transformed weight for each point, and transformed back. A thread transforms one tile of one channel in registers;
threads beside each other have channels beside each other. The transforms are written out from their matrices, without
the products by 0 and 1.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from math import prod
from typing import Any, Protocol

from ....common.types import Array
from .columns import Convolution
from .source import LARGEST, Source, address, dense, geometry, library, strides, strides_of

Matrix = tuple[tuple[float, ...], ...]

# Bytes of transformed tiles of input and output that are held at a time.
HELD = 1 << 28
CELLS = 9


class Tiling(Protocol):
    """What is asked of a tiling: see `xpnn.layers.convolution.winograd.Tiling`."""

    problem: Convolution
    m: int

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along each axis."""

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        """The transforms of inputs ``(n, n)``, of kernels ``(n, 3)`` and of outputs ``(m, n)``."""


SOURCE = """
// points (P, T, C) of tiles of an input; a thread for each of (T, C)
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

// points (P, T, F) of tiles of an upstream gradient; a thread for each of (T, F)
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

// outputs (N, O1, O2, F) of points (P, T, F); a thread for each of (T, F)
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

// points (P, A, B) of a weight (A, B, 3, 3), turned by 180 degrees or not; a thread for each of (A, B)
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

// the gradient (F, 3, 3, C) of a weight of its points (P, F, C); a thread for each of (F, C)
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
    """A sum of products, written without what is multiplied by 0 or 1."""
    terms = []
    for factor, name in zip(coefficients, names, strict=True):
        if factor == 0:
            continue
        size = name if abs(factor) == 1 else f"(T){abs(float(factor))!r} * {name}"
        terms.append((" - " if factor < 0 else " + ") + size)
    text = "".join(terms) or "(T)0"
    return text.removeprefix(" + ").strip()


def _two_sides(matrix: Matrix, to: str) -> str:
    """``matrix d matrix^T``, by way of ``t``; ``to`` says where an entry goes."""
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
    """The kernels for transforms of inputs, kernels and outputs."""
    inputs, kernels, outputs = matrices
    point, entry = "y[{p} * count + first]", "e[{a}][{b}]"
    parts = {
        "input_points": _two_sides(inputs, point),
        "output_points": _two_sides(_transposed(outputs), point),
        "outputs": _two_sides(outputs, entry),
        "weight_points": _two_sides(kernels, point),
        "weight_gradient": _two_sides(_transposed(kernels), entry),
    }
    text = SOURCE
    for name, code in parts.items():
        text = text.replace(f"@{name}@", code)
    return Source(f"#define SIDE {len(inputs)}\n#define SIZE {len(outputs)}\n{text}")


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


class Winograd:
    """Forward and the weight's gradient of a 3x3 convolution at stride 1, in tiles.

    Parameters
    ----------
    tiling : Tiling
    ops : Operations
        Whose `matmul` multiplies.
    """

    def __init__(self, tiling: Tiling, ops: Any) -> None:
        self.tiling, self.problem, self.ops = tiling, tiling.problem, ops
        p = self.problem
        self.source = source(tiling.matrices)
        self.points = len(tiling.matrices[0]) ** 2
        self.tiles = prod(tiling.grid)
        self.geometry = geometry(p.spatial, p.windows, p.padding)

    def parts(self, itemsize: int) -> list[slice]:
        """Samples whose tiles are held at a time."""
        p = self.problem
        size = self.points * self.tiles * (p.channels + p.features) * itemsize
        most = max(1, HELD // max(1, size))
        return [slice(start, min(start + most, p.samples)) for start in range(0, p.samples, most)]

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """``y (N, *O, F)``; of a rotated problem the weight is ``(C, F, 3, 3)``, taken backwards."""
        cupy, p = library(), self.problem
        y = cupy.empty((p.samples, *p.windows.count, p.features), x.dtype)
        points = cupy.empty((self.points, *weight.shape[:2]), x.dtype)
        order = (_cells_of(weight), weight.shape[1], int(p.rotated))
        self.source.each("weight_points", p.dtype, prod(weight.shape[:2]), address(weight), points, *order)
        matrices = points if p.rotated else points.transpose(0, 2, 1)
        for part in self.parts(x.itemsize):
            inputs = self._points("input_points", x[part], p.channels)
            products = cupy.empty((self.points, inputs.shape[1], p.features), x.dtype)
            self.ops.matmul(inputs, matrices, products)
            sizes = (self.geometry, *self.tiling.grid, p.features)
            count = products.shape[1] * p.features
            self.source.each("outputs", p.dtype, count, products, dense(bias), y[part], *sizes)
        return y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, 3, 3)``, in memory with cells slower than channels."""
        cupy, p = library(), self.problem
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
        """Tiles of ``x (n, *S, C)`` as points ``(P, T, C)``."""
        cupy = library()
        y = cupy.empty((self.points, x.shape[0] * self.tiles, channels), x.dtype)
        order = (strides(x), self.geometry, *self.tiling.grid, channels)
        self.source.each(kernel, self.problem.dtype, y.shape[1] * channels, address(x), y, *order)
        return y


def _cells_of(weight: Array) -> Any:
    """Strides of a weight ``(A, B, 3, 3)``, in the order ``(A, 3, 3, B)``."""
    first, second, *cells = weight.strides
    return strides_of((first, *cells, second), weight.itemsize)


@lru_cache(maxsize=1024)
def prepare(tiling: Tiling, ops: Any) -> Winograd | None:
    """Kernels for a tiling, of a batch that is not empty."""
    p = tiling.problem
    fits = p.samples and prod(tiling.grid) * p.samples * max(p.channels, p.features) < LARGEST
    return Winograd(tiling, ops) if fits else None
