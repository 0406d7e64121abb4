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

Exponentials are of ``min(x, 0)``, so nothing overflows. For NaN both the result and the gradient are NaN; PyTorch's
gradient is finite there for most of these.

Sources: K. He et al., 2015 (PReLU); D.-A. Clevert et al., 2016 (ELU); J. Barron, 2017 (CELU); G. Klambauer et al.,
"Self-normalizing neural networks", 2017 (SELU).
"""

from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import require_shape
from ..core.elementwise import keep_nan, zero
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import constant
from .base import Activation, prepare, prepare_gradient

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@without_graph
def relu(x: Array, *, xp: Namespace | None = None) -> Array:
    """``max(x, 0)``; -0 becomes 0."""
    xp = prepare(xp, input=x)
    return operations_of(xp).relu(x)


@without_graph
def relu_backward(dy: Array, y: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where the output ``y`` (or the input) is above 0, else 0; NaN where it is NaN."""
    xp = prepare_gradient(xp, dy=dy, y=y)
    return operations_of(xp).relu_backward(dy, y)


@without_graph
def leaky_relu(x: Array, *, negative_slope: float = 0.01, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``negative_slope * x``; with a slope of 0 this is `relu`, for minus infinity too."""
    xp, negative_slope = prepare(xp, input=x), checks.number("negative_slope", negative_slope)
    if 0.0 < negative_slope <= 1.0:
        # On a CPU this needs a tenth of the time of `where`, which branches.
        return xp.maximum(x, x * negative_slope)
    return xp.where(x > 0.0, x, x * negative_slope) if negative_slope else relu(x, xp=xp)


@without_graph
def leaky_relu_backward(dy: Array, x: Array, *, negative_slope: float = 0.01, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above 0, else ``negative_slope * dy``."""
    xp, negative_slope = prepare_gradient(xp, dy=dy, input=x), checks.number("negative_slope", negative_slope)
    return keep_nan(xp.where(x > 0.0, dy, dy * negative_slope), x, xp)


@without_graph
def prelu(x: Array, weight: Array, *, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``weight * x``, for ``x (N, C, ...)`` and ``weight (C,)`` or ``(1,)``."""
    xp = prepare(xp, input=x, weight=weight)
    slope = xp.broadcast_to(_by_channel(x, weight, xp), x.shape)
    return operations_of(xp).elementwise(lambda x, slope: xp.where(x > 0.0, x, x * slope), x, slope)


@without_graph
def prelu_backward(dy: Array, x: Array, weight: Array, *, xp: Namespace | None = None) -> tuple[Array, Array]:
    """``(dx, dweight)``: ``dx = dy`` or ``weight * dy``; ``dweight`` sums ``dy * x`` over ``x <= 0``, by channel."""
    xp = prepare(xp, dy=dy, input=x, weight=weight)
    require_shape(dy, tuple(x.shape), "dy")
    ops, slope = operations_of(xp), xp.broadcast_to(_by_channel(x, weight, xp), x.shape)
    share = ops.elementwise(lambda x, dy: xp.where(x > 0.0, zero(x, xp), dy * x), x, dy)
    is_shared = weight.shape[0] == 1
    dweight = xp.reshape(xp.sum(share), (1,)) if is_shared else xp.sum(share, axis=(0, *range(2, x.ndim)))
    dx = ops.elementwise(lambda x, dy, slope: keep_nan(xp.where(x > 0.0, dy, dy * slope), x, xp), x, dy, slope)
    return dx, dweight


@without_graph
def elu(x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``alpha * (exp(x) - 1)``."""
    xp, alpha = prepare(xp, input=x), checks.number("alpha", alpha)
    return xp.where(x > 0.0, x, xp.expm1(_below(x, xp)) * alpha)


@without_graph
def elu_backward(dy: Array, x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above 0, else ``alpha * exp(x) * dy``."""
    xp, alpha = prepare_gradient(xp, dy=dy, input=x), checks.number("alpha", alpha)
    return xp.where(x > 0.0, dy, dy * (xp.exp(_below(x, xp)) * alpha))


@without_graph
def celu(x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``x`` above 0, else ``alpha * (exp(x / alpha) - 1)``."""
    xp, alpha = prepare(xp, input=x), checks.number("alpha", alpha, above=0.0)
    return xp.where(x > 0.0, x, xp.expm1(_below(x, xp) * (1.0 / alpha)) * alpha)


@without_graph
def celu_backward(dy: Array, x: Array, *, alpha: float = 1.0, xp: Namespace | None = None) -> Array:
    """``dx = dy`` where ``x`` is above 0, else ``exp(x / alpha) * dy``."""
    xp, alpha = prepare_gradient(xp, dy=dy, input=x), checks.number("alpha", alpha, above=0.0)
    return xp.where(x > 0.0, dy, dy * xp.exp(_below(x, xp) * (1.0 / alpha)))


@without_graph
def selu(x: Array, *, xp: Namespace | None = None) -> Array:
    """``scale * x`` above 0, else ``scale * alpha * (exp(x) - 1)``."""
    xp = prepare(xp, input=x)
    return xp.where(x > 0.0, x * SELU_SCALE, xp.expm1(_below(x, xp)) * (SELU_SCALE * SELU_ALPHA))


@without_graph
def selu_backward(dy: Array, x: Array, *, xp: Namespace | None = None) -> Array:
    """``dx = scale * dy`` where ``x`` is above 0, else ``scale * alpha * exp(x) * dy``."""
    xp = prepare_gradient(xp, dy=dy, input=x)
    return xp.where(x > 0.0, dy * SELU_SCALE, dy * (xp.exp(_below(x, xp)) * (SELU_SCALE * SELU_ALPHA)))


def _below(x: Array, xp: Namespace) -> Array:
    """``min(x, 0)``."""
    return xp.where(x > 0.0, zero(x, xp), x)


def _require_slopes(shape: Shape, weight: Shape) -> None:
    if len(weight) != 1 or (weight[0] != 1 and (len(shape) < 2 or weight[0] != shape[1])):
        raise ValueError(f"weight must have shape (1,) or (channels,), got {weight} for an input of shape {shape}")


def _by_channel(x: Array, weight: Array, xp: Namespace) -> Array:
    """The weight, reshaped to broadcast to ``x (N, C, ...)``."""
    _require_slopes(tuple(x.shape), tuple(weight.shape))
    if not x.ndim:
        return xp.reshape(weight, ())
    return weight if weight.shape[0] == 1 else xp.reshape(weight, (1, weight.shape[0], *(1,) * (x.ndim - 2)))


class ReLU(Activation):
    """``max(x, 0)``; see `relu`."""

    accepts_stored = True
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
        Initial value of the slopes.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("num_parameters", 1), ("init", 0.25))

    def __init__(self, num_parameters: int = 1, init: float = 0.25, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.num_parameters = checks.integer("num_parameters", num_parameters, 1)
        self.init = checks.number("init", init)
        self.add_parameter("weight", (self.num_parameters,), constant(self.init))

    def _output_shape(self, shape: Shape) -> Shape:
        _require_slopes(shape, (self.num_parameters,))
        return shape

    def _forward(self, x: Array) -> Array:
        y = prelu(x, self.parameter_value("weight"), xp=self.backend.xp)
        self.save_for_backward(x)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self.saved
        dx, dweight = prelu_backward(dy, x, self.parameter_value("weight"), xp=self.backend.xp)
        self.accumulate_grad("weight", dweight)
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
