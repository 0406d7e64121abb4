"""The base of the elementwise activations.

An activation is ``y = f(x)``, ``dx = dy * f'(x)`` for each entry: two functions, and a layer that names them. The
gradient is a function of the output if its formula is simpler there, else of the input; the layer saves only that one.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...backends.kept_calls import kept_calls
from ...common.types import Array, Namespace, dtype_name
from ..core.array_checks import namespace, require_same_dtype, require_shape
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement


def prepare(xp: Namespace | None, **arrays: Array) -> Namespace:
    """The namespace to compute in, after checking that all arrays are floats of one dtype."""
    xp = namespace(xp, **arrays)
    require_same_dtype(**arrays)
    return xp


def prepare_gradient(xp: Namespace | None, **arrays: Array) -> Namespace:
    """`prepare` for a gradient: all arrays must also have one shape."""
    xp = prepare(xp, **arrays)
    (_, first), *others = arrays.items()
    for name, array in others:
        require_shape(array, tuple(first.shape), name)
    return xp


class Activation(Layer):
    """Base of the elementwise activations.

    A subclass names its ``function(x, **options, xp)`` and ``gradient(dy, saved, **options, xp)``; its options are the
    attributes in ``signature``. ``saved`` is the input, or the output if ``from_output``. With ``in_parts`` large
    inputs are computed in blocks, which is faster for a function of several operations.
    """

    function: ClassVar[Callable[..., Array]]
    gradient: ClassVar[Callable[..., Array]]
    from_output: ClassVar[bool] = False
    in_parts: ClassVar[bool] = True

    def __init__(self, **placement: Unpack[Placement]) -> None:
        super().__init__(**placement)

    def _output_shape(self, shape: Shape) -> Shape:
        return shape

    def _options(self) -> tuple[Any, ...]:
        """The options in the order of ``signature``."""
        return tuple([getattr(self, name) for name, _ in self.signature]) if self.signature else ()

    def _forward(self, x: Array) -> Array:
        kind: Any = type(self)
        function = _values if _is_own(kind) else _values.function
        y: Array = function(x, kind, self._options(), self.backend.xp)
        self.save_for_backward(y if self.from_output else x)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (saved,) = self.saved
        kind: Any = type(self)
        function = _slopes if _is_own(kind) else _slopes.function
        dx: Array = function(dy, saved, kind, self._options(), self.backend.xp)
        return dx


@kept_calls(1)
def _values(x: Array, kind: Any, options: tuple[Any, ...], xp: Namespace) -> Array:
    """The function of a layer class, by an engine or by array functions."""
    ops, prepared = operations_of(xp), _prepared(x, kind, options, xp)
    if prepared is not None:
        y: Array = prepared.forward(x)
        return y
    function = partial(kind.function, **_named(kind, options), xp=xp)
    return ops.elementwise(function, x) if kind.in_parts else function(x)


@kept_calls(2)
def _slopes(dy: Array, saved: Array, kind: Any, options: tuple[Any, ...], xp: Namespace) -> Array:
    """The gradient of a layer class, as `_values`."""
    ops = operations_of(xp)
    prepared = _prepared(saved, kind, options, xp) if dy.dtype == saved.dtype else None
    if prepared is not None:
        dx: Array = prepared.backward(dy, saved)
        return dx
    gradient = partial(kind.gradient, **_named(kind, options), xp=xp)
    return ops.elementwise(gradient, dy, saved) if kind.in_parts else gradient(dy, saved)


def _prepared(like: Array, kind: Any, options: tuple[Any, ...], xp: Namespace) -> Any:
    """An engine's function and gradient, or None; engines know the functions of this package by their names."""
    if not _is_own(kind):
        return None
    problem = (kind.function.__name__, kind.gradient.__name__, options)
    return operations_of(xp).prepare("activation", problem, dtype_name(like.dtype))


def _named(kind: Any, options: tuple[Any, ...]) -> dict[str, Any]:
    return {name: option for (name, _), option in zip(kind.signature, options, strict=True)}


@cache
def _is_own(kind: Any) -> bool:
    """Whether function and gradient of a class are of this package."""
    return all(each.__module__.rpartition(".")[0] == __package__ for each in (kind.function, kind.gradient))
