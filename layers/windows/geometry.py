"""Padding, window positions and output sizes of convolutions and pools, in integers without arrays.

All layers with windows use these functions, so padding and strides mean the same on every backend.

Sizes, per axis, for input ``n``, padding ``(before, after)``, kernel ``k``, stride ``s``, dilation ``d``::

    out = floor((n + before + after - d*(k-1) - 1) / s) + 1        (ceil instead of floor with ceil_mode)

``"same"`` is the padding for which ``out = ceil(n / s)``; if the total is odd, the extra cell comes after. For odd
``k`` and ``s = d = 1`` it is ``(k - 1) / 2`` on each side. ``"same_lower"`` is the same padding with the extra cell
before, as ONNX's ``SAME_LOWER``.

Source: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import TypeAlias, TypeGuard, cast

from ...backends.contractions.windows import PadWidths, Windows
from ...common import checks

Size: TypeAlias = int | Sequence[int]
Padding: TypeAlias = int | str | Sequence[int] | Sequence[Sequence[int]]

#: Words for a padding that keeps the size at stride 1.
SAME = ("same", "same_lower")

# A padded input may have MAX_PADDED_RATIO times the cells of input and output together, plus MIN_PADDED_LIMIT.
MAX_PADDED_RATIO, MIN_PADDED_LIMIT = 64, 1 << 22


@dataclass(frozen=True)
class Geometry:
    """The windows of one call and the padding of its input.

    Attributes
    ----------
    windows : Windows
        The windows, in coordinates of the padded input.
    padding : tuple of (int, int)
        Cells added before and after each axis.
    overhang : tuple of int
        Cells beyond the padded input that the last window of ``ceil_mode`` covers, for each axis.
    """

    windows: Windows
    padding: PadWidths
    overhang: tuple[int, ...]

    @cached_property
    def is_padded(self) -> bool:
        """Whether windows read cells outside the input."""
        return any(before or after for before, after in self.padding) or any(self.overhang)


def check_padding(padding: Padding, axes: int) -> Padding:
    """The padding argument in Python's integers and tuples; raises `ValueError` unless it has an accepted form."""
    if type(padding) is int and padding >= 0:
        return padding
    if isinstance(padding, str):
        if padding in ("valid", *SAME):
            return padding
    elif (each := _cells(padding, axes)) is not None:
        return each
    raise ValueError(
        f"padding must be an integer >= 0, one for each of {axes} axes, a (before, after) pair for each, "
        f"'same_lower', 'valid' or 'same', got {checks.shown(padding)}"
    )


def check_border(padding: Padding, axes: int) -> Padding:
    """`check_padding` without the words ``"same"``, ``"same_lower"`` and ``"valid"``."""
    each = None if isinstance(padding, str) else _cells(padding, axes)
    if each is None:
        raise ValueError(
            f"padding must be an integer >= 0, one for each of {axes} spatial axes, or a (before, after) pair for "
            f"each, got {checks.shown(padding)}"
        )
    return each


def _cells(padding: object, axes: int) -> Padding | None:
    """A padding given in cells, as Python's integers and tuples; None for anything else."""
    if _is_count(padding):
        return int(padding)
    padding = checks.listed(padding)
    if not checks.is_sequence(padding) or len(padding) != axes:
        return None
    each = [tuple(p) if checks.is_sequence(p) else p for p in padding]
    if not all(_is_count(p) or (isinstance(p, tuple) and len(p) == 2 and all(map(_is_count, p))) for p in each):
        return None
    return cast(Padding, tuple(tuple(map(int, p)) if isinstance(p, tuple) else int(p) for p in each))


def _is_count(value: object) -> TypeGuard[int]:
    return checks.is_integer(value) and value >= 0


