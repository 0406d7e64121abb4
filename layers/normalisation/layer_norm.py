"""Normalisation within a sample: over its last axes, or over groups of its channels.

The formulas are in `xpnn.layers.normalisation.norm`.

Sources: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016; Y. Wu and K. He, "Group normalization", 2018.
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
from .norm import OPTIONAL, Layout, Norm, differentiate, group_layout, layer_layout, normalise


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

    Then multiply by ``weight (*D)`` and add ``bias (*D)``, where they are given.

    Raises
    ------
    ValueError, TypeError
        For shapes that don't fit together or mixed dtypes.
    """
    xp = namespace(xp, OPTIONAL, input=x, weight=weight, bias=bias)
    layout = layer_layout(tuple(x.shape), _sizes(normalized_shape))
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

    Takes what `layer_norm` took; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight)
    layout = layer_layout(tuple(x.shape), _sizes(normalized_shape))
    return differentiate(dy, x, weight, layout, eps=eps, input_grad=input_grad, xp=xp)


@without_graph
def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    xp: Namespace | None = None,
) -> Array:
    """Normalise each of ``num_groups`` groups of neighbouring channels of each sample of ``x (N, C, *S)``.

    Then multiply by ``weight (C,)`` and add ``bias (C,)``, where they are given.

    Raises
    ------
    ValueError, TypeError
        For channels that can't be split so, shapes that don't fit together, or mixed dtypes.
    """
    xp = namespace(xp, OPTIONAL, input=x, weight=weight, bias=bias)
    return normalise(x, weight, bias, group_layout(tuple(x.shape), num_groups), eps=eps, xp=xp)[0]


@without_graph
def group_norm_backward(
    dy: Array,
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    *,
    eps: float = 1e-5,
    input_grad: bool = True,
    xp: Namespace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of `group_norm` for ``dy (N, C, *S)``: ``(dx, dweight, dbias)``.

    Takes what `group_norm` took; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight)
    layout = group_layout(tuple(x.shape), num_groups)
    return differentiate(dy, x, weight, layout, eps=eps, input_grad=input_grad, xp=xp)


def _sizes(normalized_shape: Size) -> tuple[int, ...]:
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
        Whether there is a trained ``weight`` of that shape, ones at first.
    bias : bool
        Whether there is a trained ``bias`` beside it, zeros at first.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

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
        self.normalized_shape, self.eps = _sizes(normalized_shape), float(checks.number("eps", eps, least=0.0))
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


class GroupNorm(Norm):
    """Normalise groups of channels; see `group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        The second divisible by the first; as many groups as channels is instance norm, one group is layer norm over
        all axes with a weight for each channel.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are a trained ``weight (C,)``, ones at first, and ``bias (C,)``, zeros.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("num_groups", ...),
        ("num_channels", ...),
        ("eps", 1e-5),
        ("affine", True),
    )

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, **placement: Unpack[Placement]
    ) -> None:
        super().__init__(**placement)
        self.num_groups = checks.integer("num_groups", num_groups, 1)
        self.num_channels = checks.integer("num_channels", num_channels, 1)
        if self.num_channels % self.num_groups:
            raise ValueError(f"{self.num_channels} channels can't be split into {self.num_groups} groups")
        self.eps, self.affine = float(checks.number("eps", eps, least=0.0)), checks.flag("affine", affine)
        if self.affine:
            self.add_parameter("weight", (self.num_channels,), constant(1.0))
            self.add_parameter("bias", (self.num_channels,), constant(0.0))

    def _output_shape(self, shape: Shape) -> Shape:
        self._layout(shape)
        return shape

    def _layout(self, shape: Shape) -> Layout:
        """What shares a mean in an input of that shape, if it fits."""
        if len(shape) < 2 or shape[1] != self.num_channels:
            raise ValueError(f"input needs shape (N, {self.num_channels}, ...), got {shape}")
        return group_layout(shape, self.num_groups)

    def _forward(self, x: Array) -> Array:
        return self._normalise(x, self._layout(tuple(x.shape)))[0]
