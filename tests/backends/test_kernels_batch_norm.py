"""Compiled passes of batch norms against float64 and against array functions."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

F = nn.functional
KERNELS = ("column_moments", "normalise", "column_sums", "normalise_backward")
#: (N, C, *S), each of more than a MiB; some with a prime number of cells, or channels that fill no vector.
SHAPES = [(4, 64, 33, 32), (1, 40, 6607), (3, 7, 113, 113), (262147, 1), (5, 3000, 5, 4)]


@pytest.fixture
def called(monkeypatch, compiled_kernels):
    """The names of the kernels that were called."""
    found, names = compiled_kernels, set()
    for name in KERNELS:
        kernel = getattr(found, name)

        def noted(*arguments, name=name, kernel=kernel):
            names.add(name)
            kernel(*arguments)

        monkeypatch.setattr(found, name, noted)
    return names


def channels_last(a):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def problem(shape, rng):
    x, dy = (channels_last(rng.standard_normal(shape, np.float32)) for _ in range(2))
    weight, bias = (rng.standard_normal(shape[1], np.float32) for _ in range(2))
    return x + np.float32(3.0), dy, weight, bias


def compute(x, dy, weight, bias):
    return [F.batch_norm(x, weight, bias), *F.batch_norm_backward(dy, x, weight)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_match_float64(called, shape, rng):
    given = problem(shape, rng)
    actual = compute(*given)
    assert called == set(KERNELS)
    desired = compute(*(np.ascontiguousarray(a, np.float64) for a in given))
    for a, d in zip(actual, desired, strict=True):
        assert_match(a, d, level="reduction", terms=given[0].size // shape[1], dtype="float32")


def test_kernels_are_as_accurate_as_array_functions(called, rng, monkeypatch):
    given = problem((8, 64, 32, 31), rng)
    given[0][...] += np.float32(100.0)
    desired = compute(*(np.ascontiguousarray(a, np.float64) for a in given))
    errors = []
    for switch in ("1", "0"):
        monkeypatch.setenv("XPNN_NUMBA", switch)
        errors.append([np.max(np.abs(a - d)) for a, d in zip(compute(*given), desired, strict=True)])
    assert all(ours <= 2 * theirs for ours, theirs in zip(*errors, strict=True))


def test_equal_values_become_zero(called):
    x = channels_last(np.full((4, 64, 32, 33), 1000.1, np.float32))
    assert not np.any(F.batch_norm(x))
    assert called


def test_bits_do_not_depend_on_threads(called, rng, monkeypatch):
    given, found = problem((4, 64, 40, 37), rng), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in compute(*given)])
    assert called and found[0] == found[1] == found[2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_channel(called, value, rng, monkeypatch):
    x, dy, weight, bias = problem((2, 64, 64, 33), rng)
    x[1, 5, 3, 2], dy[0, 9, 1, 1] = value, value
    with np.errstate(invalid="ignore"):
        with_kernels = compute(x, dy, weight, bias)
        monkeypatch.setenv("XPNN_NUMBA", "0")
        without = compute(x, dy, weight, bias)
    for a, d in zip(with_kernels, without, strict=True):
        assert np.array_equal(np.isfinite(a), np.isfinite(d))
    assert called


def test_upstream_may_be_one_value_spread_out_and_read_only(called, rng):
    x, _, weight, _ = problem((2, 64, 64, 33), rng)
    dy = np.broadcast_to(np.float32(0.5), x.shape)
    spread = F.batch_norm_backward(dy, x, weight)
    for a, d in zip(spread, F.batch_norm_backward(channels_last(dy), x, weight), strict=True):
        assert np.array_equal(a, d)
    assert called
