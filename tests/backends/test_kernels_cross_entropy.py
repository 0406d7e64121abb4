"""The compiled cross-entropy, beside a float64 reference and the array functions."""

import importlib

import numpy as np
import pytest

from xpnn.functional import cross_entropy, cross_entropy_backward
from xpnn.testing import assert_match

REDUCTIONS = ("mean", "sum", "none")


@pytest.fixture
def called(monkeypatch, compiled_kernels):
    """The names of the methods that were called."""
    module = importlib.import_module("xpnn.backends.engines.numba.cross_entropy")
    names = []
    for name in ("forward", "backward"):
        usual = getattr(module.CrossEntropy, name)

        def noted(self, *arguments, name=name, usual=usual):
            names.append(name)
            return usual(self, *arguments)

        monkeypatch.setattr(module.CrossEntropy, name, noted)
    return names


def reference(logits, target, weight, ignored, reduction, dy):
    """Loss and gradient in float64, by the definition, one target after another."""
    x = np.moveaxis(logits.astype(np.float64), 1, -1)
    w = np.ones(x.shape[-1]) if weight is None else weight.astype(np.float64)
    losses, slopes, weights = np.zeros(target.shape), np.zeros(x.shape), np.zeros(target.shape)
    for at in np.ndindex(target.shape):
        y = int(target[at])
        if y == ignored:
            continue
        p = np.exp(x[at] - x[at].max())
        p /= p.sum()
        losses[at], weights[at] = -w[y] * np.log(p[y]), w[y]
        slopes[at] = w[y] * (p - np.eye(len(p))[y])
    by = weights.sum() if reduction == "mean" else 1.0
    value = losses if reduction == "none" else losses.sum() / by
    upstream = np.asarray(dy, np.float64)
    return value, np.moveaxis(slopes * (upstream[..., np.newaxis] if upstream.ndim else upstream) / by, -1, 1)


def both(x, target, weight=None, ignored=-100, reduction="mean", dy=1.0):
    options = {"weight": weight, "ignore_index": ignored, "reduction": reduction}
    return cross_entropy(x, target, **options), cross_entropy_backward(dy, x, target, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (64, 10), (7, 3, 5), (3, 21, 9, 31), (40, 1003)])
def test_it_matches_the_definition(called, shape, dtype, reduction, rng):
    x = (4.0 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    weight = rng.uniform(0.5, 2.0, shape[1]).astype(dtype)
    dy = rng.standard_normal(target.shape).astype(dtype) if reduction == "none" else 0.75
    ignored = int(target.flat[0]) if target.size > 1 else -100
    value, dx = both(x, target, weight, ignored, reduction, dy)
    desired, slopes = reference(x, target, weight, ignored, reduction, dy)
    assert called == ["forward", "backward"] and value.dtype == dx.dtype == x.dtype
    assert_match(value, desired, level="reduction", terms=max(shape[1], target.size), dtype=dtype)
    assert_match(dx, slopes, level="reduction", terms=shape[1], dtype=dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_infinity_nan_and_wrong_classes_are_those_of_array_functions(called, reduction, rng, monkeypatch):
    x = rng.standard_normal((60, 9)).astype(np.float32)
    for number in (np.inf, -np.inf, np.nan, 0.0, 3e38, -3e38):
        x[rng.random(x.shape) < 0.03] = number
    x[5], x[6] = -np.inf, np.inf
    target = rng.integers(-1, 10, 60)
    rows = [slice(i, i + 1) for i in range(60)] if reduction != "none" else [slice(None)]
    with np.errstate(all="ignore"):
        ours = [both(x[row], target[row], None, 3, reduction, np.float32(1.0) if row.stop else 1.0) for row in rows]
        assert called
        monkeypatch.setenv("XPNN_NUMBA", "0")
        theirs = [both(x[row], target[row], None, 3, reduction, np.float32(1.0) if row.stop else 1.0) for row in rows]
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_targets_may_be_any_integers_and_arrays_have_any_strides(called, dtype, rng, monkeypatch):
    wide = rng.standard_normal((6, 4, 5, 8)).astype(np.float32)
    x, target = wide[:, :, ::2, ::-1], rng.integers(0, 4, (6, 8, 3)).astype(dtype).transpose(0, 2, 1)
    weight = rng.uniform(0.5, 2.0, 8).astype(np.float32)[::2]
    ours = both(x, target, weight)
    assert called == ["forward", "backward"]
    monkeypatch.setenv("XPNN_NUMBA", "0")
    for a, b in zip(ours, both(x, target, weight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_targets_and_none_that_counts(called, reduction):
    x = np.ones((0, 3), np.float32)
    value, dx = both(x, np.zeros(0, np.int64), reduction=reduction)
    assert dx.shape == (0, 3) and (value.shape == (0,) if reduction == "none" else np.isnan(value) or value == 0.0)
    value, dx = both(np.ones((2, 3), np.float32), np.int64([1, 1]), ignored=1, reduction=reduction)
    assert not dx.any() and (np.isnan(value) if reduction == "mean" else not np.any(value))
    assert len(called) == 4


def test_bits_do_not_depend_on_threads(called, rng, monkeypatch):
    x, target = rng.standard_normal((5000, 33)).astype(np.float32), rng.integers(0, 33, 5000)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append([a.tobytes() for a in both(x, target)])
    assert called and found[0] == found[1] == found[2]
