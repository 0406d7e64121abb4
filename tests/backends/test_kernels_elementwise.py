"""The compiled ReLU, sums and activations against array functions, and their elementary functions against libraries."""

from math import erfc

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.overrides import Choices, using
from xpnn.testing import assert_match

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
from xpnn.backends.engines.numba import vector_math
from xpnn.backends.engines.numba.elementwise import apply, unary

F = nn.functional
LAST = (0, 2, 3, 1)


def problem(rng, shape=(3, 37, 31, 27), dtype="float32"):
    """Two arrays with every kind of number."""
    x, y = (np.asarray(rng.standard_normal(shape) * 3, dtype) for _ in range(2))
    for a in (x, y):
        for value in (np.nan, np.inf, -np.inf, 0.0, -0.0):
            a[rng.random(a.shape) < 0.05] = value
    return x, y


def in_order(a, order):
    return a if order is None else np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))


def by_arrays(function, *arguments):
    with using(Choices(kernels=False)):
        return function(*arguments)


def ops():
    return nn.backends.operations_of(nn.get_backend("numpy").xp)


OPERATIONS = {
    "relu": lambda x, y: F.relu(x),
    "relu_backward": F.relu_backward,
    "add": lambda x, y: ops().add(x, y),
    "add and relu": lambda x, y: ops().add(x, y, relu=True),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@every_operation
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("orders", [(None, None), (LAST, LAST), (LAST, None), (None, LAST)], ids=str)
def test_result_has_the_bits_of_array_functions(compiled_engine, operation, dtype, orders, rng):
    x, y = (in_order(a, order) for a, order in zip(problem(rng, dtype=dtype), orders, strict=True))
    x.flags.writeable = y.flags.writeable = False
    with np.errstate(invalid="ignore"):
        found, expected = operation(x, y), by_arrays(operation, x, y)
    assert "kernels" in compiled_engine and found.dtype == expected.dtype == dtype
    assert np.array_equal(found, expected, equal_nan=True) and np.array_equal(np.signbit(found), np.signbit(expected))
    like = y if operation is F.relu_backward else x
    assert found.strides == like.strides


@every_operation
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 3), (70,)], ids=str)
def test_small_and_empty_arrays(compiled_engine, operation, shape, rng):
    x, y = problem(rng, shape)
    with np.errstate(invalid="ignore"):
        found, expected = operation(x, y), by_arrays(operation, x, y)
    assert found.shape == expected.shape and np.array_equal(found, expected, equal_nan=True)


@every_operation
def test_gaps_reversed_axes_and_one_value_for_all(compiled_engine, operation, rng):
    x, y = problem(rng, (8, 9, 10))
    for a, b in ((x[:, ::2], y[:, ::2]), (x[::-1], y[:, :, ::-1].copy()), (x, np.broadcast_to(y[:1], y.shape))):
        with np.errstate(invalid="ignore"):
            assert np.array_equal(operation(a, b), by_arrays(operation, a, b), equal_nan=True)


@every_operation
def test_bits_do_not_depend_on_threads(compiled_engine, operation, rng, monkeypatch):
    x, y, found = *problem(rng), []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append(operation(x, y).tobytes())
    assert found[0] == found[1] == found[2]


def test_exact_numerics_have_jobs_of_their_own(compiled_engine, rng):
    x, y = problem(rng)
    xp = nn.get_backend("numpy", numerics="exact").xp
    found = F.relu_backward(x, y, xp=xp)
    with using(Choices(kernels=False)):
        assert found.tobytes() == F.relu_backward(x, y, xp=xp).tobytes()


ACTIVATIONS = {
    "LeakyReLU": lambda: nn.LeakyReLU(0.2),
    "LeakyReLU, slope above 1": lambda: nn.LeakyReLU(1.5),
    "LeakyReLU, slope 0": lambda: nn.LeakyReLU(0.0),
    "ELU": lambda: nn.ELU(0.7),
    "CELU": lambda: nn.CELU(1.7),
    "SELU": nn.SELU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softsign": nn.Softsign,
    "HardSigmoid": nn.HardSigmoid,
    "HardSwish": nn.HardSwish,
    "ReLU6": nn.ReLU6,
    "HardTanh": lambda: nn.HardTanh(-0.5, 3.0),
    "Clip": lambda: nn.Clip(-3.0, 1.5),
    "Clip, one limit": lambda: nn.Clip(max=0.25),
    "Threshold": lambda: nn.Threshold(0.25, -2.0),
    "SoftShrink": nn.SoftShrink,
    "HardShrink": lambda: nn.HardShrink(3.0),
    "LogSigmoid": nn.LogSigmoid,
    "Softplus": nn.Softplus,
    "Softplus, beta": lambda: nn.Softplus(2.5, 6.0),
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
    "GELU": nn.GELU,
    "GELU, tanh": lambda: nn.GELU("tanh"),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_match_array_functions(compiled_engine, name, dtype, rng):
    x, dy = (in_order(a, LAST) for a in problem(rng, (2, 17, 9, 8), dtype))
    dy[np.isinf(dy)] = 1.0
    x.flat[:12] = [1e-30, -1e-30, 1e-5, -1e-5, 88.0, -88.0, 200.0, -200.0, 3.0, -3.0, 1e30, -1e30]

    def compute():
        layer = ACTIVATIONS[name]().to("numpy", dtype)
        with np.errstate(all="ignore"):
            return layer(x), layer.backward(dy)

    (y, dx), (expected, gradient) = compute(), by_arrays(compute)
    assert "kernels" in compiled_engine or name == "LeakyReLU, slope 0"
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=16 * eps, atol=8 * eps)
    np.testing.assert_allclose(dx, gradient, rtol=16 * eps, atol=24 * eps * np.nanmax(np.abs(dy)))
    assert np.array_equal(np.signbit(y), np.signbit(expected)) or np.isnan(y).any()


