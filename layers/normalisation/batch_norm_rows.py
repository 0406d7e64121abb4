"""Batch normalisation of rows of channels in few passes over memory, for backends that have `channel_rows`.

The rows ``(cells, C)`` are reshaped to long rows of several cells and cut into blocks that stay in a cache. In a block
each column sums ``t = x - shift`` and ``t^2``, where the shift is the mean of every eighth row. The mean of an eighth
of the values differs from that of all by at most the root of 8 standard deviations, so ``sum(t^2) - sum(t)^2 / m``
loses at most three bits. The columns of all blocks are combined from their means and sums of squares, in an order that
depends only on the shape.

A mean is stored in two parts, ``near + correction``: if all values of a channel are equal, the rounding error of the
mean is divided by the root of ``eps``.

Array functions compute this where no engine does.

Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance", 1983.
"""

from dataclasses import dataclass
from math import inf, nan

from array_api_compat import device

from ...backends import operations_of
from ...common.types import Array, Namespace
from ..core.axis_order import channels_first, channels_last
from ..core.elementwise import scalar

# Largest length of a row: array functions are slow on short rows.
ROW_LENGTH = 2048
# Step between the rows whose mean is the shift.
SAMPLE_STEP = 8


@dataclass(frozen=True)
class NormalisedRows:
    """The input of a batch norm as rows, and the statistics by which it was normalised.

    Attributes
    ----------
    rows : array
        The input itself, ``(cells, C)``.
    near, correction : array
        The mean in two parts, ``(C,)``.
    inverse_std, mean, var : array
        ``(C,)``.
    """

    rows: Array
    near: Array
    correction: Array
    inverse_std: Array
    mean: Array
    var: Array


