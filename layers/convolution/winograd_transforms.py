"""The matrices of Winograd's minimal filtering, for tiles of any size and any points."""

from dataclasses import dataclass
from functools import cache, partial
from math import prod

from array_api_compat import device

from ...backends.operations import Operations
from ...common.types import Array, dtype_name

KERNEL = 3
CELLS = KERNEL * KERNEL
# Numbers at which polynomials are evaluated, beside infinity, for tiles of m outputs.
POINTS: dict[int, tuple[float, ...]] = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, 0.6, -0.6, 1.5, -1.5),
    5: (0.331, -0.331, 0.79, -0.79, 1.669, -1.669),
}

Matrix = tuple[tuple[float, ...], ...]


@cache
def transforms(points: tuple[float, ...], m: int) -> tuple[Matrix, Matrix, Matrix]:
    """``B^T (n, n)``, ``G (n, 3)`` and ``A^T (m, n)`` for ``n - 1`` points and infinity.

    Row ``j`` of ``B^T`` holds the coefficients of the product of ``x - p_l`` over all ``l`` except ``j``, the last row
    those of the product over all ``l``. ``G`` evaluates a kernel's polynomial at the points and divides by the product
    of ``p_j - p_l``. ``A^T`` has the powers of the points.
    """
    n = m + KERNEL - 1
    inputs, kernels = [], []
    for j, point in enumerate(points):
        others = points[:j] + points[j + 1 :]
        scale = prod(point - other for other in others)
        inputs.append(_coefficients(others, n))
        kernels.append(tuple(prod((point,) * k) / scale for k in range(KERNEL)))
    inputs.append(_coefficients(points, n))
    kernels.append((0.0,) * (KERNEL - 1) + (1.0,))
    outputs = tuple((*(prod((point,) * i) for point in points), float(i == m - 1)) for i in range(m))
    return tuple(inputs), tuple(kernels), outputs


def _coefficients(roots: tuple[float, ...], n: int) -> tuple[float, ...]:
    """The ``n`` coefficients, constant first, of the polynomial with these roots; exact if the roots are."""
    row: list[float] = [1]
    for root in roots:
        row = [a - root * b for a, b in zip([0, *row], [*row, 0], strict=True)]
    return (*row, *(0,) * (n - len(row)))


@cache
def kronecker(a: Matrix) -> Matrix:
    """The Kronecker product of a matrix with itself."""
    return tuple(tuple(x * y for x in row for y in other) for row in a for other in a)


@dataclass(frozen=True)
class PlaneTransforms:
    """The transforms of a plane, each the Kronecker product of its matrix with itself.

    Shapes: ``input (n^2, n^2)``, ``kernel (n^2, 9)``, ``output (m^2, n^2)``.
    """

    input: Array
    kernel: Array
    output: Array


def plane_transforms(m: int, ops: Operations, like: Array) -> PlaneTransforms:
    """The transforms for tiles of ``m x m`` as arrays of the dtype and on the device of ``like``, made once."""
    xp = ops.xp
    matrices = tuple(kronecker(matrix) for matrix in transforms(POINTS[m], m))

    def make(i: int) -> Array:
        return xp.asarray(matrices[i], dtype=like.dtype, device=device(like))

    arrays = (ops.constant(partial(make, i), like, POINTS[m], m, i, dtype_name(like.dtype)) for i in range(3))
    return PlaneTransforms(*arrays)
