"""What layers with windows must compute, as loops over numbers in float64: slow, and plain enough to check by eye.

Nothing is padded here and no index arithmetic is shared with the package: kernel cell ``k`` of window ``o`` looks at
input cell ``o*stride + k*dilation - before`` along each axis, and what lies outside the input is not there.

All arguments are explicit, one entry per spatial axis: ``stride``, ``dilation``, and ``pads`` as (before, after) pairs.
"""

from itertools import product

import numpy as np


def window_count(n, kernel, stride, pad, dilation, ceil_mode=False):
    """Windows along one axis, found by walking over it."""
    before, after = pad
    reach = dilation * (kernel - 1)
    count, start = 0, -before
    while True:
        fits = start + reach < n + after
        if ceil_mode and count:
            # one more window where the last one left cells over, unless it would start behind the input
            fits = start - stride + reach < n + after - 1 and start < n
        if not fits:
            return count
        count, start = count + 1, start + stride


def window_counts(spatial, kernel, stride, pads, dilation, ceil_mode=False):
    """Windows along each axis."""
    return tuple(window_count(*axis, ceil_mode) for axis in zip(spatial, kernel, stride, pads, dilation, strict=True))


def position(window, cell, stride, pads, dilation):
    """Where a cell of a window lies, in coordinates of the input; may be outside."""
    axes = zip(window, cell, stride, pads, dilation, strict=True)
    return tuple(o * s + k * d - before for o, k, s, (before, _), d in axes)


def is_inside(at, spatial, pads=None):
    """Whether a position lies in the input, or with ``pads`` in the padded input."""
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
    """``(dx, dweight, dbias)``: what each product in `conv_forward` sends back to its two factors."""
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


def max_winner(values, spatial, kernel, window, stride, pads, dilation):
    """(row-major index, input cell) of a window's maximum: the first of equals; NaN beats all."""
    best = None
    for k, cell in enumerate(cells(kernel)):
        at = position(window, cell, stride, pads, dilation)
        if not is_inside(at, spatial):
            continue
        if best is None or values[at] > values[best[1]] or (np.isnan(values[at]) and not np.isnan(values[best[1]])):
            best = k, at
    return best


def max_pool_forward(x, kernel, stride, pads, dilation, ceil_mode=False):
    """``(y, cell)``: maxima and the row-major index in its window of the cell that each comes from."""
    count = window_counts(x.shape[2:], kernel, stride, pads, dilation, ceil_mode)
    y, winners = np.zeros((*x.shape[:2], *count)), np.zeros((*x.shape[:2], *count), dtype=int)
    for n, c, *window in np.ndindex(*y.shape):
        k, at = max_winner(x[n, c], x.shape[2:], kernel, window, stride, pads, dilation)
        y[(n, c, *window)], winners[(n, c, *window)] = x[(n, c, *at)], k
    return y, winners


def max_pool_backward(dy, x, kernel, stride, pads, dilation):
    """``dx``: each window's gradient goes to its winner."""
    dx = np.zeros(x.shape)
    for n, c, *window in np.ndindex(*dy.shape):
        _, at = max_winner(x[n, c], x.shape[2:], kernel, window, stride, pads, dilation)
        dx[(n, c, *at)] += dy[(n, c, *window)]
    return dx


def divisor(spatial, kernel, window, stride, pads, count_include_pad):
    """How many of a window's cells count in its average."""
    ones = (1,) * len(spatial)
    counted = pads if count_include_pad else None
    return sum(is_inside(position(window, cell, stride, pads, ones), spatial, counted) for cell in cells(kernel))


def avg_pool_forward(x, kernel, stride, pads, ceil_mode=False, count_include_pad=True):
    """Averages over windows."""
    spatial, ones = x.shape[2:], (1,) * (x.ndim - 2)
    count = window_counts(spatial, kernel, stride, pads, ones, ceil_mode)
    y = np.zeros((*x.shape[:2], *count))
    for window, _, at in reads(spatial, kernel, count, stride, pads, ones):
        share = divisor(spatial, kernel, window, stride, pads, count_include_pad)
        y[(..., *window)] += x[(..., *at)].astype(np.float64) / share
    return y


def avg_pool_backward(dy, x_shape, kernel, stride, pads, count_include_pad=True):
    """``dx``: each window's gradient goes in equal shares to its cells."""
    spatial, ones = x_shape[2:], (1,) * (len(x_shape) - 2)
    dx = np.zeros(x_shape)
    for window, _, at in reads(spatial, kernel, dy.shape[2:], stride, pads, ones):
        share = divisor(spatial, kernel, window, stride, pads, count_include_pad)
        dx[(..., *at)] += dy[(..., *window)].astype(np.float64) / share
    return dx
