"""A third opinion: layers as loops over positions, in NumPy and float64, which share no code with the library.

What two ways of the library have in common (the sizes of outputs, where windows lie, what float64 is compared with)
can be wrong in both. Here nothing is padded, placed or cut: window ``o`` looks with its cell ``k`` at cell
``o*stride + k*dilation - before`` of the input, and what is not there is not there. Slow, and plain enough to check by
eye.

`opinion` gives what a layer must give for an input and an upstream gradient, or None for layers that have no loops.
What no layer accepts, a window larger than the padded input or one of padding alone, raises `ValueError` here too.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np

from .. import layers
from ..layers import pool
from ..layers.convolution.conv import Conv
from ..layers.convolution.conv_transpose import ConvTranspose
from ..layers.core.layer import Layer
from ..layers.normalisation.channel_norm import ChannelNorm

# An array of NumPy, whose stubs do not know an index put together of several parts.
Host: TypeAlias = Any
Found: TypeAlias = dict[str, Host]
Pairs: TypeAlias = list[tuple[int, int]]
Place: TypeAlias = tuple[int, ...]


def opinion(layer: Layer, x: Host, upstream: Callable[[tuple[int, ...]], Host], training: bool = True) -> Found | None:
    """Arrays of a layer by name, as `LayerCase.run` names them; None where there are no loops.

    Parameters
    ----------
    layer : Layer
        On NumPy; its parameters and buffers are read.
    x : ndarray
        The input.
    upstream : callable
        Gives the gradient of the output for its shape.
    training : bool
        With False the output alone, as in evaluation.
    """
    for kind, loops in LOOPS.items():
        if isinstance(layer, kind):
            found: Found = loops(layer, wide(x), upstream)
            return found if training else {name: found[name] for name in found if not name.startswith("d")}
    return None


def zeros(shape: Any, dtype: Any = np.float64) -> Host:
    """What is added up into."""
    return np.zeros(shape, dtype=dtype)


def wide(array: Any) -> Host:
    """The same numbers in float64."""
    return np.asarray(array, dtype=np.float64)


def each(value: Any, axes: int) -> list[int]:
    """One number for each axis."""
    return [int(v) for v in value] if isinstance(value, Sequence) else [int(value)] * axes


def sides(padding: Any, spatial: Sequence[int], kernel: list[int], stride: list[int], dilation: list[int]) -> Pairs:
    """Cells before and after each axis; of an odd number for ``"same"`` one more after."""
    if padding == "valid":
        return [(0, 0)] * len(spatial)
    if padding == "same":
        pairs = []
        for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
            total = 0
            # As few as let ceil(n / s) windows begin.
            while n + total - d * (k - 1) - 1 < s * ((n + s - 1) // s - 1):
                total += 1
            pairs.append((total // 2, total - total // 2))
        return pairs
    given = padding if isinstance(padding, Sequence) else [padding] * len(spatial)
    return [(p[0], p[1]) if isinstance(p, Sequence) else (p, p) for p in given]


def windows(
    n: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool = False
) -> list[int]:
    """Where the windows of an axis begin, found by walking over it; negative in the padding."""
    before, after = pad
    last = dilation * (kernel - 1)
    starts, start = [], -before
    if start + last >= n + after:
        raise ValueError("the window is larger than the padded input")
    while start + last < n + after:
        starts.append(start)
        start += stride
    if ceil_mode:
        # One more where cells are left over; and the last one is dropped where it begins behind the input.
        if starts[-1] + last < n + after - 1:
            starts.append(start)
        if starts[-1] >= n:
            starts.pop()
    return starts


class Walk:
    """All windows over an input ``(N, C, *S)``, and the cells that each looks at."""

    # `in_pairs`: whether the padding was written as pairs of numbers.

    def __init__(
        self, spatial: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
    ) -> None:
        axes = len(spatial)
        self.spatial, self.kernel, self.dilation = spatial, each(kernel, axes), each(dilation, axes)
        self.stride = self.kernel if stride is None else each(stride, axes)
        self.pads = sides(padding, spatial, self.kernel, self.stride, self.dilation)
        self.in_pairs = not isinstance(padding, int | str) and any(isinstance(p, Sequence) for p in padding)
        axis = zip(spatial, self.kernel, self.stride, self.pads, self.dilation, strict=True)
        self.starts = [windows(*sizes, ceil_mode) for sizes in axis]
        self.count = tuple(map(len, self.starts))

    def cells(self, window: Place) -> Iterator[tuple[Place, Place]]:
        """(cell of the kernel, cell of the input) in row-major order, where the input has one."""
        for cell in product(*map(range, self.kernel)):
            at = tuple(s[o] + k * d for s, o, k, d in zip(self.starts, window, cell, self.dilation, strict=True))
            if all(0 <= i < n for i, n in zip(at, self.spatial, strict=True)):
                yield cell, at

    def __iter__(self) -> Iterator[tuple[Place, list[tuple[Place, Place]]]]:
        for window in np.ndindex(*self.count):
            yield window, list(self.cells(window))


def pooled(layer: Any, x: Host, dilation: Any) -> Walk:
    """The windows of a pool; refused where one sees nothing of the input."""
    padding = layer.padding
    walk = Walk(x.shape[2:], layer.kernel_size, layer.stride, padding, dilation, layer.ceil_mode)
    for (before, after), k, d in zip(walk.pads, walk.kernel, walk.dilation, strict=True):
        if max(before, after) * 2 > d * (k - 1) + 1 and not walk.in_pairs:
            raise ValueError("more padding than half a window")
    if not all(cells for _, cells in walk):
        raise ValueError("a window of padding alone")
    return walk


def convolution(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``Conv1d`` to ``Conv3d``."""
    weight = wide(layer.parameters["weight"].value)
    walk = Walk(x.shape[2:], weight.shape[2:], layer.stride, layer.padding, layer.dilation)
    samples, features, groups = x.shape[0], weight.shape[0], layer.groups
    y = zeros((samples, features, *walk.count))
    dy = wide(upstream(y.shape))
    dx, dweight = zeros(x.shape), zeros(weight.shape)
    f, c = features // groups, x.shape[1] // groups
    for window, cells in walk:
        for cell, at in cells:
            for g in range(groups):
                out, into = slice(g * f, (g + 1) * f), slice(g * c, (g + 1) * c)
                factor, read, given = weight[(out, ..., *cell)], x[(slice(None), into, *at)], dy[:, out][(..., *window)]
                y[(slice(None), out, *window)] += read @ factor.T
                dx[(slice(None), into, *at)] += given @ factor
                dweight[(out, slice(None), *cell)] += given.T @ read
    return _with_bias(layer, y, dx, dweight, dy)


