"""Reference results for layers with windows, as loops over numbers in float64: slow, and simple enough to check by eye.

No array is padded here and no index arithmetic is shared with the package: kernel cell ``k`` of window ``o`` reads
input cell ``o*stride + k*dilation - before`` along each axis, and cells outside the input are skipped.

All arguments are explicit, one entry per spatial axis: ``stride``, ``dilation``, and ``pads`` as (before, after) pairs.
"""

from itertools import product

import numpy as np


def window_count(n, kernel, stride, pad, dilation, ceil_mode=False):
    """The number of windows along one axis, found by stepping along it."""
    before, after = pad
    reach = dilation * (kernel - 1)
    count, start = 0, -before
    while True:
        fits = start + reach < n + after
        if ceil_mode and count:
            # one more window if the last one left cells, unless it would start after the input
            fits = start - stride + reach < n + after - 1 and start < n
        if not fits:
            return count
        count, start = count + 1, start + stride


def window_counts(spatial, kernel, stride, pads, dilation, ceil_mode=False):
    """The number of windows along each axis."""
    return tuple(window_count(*axis, ceil_mode) for axis in zip(spatial, kernel, stride, pads, dilation, strict=True))


def position(window, cell, stride, pads, dilation):
    """The position of a cell of a window in coordinates of the input; may be outside."""
    axes = zip(window, cell, stride, pads, dilation, strict=True)
    return tuple(o * s + k * d - before for o, k, s, (before, _), d in axes)


def is_inside(at, spatial, pads=None):
    """Whether a position is in the input, or with ``pads`` in the padded input."""
    pads = pads or ((0, 0),) * len(spatial)
    return all(-before <= i < n + after for i, n, (before, after) in zip(at, spatial, pads, strict=True))


def cells(kernel):
    """Cells of a window in row-major order."""
    return list(product(*map(range, kernel)))


def reads(spatial, kernel, count, stride, pads, dilation):
    """All (window, kernel cell, input cell) where the input cell exists."""
    for window in np.ndindex(*count):
        for cell in cells(kernel):
            at = position(window, cell, stride, pads, dilation)
            if is_inside(at, spatial):
                yield window, cell, at