def moments(rows: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """``near``, ``correction`` and the variance, ``(C,)``, of each column of ``rows (cells, C)``."""
    ops = operations_of(xp)
    cells, channels = rows.shape
    x, repeats = _long_rows(rows, xp)
    blocks = _blocks(x, xp)
    like = {"dtype": x.dtype, "device": device(x)}
    means, sums, squares = (xp.empty((len(blocks), x.shape[1]), **like) for _ in range(3))

    def work(i: int) -> None:
        block = x[blocks[i], :]
        sample = block[::SAMPLE_STEP, :]
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
    between = means - near + sums / counts
    correction = xp.sum(between * counts, axis=(0, 1)) / scalar(cells, x, xp)
    within = squares - sums * sums / counts
    within = xp.maximum(within, xp.zeros_like(within))
    between = between - correction
    return near, correction, xp.sum(within + between * between * counts, axis=(0, 1)) / scalar(cells, x, xp)


def normalise_rows(
    x: Array,
    rows: Array,
    weight: Array | None,
    bias: Array | None,
    statistics: tuple[Array, Array] | None,
    eps: float,
    xp: Namespace,
) -> tuple[Array, NormalisedRows]:
    """`normalise` of ``x (N, C, *S)``, of which ``rows`` is a view, with its own statistics unless some are given."""
    if statistics is None:
        near, correction, var = moments(rows, xp)
        mean = near + correction
    else:
        mean, var = statistics
        near, correction = mean, xp.zeros_like(mean)
    inverse_std = 1.0 / xp.sqrt(var + eps)
    if statistics is None:
        inverse_std = in_range(inverse_std, var, xp)
    scale = inverse_std if weight is None else inverse_std * weight
    shift = -correction * scale if bias is None else bias - correction * scale
    ops = operations_of(xp)
    y = xp.empty(rows.shape, dtype=rows.dtype, device=device(rows))
    (source, repeats), (result, _) = _long_rows(rows, xp), _long_rows(y, xp)
    blocks = _blocks(source, xp)
    centre, factor, offset = (xp.tile(v, (repeats,)) for v in (near, scale, shift))

    def work(i: int) -> None:
        part = result[blocks[i], :]
        part[...] = source[blocks[i], :]
        part -= centre
        part *= factor
        part += offset

    ops.parallel(len(blocks), work)
    return _as_input(y, tuple(x.shape), xp), NormalisedRows(rows, near, correction, inverse_std, mean, var)


def normalise_rows_backward(
    dy: Array,
    normalised: NormalisedRows,
    weight: Array | None,
    constant: bool,
    input_grad: bool,
    parameter_grads: bool,
    xp: Namespace,
) -> tuple[Array | None, Array | None, Array | None]:
    """``(dx, dweight, dbias)``, None if not wanted; with ``constant`` the statistics did not depend on the input."""
    if constant and not parameter_grads:
        return _scaled(dy, normalised, weight, xp), None, None
    ops = operations_of(xp)
    cells, channels = normalised.rows.shape
    x, repeats = _long_rows(normalised.rows, xp)
    upstream, _ = _long_rows(xp.reshape(channels_last(dy, xp), normalised.rows.shape), xp)
    blocks = _blocks(x, xp)
    centre = xp.tile(normalised.near, (repeats,))
    sums = xp.empty((len(blocks), 2, x.shape[1]), dtype=x.dtype, device=device(x))

    def add_up(i: int) -> None:
        d = upstream[blocks[i], :]
        t = ops.workspace("rows", d.shape, d)
        t[...] = x[blocks[i], :]
        t -= centre
        t *= d
        sums[i, 0, :] = _column_sums(d, xp)
        sums[i, 1, :] = _column_sums(t, xp)

    ops.parallel(len(blocks), add_up)
    totals = xp.sum(xp.sum(xp.reshape(sums, (len(blocks), 2, repeats, channels)), axis=2), axis=0)
    dbias = totals[0, :]
    dweight = (totals[1, :] - normalised.correction * dbias) * normalised.inverse_std
    if not input_grad:
        return None, dweight, dbias
    # dx = (dy + (x - near) slope + offset) scale
    count = scalar(cells, x, xp)
    scale = normalised.inverse_std if weight is None else normalised.inverse_std * weight
    slope = -normalised.inverse_std * (dweight / count)
    offset = -dbias / count - normalised.correction * slope
    if constant:
        slope, offset = xp.zeros_like(slope), xp.zeros_like(offset)
    scale, slope, offset = (xp.tile(v, (repeats,)) for v in (scale, slope, offset))
    dx = xp.empty(normalised.rows.shape, dtype=x.dtype, device=device(x))
    result, _ = _long_rows(dx, xp)

    def work(i: int) -> None:
        part = result[blocks[i], :]
        part[...] = x[blocks[i], :]
        part -= centre
        part *= slope
        part += offset
        part += upstream[blocks[i], :]
        part *= scale

    ops.parallel(len(blocks), work)
    return _as_input(dx, tuple(dy.shape), xp), dweight, dbias


def _scaled(dy: Array, normalised: NormalisedRows, weight: Array | None, xp: Namespace) -> Array:
    """The input's gradient with constant statistics, for which no sums are needed."""
    scale = normalised.inverse_std if weight is None else normalised.inverse_std * weight
    upstream, repeats = _long_rows(xp.reshape(channels_last(dy, xp), normalised.rows.shape), xp)
    dx = xp.empty(normalised.rows.shape, dtype=dy.dtype, device=device(dy))
    (result, _), factor, blocks = _long_rows(dx, xp), xp.tile(scale, (repeats,)), _blocks(upstream, xp)

    def work(i: int) -> None:
        part = result[blocks[i], :]
        part[...] = upstream[blocks[i], :]
        part *= factor

    operations_of(xp).parallel(len(blocks), work)
    return _as_input(dx, tuple(dy.shape), xp)


def in_range(inverse_std: Array, var: Array, xp: Namespace) -> Array:
    """``inverse_std``, or NaN where the variance overflowed; the inverse, 0, would make every output the bias."""
    return xp.where(var == inf, scalar(nan, var, xp), inverse_std)


def _long_rows(rows: Array, xp: Namespace) -> tuple[Array, int]:
    """Long rows of several cells each, and their number of cells."""
    cells, channels = rows.shape
    repeats = next(k for k in range(min(cells, max(1, ROW_LENGTH // channels)), 0, -1) if cells % k == 0)
    return xp.reshape(rows, (cells // repeats, repeats * channels)), repeats


def _blocks(x: Array, xp: Namespace) -> list[slice]:
    return [block.rows for block in operations_of(xp).blocks(1, x.shape[0], 4 * x.shape[1], x)]


def _column_sums(x: Array, xp: Namespace) -> Array:
    """Sums of columns as a matrix product, which is twice as fast as a sum over the first axis."""
    return xp.matmul(xp.ones((1, x.shape[0]), dtype=x.dtype, device=device(x)), x)[0, :]


def _as_input(rows: Array, shape: tuple[int, ...], xp: Namespace) -> Array:
    """``(cells, C)`` as ``(N, C, *S)``."""
    return channels_first(xp.reshape(rows, (shape[0], *shape[2:], shape[1])), xp)
