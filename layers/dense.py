"""The fully connected layer.

With ``x (N, ..., I)``, ``weight (O, I)`` and ``bias (O,)``::

    y = x weight^T + bias          dx = dy weight
    dweight = dy^T x               dbias = sum of dy             (sums over all leading axes)
"""

from math import prod
from typing import Any, ClassVar, Unpack, cast

from ..backends import operations_of
from ..backends.kept_calls import kept_calls
from ..backends.operations import Operations
from ..backends.without_autograd import without_graph
from ..common import checks
from ..common.types import Array, Namespace, dtype_name
from .core.array_checks import namespace, require_dtype_of, require_same_dtype, require_shape
from .core.fusing import Affine
from .core.kept import Keep
from .core.needed_gradients import Wanted
from .core.output_shape import Shape
from .core.placement import Placement
from .initialisers import Initialiser, constant, he_uniform


@without_graph
def dense(x: Array, weight: Array, bias: Array | None = None, *, xp: Namespace | None = None) -> Array:
    """``x (N, ..., I)`` times ``weight (O, I)`` transposed, plus ``bias (O,)``: ``(N, ..., O)``.

    Raises
    ------
    ValueError, TypeError
        For shapes that do not fit together or mixed dtypes.
    """
    xp = namespace(xp, ("bias",), input=x, weight=weight, bias=bias)
    _check(tuple(x.shape), tuple(weight.shape))
    if bias is not None:
        require_shape(bias, (weight.shape[0],), "bias")
    require_same_dtype(input=x, weight=weight, bias=bias)
    return _weighted_sums(x, weight, bias, operations_of(xp), False)


@without_graph
def dense_backward(
    dy: Array, x: Array, weight: Array, *, input_grad: bool = True, xp: Namespace | None = None
) -> tuple[Array | None, Array, Array]:
    """Gradients of `dense` for ``dy (N, ..., O)``: ``(dx, dweight, dbias)``, ``dx`` None with ``input_grad=False``."""
    xp = namespace(xp, dy=dy, input=x, weight=weight)
    _check(tuple(x.shape), tuple(weight.shape))
    require_shape(dy, (*x.shape[:-1], weight.shape[0]), "dy")
    require_same_dtype(dy=dy, input=x, weight=weight)
    wanted = Wanted(checks.flag("input_grad", input_grad))
    dx, dweight, dbias = _gradients(dy, x, weight, wanted, operations_of(xp))
    return dx, cast(Array, dweight), cast(Array, dbias)


@kept_calls(3)
def _weighted_sums(x: Array, weight: Array, bias: Array | None, ops: Operations, relu: bool) -> Array:
    """`dense`, or its ReLU, of arrays that fit together."""
    prepared = _prepared(x, weight, ops)
    if prepared is not None:
        y = prepared.forward(_rows(x, ops), weight, bias, relu)
        return y if x.ndim == 2 else ops.xp.reshape(y, (*x.shape[:-1], weight.shape[0]))
    y = _product(x, ops.xp.matrix_transpose(weight), ops)
    if bias is not None:
        y += bias
    return ops.relu_in_place(y) if relu else y


@kept_calls(3)
def _gradients(
    dy: Array, x: Array, weight: Array, wanted: Wanted, ops: Operations
) -> tuple[Array | None, Array | None, Array | None]:
    """`dense_backward` of arrays that fit together, with None for what is not wanted."""
    rows, upstream, prepared = _rows(x, ops), _rows(dy, ops), _prepared(x, weight, ops)
    if prepared is not None:
        dx, dweight, dbias = prepared.backward(upstream, rows, weight, *wanted)
        return dx if dx is None or x.ndim == 2 else ops.xp.reshape(dx, x.shape), dweight, dbias
    dweight = ops.contract_rows(upstream, rows) if wanted.weight else None
    dbias = ops.sum_rows(upstream) if wanted.bias else None
    return _product(dy, weight, ops) if wanted.input else None, dweight, dbias


def _prepared(x: Array, weight: Array, ops: Operations) -> Any:
    """An engine's operation for these shapes; None if array functions must compute it."""
    problem = (prod(x.shape[:-1]), weight.shape[1], weight.shape[0])
    return ops.prepare("dense", problem, dtype_name(x.dtype))


def _rows(x: Array, ops: Operations) -> Array:
    """``(N, ..., I)`` as ``(R, I)``."""
    return x if x.ndim == 2 else ops.xp.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))


def _product(x: Array, matrix: Array, ops: Operations) -> Array:
    return ops.product(x, matrix) if x.ndim == 2 else ops.matmul(x, matrix)


def _check(x: Shape, weight: Shape) -> None:
    if len(weight) != 2:
        raise ValueError(f"weight must have shape (out, in), got {weight}")
    if len(x) < 2 or x[-1] != weight[1]:
        raise ValueError(f"input must have shape (N, ..., {weight[1]}), got {x}")


class Dense(Affine):
    """Fully connected layer with trained ``weight (out, in)`` and ``bias (out,)``; see `dense`.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether to add a bias.
    weight_init, bias_init : initialiser
        ``he_uniform()`` and ``constant(0)`` by default.
    **placement
        See `xpnn.layers.core.placement.Placement`.
    """

    signature: ClassVar[tuple[tuple[str, Any], ...]] = (("in_features", ...), ("out_features", ...), ("bias", True))

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_init: Initialiser | None = None,
        bias_init: Initialiser | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(**placement)
        self.in_features = checks.integer("in_features", in_features, 1)
        self.out_features = checks.integer("out_features", out_features, 1)
        self.bias = checks.flag("bias", bias)
        self.add_parameter("weight", (self.out_features, self.in_features), weight_init, he_uniform())
        if self.bias:
            self.add_parameter("bias", (self.out_features,), bias_init, constant(0.0))

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """One for each output value and input feature."""
        return prod(y_shape) * self.in_features

    def _output_shape(self, shape: Shape) -> Shape:
        _check(shape, (self.out_features, self.in_features))
        return (*shape[:-1], self.out_features)

    def _affine(self, x: Array, weight: Array, bias: Array | None, keep: Keep, relu: bool) -> Array:
        require_dtype_of(x, weight, bias)
        _check(tuple(x.shape), (self.out_features, self.in_features))
        ops = operations_of(self.backend.product_xp)
        return _weighted_sums(x, weight, bias, ops, relu)

    def _scaled(self, weight: Array, scale: Array) -> Array:
        return weight * self.backend.xp.reshape(scale, (self.out_features, 1))

    def _output_channels(self, rank: int) -> int:
        return self.out_features if rank == 2 else 0

    def _gradients(
        self, dy: Array, x: Array, weight: Array, wanted: Wanted
    ) -> tuple[Array | None, Array | None, Array | None]:
        return _gradients(dy, x, weight, wanted, operations_of(self.backend.product_xp))
