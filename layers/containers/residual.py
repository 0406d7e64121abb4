"""Residual blocks.

With ``a = activation(s)``, ``s = body(x) + shortcut(x)``::

    y = a          ds = activation'(dy)          dx = body'(ds) + shortcut'(ds)

Source: K. He et al., "Deep residual learning for image recognition", 2016.
"""

from __future__ import annotations

from typing import Unpack

from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from .branching import Branching
from .dataflow import Flow
from .fusion import is_relu
from .joins import Add


class Residual(Branching):
    """A body and a shortcut around it, added: ``activation(body(x) + shortcut(x))``.

    The children are named ``body``, ``shortcut`` and ``activation``.

    Parameters
    ----------
    body : Layer
    shortcut : Layer, optional
        The identity unless given.
    activation : Layer, optional
        None unless given.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward`, if the outputs of body and shortcut have different shapes.
    """

    def __init__(
        self,
        body: Layer,
        shortcut: Layer | None = None,
        activation: Layer | None = None,
        **placement: Unpack[Placement],
    ) -> None:
        given = {"body": body, "shortcut": shortcut, "activation": activation}
        super().__init__({name: layer for name, layer in given.items() if layer is not None}, **placement)

    def _output_shape(self, shape: Shape) -> Shape:
        body = self.children["body"].output_shape(shape)
        shortcut, activation = self.children.get("shortcut"), self.children.get("activation")
        self._require_same(body, shape if shortcut is None else shortcut.output_shape(shape))
        return body if activation is None else activation.output_shape(body)

    def _require_same(self, body: Shape, shortcut: Shape) -> None:
        if body != shortcut:
            raise ValueError(f"{self!r}: body and shortcut return different shapes, {body} and {shortcut}")

    def forward(self, x: Array) -> Array:
        """Body and shortcut, added, and the activation."""
        self._check_input(x)
        shortcut, activation = self.children.get("shortcut"), self.children.get("activation")
        y = self.children["body"].forward(x)
        added = x if shortcut is None else shortcut.forward(x)
        self._require_same(tuple(y.shape), tuple(added.shape))
        fuses = activation is not None and is_relu(activation, self)
        y = self._sum((y, added), relu=fuses)
        if activation is not None and fuses:
            activation.save_for_backward(y)
            activation._record_output(y)
        elif activation is not None:
            y = activation.forward(y)
        self._record_output(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The sum of the gradients of body and shortcut; None with ``input_grad=False``."""
        self._check_gradient(dy)
        activation = self.children.get("activation")
        if activation is not None:
            dy = activation.backward(dy)
        return self._backward_all(((self.children["body"], dy), (self.children.get("shortcut"), dy)), input_grad)

    def _flow(self, flow: Flow, path: str, inputs: tuple[str, ...]) -> str:
        body = flow.child(self, "body", path, inputs)
        shortcut = flow.child(self, "shortcut", path, inputs) if "shortcut" in self.children else inputs[0]
        added = flow.join(path, Add(), (body, shortcut))
        return flow.child(self, "activation", path, (added,)) if "activation" in self.children else added

    def __repr__(self) -> str:
        options = "".join(f", {name}={self.children[name]!r}" for name in list(self.children)[1:])
        return f"Residual({self.children['body']!r}{options})"
