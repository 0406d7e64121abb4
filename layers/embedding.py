"""Embedding: a trained row of numbers for each index, and learned positions, which are added to a sequence.

For ``index (N, ...)`` of integers and ``weight (V, D)``::

    y[n] = weight[index[n]]        dweight[i] = sum of dy[n] with index[n] = i

The index has no gradient. The rows of equal indices are added in a fixed order, never atomically, so the gradient has
the same bits in each run. A NaN stays in the row of its index.

Source: Y. Bengio et al., "A neural probabilistic language model", 2003.
"""

from functools import partial
from math import nan, prod
from typing import Any, ClassVar, Unpack

from ..backends import Backend, Generator, operations_of
from ..backends.inputs import describe
from ..backends.recording.calls import decide
from ..backends.without_autograd import without_graph
from ..common import checks
from ..common.types import Array, Namespace, is_integer_dtype
from .core.array_checks import namespace, require_float
from .core.layer import Layer
from .core.output_shape import Shape
from .core.placement import Placement, wrong_backend_message
from .initialisers import Initialiser, normal


@without_graph
def embedding(index: Array, weight: Array, *, xp: Namespace | None = None) -> Array:
    """The rows of ``weight (V, D)`` at ``index (N, ...)``: ``(N, ..., D)``.

    Parameters
    ----------
    index : array
        Integers from 0 to ``V - 1``. On the CPU another number is an error; on a GPU, where the check would make the
        host wait for the device, its row of the result is NaN.
    weight : array
        float32 or float64.

    Raises
    ------
    ValueError, TypeError
        For an index that is not of integers or out of range, and a weight that is not a matrix of floats.
    """
    xp = namespace(xp, index=index, weight=weight)
    require_float(weight, "weight")
    if weight.ndim != 2 or not weight.shape[0]:
        raise ValueError(
            f"weight must have shape (num_embeddings, embedding_dim) with at least one row, got {tuple(weight.shape)}"
        )
    require_integers(index, "index")
    if operations_of(xp).cheap_reads:
        require_inside(index, weight.shape[0], xp)
        return _rows_at(weight, index, xp)
    return _rows_or_nan(weight, index, xp)


@without_graph
def embedding_backward(
    dy: Array, index: Array, num_embeddings: int, *, padding_idx: int | None = None, xp: Namespace | None = None
) -> Array:
    """``dweight (num_embeddings, D)`` for ``dy (N, ..., D)`` and ``index (N, ...)``.

    The row ``padding_idx`` is 0, and so are the rows of indices that do not occur.
    """
    xp = namespace(xp, dy=dy, index=index)
    require_float(dy, "dy")
    require_integers(index, "index")
    num_embeddings = checks.integer("num_embeddings", num_embeddings, 1)
    padding_idx = _checked_padding(padding_idx, num_embeddings)
    if dy.ndim == 0 or tuple(dy.shape[:-1]) != tuple(index.shape):
        raise ValueError(f"dy must have the shape of the index and one more axis, got {tuple(dy.shape)}")
    flat = xp.astype(xp.reshape(index, (-1,)), xp.int64)
    if padding_idx is not None:
        # Rows with an index out of range are left out of all sums.
        flat = xp.where(flat == padding_idx, xp.full_like(flat, -1), flat)
    rows = xp.reshape(dy, (prod(index.shape), dy.shape[-1]))
    return operations_of(xp).sum_rows_at(rows, flat, num_embeddings)


def require_integers(x: Any, what: str) -> None:
    """Raise `TypeError` unless ``x`` is an array of integers."""
    if not hasattr(x, "dtype") or not is_integer_dtype(x.dtype):
        raise TypeError(
            f"{what} must be an array of integers, one index for each row wanted, got {describe(x)}; convert it with "
            f"{'index' if what == 'index' else 'x'}.astype('int64')"
        )


def require_inside(index: Array, count: int, xp: Namespace) -> None:
    """Raise `ValueError` unless all indices are from 0 to ``count - 1``; it reads them."""
    if prod(index.shape) and not decide(partial(_are_inside, count, xp), index):
        low, high = int(xp.min(index)), int(xp.max(index))
        raise ValueError(
            f"indices must be from 0 to {count - 1} for an embedding of {count} rows, got {low if low < 0 else high}"
        )


def _are_inside(count: int, xp: Namespace, index: Array) -> bool:
    return int(xp.min(index)) >= 0 and int(xp.max(index)) < count


def _rows_at(weight: Array, index: Array, xp: Namespace) -> Array:
    """Rows at indices that are in range."""
    flat = xp.astype(xp.reshape(index, (-1,)), xp.int64)
    return xp.reshape(xp.take(weight, flat, axis=0), (*index.shape, weight.shape[1]))


def _rows_or_nan(weight: Array, index: Array, xp: Namespace) -> Array:
    """Rows at indices, and NaN for those out of range, which are found on the device."""
    index = xp.astype(index, xp.int64)
    inside = xp.logical_and(index >= 0, index < weight.shape[0])
    rows = _rows_at(weight, xp.where(inside, index, xp.zeros_like(index)), xp)
    return xp.where(xp.expand_dims(inside, axis=-1), rows, nan)


