"""Scales and sums of rows of channels, by an engine's compiled code where there is one, with the same bits.

They are what contractions, batch norm and gradients of a bias read all numbers for. A maximum and a sum of whole
numbers do not depend on the order, so neither the engine nor its threads have an effect.
"""

from math import prod
from typing import Any

from ...common.types import Array, dtype_name
from ..execution.team import Team, current_team
from ..operations import Operations
from .contractions import ExactContractions


class ExactRows:
    """Scales and sums of float64 rows of channels, and of float32 ones as exact numerics reads them.

    Parameters
    ----------
    raw : Operations
        Of the library's own namespace, which may have an engine.
    exact : ExactContractions
    """

    def __init__(self, raw: Operations, exact: ExactContractions) -> None:
        self.raw, self.exact = raw, exact

    def scale_of_samples(self, x: Array) -> Array:
        """`Splitting.scale` of each sample of ``x (N, ...)``, of shape ``(N, 1, ...)``."""
        size = prod(x.shape[1:])
        compiled = self.raw.prepare("exact samples", (x.shape[0], size), dtype_name(x.dtype))
        if compiled is None:
            return self.exact.scale(x, tuple(range(1, x.ndim)))
        return self.exact.xp.reshape(compiled.scales(x), (-1, *(1,) * (x.ndim - 1)))

    def scale_of_channels(self, x: Array, team: Team | None = None) -> Array:
        """`Splitting.scale` of each channel of ``x (..., C)``, over the rows of all workers: ``(1, ..., 1, C)``."""
        compiled = self._of_channels(x)
        if compiled is None:
            return self.exact.scale(x, tuple(range(x.ndim - 1)), team)
        found = compiled.scales(x) if team is None else compiled.largest(x)
        found = self.exact.xp.reshape(found, (*(1,) * (x.ndim - 1), -1))
        return found if team is None else self.exact.elementary.contraction_scale(team.max(found))

    def largest_of_channels(self, x: Array) -> Array:
        """The largest magnitude in each channel of ``x (..., C)``, not empty: ``(C,)``; NaN if there is one."""
        compiled, xp = self._of_channels(x), self.exact.xp
        return xp.max(xp.abs(x), axis=tuple(range(x.ndim - 1))) if compiled is None else compiled.largest(x)

    def sum(self, x: Array) -> Array:
        """Sum of ``x (..., C)`` over all axes but the last and over all workers: ``(C,)``."""
        compiled = None if current_team() is not None else self._of_channels(x)
        if compiled is None:
            return self.exact.sum(x, tuple(range(x.ndim - 1)), team=current_team())
        return compiled.sums(x)

    def _of_channels(self, x: Array) -> Any:
        """The engine's object for rows of this shape; None if there is none."""
        channels = x.shape[-1]
        return self.raw.prepare("exact rows", (prod(x.shape[:-1]), channels), dtype_name(x.dtype))
