"""Every elementwise activation: values and slopes against other formulas and PyTorch, and extreme inputs.

What is special to rectifiers, the error function and softmax stands in files of their own.
"""

import re
import warnings
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.special as special

import xpnn.layers.activations as module
from xpnn.layers.activations import (
    CELU,
    ELU,
    GELU,
    SELU,
    Clip,
    HardShrink,
    HardSigmoid,
    HardSwish,
    HardTanh,
    LeakyReLU,
    LogSigmoid,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softplus,
    SoftShrink,
    Softsign,
    Tanh,
    TanhShrink,
    Threshold,
)
from xpnn.testing import assert_match, gradcheck

INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64"]
VALUES = np.array([-30.0, -6.25, -3.0, -1.5, -0.25, -1e-3, -0.0, 0.0, 1e-3, 0.5, 1.25, 2.0, 3.0, 5.5, 9.0, 30.0])
FAR = np.array([-1e4, -1e3, -105.0, -90.0, -21.0, 21.0, 90.0, 105.0, 1e3, 1e4])


class Oracle(NamedTuple):
    """An activation and its reference in float64: ``f``, ``f'`` and PyTorch's name for it."""

    layer: Any
    f: Any
    slope: Any
    pytorch: str
    options: Mapping[str, Any] = MappingProxyType({})


def below(x, f, above=1.0):
    """A rectifier or its slope: ``above`` where ``x`` is above 0, ``f(x)`` elsewhere."""
    return np.where(x > 0, above, f(np.minimum(x, 0.0)))


def elu(x, a, b=1.0, scale=1.0):
    return below(x, lambda z: scale * a * np.expm1(z / b), scale * x)


def elu_slope(x, a, b=1.0, scale=1.0):
    return below(x, lambda z: scale * a / b * np.exp(z / b), scale)


def mish_slope(x):
    t = np.tanh(np.logaddexp(0, x))
    return t + x * special.expit(x) * (1 - t * t)


def normal_density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def inner(x):
    return np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)


def gelu_tanh_slope(x):
    t, slope = np.tanh(inner(x)), np.sqrt(2 / np.pi) * (1 + 0.134145 * x**2)
    return (1 + t) / 2 + x / 2 * (1 - t * t) * slope


def softplus(x, beta=1.0, threshold=20.0):
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def softplus_slope(x, beta=1.0, threshold=20.0):
    return np.where(beta * x > threshold, 1.0, special.expit(beta * x))


SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
selu_numbers = {"a": SELU_ALPHA, "scale": SELU_SCALE}
steep = {"beta": 2.5, "threshold": 3.0}
ORACLES = {
    "ReLU": Oracle(ReLU, lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, "relu"),
    "LeakyReLU": Oracle(
        LeakyReLU, lambda x: np.where(x > 0, x, x / 100), lambda x: np.where(x > 0, 1, 0.01), "leaky_relu"
    ),
    "LeakyReLU(0.3)": Oracle(
        LeakyReLU,
        lambda x: below(x, lambda z: 0.3 * z, x),
        lambda x: np.where(x > 0, 1, 0.3),
        "leaky_relu",
        {"negative_slope": 0.3},
    ),
    "ELU": Oracle(ELU, partial(elu, a=1.0), partial(elu_slope, a=1.0), "elu"),
    "ELU(2.5)": Oracle(ELU, partial(elu, a=2.5), partial(elu_slope, a=2.5), "elu", {"alpha": 2.5}),
    "CELU": Oracle(CELU, partial(elu, a=1.0), partial(elu_slope, a=1.0), "celu"),
    "CELU(0.5)": Oracle(CELU, partial(elu, a=0.5, b=0.5), partial(elu_slope, a=0.5, b=0.5), "celu", {"alpha": 0.5}),
    "SELU": Oracle(SELU, partial(elu, **selu_numbers), partial(elu_slope, **selu_numbers), "selu"),
    "GELU": Oracle(GELU, lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * normal_density(x), "gelu"),
    "GELU(tanh)": Oracle(
        GELU, lambda x: x / 2 * (1 + np.tanh(inner(x))), gelu_tanh_slope, "gelu", {"approximate": "tanh"}
    ),
    "SiLU": Oracle(
        SiLU, lambda x: x * special.expit(x), lambda x: special.expit(x) * (1 + x * special.expit(-x)), "silu"
    ),
    "Mish": Oracle(Mish, lambda x: x * np.tanh(np.logaddexp(0, x)), mish_slope, "mish"),
    "Sigmoid": Oracle(Sigmoid, special.expit, lambda x: special.expit(x) * special.expit(-x), "sigmoid"),
    "HardSigmoid": Oracle(
        HardSigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1), lambda x: (np.abs(x) < 3) / 6, "hardsigmoid"
    ),
    "HardSwish": Oracle(
        HardSwish,
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x: np.where(np.abs(x) < 3, x / 3 + 0.5, x >= 3),
        "hardswish",
    ),
    "Tanh": Oracle(Tanh, np.tanh, lambda x: 4 * special.expit(2 * x) * special.expit(-2 * x), "tanh"),
    "Softplus": Oracle(Softplus, softplus, softplus_slope, "softplus"),
    "Softplus(2.5, 3)": Oracle(
        Softplus, partial(softplus, **steep), partial(softplus_slope, **steep), "softplus", steep
    ),
    "Softsign": Oracle(Softsign, lambda x: x / (1 + np.abs(x)), lambda x: (1 + np.abs(x)) ** -2.0, "softsign"),
    "HardSigmoid(0.25, 0.75)": Oracle(
        HardSigmoid,
        lambda x: np.clip(x / 4 + 0.75, 0, 1),
        lambda x: np.where((x > -3) & (x < 1), 0.25, 0),
        "",
        {"alpha": 0.25, "beta": 0.75},
    ),
    "LogSigmoid": Oracle(LogSigmoid, special.log_expit, lambda x: special.expit(-x), "logsigmoid"),
    "ReLU6": Oracle(ReLU6, lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6.0), "relu6"),
    "HardTanh": Oracle(HardTanh, lambda x: np.clip(x, -1, 1), lambda x: np.abs(x) < 1, "hardtanh"),
    "HardTanh(-1.5, 2)": Oracle(
        HardTanh,
        lambda x: np.clip(x, -1.5, 2),
        lambda x: (x > -1.5) & (x < 2),
        "hardtanh",
        {"min_val": -1.5, "max_val": 2.0},
    ),
    "Clip": Oracle(
        Clip, lambda x: np.clip(x, -1.5, 2), lambda x: (x >= -1.5) & (x <= 2), "clamp", {"min": -1.5, "max": 2.0}
    ),
    "Clip(max)": Oracle(Clip, lambda x: np.minimum(x, -0.25), lambda x: x <= -0.25, "clamp", {"max": -0.25}),
    "Clip, limits in the wrong order": Oracle(
        Clip, lambda x: np.full(x.shape, 2.0), np.zeros_like, "clamp", {"min": 3.0, "max": 2.0}
    ),
    "Threshold": Oracle(
        Threshold,
        lambda x: np.where(x > 0.5, x, -7.0),
        lambda x: x > 0.5,
        "threshold",
        {"threshold": 0.5, "value": -7.0},
    ),
    "SoftShrink": Oracle(
        SoftShrink, lambda x: x - np.clip(x, -0.5, 0.5), lambda x: np.abs(x) > 0.5, "softshrink", {"lambd": 0.5}
    ),
    "SoftShrink(0)": Oracle(SoftShrink, lambda x: x, lambda x: x != 0, "softshrink", {"lambd": 0.0}),
    "HardShrink": Oracle(
        HardShrink,
        lambda x: np.where(np.abs(x) > 1.25, x, 0),
        lambda x: np.abs(x) > 1.25,
        "hardshrink",
        {"lambd": 1.25},
    ),
    "TanhShrink": Oracle(
        TanhShrink,
        lambda x: np.where(np.abs(x) < 0.01, x**3 / 3 - 2 * x**5 / 15 + 17 * x**7 / 315, x - np.tanh(x)),
        lambda x: np.tanh(x) ** 2,
        "tanhshrink",
    ),
}
each = pytest.mark.parametrize("oracle", ORACLES.values(), ids=ORACLES)


