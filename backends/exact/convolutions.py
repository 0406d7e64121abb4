"""Convolutions in exact numerics by compiled code: the same bits as the array functions of `ExactOperations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...common.types import Array
from ..contractions.windows import Windows
from ..execution.team import current_team
from .splitting import budget

if TYPE_CHECKING:
    from .operations import ExactOperations

MULTIPLE = 16  # channels and features of the convolutions whose adjoint is computed as a convolution


def by_adjoint(windows: Windows, channels: int, features: int, groups: int) -> bool:
    """Whether the input's gradient is a convolution with the rotated kernel, on every backend.

    It is where tiles compute such convolutions faster. Otherwise products of each window are rounded and added up.
    """
    plain = windows.kernel == (3, 3) and windows.stride == windows.dilation == (1, 1) and groups == 1
    return plain and channels % MULTIPLE == 0 and features % MULTIPLE == 0


class CompiledConvolution:
    """A convolution whose steps compiled code computes; made by `prepare`.

    Parameters
    ----------
    ops : ExactOperations
    problem : Problem
        See `xpnn.layers.convolution.problem.Problem`.
    """

    def __init__(self, ops: ExactOperations, problem: Any, forward: Any, gradient: Any, magnitudes: Any) -> None:
        self._ops, self._problem, self._magnitudes = ops, problem, magnitudes
        self._forward, self._gradient = forward, gradient

    def pack(self, weight: Array) -> None:
        """Nothing is kept."""

    def forward(
        self, x: Array, weight: Array, bias: Array | None, packed: None = None, relu: bool = False
    ) -> Array:
        """``y (N, *O, F)``, or its ReLU. Each sample of ``x`` has one scale, and each filter."""
        x, weight = _contiguous(x), _contiguous(weight)
        scale, by_filter = self._ops.exact.elementary.contraction_scale, self._magnitudes
        largest, bad = by_filter.of_rows(x.reshape((x.shape[0], -1)), finite=True)
        if self._problem.rotated:
            of_filters = by_filter.of_columns(weight.reshape((weight.shape[0], -1)), weight[0, 0].size)
        else:
            of_filters = by_filter.of_rows(weight.reshape((weight.shape[0], -1)))[0]
        y: Array = self._forward(x, weight, bias, scale(largest), scale(of_filters), bad)
        return self._ops.relu_in_place(y) if relu else y

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, *K)``: a sum over the samples of all workers, with one scale for each channel."""
        team, scale = current_team(), self._ops.exact.elementary.contraction_scale
        x, dy = _contiguous(x), _contiguous(dy)
        largest = [self._magnitudes.of_columns(each.reshape((-1, each.shape[-1]))) for each in (x, dy)]
        s, t = (scale(each if team is None else team.max(each)) for each in largest)
        quanta = self._gradient.quanta(x, dy, s, t)
        if team is not None:
            # Other workers may have used array functions.
            quanta = team.sum(quanta if self._gradient.plan.wide else quanta.astype("float64")).astype("int64")
        dweight: Array = self._gradient.combine(quanta, s, t)
        return dweight

    def input_gradient(self, dy: Array, weight: Array) -> Array:
        raise NotImplementedError


def _contiguous(x: Array) -> Array:
    return x if x.flags.c_contiguous and x.flags.aligned else x.copy(order="C")


def prepare(ops: ExactOperations, problem: Any) -> CompiledConvolution | None:
    """Compiled code for a convolution and the current team; None where array functions must compute."""
    team, products = current_team(), ops.exact.slice_products
    terms = problem.windows.cells * problem.channels // problem.groups
    rows = problem.samples * problem.windows.count[0] * problem.windows.count[-1]
    magnitudes = ops.raw.prepare("exact magnitudes", None, "float64")
    if magnitudes is None:
        return None
    forward = ops.raw.prepare("exact forward", (problem, budget(terms, products)), "float64")
    plan = budget(rows if team is None else team.rows(rows), products)
    gradient = ops.raw.prepare("exact weight gradient", (problem, plan), "float64")
    if forward is None or gradient is None or problem.adjoint is None:
        return None
    return CompiledConvolution(ops, problem, forward, gradient, magnitudes)
