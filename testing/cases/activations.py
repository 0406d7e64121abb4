"""Cases of activations: usual numbers, tails, kinks, NaN and infinities."""

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

from ... import layers
from ..tolerances import Part
from . import inputs
from .case import LayerCase

SHAPE = (4, 5, 6)
RECTIFIERS = ("ReLU", "LeakyReLU")
EXPONENTIALS = ("ELU", "SELU", "CELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softplus", "Softsign")
SHIFTED = ("GELU", "HardSigmoid", "HardSwish")


def activations() -> Iterator[LayerCase]:
    """Elementwise activations."""
    for op, names in (("rectifier", RECTIFIERS), ("exponential", EXPONENTIALS), ("shifted", SHIFTED)):
        for name in names:
            yield _activation(name, op, "plain")
            yield _activation(name, op, "all sizes", inputs.tails if op == "shifted" else inputs.wide)
            yield _activation(name, op, "zeros", inputs.zeros)
            yield _activation(name, op, "NaN and infinities", inputs.specials)
            yield _activation(name, op, "float64", dtype="float64")
    yield _activation("GELU", "shifted", "tanh form", inputs.tails, approximate="tanh")
    yield _activation("GELU", "shifted", "tanh form, float64", inputs.tails, dtype="float64", approximate="tanh")
    yield _activation("HardSigmoid", "shifted", "whole numbers", inputs.whole)
    yield _activation("HardSwish", "shifted", "whole numbers", inputs.whole)
    yield _activation("LeakyReLU", "rectifier", "slope 0.3", negative_slope=0.3)
    yield _activation("ELU", "exponential", "alpha 0.5", alpha=0.5)
    yield _activation("ELU", "exponential", "alpha 0.5, zeros", inputs.zeros, alpha=0.5)
    yield _activation("CELU", "exponential", "alpha 0.5", alpha=0.5)
    yield _activation("Softplus", "exponential", "beta 2", beta=2.0)
    yield _activation("ReLU", "rectifier", "strided input", layout="strided")
    yield _activation("ReLU", "rectifier", "read-only input", layout="read-only")
    yield _activation("ReLU", "rectifier", "empty batch", shape=(0, 5, 6))
    for variant, make in (("plain", inputs.real), ("zeros", inputs.zeros), ("NaN and infinities", inputs.specials)):
        yield _prelu(variant, SHAPE, 5, make)
    yield _prelu("all sizes", SHAPE, 5, inputs.wide)
    yield _prelu("one slope", SHAPE, 1)
    yield _prelu("large reduction", (40, 3, 50), 3)


def softmaxes() -> Iterator[LayerCase]:
    """Softmax and LogSoftmax."""
    for name in ("Softmax", "LogSoftmax"):
        yield _softmax(name, "plain", SHAPE)
        yield _softmax(name, "last axis", SHAPE, axis=-1)
        yield _softmax(name, "sure of itself", SHAPE, make=inputs.spread)
        yield _softmax(name, "far apart", SHAPE, make=inputs.far)
        yield _softmax(name, "ties", SHAPE, make=inputs.ties)
        yield _softmax(name, "size-1 axes", (3, 1))
        yield _softmax(name, "empty batch", (0, 5))
        yield _softmax(name, "NaN", SHAPE, make=inputs.with_nan)
        yield _softmax(name, "minus infinity", (4, 5), make=inputs.with_minus_infinity)
        yield _softmax(name, "large reduction", (3, 2000))
        yield _softmax(name, "strided input", SHAPE, layout="strided")
        yield _softmax(name, "float64", SHAPE, dtype="float64")


def _activation(
    name: str,
    op: str,
    variant: str,
    make: inputs.Maker = inputs.real,
    *,
    shape: tuple[int, ...] = SHAPE,
    layout: str = "plain",
    dtype: str = "float32",
    **options: Any,
) -> LayerCase:
    return LayerCase(f"{name}/{variant}", op, {}, dtype, partial(getattr(layers, name), **options), shape, make, layout)


def _prelu(variant: str, shape: tuple[int, ...], slopes: int, make: inputs.Maker = inputs.real) -> LayerCase:
    terms = prod(shape) // slopes
    return LayerCase(
        f"PReLU/{variant}", "rectifier", {"parameter": terms}, "float32", partial(layers.PReLU, slopes), shape, make
    )


def _softmax(
    name: str,
    variant: str,
    shape: tuple[int, ...],
    *,
    axis: int = 1,
    make: inputs.Maker = inputs.real,
    layout: str = "plain",
    dtype: str = "float32",
) -> LayerCase:
    terms: dict[Part, int] = {"forward": shape[axis], "input": shape[axis]}
    return LayerCase(
        f"{name}/{variant}", "softmax", terms, dtype, partial(getattr(layers, name), axis), shape, make, layout
    )