def conv_forward(x, weight, bias, stride, pads, dilation, groups=1):
    """``y[n, f, o] = bias[f] + sum over c, k of x[n, c, o*s + k*d - before] weight[f, c, k]``."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    spatial, kernel = x.shape[2:], weight.shape[2:]
    features, channels = weight.shape[:2]
    count = window_counts(spatial, kernel, stride, pads, dilation)
    y = np.zeros((x.shape[0], features, *count))
    if bias is not None:
        y += bias.astype(np.float64).reshape(1, features, *(1,) * len(count))
    for window, cell, at in reads(spatial, kernel, count, stride, pads, dilation):
        for n, f, c in product(range(x.shape[0]), range(features), range(channels)):
            source = f // (features // groups) * channels + c
            y[(n, f, *window)] += x[(n, source, *at)] * weight[(f, c, *cell)]
    return y


def conv_backward(dy, x, weight, stride, pads, dilation, groups=1):
    """``(dx, dweight, dbias)``: the gradients of the two factors of each product in `conv_forward`."""
    dy, x, weight = (a.astype(np.float64) for a in (dy, x, weight))
    spatial, kernel = x.shape[2:], weight.shape[2:]
    features, channels = weight.shape[:2]
    dx, dweight, dbias = np.zeros_like(x), np.zeros_like(weight), np.zeros(features)
    for window, cell, at in reads(spatial, kernel, dy.shape[2:], stride, pads, dilation):
        for n, f, c in product(range(x.shape[0]), range(features), range(channels)):
            source = f // (features // groups) * channels + c
            dx[(n, source, *at)] += dy[(n, f, *window)] * weight[(f, c, *cell)]
            dweight[(f, c, *cell)] += dy[(n, f, *window)] * x[(n, source, *at)]
    for index in np.ndindex(*dy.shape):
        dbias[index[1]] += dy[index]
    return dx, dweight, dbias


def transposed_size(n, kernel, stride, pad, dilation, extra):
    """The output size of a transposed convolution along one axis: cells that windows cover, less the padding."""
    return 1 + max(o * stride + k * dilation for o in range(n) for k in range(kernel)) - sum(pad) + extra


def transposed_meetings(x, weight, out, stride, pads, dilation, groups):
    """All (index of x, of weight, of y) of one product, if the cell of the output exists."""
    per_group = x.shape[1] // groups
    for n, c, *window in np.ndindex(*x.shape):
        for f, *cell in np.ndindex(*weight.shape[1:]):
            at = position(window, cell, stride, pads, dilation)
            if is_inside(at, out):
                yield (n, c, *window), (c, f, *cell), (n, c // per_group * weight.shape[1] + f, *at)


def conv_transpose(x, weight, bias, dy, stride, pads, dilation, extra, groups=1):
    """``(y, dx, dweight, dbias)``: input cell ``o`` adds ``x weight[k]`` to output cell ``o*s + k*d - before``.

    ``dy`` maps the output's shape to an upstream gradient.
    """
    axes = zip(x.shape[2:], weight.shape[2:], stride, pads, dilation, extra, strict=True)
    out = tuple(transposed_size(*axis) for axis in axes)
    shape = (x.shape[0], weight.shape[1] * groups, *out)
    y, dx, dweight = np.zeros(shape), np.zeros(x.shape), np.zeros(weight.shape)
    dy = dy(shape)
    for i, j, o in transposed_meetings(x, weight, out, stride, pads, dilation, groups):
        y[o] += x[i] * weight[j]
        dx[i] += dy[o] * weight[j]
        dweight[j] += dy[o] * x[i]
    if bias is not None:
        y += bias.reshape(1, -1, *(1,) * len(out))
    return y, dx, dweight, dy.sum(axis=(0, *range(2, dy.ndim)))


def flat(at, spatial):
    """A position as a row-major index into its plane."""
    index = 0
    for i, n in zip(at, spatial, strict=True):
        index = index * n + i
    return index


def first_maximum(values, positions):
    """The position of the maximum: the first of equal ones; NaN counts as the largest."""
    best = None
    for at in positions:
        if best is None or values[at] > values[best] or (np.isnan(values[at]) and not np.isnan(values[best])):
            best = at
    return best


def max_winner(values, spatial, kernel, window, stride, pads, dilation):
    """The input cell of a window's maximum."""
    positions = (position(window, cell, stride, pads, dilation) for cell in cells(kernel))
    return first_maximum(values, (at for at in positions if is_inside(at, spatial)))


def max_pool_forward(x, kernel, stride, pads, dilation, ceil_mode=False):
    """``(y, indices)``: maxima and the flat row-major index in its plane of the cell that each comes from."""
    spatial = x.shape[2:]
    count = window_counts(spatial, kernel, stride, pads, dilation, ceil_mode)
    y, winners = np.zeros((*x.shape[:2], *count)), np.zeros((*x.shape[:2], *count), dtype=np.int64)
    for n, c, *window in np.ndindex(*y.shape):
        at = max_winner(x[n, c], spatial, kernel, window, stride, pads, dilation)
        y[(n, c, *window)], winners[(n, c, *window)] = x[(n, c, *at)], flat(at, spatial)
    return y, winners


def max_pool_backward(dy, x, kernel, stride, pads, dilation):
    """``dx``: the gradient of each window is added to the cell of its maximum."""
    dx = np.zeros(x.shape)
    for n, c, *window in np.ndindex(*dy.shape):
        at = max_winner(x[n, c], x.shape[2:], kernel, window, stride, pads, dilation)
        dx[(n, c, *at)] += dy[(n, c, *window)]
    return dx


def divisor(spatial, kernel, window, stride, pads, count_include_pad, override=None):
    """The divisor of a window's sum: the number of its cells that count, unless it is given."""
    if override is not None:
        return override
    ones = (1,) * len(spatial)
    counted = pads if count_include_pad else None
    return sum(is_inside(position(window, cell, stride, pads, ones), spatial, counted) for cell in cells(kernel))


