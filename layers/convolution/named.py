"""Convolution by an algorithm that is asked for by name, to hold one against the others at any size.

`xpnn.backends.overrides` says which. What it does not serve (another stride, a gradient) is left to the chooser.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from ...backends import overrides
from ...backends.operations import Operations
from ...common.types import Array
from . import banded, columns, depthwise, direct, rows, stationary, winograd
from .banded import Banded
from .problem import Problem
from .winograd import POINTS, Winograd

#: ``(dy, weight, problem, ops)`` to ``dx``.
Gradient: TypeAlias = Callable[[Array, Array, Problem, Operations], Array]


class Algorithm(Protocol):
    """What each computes; the gradient of the input is the forward of another problem, or one of three of its own."""

    def forward(self, x: Array, weight: Array, bias: Array | None, problem: Problem, ops: Operations) -> Array:
        """``y (N, *O, F)``."""

    def weight_gradient(self, x: Array, dy: Array, problem: Problem, ops: Operations) -> Array:
        """``dweight (F, C/G, *K)``."""


def algorithm(problem: Problem, ops: Operations) -> Algorithm | None:
    """The one that is asked for, if it serves; None leaves the choice open."""
    asked = overrides.chosen().convolution
    if not asked and not overrides.watched():
        return None
    found = serving(problem, ops)
    overrides.met(found)
    return found.get(asked)


def input_gradient(problem: Problem, ops: Operations) -> Gradient | None:
    """What computes the gradient of the input by the algorithm that is asked for; None leaves the choice open."""
    asked = overrides.chosen().convolution
    if not asked and not overrides.watched():
        return None
    found = gradients(problem, ops)
    overrides.met(found)
    return found.get(asked)


def serving(problem: Problem, ops: Operations) -> dict[str, Algorithm]:
    """All algorithms that compute a problem and its weight's gradient, at whatever cost, by name."""
    found: dict[str, Algorithm] = {"columns": columns}
    if not ops.free_order:
        return found
    if stationary.serves(problem):
        found["stationary"] = stationary
    if depthwise.serves(problem, ops):
        found["depthwise"] = depthwise
    if direct.serves(problem, ops):
        found["direct"] = direct
    together = banded.serving(problem)
    if together:
        found |= {"banded, narrow": Banded(together[0]), "banded, wide": Banded(together[-1])}
    if ops.views and winograd.serves(problem):
        for m in POINTS:
            found |= {f"Winograd F{m}": Winograd(m), f"Winograd F{m}, filters shared": Winograd(m, shares_filters=True)}
    return found


def gradients(problem: Problem, ops: Operations) -> dict[str, Gradient]:
    """All that compute the gradient of the input: ways of their own, and the adjoint problem by each that serves it."""
    found: dict[str, Gradient] = {}
    adjoint = problem.adjoint if ops.free_order else None
    if adjoint is not None:
        found = {name: _by_adjoint(each, adjoint) for name, each in serving(adjoint, ops).items()}
        found["adjoint"] = found["columns"]
    found["columns"] = columns.input_gradient
    if ops.free_order and rows.serves(problem):
        found["rows"] = rows.input_gradient
    if depthwise.serves(problem, ops):
        found["depthwise"] = depthwise.input_gradient
    return found


def _by_adjoint(algorithm: Algorithm, adjoint: Problem) -> Gradient:
    def gradient(dy: Array, weight: Array, problem: Problem, ops: Operations) -> Array:
        return algorithm.forward(dy, weight, None, adjoint, ops)

    return gradient
