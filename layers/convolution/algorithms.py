"""All algorithms of convolution by name, so that a test can request one and compare it with the others at any size.

`xpnn.backends.overrides` holds the requested name. Where that algorithm can't compute a problem, for its stride for
example, the chooser picks another.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from ...backends import overrides
from ...backends.operations import Operations
from ...common.types import Array
from ..core.kept import Keep, compute
from . import banded, banded_rows, columns, depthwise, direct, large_weight, winograd
from .banded import Banded
from .problem import Problem
from .winograd import Winograd
from .winograd_transforms import POINTS

#: ``(dy, weight, problem, ops)`` to ``dx``.
InputGradient: TypeAlias = Callable[[Array, Array, Problem, Operations], Array]


class Algorithm(Protocol):
    """What each algorithm computes; the gradient of the input is a forward of the adjoint, or an `InputGradient`."""

    def forward(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        problem: Problem,
        ops: Operations,
        keep: Keep = compute,
        relu: bool = False,
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU; ``keep`` is for values that depend on weight and bias only."""

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
        """``dweight (F, C/G, *K)``."""


def requested(problem: Problem, ops: Operations) -> Algorithm | None:
    """The requested algorithm if it can compute the problem, else None."""
    name = overrides.chosen().convolution
    if not name and not overrides.is_collecting():
        return None
    found = serving(problem, ops)
    overrides.add_applicable(found)
    return found.get(name)


def requested_input_gradient(problem: Problem, ops: Operations) -> InputGradient | None:
    """The gradient of the input by the requested algorithm if it can compute it, else None."""
    name = overrides.chosen().convolution
    if not name and not overrides.is_collecting():
        return None
    found = input_gradients(problem, ops)
    overrides.add_applicable(found)
    return found.get(name)


def serving(problem: Problem, ops: Operations) -> dict[str, Algorithm]:
    """All algorithms that can compute a problem and its weight's gradient, whatever their cost, by name."""
    found: dict[str, Algorithm] = {"columns": columns}
    if not ops.free_order:
        return found
    if large_weight.serves(problem):
        found["large weight"] = large_weight
    if depthwise.serves(problem, ops):
        found["depthwise"] = depthwise
    if direct.serves(problem, ops):
        found["direct"] = direct
    neighbours = banded.possible_neighbours(problem)
    if neighbours:
        found |= {"banded, narrow": Banded(neighbours[0]), "banded, wide": Banded(neighbours[-1])}
    if ops.views and winograd.serves(problem):
        for m in POINTS:
            found |= {f"Winograd F{m}": Winograd(m), f"Winograd F{m}, filters shared": Winograd(m, shares_filters=True)}
    return found


def input_gradients(problem: Problem, ops: Operations) -> dict[str, InputGradient]:
    """All that can compute the gradient of the input, by name: the adjoint by each algorithm that serves it, and the
    algorithms with an ``input_gradient`` of their own."""
    found: dict[str, InputGradient] = {}
    adjoint = problem.adjoint if ops.free_order else None
    if adjoint is not None:
        found = {name: _by_adjoint(each, adjoint) for name, each in serving(adjoint, ops).items()}
        found["adjoint"] = found["columns"]
    found["columns"] = columns.input_gradient
    if ops.free_order and banded_rows.serves(problem):
        found["banded rows"] = banded_rows.input_gradient
    if depthwise.serves(problem, ops):
        found["depthwise"] = depthwise.input_gradient
    return found


def _by_adjoint(algorithm: Algorithm, adjoint: Problem) -> InputGradient:
    def gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
        return algorithm.forward(dy, weight, None, adjoint, ops)

    return gradient
