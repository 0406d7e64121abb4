"""Cases of layers that move, drop or join values: shape layers, dropout, containers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ... import layers
from ...layers import Conv2d, Dense, Identity, Parallel, ReLU, Residual, Sequential, Tanh
from ...layers.core.layer import Layer
from ..tolerances import Part
from . import inputs
from .case import LayerCase
from .convolutions import PLANE, SHAPES


def shapes() -> Iterator[LayerCase]:
    """Flatten, Reshape, Pad, Upsample, Identity."""
    yield _move("Flatten", "plain", PLANE)
    yield _move("Flatten", "some axes", PLANE, 2, 3)
    yield _move("Flatten", "strided input", PLANE, layout="strided")
    yield _move("Flatten", "empty batch", (0, 4, 3))
    yield _move("Reshape", "plain", (3, 4, 6), 6, 4)
    yield _move("Reshape", "one axis to be found", (3, 4, 6), 8, -1)
    yield _move("Pad", "plain", PLANE, ((1, 2), (0, 1)), 0.5)
    yield _move("Pad", "empty batch", (0, 4, 3, 3), 1)
    for mode, most in (("reflect", 4), ("replicate", 9), ("circular", 5)):
        # A cell has copies on both sides of each axis; an edge that is replicated as many as the padding has cells.
        yield _move("Pad", mode, PLANE, ((1, 2), (0, 3)), 0.0, mode, terms=9)
        yield _move("Pad", f"{mode}, one axis, as much as possible", (3, 4, 5), most, 0.0, mode, terms=10)
        yield _move("Pad", f"{mode}, three axes", (2, 3, 3, 4, 2), (1, (2, 0), (0, 1)), 0.0, mode, terms=12)
        yield _move("Pad", f"{mode}, empty batch", (0, 4, 3, 3), 1, 0.0, mode, terms=9)
        yield _move("Pad", f"{mode}, strided input", PLANE, 2, 0.0, mode, terms=9, layout="strided")
        yield _move("Pad", f"{mode}, NaN", PLANE, 2, 0.0, mode, terms=9, make=inputs.with_nan)
        yield _move("Pad", f"{mode}, float64", PLANE, 2, 0.0, mode, terms=9, dtype="float64")
    yield _move("Pad", "replicate, size-1 axes", (2, 1, 1, 1), 2, 0.0, "replicate", terms=25)
    yield _move("Pad", "circular, size-1 axes", (2, 1, 1, 1), 1, 0.0, "circular", terms=9)
    yield _move("Identity", "plain", PLANE)
    yield _move("Upsample", "plain", PLANE, 2, terms=4)
    yield _move("Upsample", "by axis", PLANE, (3, 1), terms=3)
    yield _move("Upsample", "one spatial axis", (3, 4, 5), 3, terms=3)


def dropouts() -> Iterator[LayerCase]:
    """Dropout of values and of channels."""
    yield _dropout("Dropout", "plain", PLANE, 0.5)
    yield _dropout("Dropout", "p 0.3", PLANE, 0.3)
    yield _dropout("Dropout", "keeps all", PLANE, 0.0)
    yield _dropout("Dropout", "keeps nothing", PLANE, 1.0)
    yield _dropout("Dropout", "evaluation", PLANE, 0.5, training=False)
    yield _dropout("Dropout", "float64", PLANE, 0.3, dtype="float64")
    yield _dropout("Dropout", "empty batch", (0, 4), 0.3)
    for axes, shape in enumerate(SHAPES, 1):
        yield _dropout(f"Dropout{axes}d", "plain", shape, 0.5)


def containers() -> Iterator[LayerCase]:
    """Sums and concatenations of branches."""
    yield _container("Residual", "plain", _residual)
    yield _container("Residual", "shortcut", _shortcut)
    yield _container("Parallel", "concat", partial(_parallel, "concat"))
    yield _container("Parallel", "add", partial(_parallel, "add"))
    yield _container("Sequential", "nested", _nested)


def _move(
    name: str,
    variant: str,
    shape: tuple[int, ...],
    *arguments: Any,
    terms: int = 0,
    layout: str = "plain",
    dtype: str = "float32",
    make: inputs.Maker = inputs.real,
) -> LayerCase:
    lengths: dict[Part, int] = {"input": terms} if terms else {}
    op, build = "spread" if terms else "copy", partial(getattr(layers, name), *arguments)
    return LayerCase(f"{name}/{variant}", op, lengths, dtype, build, shape, make, layout)


def _dropout(
    name: str, variant: str, shape: tuple[int, ...], p: float, *, training: bool = True, dtype: str = "float32"
) -> LayerCase:
    build = partial(getattr(layers, name), p)
    return LayerCase(f"{name}/{variant}", "dropout", {}, dtype, build, shape, inputs.real, "plain", training)


def _container(name: str, variant: str, build: Callable[..., Layer]) -> LayerCase:
    terms: dict[Part, int] = {"forward": 72, "input": 72, "parameter": 168}
    return LayerCase(f"{name}/{variant}", "net", terms, "float32", build, PLANE)


def _residual(**placement: Any) -> Layer:
    return Residual(Sequential(Conv2d(4, 4, 3, padding=1), Tanh()), **placement)


def _shortcut(**placement: Any) -> Layer:
    return Residual(Conv2d(4, 6, 3, stride=2, padding=1), Conv2d(4, 6, 1, stride=2), **placement)


def _parallel(join: Any, **placement: Any) -> Layer:
    return Parallel(Conv2d(4, 4, 1), Conv2d(4, 4, 3, padding=1), Identity(), join=join, **placement)


def _nested(**placement: Any) -> Layer:
    inner = Sequential(Dense(7, 5), Tanh())
    return Sequential(ReLU(), inner, Residual(Sequential(Dense(5, 5), ReLU())), **placement)
