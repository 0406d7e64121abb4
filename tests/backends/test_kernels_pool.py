"""Compiled pooling against array functions, in values, winners and gradients."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.pool import window_sums
from xpnn.testing import assert_match

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
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def called(monkeypatch, compiled_kernels):
    """Kernels for pools of any size; the names of those that were called."""
    found, names = compiled_kernels, set()
    monkeypatch.setattr(window_sums, "MIN_CELLS", 0)
    monkeypatch.setattr(window_sums, "MIN_CHANNELS", 0)
    for name in ("max_cells", "scatter_maxima", "means", "spread_means"):
        kernel = getattr(found, name)

        def noted(*arguments, name=name, kernel=kernel):
            names.add(name)
            kernel(*arguments)

        monkeypatch.setattr(found, name, noted)
    return names


def compute(x, options, seed=1):
    y, indices = F.max_pool(x, **options, return_indices=True)
    dy = np.random.default_rng(seed).standard_normal(y.shape, np.float32)
    return y, indices, F.max_pool_backward(dy, x, **options)


def compare(x, options, monkeypatch):
    y, indices, dx = compute(x, options)
    monkeypatch.setenv("XPNN_NUMBA", "0")
    expected, places, gradient = compute(x, options)
    assert np.array_equal(y, expected, equal_nan=True) and np.array_equal(indices, places)
    assert_match(dx, gradient, level="reduction", terms=64, dtype="float32")


@every_case
def test_kernels_match_array_functions(called, case, rng, monkeypatch):
    shape, options = case
    compare(rng.standard_normal(shape, np.float32), options, monkeypatch)
    assert called == {"max_cells", "scatter_maxima"} or not shape[0]


@every_case
def test_first_of_equal_cells_and_of_nans_wins(called, case, rng, monkeypatch):
    shape, options = case
    x = rng.integers(0, 3, shape).astype(np.float32)
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.1] = np.inf
    compare(x, options, monkeypatch)


@every_case
def test_padding_is_never_the_maximum(called, case, monkeypatch):
    shape, options = case
    compare(np.full(shape, -np.inf, np.float32), options, monkeypatch)


@pytest.mark.parametrize("order", ["channels last", "transposed", "gaps"])
def test_arrays_in_any_order_and_read_only(called, order, rng):
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
    assert called


def test_nan_and_infinity_upstream_reach_only_the_maxima(called, rng):
    x = rng.standard_normal((2, 16, 8, 8), np.float32)
    dy = np.ones((2, 16, 4, 4), np.float32)
    dy[0, 3, 1, 1], dy[1, 7, 2, 0] = np.nan, -np.inf
    dx = F.max_pool_backward(dy, x, 2)
    assert called and np.sum(np.isnan(dx[0, 3, 2:4, 2:4])) == np.sum(np.isneginf(dx[1, 7, 4:6, 0:2])) == 1
    assert np.sum(~np.isfinite(dx)) == 2


def test_bits_do_not_depend_on_threads(called, rng, monkeypatch):
    x, options, found = rng.standard_normal((7, 32, 40, 41), np.float32), {"kernel_size": 3, "stride": 1}, []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in compute(x, options)])
    assert called and found[0] == found[1] == found[2]


def test_float64_exact_numerics_and_three_axes_do_without_kernels(called, rng):
    F.max_pool(rng.standard_normal((2, 3, 6, 6)), 2)
    F.max_pool(rng.standard_normal((2, 3, 4, 4, 4), np.float32), 2)
    F.max_pool(rng.standard_normal((2, 3, 24, 24), np.float32), 12)
    F.max_pool(rng.standard_normal((2, 3, 6, 6), np.float32), 2, xp=nn.get_backend("numpy", numerics="exact").xp)
    assert not called


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
    dy = np.random.default_rng(seed).standard_normal(y.shape, np.float32)
    return y, F.avg_pool_backward(dy, x.shape, **options)


@pytest.mark.parametrize("case", AVERAGES.values(), ids=AVERAGES)
def test_averages_match_array_functions(called, case, rng, monkeypatch):
    shape, options = case
    x = rng.standard_normal(shape, np.float32)
    found = averages(x, options)
    assert called == {"means", "spread_means"} or not shape[0]
    monkeypatch.setenv("XPNN_NUMBA", "0")
    for a, d in zip(found, averages(x, options), strict=True):
        assert_match(a, d, level="reduction", terms=64, dtype="float32")


def test_averages_match_float64(called, rng):
    shape, options = AVERAGES["cells inside alone"]
    x = rng.standard_normal(shape, np.float32)
    for a, d in zip(averages(x, options), averages(x.astype(np.float64), options), strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-6)
    assert called


def test_averages_have_the_same_bits_for_any_threads(called, rng, monkeypatch):
    x, found = rng.standard_normal((7, 32, 40, 41), np.float32), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in averages(x, {"kernel_size": 3, "stride": 2, "padding": 1})])
    assert called and found[0] == found[1] == found[2]
