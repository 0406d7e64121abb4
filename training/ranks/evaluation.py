"""Evaluation by several processes: each computes some of the batches, whole, and all add up the same sums in order."""

from collections.abc import Sequence
from typing import Any

from ...distributed import Group
from ..running_metrics import RunningMetrics
from .metrics import merged


def in_order(measured: RunningMetrics, own: Sequence[RunningMetrics], group: Group) -> RunningMetrics:
    """The metrics of all batches, added in their order, so that they have the bits of one process.

    Parameters
    ----------
    measured : RunningMetrics
        Empty.
    own : sequence of RunningMetrics
        Of each batch of this rank: those at positions ``rank``, ``rank + size``, ...
    group : Group
    """
    every: list[list[dict[str, Any]]] = group.gather([each.state_dict() for each in own])
    longest = max(map(len, every))
    return merged(measured, [states[i] for i in range(longest) for states in every if i < len(states)])
