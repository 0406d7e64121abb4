"""Batch normalisation, and the running statistics that it evaluates with.

The formulas are in `xpnn.layers.normalisation.norm`. In training, with ``m`` values per channel and momentum ``a``::

    running_mean = (1 - a) * running_mean + a * mean
    running_var  = (1 - a) * running_var  + a * var * m / (m - 1)

Momentum None takes ``a = 1 / num_batches_tracked``: the plain average over all batches.

Source: S. Ioffe and C. Szegedy, "Batch normalization", 2015, algorithms 1 and 2; momentum and defaults as in PyTorch.
"""

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar, Unpack

from ...backends.execution.team import rows_of_all
from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import namespace
from ..core.elementwise import scalar
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import constant
from .batch_rows import Rows
from .norm import (
    OPTIONAL,
    Layout,
    Norm,
    Normal,
    Prepared,
    batch_layout,
    differentiate,
    normalise,
    require_several,
    total,
)


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
    """Normalise each channel of ``x (N, C, *S)``, over the batch or with the ``mean`` and ``var (C,)`` given.

    Then multiply by ``weight (C,)`` and add ``bias (C,)``, where they are given.

    Raises
    ------
    ValueError, TypeError
        For one value per channel without statistics, shapes that don't fit together, or mixed dtypes.
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

    Takes what `batch_norm` took. A mean and variance that are given are constants.
    """
    xp = namespace(xp, OPTIONAL, dy=dy, input=x, weight=weight, mean=mean, var=var)
    layout = _layout(x, mean)
    return differentiate(dy, x, weight, layout, mean=mean, var=var, eps=eps, input_grad=input_grad, xp=xp)


def _layout(x: Array, mean: Array | None) -> Layout:
    layout = batch_layout(tuple(x.shape))
    if mean is None:
        require_several(layout)
    return layout


class ChannelNorm(Norm):
    """Base of the layers with a weight, a bias and perhaps running statistics for each channel.

    Parameters
    ----------
    num_features : int
        Channels ``C``.
    eps : float
        Added to the variance.
    momentum : float or None
        Share of a batch in the running statistics.
    affine : bool
        Whether there are a trained ``weight (C,)``, ones at first, and ``bias (C,)``, zeros.
    track_running_stats : bool
        Whether there are ``running_mean``, ``running_var (C,)`` and ``num_batches_tracked ()``, which evaluation takes
        instead of the statistics of its input.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For arguments out of range, at once. From `forward`, before anything is computed, for an input of another shape,
        or whose statistics are taken and are of one value each.
    """

    layout: ClassVar[Callable[..., Layout]]
    counts_batches: ClassVar[bool]
    ranks: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.num_features = checks.integer("num_features", num_features, 1)
        self.eps = float(checks.number("eps", eps, least=0.0))
        self.momentum = None if momentum is None else float(checks.number("momentum", momentum, least=0.0, most=1.0))
        self.affine = checks.flag("affine", affine)
        self.track_running_stats = checks.flag("track_running_stats", track_running_stats)
        shape = (self.num_features,)
        if self.affine:
            self.add_parameter("weight", shape, constant(1.0))
            self.add_parameter("bias", shape, constant(0.0))
        if self.track_running_stats:
            self.add_buffer("running_mean", shape, 0.0)
            self.add_buffer("running_var", shape, 1.0)
            self.add_buffer("num_batches_tracked", (), 0)

    def _check_array(self, x: Array, what: str) -> None:
        super()._check_array(x, what)
        b = self.backend
        if self.buffers and dtype_name(x.dtype) != b.dtype_name:
            raise TypeError(
                f"the {what} is {dtype_name(x.dtype)}, the running statistics are {b.dtype_name}; convert it, or the "
                f"layer with .to({b.spec!r}, {dtype_name(x.dtype)!r})"
            )

    def _output_shape(self, shape: Shape) -> Shape:
        layout = self._layout(shape)
        if not self.track_running_stats:
            require_several(layout)
        return shape

    def _layout(self, shape: Shape) -> Layout:
        """What shares a mean in an input of that shape, if it fits."""
        if len(shape) not in self.ranks or shape[1] != self.num_features:
            wanted = " or ".join(f"(N, {self.num_features}{', *' * (rank - 2)})" for rank in self.ranks)
            raise ValueError(f"input needs shape {wanted}, got {shape}")
        return type(self).layout(shape)

    def _forward(self, x: Array) -> Array:
        layout = self._layout(tuple(x.shape))
        mean, var = None, None
        if self.track_running_stats and not self.training:
            mean, var = (self.backend.up(self.buffers[name]) for name in ("running_mean", "running_var"))
        else:
            require_several(layout)
        y, normal = self._normalise(x, layout, mean, var)
        if self.track_running_stats and self.training:
            self._track(normal, layout)
        return y

    def _track(self, normal: Normal | Rows | Prepared, layout: Layout) -> None:
        """Move the running statistics towards a batch's, by new arrays; nothing is read on the host.

        An empty batch counts and moves nothing. Of statistics for each sample the batch's mean is taken.
        """
        b, xp = self.backend, self.backend.xp
        names = ("running_mean", "running_var", "num_batches_tracked")
        running = tuple(self.buffers[name] for name in names)
        if isinstance(normal, Prepared) and self.counts_batches and normal.kernels.tracks(running, normal.found):
            moved = normal.kernels.track(normal.found, running, self.momentum)
            for name, array in zip(names, moved, strict=True):
                self.buffers[name] = array
            return
        factor = self._factor(normal.mean)
        if rows_of_all(prod(layout.grid)) == 0:
            return
        unbiased = normal.var * (layout.cells / (layout.cells - 1))
        for name, each in (("running_mean", normal.mean), ("running_var", unbiased)):
            # Statistics over the batch are every worker's already: added up and divided again, they would be rounded.
            if 0 not in layout.axes:
                each = total(each, (0,), xp) / scalar(rows_of_all(each.shape[0]), each, xp)
            batch = xp.reshape(each, layout.weight)
            self.buffers[name] = b.down(b.up(self.buffers[name]) * (1.0 - factor) + batch * factor)

    def _factor(self, like: Array) -> Array | float:
        """Share of this batch in the running statistics, after counting it."""
        xp = self.backend.xp
        # NumPy makes a scalar of a sum of 0-d arrays; reshape makes it an array again.
        batches = xp.reshape(self.buffers["num_batches_tracked"] + int(self.counts_batches), ())
        self.buffers["num_batches_tracked"] = batches
        return 1.0 / xp.astype(batches, like.dtype) if self.momentum is None else self.momentum


class BatchNorm(ChannelNorm):
    """Batch normalisation; see `batch_norm`, and `ChannelNorm` for the parameters.

    Use `BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`. Momentum None averages over all batches.
    """

    layout = staticmethod(batch_layout)
    counts_batches = True
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
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **placement)


class BatchNorm1d(BatchNorm):
    """`BatchNorm` of ``(N, C)`` or ``(N, C, L)``."""

    ranks = (2, 3)


class BatchNorm2d(BatchNorm):
    """`BatchNorm` of ``(N, C, H, W)``."""

    ranks = (4,)


class BatchNorm3d(BatchNorm):
    """`BatchNorm` of ``(N, C, D, H, W)``."""

    ranks = (5,)
