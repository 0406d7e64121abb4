"""Local response normalisation: each value divided by a power of the squares of its neighbours along the channels.

For channel ``c``, with a window of ``size`` channels, from ``c - size // 2`` to ``c + (size - 1) // 2``::

    s[c]  = k + alpha / size * sum of x[i]^2 over the channels i of the window of c
    y[c]  = x[c] / s[c]^beta
    dx[c] = dy[c] / s[c]^beta - 2 alpha beta / size * x[c] * sum of dy[i] * x[i] / s[i]^(beta + 1) over the channels i
            whose window has c

Channels that do not exist count as 0, and ``alpha`` is divided by ``size``, not by the number of channels that exist,
as in PyTorch. ONNX's operator LRN is the same for odd sizes, with ``bias`` for ``k``; for even sizes its window has the
extra channel on the other side.

Source: A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012, section 3.3.
"""

from typing import Any, ClassVar, Unpack

from ...backends.without_autograd import without_graph
from ...common import checks
from ...common.types import Array, Namespace
from ..core.array_checks import namespace, require_float, require_same_dtype, require_shape, spatial_shape
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


@without_graph
def local_response_norm(
    x: Array,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    xp: Namespace | None = None,
) -> Array:
    """Divide ``x (N, C, *S)`` by ``(k + alpha / size * sum(x^2))^beta``, sums over ``size`` neighbouring channels.

    Parameters
    ----------
    x : array
        float32 or float64, with at least one spatial axis.
    size : int
        Channels of a window, at least 1.
    alpha, beta, k : float
        ``k`` at least 0.
    xp : namespace, optional
        The input's own unless given.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, or an input without spatial axes.
    """
    xp = namespace(xp, input=x)
    require_float(x)
    spatial_shape(tuple(x.shape))
    size, alpha, beta, k = _checked(size, alpha, beta, k)
    return x / xp.pow(_sums(x, size, alpha, k, xp), beta)


@without_graph
def local_response_norm_backward(
    dy: Array,
    x: Array,
    size: int,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    xp: Namespace | None = None,
) -> Array:
    """Gradient of `local_response_norm` for ``dy (N, C, *S)``."""
    xp = namespace(xp, dy=dy, input=x)
    require_same_dtype(dy=dy, input=x)
    require_shape(dy, tuple(x.shape), "dy")
    spatial_shape(tuple(x.shape))
    size, alpha, beta, k = _checked(size, alpha, beta, k)
    s = _sums(x, size, alpha, k, xp)
    direct = dy / xp.pow(s, beta)
    others = _sum_channels(direct * x / s, (size - 1) // 2, size // 2, xp)
    return direct - x * others * (2.0 * alpha * beta / size)


def _sums(x: Array, size: int, alpha: float, k: float, xp: Namespace) -> Array:
    """``s`` of the formulas."""
    return _sum_channels(x * x, size // 2, (size - 1) // 2, xp) * (alpha / size) + k


def _sum_channels(x: Array, before: int, after: int, xp: Namespace) -> Array:
    """The sum over the channels from ``before`` channels before each to ``after`` channels after it."""
    channels = x.shape[1]
    sums = xp.asarray(x, copy=True)
    for step in range(1, min(before, channels - 1) + 1):
        sums[:, step:, ...] += x[:, :-step, ...]
    for step in range(1, min(after, channels - 1) + 1):
        sums[:, :-step, ...] += x[:, step:, ...]
    return sums


def _checked(size: int, alpha: float, beta: float, k: float) -> tuple[int, float, float, float]:
    return (
        checks.integer("size", size, 1),
        float(checks.number("alpha", alpha, least=0.0)),
        float(checks.number("beta", beta)),
        float(checks.number("k", k, least=0.0)),
    )


class LocalResponseNorm(Layer):
    """Divide by a power of the squares of neighbouring channels of ``(N, C, *S)``; see `local_response_norm`.

    Parameters
    ----------
    size, alpha, beta, k
        As in `local_response_norm`.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("size", ...), ("alpha", 1e-4), ("beta", 0.75), ("k", 1.0))

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **placement: Unpack[Placement]
    ) -> None:
        super().__init__(**placement)
        self.size, self.alpha, self.beta, self.k = _checked(size, alpha, beta, k)

    @property
    def _options(self) -> dict[str, Any]:
        return {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k, "xp": self.backend.xp}

    def _output_shape(self, shape: Shape) -> Shape:
        spatial_shape(shape)
        return shape

    def _forward(self, x: Array) -> Array:
        self.save_for_backward(x)
        return local_response_norm(x, **self._options)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self.saved
        return local_response_norm_backward(dy, x, **self._options)
