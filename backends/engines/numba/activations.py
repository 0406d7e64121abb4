"""Activations and their gradients, each in one pass: `xpnn.layers.activations` has the formulas and their sources."""

from math import inf, pi, sqrt
from typing import Any

from ....common.types import Array
from .elementwise import COSTLY_ITEM_ENTRIES, apply, binary, unary
from .jobs import Job
from .vector_math import Vector, erfc, exp, expm1, log1p, magnitude, sigmoid, tanh, where

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_CUBIC, _ROOT = 0.044715, sqrt(2.0 / pi)
# Inputs are clamped to these, so that nothing overflows or is infinity times 0.
_LIMIT, _LARGE = 1000.0, 1e30


def _leaky_relu(x: Vector, slope: Vector, _: Vector) -> Vector:
    return where(x > 0.0, x, x * slope)


def _leaky_relu_backward(dy: Vector, x: Vector, slope: Vector, _: Vector) -> Vector:
    return where(x.is_number(), where(x > 0.0, dy, dy * slope), x)


def _elu(x: Vector, alpha: Vector, _: Vector) -> Vector:
    return where(x > 0.0, x, expm1(_below(x)) * alpha)


def _elu_backward(dy: Vector, x: Vector, alpha: Vector, _: Vector) -> Vector:
    return where(x > 0.0, dy, dy * (exp(_below(x)) * alpha))


def _celu(x: Vector, alpha: Vector, inverse: Vector) -> Vector:
    return where(x > 0.0, x, expm1(_below(x) * inverse) * alpha)


def _celu_backward(dy: Vector, x: Vector, _alpha: Vector, inverse: Vector) -> Vector:
    return where(x > 0.0, dy, dy * exp(_below(x) * inverse))


