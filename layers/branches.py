"""Containers in which the input takes several ways at once.

==========  ======================================  ==========================================
layer       y                                       dx
==========  ======================================  ==========================================
Residual    activation(body(x) + shortcut(x))       body'(da) + shortcut'(da), da = activation'(dy)
Parallel    branches side by side along an axis,    sum of the branches' gradients, each for its
            or added                                part of dy, or for all of it
==========  ======================================  ==========================================

Sources: K. He et al., "Deep residual learning", 2016; C. Szegedy et al., "Going deeper with convolutions", 2015.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Literal, Unpack

from ..backends.types import Array
from .base import Layer, named
from .containers import Container, named_children, repr_children
from .placement import Placement


class Identity(Layer):
    """``y = x``: the way that changes nothing, for `Parallel` and in place of a layer."""

    def _forward(self, x: Array) -> Array:
        return x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy


class Residual(Container):
    """A body with a shortcut around it: ``activation(body(x) + shortcut(x))``.

    Children are named ``body``, ``shortcut`` and ``activation``.

    Parameters
    ----------
    body : Layer
    shortcut : Layer, optional
        The identity unless given.
    activation : Layer, optional
        None unless given.
    **placement
        See `xpnn.layers.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward`, if body and shortcut give different shapes.
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

    def forward(self, x: Array) -> Array:
        """Both ways, added."""
        b, shortcut = self.backend, self.children.get("shortcut")
        y = self.children["body"].forward(x)
        around = x if shortcut is None else shortcut.forward(x)
        shapes = tuple(y.shape), tuple(around.shape)
        if shapes[0] != shapes[1]:
            raise ValueError(f"{self!r}: body and shortcut give different shapes, {shapes[0]} and {shapes[1]}")
        with b.context():
            y = b.down(b.up(y) + b.up(around))
        activation = self.children.get("activation")
        return y if activation is None else activation.forward(y)

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The gradient back both ways, added; None with ``input_grad=False``."""
        b, shortcut, activation = self.backend, self.children.get("shortcut"), self.children.get("activation")
        if activation is not None:
            dy = activation.backward(dy)
        dx = self.children["body"].backward(dy, input_grad=input_grad)
        around = dy if shortcut is None else shortcut.backward(dy, input_grad=input_grad)
        if not input_grad:
            return None
        with b.context():
            return b.down(b.up(dx) + b.up(around))

    def __repr__(self) -> str:
        options = "".join(f", {name}={self.children[name]!r}" for name in list(self.children)[1:])
        return f"Residual({self.children['body']!r}{options})"


class Parallel(Container):
    """Branches that all get the same input; their outputs are put side by side, or added.

    Parameters
    ----------
    *branches : Layer, (str, Layer), or one dict of str to Layer
        At least one.
    join : {"concat", "add"}
    axis : int
        Along which outputs are put side by side: 1, the channels, unless given.
    **placement
        See `xpnn.layers.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward`, if the outputs' shapes don't fit together.
    """

    def __init__(
        self,
        *branches: Layer | tuple[str, Layer] | dict[str, Layer],
        join: Literal["concat", "add"] = "concat",
        axis: int = 1,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(named_children(branches, "Parallel"), **placement)
        if not self.children:
            raise ValueError("Parallel needs at least one branch")
        if join not in ("concat", "add"):
            raise ValueError(f"join takes 'concat' or 'add', got {join!r}")
        if isinstance(axis, bool) or not isinstance(axis, int) or axis < 1:
            raise ValueError(f"axis takes an integer >= 1 (axis 0 is the batch), got {axis!r}")
        self.join, self.axis = join, axis

    def forward(self, x: Array) -> Array:
        """Every branch's output, joined."""
        b = self.backend
        outputs = [branch.forward(x) for branch in self.children.values()]
        shapes = [tuple(y.shape) for y in outputs]
        self._require_fit(shapes)
        with b.context():
            if self.join == "concat":
                y = b.xp.concat(outputs, axis=self.axis)
            else:
                y = b.up(outputs[0])
                for other in outputs[1:]:
                    y = y + b.up(other)
                y = b.down(y)
        self._save(shapes)
        self._remember(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The sum of the branches' gradients; None with ``input_grad=False``."""
        b = self.backend
        try:
            self._check_upstream(dy)
        except (TypeError, ValueError) as error:
            raise named(self, error) from error
        dx = None
        for branch, part in zip(self.children.values(), self._parts(dy), strict=True):
            gradient = branch.backward(part, input_grad=input_grad)
            if input_grad:
                with b.context():
                    dx = b.up(gradient) if dx is None else dx + b.up(gradient)
        return b.down(dx) if input_grad else None

    def _parts(self, dy: Array) -> list[Array]:
        """Each branch's share of the upstream gradient."""
        (shapes,) = self._saved
        if self.join == "add":
            return [dy] * len(shapes)
        before = (slice(None),) * self.axis
        edges = accumulate((shape[self.axis] for shape in shapes), initial=0)
        return [dy[(*before, slice(start, stop), ...)] for start, stop in pairwise(edges)]

    def _require_fit(self, shapes: list[tuple[int, ...]]) -> None:
        free = self.axis if self.join == "concat" else None
        fixed = {tuple(n for a, n in enumerate(shape) if a != free) for shape in shapes}
        if len(fixed) > 1 or self.axis >= len(shapes[0]):
            raise ValueError(
                f"{self!r}: the branches give shapes {', '.join(map(str, shapes))}; {self.join} along axis {self.axis} "
                "can't join them"
            )

    def __repr__(self) -> str:
        options = ", join='add'" if self.join == "add" else ""
        options += f", axis={self.axis}" if self.axis != 1 else ""
        return f"Parallel({repr_children(self.children)}{options})"
