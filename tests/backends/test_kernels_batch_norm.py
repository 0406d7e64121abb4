"""Compiled passes of batch norms against float64 and against array functions."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.engines import numba
from xpnn.backends.overrides import Choices, using
from xpnn.testing import assert_match

F = nn.functional
#: (N, C, *S), each of more than a MiB; some with a prime number of cells, or channels that fill no vector.
SHAPES = [(4, 64, 33, 32), (1, 40, 6607), (3, 7, 113, 113), (262147, 1), (5, 3000, 5, 4)]


def channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def problem(shape, rng, dtype="float32"):
    x, dy = (channels_last(rng.standard_normal(shape).astype(dtype)) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))
    return x + np.asarray(3.0, dtype), dy, weight, bias


def by_arrays(function, *arguments):
    with using(Choices(kernels=False)):
        return function(*arguments)


def compute(x, dy, weight, bias):
    return [F.batch_norm(x, weight, bias), *F.batch_norm_backward(dy, x, weight)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_match_float64(compiled_engine, shape, rng):
    given = problem(shape, rng)
    actual = compute(*given)
    assert "kernels" in compiled_engine
    desired = by_arrays(compute, *(np.ascontiguousarray(a, np.float64) for a in given))
    for a, d in zip(actual, desired, strict=True):
        assert_match(a, d, level="reduction", terms=given[0].size // shape[1], dtype="float32")


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_kernels_in_float64_match_array_functions(compiled_engine, shape, rng):
    given = problem(shape, rng, "float64")
    for a, d in zip(compute(*given), by_arrays(compute, *given), strict=True):
        assert_match(a, d, level="reduction", terms=given[0].size // shape[1], dtype="float64")
    assert "kernels" in compiled_engine


def test_kernels_are_as_accurate_as_array_functions(compiled_engine, rng):
    given = problem((8, 64, 32, 31), rng)
    given[0][...] += np.float32(100.0)
    desired = by_arrays(compute, *(np.ascontiguousarray(a, np.float64) for a in given))
    ours, theirs = (
        [np.max(np.abs(a - d)) for a, d in zip(found, desired, strict=True)]
        for found in (compute(*given), by_arrays(compute, *given))
    )
    assert all(mine <= 2 * other for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("constant", [False, True], ids=["own statistics", "given statistics"])
def test_relu_in_the_same_loop_is_relu_after_it(compiled_engine, constant, rng):
    x, dy, weight, bias = problem((3, 7, 13, 17), rng)
    given = (rng.standard_normal(7, np.float32), rng.random(7, np.float32) + 1) if constant else None
    x[2, 3, 4, 5] = np.nan if constant else x[2, 3, 4, 5]
    rows, upstream = (np.moveaxis(a, 1, -1) for a in (x, dy))
    engine = numba.prepare("batch norm", (x.size // 7, 7), "float32")
    y, known = engine.forward(rows, weight, bias, given, 1e-5)
    gated = np.moveaxis(F.relu_backward(dy, np.moveaxis(y, -1, 1)), 1, -1)
    rectified, fused = engine.forward(rows, weight, bias, given, 1e-5, relu=True)
    assert np.array_equal(rectified, F.relu(y), equal_nan=True)
    results = (
        engine.backward(gated, known, weight, constant, True),
        engine.backward(upstream, fused, weight, constant, True),
    )
    for a, d in zip(*results, strict=True):
        assert np.array_equal(a, d, equal_nan=True)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 300, 2, 2), (3, 64, 9, 7)], ids=str)
def test_kept_scales_have_the_bits_of_the_statistics(compiled_engine, shape, affine, rng):
    """In evaluation; where an array is held elsewhere, nothing is kept."""
    layer, relu = nn.BatchNorm2d(shape[1], affine=affine, backend="numpy"), nn.ReLU(backend="numpy").eval()
    x = rng.standard_normal(shape).astype(np.float32)
    x[0, 0, 0, 0] = np.nan
    layer(channels_last(rng.standard_normal(shape).astype(np.float32)) + np.float32(2.0))
    layer.eval()
    held = layer.buffers["running_var"]
    desired = [layer(x), layer.forward_and_relu(x, relu)]
    assert not layer._kept._values
    del held
    found = [layer(x), layer.forward_and_relu(x, relu), layer(x)]
    assert layer._kept._values
    for a, d in zip(found, [*desired, desired[0]], strict=True):
        assert a.tobytes() == d.tobytes() and a.strides == d.strides


def test_kept_scales_are_those_of_the_present_statistics_and_eps(compiled_engine, rng):
    layer, x = nn.BatchNorm2d(5, backend="numpy").eval(), rng.standard_normal((2, 5, 3, 4)).astype(np.float32)

    def set_mean():
        layer.buffers["running_mean"] = np.full(5, 2.0, np.float32)

    def set_weight():
        layer.parameters["weight"].value = np.full(5, 3.0, np.float32)

    outputs = [layer(x).tobytes()]
    for change in (set_mean, lambda: setattr(layer, "eps", 0.5), set_weight):
        change()
        y = layer(x)
        held = [layer.buffers["running_var"]]
        assert held and y.tobytes() == layer(x).tobytes() not in outputs
        del held
        outputs.append(layer(x).tobytes())


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_match_array_functions(compiled_engine, momentum, rng):
    def train():
        layer = nn.BatchNorm2d(5, momentum=momentum, backend="numpy")
        for seed in range(3):
            layer(np.random.default_rng(seed).standard_normal((4, 5, 6, 7), np.float32))
        return [np.array(layer.buffers[name]) for name in ("running_mean", "running_var", "num_batches_tracked")]

    (*found, batches), (*expected, counted) = train(), by_arrays(train)
    for a, d in zip(found, expected, strict=True):
        assert_match(a, d, level="reduction", terms=200, dtype="float32")
    assert batches == counted == 3 and batches.dtype == counted.dtype and batches.shape == ()
    assert "kernels" in compiled_engine


@pytest.mark.parametrize("name", ["weight", "bias", "both"])
def test_weight_and_bias_may_be_missing(compiled_engine, name, rng):
    x, dy, weight, bias = problem((3, 7, 5, 4), rng)
    weight, bias = (None if name in ("weight", "both") else weight), (None if name in ("bias", "both") else bias)
    for a, d in zip(compute(x, dy, weight, bias), by_arrays(compute, x, dy, weight, bias), strict=True):
        assert_match(a, d, level="reduction", terms=60, dtype="float32")


def test_a_variance_beyond_the_range_makes_the_channel_nan(compiled_engine, rng):
    x, *_ = problem((3, 7, 5, 4), rng)
    x[0, 2, 0, 0] = 1e21
    with np.errstate(over="ignore"):
        y = F.batch_norm(x)
    assert np.array_equal(np.isnan(y).all((0, 2, 3)), np.arange(7) == 2) and np.isnan(y).any((0, 2, 3)).sum() == 1


def test_equal_values_become_zero(compiled_engine):
    x = channels_last(np.full((4, 64, 32, 33), 1000.1, np.float32))
    assert not np.any(F.batch_norm(x))
    assert compiled_engine


@pytest.mark.parametrize("groups", [None, 4])
def test_a_mean_far_larger_than_the_deviation_costs_no_accuracy(compiled_engine, groups, rng):
    # The mean rounded to float32 is wrong by some hundredths of the deviation.
    x, dy, weight, bias = problem((4, 16, 17, 13), rng)
    given = (np.float32(1000.1) + np.float32(1e-3) * x, dy + 5 * x, weight, bias)

    def run(*arrays):
        return compute(*arrays) if groups is None else grouped(*arrays, groups)

    desired = by_arrays(run, *(np.ascontiguousarray(a, np.float64) for a in given))
    for a, d in zip(run(*given), desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-4, atol=1e-4 * np.max(np.abs(d)))


def test_bits_do_not_depend_on_threads(compiled_engine, rng, monkeypatch):
    given, found = problem((4, 64, 40, 37), rng), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in compute(*given)])
    assert compiled_engine and found[0] == found[1] == found[2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_channel(compiled_engine, value, rng):
    x, dy, weight, bias = problem((2, 64, 64, 33), rng)
    x[1, 5, 3, 2], dy[0, 9, 1, 1] = value, value
    with np.errstate(invalid="ignore"):
        with_kernels = compute(x, dy, weight, bias)
        without = by_arrays(compute, x, dy, weight, bias)
    for a, d in zip(with_kernels, without, strict=True):
        assert np.array_equal(np.isfinite(a), np.isfinite(d))
    assert compiled_engine


def test_upstream_may_be_one_value_spread_out_and_read_only(compiled_engine, rng):
    x, _, weight, _ = problem((2, 64, 64, 33), rng)
    dy = np.broadcast_to(np.float32(0.5), x.shape)
    spread = F.batch_norm_backward(dy, x, weight)
    for a, d in zip(spread, F.batch_norm_backward(channels_last(dy), x, weight), strict=True):
        assert np.array_equal(a, d)
    assert compiled_engine


GROUPS = {
    "groups": ((3, 12, 9, 8), 4),
    "one group": ((2, 70, 5, 4), 1),
    "as many as channels": ((4, 7, 13), 7),
    "many cells": ((2, 64, 40, 41), 8),
    "no spatial axes": ((5, 12), 3),
    "more channels than an item combines": ((2, 300, 6, 5), 300),
}


def grouped(x, dy, weight, bias, groups):
    y = F.group_norm(x, groups, weight, bias)
    return [y, *F.group_norm_backward(dy, x, groups, weight)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", GROUPS.values(), ids=GROUPS)
def test_group_norm_matches_array_functions(compiled_engine, case, dtype, rng):
    shape, groups = case
    given = problem(shape, rng, dtype)
    terms = given[0].size // groups
    for a, d in zip(grouped(*given, groups), by_arrays(grouped, *given, groups), strict=True):
        assert_match(a, d, level="normalisation", part="input", terms=terms, dtype=dtype)
    assert "kernels" in compiled_engine


def test_group_norm_matches_float64(compiled_engine, rng):
    x, dy, weight, bias = problem((3, 24, 33, 31), rng)
    weight[3] = 0.0
    given = (x + np.float32(50.0), dy, weight, bias)
    desired = by_arrays(grouped, *(np.ascontiguousarray(a, np.float64) for a in given), 6)
    for a, d in zip(grouped(*given, 6), desired, strict=True):
        assert_match(a, d, level="normalisation", part="input", terms=4000, dtype="float32")


def test_instance_norm_and_its_running_statistics(compiled_engine, rng):
    x, dy, *_ = problem((3, 5, 9, 8), rng)

    def train():
        layer = nn.InstanceNorm2d(5, affine=True, track_running_stats=True, backend="numpy")
        y, dx = layer(x), layer.backward(dy)
        grads = [np.array(parameter.grad) for parameter in layer.parameters.values()]
        running = [np.array(layer.buffers[name]) for name in ("running_mean", "running_var")]
        return [y, dx, *grads, *running, layer.eval()(x)]

    for a, d in zip(train(), by_arrays(train), strict=True):
        assert_match(a, d, level="normalisation", part="input", terms=300, dtype="float32")
    assert "kernels" in compiled_engine


def test_the_gradient_of_a_group_of_one_value_is_zero(compiled_engine, rng):
    x, dy, weight, _ = problem((5, 12), rng)
    assert not np.any(F.group_norm_backward(dy, x, 12, weight)[0])


def test_nan_stays_in_its_group(compiled_engine, rng):
    x, *_ = problem((2, 8, 6, 5), rng)
    x[1, 3, 2, 2] = np.nan
    isnan = np.isnan(F.group_norm(x, 4))
    assert isnan[1, 2:4].all() and isnan.sum() == isnan[1, 2:4].size


def test_bits_of_group_norm_do_not_depend_on_threads(compiled_engine, rng, monkeypatch):
    given, found = problem((4, 64, 40, 37), rng), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in grouped(*given, 8)])
    assert found[0] == found[1] == found[2]
