"""Activations and softmax at the ends of the number line: infinities, NaN, the largest, smallest and subnormal numbers.

What they must be comes from mpmath, in 60 digits, and at infinity from the limits, which stand here by hand.
"""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

import xpnn as nn
import xpnn.layers.activations as module

INF, NAN = float("inf"), float("nan")
# Exact numerics stores smaller numbers as 0.
FLUSHED = 2.0**-125
SIZES = [1e-30, 1e-3, 0.5, 2.5, 20.5, 88.0, 104.5, 746.0, 1e4, 1e13, 1.9e19, 1e30]


class Limits(NamedTuple):
    """An activation: ``f`` and ``f'`` of a number, and both at minus infinity and infinity."""

    layer: Any
    f: Any
    slope: Any
    ends: tuple[float, float]
    slopes: tuple[float, float]
    options: Mapping[str, float | str] = MappingProxyType({})


def rectifier(below, slope_below, scale=1.0):
    """``f`` and ``f'`` of a rectifier."""
    return lambda x: below(x) if x <= 0 else scale * x, lambda x: slope_below(x) if x <= 0 else mpmath.mpf(scale)


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def softplus(x):
    return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))


def mish_slope(x):
    t = mpmath.tanh(softplus(x))
    return t + x * sigmoid(x) * mpmath.sech(softplus(x)) ** 2


def normal_cdf(x):
    # mpmath has no erfc of the largest numbers.
    return mpmath.mpf(x > 0) if abs(x) > 1e6 else mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def gelu_slope(x):
    return normal_cdf(x) + x * mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)


def inner(x):
    return mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)


def half_tanh(x):
    """``(1 + tanh(x)) / 2`` without cancellation."""
    return sigmoid(2 * x)


def gelu_tanh_slope(x):
    steep = mpmath.sqrt(2 / mpmath.pi) * (1 + mpmath.mpf("0.134145") * x * x)
    return half_tanh(inner(x)) + x / 2 * mpmath.sech(inner(x)) ** 2 * steep


def tanh_shrink(x):
    # 60 digits are not enough for the difference near 0.
    return x**3 / 3 - 2 * x**5 / 15 + 17 * x**7 / 315 if abs(x) <= 1e-3 else x - mpmath.tanh(x)