def _selu(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return where(x > 0.0, x * _SELU_SCALE, expm1(_below(x)) * (_SELU_SCALE * _SELU_ALPHA))


def _selu_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    return where(x > 0.0, dy * _SELU_SCALE, dy * (exp(_below(x)) * (_SELU_SCALE * _SELU_ALPHA)))


def _below(x: Vector) -> Vector:
    """``min(x, 0)``."""
    return where(x > 0.0, 0.0, x)


def _logistic(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return sigmoid(x)


def _logistic_backward(dy: Vector, y: Vector, _a: Vector, _b: Vector) -> Vector:
    return dy * (y * (1.0 - y))


def _hyperbolic_tangent(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return tanh(x)


def _hyperbolic_tangent_backward(dy: Vector, y: Vector, _a: Vector, _b: Vector) -> Vector:
    return dy * (1.0 - y * y)


def _softsign(x: Vector, _a: Vector, _b: Vector) -> Vector:
    near = x.clamped(-_LARGE, _LARGE)
    return near / (1.0 + magnitude(near))


def _softsign_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    inverse = 1.0 / (1.0 + magnitude(x))
    return dy * (inverse * inverse)


def _hard_sigmoid(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return (x + 3.0).clamped(0.0, 6.0) * (1.0 / 6.0)


def _hard_sigmoid_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    return where(x.is_number(), where(magnitude(x) < 3.0, dy * (1.0 / 6.0), 0.0), x)


def _hard_swish(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return x.at_least(-3.0) * ((x + 3.0).clamped(0.0, 6.0) * (1.0 / 6.0))


def _hard_swish_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    slope = x.clamped(-3.0, 3.0) * (1.0 / 3.0) + 0.5
    return where(x >= 3.0, dy, where(x <= -3.0, 0.0, dy * slope))


def _clip(x: Vector, low: Vector, high: Vector) -> Vector:
    raised = where(x <= low, low, x)
    return where(raised >= high, high, raised)


def _clip_backward(dy: Vector, x: Vector, low: Vector, high: Vector) -> Vector:
    return where(x < low, 0.0, where(x > high, 0.0, where(x.is_number(), dy, x)))


def _hard_tanh_backward(dy: Vector, x: Vector, low: Vector, high: Vector) -> Vector:
    return where(x <= low, 0.0, where(x >= high, 0.0, where(x.is_number(), dy, x)))


def _threshold(x: Vector, least: Vector, value: Vector) -> Vector:
    return where(x <= least, value, x)


def _threshold_backward(dy: Vector, x: Vector, least: Vector, _: Vector) -> Vector:
    return where(x <= least, 0.0, where(x.is_number(), dy, x))


def _soft_shrink(x: Vector, lambd: Vector, _: Vector) -> Vector:
    return where(x > lambd, x - lambd, where(x < -lambd, x + lambd, where(x.is_number(), 0.0, x)))


def _hard_shrink(x: Vector, lambd: Vector, _: Vector) -> Vector:
    return where(magnitude(x) <= lambd, 0.0, x)


def _shrink_backward(dy: Vector, x: Vector, lambd: Vector, _: Vector) -> Vector:
    return where(magnitude(x) <= lambd, 0.0, where(x.is_number(), dy, x))


def _log_sigmoid(x: Vector, _a: Vector, _b: Vector) -> Vector:
    return where(x < 0.0, x, 0.0) - log1p(exp(-magnitude(x)))


def _log_sigmoid_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    return dy * sigmoid(-x)


def _softplus(x: Vector, beta: Vector, threshold: Vector) -> Vector:
    scaled = x * beta
    smooth = (where(scaled < 0.0, 0.0, scaled) + log1p(exp(-magnitude(scaled)))) / beta
    return where(scaled > threshold, x, smooth)


def _softplus_backward(dy: Vector, x: Vector, beta: Vector, threshold: Vector) -> Vector:
    scaled = x * beta
    return where(scaled > threshold, dy, dy * sigmoid(scaled))


def _silu(x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.at_least(-_LIMIT)
    return x * sigmoid(x)


def _silu_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.clamped(-_LIMIT, _LIMIT)
    s = sigmoid(x)
    return dy * (s * (1.0 + x * (1.0 - s)))


def _mish(x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.at_least(-_LIMIT)
    return x * _mish_parts(x)[0]


def _mish_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.clamped(-_LIMIT, _LIMIT)
    t, rest = _mish_parts(x)
    return dy * (t + x * sigmoid(x) * rest)


def _mish_parts(x: Vector) -> tuple[Vector, Vector]:
    """``t = tanh(log(1 + exp(x)))`` and ``1 - t^2``, as fractions in ``w = exp(-|x|)``."""
    w, right = exp(-magnitude(x)), x >= 0.0
    above = where(right, 1.0 + 2.0 * w, w * (w + 2.0))
    excess = where(right, 2.0 * w * w, 2.0)
    below = above + excess
    return above / below, excess * (2.0 * above + excess) / (below * below)


def _gelu(x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.at_least(-_LIMIT)
    return x * _normal_cdf(x)


def _gelu_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.clamped(-_LIMIT, _LIMIT)
    density = exp(x * x * -0.5) * (1.0 / sqrt(2.0 * pi))
    return dy * (_normal_cdf(x) + x * density)


def _gelu_tanh(x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.at_least(-_LIMIT)
    return x * _half_of_one_plus_tanh(where(x > _LIMIT, _LIMIT, x))


def _gelu_tanh_backward(dy: Vector, x: Vector, _a: Vector, _b: Vector) -> Vector:
    x = x.clamped(-_LIMIT, _LIMIT)
    s = _half_of_one_plus_tanh(x)
    slope = _ROOT * (1.0 + (3.0 * _CUBIC) * x * x)
    return dy * (s + x * (s * (1.0 - s)) * 2.0 * slope)


def _half_of_one_plus_tanh(x: Vector) -> Vector:
    """``(1 + tanh(u)) / 2`` of GELU's argument, as the sigmoid of ``2 u``, which keeps its digits near 0."""
    return sigmoid((x + x * x * x * _CUBIC) * (2.0 * _ROOT))


def _normal_cdf(x: Vector) -> Vector:
    return erfc(x * -sqrt(0.5)) * 0.5


#: By the name of the layer's function.
JOBS: dict[str, tuple[Job, Job]] = {
    "leaky_relu": (unary(_leaky_relu), binary(_leaky_relu_backward)),
    "elu": (unary(_elu), binary(_elu_backward)),
    "celu": (unary(_celu), binary(_celu_backward)),
    "selu": (unary(_selu), binary(_selu_backward)),
    "sigmoid": (unary(_logistic), binary(_logistic_backward)),
    "tanh": (unary(_hyperbolic_tangent), binary(_hyperbolic_tangent_backward)),
    "softsign": (unary(_softsign), binary(_softsign_backward)),
    "hard_sigmoid": (unary(_hard_sigmoid), binary(_hard_sigmoid_backward)),
    "hard_swish": (unary(_hard_swish), binary(_hard_swish_backward)),
    "hard_tanh": (unary(_clip), binary(_hard_tanh_backward)),
    "clip": (unary(_clip), binary(_clip_backward)),
    "threshold": (unary(_threshold), binary(_threshold_backward)),
    "soft_shrink": (unary(_soft_shrink), binary(_shrink_backward)),
    "hard_shrink": (unary(_hard_shrink), binary(_shrink_backward)),
    "log_sigmoid": (unary(_log_sigmoid), binary(_log_sigmoid_backward)),
    "softplus": (unary(_softplus), binary(_softplus_backward)),
    "silu": (unary(_silu), binary(_silu_backward)),
    "mish": (unary(_mish), binary(_mish_backward)),
    "gelu": (unary(_gelu), binary(_gelu_backward)),
    "gelu_tanh": (unary(_gelu_tanh), binary(_gelu_tanh_backward)),
}


class ActivationJobs:
    """An activation and its gradient, with its options."""

    def __init__(self, jobs: tuple[Job, Job], options: tuple[float, ...]) -> None:
        self.jobs, self.options = jobs, options

    def forward(self, x: Array) -> Array:
        """The activation of ``x``."""
        y: Array = apply(self.jobs[0], x, options=self.options, entries=COSTLY_ITEM_ENTRIES)
        return y

    def backward(self, dy: Array, saved: Array) -> Array:
        """``dx`` for ``dy`` and the input or output that the gradient is a function of."""
        dx: Array = apply(self.jobs[1], dy, saved, like=1, options=self.options, entries=COSTLY_ITEM_ENTRIES)
        return dx


def prepare(problem: tuple[str, str, tuple[Any, ...]], dtype: str) -> ActivationJobs | None:
    """The activation of a layer with a function and a gradient of these names, and its options."""
    name, gradient, options = problem
    if gradient != f"{name}_backward":
        return None
    if name == "gelu":
        name, options = ("gelu_tanh" if options == ("tanh",) else "gelu"), ()
    if name == "celu":
        options = (*options, 1.0 / options[0])
    if name == "relu6":
        name, options = "hard_tanh", (0.0, 6.0)
    if name == "clip":
        low, high = options
        options = (-inf if low is None else low, inf if high is None else high)
    # With a slope of 0 minus infinity must become 0, not NaN; the line of the hard sigmoid is PyTorch's.
    other = (name == "leaky_relu" and not options[0]) or (name == "hard_sigmoid" and options != (1.0 / 6.0, 0.5))
    if name not in JOBS or dtype not in ("float32", "float64") or other:
        return None
    return ActivationJobs(JOBS[name], options)
