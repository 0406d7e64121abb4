"""Borders that continue an input: its mirror image, its last cells, or its other end.

========== ================================ ============================= =======================
mode       what surrounds ``a b c d``        limit for an axis of n cells  other names
========== ================================ ============================= =======================
reflect    ``c b | a b c d | c b``          below n                       reflect (NumPy, ONNX)
replicate  ``a a | a b c d | d d``          none; n at least 1            edge (NumPy, ONNX)
circular   ``c d | a b c d | a b``          at most n                     wrap (NumPy, ONNX)
========== ================================ ============================= =======================

Along several axes the borders of the first are continued along the next, so corners are too. Each cell of a border is a
copy of a cell of the input, whose gradient is the sum over its copies.

Source: PyTorch, `torch.nn.functional.pad`.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from array_api_compat import device

from ...backends.contractions.windows import PadWidths
from ...common.types import Array, Namespace
from ..core.axis_order import channels_first, channels_last

MODES = ("reflect", "replicate", "circular")


class Border(NamedTuple):
    """The cells of a border, those of the padded input that it copies, and whether it reverses them."""

    cells: slice
    source: slice
    is_reversed: bool


def borders(n: int, before: int, after: int, mode: str) -> Iterator[Border]:
    """The borders that are not empty, in coordinates of the padded axis."""
    end, is_reversed = before + n, mode == "reflect"
    if before:
        source = {
            "reflect": slice(before + 1, 2 * before + 1),
            "replicate": slice(before, before + 1),
            "circular": slice(n, end),
        }
        yield Border(slice(0, before), source[mode], is_reversed)
    if after:
        source = {
            "reflect": slice(end - 1 - after, end - 1),
            "replicate": slice(end - 1, end),
            "circular": slice(before, before + after),
        }
        yield Border(slice(end, end + after), source[mode], is_reversed)


def require_source(spatial: Sequence[int], padding: PadWidths, mode: str) -> None:
    """Raise `ValueError` for a border that has more cells than the input has to copy."""
    for n, pair in zip(spatial, padding, strict=True):
        most = {"reflect": max(n - 1, 0), "replicate": max(pair) if n else 0, "circular": n}[mode]
        if max(pair) > most:
            raise ValueError(
                f"padding {padding} with mode {mode!r} has {max(pair)} cells on a side of an axis of {n}; at most "
                f"{most} can be copied"
            )


def extend(x: Array, padding: PadWidths, mode: str, xp: Namespace) -> Array:
    """``x (N, C, *S)`` with its borders."""
    if not any(map(any, padding)):
        return x
    spatial, x = tuple(x.shape[2:]), channels_last(x, xp)
    sizes = (before + n + after for n, (before, after) in zip(spatial, padding, strict=True))
    y = xp.empty((x.shape[0], *sizes, x.shape[-1]), dtype=x.dtype, device=device(x))
    y[_inside(spatial, padding)] = x
    for axis, (n, pair) in enumerate(zip(spatial, padding, strict=True), start=1):
        for border in borders(n, *pair, mode):
            cells = y[_at(axis, border.source)]
            y[_at(axis, border.cells)] = xp.flip(cells, axis=axis) if border.is_reversed else cells
    return channels_first(y, xp)


def extend_backward(dy: Array, spatial: tuple[int, ...], padding: PadWidths, mode: str, xp: Namespace) -> Array:
    """The gradient of `extend` for ``dy (N, C, *O)``: ``(N, C, *S)``."""
    if not any(map(any, padding)):
        return dy
    sums = xp.asarray(channels_last(dy, xp), copy=True)
    # In any order of the axes: what is added up along one is not changed along another.
    for axis, (n, pair) in enumerate(zip(spatial, padding, strict=True), start=1):
        for border in borders(n, *pair, mode):
            cells = sums[_at(axis, border.cells)]
            if mode == "replicate":
                # One after the other: the order of a sum along an axis depends on the strides.
                cells = reduce(add, (cells[_at(axis, slice(i, i + 1))] for i in range(cells.shape[axis])))
            sums[_at(axis, border.source)] += xp.flip(cells, axis=axis) if border.is_reversed else cells
    return channels_first(sums[_inside(spatial, padding)], xp)


def _inside(spatial: tuple[int, ...], padding: PadWidths) -> tuple[Any, ...]:
    return (slice(None), *(slice(p[0], p[0] + n) for n, p in zip(spatial, padding, strict=True)), slice(None))


def _at(axis: int, cells: slice) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, cells, ...)
