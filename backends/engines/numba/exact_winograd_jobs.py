"""The jobs that transform for `xpnn.backends.engines.numba.exact_winograd`: slices to points, products to results.

Transformed arrays are float64 matrices for each of the 36 points, ``pitch`` numbers apart, as in
`xpnn.backends.engines.numba.winograd_jobs`; *parts* are the same too. Of ``count`` slices of a right operand the
columns of the first come before those of the second. Channels and features are multiples of a vector's lanes.

Each transform also writes sums of squares, by which `xpnn.backends.engines.numba.exact_products` knows which products
are exact.
"""

from typing import Any

import numpy as np

from .exact_vectors import lanes, points_to_numbers, slices_to_points
from .jobs import INT, NUMBER, Job, job, read, write
from .winograd_jobs import named

POINTS, SIDE, CELLS, OUTPUTS = 36, 6, 9, 4
LANES = lanes()

#: Transforms at the points 0, 1, -1, 2, -2 and infinity, where all are whole numbers: of inputs, of kernels times
#: (4, -6, -6, 24, 24, 1), and 24 times those of outputs.
INPUTS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNELS = ((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4), (0, 0, 1))
UPSTREAM = ((1, 0, 0, 0), (1, 1, 1, 1), (1, -1, 1, -1), (1, 2, 4, 8), (1, -2, 4, -8), (0, 0, 0, 1))
RESULTS = ((6, -4, -4, 1, 1, 0), (0, -4, 4, 2, -2, 0), (0, -4, -4, 4, 4, 0), (0, -4, 4, 8, -8, 24))

_input_slice = slices_to_points(INPUTS, False)
_kernel_slices = slices_to_points(KERNELS, False), slices_to_points(KERNELS, True)
_upstream_slices = slices_to_points(UPSTREAM, False), slices_to_points(UPSTREAM, True)


@job(read(4), read(1), write(1), write(3), *[INT] * 9)
def inputs_by_tile(
    item: Any,
    x: Any,
    factors: Any,
    points: Any,
    squares: Any,
    rows: Any,
    columns: Any,
    above: Any,
    left: Any,
    per: Any,
    pitch: Any,
    each_tile: Any,
    each_item: Any,
    part: Any,
) -> None:
    """Tiles of slices of ``x (N, H, W, C)`` times ``factors (N,)``, to points ``(T, C)``; an item has ``per`` tiles.

    ``squares[part * each_item + item] (36, lanes)`` is the maximum over tiles of the sums of squares of every
    ``lanes``-th channel.
    """
    samples, height, width, channels = x.shape
    zeros, cells = np.zeros(channels, x.dtype), np.empty(SIDE * SIDE, np.int64)
    sums, factor, filled = np.empty(POINTS * LANES, x.dtype), np.empty(LANES, x.dtype), -1
    largest = squares[part * each_item + item].reshape(-1)
    largest[:] = 0.0
    first = part * each_tile
    end = min(first + each_tile, samples * rows * columns, first + (item + 1) * per)
    for t in range(first + item * per, end):
        sample, row, column = t // (rows * columns), t // columns % rows, t % columns
        for j in range(SIDE):
            for k in range(SIDE):
                h, w = row * OUTPUTS - above + j, column * OUTPUTS - left + k
                inside = 0 <= h < height and 0 <= w < width
                at = x.ctypes.data + 8 * channels * ((sample * height + h) * width + w)
                cells[j * SIDE + k] = at if inside else zeros.ctypes.data
        if sample != filled:
            factor[:], filled = factors[sample], sample
        to = points.ctypes.data + 8 * channels * (t - first)
        sums[:] = 0.0
        for c in range(0, 8 * channels, 8 * LANES):
            _input_slice(cells.ctypes.data, c, factor.ctypes.data, 0.0, to + c, 8 * pitch, sums.ctypes.data)
        for i in range(POINTS * LANES):
            largest[i] = max(largest[i], sums[i])


def _by_channel(side: int, slices: tuple[Any, ...], name: str) -> Job:
    """Tiles of ``count`` slices of ``x (N, H, W, C)`` times ``factors (C,)``, to points ``(T, count C)``.

    ``squares[part * each_item + item] (36, count C)`` are the sums of squares over the item's ``per`` tiles.
    """
    first_slice, second_slice = slices

    def transform(
        item: Any,
        x: Any,
        factors: Any,
        points: Any,
        squares: Any,
        again: Any,
        count: Any,
        rows: Any,
        columns: Any,
        above: Any,
        left: Any,
        per: Any,
        pitch: Any,
        each_tile: Any,
        each_item: Any,
        part: Any,
    ) -> None:
        samples, height, width, channels = x.shape
        zeros, cells = np.zeros(channels, x.dtype), np.empty((per, side * side), np.int64)
        sums = np.empty((POINTS, LANES), x.dtype)
        found = squares[part * each_item + item]
        first = part * each_tile
        start = first + item * per
        end = min(first + each_tile, samples * rows * columns, start + per)
        for t in range(start, end):
            sample, row, column = t // (rows * columns), t // columns % rows, t % columns
            for j in range(side):
                for k in range(side):
                    h, w = row * OUTPUTS - above + j, column * OUTPUTS - left + k
                    inside = 0 <= h < height and 0 <= w < width
                    at = x.ctypes.data + 8 * channels * ((sample * height + h) * width + w)
                    cells[t - start, j * side + k] = at if inside else zeros.ctypes.data
        for c in range(0, channels, LANES):
            factor = factors.ctypes.data + 8 * c
            for k in range(count):
                sums[:] = 0.0
                for t in range(start, end):
                    source = cells.ctypes.data + 8 * side * side * (t - start)
                    to = points.ctypes.data + 8 * (channels * (count * (t - first) + k) + c)
                    if k == 0:
                        first_slice(source, 8 * c, factor, again, to, 8 * pitch, sums.ctypes.data)
                    else:
                        second_slice(source, 8 * c, factor, again, to, 8 * pitch, sums.ctypes.data)
                for p in range(POINTS):
                    for i in range(LANES):
                        found[p, k * channels + c + i] = sums[p, i]

    return job(read(4), read(1), write(1), write(3), NUMBER, *[INT] * 10)(named(transform, name))


