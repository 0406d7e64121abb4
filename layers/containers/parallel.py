"""Parallel branches, as in Inception blocks.

``y`` is the concatenation of ``branch(x)`` along an axis, or their sum. ``dx`` is the sum of ``branch'(dy)``, where
each branch gets its part of ``dy``, or all of it.

Source: C. Szegedy et al., "Going deeper with convolutions", 2015.
"""

from __future__ import annotations

from typing import Literal, Unpack

from ...backends import operations_of
from ...common import checks
from ...common.types import Array
from ..core.layer import Layer
from ..core.output_shape import Shape
from ..core.placement import Placement
from .branching import Branching
from .container import named_children, repr_children
from .dataflow import Flow
from .joins import Add, Concat, parts_along


class Parallel(Branching):
    """Branches with the same input, whose outputs are concatenated or added.

    Parameters
    ----------
    *branches : Layer, (str, Layer), or one dict of str to Layer
        At least one.
    join : {"concat", "add"}
    axis : int
        Along which outputs are concatenated, by default the channels; a negative axis counts from the end.
    **placement
        See `xpnn.layers.core.placement.Placement`.

    Raises
    ------
    ValueError
        From `forward`, if the outputs' shapes do not allow it.
    """

    def __init__(
        self,
        *branches: Layer | tuple[str, Layer] | dict[str, Layer],
        join: Literal["concat", "add"] = "concat",
        axis: int = 1,
        **placement: Unpack[Placement],
    ) -> None:
        super().__init__(named_children(branches, type(self).__name__), **placement)
        if not self.children:
            raise ValueError(f"{type(self).__name__} must have at least one branch")
        self.join, self.axis = checks.choice("join", join, ("concat", "add")), checks.integer("axis", axis)
        if not self.axis:
            raise ValueError("axis must be an integer other than 0, the batch axis, got 0")

    def _output_shape(self, shape: Shape) -> Shape:
        return self._joined_shape([branch.output_shape(shape) for branch in self.children.values()])

    def _joined_shape(self, shapes: list[Shape]) -> Shape:
        """The shape of the joined outputs of these shapes."""
        axis = self._require_joinable(shapes)
        if self.join == "add":
            return shapes[0]
        return (*shapes[0][:axis], sum(each[axis] for each in shapes), *shapes[0][axis + 1 :])

    def forward(self, x: Array) -> Array:
        """The outputs of all branches, concatenated or added."""
        self._check_input(x)
        return self._joined([branch.forward(x) for branch in self.children.values()])

    def _joined(self, outputs: list[Array]) -> Array:
        """The outputs concatenated or added, and recorded for `backward`."""
        b = self.backend
        shapes = [tuple(y.shape) for y in outputs]
        axis = self._require_joinable(shapes)
        if self.join == "add":
            y = self._sum(outputs)
        else:
            with b.context():
                y = operations_of(b.xp).concat(outputs, axis)
        self.save_for_backward(shapes, axis)
        self._record_output(y)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array:
        """The sum of the branches' gradients; None with ``input_grad=False``."""
        self._check_gradient(dy)
        return self._backward_all(self._with_parts(dy), input_grad)

    def _with_parts(self, dy: Array) -> list[tuple[Layer, Array]]:
        """Each branch and its part of the upstream gradient."""
        return list(zip(self.children.values(), self._parts(dy), strict=True))

    def _parts(self, dy: Array) -> list[Array]:
        shapes, axis = self.saved
        dy = self.backend.plain(dy)
        if self.join == "add":
            return [dy] * len(shapes)
        return parts_along(dy, [shape[axis] for shape in shapes], axis)

    def _require_joinable(self, shapes: list[tuple[int, ...]]) -> int:
        """The axis counted from the front; raises `ValueError` unless the shapes can be joined."""
        rank = len(shapes[0])
        axis = self.axis + rank if self.axis < 0 else self.axis
        free = axis if self.join == "concat" else None
        fixed = {tuple(n for a, n in enumerate(shape) if a != free) for shape in shapes}
        if len(fixed) > 1 or (self.join == "concat" and not 1 <= axis < rank):
            how = "added" if self.join == "add" else f"concatenated along axis {self.axis}"
            raise ValueError(
                f"{self!r}: the branches return shapes {', '.join(map(str, shapes))}, which cannot be {how}"
            )
        return axis

    def _flow(self, flow: Flow, path: str, inputs: tuple[str, ...]) -> str:
        return self._join_flow(flow, path, [flow.child(self, name, path, inputs) for name in self.children])

    def _join_flow(self, flow: Flow, path: str, outputs: list[str]) -> str:
        """Add the join of outputs of these names to a flow."""
        return flow.join(path, Add() if self.join == "add" else Concat(self.axis), outputs)

    def __repr__(self) -> str:
        options = ", join='add'" if self.join == "add" else ""
        options += f", axis={self.axis}" if self.axis != 1 else ""
        return f"{type(self).__name__}({repr_children(self.children)}{options})"
