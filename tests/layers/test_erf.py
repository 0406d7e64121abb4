"""The error function to the last digits of float64, against Python's own and SciPy's."""

import math
import warnings

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnn.layers.activations import GELU, erf, erfc, gelu
from xpnn.testing import assert_match

INF, NAN = float("inf"), float("nan")
# around 0, on both sides of 1/2, where the formula changes, and as far as the result is a normal number of float64
GRID = np.concatenate([np.linspace(-6, 6, 2401), np.linspace(6, 26, 801), 0.5 + np.arange(-8, 9) * 2.0**-52])
TINY = np.array([1e-300, -1e-300, 1e-30, -1e-18, 1e-9, 1e-5, -3e-3])


def assert_relative(actual, desired, dtype):
    """Entry by entry: a tolerance relative to the largest would not see the smaller."""
    zero = desired == 0
    assert not actual[zero].any()
    ratio = (actual[~zero].astype(np.float64) / desired[~zero]).astype(dtype)
    assert_match(ratio, np.ones(ratio.shape), dtype=dtype)


@pytest.mark.parametrize("ours, theirs", [(erf, math.erf), (erfc, math.erfc)], ids=["erf", "erfc"])
def test_every_digit_in_float64(at, ours, theirs):
    for x in (GRID, -GRID, TINY):
        y = ours(at.put(x))
        desired = np.array([theirs(v) for v in x])
        assert_match(y, desired, backend=at.backend, dtype="float64")
        assert_relative(at.get(y), desired, "float64")


@pytest.mark.parametrize("ours, theirs", [(erf, scipy.special.erf), (erfc, scipy.special.erfc)], ids=["erf", "erfc"])
def test_matches_scipy_where_scipy_has_its_digits(at, ours, theirs):
    # The relative error of SciPy's erfc is up to 6e-14 where it is below 1e-16: level "elementwise" sees the rest
    x = GRID[np.abs(GRID) < 6]
    assert_match(ours(at.put(x)), theirs(x), backend=at.backend)


def test_erf_in_float32(at):
    x = GRID.astype(np.float32)
    y = erf(at.put(x))
    desired = np.array([math.erf(v) for v in x.astype(np.float64)])
    assert_match(y, desired, backend=at.backend, dtype="float32")
    assert_relative(at.get(y), desired, "float32")


def test_erfc_in_float32_keeps_its_digits_as_far_as_they_are_normal_numbers(at):
    x = GRID[GRID < 9].astype(np.float32)
    y = erfc(at.put(x))
    desired = np.array([math.erfc(v) for v in x.astype(np.float64)])
    assert_match(y, desired, backend=at.backend, dtype="float32")
    assert_relative(at.get(y), desired, "float32")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(x=st.floats(-26, 26))
def test_any_number_has_its_digits(x):
    host = np.array([x])
    assert_relative(erf(host), np.array([math.erf(x)]), "float64")
    assert_relative(erfc(host), np.array([math.erfc(x)]), "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_out_and_at_infinity_without_a_warning(at, dtype):
    x = at.put([-INF, -1e38, -1e4, -40.0, 40.0, 1e4, 1e38, INF], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inner, outer = erf(x), erfc(x)
    assert at.get(inner).tolist() == [-1] * 4 + [1] * 4
    assert at.get(outer).tolist() == [2] * 4 + [0] * 4


def test_at_zero(at):
    assert at.get(erf(at.put([0.0, -0.0]))).tolist() == [0, 0]
    assert at.get(erfc(at.put([0.0, -0.0]))).tolist() == [1, 1]


def test_erf_is_odd(at):
    assert_match(erf(at.put(-GRID)), -at.get(erf(at.put(GRID))), level="exact", backend=at.backend)


@pytest.mark.parametrize("function", [erf, erfc])
def test_nan_makes_only_its_own_entry_nan(at, function):
    assert np.isnan(at.get(function(at.put([NAN, 0.25, 3.0])))).tolist() == [True, False, False]


@pytest.mark.parametrize("function", [erf, erfc])
def test_shape_and_dtype_are_kept(at, function):
    for shape in ((), (0, 3), (2, 1, 2)):
        for dtype in ("float32", "float64"):
            y = function(at.put(np.full(shape, 0.75), dtype))
            desired = np.full(shape, getattr(math, function.__name__)(0.75))
            assert_match(y, desired, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("function", [erf, erfc])
def test_integers_are_an_error(function):
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64 array of numpy"):
        function(np.zeros(3, np.int64))


@pytest.mark.usefixtures("array_functions")
def test_gelu_forms_differ_as_documented(at):
    x = at.put([-2.0, 1.0])
    exact = [-2 * math.erfc(math.sqrt(2)) / 2, math.erfc(-math.sqrt(0.5)) / 2]
    root = math.sqrt(2 / math.pi)
    formula = [v / 2 * (1 + math.tanh(root * (v + 0.044715 * v**3))) for v in (-2.0, 1.0)]
    assert_match(gelu(x), np.array(exact, np.float32), backend=at.backend)
    assert_match(gelu(x, approximate="tanh"), np.array(formula, np.float32), backend=at.backend)
    assert_match(GELU("tanh", backend=at.backend)(x), gelu(x, approximate="tanh"), level="exact", backend=at.backend)


@pytest.mark.parametrize("approximate", ["erf", None, True, "Tanh"])
def test_other_forms_of_gelu_are_an_error_in_the_function_too(approximate):
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh'"):
        gelu(np.ones(2, np.float32), approximate=approximate)