def avg_pool_forward(x, kernel, stride, pads, ceil_mode=False, count_include_pad=True, override=None):
    """Averages over windows."""
    spatial, ones = x.shape[2:], (1,) * (x.ndim - 2)
    count = window_counts(spatial, kernel, stride, pads, ones, ceil_mode)
    y = np.zeros((*x.shape[:2], *count))
    for window, _, at in reads(spatial, kernel, count, stride, pads, ones):
        share = divisor(spatial, kernel, window, stride, pads, count_include_pad, override)
        y[(..., *window)] += x[(..., *at)].astype(np.float64) / share
    return y


def avg_pool_backward(dy, x_shape, kernel, stride, pads, count_include_pad=True, override=None):
    """``dx``: the gradient of each window is added to its cells in equal shares."""
    spatial, ones = x_shape[2:], (1,) * (len(x_shape) - 2)
    dx = np.zeros(x_shape)
    for window, _, at in reads(spatial, kernel, dy.shape[2:], stride, pads, ones):
        share = divisor(spatial, kernel, window, stride, pads, count_include_pad, override)
        dx[(..., *at)] += dy[(..., *window)].astype(np.float64) / share
    return dx


def lp_pool_forward(x, p, kernel, stride, pads, dilation, ceil_mode=False):
    """``y = (sum of |x|^p over the window)^(1/p)``."""
    spatial = x.shape[2:]
    count = window_counts(spatial, kernel, stride, pads, dilation, ceil_mode)
    total = np.zeros((*x.shape[:2], *count))
    for window, _, at in reads(spatial, kernel, count, stride, pads, dilation):
        total[(..., *window)] += np.abs(x[(..., *at)].astype(np.float64)) ** p
    return total ** (1 / p)


def lp_pool_backward(dy, x, p, kernel, stride, pads, dilation, ceil_mode=False):
    """``dx``: ``dy sign(x) |x|^(p-1) y^(1-p)`` from each window with a norm ``y`` other than 0."""
    y = lp_pool_forward(x, p, kernel, stride, pads, dilation, ceil_mode)
    spatial, dx = x.shape[2:], np.zeros(x.shape)
    for window, _, at in reads(spatial, kernel, dy.shape[2:], stride, pads, dilation):
        for plane in np.ndindex(*x.shape[:2]):
            value, norm = x[(*plane, *at)], y[(*plane, *window)]
            if norm:
                slope = np.sign(value) * abs(value) ** (p - 1) * norm ** (1 - p)
                dx[(*plane, *at)] += dy[(*plane, *window)] * slope
    return dx


def bin_cells(n, m):
    """For each of ``m`` bins of an axis of ``n`` cells, the cells that overlap ``[i n/m, (i+1) n/m)``."""
    return [[j for j in range(n) if (j + 1) * m > i * n and j * m < (i + 1) * n] for i in range(m)]


def bin_positions(spatial, sizes):
    """(bin, its cells in row-major order), for all bins."""
    axes = [bin_cells(n, m) for n, m in zip(spatial, sizes, strict=True)]
    for place in np.ndindex(*sizes):
        yield place, list(product(*(axis[i] for axis, i in zip(axes, place, strict=True))))


def adaptive_avg_pool(x, dy, sizes):
    """``(y, dx)``: averages over bins, and equal shares of each bin's gradient."""
    y, dx = np.zeros((*x.shape[:2], *sizes)), np.zeros(x.shape)
    for place, positions in bin_positions(x.shape[2:], sizes):
        for at in positions:
            y[(..., *place)] += x[(..., *at)] / len(positions)
            dx[(..., *at)] += dy[(..., *place)] / len(positions)
    return y, dx


def adaptive_max_pool(x, dy, sizes):
    """``(y, indices, dx)``: maxima over bins, their row-major indices, and the gradients at the maxima."""
    y, indices, dx = np.zeros(dy.shape), np.zeros(dy.shape, dtype=np.int64), np.zeros(x.shape)
    for place, positions in bin_positions(x.shape[2:], sizes):
        for plane in np.ndindex(*x.shape[:2]):
            at = first_maximum(x[plane], positions)
            y[(*plane, *place)], indices[(*plane, *place)] = x[(*plane, *at)], flat(at, x.shape[2:])
            dx[(*plane, *at)] += dy[(*plane, *place)]
    return y, indices, dx
