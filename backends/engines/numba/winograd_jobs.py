"""The jobs of Winograd's convolution, whose steps are in `xpnn.backends.engines.numba.winograd`.

Transformed arrays are matrices for each point, ``pitch`` numbers apart: tiles of an input ``(T, C)``, tiles of an
output or of ``dy`` ``(T, F)``, and weights ``(F, C)`` or, of a rotated problem, ``(C, F)``. A job computes a *part*,
its last argument: ``each_tile`` tiles and ``each_feature`` features, of which its transformed arrays hold no others.

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
from .winograd_vectors import (
    KERNEL_BYTES,
    Matrix,
    cells_to_points,
    kernel_to_points,
    points_to_cells,
    points_to_kernel,
    vector_lanes,
)


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


def _named(function: Callable[..., None], name: str) -> Callable[..., None]:
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

    return job(read(4), write(1), *[INT] * 9)(_named(transform, name))


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

    return job(read(1), read(1), write(4), NUMBER, *[INT] * 8)(_named(transform, name))


def _to_weights(matrix: Matrix, name: str) -> Job:
    """Kernels ``weight (A, B, 3, 3)`` to points: rows ``A`` from ``row``, columns ``B`` from ``column``.

    ``(F, C)`` or, of a rotated problem, ``(C, F)``. An item has ``per`` rows.
    """
    lanes = vector_lanes()
    vector, scalar = kernel_to_points(matrix, lanes), kernel_to_points(matrix, 1)

    def transform(
        item: Any, weight: Any, points: Any, rotated: Any, per: Any, pitch: Any, each_feature: Any, part: Any
    ) -> None:
        rows, columns = weight.shape[0], weight.shape[1]
        row, column = (0, part * each_feature) if rotated else (part * each_feature, 0)
        count = min(each_feature, columns - column) if rotated else columns
        end = rows if rotated else min(rows, row + each_feature)
        begin, step = (32, -4) if rotated else (0, 4)
        for i in range(row + item * per, min(end, row + (item + 1) * per)):
            source = weight.ctypes.data + KERNEL_BYTES * (i * columns + column) + begin
            to = points.ctypes.data + 4 * count * (i - row)
            if count >= lanes:
                for c in range(0, count, lanes):
                    k = min(c, count - lanes)
                    vector(source + KERNEL_BYTES * k, step, to + 4 * k, 4 * pitch)
            else:
                for k in range(count):
                    scalar(source + KERNEL_BYTES * k, step, to + 4 * k, 4 * pitch)

    return job(read(4), write(1), *[INT] * 5)(_named(transform, name))


def _to_weight_gradient(matrix: Matrix, name: str) -> Job:
    """Points ``(f, C)`` to ``dweight (F, C, 3, 3)``; an item has ``per`` features."""
    lanes = vector_lanes()
    vector, scalar = points_to_kernel(matrix, lanes), points_to_kernel(matrix, 1)

    def transform(item: Any, points: Any, dweight: Any, per: Any, pitch: Any, each_feature: Any, part: Any) -> None:
        features, channels = dweight.shape[0], dweight.shape[1]
        first = part * each_feature
        end = min(features, first + each_feature, first + (item + 1) * per)
        for f in range(first + item * per, end):
            source = points.ctypes.data + 4 * channels * (f - first)
            to = dweight.ctypes.data + KERNEL_BYTES * channels * f
            if channels >= lanes:
                for c in range(0, channels, lanes):
                    k = min(c, channels - lanes)
                    vector(source + 4 * k, 4 * pitch, to + KERNEL_BYTES * k)
            else:
                for k in range(channels):
                    scalar(source + 4 * k, 4 * pitch, to + KERNEL_BYTES * k)

    return job(read(1), write(4), *[INT] * 4)(_named(transform, name))


@job(read(1), read(1), write(1), *[INT] * 15, uses_blas=True)
def multiply(
    item: Any,
    inputs: Any,
    weights: Any,
    products: Any,
    tiles: Any,
    channels: Any,
    features: Any,
    rotated: Any,
    is_whole: Any,
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
    """Tiles of the input ``(T, C)`` times weights to products ``(T, f)``; an item is a piece of those of a point.

    With ``is_whole``, ``weights`` hold those of all features.
    """
    from_feature = part % feature_parts * each_feature
    count = min(each_feature, features - from_feature)
    size = min(each_tile, tiles - part // feature_parts * each_tile)
    across, down = -(-count // cut_features), -(-size // cut_tiles)
    point, t, f = item // (across * down), item // across % down * cut_tiles, item % across * cut_features
    wide = features if is_whole else count
    at = (from_feature if is_whole else 0) + f
    a = inputs.ctypes.data + 4 * (point * input_pitch + t * channels)
    b = weights.ctypes.data + 4 * (point * weight_pitch + (at if rotated else at * channels))
    c = products.ctypes.data + 4 * (point * product_pitch + t * count + f)
    pitch = wide if rotated else channels
    m, n, zero = min(cut_tiles, size - t), min(cut_features, count - f), inputs.dtype.type(0)
    gemm(blas, 0, 0 if rotated else 1, m, n, channels, a, channels, b, pitch, 0, c, count, zero)


@job(read(1), read(1), write(1), *[INT] * 12, uses_blas=True)
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
    each_tile: Any,
    each_feature: Any,
    feature_parts: Any,
    blas: Any,
    part: Any,
) -> None:
    """Tiles of ``dy (T, F)``, transposed, times tiles of the input ``(T, C)`` to sums ``(f, C)``, or added to them.

    The first part of the tiles is written, all others are added. An item is a piece of the features of a point.
    """
    from_tile, from_feature = part // feature_parts * each_tile, part % feature_parts * each_feature
    count = min(each_feature, features - from_feature)
    across = -(-count // cut_features)
    point, f = item // across, item % across * cut_features
    a = upstream.ctypes.data + 4 * (point * upstream_pitch + from_feature + f)
    b = inputs.ctypes.data + 4 * point * input_pitch
    c = sums.ctypes.data + 4 * (point * sum_pitch + f * channels)
    m, k, zero = min(cut_features, count - f), min(each_tile, tiles - from_tile), inputs.dtype.type(0)
    gemm(blas, 1, 0, m, channels, k, a, features, b, channels, 0 if from_tile == 0 else 1, c, channels, zero)
