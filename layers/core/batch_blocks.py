"""Work on a batch in blocks of samples: small enough for a cache, and shared among worker threads."""

from collections.abc import Callable
from math import prod

from array_api_compat import device

from ...backends import operations_of
from ...common.types import Array, Namespace


def by_samples(function: Callable[..., Array], x: Array, *others: Array, xp: Namespace) -> Array:
    """``function(x, *others)`` of arrays ``(N, ...)``, for a function that treats each sample separately.

    The result must have the shape and dtype of ``x``. Large arrays are split into blocks of samples, on several
    workers where the backend has them.
    """
    ops = operations_of(xp)
    blocks = ops.blocks(x.shape[0], 1, 4 * prod(x.shape[1:]), x)
    if len(blocks) == 1:
        return function(x, *others)
    y = xp.empty(x.shape, dtype=x.dtype, device=device(x))

    def work(i: int) -> None:
        samples = blocks[i].samples
        y[samples, ...] = function(x[samples, ...], *(other[samples, ...] for other in others))

    ops.parallel(len(blocks), work)
    return y


def over_blocks(work: Callable[[slice], None], x: Array, xp: Namespace) -> None:
    """Call ``work(samples)`` with slices that cover the samples of ``x (N, ...)``.

    There are several slices for a large array, on several workers where the backend has them.
    """
    ops = operations_of(xp)
    blocks = ops.blocks(x.shape[0], 1, 4 * prod(x.shape[1:]), x)
    if len(blocks) == 1:
        work(blocks[0].samples)
    else:
        ops.parallel(len(blocks), lambda i: work(blocks[i].samples))
