"""The base of the elementwise activations.

An activation is ``y = f(x)``, ``dx = dy * f'(x)`` for each entry: two functions, and a layer that names them. The
gradient is a function of the output if its formula is simpler there, else of the input; the layer saves only that one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
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

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name, _ in self.signature} | {"xp": self.backend.xp}

    def _output_shape(self, shape: Shape) -> Shape:
        return shape

    def _prepared(self, like: Array) -> Any:
        """An engine's function and gradient, or None; engines know the functions of this package by their names."""
        function, gradient = type(self).function, type(self).gradient
        if any(each.__module__.rpartition(".")[0] != __package__ for each in (function, gradient)):
            return None
        options = tuple(getattr(self, name) for name, _ in self.signature)
        problem = (function.__name__, gradient.__name__, options)
        return operations_of(self.backend.xp).prepare("activation", problem, dtype_name(like.dtype))

    def _forward(self, x: Array) -> Array:
        prepared = self._prepared(x)
        if prepared is not None:
            y = prepared.forward(x)
        else:
            function = partial(type(self).function, **self._options)
            y = operations_of(self.backend.xp).elementwise(function, x) if self.in_parts else function(x)
        self.save_for_backward(y if self.from_output else x)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (saved,) = self.saved
        prepared = self._prepared(saved) if dy.dtype == saved.dtype else None
        if prepared is not None:
            return prepared.backward(dy, saved)
        gradient = partial(type(self).gradient, **self._options)
        return operations_of(self.backend.xp).elementwise(gradient, dy, saved) if self.in_parts else gradient(dy, saved)
