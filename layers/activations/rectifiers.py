"""Rectifiers: the identity above 0, something smaller below.

================  =======================================  ======================  ==========
layer             f(x) for x <= 0 (above: x)               f'(x) for x <= 0        f'(0)
================  =======================================  ======================  ==========
ReLU              0                                        0                       0
LeakyReLU         slope * x                                slope                   slope
PReLU             weight[c] * x                            weight[c]               weight[c]
ELU               alpha * (exp(x) - 1)                     alpha * exp(x)          alpha
CELU              alpha * (exp(x / alpha) - 1)             exp(x / alpha)          1
SELU              scale * alpha * (exp(x) - 1)             scale * alpha * exp(x)  scale*alpha
                  (above: scale * x, slope scale)
================  =======================================  ======================  ==========

Exponentials are of ``min(x, 0)``, so nothing overflows; NaN stays NaN.

Sources: K. He et al., 2015 (PReLU); D.-A. Clevert et al., 2016 (ELU); J. Barron, 2017 (CELU); G. Klambauer et al.,
"Self-normalizing neural networks", 2017 (SELU).
"""

from typing import Any, ClassVar, Unpack

from ...backends import checks, primitives
from ...backends.types import Array, Namespace
from ..arrays import require_shape, zero
from ..base import Layer
from ..initialisers import constant
from ..placement import Placement
from .base import Activation, prepare, prepare_gradient

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def relu(x: Array, *, xp: Namespace | None = None) -> Array:
    """``max(x, 0)``; -0 becomes 0."""
    xp = prepare(xp, input=x)
    return primitives(xp).positive(x)


def relu_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where the output ``y`` (or the input) is above 0, else 0."""
    xp = prepare_gradient(xp, dy=dy, y=y)
    return primitives(xp).gate(dy, y)


def leaky_relu(x: Array, *, negative_slope: float = 0.01, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``negative_slope * x``."""
    xp, negative_slope = prepare(xp, input=x), checks.number("negative_slope", negative_slope)
    return xp.where(x > 0.0, x, x * negative_slope)


