"""Interpolation to another size along one axis after the other, by weighted sums of few cells each.

For ``n`` input and ``m`` output cells, output ``o`` is at position ``p`` of the input::

    align_corners        p = o (n - 1) / (m - 1)        the first and last cells are at the same places
    otherwise            p = (o + 1/2) s - 1/2          s = 1 / scale_factor, or n / m with a given size

``linear`` is the sum of the two cells around ``p``, with weights 1 minus the distance; ``p < 0`` counts as 0. ``cubic``
is the sum of four cells with the weights of R. Keys' kernel with ``a = -0.75``; beyond the edge cells are those of the
edge. ``nearest`` is the cell ``floor(o s)``, ``nearest-exact`` the cell ``floor((o + 1/2) s)``, in float32, as PyTorch
computes them. The gradient of a cell is the sum of the gradients of the outputs in which it is, with the same weights.

Sources: R. Keys, "Cubic convolution interpolation for digital image processing", 1981; PyTorch,
`torch.nn.functional.interpolate`, for the positions.
"""

from functools import lru_cache, partial
from math import floor
from struct import pack, unpack
from typing import NamedTuple

from array_api_compat import device

from ...backends import operations_of
from ...backends.execution.blocks import concat_all
from ...common.types import Array, Namespace, dtype_name
from ..core.axis_order import channels_first, channels_last

#: The modes, and the number of spatial axes for which each is.
MODES = {"nearest": None, "nearest-exact": None, "linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
# Of the cubic kernel, PyTorch's.
_A = -0.75


class Resized(NamedTuple):
    """An axis: its sizes before and after, the scale factor if that was given, and how it is interpolated."""

    n: int
    m: int
    scale: float | None
    mode: str
    align_corners: bool

    @property
    def is_same(self) -> bool:
        """Whether nothing is done, whatever the scale factor, as by PyTorch for images."""
        return self.n == self.m and self.mode not in ("nearest-exact", "bicubic")


# For each output, its cells and their weights.
Terms = tuple[tuple[tuple[int, float], ...], ...]


@lru_cache(maxsize=256)
def terms(axis: Resized) -> Terms:
    """The weighted cells of each output, as many for each."""
    if axis.mode.startswith("nearest"):
        return tuple(((cell, 1.0),) for cell in _nearest(axis))
    last = axis.n - 1
    found: list[tuple[tuple[int, float], ...]] = []
    for o in range(axis.m):
        if axis.align_corners:
            position = o * (last / (axis.m - 1)) if axis.m > 1 else 0.0
        else:
            position = (o + 0.5) * (axis.n / axis.m if axis.scale is None else 1.0 / axis.scale) - 0.5
        if axis.mode == "bicubic":
            cell = floor(position)
            weights = _cubic(position - cell)
            found.append(tuple((min(max(cell - 1 + i, 0), last), w) for i, w in enumerate(weights)))
        else:
            cell = min(floor(max(position, 0.0)), last)
            share = min(max(position - cell, 0.0), 1.0)
            found.append(((cell, 1.0 - share), (min(cell + 1, last), share)))
    return tuple(found)


def _nearest(axis: Resized) -> list[int]:
    scale = _single(axis.n / axis.m if axis.scale is None else 1.0 / axis.scale)
    shift = 0.5 if axis.mode == "nearest-exact" else 0.0
    return [min(floor(_single((o + shift) * scale)), axis.n - 1) for o in range(axis.m)]


def _single(value: float) -> float:
    """The nearest number of float32."""
    return float(unpack("f", pack("f", value))[0])


def _cubic(t: float) -> tuple[float, float, float, float]:
    """The weights of the cells at distances ``1 + t``, ``t``, ``1 - t`` and ``2 - t``."""

    def near(x: float) -> float:
        return ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1.0

    def far(x: float) -> float:
        return ((_A * x - 5.0 * _A) * x + 8.0 * _A) * x - 4.0 * _A

    return far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)


def _transposed(axis: Resized) -> Terms:
    """The weighted outputs of each cell, filled up with weights of 0 for output ``m``, which is 0, to one length."""
    shares: list[dict[int, float]] = [{} for _ in range(axis.n)]
    for o, cells in enumerate(terms(axis)):
        for cell, weight in cells:
            shares[cell][o] = shares[cell].get(o, 0.0) + weight
    most = max(map(len, shares))
    return tuple((*each.items(), *((axis.m, 0.0),) * (most - len(each))) for each in shares)


def resize(x: Array, axes: tuple[Resized, ...], xp: Namespace) -> Array:
    """``x (N, C, *S)`` interpolated along its spatial axes."""
    cells = channels_last(x, xp)
    for i, axis in enumerate(axes, start=1):
        if not axis.is_same:
            cells = _combined(cells, i, axis, False, xp)
    return channels_first(cells, xp)


def resize_backward(dy: Array, axes: tuple[Resized, ...], xp: Namespace) -> Array:
    """The gradient of `resize` for ``dy (N, C, *O)``."""
    cells = channels_last(dy, xp)
    for i, axis in reversed(list(enumerate(axes, start=1))):
        if not axis.is_same:
            shape = tuple(1 if at == i else n for at, n in enumerate(cells.shape))
            nothing = xp.zeros(shape, dtype=dy.dtype, device=device(dy))
            cells = _combined(concat_all([cells, nothing], i, xp), i, axis, True, xp)
    return channels_first(cells, xp)


def _combined(x: Array, at: int, axis: Resized, is_gradient: bool, xp: Namespace) -> Array:
    """The sums of weighted cells along an axis of a channels-last array."""
    make = partial(_tables, axis, is_gradient, x, xp)
    constant = operations_of(xp).constant
    places = constant(lambda: make()[0], x, "places", axis, is_gradient)
    if axis.mode.startswith("nearest") and not is_gradient:
        return xp.take(x, places[0, :], axis=at)
    weights = constant(lambda: make()[1], x, "weights", axis, is_gradient, dtype_name(x.dtype))
    along = tuple(-1 if i == at else 1 for i in range(x.ndim))
    total = None
    for i in range(places.shape[0]):
        term = xp.take(x, places[i, :], axis=at) * xp.reshape(weights[i, :], along)
        total = term if total is None else total + term
    return total


def _tables(axis: Resized, is_gradient: bool, like: Array, xp: Namespace) -> tuple[Array, Array]:
    """Places and weights, each ``(terms, cells)``."""
    rows = list(zip(*(_transposed(axis) if is_gradient else terms(axis)), strict=True))
    places, weights = ([[term[i] for term in row] for row in rows] for i in (0, 1))
    return (
        xp.asarray(places, dtype=xp.int64, device=device(like)),
        xp.asarray(weights, dtype=like.dtype, device=device(like)),
    )
