"""Group normalisation: of each sample over groups of its channels.

The formulas are in `xpnn.layers.normalisation.norm`.

Source: Y. Wu and K. He, "Group normalization", 2018.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import constant
from .layout import Layout, group_layout
from .norm import OPTIONAL, Norm, differentiate, normalise


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

    Then multiply by ``weight (C,)`` and add ``bias (C,)``, if they are given.

    Raises
    ------
    ValueError, TypeError
        For channels that cannot be split into these groups, shapes that do not fit together, or mixed dtypes.
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

    The options are those of `group_norm`; ``dx`` is None with ``input_grad=False``.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight)
    layout = group_layout(tuple(x.shape), num_groups)
    return differentiate(dy, x, weight, layout, eps=eps, input_grad=input_grad, xp=xp)


class GroupNorm(Norm):
    """Normalise groups of channels; see `group_norm`.

    Parameters
    ----------
    num_groups, num_channels : int
        ``num_channels`` is divisible by ``num_groups``. With one channel in each group this is instance norm, with one
        group layer norm over all axes with a weight for each channel.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are a trained ``weight (C,)``, initially ones, and ``bias (C,)``, zeros.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    accepts_stored = True
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
            raise ValueError(
                f"num_channels must be a multiple of num_groups, got {self.num_channels} and {self.num_groups}"
            )
        self.eps, self.affine = float(checks.number("eps", eps, least=0.0)), checks.flag("affine", affine)
        if self.affine:
            self.add_parameter("weight", (self.num_channels,), constant(1.0))
            self.add_parameter("bias", (self.num_channels,), constant(0.0))

    def _output_shape(self, shape: Shape) -> Shape:
        self._layout(shape)
        return shape

    def _layout(self, shape: Shape) -> Layout:
        """The layout of an input of that shape; raises `ValueError` if the shape does not fit."""
        if len(shape) < 2 or shape[1] != self.num_channels:
            raise ValueError(f"input must have shape (N, {self.num_channels}, ...), got {shape}")
        return group_layout(shape, self.num_groups)

    def _forward(self, x: Array) -> Array:
        return self._normalise(x, self._layout(tuple(x.shape)))[0]