SCALE, ALPHA = mpmath.mpf("1.0507009873554804934193"), mpmath.mpf("1.6732632423543772848170")
SELU = rectifier(lambda x: SCALE * ALPHA * mpmath.expm1(x), lambda x: SCALE * ALPHA * mpmath.exp(x), SCALE)
ACTIVATIONS = {
    "ReLU": Limits(nn.ReLU, *rectifier(lambda x: 0, lambda x: 0), (0, INF), (0, 1)),
    "LeakyReLU": Limits(nn.LeakyReLU, *rectifier(lambda x: x / 100, lambda x: 0.01), (-INF, INF), (0.01, 1)),
    "LeakyReLU, slope 0": Limits(
        nn.LeakyReLU, *rectifier(lambda x: 0, lambda x: 0), (0, INF), (0, 1), {"negative_slope": 0.0}
    ),
    "PReLU": Limits(nn.PReLU, *rectifier(lambda x: x / 4, lambda x: 0.25), (-INF, INF), (0.25, 1)),
    "ELU": Limits(nn.ELU, *rectifier(mpmath.expm1, mpmath.exp), (-1, INF), (0, 1)),
    "ELU, alpha 0": Limits(nn.ELU, *rectifier(lambda x: 0, lambda x: 0), (0, INF), (0, 1), {"alpha": 0.0}),
    "CELU": Limits(
        nn.CELU,
        *rectifier(lambda x: mpmath.expm1(x / 2) * 2, lambda x: mpmath.exp(x / 2)),
        (-2, INF),
        (0, 1),
        {"alpha": 2.0},
    ),
    "SELU": Limits(nn.SELU, *SELU, (float(-SCALE * ALPHA), INF), (0, float(SCALE))),
    "Sigmoid": Limits(nn.Sigmoid, sigmoid, lambda x: sigmoid(x) * sigmoid(-x), (0, 1), (0, 0)),
    "Tanh": Limits(nn.Tanh, mpmath.tanh, lambda x: mpmath.sech(x) ** 2, (-1, 1), (0, 0)),
    "Softsign": Limits(nn.Softsign, lambda x: x / (1 + abs(x)), lambda x: (1 + abs(x)) ** -2, (-1, 1), (0, 0)),
    "HardSigmoid": Limits(
        nn.HardSigmoid, lambda x: min(max(x + 3, 0), 6) / 6, lambda x: (abs(x) < 3) / mpmath.mpf(6), (0, 1), (0, 0)
    ),
    "HardSwish": Limits(
        nn.HardSwish,
        lambda x: x * (min(max(x + 3, 0), 6) / 6),
        lambda x: 0 if x <= -3 else 1 if x >= 3 else x / 3 + 0.5,
        (0, INF),
        (0, 1),
    ),
    "HardSigmoid, alpha 0.25": Limits(
        nn.HardSigmoid,
        lambda x: min(max(x * mpmath.mpf("0.25") + 0.5, 0), 1),
        lambda x: (abs(x) < 2) * mpmath.mpf("0.25"),
        (0, 1),
        (0, 0),
        {"alpha": 0.25},
    ),
    "LogSigmoid": Limits(nn.LogSigmoid, lambda x: -softplus(-x), lambda x: sigmoid(-x), (-INF, 0), (1, 0)),
    "HardTanh": Limits(nn.HardTanh, lambda x: min(max(x, -1), 1), lambda x: abs(x) < 1, (-1, 1), (0, 0)),
    "ReLU6": Limits(nn.ReLU6, lambda x: min(max(x, 0), 6), lambda x: 0 < x < 6, (0, 6), (0, 0)),
    "Clip": Limits(nn.Clip, lambda x: max(x, -1), lambda x: x >= -1, (-1, INF), (0, 1), {"min": -1.0}),
    "Clip, no limits": Limits(nn.Clip, lambda x: x, lambda x: 1, (-INF, INF), (1, 1)),
    "Threshold": Limits(
        nn.Threshold,
        lambda x: x if x > 2 else 5,
        lambda x: x > 2,
        (5, INF),
        (0, 1),
        {"threshold": 2.0, "value": 5.0},
    ),
    "SoftShrink": Limits(
        nn.SoftShrink, lambda x: x - min(max(x, -0.5), 0.5), lambda x: abs(x) > 0.5, (-INF, INF), (1, 1)
    ),
    "HardShrink": Limits(
        nn.HardShrink, lambda x: x if abs(x) > 0.5 else 0, lambda x: abs(x) > 0.5, (-INF, INF), (1, 1)
    ),
    "TanhShrink": Limits(nn.TanhShrink, tanh_shrink, lambda x: mpmath.tanh(x) ** 2, (-INF, INF), (1, 1)),
    "Softplus": Limits(
        nn.Softplus, lambda x: x if x > 20 else softplus(x), lambda x: 1 if x > 20 else sigmoid(x), (0, INF), (0, 1)
    ),
    "SiLU": Limits(nn.SiLU, lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x)), (0, INF), (0, 1)),
    "Mish": Limits(nn.Mish, lambda x: x * mpmath.tanh(softplus(x)), mish_slope, (0, INF), (0, 1)),
    "GELU": Limits(nn.GELU, lambda x: x * normal_cdf(x), gelu_slope, (0, INF), (0, 1)),
    "GELU, tanh": Limits(
        nn.GELU,
        lambda x: x * half_tanh(inner(x)),
        gelu_tanh_slope,
        (0, INF),
        (0, 1),
        {"approximate": "tanh"},
    ),
}
each = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in ACTIVATIONS.items()])


def test_every_activation_is_in_the_table():
    made = {case.layer for case in ACTIVATIONS.values()} | {nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Hardmax, nn.GLU}
    named = [getattr(module, name) for name in module.__all__]
    assert made == {each for each in named if isinstance(each, type) and each is not module.Activation}


def numbers(dtype):
    """Finite numbers of all sizes and both signs."""
    info = np.finfo(dtype)
    sizes = np.array([0.0, info.smallest_subnormal, info.smallest_normal, *SIZES, info.max / 8, info.max], dtype)
    return np.concatenate([-sizes, sizes])


