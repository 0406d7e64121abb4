"""Root mean square normalisation: of each sample over its last axes, without subtracting a mean.

With ``m`` values along the last axes ``D``, and weight ``w (*D)``::

    r = 1 / sqrt(sum(x^2) / m + eps)        xhat = x * r        y = xhat * w

    dx = (g - xhat * mean(g * xhat)) * r    with g = dy * w
    dweight = sum(dy * xhat)                over all other axes

Without ``eps`` it is the distance from 1 to the next number of the dtype, as in PyTorch; in exact numerics, which
stores float32, that of float32.

Source: B. Zhang and R. Sennrich, "Root mean square layer normalization", 2019.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import namespace, require_same_dtype, require_shape
from ..core.elementwise import scalar
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import constant
from ..windows.geometry import Size
from .layer_norm import sizes_of
from .layout import Layout, layer_layout
from .norm import OPTIONAL, total

# The distance from 1 to the next number.
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


@without_graph
def rms_norm(
    x: Array,
    normalized_shape: Size,
    weight: Array | None = None,
    *,
    eps: float | None = None,
    xp: Namespace | None = None,
) -> Array:
    """Divide ``x (..., *D)`` by its root mean square over the last axes, ``normalized_shape = D``.

    Then multiply by ``weight (*D)``, if it is given.

    Parameters
    ----------
    x, weight : array
        Of one dtype, float32 or float64.
    normalized_shape : int or sequence of int
        Sizes of the last axes.
    eps : float, optional
        Added to the mean square; the distance from 1 to the next number of the dtype unless given.
    xp : namespace, optional
        The inputs' own unless given.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit together or mixed dtypes.
    """
    xp = namespace(xp, OPTIONAL, input=x, weight=weight)
    require_same_dtype(input=x, weight=weight)
    layout = _layout(tuple(x.shape), normalized_shape, weight)
    y = x * _inverse_root(x, layout, eps, xp)
    return y if weight is None else y * weight


@without_graph
def rms_norm_backward(
    dy: Array,
    x: Array,
    normalized_shape: Size,
    weight: Array | None = None,
    *,
    eps: float | None = None,
    input_grad: bool = True,
    xp: Namespace | None = None,
) -> tuple[Array | None, Array]:
    """Gradients of `rms_norm` for ``dy (..., *D)``: ``(dx, dweight)``.

    The options are those of `rms_norm`; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight)
    require_same_dtype(dy=dy, input=x, weight=weight)
    require_shape(dy, tuple(x.shape), "dy")
    layout = _layout(tuple(x.shape), normalized_shape, weight)
    inverse_root = _inverse_root(x, layout, eps, xp)
    normal = x * inverse_root
    dweight = total(dy * normal, tuple(range(layout.axes[0])), xp)
    dweight = xp.reshape(dweight, layout.weight)
    if not checks.flag("input_grad", input_grad):
        return None, dweight
    g = dy if weight is None else dy * weight
    mean = total(g * normal, layout.axes, xp) / scalar(layout.cells, x, xp)
    return (g - normal * mean) * inverse_root, dweight


def _layout(shape: Shape, normalized_shape: Size, weight: Array | None) -> Layout:
    layout = layer_layout(shape, sizes_of(normalized_shape))
    if weight is not None:
        require_shape(weight, layout.weight, "weight")
    return layout


def _inverse_root(x: Array, layout: Layout, eps: float | None, xp: Namespace) -> Array:
    """``1 / sqrt(mean(x^2) + eps)``, with the last axes of size 1."""
    eps = _checked_eps(eps)
    if eps is None:
        # Exact numerics computes in float64 with numbers that are stored in float32.
        eps = EPSILON["float32" if hasattr(xp, "raw") else dtype_name(x.dtype)]
    square = total(x * x, layout.axes, xp) / scalar(layout.cells, x, xp)
    return 1.0 / xp.sqrt(square + eps)


def _checked_eps(eps: float | None) -> float | None:
    return None if eps is None else float(checks.number("eps", eps, least=0.0))


class RMSNorm(Layer):
    """Divide by the root mean square over the last axes; see `rms_norm`.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the last axes.
    eps : float, optional
        Added to the mean square; the distance from 1 to the next number of the dtype unless given.
    elementwise_affine : bool
        Whether there is a trained ``weight`` of that shape, initially ones.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("normalized_shape", ...),
        ("eps", None),
        ("elementwise_affine", True),
    )

    def __init__(
        self,
        normalized_shape: Size,
        eps: float | None = None,
        elementwise_affine: bool = True,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.normalized_shape, self.eps = sizes_of(normalized_shape), _checked_eps(eps)
        self.elementwise_affine = checks.flag("elementwise_affine", elementwise_affine)
        if self.elementwise_affine:
            self.add_parameter("weight", self.normalized_shape, constant(1.0))

    def _output_shape(self, shape: Shape) -> Shape:
        layer_layout(shape, self.normalized_shape)
        return shape

    def _forward(self, x: Array) -> Array:
        weight, xp = self.parameter_value("weight"), self.backend.xp
        self.save_for_backward(x)
        return rms_norm(x, self.normalized_shape, weight, eps=self.eps, xp=xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self.saved
        weight, xp = self.parameter_value("weight"), self.backend.xp
        dx, dweight = rms_norm_backward(
            dy, x, self.normalized_shape, weight, eps=self.eps, input_grad=input_grad, xp=xp
        )
        self.accumulate_grad("weight", dweight)
        return dx
