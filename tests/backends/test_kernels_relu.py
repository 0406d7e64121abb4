"""The compiled ReLU and its gradient against array functions."""

import numpy as np
import pytest

import xpnn as nn

F = nn.functional


@pytest.fixture
def called(monkeypatch, compiled_kernels):
    """Sizes of the parts that the kernel was called with."""
    found, sizes = compiled_kernels, []
    kernel = found.relu_backward

    def noted(dy, y, out):
        sizes.append(out.size)
        kernel(dy, y, out)

    monkeypatch.setattr(found, "relu_backward", noted)
    return sizes


def problem(rng):
    """``dy`` and ``y`` of some MiB, with every kind of number in both."""
    dy, y = (rng.standard_normal((3, 37, 71, 67), np.float32) for _ in range(2))
    for a in (dy, y):
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
            a[rng.random(a.shape) < 0.05] = value
    return dy, y


def in_order(a, order):
    return a if order is None else np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("orders", [(None, None), ((0, 2, 3, 1), (0, 2, 3, 1)), ((0, 2, 3, 1), None)], ids=str)
def test_kernel_gives_the_bits_of_array_functions(called, orders, rng, monkeypatch):
    dy, y = (in_order(a, order) for a, order in zip(problem(rng), orders, strict=True))
    dy.flags.writeable = y.flags.writeable = False
    with_kernel = F.relu_backward(dy, y)
    assert sum(called) == (dy.size if orders[0] == orders[1] else 0)
    monkeypatch.setenv("XPNN_NUMBA", "0")
    assert with_kernel.tobytes() == F.relu_backward(dy, y).tobytes()


def test_bits_do_not_depend_on_threads(called, rng, monkeypatch):
    dy, y = problem(rng)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append(F.relu_backward(dy, y).tobytes())
    assert called and found[0] == found[1] == found[2]


@pytest.mark.parametrize("order", [None, (0, 2, 3, 1)], ids=str)
def test_relu_gives_the_bits_of_array_functions_on_any_number_of_threads(compiled_kernels, order, rng, monkeypatch):
    called, kernel = [], compiled_kernels.relu
    monkeypatch.setattr(compiled_kernels, "relu", lambda x, out: (called.append(x.size), kernel(x, out)))
    x = in_order(problem(rng)[0], order)
    x.flags.writeable = False
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append(F.relu(x).tobytes())
    assert sum(called) == 3 * x.size and found[0] == found[1] == found[2]
    monkeypatch.setenv("XPNN_NUMBA", "0")
    assert found[0] == F.relu(x).tobytes()


def test_small_arrays_float64_and_exact_numerics_do_without_the_kernel(called, rng):
    dy, y = problem(rng)
    F.relu_backward(dy[:, :1], y[:, :1])
    F.relu_backward(dy.astype(np.float64), y.astype(np.float64))
    F.relu_backward(dy, y, xp=nn.get_backend("numpy", numerics="exact").xp)
    assert not called
