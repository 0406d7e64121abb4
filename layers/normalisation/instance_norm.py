"""Instance normalisation: batch normalisation of each sample separately.

The formulas are in `xpnn.layers.normalisation.norm`. Running statistics, if they are tracked, use the average over the
batch of each sample's mean and unbiased variance, as in PyTorch.

Source: D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization", 2016.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace
from ..core.array_checks import namespace
from ..core.placement import Placement
from .channel_norm import ChannelNorm
from .layout import Layout, instance_layout, require_several
from .norm import OPTIONAL, differentiate, normalise


@without_graph
def instance_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    mean: Array | None = None,
    var: Array | None = None,
    eps: float = 1e-5,
    xp: Namespace | None = None,
) -> Array:
    """Normalise each channel of each sample of ``x (N, C, *S)``, or by a given ``mean`` and ``var (C,)``.

    Then multiply by ``weight (C,)`` and add ``bias (C,)``, if they are given.

    Raises
    ------
    ValueError, TypeError
        For a single spatial cell if no statistics are given, shapes that do not fit together, or mixed dtypes.
    """
    xp = namespace(xp, OPTIONAL, input=x, weight=weight, bias=bias, mean=mean, var=var)
    layout = _layout(x, mean)
    return normalise(x, weight, bias, layout, mean=mean, var=var, eps=eps, xp=xp)[0]


@without_graph
def instance_norm_backward(
    dy: Array,
    x: Array,
    weight: Array | None = None,
    *,
    mean: Array | None = None,
    var: Array | None = None,
    eps: float = 1e-5,
    input_grad: bool = True,
    xp: Namespace | None = None,
) -> tuple[Array | None, Array, Array]:
    """Gradients of `instance_norm` for ``dy (N, C, *S)``: ``(dx, dweight, dbias)``.

    The options are those of `instance_norm`. A mean and variance that are given are constants; ``dx`` is None with
    ``input_grad=False``.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight, mean=mean, var=var)
    layout = _layout(x, mean)
    return differentiate(dy, x, weight, layout, mean=mean, var=var, eps=eps, input_grad=input_grad, xp=xp)


def _layout(x: Array, mean: Array | None) -> Layout:
    layout = instance_layout(tuple(x.shape))
    if mean is None:
        require_several(layout)
    return layout


class InstanceNorm(ChannelNorm):
    """Instance normalisation; see `instance_norm`, and `ChannelNorm` for the parameters.

    Use `InstanceNorm1d`, `InstanceNorm2d` or `InstanceNorm3d`. ``num_batches_tracked`` stays 0, as in PyTorch, so
    momentum must be a number.
    """

    layout = staticmethod(instance_layout)
    counts_batches = False
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("num_features", ...),
        ("eps", 1e-5),
        ("momentum", 0.1),
        ("affine", False),
        ("track_running_stats", False),
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        **placement: Unpack[Placement],
    ) -> None:
        if momentum is None:
            raise ValueError("momentum must be a number from 0 to 1, got None; instance norm counts no batches")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **placement)


class InstanceNorm1d(InstanceNorm):
    """`InstanceNorm` of ``(N, C, L)``."""

    ranks = (3,)


class InstanceNorm2d(InstanceNorm):
    """`InstanceNorm` of ``(N, C, H, W)``."""

    ranks = (4,)


class InstanceNorm3d(InstanceNorm):
    """`InstanceNorm` of ``(N, C, D, H, W)``."""

    ranks = (5,)