inputs_by_channel = _by_channel(SIDE, (_input_slice, _input_slice), f"exact_inputs_by_channel_{LANES}")
upstream_by_channel = _by_channel(OUTPUTS, _upstream_slices, f"exact_upstream_by_channel_{LANES}")

_first_kernel, _second_kernel = _kernel_slices


@job(read(4), read(1), write(1), write(2), NUMBER, *[INT] * 6)
def weights(
    item: Any,
    weight: Any,
    factors: Any,
    points: Any,
    squares: Any,
    again: Any,
    count: Any,
    rotated: Any,
    per: Any,
    pitch: Any,
    each_feature: Any,
    part: Any,
) -> None:
    """Slices of ``weight (F, C, 3, 3)`` times ``factors (F,)``, or of ``(C, F, 3, 3)``, rotated, to ``(C, count f)``.

    An item has ``per`` vectors of features. ``squares (F / lanes, 36)`` is the largest sum of squares of a column.
    """
    channels, features = weight.shape[0 if rotated else 1], weight.shape[1 if rotated else 0]
    from_feature, numbers = part * each_feature, weight.reshape(-1)
    width = min(each_feature, features - from_feature)
    of_channel, of_feature = (features, 1) if rotated else (1, channels)
    cells, places = np.empty((CELLS, LANES), weight.dtype), np.empty(CELLS, np.int64)
    sums = np.empty((2, POINTS, LANES), weight.dtype)
    for i in range(CELLS):
        places[i] = cells.ctypes.data + 8 * LANES * i
    for f in range(item * per * LANES, min(width, (item + 1) * per * LANES), LANES):
        sums[:] = 0.0
        factor = factors.ctypes.data + 8 * (from_feature + f)
        for c in range(channels):
            for k in range(LANES):
                kernel = CELLS * (c * of_channel + (from_feature + f + k) * of_feature)
                for i in range(CELLS):
                    cells[CELLS - 1 - i if rotated else i, k] = numbers[kernel + i]
            to = points.ctypes.data + 8 * (count * width * c + f)
            _first_kernel(places.ctypes.data, 0, factor, again, to, 8 * pitch, sums.ctypes.data)
            if count == 2:
                more = sums.ctypes.data + 8 * POINTS * LANES
                _second_kernel(places.ctypes.data, 0, factor, again, to + 8 * width, 8 * pitch, more)
        for p in range(POINTS):
            largest = 0.0
            for i in range(LANES):
                largest = max(largest, sums[0, p, i], sums[1, p, i])
            squares[(from_feature + f) // LANES, p] = largest


def _outputs(count: int) -> Job:
    """Products ``(T, count f)`` to tiles of ``y (N, *O, F)``; an item has ``per`` tiles."""
    of_doubles, of_wholes = (points_to_numbers(RESULTS, whole, count) for whole in (False, True))

    def transform(
        item: Any,
        products: Any,
        flags: Any,
        scales: Any,
        factors: Any,
        bias: Any,
        y: Any,
        unit: Any,
        rows: Any,
        columns: Any,
        per: Any,
        pitch: Any,
        each_tile: Any,
        each_feature: Any,
        feature_parts: Any,
        part: Any,
    ) -> None:
        samples, height, width, features = y.shape
        # Cells of the last tiles beyond the end are written here.
        beyond, cells = np.empty(features, y.dtype), np.empty(OUTPUTS * OUTPUTS, np.int64)
        first, from_feature = part // feature_parts * each_tile, part % feature_parts * each_feature
        end = min(first + each_tile, samples * rows * columns, first + (item + 1) * per)
        some, whole = min(each_feature, features - from_feature), flags[part, POINTS] != 0
        for t in range(first + item * per, end):
            sample, row, column = t // (rows * columns), t // columns % rows, t % columns
            for j in range(OUTPUTS):
                for k in range(OUTPUTS):
                    h, w = row * OUTPUTS + j, column * OUTPUTS + k
                    at = y.ctypes.data + 8 * features * ((sample * height + h) * width + w)
                    cells[j * OUTPUTS + k] = at if h < height and w < width else beyond.ctypes.data
            for f in range(0, some, LANES):
                source, offset = products.ctypes.data + 8 * (count * some * (t - first) + f), 8 * (from_feature + f)
                lower, factor, shift = source + 8 * some, factors.ctypes.data + offset, bias.ctypes.data + offset
                to, scale = cells.ctypes.data, scales[sample]
                if whole:
                    of_wholes(source, lower, 8 * pitch, unit, scale, factor, shift, to, offset)
                else:
                    of_doubles(source, lower, 8 * pitch, unit, scale, factor, shift, to, offset)

    kinds = read(1), read(2, "int64"), read(1), read(1), read(1), write(4), NUMBER, *[INT] * 8
    return job(*kinds, contract=False)(named(transform, f"exact_outputs_{count}_{LANES}"))


#: The last step of a forward, for one and for two slices of the weight.
outputs = {count: _outputs(count) for count in (1, 2)}