def transposed(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``ConvTranspose1d`` to ``ConvTranspose3d``: each cell of the input adds its multiple of the kernel."""
    weight = wide(layer.parameters["weight"].value)
    spatial, kernel = x.shape[2:], list(weight.shape[2:])
    axes = len(spatial)
    stride, dilation, extra = (each(v, axes) for v in (layer.stride, layer.dilation, layer.output_padding))
    pads = sides(layer.padding, spatial, kernel, stride, dilation)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError("more output padding than stride and dilation")
    axis = zip(spatial, stride, dilation, kernel, pads, extra, strict=True)
    size = tuple((n - 1) * s + (k - 1) * d + 1 - sum(p) + e for n, s, d, k, p, e in axis)
    if min(size) < 1 or min(spatial) < 1:
        raise ValueError("no output is left")
    groups = layer.groups
    f, c = weight.shape[1], x.shape[1] // groups
    y = zeros((x.shape[0], f * groups, *size))
    dy = wide(upstream(y.shape))
    dx, dweight = zeros(x.shape), zeros(weight.shape)
    for source in np.ndindex(*spatial):
        for cell in product(*map(range, kernel)):
            place = zip(source, stride, cell, dilation, pads, strict=True)
            at = tuple(i * s + k * d - before for i, s, k, d, (before, _) in place)
            if not all(0 <= i < n for i, n in zip(at, size, strict=True)):
                continue
            for g in range(groups):
                out, into = slice(g * f, (g + 1) * f), slice(g * c, (g + 1) * c)
                factor, read = weight[(into, ..., *cell)], x[(slice(None), into, *source)]
                given = dy[(slice(None), out, *at)]
                y[(slice(None), out, *at)] += read @ factor
                dx[(slice(None), into, *source)] += given @ factor.T
                dweight[(into, slice(None), *cell)] += read.T @ given
    return _with_bias(layer, y, dx, dweight, dy)


def _with_bias(layer: Any, y: Host, dx: Host, dweight: Host, dy: Host) -> Found:
    found = {"y": y, "dx": dx, "dweight": dweight}
    if "bias" in layer.parameters:
        bias = wide(layer.parameters["bias"].value)
        found |= {"y": y + bias.reshape(1, -1, *(1,) * (y.ndim - 2)), "dbias": _over_others(dy)}
    return found


def _over_others(dy: Host) -> Host:
    return dy.sum(axis=(0, *range(2, dy.ndim)))


def dense(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``Dense``."""
    weight = wide(layer.parameters["weight"].value)
    y = zeros((*x.shape[:-1], len(weight)))
    dy = wide(upstream(y.shape))
    dx, dweight, dbias = zeros(x.shape), zeros(weight.shape), zeros(len(weight))
    for row in np.ndindex(*x.shape[:-1]):
        for f in range(len(weight)):
            y[(*row, f)] = x[row] @ weight[f]
            dx[row] += dy[(*row, f)] * weight[f]
            dweight[f] += dy[(*row, f)] * x[row]
            dbias[f] += dy[(*row, f)]
    found = {"y": y, "dx": dx, "dweight": dweight}
    if "bias" in layer.parameters:
        found |= {"y": y + wide(layer.parameters["bias"].value), "dbias": dbias}
    return found


def first_largest(values: Host) -> Host:
    """Of ``(cells, N, C)`` the first cell with the maximum, of those with NaN the first."""
    best = zeros(values.shape[1:], dtype=int)
    largest = values[0].copy()
    for k, value in enumerate(values):
        wins = (value > largest) | (np.isnan(value) & ~np.isnan(largest))
        best, largest = np.where(wins, k, best), np.where(wins, value, largest)
    return best


def _maxima(x: Host, upstream: Callable[[tuple[int, ...]], Host], count: Place, seen: Any) -> tuple[Found, Host]:
    """Maxima over cells of the input, for ``(window, cells)``; and where they are in their planes."""
    y, indices, dx = (
        zeros((*x.shape[:2], *count)),
        zeros((*x.shape[:2], *count), dtype=np.int64),
        zeros(x.shape),
    )
    dy = wide(upstream(y.shape))
    for window, cells in seen:
        values = np.stack([x[(..., *at)] for at in cells])
        best = first_largest(values)
        for plane in np.ndindex(*x.shape[:2]):
            at = cells[best[plane]]
            y[(*plane, *window)] = x[(*plane, *at)]
            dx[(*plane, *at)] += dy[(*plane, *window)]
            indices[(*plane, *window)] = np.ravel_multi_index(at, x.shape[2:])
    return {"y": y, "dx": dx}, indices


def max_pool(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``MaxPool1d`` to ``MaxPool3d``."""
    walk = pooled(layer, x, layer.dilation)
    found, indices = _maxima(x, upstream, walk.count, ((o, [at for _, at in cells]) for o, cells in walk))
    return found | ({"indices": indices} if layer.return_indices else {})


def average_pool(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``AvgPool1d`` to ``AvgPool3d``: over the cells that count, those in the padded input or those in the input."""
    walk = pooled(layer, x, 1)
    y, dx = zeros((*x.shape[:2], *walk.count)), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for window, cells in walk:
        share = len(cells)
        if layer.count_include_pad:
            axis = zip(walk.starts, window, walk.kernel, x.shape[2:], walk.pads, strict=True)
            share = prod(sum(s[o] + i < n + after for i in range(k)) for s, o, k, n, (_, after) in axis)
        if layer.divisor_override is not None:
            share = layer.divisor_override
        for _, at in cells:
            y[(..., *window)] += x[(..., *at)] / share
            dx[(..., *at)] += dy[(..., *window)] / share
    return {"y": y, "dx": dx}


def lp_norms(
    x: Host, p: float, upstream: Callable[[tuple[int, ...]], Host], count: Place, seen: list[tuple[Place, list[Place]]]
) -> Found:
    """Norms over cells of the input, for ``(window, cells)``."""
    y, dx = zeros((*x.shape[:2], *count)), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for window, cells in seen:
        for at in cells:
            y[(..., *window)] += np.abs(x[(..., *at)]) ** p
    y = y ** (1 / p)
    for window, cells in seen:
        norm = y[(..., *window)]
        for at in cells:
            ratio = np.abs(x[(..., *at)]) / np.where(norm == 0, 1.0, norm)
            slope = np.sign(x[(..., *at)]) * (ratio ** (p - 1) if p > 1 else 1.0)
            dx[(..., *at)] += np.where(norm == 0, 0.0, dy[(..., *window)] * slope)
    return {"y": y, "dx": dx}


def lp_pool(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``LpPool1d`` to ``LpPool3d``."""
    walk = pooled(layer, x, layer.dilation)
    return lp_norms(x, layer.norm_type, upstream, walk.count, [(o, [at for _, at in cells]) for o, cells in walk])


def global_lp(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``GlobalLpPool``: one window, the plane."""
    count, seen = bins(x.shape[2:], 1)
    return lp_norms(x, layer.norm_type, upstream, count, seen)


def bins(spatial: tuple[int, ...], output_size: Any) -> tuple[Place, list[tuple[Place, list[Place]]]]:
    """Of an adaptive pool the number of bins, and ``(bin, cells)``: those that it overlaps."""
    if not all(spatial):
        raise ValueError("no cells")
    given = output_size if isinstance(output_size, Sequence) else [output_size] * len(spatial)
    count = tuple(n if m is None else int(m) for n, m in zip(spatial, given, strict=True))
    along = [
        [[j for j in range(n) if (j + 1) * m > i * n and j * m < (i + 1) * n] for i in range(m)]
        for n, m in zip(spatial, count, strict=True)
    ]
    places = np.ndindex(*count)
    return count, [(o, list(product(*(axis[i] for axis, i in zip(along, o, strict=True))))) for o in places]


def adaptive_average(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``AdaptiveAvgPool`` and ``GlobalAvgPool``."""
    count, seen = bins(x.shape[2:], layer.output_size)
    y, dx = zeros((*x.shape[:2], *count)), zeros(x.shape)
    dy = wide(upstream(y.shape))
    for place, cells in seen:
        for at in cells:
            y[(..., *place)] += x[(..., *at)] / len(cells)
            dx[(..., *at)] += dy[(..., *place)] / len(cells)
    return {"y": y, "dx": dx}


def adaptive_maximum(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``AdaptiveMaxPool`` and ``GlobalMaxPool``."""
    return _maxima(x, upstream, *bins(x.shape[2:], layer.output_size))[0]


def _normalised(
    layer: Any, x: Host, dy: Host, groups: list[Any], entry: Callable[[Place], Any], fixed: Any = None
) -> Found:
    """Normalise groups of cells, each by itself; ``entry`` gives the index of a cell's weight.

    With ``fixed`` ``(mean, var)`` of each group are given, and constants.
    """
    weight, bias = (
        wide(layer.parameters[name].value) if name in layer.parameters else None for name in ("weight", "bias")
    )
    y, dx, xhat = zeros(x.shape), zeros(x.shape), zeros(x.shape)
    w = np.ones(x.shape) if weight is None else zeros(x.shape)
    b = zeros(x.shape)
    for at in np.ndindex(*x.shape):
        if weight is not None:
            w[at] = weight[entry(at)]
        if bias is not None:
            b[at] = bias[entry(at)]
    for i, cells in enumerate(groups):
        values = x[cells]
        if not values.size:
            continue
        mean, var = (values.mean(), values.var()) if fixed is None else (fixed[0][i], fixed[1][i])
        spread = np.sqrt(var + layer.eps)
        xhat[cells] = normal = (values - mean) / spread
        y[cells] = normal * w[cells] + b[cells]
        g = dy[cells] * w[cells]
        dx[cells] = g / spread if fixed is not None else (g - g.mean() - normal * (g * normal).mean()) / spread
    found = {"y": y, "dx": dx}
    for name, value, share in (("weight", weight, dy * xhat), ("bias", bias, dy)):
        if value is not None:
            total = zeros(value.shape)
            for at in np.ndindex(*x.shape):
                total[entry(at)] += share[at]
            found[f"d{name}"] = total
    return found


def channel_norm(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """BatchNorm and InstanceNorm, with what they do to their running statistics."""
    dy = wide(upstream(x.shape))
    channels, counts = x.shape[1], layer.counts_batches
    # Of batch norm a group is a channel, of instance norm a channel of a sample.
    samples: list[Any] = [slice(None)] if counts else [slice(n, n + 1) for n in range(len(x))]
    groups = [(n, c) for n in samples for c in range(channels)]
    running = {name: np.array(array, dtype=np.float64) for name, array in layer.buffers.items()}
    fixed = None
    if not layer.training and layer.track_running_stats:
        fixed = ([running["running_mean"][c] for _, c in groups], [running["running_var"][c] for _, c in groups])
    elif prod(x.shape[2:]) * (len(x) if counts else 1) == 1:
        raise ValueError("one value has no variance")
    found = _normalised(layer, x, dy, groups, lambda at: at[1], fixed)
    if layer.track_running_stats:
        if layer.training:
            running["num_batches_tracked"] = running["num_batches_tracked"] + int(counts)
        if layer.training and x.size:
            share = 1 / running["num_batches_tracked"] if layer.momentum is None else layer.momentum
            for c in range(channels):
                some = [x[cells] for cells in groups if cells[1] == c]
                batch = {
                    "running_mean": np.mean(some, axis=None),
                    "running_var": np.mean([v.var(ddof=1) for v in some]),
                }
                for name, value in batch.items():
                    running[name][c] += share * (value - running[name][c])
        found |= running
    return found


def layer_norm(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``LayerNorm``."""
    dy = wide(upstream(x.shape))
    lead = x.ndim - len(layer.normalized_shape)
    return _normalised(layer, x, dy, list(np.ndindex(*x.shape[:lead])), lambda at: at[lead:])


def group_norm(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``GroupNorm``."""
    dy, size = wide(upstream(x.shape)), x.shape[1] // layer.num_groups
    groups = [(n, slice(g * size, (g + 1) * size)) for n in range(len(x)) for g in range(layer.num_groups)]
    return _normalised(layer, x, dy, groups, lambda at: at[1])


def pad(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``Pad``."""
    ones = [1] * (x.ndim - 2)
    pads = sides(layer.padding, x.shape[2:], ones, ones, ones)
    y = np.full((*x.shape[:2], *(n + sum(p) for n, p in zip(x.shape[2:], pads, strict=True))), layer.value)
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for at in np.ndindex(*x.shape[2:]):
        place = tuple(i + before for i, (before, _) in zip(at, pads, strict=True))
        y[(..., *place)], dx[(..., *at)] = x[(..., *at)], dy[(..., *place)]
    return {"y": y, "dx": dx}


def upsample(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``Upsample``."""
    scale = each(layer.scale_factor, x.ndim - 2)
    y = zeros((*x.shape[:2], *(n * s for n, s in zip(x.shape[2:], scale, strict=True))))
    dy, dx = wide(upstream(y.shape)), zeros(x.shape)
    for place in np.ndindex(*y.shape[2:]):
        at = tuple(i // s for i, s in zip(place, scale, strict=True))
        y[(..., *place)] = x[(..., *at)]
        dx[(..., *at)] += dy[(..., *place)]
    return {"y": y, "dx": dx}


def in_order(layer: Any, x: Host, upstream: Callable[[tuple[int, ...]], Host]) -> Found:
    """``Flatten``, ``Reshape`` and ``Identity``: the same values one after the other."""
    shape: tuple[int, ...] = x.shape
    if isinstance(layer, layers.Flatten):
        first, last = (axis % x.ndim for axis in (layer.start_dim, layer.end_dim))
        shape = (*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    if isinstance(layer, layers.Reshape):
        known = prod(n for n in layer.shape if n != -1)
        shape = (len(x), *(prod(x.shape[1:]) // known if n == -1 else n for n in layer.shape))
    y = zeros(shape)
    y.flat[:] = list(x.flat)
    dx = zeros(x.shape)
    dx.flat[:] = list(np.asarray(upstream(shape)).flat)
    return {"y": y, "dx": dx}


LOOPS: dict[type, Callable[[Any, Host, Callable[[tuple[int, ...]], Host]], Found]] = {
    Conv: convolution,
    ConvTranspose: transposed,
    layers.Dense: dense,
    pool.MaxPool: max_pool,
    pool.AvgPool: average_pool,
    pool.LpPool: lp_pool,
    layers.GlobalLpPool: global_lp,
    layers.AdaptiveAvgPool: adaptive_average,
    layers.AdaptiveMaxPool: adaptive_maximum,
    ChannelNorm: channel_norm,
    layers.LayerNorm: layer_norm,
    layers.GroupNorm: group_norm,
    layers.Pad: pad,
    layers.Upsample: upsample,
    layers.Flatten: in_order,
    layers.Reshape: in_order,
    layers.Identity: in_order,
}
