"""Batch normalisation of rows of channels in few passes over memory, for a backend that has them (`channel_rows`).

The rows ``(cells, C)`` are read as long ones, several cells each, and cut into blocks that stay in a cache. In a block
each column sums ``t = x - shift`` and ``t^2``, the shift being the mean of every eighth row: the mean of an eighth of
the values lies within the root of 8 standard deviations of that of all, so ``sum(t^2) - sum(t)^2 / m`` loses three bits
at worst. Columns of all blocks are put together from their means and sums of squares, in an order that the shape gives.

A mean is kept in two parts, ``near + rest``: what rounding would take from the sum is divided by the root of ``eps``
where all values of a channel are equal.

Where the library has compiled kernels (`xpnn.backends.engines.numba`), each block goes through memory once a step.

Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance", 1983.
"""

from dataclasses import dataclass
from math import inf, nan

from array_api_compat import device

from ...backends import operations_of
from ...backends.engines.numba import Kernels
from ...common.types import Array, Namespace
from ..core.arrays import channels_first, channels_last, scalar

# Numbers in a long row: with fewer a library spends its time between rows.
LONG = 2048
# The same for a kernel, whose sums then stay in the fastest cache beside what it reads.
LONG_COMPILED = 512
# Of how many rows one goes into the shift.
SAMPLED = 8


@dataclass(frozen=True)
class Rows:
    """The input of a batch norm as rows, and the statistics that normalised it.

    Attributes
    ----------
    rows : array
        The input itself, ``(cells, C)``.
    near, rest : array
        The mean in two parts, ``(C,)``.
    inverse_std, mean, var : array
        ``(C,)``.
    """

    rows: Array
    near: Array
    rest: Array
    inverse_std: Array
    mean: Array
    var: Array


