"""Compiled draws and dropout: the bits of array functions."""

import importlib

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import Generator
from xpnn.functional import dropout, dropout_backward

# Empty, 0-d, odd, and more than one item.
SHAPES = [(0,), (), (1,), (7, 3), (2, 0, 4), (64, 130), (99_999,)]
DRAWS = {
    "uniform": lambda g, shape, dtype: g.uniform(shape, dtype=dtype, backend="numpy"),
    "uniform between": lambda g, shape, dtype: g.uniform(shape, -2.0, 3.0, dtype=dtype, backend="numpy"),
    "normal": lambda g, shape, dtype: g.normal(shape, 0.5, 2.0, dtype=dtype, backend="numpy"),
    "at least": lambda g, shape, dtype: g.at_least(shape, 0.3, "numpy"),
}


@pytest.fixture
def called(compiled_kernels, monkeypatch):
    """The names of the methods that drew."""
    module = importlib.import_module("xpnn.backends.engines.numba.random_numbers")
    names = []
    for name in ("uniform", "normal", "at_least"):
        usual = getattr(module.RandomNumbers, name)

        def noted(self, *arguments, name=name, usual=usual):
            names.append(name)
            return usual(self, *arguments)

        monkeypatch.setattr(module.RandomNumbers, name, noted)
    return names


def without(monkeypatch):
    monkeypatch.setenv("XPNN_NUMBA", "0")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_have_the_bits_of_array_functions(called, draw, dtype, monkeypatch):
    def drawn():
        generator = Generator(7).fold_in("numbers")
        # The counter passes 32 bits in the third draw.
        generator.position = 2**32 - 3
        return [(DRAWS[draw](generator, shape, dtype), generator.position) for shape in SHAPES]

    ours = drawn()
    assert len(called) == len(SHAPES)
    without(monkeypatch)
    for (a, position), (b, other) in zip(ours, drawn(), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and position == other
        assert a.tobytes() == b.tobytes()
    assert len(called) == len(SHAPES)


def test_normal_has_the_bits_of_array_functions_in_both_tails(called, monkeypatch):
    def drawn():
        return Generator(1).normal((2_000_000,), dtype="float64", backend="numpy")

    ours = drawn()
    assert np.abs(ours).max() > 4.9 and called == ["normal"]
    without(monkeypatch)
    assert ours.tobytes() == drawn().tobytes()


@pytest.mark.parametrize("draw", DRAWS)
def test_bits_do_not_depend_on_threads(called, draw, monkeypatch):
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append(DRAWS[draw](Generator(3), (99_999,), "float32").tobytes())
    assert called and found[0] == found[1] == found[2]


@pytest.mark.parametrize("p", [0.0, 2.0**-25, 0.3, 0.5, 1.0 - 2.0**-25, 1.0])
def test_at_least_compares_uniform_numbers(called, p):
    shape = (3, 50_001)
    kept = Generator(5).at_least(shape, p, "numpy")
    assert kept.dtype == bool and np.array_equal(kept, Generator(5).uniform(shape, backend="numpy") >= p)


@pytest.mark.parametrize("p", [-0.1, 1.5, np.nan])
def test_at_least_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="p must be a number from 0 to 1"):
        Generator(0).at_least((2,), p, "numpy")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [nn.Dropout, nn.Dropout2d])
@pytest.mark.parametrize("order", ["C", "channels last"])
def test_dropout_has_the_bits_of_array_functions(called, layer, order, dtype, rng, monkeypatch):
    x, dy = rng.standard_normal((2, 5, 40, 9, 33)).astype(dtype)
    x[rng.random(x.shape) < 0.1], dy[rng.random(x.shape) < 0.1] = np.nan, -np.inf
    if order == "channels last":
        x, dy = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, dy))

    def passed():
        dropped = layer(0.4, backend="numpy", dtype=dtype, seed=2)
        return dropped(x), dropped.backward(dy)

    with np.errstate(all="ignore"):
        ours = passed()
        assert called == ["at_least"]
        without(monkeypatch)
        for mine, other in zip(ours, passed(), strict=True):
            assert mine.dtype == other.dtype and np.array_equal(mine, other, equal_nan=True)
            assert np.array_equal(np.signbit(mine[~np.isnan(mine)]), np.signbit(other[~np.isnan(other)]))


def test_large_dropout_is_compiled_for_contiguous_arrays_of_one_shape(compiled_kernels, monkeypatch):
    module = importlib.import_module("xpnn.backends.engines.numba.dropout")
    shapes = []
    usual = module.Dropout.__call__
    monkeypatch.setattr(module.Dropout, "__call__", lambda self, *a: shapes.append(a[0].shape) or usual(self, *a))
    x = np.arange(200_001, dtype=np.float32).reshape(3, -1)
    keep = x % 2 == 0.0
    assert np.array_equal(dropout(x, keep, 0.5), np.where(keep, 2.0 * x, 0.0))
    assert np.array_equal(dropout_backward(x.T, keep.T, 0.5), np.where(keep.T, 2.0 * x.T, 0.0))
    assert np.array_equal(dropout(x, keep[:1], 0.5), np.where(keep[:1], 2.0 * x, 0.0))
    assert shapes == [x.shape]
