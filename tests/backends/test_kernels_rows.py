"""Compiled layer norm and softmax against array functions and float64."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.overrides import Choices, using
from xpnn.testing import assert_match

F = nn.functional
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def by_arrays(function, *arguments):
    with using(Choices(kernels=False)):
        return function(*arguments)


def matches(found, expected, level, terms, dtype):
    for a, d in zip(found, expected, strict=True):
        assert_match(a, d, level=level, part="input", terms=terms, dtype=dtype)


#: shape, and the axes that are normalised
NORMS = {
    "64 x 768": ((64, 768), 1),
    "less than a vector": ((9, 5), 1),
    "one entry": ((4, 1), 1),
    "some vectors and some": ((3, 7, 37), 1),
    "two axes": ((5, 4, 6, 7), 2),
    "all axes": ((2, 3, 4), 3),
    "many rows": ((3000, 33), 1),
    "an empty batch": ((0, 8), 1),
}


def problem(case, rng, dtype="float32"):
    shape, axes = case
    x, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[-axes:]).astype(dtype) for _ in range(2))
    return x, dy, weight, bias


def norm(x, dy, weight, bias):
    shape = x.shape[-1:] if weight is None else weight.shape
    return [F.layer_norm(x, shape, weight, bias), *F.layer_norm_backward(dy, x, shape, weight)]


@every_dtype
@pytest.mark.parametrize("case", NORMS.values(), ids=NORMS)
def test_layer_norm_matches_array_functions(compiled_engine, case, dtype, rng):
    given = problem(case, rng, dtype)
    matches(norm(*given), by_arrays(norm, *given), "normalisation", given[0].size, dtype)
    assert "kernels" in compiled_engine or not given[0].size or given[0].shape[-1] == 1


def test_layer_norm_matches_float64_for_a_large_mean(compiled_engine, rng):
    x, dy, weight, bias = problem(NORMS["64 x 768"], rng)
    given = (x + np.float32(100.0), dy, weight, bias)
    desired = by_arrays(norm, *(a.astype(np.float64) for a in given))
    matches(norm(*given), desired, "normalisation", 768, "float32")


def test_layer_norm_of_equal_values_is_the_bias(compiled_engine, rng):
    x = np.broadcast_to(rng.uniform(900, 1100, (200, 1)).astype(np.float32), (200, 777))
    assert np.max(np.abs(F.layer_norm(x, 777))) < 1e-6


def test_a_mean_far_larger_than_the_deviation_costs_no_accuracy(compiled_engine, rng):
    x, dy, weight, bias = problem(NORMS["64 x 768"], rng)
    given = (np.float32(1000.1) + np.float32(1e-3) * x, dy + 5 * x, weight, bias)
    desired = by_arrays(norm, *(a.astype(np.float64) for a in given))
    for a, d in zip(norm(*given), desired, strict=True):
        np.testing.assert_allclose(a, d, rtol=1e-4, atol=1e-4 * np.max(np.abs(d)))


def test_layer_norm_without_weight_and_bias_of_a_permuted_input(compiled_engine, rng):
    x, dy = (rng.standard_normal((37, 4, 6)).astype(np.float32).transpose(1, 2, 0) for _ in range(2))
    matches(norm(x, dy, None, None), by_arrays(norm, x, dy, None, None), "normalisation", 37, "float32")


def test_nan_and_overflow_stay_in_their_row(compiled_engine, rng):
    x, dy, *_ = problem(NORMS["64 x 768"], rng)
    x[3, 5], x[7, 9] = np.nan, 1e30
    y = F.layer_norm(x, 768)
    dx = F.layer_norm_backward(dy, x, 768)[0]
    for a in (y, dx):
        assert np.array_equal(np.isnan(a).all(axis=1), np.isnan(a).any(axis=1))
        assert set(np.flatnonzero(np.isnan(a).any(axis=1))) == {3, 7}


def test_layer_of_two_axes_trains_as_by_array_functions(compiled_engine, rng):
    x, dy = (rng.standard_normal((5, 4, 6)).astype(np.float32) for _ in range(2))

    def train():
        layer = nn.LayerNorm((4, 6), backend="numpy")
        y, dx = layer(x), layer.backward(dy)
        assert layer.backward(dy, input_grad=False) is None
        return [y, dx, *(parameter.grad for parameter in layer.parameters.values())]

    found, expected = train(), by_arrays(train)
    assert [a.shape for a in found] == [a.shape for a in expected]
    matches(found, expected, "normalisation", 24, "float32")


def softmaxes(x, dy):
    y, logarithm = F.softmax(x), F.log_softmax(x)
    return [y, logarithm, F.softmax_backward(dy, y), F.log_softmax_backward(dy, logarithm)]


@every_dtype
@pytest.mark.parametrize("shape", [(64, 10), (7, 16), (5, 1), (3, 1000), (2, 3, 37), (0, 4)], ids=str)
def test_softmax_matches_array_functions(compiled_engine, shape, dtype, rng):
    x, dy = ((5 * rng.standard_normal(shape)).astype(dtype) for _ in range(2))
    matches(softmaxes(x, dy), by_arrays(softmaxes, x, dy), "softmax", shape[-1], dtype)
    assert "kernels" in compiled_engine


def test_softmax_matches_float64(compiled_engine, rng):
    x, dy = ((5 * rng.standard_normal((9, 333))).astype(np.float32) for _ in range(2))
    desired = by_arrays(softmaxes, x.astype(np.float64), dy.astype(np.float64))
    matches(softmaxes(x, dy), desired, "softmax", 333, "float32")


@pytest.mark.parametrize("count", [3, 16, 21])
def test_softmax_of_infinities_and_nan(compiled_engine, count, rng):
    x = rng.standard_normal((6, count)).astype(np.float32)
    x[0, 1], x[1, [0, 2]], x[2], x[3, 2], x[4, 1], x[4, 0] = np.inf, np.inf, -np.inf, -np.inf, np.nan, np.inf
    for function in (F.softmax, F.log_softmax):
        with np.errstate(all="ignore"):
            found, expected = function(x), by_arrays(function, x)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax_over_channels_that_are_last_in_memory(compiled_engine, name, rng):
    x, dy = (np.moveaxis(rng.standard_normal((2, 5, 6, 21)).astype(np.float32), -1, 1) for _ in range(2))

    def train():
        layer = getattr(nn, name)(1, backend="numpy")
        return layer(x), layer.backward(dy)

    matches(train(), by_arrays(train), "softmax", 21, "float32")
    assert "kernels" in compiled_engine


def test_bits_do_not_depend_on_threads(compiled_engine, rng, monkeypatch):
    given, found = problem(NORMS["many rows"], rng), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in (*norm(*given), *softmaxes(*given[:2]))])
    assert found[0] == found[1] == found[2]
