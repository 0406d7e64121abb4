"""Dropout: in training, each value (or each channel) is set to 0 with probability ``p``, and the others are scaled up.

With ``keep``, 0 or 1, drawn in each forward::

    y = keep * x / (1 - p)        dx = keep * dy / (1 - p)

The expected output is the input. In evaluation dropout is the identity.

Sources: N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014; J. Tompson et
al., "Efficient object localization using convolutional networks", 2015, for whole channels.
"""

from functools import partial
from operator import mul
from typing import Any, ClassVar, Unpack

from ..backends import Generator, operations_of
from ..backends.execution.team import place_in_batch
from ..backends.inputs import describe
from ..backends.without_autograd import without_graph
from ..common import checks
from ..common.types import Array, Namespace, dtype_name
from .core.array_checks import namespace, require_float
from .core.layer import Layer
from .core.output_shape import Shape
from .core.placement import Placement


@without_graph
def dropout(x: Array, keep: Array, p: float, *, xp: Namespace | None = None) -> Array:
    """``x / (1 - p)`` where ``keep`` is true, 0 elsewhere, even where ``x`` is NaN or infinite.

    Parameters
    ----------
    x : array
        float32 or float64.
    keep : array
        Booleans, of the shape of ``x``, or of size 1 along axes whose values are kept or dropped together.
    p : float
        From 0 to 1; with 1 the result is 0.

    Raises
    ------
    TypeError, ValueError
        For an input that is not of floats, or ``p`` out of range.
    """
    xp = namespace(xp, input=x, keep=keep)
    require_float(x)
    if dtype_name(keep.dtype) != "bool":
        raise TypeError(f"keep must be an array of booleans, got {describe(keep)}")
    if keep.ndim != x.ndim or any(k not in (1, n) for k, n in zip(keep.shape, x.shape, strict=True)):
        raise ValueError(
            f"keep must have the shape of the input, {tuple(x.shape)}, or size 1 along some axes, got shape "
            f"{tuple(keep.shape)}"
        )
    p = check_probability(p)
    if p == 1.0:
        return xp.zeros_like(x)
    ops = operations_of(xp)
    prepared = ops.prepare("dropout", tuple(x.shape), dtype_name(x.dtype))
    if prepared is not None and prepared.accepts(x, keep):
        y: Array = prepared(x, keep, 1.0 / (1.0 - p))
        return y
    return ops.select(keep, ops.elementwise(partial(mul, 1.0 / (1.0 - p)), x))


@without_graph
def dropout_backward(dy: Array, keep: Array, p: float, *, xp: Namespace | None = None) -> Array:
    """``dx = dy / (1 - p)`` where ``keep`` is true, 0 elsewhere."""
    return dropout(dy, keep, p, xp=xp)


def check_probability(p: float, name: str = "p") -> float:
    """The checked probability of dropping a value; ``name`` is that of the argument."""
    return float(checks.number(name, p, least=0.0, most=1.0))


class Dropping(Layer):
    """Base of layers that drop values in training, by masks from the layer's own stream of random numbers.

    Attributes
    ----------
    stream : Generator
        The source of the masks; its ``position`` is the only state.
    """

    def __init__(self, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self._stream: Generator | None = None

    @property
    def stream(self) -> Generator:
        """The source of the masks, created on first use."""
        if self._stream is None:
            self._stream = self.generator.fold_in("dropout")
        return self._stream

    def _enter_container(self, path: str, inherited: Placement) -> None:
        super()._enter_container(path, inherited)
        if self._stream is not None and not self._stream.position:
            self._stream = None

    def _mask(self, shape: Shape, p: float) -> Array:
        """A new mask for values of that shape, of which each is kept with probability ``1 - p``.

        The mask is one of the whole batch; a worker with a part of the batch uses its part.
        """
        start, samples = place_in_batch(shape[0]) if shape else (0, 0)
        whole = (samples, *shape[1:]) if shape else ()
        keep = self.stream.at_least(whole, p, self.backend)
        return keep if whole == shape else keep[start : start + shape[0], ...]


class Dropout(Dropping):
    """Drop each value with probability ``p``, independently; see `dropout`. The identity in evaluation.

    Each forward in training draws a new mask from the layer's own stream of random numbers, which depends on the seed
    and on the layer's full name. For one seed the masks are the same on every backend and in both dtypes.

    Parameters
    ----------
    p : float
        From 0 to 1; with 0 no random numbers are drawn.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Attributes
    ----------
    stream : Generator
        The source of the masks; its ``position`` is the only state.

    Raises
    ------
    ValueError
        For ``p`` out of range.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("p", 0.5),)

    def __init__(self, p: float = 0.5, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)
        self.p = check_probability(p)

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def _output_shape(self, shape: Shape) -> Shape:
        self._mask_shape(shape)
        return shape

    def _forward(self, x: Array) -> Array:
        shape = self._mask_shape(tuple(x.shape))
        if not self.training or self.p == 0.0:
            self.save_for_backward(None)
            return x
        keep = self._mask(shape, self.p)
        self.save_for_backward(keep)
        return dropout(x, keep, self.p, xp=self.backend.xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (keep,) = self.saved
        return dy if keep is None else dropout_backward(dy, keep, self.p, xp=self.backend.xp)


class ChannelDropout(Dropout):
    """Base of the layers that drop all values of a channel of a sample together."""

    axes: ClassVar[int]

    def _mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != self.axes + 2:
            raise ValueError(f"input must have shape (N, C{', *' * self.axes}), got {shape}")
        return (*shape[:2], *(1,) * self.axes)


class Dropout1d(ChannelDropout):
    """`Dropout` of whole channels of ``(N, C, L)``."""

    axes = 1


class Dropout2d(ChannelDropout):
    """`Dropout` of whole channels of ``(N, C, H, W)``."""

    axes = 2


class Dropout3d(ChannelDropout):
    """`Dropout` of whole channels of ``(N, C, D, H, W)``."""

    axes = 3