def moments(rows: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """``near``, ``rest`` and the variance, ``(C,)``, of each column of ``rows (cells, C)``."""
    ops = operations_of(xp)
    cells, channels = rows.shape
    x, repeats = _long(rows, xp)
    blocks = _blocks(x, xp)
    like = {"dtype": x.dtype, "device": device(x)}
    means, sums, squares = (xp.empty((len(blocks), x.shape[1]), **like) for _ in range(3))

    kernels = _kernels(x, xp)

    def work(i: int) -> None:
        block = x[blocks[i], :]
        if kernels is not None:
            kernels.column_moments(block, SAMPLED, means[i, :], sums[i, :], squares[i, :])
            return
        sample = block[::SAMPLED, :]
        mean = _column_sums(sample, xp) * (1.0 / sample.shape[0])
        t = ops.workspace("rows", block.shape, block)
        t[...] = block
        t -= mean
        means[i, :] = mean
        sums[i, :] = _column_sums(t, xp)
        t *= t
        squares[i, :] = _column_sums(t, xp)

    ops.parallel(len(blocks), work)
    means, sums, squares = (xp.reshape(a, (len(blocks), repeats, channels)) for a in (means, sums, squares))
    counts = xp.empty((len(blocks), 1, 1), **like)
    for i, part in enumerate(blocks):
        counts[i, ...] = float(part.stop - part.start)
    near = xp.sum(means, axis=(0, 1)) * (1.0 / (len(blocks) * repeats))
    apart = means - near + sums / counts
    rest = xp.sum(apart * counts, axis=(0, 1)) / scalar(cells, x, xp)
    within = squares - sums * sums / counts
    within = xp.maximum(within, xp.zeros_like(within))
    apart = apart - rest
    return near, rest, xp.sum(within + apart * apart * counts, axis=(0, 1)) / scalar(cells, x, xp)


def normalise_rows(
    x: Array,
    rows: Array,
    weight: Array | None,
    bias: Array | None,
    statistics: tuple[Array, Array] | None,
    eps: float,
    xp: Namespace,
) -> tuple[Array, Rows]:
    """`normalise` of ``x (N, C, *S)``, which ``rows`` is a view of, with its statistics unless they are given."""
    if statistics is None:
        near, rest, var = moments(rows, xp)
        mean = near + rest
    else:
        mean, var = statistics
        near, rest = mean, xp.zeros_like(mean)
    inverse_std = 1.0 / xp.sqrt(var + eps)
    if statistics is None:
        inverse_std = in_range(inverse_std, var, xp)
    scale = inverse_std if weight is None else inverse_std * weight
    shift = -rest * scale if bias is None else bias - rest * scale
    ops = operations_of(xp)
    y = xp.empty(rows.shape, dtype=rows.dtype, device=device(rows))
    (source, repeats), (result, _) = _long(rows, xp), _long(y, xp)
    blocks = _blocks(source, xp)
    centre, factor, offset = (xp.tile(v, (repeats,)) for v in (near, scale, shift))

    kernels = _kernels(x, xp)

    def work(i: int) -> None:
        part = result[blocks[i], :]
        if kernels is not None:
            kernels.normalise(source[blocks[i], :], centre, factor, offset, part)
            return
        part[...] = source[blocks[i], :]
        part -= centre
        part *= factor
        part += offset

    ops.parallel(len(blocks), work)
    return _as_input(y, tuple(x.shape), xp), Rows(rows, near, rest, inverse_std, mean, var)


def normalise_rows_backward(
    dy: Array, normal: Rows, weight: Array | None, constant: bool, input_grad: bool, xp: Namespace
) -> tuple[Array | None, Array, Array]:
    """``(dx, dweight, dbias)``; with ``constant`` the statistics did not depend on the input."""
    ops = operations_of(xp)
    cells, channels = normal.rows.shape
    x, repeats = _long(normal.rows, xp)
    upstream, _ = _long(xp.reshape(channels_last(dy, xp), normal.rows.shape), xp)
    blocks = _blocks(x, xp)
    centre = xp.tile(normal.near, (repeats,))
    sums = xp.empty((len(blocks), 2, x.shape[1]), dtype=x.dtype, device=device(x))

    kernels = _kernels(x, xp)

    def add_up(i: int) -> None:
        d = upstream[blocks[i], :]
        if kernels is not None:
            kernels.column_sums(d, x[blocks[i], :], centre, sums[i, 0, :], sums[i, 1, :])
            return
        t = ops.workspace("rows", d.shape, d)
        t[...] = x[blocks[i], :]
        t -= centre
        t *= d
        sums[i, 0, :] = _column_sums(d, xp)
        sums[i, 1, :] = _column_sums(t, xp)

    ops.parallel(len(blocks), add_up)
    totals = xp.sum(xp.sum(xp.reshape(sums, (len(blocks), 2, repeats, channels)), axis=2), axis=0)
    dbias = totals[0, :]
    dweight = (totals[1, :] - normal.rest * dbias) * normal.inverse_std
    if not input_grad:
        return None, dweight, dbias
    # dx = (dy + (x - near) slope + offset) scale
    count = scalar(cells, x, xp)
    scale = normal.inverse_std if weight is None else normal.inverse_std * weight
    slope = -normal.inverse_std * (dweight / count)
    offset = -dbias / count - normal.rest * slope
    if constant:
        slope, offset = xp.zeros_like(slope), xp.zeros_like(offset)
    scale, slope, offset = (xp.tile(v, (repeats,)) for v in (scale, slope, offset))
    dx = xp.empty(normal.rows.shape, dtype=x.dtype, device=device(x))
    result, _ = _long(dx, xp)

    def work(i: int) -> None:
        part = result[blocks[i], :]
        if kernels is not None:
            kernels.normalise_backward(upstream[blocks[i], :], x[blocks[i], :], centre, slope, offset, scale, part)
            return
        part[...] = x[blocks[i], :]
        part -= centre
        part *= slope
        part += offset
        part += upstream[blocks[i], :]
        part *= scale

    ops.parallel(len(blocks), work)
    return _as_input(dx, tuple(dy.shape), xp), dweight, dbias


def in_range(inverse_std: Array, var: Array, xp: Namespace) -> Array:
    """NaN where a batch's own variance overflowed: an inverse of 0 would make the bias of every output."""
    return xp.where(var == inf, scalar(nan, var, xp), inverse_std)


def _kernels(x: Array, xp: Namespace) -> Kernels | None:
    """Compiled kernels that take the input."""
    return operations_of(xp).kernels if x.dtype == xp.float32 else None


def _long(rows: Array, xp: Namespace) -> tuple[Array, int]:
    """Rows of several cells each, and of how many."""
    cells, channels = rows.shape
    long = LONG if _kernels(rows, xp) is None else LONG_COMPILED
    repeats = next(k for k in range(min(cells, max(1, long // channels)), 0, -1) if cells % k == 0)
    return xp.reshape(rows, (cells // repeats, repeats * channels)), repeats


def _blocks(x: Array, xp: Namespace) -> list[slice]:
    return [block.rows for block in operations_of(xp).blocks(1, x.shape[0], 4 * x.shape[1], x)]


def _column_sums(x: Array, xp: Namespace) -> Array:
    """By the matrix library, which reads twice as fast as a sum over the first axis."""
    return xp.matmul(xp.ones((1, x.shape[0]), dtype=x.dtype, device=device(x)), x)[0, :]


def _as_input(rows: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    """``(cells, C)`` as ``(N, C, *S)``."""
    return channels_first(xp.reshape(rows, (shape[0], *shape[2:], shape[1])), xp)
