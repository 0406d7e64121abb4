"""Products of transformed whole numbers, in jobs: float64 matrix products, which are exact where norms say so.

Any partial sum of ``a_k b_k`` is at most ``|a| |b|`` (Cauchy and Schwarz). Where that is not below 2**53 for a point of
a part, the right operand is cut into two halves of its bits, whose products are exact for every number, and added as
int64, modulo 2**64. Both ways give the same whole numbers.
"""

from typing import Any

import numpy as np

from .blas import gemm
from .compiler import helper
from .jobs import INT, job, read, write

POINTS = 36
# Of products of squares of norms, which have rounding errors.
MOST_SQUARE = 2.0**106 * (1.0 - 2.0**-20)


@job(read(3), read(2), write(2, "int64"), *[INT] * 6)
def judge_tiles(
    item: Any,
    left: Any,
    right: Any,
    flags: Any,
    tiles: Any,
    per: Any,
    each_tile: Any,
    each_block: Any,
    feature_parts: Any,
    part: Any,
) -> None:
    """Whether products of tiles and weights may be inexact: ``flags[part]`` for each point, and for any of them.

    ``left`` are the squares of `exact_winograd_jobs.inputs_by_tile`, ``right`` those of ``weights``; a part has
    ``each_block`` of their blocks of features.
    """
    tile_part, feature_part = part // feature_parts, part % feature_parts
    each_item = -(-each_tile // per)
    first = tile_part * each_item
    last = first + -(-min(each_tile, tiles - tile_part * each_tile) // per)
    from_block = feature_part * each_block
    flags[part, POINTS] = 0
    for p in range(POINTS):
        of_tiles, of_weights = 0.0, 0.0
        for k in range(left.shape[2]):
            largest = 0.0
            for i in range(first, last):
                largest = max(largest, left[i, p, k])
            of_tiles += largest
        for i in range(from_block, min(from_block + each_block, right.shape[0])):
            of_weights = max(of_weights, right[i, p])
        flags[part, p] = 0
        if of_tiles * of_weights > MOST_SQUARE:
            flags[part, p] = 1
            flags[part, POINTS] = 1


@helper
def _largest_column(squares: Any, first: Any, last: Any, point: Any) -> Any:
    """The largest sum of squares of a column, of those of items ``(I, 36, columns)``."""
    sums, largest = np.zeros(squares.shape[2], squares.dtype), 0.0
    for i in range(first, last):
        row = squares[i, point]
        for k in range(len(sums)):
            sums[k] += row[k]
    for k in range(len(sums)):
        largest = max(largest, sums[k])
    return largest


@job(read(3), read(3), write(2, "int64"), *[INT] * 5)
def judge_channels(
    item: Any,
    left: Any,
    right: Any,
    flags: Any,
    tiles: Any,
    per_left: Any,
    per_right: Any,
    each_tile: Any,
    part: Any,
) -> None:
    """As `judge_tiles`, of squares of channels; an item is a point, a part has tiles."""
    count = min(each_tile, tiles - part * each_tile)
    first, each = part * -(-each_tile // per_left), -(-count // per_left)
    of_left = _largest_column(left, first, first + each, item)
    first, each = part * -(-each_tile // per_right), -(-count // per_right)
    of_right = _largest_column(right, first, first + each, item)
    flags[part, item] = 1 if of_left * of_right > MOST_SQUARE else 0


@helper
def _add_product(
    blas: Any,
    transposed: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    a: Any,
    pitch_a: Any,
    b: Any,
    first_b: Any,
    pitch_b: Any,
    total: Any,
    first: Any,
    pitch: Any,
    half: Any,
    most: Any,
) -> None:
    """Add ``op(a) b`` to the int64 ``total``, with the bits of ``b`` cut in two from bit ``half`` on.

    At most ``most`` terms are a product. ``b`` and ``total`` are arrays, with the index of a first entry.
    """
    upper, part, sums = 2.0**half, np.empty((most, columns), b.dtype), np.empty((rows, columns), b.dtype)
    for start in range(0, depth, most):
        count, source = min(most, depth - start), a + 8 * start * (pitch_a if transposed else 1)
        for of_lower in range(2):
            for k in range(count):
                for j in range(columns):
                    v = b[first_b + (start + k) * pitch_b + j]
                    whole = np.rint(v / upper)
                    part[k, j] = v - whole * upper if of_lower else whole
            at, to = part.ctypes.data, sums.ctypes.data
            gemm(blas, transposed, 0, rows, columns, count, source, pitch_a, at, columns, 0, to, columns, upper)
            shift = 0 if of_lower else half
            for i in range(rows):
                for j in range(columns):
                    total[first + i * pitch + j] += np.int64(sums[i, j]) << shift


@job(read(1), read(1), write(1), read(2, "int64"), *[INT] * 16, uses_blas=True)
def multiply(
    item: Any,
    inputs: Any,
    weights: Any,
    products: Any,
    flags: Any,
    tiles: Any,
    channels: Any,
    features: Any,
    count: Any,
    input_pitch: Any,
    weight_pitch: Any,
    product_pitch: Any,
    cut_tiles: Any,
    cut_columns: Any,
    each_tile: Any,
    each_feature: Any,
    feature_parts: Any,
    half: Any,
    most: Any,
    blas: Any,
    part: Any,
) -> None:
    """Tiles ``(T, C)`` times weights ``(C, count f)`` to products ``(T, count f)``, which are int64 in a flagged part.

    An item is a piece of the products of a point.
    """
    wide = count * min(each_feature, features - part % feature_parts * each_feature)
    size = min(each_tile, tiles - part // feature_parts * each_tile)
    across, down = -(-wide // cut_columns), -(-size // cut_tiles)
    point, t, f = item // (across * down), item // across % down * cut_tiles, item % across * cut_columns
    m, n = min(cut_tiles, size - t), min(cut_columns, wide - f)
    a = inputs.ctypes.data + 8 * (point * input_pitch + t * channels)
    from_weight, first = point * weight_pitch + f, point * product_pitch + t * wide + f
    wholes = products.view(np.int64)
    if flags[part, point]:
        for i in range(m):
            for j in range(n):
                wholes[first + i * wide + j] = 0
        _add_product(blas, 0, m, n, channels, a, channels, weights, from_weight, wide, wholes, first, wide, half, most)
        return
    b, c = weights.ctypes.data + 8 * from_weight, products.ctypes.data + 8 * first
    gemm(blas, 0, 0, m, n, channels, a, channels, b, wide, 0, c, wide, inputs.dtype.type(0))
    if flags[part, POINTS]:
        for i in range(m):
            for j in range(n):
                at = first + i * wide + j
                wholes[at] = np.int64(products[at])


@job(read(1), read(1), write(1, "int64"), read(2, "int64"), *[INT] * 17, uses_blas=True)
def correlate(
    item: Any,
    inputs: Any,
    upstream: Any,
    totals: Any,
    flags: Any,
    tiles: Any,
    channels: Any,
    features: Any,
    count: Any,
    input_pitch: Any,
    upstream_pitch: Any,
    total_pitch: Any,
    cut_channels: Any,
    cut_features: Any,
    each_tile: Any,
    each_feature: Any,
    feature_parts: Any,
    group: Any,
    half: Any,
    most: Any,
    blas: Any,
    part: Any,
) -> None:
    """Tiles ``(T, C)``, transposed, times ``(T, count F)`` to int64 totals ``(C, count f)`` of a group of tiles.

    The first part of a group of ``group`` parts of the tiles is written, all others are added. An item is a piece of
    the totals of a point.
    """
    tile_part, from_feature = part // feature_parts, part % feature_parts * each_feature
    size, some = min(each_tile, tiles - tile_part * each_tile), min(each_feature, features - from_feature)
    across, down = -(-some // cut_features), -(-channels // cut_channels)
    pieces = across * down
    point, k = item // (count * pieces), item // pieces % count
    c, f = item % pieces // across * cut_channels, item % across * cut_features
    m, n, is_first = min(cut_channels, channels - c), min(cut_features, some - f), tile_part % group == 0
    a, wide = inputs.ctypes.data + 8 * (point * input_pitch + c), count * features
    from_upstream = point * upstream_pitch + k * features + from_feature + f
    pitch = count * some
    first = point * total_pitch + c * pitch + k * some + f
    if flags[tile_part, point]:
        if is_first:
            for i in range(m):
                for j in range(n):
                    totals[first + i * pitch + j] = 0
        _add_product(blas, 1, m, n, size, a, channels, upstream, from_upstream, wide, totals, first, pitch, half, most)
        return
    sums = np.empty((m, n), inputs.dtype)
    b = upstream.ctypes.data + 8 * from_upstream
    gemm(blas, 1, 0, m, n, size, a, channels, b, wide, 0, sums.ctypes.data, n, inputs.dtype.type(0))
    for i in range(m):
        row, total = sums[i], totals[first + i * pitch : first + i * pitch + n]
        if is_first:
            for j in range(n):
                total[j] = np.int64(row[j])
        else:
            for j in range(n):
                total[j] += np.int64(row[j])