def of_pytorch(torch, oracle):
    """PyTorch's function with the oracle's options."""
    if not oracle.pytorch:
        return lambda x: torch.nn.functional.hardtanh(x * oracle.options["alpha"] + oracle.options["beta"], 0.0, 1.0)
    named = getattr(torch.nn.functional, oracle.pytorch, None) or getattr(torch, oracle.pytorch)
    return partial(named, **oracle.options)


def both(oracle, x, dy):
    """``(y, dx)`` by the functions that the layer names."""
    y = oracle.layer.function(x, **oracle.options)
    return y, oracle.layer.gradient(dy, y if oracle.layer.from_output else x, **oracle.options)


@pytest.mark.parametrize("dtype", DTYPES)
@each
def test_values_and_gradients_match_the_formulas(at, rng, oracle, dtype):
    x, dy = VALUES.astype(dtype), rng.standard_normal(VALUES.shape).astype(dtype)
    wide = x.astype(np.float64)
    y, dx = both(oracle, at.put(x), at.put(dy))
    assert_match(y, oracle.f(wide), backend=at.backend, dtype=dtype)
    assert_match(dx, dy.astype(np.float64) * oracle.slope(wide), backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in ORACLES if name != "GELU(tanh)"])
def test_small_values_keep_their_digits(at, name, dtype):
    # entry by entry: a tolerance relative to the largest would not see the smaller; 1 + tanh has none to keep
    x = VALUES[np.abs(VALUES) < 7].astype(dtype)
    desired = ORACLES[name].f(x.astype(np.float64))
    actual = at.get(ORACLES[name].layer.function(at.put(x), **ORACLES[name].options)).astype(np.float64)
    zero = desired == 0
    assert not actual[zero].any()
    ratio = (actual[~zero] / desired[~zero]).astype(dtype)
    assert_match(ratio, np.ones(ratio.shape), level="network", dtype=dtype)


@each
def test_values_and_gradients_match_pytorch(torch, rng, oracle):
    tx, dy = torch.tensor(VALUES, requires_grad=True), rng.standard_normal(VALUES.shape)
    ty = of_pytorch(torch, oracle)(tx)
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    y, dx = both(oracle, VALUES, dy)
    assert_match(y, ty.detach())
    if oracle.layer is HardSigmoid:  # in float64 PyTorch's slope is 1/6 rounded to float32
        dx, tdx = dx.astype(np.float32), tdx.to(torch.float32)
    assert_match(dx, tdx)


@each
def test_infinity_matches_pytorch_unless_that_is_nan(torch, oracle):
    """`test_limits.py` has the limits where PyTorch returns NaN."""
    x = np.array([INF, -INF])
    y, ty = (
        oracle.layer.function(x, **oracle.options),
        of_pytorch(torch, oracle)(torch.tensor(x)),
    )
    assert_match(np.where(np.isnan(ty), ty, y), ty)


