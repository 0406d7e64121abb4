"""Adaptive and global pools against loops in float64, PyTorch and finite differences."""

import re
from functools import cache
from math import prod

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnn.layers.pool import adaptive_layers as module
from xpnn.layers.pool.adaptive_average import adaptive_avg_pool, adaptive_avg_pool_backward
from xpnn.layers.pool.adaptive_layers import (
    AdaptiveAvgPool,
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
)
from xpnn.layers.pool.adaptive_maximum import adaptive_max_pool, adaptive_max_pool_backward
from xpnn.testing import assert_match, gradcheck

INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64"]
# name -> (shape of the input, output_size, the same written out)
CASES = {
    "even bins": ((2, 3, 8), 4, (4,)),
    "overlapping bins": ((2, 2, 7), 3, (3,)),
    "more bins than cells": ((2, 2, 3), 7, (7,)),
    "as many bins as cells": ((2, 2, 5), 5, (5,)),
    "one cell to many": ((1, 2, 1), 4, (4,)),
    "2d": ((2, 2, 5, 6), (3, 4), (3, 4)),
    "2d, up and down": ((2, 2, 2, 7), (5, 3), (5, 3)),
    "None keeps an axis": ((2, 2, 5, 6), (None, 4), (5, 4)),
    "None keeps the other": ((2, 2, 5, 6), [2, None], (2, 6)),
    "None keeps all": ((1, 2, 3, 4), None, (3, 4)),
    "one number for all": ((1, 2, 5, 4), 3, (3, 3)),
    "3d": ((1, 2, 4, 3, 5), (3, 5, 2), (3, 5, 2)),
    "to one cell": ((2, 3, 4, 5), 1, (1, 1)),
    "empty batch": ((0, 2, 5, 4), 3, (3, 3)),
    "no channels": ((2, 0, 5), 2, (2,)),
}
every_case = pytest.mark.parametrize("name", CASES)
every_kind = pytest.mark.parametrize("kind", ["floats", "ties", "nan"])


@cache
def problem(shape, sizes, kind="floats"):
    """(x, dy); of kind "ties" with few different values, of kind "nan" with NaN too."""
    rng = np.random.default_rng(14)
    x = rng.standard_normal(shape).astype(np.float32).astype(np.float64)
    if kind != "floats":
        x = np.round(x)
    if kind == "nan":
        x[rng.random(shape) < 0.2] = NAN
    return x, rng.standard_normal((*shape[:2], *sizes)).astype(np.float32).astype(np.float64)


def max_both(x, dy, output_size):
    y, indices = adaptive_max_pool(x, output_size, return_indices=True)
    return y, indices, adaptive_max_pool_backward(dy, indices, tuple(x.shape), output_size)


def assert_values(at, actual, numbers):
    assert_match(actual, np.asarray(numbers, np.float32), level="exact", backend=at.backend)


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_adaptive_average_matches_loops(at, name, dtype):
    shape, output_size, sizes = CASES[name]
    x, dy = problem(shape, sizes)
    y, dx = oracles.adaptive_avg_pool(x, dy, sizes)
    form = {"level": "reduction", "terms": prod(shape[2:]) + prod(sizes), "backend": at.backend, "dtype": dtype}
    assert_match(adaptive_avg_pool(at.put(x, dtype), output_size), y, **form)
    assert_match(adaptive_avg_pool_backward(at.put(dy, dtype), shape, output_size), dx, **form)


