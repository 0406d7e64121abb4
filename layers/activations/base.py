"""What elementwise activations share.

An activation is ``y = f(x)``, ``dx = dy * f'(x)``, entry by entry: a pair of functions and a layer that names them. The
gradient is written in the output where its formula is simpler there, else in the input; the layer keeps just that one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Unpack

from ...backends import operations_of
from ...common.types import Array, Namespace
from ..core.arrays import namespace, require_same_dtype, require_shape
from ..core.layer import Layer
from ..core.placement import Placement
from ..summary import Shape


def prepare(xp: Namespace | None, **arrays: Array) -> Namespace:
    """The namespace to compute in, once all arrays are floats of one dtype."""
    xp = namespace(xp, **arrays)
    require_same_dtype(**arrays)
    return xp


def prepare_gradient(xp: Namespace | None, **arrays: Array) -> Namespace:
    """`prepare` for a gradient: all arrays have one shape too."""
    xp = prepare(xp, **arrays)
    (_, first), *others = arrays.items()
    for name, array in others:
        require_shape(array, tuple(first.shape), name)
    return xp


class Activation(Layer):
    """Base of the elementwise activations.

    A subclass names its ``function(x, **options, xp)`` and ``gradient(dy, kept, **options, xp)``; its options are the
    attributes in ``signature``. ``from_output`` says that ``kept`` is the output and not the input, ``in_parts`` that
    the function gains from large inputs being taken in parts.
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

    def _forward(self, x: Array) -> Array:
        function = partial(type(self).function, **self._options)
        y = operations_of(self.backend.xp).elementwise(function, x) if self.in_parts else function(x)
        self._save(y if self.from_output else x)
        return y

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        (kept,) = self._saved
        gradient = partial(type(self).gradient, **self._options)
        return operations_of(self.backend.xp).elementwise(gradient, dy, kept) if self.in_parts else gradient(dy, kept)
