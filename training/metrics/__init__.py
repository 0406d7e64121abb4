"""Metrics: figures of a model over many batches, from sums that are kept on the device.

`fit` and `evaluate` accept them as ``metrics=[...]``, and so does any function of ``(prediction, target)``. A metric is
computed from sums over all samples, so it does not depend on how these are cut into batches; a function is called with
each batch, and its results are averaged with the numbers of samples as weights.
"""

from .classes import Accuracy, ConfusionMatrix, IoU
from .metric import Mean, Metric
from .regression import R2, MeanAbsoluteError

__all__ = ["R2", "Accuracy", "ConfusionMatrix", "IoU", "Mean", "MeanAbsoluteError", "Metric"]