@every_kind
@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_adaptive_maximum_matches_loops(at, name, dtype, kind):
    shape, output_size, sizes = CASES[name]
    x, dy = problem(shape, sizes, kind)
    y, indices, dx = oracles.adaptive_max_pool(x, dy, sizes)
    actual_y, actual_indices, actual_dx = max_both(at.put(x, dtype), at.put(dy, dtype), output_size)
    assert_match(actual_y, y, level="exact", backend=at.backend, dtype=dtype)
    assert_match(actual_indices, indices, level="exact", backend=at.backend, dtype="int64")
    assert_match(actual_dx, dx, level="reduction", terms=prod(sizes), backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("m", range(1, 10))
@pytest.mark.parametrize("n", range(1, 10))
def test_every_division_of_an_axis_matches_pytorch(torch, n, m):
    f = torch.nn.functional
    x, dy = problem((2, 1, n, 3), (m, 2), "ties")
    tx = torch.tensor(x, requires_grad=True)
    mean, (top, places) = f.adaptive_avg_pool2d(tx, (m, 2)), f.adaptive_max_pool2d(tx, (m, 2), return_indices=True)
    (mean_dx,) = torch.autograd.grad(mean, tx, torch.tensor(dy))
    (top_dx,) = torch.autograd.grad(top, tx, torch.tensor(dy))
    assert_match(adaptive_avg_pool(x, (m, 2)), mean.detach(), level="reduction", terms=2 * n)
    assert_match(adaptive_avg_pool_backward(dy, x.shape, (m, 2)), mean_dx, level="reduction", terms=2 * m)
    y, indices, dx = max_both(x, dy, (m, 2))
    assert_match(y, top.detach(), level="exact")
    assert_match(indices, places, level="exact")
    assert_match(dx, top_dx, level="reduction", terms=2 * m)


@pytest.mark.parametrize("name", [name for name, (shape, *_) in CASES.items() if all(shape)])
def test_any_rank_matches_pytorch(torch, name):
    shape, output_size, sizes = CASES[name]
    f, axes = torch.nn.functional, len(sizes)
    x, _ = problem(shape, sizes, "nan")
    tx = torch.tensor(x)
    assert_match(adaptive_max_pool(x, output_size), getattr(f, f"adaptive_max_pool{axes}d")(tx, sizes), level="exact")
    desired = getattr(f, f"adaptive_avg_pool{axes}d")(tx, sizes)
    assert_match(adaptive_avg_pool(x, output_size), desired, level="reduction", terms=prod(shape[2:]))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    spatial=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3),
    batch=st.integers(0, 2),
    kind=st.sampled_from(["floats", "ties", "nan"]),
)
def test_any_sizes_match_loops(spatial, batch, kind):
    shape, sizes = (batch, 1, *(n for n, _ in spatial)), tuple(m for _, m in spatial)
    terms = prod(shape[2:]) + prod(sizes)
    x, dy = problem(shape, sizes)
    y, dx = oracles.adaptive_avg_pool(x, dy, sizes)
    assert_match(adaptive_avg_pool(x, sizes), y, level="reduction", terms=terms)
    assert_match(adaptive_avg_pool_backward(dy, shape, sizes), dx, level="reduction", terms=terms)
    x, dy = problem(shape, sizes, kind)
    y, indices, dx = oracles.adaptive_max_pool(x, dy, sizes)
    for a, d, level in zip(max_both(x, dy, sizes), (y, indices, dx), ("exact", "exact", "reduction"), strict=True):
        assert_match(a, d, level=level, terms=terms)


def test_bins_worked_by_hand(at):
    x = at.put([[[1.0, 2.0, 4.0, 8.0, 16.0]]])
    # cells 0-1, 1-3, 3-4
    assert_values(at, adaptive_max_pool(x, 3), [[[2, 8, 16]]])
    assert_match(adaptive_avg_pool(x, 3), np.asarray([[[1.5, 14 / 3, 12]]], np.float32), backend=at.backend)
    dx = adaptive_avg_pool_backward(at.put([[[2.0, 6.0, 4.0]]]), (1, 1, 5), 3)
    assert_values(at, dx, [[[1, 3, 2, 4, 2]]])


def test_tie_goes_to_the_first_cell_and_gradients_of_overlapping_bins_add_up(at):
    x, dy = at.put([[[5.0, 7.0, 7.0, 7.0, 1.0]]]), at.put([[[1.0, 2.0, 4.0]]])
    _, indices, dx = max_both(x, dy, 3)
    assert at.get(indices).tolist() == [[[1, 1, 3]]]
    assert_values(at, dx, [[[0, 3, 0, 4, 0]]])


def test_first_nan_of_a_bin_wins(at):
    x, dy = at.put([[[INF, NAN, 3.0, NAN]]]), at.put([[[5.0]]])
    y, indices, dx = max_both(x, dy, 1)
    assert_values(at, y, [[[NAN]]])
    assert at.get(indices).tolist() == [[[1]]]
    assert_values(at, dx, [[[0, 5, 0, 0]]])


def test_minus_infinity_is_a_maximum_like_any_other(at):
    x, dy = at.put([[[-INF, -INF, -INF, 2.0]]]), at.put([[[3.0, 4.0]]])
    y, indices, dx = max_both(x, dy, 2)
    assert_values(at, y, [[[-INF, 2]]])
    assert at.get(indices).tolist() == [[[0, 3]]]
    assert_values(at, dx, [[[3, 0, 0, 4]]])


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_special_upstream_gradient_reaches_the_cells_of_its_bin_only(at, value):
    dy, x = at.put([[[2.0, value, 4.0]]]), at.put([[[1.0, 0.0, 0.0, 1.0, 1.0, 0.0]]])
    assert_values(at, adaptive_avg_pool_backward(dy, (1, 1, 6), 3), [[[1, 1, value, value, 2, 2]]])
    assert_values(at, max_both(x, dy, 3)[2], [[[2, 0, 0, value, 4, 0]]])