def _checked_padding(padding_idx: int | None, count: int) -> int | None:
    """The row of the padding, counted from the front."""
    if padding_idx is None:
        return None
    row = checks.integer("padding_idx", padding_idx)
    if not -count <= row < count:
        raise ValueError(f"padding_idx must be None or an integer from {-count} to {count - 1}, got {row}")
    return row % count


class Embedding(Layer):
    """A trained row of ``embedding_dim`` numbers for each index: ``(N, ...)`` of integers to ``(N, ..., D)``.

    The first layer of a net for text or other categories. An index has no gradient, so `backward` returns None, with
    ``input_grad=True`` too.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows of ``weight`` and their length.
    padding_idx : int, optional
        A row for positions that stand for nothing: it starts with zeros and gets no gradient. A negative number counts
        from the end.
    weight_init : initialiser
        ``normal(1.0)`` by default.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    TypeError, ValueError
        From `forward`, for an input that is not of integers, and on the CPU for one with an index out of range. On a
        GPU, where reading it would make the host wait, the row of such an index is NaN, and it has no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import xpnn as nn
    >>> model = nn.Sequential(nn.Embedding(100, 8, padding_idx=0), nn.Flatten(), nn.Dense(24, 2), backend="numpy")
    >>> model(np.array([[5, 17, 0], [99, 5, 0]])).shape
    (2, 2)
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (
        ("num_embeddings", ...),
        ("embedding_dim", ...),
        ("padding_idx", None),
    )

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        weight_init: Initialiser | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.num_embeddings = checks.integer("num_embeddings", num_embeddings, 1)
        self.embedding_dim = checks.integer("embedding_dim", embedding_dim, 1)
        self.padding_idx = _checked_padding(padding_idx, self.num_embeddings)
        initialiser = normal(1.0) if weight_init is None else weight_init
        if self.padding_idx is not None and checks.accepts(initialiser, 3):
            initialiser = partial(_with_zeros, initialiser=initialiser, row=self.padding_idx)
        self.add_parameter("weight", (self.num_embeddings, self.embedding_dim), initialiser)

    def _check_array(self, x: Array, what: str) -> None:
        if what != "input":
            super()._check_array(x, what)
            return
        if not self.backend.owns(x):
            raise TypeError(wrong_backend_message(x, self.backend, what))
        require_integers(x, "input")

    def _output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ValueError("the input must have a batch axis, got a 0-d array")
        return (*shape, self.embedding_dim)

    def _forward(self, x: Array) -> Array:
        self._output_shape(tuple(x.shape))
        xp, weight = self.backend.xp, self.parameter_value("weight")
        self.save_for_backward(x)
        if not self.backend.is_host:
            return _rows_or_nan(weight, x, xp)
        require_inside(x, self.num_embeddings, xp)
        return _rows_at(weight, x, xp)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (x,) = self.saved
        gradient = embedding_backward(dy, x, self.num_embeddings, padding_idx=self.padding_idx, xp=self.backend.xp)
        self.accumulate_grad("weight", gradient)
        return None


def _with_zeros(
    shape: tuple[int, ...], generator: Generator, backend: Backend, *, initialiser: Initialiser, row: int
) -> Array:
    """The values of an initialiser, with zeros in one row."""
    kept = backend.xp.arange(shape[0], device=backend.device) != row
    return backend.xp.where(backend.xp.expand_dims(kept, axis=1), initialiser(shape, generator, backend), 0.0)


class PositionEmbedding(Layer):
    """Add a learned row for each position: ``y = x + weight[:L]`` for ``x (N, L, D)``.

    Without it, attention does not know the order of a sequence.

    Parameters
    ----------
    length : int
        The longest sequence.
    embedding_dim : int
        The size of the last axis.
    weight_init : initialiser
        For ``weight (length, embedding_dim)``; ``normal(0.02)`` by default.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward`, for an input of another shape or a longer one.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("length", ...), ("embedding_dim", ...))

    def __init__(
        self,
        length: int,
        embedding_dim: int,
        *,
        weight_init: Initialiser | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.length = checks.integer("length", length, 1)
        self.embedding_dim = checks.integer("embedding_dim", embedding_dim, 1)
        self.add_parameter("weight", (self.length, self.embedding_dim), weight_init, normal(0.02))

    def _output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[1] > self.length or shape[2] != self.embedding_dim:
            raise ValueError(
                f"input must have shape (N, L, {self.embedding_dim}) with L at most {self.length}, got {shape}"
            )
        return shape

    def _forward(self, x: Array) -> Array:
        self._output_shape(tuple(x.shape))
        self.save_for_backward(None)
        weight: Any = self.parameter_value("weight")
        return x + weight[: x.shape[1], :]

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        xp = self.backend.xp
        n, length, features = dy.shape
        ops = operations_of(xp)
        gradient = xp.reshape(ops.sum_rows(xp.reshape(dy, (n, length * features))), (length, features))
        if length < self.length:
            rest = xp.zeros((self.length - length, features), dtype=dy.dtype, device=self.backend.device)
            gradient = xp.concat([gradient, rest], axis=0)
        self.accumulate_grad("weight", gradient)
        return dy
