"""Compiled scales, magnitudes and sums of exact numerics: the bits of its array functions."""

import array_api_compat.numpy as xp
import numpy as np
import pytest
from exact_arrays import bits, hostile

from xpnn.backends.exact.contractions import ExactContractions
from xpnn.backends.exact.rows import ExactRows
from xpnn.backends.numpy import NumpyOperations
from xpnn.backends.overrides import Choices, using

EXACT = ExactContractions(xp)
ROWS = ExactRows(NumpyOperations(xp), EXACT)
SMALLEST_STORED = 2.0**-125
#: Arrays ``(..., C)``: one row, one column, joined rows, rows longer than a vector, several blocks, two slices.
SHAPES = [(1, 1), (7, 3), (9, 257), (4, 5, 6, 8), (1, 513), (2100, 1), (1500, 64), (70_000, 2)]


def widened(x):
    """As exact numerics reads it."""
    return x if x.dtype == np.float64 else np.where(np.abs(x) < SMALLEST_STORED, 0.0, x).astype(np.float64)


@pytest.fixture(autouse=True)
def compiled(compiled_engine):
    yield
    assert "kernels" in compiled_engine


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scales_and_sums_have_the_bits_of_array_functions(shape, dtype):
    x = hostile(shape, dtype)
    wide, axes = widened(x), tuple(range(len(shape) - 1))
    assert np.array_equal(bits(ROWS.sum(x)), bits(EXACT.sum(wide, axes)))
    assert np.array_equal(bits(ROWS.scale_of_channels(x)), bits(EXACT.scale(wide, axes)))
    np.testing.assert_array_equal(ROWS.largest_of_channels(x), np.max(np.abs(wide), axis=axes))
    assert np.array_equal(bits(ROWS.scale_of_samples(x)), bits(EXACT.scale(wide, tuple(range(1, len(shape))))))


@pytest.mark.parametrize("value", [0.0, 2.0**-1001, 2.0**-1000, 2.0**-400, 1.0, 2.0**599, 2.0**600, 1e300, 5e-324])
@pytest.mark.parametrize("beside", [0.0, 2.0**-60])
def test_scales_at_the_limits(value, beside):
    x = np.array([[value, -value], [value * beside, value]])
    assert np.array_equal(bits(ROWS.scale_of_channels(x)), bits(EXACT.scale(x, 0)))
    assert np.array_equal(bits(ROWS.scale_of_samples(x)), bits(EXACT.scale(x, 1)))
    assert np.array_equal(bits(ROWS.sum(x)), bits(EXACT.sum(x, 0)))


def test_views_with_gaps_and_in_other_orders():
    x = hostile((40, 6, 8), "float64")
    for view in (x[::3, :, 1:], x.transpose(2, 0, 1), x[::-1]):
        assert np.array_equal(bits(ROWS.sum(view)), bits(EXACT.sum(view, (0, 1))))
        assert np.array_equal(bits(ROWS.scale_of_samples(view)), bits(EXACT.scale(view, (1, 2))))
        assert np.array_equal(bits(ROWS.scale_of_channels(view)), bits(EXACT.scale(view, (0, 1))))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_array_functions_serve_empty_arrays(shape):
    x = np.zeros(shape)
    assert np.array_equal(ROWS.sum(x), EXACT.sum(x, 0))
    assert np.array_equal(ROWS.scale_of_channels(x), EXACT.scale(x, 0))
    ROWS.sum(np.ones((1, 1)))


def test_the_number_of_threads_has_no_effect(monkeypatch):
    x = np.random.default_rng(3).standard_normal((5000, 64))
    expected = bits(ROWS.sum(x))
    for threads in (1, 2, 5):
        monkeypatch.setenv("XPNN_NUM_THREADS", str(threads))
        assert np.array_equal(bits(ROWS.sum(x)), expected)


def test_without_compiled_code_the_same():
    x = hostile((300, 16), "float64")
    expected = ROWS.sum(x)
    largest = ROWS.largest_of_channels(x)
    with using(Choices(kernels=False)):
        np.testing.assert_array_equal(ROWS.largest_of_channels(x), largest)
        assert np.array_equal(bits(ROWS.sum(x)), bits(expected))