@pytest.mark.parametrize("output_size", [2, None, 5])
def test_inputs_may_be_strided_are_not_changed_and_not_returned(at, output_size):
    host = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    wide = at.put(host.copy())
    x, copy = at.xp.permute_dims(wide, (2, 0, 1)), host.transpose(2, 0, 1)
    mean, (top, indices) = adaptive_avg_pool(x, output_size), adaptive_max_pool(x, output_size, return_indices=True)
    assert_match(mean, adaptive_avg_pool(copy.astype(np.float64), output_size), dtype="float32")
    assert_match(top, adaptive_max_pool(copy.copy(), output_size), level="exact")
    dy = at.put(np.ones(mean.shape, np.float32))
    first = adaptive_avg_pool_backward(dy, (2, 3, 5), output_size)
    second = adaptive_max_pool_backward(dy, indices, (2, 3, 5), output_size)
    for array in (mean, top, first, second):
        array[...] = -1.0
    assert_values(at, wide, host)
    assert_values(at, dy, np.ones(dy.shape))


LAYERS = [
    (AdaptiveAvgPool1d(3), (2, 2, 7)),
    (AdaptiveAvgPool2d((3, None)), (1, 2, 5, 4)),
    (AdaptiveAvgPool3d((2, 3, 1)), (1, 2, 3, 2, 3)),
    (AdaptiveAvgPool(2), (1, 2, 5, 3)),
    (AdaptiveMaxPool1d(3), (2, 2, 7)),
    (AdaptiveMaxPool2d((3, None)), (1, 2, 5, 4)),
    (AdaptiveMaxPool3d((2, 3, 1)), (1, 2, 3, 2, 3)),
    (AdaptiveMaxPool((2, 2)), (1, 2, 5, 3)),
    (GlobalAvgPool(), (2, 2, 3, 4)),
    (GlobalMaxPool(), (2, 2, 3, 4)),
]
every_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])


@every_layer
def test_backward_of_the_layer_is_the_derivative_of_its_forward(layer, shape, rng):
    apart = rng.permutation(prod(shape)).reshape(shape) / 8
    gradcheck(layer.to("numpy", "float64"), apart)


@every_layer
def test_repr_is_the_call_that_makes_the_layer(layer, shape):
    made = eval(repr(layer), vars(module))
    assert type(made) is type(layer)
    assert repr(made) == repr(layer)


@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 1, 3), (2, 2, 1, 2)])
def test_global_pools_accept_planes_of_any_rank(at, rng, spatial):
    x = rng.standard_normal((2, 3, *spatial)).astype(np.float32)
    axes, ones = tuple(range(2, x.ndim)), (1,) * len(spatial)
    dy = rng.standard_normal((2, 3, *ones)).astype(np.float32)
    mean, top = GlobalAvgPool(backend=at.backend), GlobalMaxPool(backend=at.backend)
    desired = x.astype(np.float64).mean(axis=axes, keepdims=True)
    form = {"level": "reduction", "terms": prod(spatial), "backend": at.backend, "dtype": "float32"}
    assert_match(mean(at.put(x)), desired, **form)
    assert_match(mean.backward(at.put(dy)), np.broadcast_to(dy.astype(np.float64) / prod(spatial), x.shape), **form)
    assert_match(top(at.put(x)), x.max(axis=axes, keepdims=True), level="exact", backend=at.backend)
    assert_match(top.backward(at.put(dy)), np.where(x == x.max(axis=axes, keepdims=True), dy, 0), **form)


@pytest.mark.parametrize("size", [0, -1, 2.0, "3", True, (2, 2, 2), (2, 0), ("1", 2)], ids=str)
@pytest.mark.parametrize("layer", [AdaptiveAvgPool2d, AdaptiveMaxPool2d])
def test_output_size_out_of_range_is_an_error_at_once(layer, size):
    with pytest.raises(ValueError, match="output_size must be"):
        layer(size)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 8), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("layer", [AdaptiveAvgPool2d, AdaptiveMaxPool2d])
def test_layer_of_another_rank_is_an_error_that_names_it(layer, shape):
    message = f"{layer.__name__}(2): the input must have 4 axes (N, C, *spatial), got shape {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(2)(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "layer", [GlobalAvgPool(), GlobalMaxPool(), AdaptiveAvgPool2d(2), AdaptiveMaxPool2d(2)], ids=repr
)
def test_planes_without_cells_are_an_error(layer):
    with pytest.raises(ValueError, match="cells along every spatial axis"):
        layer(np.zeros((2, 3, 0, 4), np.float32))


@pytest.mark.parametrize("pool", [adaptive_avg_pool, adaptive_max_pool])
def test_integers_are_an_error(pool):
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64"):
        pool(np.ones((1, 1, 4), np.int64), 2)
