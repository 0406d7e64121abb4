"""Cases of convolutions and dense layers, with all kinds of windows."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

from ... import layers
from ...backends import operations_of
from ...common import checks
from ...layers.convolution import Banded, Problem, Winograd, algorithm
from ...layers.windows.geometry import place_windows
from ..tolerances import TABLE, Part
from . import inputs
from .case import HOST, LayerCase

LINE, PLANE, SPACE = (3, 4, 11), (3, 4, 8, 7), (2, 4, 5, 6, 4)
SHAPES = (LINE, PLANE, SPACE)


def convolutions() -> Iterator[LayerCase]:
    """Conv1d to Conv3d."""
    for axes, shape in enumerate(SHAPES, 1):
        case = partial(_conv, axes, shape)
        mixed: dict[str, Any] = {
            "stride": (2, 1, 3)[:axes],
            "dilation": (1, 2, 1)[:axes],
            "padding": ((2, 0), (1, 3), (0, 1))[:axes],
        }
        turned: dict[str, Any] = {"stride": (2, 1, 1)[:axes], "dilation": (1, 2, 1)[:axes]}
        yield case("plain", padding=1)
        yield case("valid", padding="valid")
        yield case("same, odd kernel", padding="same")
        yield case("same, stride over kernel", kernel=1, stride=3, padding="same")
        yield case("same, even kernel", kernel=2 if axes == 3 else 4, padding="same")
        yield case("same, stride 2", stride=2, padding="same")
        yield case("same lower, even kernel", kernel=2, padding="same_lower")
        yield case("same lower, stride 2, dilation", kernel=2, stride=2, dilation=3, padding="same_lower")
        for mode in ("reflect", "replicate", "circular"):
            yield case(f"{mode} padding", padding=1, padding_mode=mode)
            sides = ((2, 0), (0, 3), (1, 2))[:axes]
            yield case(f"{mode} padding, all differ", kernel=2, padding=sides, padding_mode=mode, **turned)
        yield case("circular padding, same, NaN", padding="same", padding_mode="circular", inputs=inputs.with_nan)
        yield case("stride over kernel", kernel=2, stride=3)
        yield case("asymmetric padding", padding=((2, 0), (0, 3), (1, 2))[:axes])
        yield case("dilation", kernel=2, dilation=2)
        yield case("all differ by axis", kernel=(3, 2, 1)[:axes], **mixed)
        yield case("groups", padding=1, groups=2)
        yield case("depthwise", features=8, padding=1, groups=4)
        yield case("kernel 1", kernel=1)
        yield case("kernel as large as the input", kernel=shape[2:])
        yield case("no bias", padding=1, bias=False)
        yield case("empty batch", shape=(0, *shape[1:]), padding=1)
        yield case("size-1 axes", shape=(3, 1, *(1,) * axes), features=3, padding=1)
        yield case("strided input", padding=1, layout="strided")
        yield case("read-only input", padding=1, layout="read-only")
        yield case("NaN", padding=1, inputs=inputs.with_nan)
        yield case("infinity", padding=1, inputs=inputs.with_infinity)
        yield case("float64", padding=1, dtype="float64")
    yield _conv(1, (2, 64, 300), "large reduction", features=8, padding=1)
    yield _conv(2, (2, 96, 12, 12), "large reduction", features=8, padding=1)
    yield _conv(2, (2, 96, 12, 12), "large reduction of positive terms", features=8, padding=1, inputs=inputs.positive)
    mirrored: dict[str, Any] = {"padding": 1, "padding_mode": "reflect"}
    yield _conv(2, PLANE, "reflect padding, groups", groups=2, **mirrored)
    yield _conv(2, (0, 4, 8, 7), "reflect padding, empty batch", **mirrored)
    yield _conv(2, PLANE, "reflect padding, strided input", layout="strided", **mirrored)
    yield _conv(2, PLANE, "reflect padding, float64", dtype="float64", **mirrored)
    yield _conv(2, (4, 40, 12, 15), "reflect padding, 40 channels in tiles of 4", features=32, **mirrored)
    yield _conv(2, (2, 3, 17, 16), "kernel 7, stride 2", features=8, kernel=7, stride=2, padding=3)
    yield _conv(2, (5, 16, 40, 40), "batch in two blocks", features=4, padding=1)
    yield _conv(2, (6, 24, 33, 32), "batch in two blocks, stride 2", features=4, stride=2, padding=1)
    yield _conv(2, (2, 64, 6, 6), "64 channels", features=64, padding=1)
    yield _conv(2, (5, 32, 8, 12), "32 channels in tiles of 2", features=32, padding=((2, 0), (1, 1)))
    yield _conv(2, (4, 40, 12, 15), "40 channels in tiles of 4", features=32, padding=1)
    yield _conv(2, (13, 40, 5, 15), "40 channels in tiles of 5", features=32, padding=1)
    yield _conv(2, (3, 152, 12, 8), "152 channels, filters shared", features=150, padding=1)
    yield _conv(2, (3, 120, 5, 5), "120 channels, stride 2", features=260, stride=2, padding=1)
    yield _conv(1, (4, 4, 900), "few channels", features=16, padding=((2, 0),))
    yield _conv(2, (8, 1, 28, 28), "few channels", features=6, kernel=5)
    yield _conv(2, (12, 3, 33, 32), "few channels, stride 2", features=6, stride=2, padding=1)
    yield _conv(2, (1, 1, 9, 9), "batch of one, one channel", features=5, kernel=5)
    yield _conv(3, (2, 24, 6, 6, 6), "large reduction", features=4, padding=1)


def transposed_convolutions() -> Iterator[LayerCase]:
    """ConvTranspose1d to ConvTranspose3d."""
    for axes, shape in enumerate(((3, 4, 6), (2, 4, 5, 4), (2, 4, 3, 4, 3)), 1):
        case = partial(_conv_transpose, axes, shape)
        yield case("plain", stride=2)
        yield case("stride 1", padding=1)
        yield case("output padding", stride=2, padding=1, output_padding=1)
        yield case("asymmetric padding", stride=2, padding=((1, 0), (0, 1), (1, 1))[:axes])
        yield case("stride over kernel", kernel=2, stride=3)
        yield case("dilation", kernel=2, stride=2, dilation=2)
        yield case("even kernel", kernel=4 if axes < 3 else 2, stride=2, padding=1)
        yield case("groups", stride=2, groups=2)
        yield case("depthwise", features=4, stride=2, groups=4)
        yield case("no bias", stride=2, bias=False)
        yield case("empty batch", shape=(0, *shape[1:]), stride=2)
        yield case("size-1 axes", shape=(3, 1, *(1,) * axes), features=3, stride=2)
        yield case("strided input", stride=2, layout="strided")
        yield case("read-only input", stride=2, layout="read-only")
        yield case("NaN", stride=2, inputs=inputs.with_nan)
        yield case("float64", stride=2, dtype="float64")
    yield _conv_transpose(2, (2, 64, 9, 9), "large reduction", features=8, stride=2)


def dense_layers() -> Iterator[LayerCase]:
    """Dense."""
    yield _dense((5, 7), 6, "plain")
    yield _dense((5, 7), 6, "no bias", bias=False)
    yield _dense((4, 3, 2, 7), 6, "axes before the last")
    yield _dense((0, 7), 6, "empty batch")
    yield _dense((3, 1), 1, "size-1 axes")
    yield _dense((5, 7), 6, "strided input", layout="strided")
    yield _dense((5, 7), 6, "read-only input", layout="read-only")
    yield _dense((5, 7), 6, "NaN", inputs=inputs.with_nan)
    yield _dense((5, 7), 6, "infinity", inputs=inputs.with_infinity)
    yield _dense((5, 7), 6, "float64", dtype="float64")
    yield _dense((3, 5000), 4, "large reduction")
    yield _dense((3, 5000), 4, "large reduction of positive terms", inputs=inputs.positive)
    yield _dense((3000, 5), 4, "large batch")


def _conv(
    axes: int,
    usual: tuple[int, ...],
    variant: str,
    *,
    shape: tuple[int, ...] | None = None,
    inputs: inputs.Maker = inputs.real,
    features: int = 6,
    kernel: int | Sequence[int] = 3,
    bias: bool = True,
    layout: str = "plain",
    dtype: str = "float32",
    **options: Any,
) -> LayerCase:
    shape = usual if shape is None else shape
    cls, groups = getattr(layers, f"Conv{axes}d"), options.get("groups", 1)
    sides = checks.per_axis("kernel", kernel, axes)
    geometry = place_windows(
        shape[2:],
        sides,
        checks.per_axis("stride", options.get("stride", 1), axes),
        options.get("padding", 0),
        checks.per_axis("dilation", options.get("dilation", 1), axes),
    )
    windows = geometry.windows
    problem = Problem(
        shape[0], shape[2:], shape[1], features, groups, windows, geometry.padding, dtype, algorithms="any"
    )
    positions = shape[0] * prod(windows.count)
    terms: dict[Part, int] = {
        "forward": prod(sides) * shape[1] // groups,
        "input": prod(sides) * features // groups,
        "parameter": positions,
    }
    build = partial(cls, shape[1], features, kernel, bias=bias, **options)
    return LayerCase(f"Conv{axes}d/{variant}", _row(problem), terms, dtype, build, shape, inputs, layout)


def _row(problem: Problem) -> str:
    """The row of tolerances for a case: that of the algorithm with the largest error of those that compute it."""
    found = [algorithm(each, operations_of(HOST.xp)) for each in (problem, problem.adjoint) if each is not None]
    rows = [
        f"Winograd F{each.m}"
        if isinstance(each, Winograd)
        else "banded convolution"
        if isinstance(each, Banded)
        else ""
        for each in found
    ]
    return max((row or "convolution" for row in rows), key=lambda row: TABLE[row]["forward"].c)


def _conv_transpose(
    axes: int,
    usual: tuple[int, ...],
    variant: str,
    *,
    shape: tuple[int, ...] | None = None,
    inputs: inputs.Maker = inputs.real,
    features: int = 6,
    kernel: int = 3,
    bias: bool = True,
    layout: str = "plain",
    dtype: str = "float32",
    **options: Any,
) -> LayerCase:
    shape = usual if shape is None else shape
    cls, groups = getattr(layers, f"ConvTranspose{axes}d"), options.get("groups", 1)
    stride = checks.per_axis("stride", options.get("stride", 1), axes)
    # The largest number of windows that add to a cell of the output.
    overlap = prod(-(-kernel // s) for s in stride)
    # The gradient of the bias sums over output cells, that of the weight over input cells; a stride of s makes s times
    # as many outputs.
    cells = shape[0] * prod(n * s + kernel for n, s in zip(shape[2:], stride, strict=True))
    terms: dict[Part, int] = {
        "forward": overlap * shape[1] // groups,
        "input": kernel**axes * features // groups,
        "parameter": cells,
    }
    build = partial(cls, shape[1], features, kernel, bias=bias, **options)
    return LayerCase(f"ConvTranspose{axes}d/{variant}", "convolution", terms, dtype, build, shape, inputs, layout)


def _dense(
    shape: tuple[int, ...],
    features: int,
    variant: str,
    *,
    bias: bool = True,
    inputs: inputs.Maker = inputs.real,
    layout: str = "plain",
    dtype: str = "float32",
) -> LayerCase:
    terms: dict[Part, int] = {"forward": shape[-1], "input": features, "parameter": prod(shape[:-1])}
    build = partial(layers.Dense, shape[-1], features, bias=bias)
    return LayerCase(f"Dense/{variant}", "dense", terms, dtype, build, shape, inputs, layout)