def rounded(value, dtype):
    """A number of mpmath in a dtype, infinite past its range."""
    largest = mpmath.mpf(float(np.finfo(dtype).max))
    if abs(value) > largest:
        return INF if value > 0 else -INF
    return float(dtype(float(value))) if abs(value) > 1e-330 else 0.0


def both(case, x, backend):
    """Output and gradient of the layer, as host arrays."""
    layer = case.layer(**case.options, backend=backend)
    x = backend.asarray(x)
    y = layer(x)
    dx = layer.backward(backend.xp.ones_like(x))
    return backend.to_numpy(y), backend.to_numpy(dx)


def require_close(found, f, x, dtype, least):
    """Each number found is ``f(x)``, or ``f(0)`` where x may be flushed.

    Relative to the number where x is small, to 1 at least elsewhere, where a tail has lost what it has below 1.
    """
    eps, smallest = float(np.finfo(dtype).eps), float(np.finfo(dtype).smallest_subnormal)
    for value, at in zip(found.tolist(), x.tolist(), strict=True):
        wanted = [rounded(f(mpmath.mpf(each)), dtype) for each in ([at, 0.0] if abs(at) < least else [at])]
        scales = [abs(w) if abs(at) <= 1e-3 else max(1.0, abs(w)) for w in wanted]
        bounds = [32 * eps * scale + max(2 * smallest, least) for scale in scales]
        assert any(value == w or abs(value - w) <= b for w, b in zip(wanted, bounds, strict=True)), (at, value, wanted)


def check(case, backend, dtype, least=0.0):
    """All finite numbers against mpmath; the device or the numerics may flush what is below ``least``."""
    x = numbers(dtype)
    y, dx = both(case, x, backend)
    with mpmath.workdps(60):
        require_close(y, case.f, x, dtype, least)
        require_close(dx, case.slope, x, dtype, least)


@each
def test_numbers_of_all_sizes(at, case):
    # NVIDIA's devices may read and write subnormal numbers as 0.
    check(case, at.backend, np.float32, 0.0 if at.backend.is_host else float(np.finfo(np.float32).smallest_normal))


@each
def test_numbers_of_all_sizes_in_float64(at, case):
    check(case, at.wide(), np.float64)


@each
def test_numbers_of_all_sizes_in_exact_numerics(exact, case):
    check(case, exact, np.float32, FLUSHED)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinity_has_the_limit_and_nan_has_nan(at, case, dtype):
    backend = at.backend if dtype == "float32" else at.wide()
    require_limits(case, *both(case, np.array([-INF, INF, NAN], dtype), backend))


@each
def test_infinity_has_the_limit_and_nan_has_nan_in_exact_numerics(exact, case):
    require_limits(case, *both(case, np.array([-INF, INF, NAN], "float32"), exact))


def require_limits(case, y, dx):
    np.testing.assert_allclose(y, np.array([*case.ends, NAN], y.dtype), rtol=1e-6)
    np.testing.assert_allclose(dx, np.array([*case.slopes, NAN], dx.dtype), rtol=1e-6)


@each
def test_large_arrays_match_small_ones(compiled_kernels, case):
    # NumPy computes large arrays in blocks, and compiled kernels are used where there are some.
    x = np.resize(np.array([-INF, INF, NAN], "float32"), 3 << 19)
    y, dx = both(case, x, nn.get_backend("numpy"))
    require_limits(case, y[-3:], dx[-3:])
    np.testing.assert_array_equal(y.reshape(-1, 3), np.broadcast_to(y[:3], (1 << 19, 3)))
    np.testing.assert_array_equal(dx.reshape(-1, 3), np.broadcast_to(dx[:3], (1 << 19, 3)))


@each
def test_nothing_warns(case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both(case, np.array([-INF, INF, NAN], "float32"), nn.get_backend("numpy"))


@pytest.mark.parametrize("slope", [0.0, 0.25, -1.0])
def test_gradient_of_a_prelu_weight_has_nan_and_infinity(at, slope):
    weight = at.put([slope], "float32")
    for value in (NAN, -INF):
        x = at.put([[value]], "float32")
        _, dweight = nn.functional.prelu_backward(at.xp.ones_like(x), x, weight)
        np.testing.assert_array_equal(at.get(dweight), np.array([value], "float32"))
