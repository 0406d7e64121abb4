"""Metrics of batches of which each rank has some samples.

In fast numerics each rank adds up its own samples, and the sums of all ranks are added when they are read. In exact
numerics each rank has the sums of whole batches, so that they have the bits of one process.
"""

from collections.abc import Sequence
from typing import Any

from ...backends import to_host
from ...common.types import Array
from ...distributed import Group
from ..running_metrics import Counts, RunningMetrics


def of_all_ranks(metrics: RunningMetrics, group: Group) -> RunningMetrics:
    """The metrics of all ranks together, on each; called by all."""
    if group.size == 1 or isinstance(metrics, WholeBatchMetrics):
        return metrics
    return merged(metrics, group.gather(metrics.state_dict()))


def merged(metrics: RunningMetrics, states: Sequence[dict[str, Any]]) -> RunningMetrics:
    """The sums of several states, added in their order."""
    found = metrics.empty()
    for state in states:
        part = metrics.empty()
        part.load_state_dict(state)
        found.merge(part)
    return found


class WholeBatchMetrics(RunningMetrics):
    """The sums of whole batches, the same on all ranks.

    The loss is of the whole batch already, and counts are whole numbers, which are added in any order. Where that is
    not enough, because there are other metrics or targets count with weights, each rank computes them from the
    predictions and targets of all.
    """

    def __init__(self, group: Group, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._group = group

    def add(self, value: Array | float, prediction: Array, target: Array) -> None:
        """Add a batch, given its loss and this rank's predictions and targets."""
        if self.metrics or not isinstance(self.loss.counted(prediction, target, none_ignored=self.none_ignored), float):
            prediction, target = self._group.all_gather(prediction), self._group.all_gather(target)
        super().add(value, prediction, target)

    def _counts(self, prediction: Array, target: Array) -> Counts:
        own = super()._counts(prediction, target)
        if self.metrics or not isinstance(own.weight, float):
            return own
        correct = None if own.correct is None else int(to_host(own.correct))
        weight, hits, targets = self._group.add(own.weight, correct or 0, own.targets)
        return Counts(weight, None if correct is None else int(hits), int(targets))