def resolve_padding(padding: Padding, spatial: Sequence[int], kernel: Size, stride: Size, dilation: Size) -> PadWidths:
    """The padding of each axis as a pair ``(before, after)``."""
    spatial = checks.shape("spatial", spatial)
    axes = len(spatial)
    padding = check_padding(padding, axes)
    if padding == "valid":
        return ((0, 0),) * axes
    kernel, stride = checks.per_axis("kernel", kernel, axes), checks.per_axis("stride", stride, axes)
    dilation = checks.per_axis("dilation", dilation, axes)
    if padding in SAME:
        totals = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True)
        ]
        halves = [(total // 2, total - total // 2) for total in totals]
        return tuple((more, less) if padding == "same_lower" else (less, more) for less, more in halves)
    each = cast(tuple[int | tuple[int, int], ...], padding if isinstance(padding, tuple) else (padding,) * axes)
    return tuple((int(p[0]), int(p[1])) if isinstance(p, tuple) else (int(p), int(p)) for p in each)


def output_size(
    n: int, kernel: int, stride: int = 1, padding: tuple[int, int] = (0, 0), dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Number of windows along one axis; below 1 if the kernel does not fit.

    With ``ceil_mode`` the last window may extend beyond the padding, but must not start there.
    """
    n, kernel = checks.integer("n", n, 0), checks.integer("kernel", kernel, 1)
    stride, dilation = checks.integer("stride", stride, 1), checks.integer("dilation", dilation, 1)
    before, after = checks.shape("padding", padding, length=2)
    last = n + before + after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return last // stride + 1
    size = -(-last // stride) + 1
    return size - 1 if (size - 1) * stride >= n + before else size


def place_windows(
    spatial: Sequence[int],
    kernel: Size,
    stride: Size,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool = False,
) -> Geometry:
    """All windows over a spatial shape.

    Raises
    ------
    ValueError
        If the kernel is larger than the padded input.
    """
    spatial = checks.shape("spatial", spatial)
    axes = len(spatial)
    kernel, stride = checks.per_axis("kernel", kernel, axes), checks.per_axis("stride", stride, axes)
    padding, dilation = check_padding(padding, axes), checks.per_axis("dilation", dilation, axes)
    return _placed(spatial, kernel, stride, padding, dilation, bool(ceil_mode))


def require_padding(spatial: Sequence[int], padding: PadWidths, count: Sequence[int]) -> None:
    """Raise `ValueError` for padding much larger than input and output, before memory is allocated for it."""
    cells = prod(n + before + after for n, (before, after) in zip(spatial, padding, strict=True))
    if cells > MAX_PADDED_RATIO * (prod(spatial) + prod(count)) + MIN_PADDED_LIMIT:
        raise ValueError(
            f"padding {padding} makes {cells:,} cells of an input {tuple(spatial)}, for {tuple(count)} windows; "
            "use less padding, dilation or stride"
        )


# A net uses the same few windows in each step, and this computation takes 20 microseconds.
@lru_cache(maxsize=1024)
def _placed(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Padding,
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> Geometry:
    """`place_windows` of hashable arguments."""
    pairs = resolve_padding(padding, spatial, kernel, stride, dilation)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padded = [n + before + after for n, (before, after) in zip(spatial, pairs, strict=True)]
    if any(r > p for r, p in zip(reach, padded, strict=True)):
        raise ValueError(
            f"kernel {kernel} with dilation {dilation} spans {tuple(reach)} cells, "
            f"more than the padded input {tuple(padded)} (input {spatial}, padding {pairs})"
        )
    count = tuple(
        output_size(n, k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(spatial, kernel, stride, pairs, dilation, strict=True)
    )
    # A stride with one window, or a dilation with one cell, has no effect; limited, it fits into 32 bits.
    stride = tuple(min(s, p) if o == 1 else s for s, p, o in zip(stride, padded, count, strict=True))
    dilation = tuple(min(d, p) if k == 1 else d for d, p, k in zip(dilation, padded, kernel, strict=True))
    windows = Windows(kernel, stride, dilation, count)
    overhang = tuple(max(0, e - p) for e, p in zip(windows.extent, padded, strict=True))
    return Geometry(windows, pairs, overhang)
