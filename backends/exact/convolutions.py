"""Convolutions in exact numerics by compiled code: the same bits as the array functions of `ExactOperations`."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np

from ...common.types import Array
from ..contractions.windows import PadWidths, Windows
from ..execution.team import current_team
from ..operations import Operations
from .contractions import ExactContractions
from .rows import ExactRows
from .splitting import budget


class Contracting(Protocol):
    """What it needs of `xpnn.backends.exact.operations.ExactOperations`, which imports this module."""

    raw: Operations
    exact: ExactContractions
    rows: ExactRows

    def relu_in_place(self, x: Array) -> Array:
        """ReLU of an array that nothing else refers to."""


FINITE, ALL = 1, 2  # kinds of cells
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
    ops : Contracting
    problem : Problem
        See `xpnn.layers.convolution.problem.Problem`.
    """

    def __init__(self, ops: Contracting, problem: Any, forward: Any, adjoint: Any, magnitudes: Any) -> None:
        self._ops, self._problem, self._magnitudes = ops, problem, magnitudes
        self._forward, self._adjoint = forward, adjoint

    def pack(self, weight: Array) -> None:
        """Nothing is kept."""

    def forward(self, x: Array, weight: Array, bias: Array | None, packed: None = None, relu: bool = False) -> Array:
        """``y (N, *O, F)``, or its ReLU. Each sample of ``x`` has one scale, and each filter."""
        x, weight = _contiguous(x), _contiguous(weight)
        p = self._problem
        used = _read_rows(p.windows, p.padding, p.spatial) * x[0, 0].size
        largest, bad = self._magnitudes.of_rows(x.reshape((len(x), -1)), used)
        s = self._ops.exact.elementary.contraction_scale(largest)
        y: Array = self._forward(x, weight, bias, s, self._scale_of_filters(weight), bad)
        return self._ops.relu_in_place(y) if relu else y

    def _scale_of_filters(self, weight: Array) -> Array:
        """The scale of each filter, ``(F,)``."""
        if not self._problem.rotated:
            return self._ops.rows.scale_of_samples(weight).reshape((-1,))
        of_cells = self._ops.rows.largest_of_channels(weight.reshape((weight.shape[0], -1)))
        largest = of_cells.reshape((weight.shape[1], -1)).max(axis=1)
        return self._ops.exact.elementary.contraction_scale(largest)

    def weight_gradient(self, x: Array, dy: Array) -> Array:
        """``dweight (F, C, *K)``: a sum over the samples of all workers, with one scale for each channel."""
        team, scale = current_team(), self._ops.exact.elementary.contraction_scale
        # As in array functions, which other workers may use for their part: first the rows, then the scales, the sums.
        rows = x.shape[0] * prod(self._problem.windows.count)
        terms = rows if team is None else team.rows(rows)
        gradient = _find(self._ops, self._problem, terms, "exact tiles gradient", "exact windows gradient")
        x, dy = _contiguous(x), _contiguous(dy)
        kinds = _kinds(self._problem.windows, self._problem.padding, self._problem.spatial)
        largest = self._magnitudes.of_columns(x.reshape((-1, x.shape[-1])), kinds)
        if team is not None:
            largest = team.max(largest.reshape((1,) * (x.ndim - 1) + (-1,))).reshape((-1,))
        s, t = scale(largest), self._ops.rows.scale_of_channels(dy, team).reshape((-1,))
        quanta = gradient.quanta(x, dy, s, t)
        if team is not None:
            shape, wide = quanta.shape, gradient.plan.wide
            quanta = quanta.reshape((1, shape[0] * shape[1], shape[2]))
            quanta = team.sum(quanta if wide else quanta.astype("float64")).astype("int64").reshape(shape)
        dweight: Array = gradient.combine(quanta, s, t)
        return dweight

    def input_gradient(self, dy: Array, weight: Array) -> Array:
        """``dx (N, *S, C)`` by sums over windows. Each row of ``dy`` has one scale, each channel and cell another."""
        dy, weight = _contiguous(dy), _contiguous(weight)
        channels, cells = self._problem.channels, self._problem.windows.cells
        t = self._ops.rows.scale_of_channels(weight.reshape((weight.shape[0], channels * cells)))
        dx: Array = self._adjoint(dy, weight, t.reshape((channels, cells)))
        return dx


def _read_rows(windows: Windows, padding: PadWidths, spatial: tuple[int, ...]) -> int:
    """Rows of the input, its first spatial axis, up to the last one that a window reads."""
    return min(max(windows.extent[0] - padding[0][0], 0), spatial[0])


@lru_cache(maxsize=1024)
def _kinds(windows: Windows, padding: PadWidths, spatial: tuple[int, ...]) -> Any:
    """For each cell of the input, which of its numbers count for scales of channels: see `Magnitudes.of_columns`.

    Numbers that are not finite don't count in cells that no window reads, and no numbers beyond the last row read.
    """
    kinds = np.zeros([low + size + high for size, (low, high) in zip(spatial, padding, strict=True)], np.int64)
    inside = tuple(slice(low, low + size) for size, (low, _) in zip(spatial, padding, strict=True))
    kinds[inside][: _read_rows(windows, padding, spatial)] = FINITE
    for index in windows.slices():
        kinds[index[1:-1]] = ALL
    return np.ascontiguousarray(kinds[inside]).reshape(-1)


def _contiguous(x: Array) -> Array:
    return x if x.flags.c_contiguous and x.flags.aligned else x.copy(order="C")


def prepare(ops: Contracting, problem: Any) -> CompiledConvolution | None:
    """Compiled code for a convolution; None where array functions must compute."""
    p, magnitudes = problem, ops.raw.prepare("exact magnitudes", None, "float64")
    if magnitudes is None or p.groups != 1:
        return None
    forward = _find(ops, p, p.windows.cells * p.channels, "exact tiles", "exact windows")
    if forward is None:
        return None
    # A rotated problem is an adjoint, whose gradients nobody asks for.
    adjoint = None if p.rotated else _find(ops, p, p.features, "exact windows adjoint")
    return CompiledConvolution(ops, p, forward, adjoint, magnitudes)


def _find(ops: Contracting, problem: Any, terms: int, *names: str) -> Any:
    """The first of these operations of an engine that computes sums of so many terms, or None."""
    asked = problem, budget(terms, ops.exact.slice_products)
    found = (ops.raw.prepare(name, asked, "float64") for name in names)
    return next((each for each in found if each is not None), None)
