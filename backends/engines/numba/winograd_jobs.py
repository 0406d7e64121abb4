"""The jobs of Winograd's convolution, whose steps are in `xpnn.backends.engines.numba.winograd`.

Transformed arrays are matrices for each point, ``pitch`` numbers apart: tiles of an input ``(T, C)``, tiles of an
output or of ``dy`` ``(T, F)``, weights ``(C, F)`` and their gradients ``(F, C)``. A job computes a *part*, its last
argument: ``each_tile`` tiles and ``each_feature`` features, and transformed arrays hold those of a part only, whose
features are ``f`` in shapes.

A transform runs over vectors of channels. If the last vector would reach beyond the end, it begins earlier and computes
some channels twice; channels that are fewer than a vector are computed one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np

from .blas import gemm
from .jobs import INT, NUMBER, Job, job, read, write
from .winograd_vectors import Matrix, cells_to_points, evenly_spaced, points_to_cells, vector_lanes

KERNEL = 3
CELLS = KERNEL * KERNEL


@dataclass(frozen=True)
class TransformJobs:
    """The jobs that transform, for tiles of one size."""

    inputs: Job
    upstream: Job
    outputs: Job
    weight: Job
    weight_gradient: Job


@cache
def transform_jobs(matrices: tuple[Matrix, Matrix, Matrix]) -> TransformJobs:
    """Jobs for transforms of inputs ``(n, n)``, kernels ``(n, 3)`` and outputs ``(m, n)``."""
    inputs, kernels, outputs = matrices
    # Compiled code is cached on disk by the name of its function.
    mark = sha256(repr((matrices, vector_lanes())).encode()).hexdigest()[:12]
    of_upstream, of_gradient = (tuple(zip(*matrix, strict=True)) for matrix in (outputs, kernels))
    return TransformJobs(
        _to_points(inputs, f"winograd_inputs_{mark}"),
        _to_points(of_upstream, f"winograd_upstream_{mark}"),
        _to_outputs(outputs, f"winograd_outputs_{mark}"),
        _to_weights(kernels, f"winograd_weight_{mark}"),
        _to_weight_gradient(of_gradient, f"winograd_weight_gradient_{mark}"),
    )


def named(function: Callable[..., None], name: str) -> Callable[..., None]:
    """The function with another name."""
    function.__name__ = function.__qualname__ = name
    return function


def _to_points(matrix: Matrix, name: str) -> Job:
    """Tiles of ``x (N, *S, C)`` with zeros around it to points ``(T, C)``; an item has ``per`` tiles."""
    side, lanes = len(matrix[0]), vector_lanes()
    vector, scalar = cells_to_points(matrix, lanes), cells_to_points(matrix, 1)

    def transform(
        item: Any,
        x: Any,
        points: Any,
        rows: Any,
        columns: Any,
        step: Any,
        above: Any,
        left: Any,
        per: Any,
        pitch: Any,
        each_tile: Any,
        part: Any,
    ) -> None:
        samples, height, width, channels = x.shape
        zeros, cells = np.zeros(channels, x.dtype), np.empty(side * side, np.int64)
        first = part * each_tile
        end = min(first + each_tile, samples * rows * columns, first + (item + 1) * per)
        for t in range(first + item * per, end):
            sample, row, column = t // (rows * columns), t // columns % rows, t % columns
            for j in range(side):
                for k in range(side):
                    h, w = row * step - above + j, column * step - left + k
                    inside = 0 <= h < height and 0 <= w < width
                    at = x.ctypes.data + 4 * channels * ((sample * height + h) * width + w)
                    cells[j * side + k] = at if inside else zeros.ctypes.data
            to = points.ctypes.data + 4 * channels * (t - first)
            if channels >= lanes:
                for c in range(0, channels, lanes):
                    offset = 4 * min(c, channels - lanes)
                    vector(cells.ctypes.data, offset, to + offset, 4 * pitch)
            else:
                for c in range(channels):
                    scalar(cells.ctypes.data, 4 * c, to + 4 * c, 4 * pitch)

    return job(read(4), write(1), *[INT] * 9)(named(transform, name))


def _to_outputs(matrix: Matrix, name: str) -> Job:
    """Points ``(T, f)`` to tiles of ``y (N, *O, F)``; an item has ``per`` tiles."""
    side, lanes = len(matrix), vector_lanes()
    vector, scalar = points_to_cells(matrix, lanes), points_to_cells(matrix, 1)

    def transform(
        item: Any,
        points: Any,
        bias: Any,
        y: Any,
        zero_up_to: Any,
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
        beyond, cells = np.empty(features, y.dtype), np.empty(side * side, np.int64)
        first, from_feature = part // feature_parts * each_tile, part % feature_parts * each_feature
        end = min(first + each_tile, samples * rows * columns, first + (item + 1) * per)
        count = min(each_feature, features - from_feature)
        for t in range(first + item * per, end):
            sample, row, column = t // (rows * columns), t // columns % rows, t % columns
            for j in range(side):
                for k in range(side):
                    h, w = row * side + j, column * side + k
                    at = y.ctypes.data + 4 * features * ((sample * height + h) * width + w)
                    cells[j * side + k] = at if h < height and w < width else beyond.ctypes.data
            source, more = points.ctypes.data + 4 * count * (t - first), bias.ctypes.data + 4 * from_feature
            if count >= lanes:
                for f in range(0, count, lanes):
                    offset = 4 * min(f, count - lanes)
                    to = 4 * from_feature + offset
                    vector(source + offset, 4 * pitch, more + offset, zero_up_to, cells.ctypes.data, to)
            else:
                for f in range(count):
                    to = 4 * (from_feature + f)
                    scalar(source + 4 * f, 4 * pitch, more + 4 * f, zero_up_to, cells.ctypes.data, to)

    return job(read(1), read(1), write(4), NUMBER, *[INT] * 8)(named(transform, name))


def _to_weights(matrix: Matrix, name: str) -> Job:
    """Kernels ``weight (F, C, 3, 3)``, or ``(C, F, 3, 3)`` if rotated, to points ``(C, f)``.

    An item has ``per`` channels.
    """
    lanes = vector_lanes()
    vector, scalar = evenly_spaced(matrix, lanes), evenly_spaced(matrix, 1)

    def transform(
        item: Any, weight: Any, points: Any, rotated: Any, per: Any, pitch: Any, each_feature: Any, part: Any
    ) -> None:
        channels, features = weight.shape[0 if rotated else 1], weight.shape[1 if rotated else 0]
        from_feature, numbers = part * each_feature, weight.reshape(-1)
        count = min(each_feature, features - from_feature)
        width = min(lanes, count)
        # Kernels of `width` features, of which neighbours have the same cell.
        of_channel, of_feature = (features, 1) if rotated else (1, channels)
        cells = np.empty((per, CELLS, lanes), weight.dtype)
        first, rows = item * per, min(per, channels - item * per)
        for at in range(0, count, lanes):
            f = max(0, min(at, count - lanes))
            for k in range(width):
                for c in range(rows):
                    kernel = CELLS * ((first + c) * of_channel + (from_feature + f + k) * of_feature)
                    for i in range(CELLS):
                        cells[c, CELLS - 1 - i if rotated else i, k] = numbers[kernel + i]
            for c in range(rows):
                source, to = (
                    cells.ctypes.data + 4 * lanes * CELLS * c,
                    points.ctypes.data + 4 * (count * (first + c) + f),
                )
                if width == lanes:
                    vector(source, 4 * lanes, to, 4 * pitch)
                else:
                    for k in range(width):
                        scalar(source + 4 * k, 4 * lanes, to + 4 * k, 4 * pitch)

    return job(read(4), write(1), *[INT] * 5)(named(transform, name))


def _to_weight_gradient(matrix: Matrix, name: str) -> Job:
    """Points ``(f, C)`` to ``dweight (F, C, 3, 3)``; an item has ``per`` features."""
    lanes = vector_lanes()
    vector, scalar = evenly_spaced(matrix, lanes), evenly_spaced(matrix, 1)

    def transform(item: Any, points: Any, dweight: Any, per: Any, pitch: Any, each_feature: Any, part: Any) -> None:
        features, channels = dweight.shape[0], dweight.shape[1]
        first, width, numbers = part * each_feature, min(lanes, channels), dweight.reshape(-1)
        cells = np.empty((CELLS, lanes), dweight.dtype)
        end = min(features, first + each_feature, first + (item + 1) * per)
        for f in range(first + item * per, end):
            for at in range(0, channels, lanes):
                c = max(0, min(at, channels - lanes))
                source = points.ctypes.data + 4 * (channels * (f - first) + c)
                if width == lanes:
                    vector(source, 4 * pitch, cells.ctypes.data, 4 * lanes)
                else:
                    for k in range(width):
                        scalar(source + 4 * k, 4 * pitch, cells.ctypes.data + 4 * k, 4 * lanes)
                kernel = CELLS * (channels * f + c)
                for k in range(width):
                    for i in range(CELLS):
                        numbers[kernel + CELLS * k + i] = cells[i, k]

    return job(read(1), write(4), *[INT] * 4)(named(transform, name))


@job(read(1), read(1), write(1), *[INT] * 13, uses_blas=True)
def multiply(
    item: Any,
    inputs: Any,
    weights: Any,
    products: Any,
    tiles: Any,
    channels: Any,
    features: Any,
    input_pitch: Any,
    weight_pitch: Any,
    product_pitch: Any,
    cut_tiles: Any,
    cut_features: Any,
    each_tile: Any,
    each_feature: Any,
    feature_parts: Any,
    blas: Any,
    part: Any,
) -> None:
    """Tiles of the input ``(T, C)`` times weights ``(C, f)`` to products ``(T, f)``.

    An item is a piece of the products of a point.
    """
    from_feature = part % feature_parts * each_feature
    count = min(each_feature, features - from_feature)
    size = min(each_tile, tiles - part // feature_parts * each_tile)
    across, down = -(-count // cut_features), -(-size // cut_tiles)
    point, t, f = item // (across * down), item // across % down * cut_tiles, item % across * cut_features
    a = inputs.ctypes.data + 4 * (point * input_pitch + t * channels)
    b = weights.ctypes.data + 4 * (point * weight_pitch + f)
    c = products.ctypes.data + 4 * (point * product_pitch + t * count + f)
    m, n, zero = min(cut_tiles, size - t), min(cut_features, count - f), inputs.dtype.type(0)
    gemm(blas, 0, 0, m, n, channels, a, channels, b, count, 0, c, count, zero)


@job(read(1), read(1), write(1), *[INT] * 13, uses_blas=True)
def correlate(
    item: Any,
    inputs: Any,
    upstream: Any,
    sums: Any,
    tiles: Any,
    channels: Any,
    features: Any,
    input_pitch: Any,
    upstream_pitch: Any,
    sum_pitch: Any,
    cut_features: Any,
    cut_channels: Any,
    each_tile: Any,
    each_feature: Any,
    feature_parts: Any,
    blas: Any,
    part: Any,
) -> None:
    """Tiles of ``dy (T, F)``, transposed, times tiles of the input ``(T, C)`` to sums ``(f, C)``, or added to them.

    The first part of the tiles is written, all others are added. An item is a piece of the sums of a point.
    """
    from_tile, from_feature = part // feature_parts * each_tile, part % feature_parts * each_feature
    count = min(each_feature, features - from_feature)
    across, down = -(-channels // cut_channels), -(-count // cut_features)
    point, f, h = item // (across * down), item // across % down * cut_features, item % across * cut_channels
    a = upstream.ctypes.data + 4 * (point * upstream_pitch + from_feature + f)
    b = inputs.ctypes.data + 4 * (point * input_pitch + h)
    c = sums.ctypes.data + 4 * (point * sum_pitch + f * channels + h)
    m, n, k = min(cut_features, count - f), min(cut_channels, channels - h), min(each_tile, tiles - from_tile)
    gemm(blas, 1, 0, m, n, k, a, features, b, channels, min(from_tile, 1), c, channels, inputs.dtype.type(0))
