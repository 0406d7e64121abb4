"""Batch normalisation.

The formulas are in `xpnn.layers.normalisation.norm`, those of the running statistics in
`xpnn.layers.normalisation.channel_norm`.

Source: S. Ioffe and C. Szegedy, "Batch normalization", 2015, algorithms 1 and 2; momentum and defaults as in PyTorch.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common.types import Array, Namespace
from ..core.array_checks import namespace
from ..core.placement import Placement
from .channel_norm import ChannelNorm
from .layout import Layout, batch_layout, require_several
from .norm import OPTIONAL, differentiate, normalise
from .synchronised import AddingGroup, Synchronised, normalise_together, normalise_together_backward


@without_graph
def batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    mean: Array | None = None,
    var: Array | None = None,
    eps: float = 1e-5,
    xp: Namespace | None = None,
) -> Array:
    """Normalise each channel of ``x (N, C, *S)``, over the batch or by a given ``mean`` and ``var (C,)``.

    Then multiply by ``weight (C,)`` and add ``bias (C,)``, if they are given.

    Raises
    ------
    ValueError, TypeError
        For one value in each channel if no statistics are given, shapes that do not fit together, or mixed dtypes.
    """
    xp = namespace(xp, OPTIONAL, input=x, weight=weight, bias=bias, mean=mean, var=var)
    layout = _layout(x, mean)
    return normalise(x, weight, bias, layout, mean=mean, var=var, eps=eps, xp=xp)[0]


@without_graph
def batch_norm_backward(
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
    """Gradients of `batch_norm` for ``dy (N, C, *S)``: ``(dx, dweight, dbias)``, ``dx`` None with ``input_grad=False``.

    The options are those of `batch_norm`. A mean and variance that are given are constants.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight, mean=mean, var=var)
    layout = _layout(x, mean)
    return differentiate(dy, x, weight, layout, mean=mean, var=var, eps=eps, input_grad=input_grad, xp=xp)


def _layout(x: Array, mean: Array | None) -> Layout:
    layout = batch_layout(tuple(x.shape))
    if mean is None:
        require_several(layout)
    return layout


class BatchNorm(ChannelNorm):
    """Batch normalisation; see `batch_norm`, and `ChannelNorm` for the parameters.

    Use `BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`. Momentum None averages over all batches.

    Parameters
    ----------
    group : Group, optional
        Processes over whose samples the statistics of a batch are computed (`xpnn.distributed`), which all must compute
        the layer at the same time. In exact numerics `fit` does so in any case. It is an attribute too, which is not
        saved.
    """

    layout = staticmethod(batch_layout)
    counts_batches = True
    accepts_stored = True
    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("num_features", ...),
        ("eps", 1e-5),
        ("momentum", 0.1),
        ("affine", True),
        ("track_running_stats", True),
    )

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        group: AddingGroup | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **placement)
        self.group = group

    def _is_synchronised(self) -> bool:
        return self.group is not None and self.backend.numerics == "fast"

    def _require_several(self, layout: Layout) -> None:
        if not self._is_synchronised():
            super()._require_several(layout)

    def _normalise(
        self, x: Array, layout: Layout, mean: Array | None = None, var: Array | None = None, relu: bool = False
    ) -> tuple[Array, Any]:
        if mean is not None or self.group is None or not self._is_synchronised():
            return super()._normalise(x, layout, mean, var, relu)
        weight, bias = self.parameter_value("weight"), self.parameter_value("bias")
        y, normalised = normalise_together(x, weight, bias, layout, self.eps, self.group, self.backend.xp)
        self.save_for_backward(normalised, layout, False)
        return y, normalised

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        normalised, layout = self.saved[:2]
        if self.group is None or not isinstance(normalised, Synchronised):
            return super()._backward(dy, input_grad)
        weight, xp = self.parameter_value("weight"), self.backend.xp
        dx, dweight, dbias = normalise_together_backward(dy, normalised, weight, layout, self.group, xp)
        self.accumulate_grad("weight", dweight)
        self.accumulate_grad("bias", dbias)
        return dx if input_grad else None


class BatchNorm1d(BatchNorm):
    """`BatchNorm` of ``(N, C)`` or ``(N, C, L)``."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` of ``(N, C, H, W)``."""

    ranks = (4,)


class BatchNorm3d(BatchNorm):
    """`BatchNorm` of ``(N, C, D, H, W)``."""

    ranks = (5,)