@each
def test_nothing_overflows_or_warns_far_from_zero(at, oracle):
    x, dy = FAR.astype(np.float32), np.ones(FAR.shape, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, dx = both(oracle, at.put(x), at.put(dy))
    for a, d in ((y, oracle.f), (dx, oracle.slope)):
        for found, wanted in zip(at.get(a), d(x.astype(np.float64)), strict=True):
            # entry by entry, relative to at least 1: near exp(-90) float32 has no normal numbers to compare
            assert_match(np.asarray([found, 1], np.float32), np.asarray([wanted, 1]), dtype="float32")


@pytest.mark.usefixtures("array_functions")
@each
def test_layer_matches_the_functions(at, rng, oracle):
    x, dy = at.put(VALUES, "float32"), at.put(rng.standard_normal(VALUES.shape), "float32")
    layer = oracle.layer(**oracle.options, backend=at.backend)
    for a, d in zip((layer(x), layer.backward(dy)), both(oracle, x, dy), strict=True):
        assert_match(a, d, level="exact", backend=at.backend)


@each
def test_backward_of_the_layer_is_the_derivative_of_its_forward(oracle, rng):
    x = rng.uniform(0.1, 2.5, (3, 4, 2)) * rng.choice([-1, 1], (3, 4, 2))
    gradcheck(oracle.layer(**oracle.options, dtype="float64"), x[np.newaxis])


@each
def test_nan_makes_only_its_own_entry_nan(at, oracle):
    y, dx = both(oracle, at.put([NAN, 0.5]), at.put([1.0, 1.0]))
    assert np.isnan(at.get(y)).tolist() == [True, False]
    assert np.isfinite(at.get(dx)[1])


@each
def test_any_shape_is_accepted(at, oracle):
    for shape in ((), (3,), (0, 4), (2, 1, 3, 1)):
        y, dx = both(oracle, at.put(np.full(shape, 0.5, np.float32)), at.put(np.ones(shape, np.float32)))
        assert_match(y, oracle.f(np.full(shape, 0.5)), backend=at.backend, dtype="float32")
        assert dx.shape == shape


@each
def test_inputs_may_be_strided_and_are_not_changed(at, oracle):
    host = np.linspace(-4, 4, 24, dtype=np.float32).reshape(4, 6)
    wide, dy = at.put(host.copy()), at.put(np.ones((3, 4), np.float32))
    y, dx = both(oracle, at.xp.permute_dims(wide, (1, 0))[::2, :], dy)
    plain = np.ascontiguousarray(host.T[::2])
    for a, d in zip((y, dx), both(oracle, at.put(plain), dy), strict=True):
        assert_match(a, at.get(d))
    y[...], dx[...] = 9.0, 9.0
    assert_match(wide, host, level="exact")
    assert_match(dy, np.ones((3, 4), np.float32), level="exact")


@each
def test_integers_and_mixed_dtypes_are_an_error(oracle):
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64 array of numpy"):
        oracle.layer.function(np.zeros((2, 3), np.int64), **oracle.options)
    with pytest.raises(TypeError, match="mixed dtypes"):
        oracle.layer.gradient(np.zeros(3, np.float32), np.zeros(3), **oracle.options)


@each
def test_repr_is_the_call_that_makes_the_layer(oracle):
    layer = oracle.layer(**oracle.options)
    made = eval(repr(layer), vars(module))
    assert type(made) is type(layer)
    assert repr(made) == repr(layer)
    assert all(getattr(made, name) == value for name, value in oracle.options.items())


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (LeakyReLU, {"negative_slope": "0.1"}, "negative_slope must be a finite number, got '0.1'"),
        (LeakyReLU, {"negative_slope": NAN}, "negative_slope must be a finite number, got nan"),
        (ELU, {"alpha": INF}, "alpha must be a finite number, got inf"),
        (CELU, {"alpha": 0}, "alpha must be a number > 0, got 0"),
        (CELU, {"alpha": True}, "alpha must be a number > 0, got True"),
        (HardSigmoid, {"alpha": 0.0}, "alpha must be a number > 0, got 0.0"),
        (HardSigmoid, {"beta": NAN}, "beta must be a finite number, got nan"),
        (HardTanh, {"min_val": 2.0}, "min_val must be below max_val, got 2.0 and 1.0"),
        (HardTanh, {"max_val": NAN}, "max_val must be a number, got nan"),
        (Clip, {"min": NAN}, "min must be a number, got nan"),
        (Clip, {"max": "1"}, "max must be a number, got '1'"),
        (Threshold, {"threshold": INF, "value": 0.0}, "threshold must be a finite number, got inf"),
        (SoftShrink, {"lambd": -0.5}, "lambd must be a number >= 0, got -0.5"),
        (HardShrink, {"lambd": -0.5}, "lambd must be a number >= 0, got -0.5"),
        (Softplus, {"beta": 0.0}, "beta must be a number > 0, got 0.0"),
        (Softplus, {"threshold": None}, "threshold must be a finite number, got None"),
        (GELU, {"approximate": "erf"}, "approximate must be 'none' or 'tanh', got 'erf'"),
        (GELU, {"approximate": True}, "approximate must be 'none' or 'tanh', got True"),
    ],
)
def test_option_out_of_range_is_an_error_at_once(layer, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(**options)
