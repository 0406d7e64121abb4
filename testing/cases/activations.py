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
RECTIFIERS = ("ReLU", "LeakyReLU", "ReLU6", "HardTanh", "SoftShrink", "HardShrink")
EXPONENTIALS = (
    *("ELU", "SELU", "CELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softplus", "Softsign"),
    *("LogSigmoid", "TanhShrink"),
)
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
    yield _activation("HardSigmoid", "shifted", "other line, whole numbers", inputs.whole, alpha=0.25, beta=0.75)
    yield from _cut_off()
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


def _cut_off() -> Iterator[LayerCase]:
    """What is cut off at a limit, and inputs on the limits."""
    limits: dict[str, dict[str, Any]] = {
        "Clip": {"min": -1.0, "max": 1.0},
        "Threshold": {"threshold": 1.0, "value": -3.0},
    }
    for name, options in limits.items():
        yield _activation(name, "rectifier", "plain", **options)
        yield _activation(name, "rectifier", "all sizes", inputs.wide, **options)
        yield _activation(name, "rectifier", "whole numbers", inputs.whole, **options)
        yield _activation(name, "rectifier", "NaN and infinities", inputs.specials, **options)
        yield _activation(name, "rectifier", "float64", dtype="float64", **options)
    yield _activation("Clip", "rectifier", "no limits, NaN and infinities", inputs.specials)
    yield _activation("Clip", "rectifier", "one limit of 0, zeros", inputs.zeros, max=0.0)
    yield _activation("Clip", "rectifier", "limits in the wrong order", inputs.whole, min=2.0, max=1.0)
    yield _activation("ReLU6", "rectifier", "whole numbers", inputs.whole)
    yield _activation("ReLU6", "rectifier", "strided input", inputs.tails, layout="strided")
    yield _activation("ReLU6", "rectifier", "empty batch", shape=(0, 5, 6))
    yield _activation("HardTanh", "rectifier", "whole numbers", inputs.whole, min_val=-2.0, max_val=3.0)
    yield _activation("SoftShrink", "rectifier", "whole numbers", inputs.whole, lambd=2.0)
    yield _activation("SoftShrink", "rectifier", "lambd 0, zeros", inputs.zeros, lambd=0.0)
    yield _activation("HardShrink", "rectifier", "whole numbers", inputs.whole, lambd=2.0)


def softmaxes() -> Iterator[LayerCase]:
    """Softmax, LogSoftmax, Softmin; Hardmax; GLU."""
    for name in ("Softmax", "LogSoftmax", "Softmin"):
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
    yield from _hardmaxes()
    yield from _glus()


def _hardmaxes() -> Iterator[LayerCase]:
    case = partial(_along_axis, "Hardmax", "copy")
    yield case("plain", SHAPE)
    yield case("ties", SHAPE, make=inputs.ties, axis=1)
    yield case("NaN and infinities", SHAPE, make=inputs.specials)
    yield case("minus infinity everywhere", (4, 5), make=inputs.minus_infinity)
    yield case("size-1 axes", (3, 1))
    yield case("empty batch", (0, 5))
    yield case("strided input", SHAPE, layout="strided")
    yield case("float64", SHAPE, dtype="float64")


def _glus() -> Iterator[LayerCase]:
    case = partial(_along_axis, "GLU", "exponential")
    yield case("plain", SHAPE)
    yield case("channels", (4, 6, 5), axis=1)
    yield case("sure of itself", SHAPE, make=inputs.spread)
    yield case("NaN", SHAPE, make=inputs.with_nan)
    yield case("two values", (3, 2))
    yield case("empty batch", (0, 4))
    yield case("strided input", SHAPE, layout="strided")
    yield case("channels last", (2, 6, 4, 3), axis=1, layout="channels last")
    yield case("float64", SHAPE, dtype="float64")


def _along_axis(
    name: str,
    op: str,
    variant: str,
    shape: tuple[int, ...],
    *,
    axis: int = -1,
    make: inputs.Maker = inputs.real,
    layout: str = "plain",
    dtype: str = "float32",
) -> LayerCase:
    return LayerCase(f"{name}/{variant}", op, {}, dtype, partial(getattr(layers, name), axis), shape, make, layout)


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
