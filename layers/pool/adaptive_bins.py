"""The bins of adaptive pooling, to an output of a given size.

Each axis of ``n`` cells is divided into ``m`` bins. Bin ``i`` has the cells from ``floor(i*n/m)`` to
``ceil((i+1)*n/m)``, exclusive, so that bins may overlap by a cell. A global pool is the case ``m = 1``.

Source of the bins: PyTorch, `torch.nn.AdaptiveAvgPool2d`.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, TypeAlias

from ...backends import operations_of
from ...common import checks
from ...common.types import Array, Namespace, dtype_name

# Largest number of bins where there are fewer cells; loops run over bins.
MAX_BINS = 1 << 20

OutputSize: TypeAlias = int | Sequence[int | None] | None


def bins(n: int, m: int) -> list[slice]:
    """The ``m`` bins of an axis of ``n`` cells."""
    return [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def bin_boxes(spatial: tuple[int, ...], sizes: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """The bins of a plane, in row-major order."""
    return list(product(*(bins(n, m) for n, m in zip(spatial, sizes, strict=True))))


def output_sizes(shape: tuple[int, ...], output_size: OutputSize) -> tuple[int, ...]:
    """One output size for each spatial axis."""
    axes = len(shape) - 2
    if axes < 1 or 0 in shape[2:]:
        raise ValueError(f"input must have shape (N, C, *spatial) with cells along every spatial axis, got {shape}")
    given = check_output_size(output_size, axes)
    each = given if isinstance(given, tuple) else (given,) * axes
    sizes = tuple(n if m is None else m for n, m in zip(shape[2:], each, strict=True))
    if prod(sizes) > max(MAX_BINS, prod(shape[2:])):
        raise ValueError(
            f"output_size {output_size!r} requests {prod(sizes):,} bins of {prod(shape[2:]):,} cells; at most "
            f"{MAX_BINS:,} are accepted where cells are fewer"
        )
    return sizes


def check_output_size(output_size: OutputSize, axes: int) -> int | tuple[int | None, ...] | None:
    """The argument, sequences as tuples and integers as Python's own, if it fits that many spatial axes."""
    output_size = checks.listed(output_size)
    several = checks.is_sequence(output_size)
    given: Any = output_size if several else (output_size,) * axes
    if len(given) != axes or not all(m is None or (checks.is_integer(m) and m >= 1) for m in given):
        raise ValueError(
            f"output_size must be an integer >= 1 or None, or one for each of {axes} spatial axes, "
            f"got {checks.shown(output_size)}"
        )
    sizes = tuple(int(m) if checks.is_integer(m) else None for m in given)
    return sizes if several else sizes[0]


def prepared_kernel(shape: tuple[int, ...], sizes: tuple[int, ...], like: Array, xp: Namespace) -> Any:
    """An engine's pool of an input ``(N, C, *S)`` of that shape, or None."""
    return operations_of(xp).prepare("adaptive pool", ((shape[0], *shape[2:], shape[1]), sizes), dtype_name(like.dtype))
