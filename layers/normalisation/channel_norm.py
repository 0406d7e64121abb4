"""The running statistics of batch and instance normalisation.

In training, with ``m`` values of a channel and momentum ``a``::

    running_mean = (1 - a) * running_mean + a * mean
    running_var  = (1 - a) * running_var  + a * var * m / (m - 1)

Momentum None means ``a = 1 / num_batches_tracked``: the average over all batches.

Source: S. Ioffe and C. Szegedy, "Batch normalization", 2015, algorithms 1 and 2; momentum and defaults as in PyTorch.
"""

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.execution.team import rows_of_all
from ...common import checks
from ...common.types import Array, dtype_name
from ..core.array_checks import require_same_dtype, require_shape
from ..core.axis_order import channels_first, channels_last
from ..core.elementwise import scalar
from ..core.fusing import Fusing
from ..core.kept import compute
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from ..initialisers import constant
from .by_engine import NormalisedByKernels, is_rectified, prepared
from .layout import Layout, require_several
from .norm import AnyNormalised, Norm, total
from .synchronised import Synchronised


class ChannelNorm(Norm, Fusing):
    """Base of batch and instance normalisation: a weight, a bias and optional running statistics for each channel.

    Parameters
    ----------
    num_features : int
        Channels ``C``.
    eps : float
        Added to the variance.
    momentum : float or None
        Share of a batch in the running statistics.
    affine : bool
        Whether there are a trained ``weight (C,)``, initially ones, and ``bias (C,)``, zeros.
    track_running_stats : bool
        Whether there are ``running_mean``, ``running_var (C,)`` and ``num_batches_tracked ()``, which evaluation uses
        instead of the statistics of its input.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        For arguments out of range, from the constructor. From `forward`, before anything is computed, for an input of
        another shape, or whose own statistics are needed and are of one value each.
    """

    layout: ClassVar[Callable[..., Layout]]
    counts_batches: ClassVar[bool]
    ranks: ClassVar[tuple[int, ...]]
    accepts_stored = True

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
        """The layout of an input of that shape; raises `ValueError` if the shape does not fit."""
        if len(shape) not in self.ranks or shape[1] != self.num_features:
            accepted = " or ".join(f"(N, {self.num_features}{', *' * (rank - 2)})" for rank in self.ranks)
            raise ValueError(f"input must have shape {accepted}, got {shape}")
        return type(self).layout(shape)

    def _forward_and(self, x: Array, *, relu: bool) -> Array:
        layout = self._layout(tuple(x.shape))
        scaled = self._by_kept_scales(x, layout, relu)
        if scaled is not None:
            return scaled
        mean, var = None, None
        if self.track_running_stats and not self.training:
            mean, var = self.buffer_value("running_mean"), self.buffer_value("running_var")
        else:
            self._require_several(layout)
        y, normalised = self._normalise(x, layout, mean, var, relu)
        if self.track_running_stats and self.training:
            self._track(normalised, layout)
        if relu and not is_rectified(normalised):
            ops = operations_of(self.backend.xp)
            # Without weight and bias the output may be what was saved for backward.
            y = ops.relu_in_place(y) if self.parameters else ops.relu(y)
        return y

    def _require_several(self, layout: Layout) -> None:
        """Raise `ValueError` if the statistics are of one value each."""
        require_several(layout)

    def forward_and_relu(self, x: Array, relu: Layer) -> Array:
        """As `Fusing.forward_and_relu`; remembers that ReLU, for `covers`."""
        y = super().forward_and_relu(x, relu)
        if self.saved is not None and self.backend.narrow is None:
            self.saved = (*self.saved, relu.saved)
        return y

    def covers(self, relu: Layer) -> bool:
        """Whether `backward` includes that of a ReLU, with which the last forward was computed together."""
        saved = self.saved
        if saved is None or self._calls is not None or relu._calls is not None:
            # Layers in several places have a backward for each call. That of ReLU, applied twice, changes no bit.
            return False
        return len(saved) == 4 and saved[3] is relu.saved and is_rectified(saved[0])

    def _by_kept_scales(self, x: Array, layout: Layout, relu: bool) -> Array | None:
        """The output in evaluation, or its ReLU, by an engine that scales and shifts by kept numbers; else None.

        It has the bits of the normalisation by running statistics.
        """
        if self.training or self.grad_enabled or not self.track_running_stats:
            return None
        keep, xp = self.keep_in_evaluation("weight", "bias", "running_mean", "running_var"), self.backend.xp
        engine: Any = None if keep is compute else prepared(x, layout, True, xp)
        if not hasattr(engine, "scales"):
            return None

        def make() -> Array:
            weight, bias = self.parameter_value("weight"), self.parameter_value("bias")
            mean, var = self.buffer_value("running_mean"), self.buffer_value("running_var")
            require_same_dtype(input=x, weight=weight, bias=bias, mean=mean, var=var)
            for name, array in (("weight", weight), ("bias", bias), ("mean", mean), ("var", var)):
                if array is not None:
                    require_shape(array, layout.weight, name)
            return engine.scales(weight, bias, (mean, var), self.eps)

        key = ("scales", self.eps, dtype_name(x.dtype), tuple(x.shape))
        y: Array = engine.apply(channels_last(x, xp), keep(key, make), relu)
        self.save_for_backward()
        return channels_first(y, xp)

    def _track(self, normalised: AnyNormalised, layout: Layout) -> None:
        """Update the running statistics by new arrays; nothing is read on the host.

        An empty batch is counted and changes nothing else. Statistics of single samples are averaged over the batch.
        """
        b, xp = self.backend, self.backend.xp
        names = ("running_mean", "running_var", "num_batches_tracked")
        running = tuple(self.buffers[name] for name in names)
        if isinstance(normalised, NormalisedByKernels) and self.counts_batches:
            kernels, state = normalised
            if kernels.can_track(running, state):
                for name, array in zip(names, kernels.track(state, running, self.momentum), strict=True):
                    self.buffers[name] = array
                return
        factor = self._factor(normalised.mean)
        if not isinstance(normalised, Synchronised) and rows_of_all(prod(layout.grid)) == 0:
            return
        cells = normalised.cells if isinstance(normalised, Synchronised) else layout.cells
        unbiased = normalised.var * (cells / (cells - 1))
        for name, each in (("running_mean", normalised.mean), ("running_var", unbiased)):
            # Statistics over the batch are the same for every worker already; averaging them again would round them.
            if 0 not in layout.axes:
                each = total(each, (0,), xp) / scalar(rows_of_all(each.shape[0]), each, xp)
            batch = xp.reshape(each, layout.weight)
            self.buffers[name] = b.down(b.up(self.buffers[name]) * (1.0 - factor) + batch * factor)

    def _factor(self, like: Array) -> Array | float:
        """The weight of this batch in the running statistics, after counting it."""
        xp = self.backend.xp
        # NumPy makes a scalar of a sum of 0-d arrays; reshape makes it an array again.
        batches = xp.reshape(self.buffers["num_batches_tracked"] + int(self.counts_batches), ())
        self.buffers["num_batches_tracked"] = batches
        return 1.0 / xp.astype(batches, like.dtype) if self.momentum is None else self.momentum
