"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Unpack, overload

from ...backends import operations_of
from ...common.types import Array
from ..core.errors import with_owner
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from . import recorded_evaluation
from .container import Container, is_trained, named_children, repr_children
from .dataflow import Flow, input_names
from .fusion import backward_all, forward_all


class Sequential(Container):
    """Layers one after the other: ``y = f_k(... f_2(f_1(x)))``, ``dx = f_1'(... f_k'(dy))``.

    One layer may be in several places, such as one `ReLU` after each convolution, or layers of tied weights.

    Children without a name are named ``0, 1, 2...`` as in PyTorch, so the ``state_dict`` of the same net there can be
    loaded. A slice is a `Sequential` of the same layers with the same names and weights, as in PyTorch.

    A ReLU is computed together with the layer before it, with the same bits, and in evaluation a batch norm too, which
    differs in rounding from the layers one by one: see `xpnn.layers.containers.fusion`.

    Parameters
    ----------
    *layers : Layer, (str, Layer), or one dict of str to Layer
        In the order in which the input passes them.
    **placement
        See `xpnn.layers.core.placement.Placement`; for all children that have none of their own.

    Examples
    --------
    >>> import xpnn as nn
    >>> model = nn.Sequential(nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 3), backend="numpy", seed=1)
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *layers: Layer | tuple[str, Layer] | dict[str, Layer], **placement: Unpack[Placement]) -> None:
        super().__init__(named_children(layers, "Sequential"), **placement)

    @property
    def layers(self) -> list[Layer]:
        """The children in order."""
        return list(self.children.values())

    def _output_shape(self, shape: Shape) -> Shape:
        for layer in self.children.values():
            shape = layer.output_shape(shape)
        return shape

    def forward(self, x: Array) -> Array:
        """Pass ``x`` through all layers."""
        self._check_numerics()
        self._check_if_empty(x, "input")
        b = self.backend
        return recorded_evaluation.forward(self, b, self._forward_all, b.plain(x))

    def _forward_all(self, x: Array) -> Array:
        with operations_of(self.backend.xp).setup_once():
            return forward_all(list(self.children.values()), x)

    def _check_if_empty(self, x: Array, what: str) -> None:
        """Check an array if there is no layer that would check it."""
        if self.children:
            return
        try:
            self._check_array(x, what)
        except (TypeError, ValueError) as error:
            raise with_owner(error, self) from error

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """Pass the gradient back through all layers.

        With ``input_grad=False`` it returns None and computes nothing that only the input's gradient needs.
        """
        self._check_if_empty(dy, "upstream gradient")
        layers, dy = self.layers, self.backend.plain(dy)
        first = 0 if input_grad else self._first_trained()
        with operations_of(self.backend.xp).setup_once():
            dy = backward_all(layers, first, dy, input_grad)
        for i in reversed(range(first)):
            layers[i]._skip_backward()
        return dy if input_grad else None

    def _first_trained(self) -> int:
        """Index of the first layer with a parameter to train; those before it only pass on the input's gradient."""
        return next((i for i, layer in enumerate(self) if is_trained(layer)), len(self))

    def _flow(self, flow: Flow, path: str, inputs: tuple[str, ...]) -> str:
        for name in self.children:
            inputs = (flow.child(self, name, path, inputs),)
        return inputs[0]

    def _input_names(self) -> tuple[str, ...]:
        return input_names(self.layers[0]) if self.children else ("input",)

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children.values())

    @overload
    def __getitem__(self, index: int | str) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | str | slice) -> Layer | Sequential:
        if isinstance(index, slice):
            return self._part(index)
        if isinstance(index, str):
            if index not in self.children:
                raise KeyError(f"Sequential has no layer {index!r}, only {', '.join(self.children) or 'none'}")
            return self.children[index]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for a Sequential of {len(self)} layers")
        return self.layers[index]

    def _part(self, which: slice) -> Sequential:
        """A Sequential of some of these layers, which keep their names, weights and seeds."""
        part = copy(self)
        part.children = dict(list(self.children.items())[which])
        return part

    def __repr__(self) -> str:
        return f"Sequential({repr_children(self.children)})"
