"""Compiled dense layers and sums of rows, beside float64 and array functions."""

import importlib

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import operations_of
from xpnn.functional import dense, dense_backward
from xpnn.testing import assert_match

#: Rows, features of the input and of the output: one item and many, cut by rows and by columns, and sums in lanes.
SHAPES = [(1, 1, 1), (64, 784, 128), (64, 84, 10), (2000, 33, 17), (1, 700, 900), (300, 17, 257), (9000, 20, 12)]


@pytest.fixture
def prepared(compiled_kernels):
    """Prepares a dense layer."""
    module = importlib.import_module("xpnn.backends.engines.numba.dense")
    return lambda *problem, dtype="float32": module.prepare(problem, dtype)


def draw(rng, *problem, dtype="float32"):
    rows, inner, outer = problem
    shapes = (rows, inner), (outer, inner), (outer,), (rows, outer)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("problem", SHAPES)
def test_it_matches_float64(prepared, problem, dtype, rng):
    x, weight, bias, dy = draw(rng, *problem, dtype=dtype)
    operation = prepared(*problem, dtype=dtype)
    wide = [array.astype(np.longdouble) for array in (x, weight, bias, dy)]
    desired = wide[0] @ wide[1].T + wide[2]
    rows, inner, outer = problem
    for relu in (False, True):
        actual = operation.forward(x, weight, bias, relu=relu)
        assert_match(actual, np.maximum(desired, 0.0) if relu else desired, level="reduction", terms=inner, dtype=dtype)
    without = operation.forward(x, weight, None)
    assert_match(without, desired - wide[2], level="reduction", terms=inner, dtype=dtype)
    dx, dweight, dbias = operation.backward(dy, x, weight)
    assert_match(dx, wide[3] @ wide[1], level="reduction", terms=outer, dtype=dtype)
    assert_match(dweight, wide[3].T @ wide[0], level="reduction", terms=rows, dtype=dtype)
    assert_match(dbias, wide[3].sum(axis=0), level="reduction", terms=rows, dtype=dtype)
    nothing, *others = operation.backward(dy, x, weight, input_grad=False)
    assert nothing is None and [a.tobytes() for a in others] == [dweight.tobytes(), dbias.tobytes()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("inner", [1, 15, 16, 17, 63, 64, 65, 79, 80, 81, 127, 129, 784])
def test_a_single_row_of_any_length(prepared, inner, dtype, rng, monkeypatch):
    """Vectors side by side, single vectors, and numbers that fill none."""
    monkeypatch.setattr(importlib.import_module("xpnn.backends.engines.numba.dense"), "PART_WEIGHTS", 8 * inner)
    x, weight, bias, _ = draw(rng, 1, inner, 35, dtype=dtype)
    operation = prepared(1, inner, 35, dtype=dtype)
    assert operation._row_length < 35
    actual = operation.forward(x, weight, bias)
    desired = x.astype(np.longdouble) @ weight.astype(np.longdouble).T + bias
    assert_match(actual, desired, level="reduction", terms=inner, dtype=dtype)


@pytest.mark.parametrize("problem", SHAPES)
def test_bits_do_not_depend_on_threads(prepared, problem, rng, monkeypatch):
    x, weight, bias, dy = draw(rng, *problem)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        operation = prepared(*problem)
        arrays = operation.forward(x, weight, bias, relu=True), *operation.backward(dy, x, weight)
        found.append([array.tobytes() for array in arrays])
    assert found[0] == found[1] == found[2]


def test_relu_keeps_nan_and_has_no_negative_zero(prepared):
    weight, bias = np.eye(4, dtype=np.float32), np.zeros(4, np.float32)
    for rows in (1, 2):
        x = np.float32([[-0.0, -1.0, 2.0, 3.0]] * rows)
        y = prepared(rows, 4, 4).forward(x, weight, bias, relu=True)
        assert y.tolist() == [[0.0, 0.0, 2.0, 3.0]] * rows and not np.signbit(y).any()
        x[0, 2] = np.nan
        assert np.isnan(prepared(rows, 4, 4).forward(x, weight, bias, relu=True)[0]).all()


@pytest.mark.parametrize("shape", [(5, 12), (3, 4, 12), (2, 2, 3, 12), (1, 1, 12)])
def test_the_functions_use_it_for_any_axes_and_strides(prepared, shape, rng, monkeypatch):
    x = rng.standard_normal((*shape[:-1], 2 * shape[-1])).astype(np.float32)[..., ::2]
    weight, bias = np.asfortranarray(rng.standard_normal((7, 12)).astype(np.float32)), np.float32(range(14))[::2]
    dy = np.flip(rng.standard_normal((*shape[:-1], 7)).astype(np.float32))
    ours = dense(x, weight, bias), *dense_backward(dy, x, weight)
    monkeypatch.setenv("XPNN_NUMBA", "0")
    for mine, other in zip(ours, (dense(x, weight, bias), *dense_backward(dy, x, weight)), strict=True):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_is_left_to_array_functions(prepared):
    assert prepared(0, 3, 2) is None
    layer = nn.Dense(3, 2, backend="numpy")
    assert layer(np.empty((0, 3), np.float32)).shape == (0, 2)
    layer.backward(np.empty((0, 2), np.float32))
    assert not layer.parameters["weight"].grad.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (70_001, 6), (4099, 33), (300, 1000), (200_003, 1), (3, 5, 7, 11)])
def test_sums_of_rows_match_float64(compiled_kernels, shape, dtype, rng, monkeypatch):
    module = importlib.import_module("xpnn.backends.engines.numba.row_sums")
    x = (3.0 + rng.standard_normal(shape)).astype(dtype)
    rows = x.reshape(-1, shape[-1])
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append(module.prepare(None, dtype)(x))
    assert found[0].tobytes() == found[1].tobytes()
    desired = rows.astype(np.longdouble).sum(axis=0)
    assert_match(found[0], desired, level="reduction", terms=len(rows), dtype=dtype)
    # Added up row after row, 70,000 numbers around 3 are wrong by 1e-4.
    assert np.abs(found[0] - desired).max() <= (1e-6 if dtype == "float32" else 1e-14) * np.abs(desired).max()


def test_sums_of_many_rows_are_compiled(compiled_kernels, rng, monkeypatch):
    module = importlib.import_module("xpnn.backends.engines.numba.row_sums")
    called = []
    monkeypatch.setattr(module.RowSums, "__call__", lambda self, x: called.append(x.shape) or x[0])
    operations = operations_of(nn.get_backend("numpy").xp)
    operations.sum_rows(np.ones((50_000, 4), np.float32))
    operations.sum_rows(np.ones((50, 4), np.float32))
    assert called == [(50_000, 4)]