def leaky_relu_backward(dy: Array, x: Array, *, negative_slope: float = 0.01, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above 0, else ``negative_slope * dy``."""
    xp, negative_slope = prepare_gradient(xp, dy=dy, input=x), checks.number("negative_slope", negative_slope)
    return xp.where(x > 0.0, dy, dy * negative_slope)


def prelu(x: Array, weight: Array, *, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``weight * x``, for ``x (N, C, ...)`` and ``weight (C,)`` or ``(1,)``."""
    xp = prepare(xp, input=x, weight=weight)
    slope = xp.broadcast_to(_by_channel(x, weight, xp), x.shape)
    return primitives(xp).elementwise(lambda x, slope: xp.where(x > 0.0, x, x * slope), x, slope)


def prelu_backward(dy: Array, x: Array, weight: Array, *, xp: Namespace | None = None) -> tuple[Array, Array]:
    """``(dx, dweight)``: ``dx = dy`` or ``weight * dy``; ``dweight`` sums ``dy * x`` over ``x <= 0``, by channel."""
    xp = prepare(xp, dy=dy, input=x, weight=weight)
    require_shape(dy, tuple(x.shape), "dy")
    engine, slope = primitives(xp), xp.broadcast_to(_by_channel(x, weight, xp), x.shape)
    share = engine.elementwise(lambda x, dy: xp.where(x > 0.0, zero(x, xp), dy * x), x, dy)
    one_for_all = weight.shape[0] == 1
    dweight = xp.reshape(xp.sum(share), (1,)) if one_for_all else xp.sum(share, axis=(0, *range(2, x.ndim)))
    return engine.elementwise(lambda x, dy, slope: xp.where(x > 0.0, dy, dy * slope), x, dy, slope), dweight


def elu(x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``alpha * (exp(x) - 1)``."""
    xp, alpha = prepare(xp, input=x), checks.number("alpha", alpha)
    return xp.where(x > 0.0, x, xp.expm1(_below(x, xp)) * alpha)


def elu_backward(dy: Array, x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above 0, else ``alpha * exp(x) * dy``."""
    xp, alpha = prepare_gradient(xp, dy=dy, input=x), checks.number("alpha", alpha)
    return xp.where(x > 0.0, dy, dy * (xp.exp(_below(x, xp)) * alpha))


def celu(x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``alpha * (exp(x / alpha) - 1)``."""
    xp, alpha = prepare(xp, input=x), checks.number("alpha", alpha, above=0.0)
    return xp.where(x > 0.0, x, xp.expm1(_below(x, xp) * (1.0 / alpha)) * alpha)


def celu_backward(dy: Array, x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above 0, else ``exp(x / alpha) * dy``."""
    xp, alpha = prepare_gradient(xp, dy=dy, input=x), checks.number("alpha", alpha, above=0.0)
    return xp.where(x > 0.0, dy, dy * xp.exp(_below(x, xp) * (1.0 / alpha)))


def selu(x: Array, *, xp: Namespace | None = None) -> Array:
    """``scale * x`` above 0, else ``scale * alpha * (exp(x) - 1)``."""
    xp = prepare(xp, input=x)
    return xp.where(x > 0.0, x * SELU_SCALE, xp.expm1(_below(x, xp)) * (SELU_SCALE * SELU_ALPHA))


def selu_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = scale * dy`` where ``x`` is above 0, else ``scale * alpha * exp(x) * dy``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    return xp.where(x > 0.0, dy * SELU_SCALE, dy * (xp.exp(_below(x, xp)) * (SELU_SCALE * SELU_ALPHA)))


def _below(x: Array, xp: Namespace) -> Array:
    """``min(x, 0)``."""
    return xp.where(x > 0.0, zero(x, xp), x)


def _by_channel(x: Array, weight: Array, xp: Namespace) -> Array:
    """A slope for each channel, to be multiplied with ``x (N, C, ...)``."""
    if weight.ndim != 1 or (weight.shape[0] != 1 and (x.ndim < 2 or weight.shape[0] != x.shape[1])):
        shapes = f"weight has shape {tuple(weight.shape)}, the input {tuple(x.shape)}"
        raise ValueError(f"{shapes}; a weight has shape (1,) or (channels,)")
    return weight if weight.shape[0] == 1 else xp.reshape(weight, (1, weight.shape[0], *(1,) * (x.ndim - 2)))


class ReLU(Activation):
    """``max(x, 0)``; see `relu`."""

    function = staticmethod(relu)
    gradient = staticmethod(relu_backward)
    from_output = True
    in_parts = False


class LeakyReLU(Activation):
    """``x`` above 0, else ``negative_slope * x``; see `leaky_relu`."""

    function = staticmethod(leaky_relu)
    gradient = staticmethod(leaky_relu_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("negative_slope", 0.01),)

    def __init__(self, negative_slope: float = 0.01, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.negative_slope = checks.number("negative_slope", negative_slope)


class PReLU(Layer):
    """A leaky ReLU whose slope is trained, one for all channels or one each; see `prelu`.

    Parameters
    ----------
    num_parameters : int
        1, or the number of channels.
    init : float
        Where the slopes start.
    **placement
        See `xpnn.layers.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("num_parameters", 1), ("init", 0.25))

    def __init__(self, num_parameters: int = 1, init: float = 0.25, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.num_parameters = checks.integer("num_parameters", num_parameters, 1)
        self.init = checks.number("init", init)
        self._add_parameter("weight", (self.num_parameters,), constant(self.init))

    def _forward(self, x: Array) -> Array:
        y = prelu(x, self._value("weight"), xp=self.backend.xp)
        self._save(x)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self._saved
        dx, dweight = prelu_backward(dy, x, self._value("weight"), xp=self.backend.xp)
        self._accumulate("weight", dweight)
        return dx


class ELU(Activation):
    """``x`` above 0, else ``alpha * (exp(x) - 1)``; see `elu`."""

    function = staticmethod(elu)
    gradient = staticmethod(elu_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("alpha", 1.0),)

    def __init__(self, alpha: float = 1.0, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.alpha = checks.number("alpha", alpha)


class CELU(Activation):
    """``x`` above 0, else ``alpha * (exp(x / alpha) - 1)``, ``alpha > 0``; see `celu`."""

    function = staticmethod(celu)
    gradient = staticmethod(celu_backward)
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("alpha", 1.0),)

    def __init__(self, alpha: float = 1.0, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.alpha = checks.number("alpha", alpha, above=0.0)


class SELU(Activation):
    """The self-normalising ELU; see `selu`."""

    function = staticmethod(selu)
    gradient = staticmethod(selu_backward)
