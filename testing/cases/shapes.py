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
    yield _move("Upsample", "fraction", PLANE, (1.6, 0.7), terms=2)
    yield _move("Upsample", "size", PLANE, None, (5, 11), terms=2)
    yield _move("Upsample", "exact places", PLANE, 1.7, None, "nearest-exact", terms=4)
    yield from _interpolated()
    yield _move("PixelShuffle", "plain", (2, 12, 3, 4), 2)
    yield _move("PixelShuffle", "by 3", (1, 9, 2, 1), 3)
    yield _move("PixelShuffle", "strided input", (2, 8, 3, 4), 2, layout="strided")
    yield _move("PixelShuffle", "channels last", (2, 8, 3, 4), 2, layout="channels last")
    yield _move("PixelShuffle", "empty batch", (0, 4, 3, 4), 2)
    yield _move("PixelShuffle", "float64", (2, 4, 3, 4), 2, dtype="float64")
    yield _move("PixelUnshuffle", "plain", (2, 3, 6, 8), 2)
    yield _move("PixelUnshuffle", "strided input", (2, 3, 6, 9), 3, layout="strided")
    yield _move("PixelUnshuffle", "empty batch", (0, 3, 6, 8), 2)
    yield _move("PixelUnshuffle", "float64", (2, 3, 6, 8), 2, dtype="float64")


def _interpolated() -> Iterator[LayerCase]:
    """Upsample with modes that interpolate."""
    modes = {"linear": (3, 4, 7), "bilinear": PLANE, "trilinear": (2, 3, 4, 3, 5), "bicubic": PLANE}
    for mode, shape in modes.items():
        for align in (False, True):
            words = f"{mode}, corners aligned" if align else mode
            case = partial(_resize, mode, align)
            yield case(words, shape, 2)
            yield case(f"{words}, fraction", shape, 1.7)
            yield case(f"{words}, size", shape, None, (9, 5, 2)[: len(shape) - 2])
            yield case(f"{words}, to one cell", shape, None, 1)
            yield case(f"{words}, size-1 axes", (2, 1, *(1,) * (len(shape) - 2)), None, 3)
        yield _resize(mode, None, f"{mode}, smaller", shape, 0.6)
        yield _resize(mode, None, f"{mode}, NaN", shape, 2, make=inputs.with_nan)
        yield _resize(mode, None, f"{mode}, empty batch", (0, *shape[1:]), 2)
        yield _resize(mode, None, f"{mode}, strided input", shape, 2, layout="strided")
        yield _resize(mode, None, f"{mode}, float64", shape, 1.5, dtype="float64")
    yield _resize("linear", None, "linear, factor that keeps the size", (2, 3, 4), 1.2)
    yield _resize("bilinear", None, "bilinear, channels last", PLANE, 2, layout="channels last")


def _resize(
    mode: str,
    align_corners: bool | None,
    words: str,
    shape: tuple[int, ...],
    scale_factor: float | None,
    size: Any = None,
    *,
    layout: str = "plain",
    dtype: str = "float32",
    make: inputs.Maker = inputs.real,
) -> LayerCase:
    build = partial(layers.Upsample, scale_factor, size, mode, align_corners)
    # Four cells along each axis; a cell is in at most as many outputs as there are.
    terms: dict[Part, int] = {"forward": 4 ** len(shape[2:]), "input": 4 * 4 ** len(shape[2:])}
    return LayerCase(f"Upsample/{words}", "interpolation", terms, dtype, build, shape, make, layout)


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
