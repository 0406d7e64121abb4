"""Cases of losses: reductions, weights, ignored targets and extreme predictions."""

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

from ... import layers
from ..tolerances import Part
from . import inputs
from .case import LossCase

SHAPE = (6, 5)
MAP = (3, 5, 4, 3)
REGRESSIONS = ("MSE", "MAE", "L1", "L2", "MSLE", "MAPE", "Huber", "SmoothL1")
SUMS = ("L1", "L2")


def regressions() -> Iterator[LossCase]:
    """Losses of predictions that are numbers like their targets."""
    for name in REGRESSIONS:
        # MSLE has logarithms of both plus 1, MAPE divides by the target.
        case = partial(_loss, name, make=inputs.positive, target=inputs.positive)
        yield case("plain")
        if name not in SUMS:
            yield case("sum", reduction="sum")
            yield case("none", reduction="none")
        yield case("float64", dtype="float64")
    for name in ("MSE", "MAE", *SUMS, "Huber", "SmoothL1"):
        yield _loss(name, "large reduction", shape=(50, 60))
        yield _loss(name, "ties", make=inputs.ties, target=inputs.ties)
    yield _loss("MSE", "NaN", make=inputs.with_nan)
    yield _loss("MSE", "empty batch", shape=(0, 5), reduction="sum")
    yield _loss("MAPE", "targets of 0", target=inputs.zeros)
    yield _loss("MAPE", "ties", make=inputs.ties, target=inputs.ties)
    yield _loss("MAE", "all sizes", make=inputs.wide, target=inputs.zeros)
    yield _loss("Huber", "delta 0.3", delta=0.3)
    yield _loss("SmoothL1", "beta 0.3", beta=0.3)
    yield _loss("SmoothL1", "beta 0", beta=0.0)


def classifications() -> Iterator[LossCase]:
    """Losses of probabilities, logits and log-probabilities of classes."""
    weight, gaps = (0.5, 1.0, 2.0, 0.0, 1.5), inputs.classes_with_gaps
    case = partial(_loss, "BinaryCrossEntropy", make=inputs.probability, target=inputs.binary)
    yield case("plain")
    yield case("sum", reduction="sum")
    yield case("none", reduction="none")
    yield case("weights", weight=weight)
    yield case("certain", make=inputs.sure)
    yield case("float64", dtype="float64")
    case = partial(_loss, "BinaryCrossEntropyWithLogits", target=inputs.binary)
    yield case("plain")
    yield case("none", reduction="none")
    yield case("weights", weight=weight, pos_weight=(1.0, 3.0, 0.5, 1.0, 2.0))
    yield case("all sizes", make=inputs.wide, reduction="none")
    yield case("float64", dtype="float64")
    case = partial(_loss, "CrossEntropy", target=inputs.classes)
    yield case("plain")
    yield case("sum", reduction="sum")
    yield case("none", reduction="none")
    yield case("label smoothing", label_smoothing=0.1)
    yield case("weights", weight=weight)
    yield case("weights and label smoothing", weight=weight, label_smoothing=0.2)
    yield case("ignored targets", target=gaps)
    yield case("ignored targets, weights", target=gaps, weight=weight)
    yield case("probabilities", target=inputs.distribution)
    yield case("probabilities and label smoothing", target=inputs.distribution, label_smoothing=0.1)
    yield case("ignored targets, weights, label smoothing", target=gaps, weight=weight, label_smoothing=0.2)
    yield case("probabilities, weights", target=inputs.distribution, weight=weight)
    yield case("probabilities of 0", make=inputs.with_minus_infinity, target=inputs.certain, reduction="none")
    yield case("maps of probabilities", shape=MAP, target=inputs.distribution)
    yield case("sure of itself", make=inputs.spread)
    yield case("far apart", make=inputs.far)
    yield case("maps", shape=MAP)
    yield case("large reduction", shape=(20, 300))
    yield case("NaN", make=inputs.with_nan)
    yield case("float64", dtype="float64")
    case = partial(_loss, "NLL", make=inputs.log_probability, target=inputs.classes)
    yield case("plain")
    yield case("weights", weight=weight)
    yield case("ignored targets", target=gaps)
    yield case("maps", shape=MAP)
    yield case("none", reduction="none")
    absent: dict[str, Any] = {"make": inputs.with_minus_infinity, "weight": (0, 0, 2, 0, 1)}
    yield case("weights of 0, minus infinity", reduction="none", **absent)
    case = partial(_loss, "KLDivergence", make=inputs.log_probability, target=inputs.distribution)
    yield case("plain", reduction="batchmean")
    yield case("mean")
    yield case("none", reduction="none")
    yield case("probabilities of 0", make=inputs.with_minus_infinity, target=inputs.certain, reduction="none")
    yield case("logarithm of the target", target=inputs.log_probability, log_target=True)

    yield from _of_rare_classes()


def _of_rare_classes() -> Iterator[LossCase]:
    """The focal and the Dice loss, of classes and of masks."""
    gaps = inputs.classes_with_gaps
    case = partial(_loss, "Focal", target=inputs.classes)
    yield case("plain")
    yield case("none", reduction="none", gamma=0.5)
    yield case("sum", reduction="sum", gamma=0.0)
    yield case("weights, ignored targets", target=gaps, alpha=(0.5, 1.0, 2.0, 0.0, 1.5), gamma=3.0)
    yield case("factor", alpha=0.25, gamma=1.0)
    yield case("maps", shape=MAP, gamma=1.5)
    yield case("sure of itself", make=inputs.spread, reduction="none")
    yield case("float64", dtype="float64")
    yield case("entries", target=inputs.binary)
    yield case("entries, weights", alpha=0.25, gamma=1.5, reduction="none", shape=MAP, target=inputs.binary)
    yield case("entries, targets between", target=inputs.probability, gamma=3.0)
    yield case("entries, all sizes", make=inputs.wide, target=inputs.binary, reduction="none")
    case = partial(_loss, "Dice", shape=MAP, target=inputs.classes)
    yield case("plain")
    yield case("none", reduction="none")
    yield case("sum, no smoothing", reduction="sum", smooth=0.0)
    yield case("ignored targets", target=gaps, smooth=0.1)
    yield case("probabilities", make=inputs.probability, from_logits=False)
    yield case("no pixels", shape=SHAPE, reduction="none")
    yield case("NaN", make=inputs.with_nan)
    yield case("large reduction", shape=(3, 4, 50, 40))
    yield case("float64", dtype="float64")
    yield case("masks", target=inputs.binary)
    yield case("masks, none", target=inputs.binary, reduction="none", smooth=0.1)
    yield case("masks, probabilities", make=inputs.probability, target=inputs.binary, from_logits=False)


def _loss(
    name: str,
    variant: str,
    *,
    shape: tuple[int, ...] = SHAPE,
    make: inputs.Maker = inputs.real,
    target: inputs.Maker = inputs.real,
    dtype: str = "float32",
    **options: Any,
) -> LossCase:
    terms: dict[Part, int] = {"forward": prod(shape)}
    build = partial(getattr(layers, name), **options)
    return LossCase(f"{name}/{variant}", "loss", terms, dtype, build, shape, make, target)
