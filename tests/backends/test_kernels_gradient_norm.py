"""Compiled clipping by norm, beside float64 and array functions."""

import importlib

import numpy as np
import pytest

import xpnn as nn

SHAPES = [(3,), (70_000,), (0,), (), (5, 4), (40_000,), (2, 33_003)]


@pytest.fixture
def calls(compiled_kernels, monkeypatch):
    """The number of gradients in each call."""
    module = importlib.import_module("xpnn.backends.engines.numba.gradient_norm")
    counts, usual = [], module.GradientNorm.__call__
    monkeypatch.setattr(
        module.GradientNorm,
        "__call__",
        lambda self, found, limit: counts.append(len(found)) or usual(self, found, limit),
    )
    return counts


def clipped(gradients, limit, norm_type=2.0):
    parameters = [nn.Parameter(np.zeros_like(g), g) for g in gradients]
    norm = nn.clip_grad_norm(parameters, limit, norm_type)
    return norm, [parameter.grad for parameter in parameters]


def draw(rng, size=1.0):
    return [size * np.asarray(rng.standard_normal(shape, np.float32)) for shape in SHAPES]


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
@pytest.mark.parametrize("limit", [0.0, 3.0, 1e30])
def test_it_matches_float64_and_writes_to_new_arrays(calls, size, limit, rng):
    gradients = [g.astype(np.float32) for g in draw(rng, size)]
    before = [g.copy() for g in gradients]
    norm, found = clipped(gradients, limit)
    desired = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients))
    assert calls == [len(SHAPES)] and norm.shape == () and norm.dtype == np.float32
    np.testing.assert_allclose(norm, desired, rtol=1e-6)
    for gradient, copy, scaled in zip(gradients, before, found, strict=True):
        assert np.array_equal(gradient, copy) and scaled is not gradient
        np.testing.assert_allclose(scaled, copy * min(1.0, limit / (desired + 1e-6)), rtol=1e-6)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_those_of_array_functions(calls, number, rng, monkeypatch):
    gradients = draw(rng)
    gradients[1][5] = number
    with np.errstate(all="ignore"):
        ours, mine = clipped(gradients, 1.0)
        monkeypatch.setenv("XPNN_NUMBA", "0")
        theirs, others = clipped(gradients, 1.0)
    assert len(calls) == 1 and np.array_equal(ours, theirs, equal_nan=True)
    for a, b in zip(mine, others, strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def test_gradients_keep_their_memory_layout(calls, rng):
    x = np.asfortranarray(rng.standard_normal((40, 50)).astype(np.float32))
    y = rng.standard_normal((3, 4, 5, 6)).astype(np.float32).transpose(0, 3, 1, 2)
    _, found = clipped([x, y], 1.0)
    assert calls == [2] and [g.strides for g in found] == [x.strides, y.strides]
    factor = 1.0 / np.sqrt((x.astype(np.float64) ** 2).sum() + (y.astype(np.float64) ** 2).sum())
    np.testing.assert_allclose(found[1], y * factor, rtol=1e-5)


def test_gaps_float64_and_other_norms_are_left_to_array_functions(calls, rng):
    x = rng.standard_normal((40, 50)).astype(np.float32)
    clipped([x[:, ::2]], 1.0), clipped([x.astype(np.float64)], 1.0), clipped([x], 1.0, 1.0)
    assert not calls


def test_bits_do_not_depend_on_threads(calls, rng, monkeypatch):
    gradients, found = draw(rng), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        norm, scaled = clipped(gradients, 1.0)
        found.append([a.tobytes() for a in (norm, *scaled)])
    assert calls and found[0] == found[1] == found[2]
