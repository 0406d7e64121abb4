"""Compiled pooling against array functions, in values, winners and gradients."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.engines import numba
from xpnn.backends.overrides import Choices, using
from xpnn.testing import assert_match

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
from xpnn.backends.engines.numba import halving_pool, pool_tables, pools

F = nn.functional
#: shape, and arguments of `max_pool`
CASES = {
    "2x2": ((3, 16, 8, 6), {"kernel_size": 2}),
    "2x2, cells left over": ((3, 5, 9, 7), {"kernel_size": 2}),
    "overlapping and padded": ((2, 19, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "every cell": ((2, 8, 7, 7), {"kernel_size": 7, "stride": 1, "padding": 3}),
    "gaps between windows": ((2, 17, 11, 12), {"kernel_size": (2, 3), "stride": (3, 5)}),
    "uneven padding": ((2, 3, 8, 7), {"kernel_size": (3, 5), "stride": (1, 2), "padding": ((0, 1), (2, 0))}),
    "dilated": ((2, 4, 12, 11), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": (3, 2)}),
    "ceil mode": ((2, 6, 8, 11), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "one channel": ((4, 1, 9, 10), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "one axis": ((3, 10, 21), {"kernel_size": 4, "stride": 3, "padding": 2}),
    "an empty batch": ((0, 3, 6, 6), {"kernel_size": 2}),
    "three axes": ((2, 5, 6, 5, 4), {"kernel_size": (2, 3, 2), "stride": (2, 1, 2), "padding": (0, 1, 1)}),
    "more than 127 cells": ((2, 9, 24, 25), {"kernel_size": 12, "stride": 4}),
    "one window of 2x2": ((2, 40, 3, 3), {"kernel_size": 2}),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def compute(x, options, seed=1):
    y, indices = F.max_pool(x, **options, return_indices=True)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(x.dtype)
    return y, indices, F.max_pool_backward(dy, x, **options)


def by_arrays(function, *arguments):
    with using(Choices(kernels=False)):
        return function(*arguments)


def compare(x, options):
    y, indices, dx = compute(x, options)
    expected, places, gradient = by_arrays(compute, x, options)
    assert np.array_equal(y, expected, equal_nan=True) and np.array_equal(indices, places)
    assert_match(dx, gradient, level="reduction", terms=64, dtype=x.dtype.name)


@every_dtype
@every_case
def test_kernels_match_array_functions(compiled_engine, case, dtype, rng):
    shape, options = case
    compare(rng.standard_normal(shape).astype(dtype), options)
    assert "kernels" in compiled_engine


@every_case
def test_first_of_equal_cells_and_of_nans_wins(compiled_engine, case, rng):
    shape, options = case
    x = rng.integers(0, 3, shape).astype(np.float32)
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.1] = np.inf
    compare(x, options)


@every_case
def test_padding_is_never_the_maximum(compiled_engine, case):
    shape, options = case
    compare(np.full(shape, -np.inf, np.float32), options)


@every_case
def test_small_items_compute_the_same(compiled_engine, case, rng, monkeypatch):
    shape, options = case
    x = rng.standard_normal(shape).astype(np.float32)
    expected = compute(x, options)
    # Other pools than those that are prepared already.
    numba._prepared.cache_clear()
    monkeypatch.setattr(pools, "ITEM_ENTRIES", 200)
    monkeypatch.setattr(halving_pool, "ITEM_ENTRIES", 200)
    try:
        found = compute(x, options)
    finally:
        numba._prepared.cache_clear()
    for a, d in zip(found, expected, strict=True):
        assert np.array_equal(a, d)


@pytest.mark.parametrize("order", ["channels last", "transposed", "gaps"])
def test_arrays_in_any_order_and_read_only(compiled_engine, order, rng):
    shape, options = CASES["overlapping and padded"]
    x = rng.standard_normal(shape, np.float32)
    if order == "channels last":
        other = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif order == "transposed":
        other = np.ascontiguousarray(x.T).T
    else:
        other = np.repeat(x, 2, axis=3)[..., ::2]
    other.flags.writeable = False
    for a, d in zip(compute(other, options), compute(x, options), strict=True):
        assert np.array_equal(a, d)
    assert compiled_engine


def test_nan_and_infinity_upstream_reach_only_the_maxima(compiled_engine, rng):
    x = rng.standard_normal((2, 16, 8, 8), np.float32)
    dy = np.ones((2, 16, 4, 4), np.float32)
    dy[0, 3, 1, 1], dy[1, 7, 2, 0] = np.nan, -np.inf
    dx = F.max_pool_backward(dy, x, 2)
    assert compiled_engine and np.sum(np.isnan(dx[0, 3, 2:4, 2:4])) == np.sum(np.isneginf(dx[1, 7, 4:6, 0:2])) == 1
    assert np.sum(~np.isfinite(dx)) == 2


def test_bits_do_not_depend_on_threads(compiled_engine, rng, monkeypatch):
    x, options, found = rng.standard_normal((7, 32, 40, 41), np.float32), {"kernel_size": 3, "stride": 1}, []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in compute(x, options)])
    assert compiled_engine and found[0] == found[1] == found[2]


def test_exact_numerics_have_kernels_of_their_own(compiled_engine, rng):
    x, xp = rng.standard_normal((2, 3, 6, 6), np.float32), nn.get_backend("numpy", numerics="exact").xp
    found = F.max_pool(x, 2, xp=xp)
    with using(Choices(kernels=False)):
        assert found.tobytes() == F.max_pool(x, 2, xp=xp).tobytes()


AVERAGES = {
    name: (shape, {k: v for k, v in options.items() if k != "dilation"}) for name, (shape, options) in CASES.items()
}
AVERAGES |= {
    "cells inside alone": ((2, 17, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    "ceil mode, padded": ((2, 17, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "a divisor": ((2, 17, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5}),
}


def averages(x, options, seed=1):
    y = F.avg_pool(x, **options)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(x.dtype)
    return y, F.avg_pool_backward(dy, x.shape, **options)


@every_dtype
@pytest.mark.parametrize("case", AVERAGES.values(), ids=AVERAGES)
def test_averages_match_array_functions(compiled_engine, case, dtype, rng):
    shape, options = case
    x = rng.standard_normal(shape).astype(dtype)
    for a, d in zip(averages(x, options), by_arrays(averages, x, options), strict=True):
        assert_match(a, d, level="reduction", terms=64, dtype=dtype)
    assert "kernels" in compiled_engine


def test_averages_match_float64(compiled_engine, rng):
    shape, options = AVERAGES["cells inside alone"]
    x = rng.standard_normal(shape, np.float32)
    for a, d in zip(averages(x, options), averages(x.astype(np.float64), options), strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-6)
    assert compiled_engine


def test_averages_have_the_same_bits_for_any_threads(compiled_engine, rng, monkeypatch):
    x, found = rng.standard_normal((7, 32, 40, 41), np.float32), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in averages(x, {"kernel_size": 3, "stride": 2, "padding": 1})])
    assert compiled_engine and found[0] == found[1] == found[2]


#: shape and size of the output
BINS = {
    "one": ((3, 7, 5, 6), 1),
    "dividing": ((2, 33, 6, 8), (3, 2)),
    "overlapping": ((2, 5, 7, 10), (3, 4)),
    "more than cells": ((2, 4, 3, 5), (5, 7)),
    "one axis": ((2, 6, 11), 4),
    "three axes": ((2, 3, 4, 5, 6), (2, 5, 4)),
    "many channels and cells": ((2, 70, 20, 20), 2),
    "an empty batch": ((0, 4, 6, 6), 2),
}


def bins(x, size):
    y, indices = F.adaptive_max_pool(x, size, return_indices=True)
    mean = F.adaptive_avg_pool(x, size)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    dx = F.adaptive_max_pool_backward(dy, indices, x.shape, size)
    return y, indices, mean, dx, F.adaptive_avg_pool_backward(dy, x.shape, size)


@every_dtype
@pytest.mark.parametrize("case", BINS.values(), ids=BINS)
def test_adaptive_pools_match_array_functions(compiled_engine, case, dtype, rng):
    shape, size = case
    x = rng.standard_normal(shape).astype(dtype)
    y, indices, *sums = bins(x, size)
    expected, places, *others = by_arrays(bins, x, size)
    assert np.array_equal(y, expected) and np.array_equal(indices, places) and indices.dtype == np.int64
    for a, d in zip(sums, others, strict=True):
        assert_match(a, d, level="reduction", terms=400, dtype=dtype)
    assert "kernels" in compiled_engine


def test_adaptive_maximum_is_the_first_and_nan_where_there_is_one(compiled_engine, rng):
    x = rng.integers(0, 3, (2, 9, 7, 6)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    for a, d in zip(bins(x, 3)[:2], by_arrays(bins, x, 3)[:2], strict=True):
        assert np.array_equal(a, d, equal_nan=True)


def test_a_table_of_too_many_bins_is_left_to_array_functions(compiled_engine):
    assert pool_tables.bins_of_cells((1500, 1500), (700, 700), 64) is None
    F.adaptive_avg_pool(np.ones((1, 1, 1500, 1500), np.float32), 700)
    # Each of 61 windows along an axis reads another part of its kernel.
    F.avg_pool(np.ones((1, 2, 60, 60), np.float32), 60, stride=1, padding=30)
    F.max_pool(np.ones((1, 2, 60, 60), np.float32), 60, stride=1, padding=30)
    assert not compiled_engine
