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

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import add
from typing import Literal, Unpack

from ...backends import operations_of
from ...common import checks
from ...common.types import Array
from ..core.layer import Layer, named
from ..core.placement import Placement
from ..summary import Shape
from .sequential import Container, is_trained, named_children, repr_children


class Identity(Layer):
    """``y = x``: the way that changes nothing, for `Parallel` and in place of a layer."""

    def _output_shape(self, shape: Shape) -> Shape:
        return shape

    def _forward(self, x: Array) -> Array:
        return x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy


class Branching(Container):
    """Base of containers whose input takes several ways.

    Arrays are checked here too: a way that is the identity has no layer to do it.
    """

    def _enter(self, x: Array) -> None:
        """Check an input, and forget the last one."""
        self._saved = self._output = None
        self._check_numerics()
        try:
            self._check(x, "input")
        except (TypeError, ValueError) as error:
            raise named(self, error) from error

    def _return(self, dy: Array) -> None:
        """Check an upstream gradient."""
        try:
            self._check_upstream(dy)
        except (TypeError, ValueError) as error:
            raise named(self, error) from error

    def _sum(self, arrays: Sequence[Array]) -> Array:
        b = self.backend
        ops = operations_of(b.xp)
        with b.context():
            total = b.up(arrays[0])
            for array in arrays[1:]:
                total = ops.elementwise(add, total, b.up(array))
            return self._made(b.down(total))

    def _back(self, ways: Sequence[tuple[Layer | None, Array]], input_grad: bool) -> Array | None:
        """The gradients back on all ways, added; None stands for the identity."""
        if input_grad:
            return self._sum([dy if way is None else way.backward(dy) for way, dy in ways])
        for way, dy in ways:
            if way is not None and is_trained(way):
                way.backward(dy, input_grad=False)
        return None


class Residual(Branching):
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
        See `xpnn.layers.core.placement.Placement`.

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

    def _output_shape(self, shape: Shape) -> Shape:
        body = self.children["body"].output_shape(shape)
        shortcut, activation = self.children.get("shortcut"), self.children.get("activation")
        self._require_same(body, shape if shortcut is None else shortcut.output_shape(shape))
        return body if activation is None else activation.output_shape(body)

    def _require_same(self, body: Shape, shortcut: Shape) -> None:
        if body != shortcut:
            raise ValueError(f"{self!r}: body and shortcut give different shapes, {body} and {shortcut}")

    def forward(self, x: Array) -> Array:
        """Both ways, added."""
        self._enter(x)
        shortcut, activation = self.children.get("shortcut"), self.children.get("activation")
        y = self.children["body"].forward(x)
        around = x if shortcut is None else shortcut.forward(x)
        self._require_same(tuple(y.shape), tuple(around.shape))
        y = self._sum((y, around))
        y = y if activation is None else activation.forward(y)
        self._remember(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The gradient back both ways, added; None with ``input_grad=False``."""
        self._return(dy)
        activation = self.children.get("activation")
        if activation is not None:
            dy = activation.backward(dy)
        return self._back(((self.children["body"], dy), (self.children.get("shortcut"), dy)), input_grad)

    def __repr__(self) -> str:
        options = "".join(f", {name}={self.children[name]!r}" for name in list(self.children)[1:])
        return f"Residual({self.children['body']!r}{options})"


class Parallel(Branching):
    """Branches that all get the same input; their outputs are put side by side, or added.

    Parameters
    ----------
    *branches : Layer, (str, Layer), or one dict of str to Layer
        At least one.
    join : {"concat", "add"}
    axis : int
        Along which outputs are put side by side: 1, the channels, unless given; from the end where it is negative.
    **placement
        See `xpnn.layers.core.placement.Placement`.

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
        self.join, self.axis = checks.choice("join", join, ("concat", "add")), checks.integer("axis", axis)
        if not self.axis:
            raise ValueError("axis must be an integer other than 0, which is the batch, got 0")

    def _output_shape(self, shape: Shape) -> Shape:
        shapes = [branch.output_shape(shape) for branch in self.children.values()]
        axis = self._require_fit(shapes)
        if self.join == "add":
            return shapes[0]
        return (*shapes[0][:axis], sum(each[axis] for each in shapes), *shapes[0][axis + 1 :])

    def forward(self, x: Array) -> Array:
        """Every branch's output, joined."""
        self._enter(x)
        b = self.backend
        outputs = [branch.forward(x) for branch in self.children.values()]
        shapes = [tuple(y.shape) for y in outputs]
        axis = self._require_fit(shapes)
        if self.join == "add":
            y = self._sum(outputs)
        else:
            with b.context():
                y = operations_of(b.xp).concat(outputs, axis)
        self._save(shapes, axis)
        self._remember(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The sum of the branches' gradients; None with ``input_grad=False``."""
        self._return(dy)
        return self._back(list(zip(self.children.values(), self._parts(dy), strict=True)), input_grad)

    def _parts(self, dy: Array) -> list[Array]:
        """Each branch's share of the upstream gradient."""
        shapes, axis = self._saved
        dy = self.backend.plain(dy)
        if self.join == "add":
            return [dy] * len(shapes)
        before = (slice(None),) * axis
        edges = accumulate((shape[axis] for shape in shapes), initial=0)
        return [dy[(*before, slice(start, stop), ...)] for start, stop in pairwise(edges)]

    def _require_fit(self, shapes: list[tuple[int, ...]]) -> int:
        """The axis to join along, counted from the front, if the shapes can be joined."""
        rank = len(shapes[0])
        axis = self.axis + rank if self.axis < 0 else self.axis
        free = axis if self.join == "concat" else None
        fixed = {tuple(n for a, n in enumerate(shape) if a != free) for shape in shapes}
        if len(fixed) > 1 or (self.join == "concat" and not 1 <= axis < rank):
            how = "added" if self.join == "add" else f"put side by side along axis {self.axis}"
            raise ValueError(f"{self!r}: the branches give shapes {', '.join(map(str, shapes))}, which can't be {how}")
        return axis

    def __repr__(self) -> str:
        options = ", join='add'" if self.join == "add" else ""
        options += f", axis={self.axis}" if self.axis != 1 else ""
        return f"Parallel({repr_children(self.children)}{options})"