@pytest.mark.parametrize("name", ["Sigmoid", "Tanh", "ELU", "GELU"])
def test_activations_match_float64(compiled_engine, name, rng):
    x, dy = (rng.standard_normal((5, 7, 11)) * 4 for _ in range(2))
    layer, wide = ACTIVATIONS[name]().to("numpy", "float32"), ACTIVATIONS[name]().to("numpy", "float64")
    y, expected = layer(x.astype(np.float32)), by_arrays(wide.forward, x)
    assert_match(y, expected, level="elementwise", dtype="float32")
    assert_match(
        layer.backward(dy.astype(np.float32)), by_arrays(wide.backward, dy), level="elementwise", dtype="float32"
    )


def test_functions_of_a_user_s_layer_are_computed_by_themselves(compiled_engine):
    class Doubled(nn.SiLU):
        function = staticmethod(lambda x, xp: x + x)
        gradient = staticmethod(lambda dy, x, xp: dy + dy)

    def silu(x, *, xp):
        return x - x

    class Nothing(nn.SiLU):
        function = staticmethod(silu)

    x = np.ones(3, np.float32)
    layer = Doubled(backend="numpy")
    assert np.array_equal(layer(x), x + x) and np.array_equal(layer.backward(x), x + x)
    assert not np.any(Nothing(backend="numpy")(x))


def _exp(x, _a, _b):
    return vector_math.exp(x)


def _expm1(x, _a, _b):
    return vector_math.expm1(x)


def _log1p(x, _a, _b):
    return vector_math.log1p(x)


def _sigmoid(x, _a, _b):
    return vector_math.sigmoid(x)


def _tanh(x, _a, _b):
    return vector_math.tanh(x)


def _erfc(x, _a, _b):
    return vector_math.erfc(x)


def small(rng):
    return np.concatenate([rng.random(50_000), 10.0 ** -rng.uniform(0, 30, 20_000)])


#: formula, arguments, the function in longer numbers, largest error in units in the last place
FUNCTIONS = {
    "exp": (_exp, lambda rng: rng.uniform(-87, 88, 80_000), np.exp, 2),
    "expm1": (_expm1, lambda rng: -80 * small(rng), np.expm1, 2),
    "log1p": (_log1p, small, np.log1p, 3),
    "sigmoid": (_sigmoid, lambda rng: rng.uniform(-40, 40, 80_000), lambda x: 1 / (1 + np.exp(-x)), 3),
    "tanh": (_tanh, lambda rng: 20 * small(rng) * rng.choice([-1, 1], 70_000), np.tanh, 4),
    "erfc": (_erfc, lambda rng: rng.uniform(-5, 9, 40_000), np.vectorize(lambda x: erfc(float(x))), 8),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_have_the_errors_that_are_stated(name, dtype, rng):
    formula, arguments, function, limit = FUNCTIONS[name]
    x = arguments(rng).astype(dtype)
    y, expected = apply(unary(formula), x), function(x.astype(np.longdouble))
    ulps = np.abs(y.astype(np.longdouble) - expected) / np.spacing(np.abs(y))
    assert np.max(ulps) <= limit


def test_elementary_functions_of_nan_and_infinity():
    x = np.array([np.nan, np.inf, -np.inf, -200.0, 200.0, 0.0], np.float32)
    found = {name: apply(unary(formula), x) for name, (formula, *_) in FUNCTIONS.items()}
    np.testing.assert_array_equal(found["exp"], [np.nan, np.inf, 0, 0, np.inf, 1])
    np.testing.assert_array_equal(found["expm1"][[0, 2, 3, 5]], [np.nan, -1, -1, 0])
    np.testing.assert_array_equal(found["sigmoid"], [np.nan, 1, 0, 0, 1, 0.5])
    np.testing.assert_array_equal(found["tanh"], [np.nan, 1, -1, -1, 1, 0])
    np.testing.assert_array_equal(found["erfc"], [np.nan, 0, 2, 2, 0, 1])


def test_a_number_below_the_normal_ones_is_not_lost():
    x = np.array([-88.0, -95.0, -103.0], np.float32)
    np.testing.assert_allclose(apply(unary(_exp), x), np.exp(x), rtol=0, atol=1.5e-45)
