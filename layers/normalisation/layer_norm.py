"""Layer normalisation: of each sample over its last axes.

The formulas are in `xpnn.layers.normalisation.norm`.

Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import constant
from ..windows.geometry import Size
from .layout import layer_layout
from .norm import OPTIONAL, Norm, differentiate, normalise


@without_graph
def layer_norm(
    x: Array,
    normalized_shape: Size,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    xp: Namespace | None = None,
) -> Array:
    """Normalise ``x (..., *D)`` over its last axes, ``normalized_shape = D``.

    Then multiply by ``weight (*D)`` and add ``bias (*D)``, if they are given.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit together or mixed dtypes.
    """
    xp = namespace(xp, OPTIONAL, input=x, weight=weight, bias=bias)
    layout = layer_layout(tuple(x.shape), sizes_of(normalized_shape))
    return normalise(x, weight, bias, layout, eps=eps, xp=xp)[0]


@without_graph
def layer_norm_backward(
    dy: Array,
    x: Array,
    normalized_shape: Size,
    weight: Array | None = None,
    *,
    eps: float = 1e-5,
    input_grad: bool = True,
    xp: Namespace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of `layer_norm` for ``dy (..., *D)``: ``(dx, dweight, dbias)``.

    The options are those of `layer_norm`; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight)
    layout = layer_layout(tuple(x.shape), sizes_of(normalized_shape))
    return differentiate(dy, x, weight, layout, eps=eps, input_grad=input_grad, xp=xp)


def sizes_of(normalized_shape: Size) -> tuple[int, ...]:
    """The argument `normalized_shape` as a tuple of sizes."""
    normalized_shape = checks.listed(normalized_shape)
    sizes = normalized_shape if checks.is_sequence(normalized_shape) else (normalized_shape,)
    return checks.shape("normalized_shape", sizes, 1, "an integer >= 1, or one for each of the last axes")


class LayerNorm(Norm):
    """Normalise over the last axes; see `layer_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last axes.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there is a trained ``weight`` of that shape, initially ones.
    bias : bool
        Whether there is also a trained ``bias`` of that shape, initially zeros.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    accepts_stored = True
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("normalized_shape", ...),
        ("eps", 1e-5),
        ("elementwise_affine", True),
        ("bias", True),
    )

    def __init__(
        self,
        normalized_shape: Size,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.normalized_shape, self.eps = sizes_of(normalized_shape), float(checks.number("eps", eps, least=0.0))
        self.elementwise_affine = checks.flag("elementwise_affine", elementwise_affine)
        self.bias = checks.flag("bias", bias)
        if self.elementwise_affine:
            self.add_parameter("weight", self.normalized_shape, constant(1.0))
        if self.elementwise_affine and self.bias:
            self.add_parameter("bias", self.normalized_shape, constant(0.0))

    def _output_shape(self, shape: Shape) -> Shape:
        layer_layout(shape, self.normalized_shape)
        return shape

    def _forward(self, x: Array) -> Array:
        return self._normalise(x, layer_layout(tuple(x.shape), self.normalized_shape))[0]
