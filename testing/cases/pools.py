"""Cases of pooling: windows with padding, ties and overlaps."""

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

from ... import layers
from ..tolerances import Part
from . import inputs
from .case import LayerCase
from .convolutions import PLANE, SHAPES


def max_pools() -> Iterator[LayerCase]:
    """MaxPool1d to MaxPool3d, and the adaptive and global ones."""
    for axes, shape in enumerate(SHAPES, 1):
        case = partial(_pool, f"MaxPool{axes}d", "max pool", axes, shape)
        yield case("plain")
        yield case("ties", inputs=inputs.ties)
        yield case("one tie everywhere, overlapping", inputs=inputs.constant, kernel=3, stride=1, padding=1)
        yield case("overlapping", kernel=3, stride=1)
        yield case("stride over kernel", stride=3)
        yield case("padding never wins", kernel=3, stride=2, padding=1, inputs=inputs.negative)
        yield case("asymmetric padding", kernel=3, padding=((1, 0), (0, 1), (1, 1))[:axes], inputs=inputs.negative)
        yield case("ceil_mode", kernel=3, stride=2, ceil_mode=True)
        yield case("dilation", dilation=2, stride=1)
        yield case("same lower", stride=2, padding="same_lower", inputs=inputs.negative)
        yield case("NaN", kernel=3, stride=1, inputs=inputs.with_nan)
        yield case("infinity", inputs=inputs.with_infinity)
        yield case("minus infinity", inputs=inputs.with_minus_infinity)
        options: dict[str, Any] = {"kernel": 3, "stride": 2, "padding": 2, "dilation": 2}
        yield case("minus infinity everywhere, padding, dilation", inputs=inputs.minus_infinity, **options)
        yield case("ceil_mode, no window in the padding", padding=((0, 1),) * axes, ceil_mode=True)
        yield case("empty batch", shape=(0, *shape[1:]))
        yield case("size-1 axes", shape=(1, 1, *(1,) * axes), kernel=1)
        yield case("strided input", layout="strided")
        yield case("read-only input", layout="read-only")
        yield case("float64", dtype="float64")
        yield _adaptive(f"AdaptiveMaxPool{axes}d", shape, "plain", 3)
        yield _adaptive(f"AdaptiveMaxPool{axes}d", shape, "ties", 2, make=inputs.ties)
    yield _pool("MaxPool2d", "max pool", 2, PLANE, "indices", return_indices=True)
    shifted: dict[str, Any] = {
        "kernel": 3,
        "stride": 2,
        "padding": ((1, 0), (0, 2)),
        "dilation": 2,
        "return_indices": True,
    }
    yield _pool("MaxPool2d", "max pool", 2, PLANE, "indices, padding, dilation", **shifted)
    yield _pool("MaxPool2d", "max pool", 2, (2, 2, 24, 24), "window of 144 cells", kernel=12)
    yield _adaptive("AdaptiveMaxPool", PLANE, "plain", (3, 2))
    yield _adaptive("GlobalMaxPool", PLANE, "plain")
    yield _adaptive("GlobalMaxPool", PLANE, "ties", make=inputs.ties)
    yield _adaptive("GlobalMaxPool", PLANE, "NaN", make=inputs.with_nan)


def average_pools() -> Iterator[LayerCase]:
    """AvgPool1d to AvgPool3d, and the adaptive and global ones."""
    for axes, shape in enumerate(SHAPES, 1):
        case = partial(_pool, f"AvgPool{axes}d", "average pool", axes, shape)
        yield case("plain")
        yield case("overlapping", kernel=3, stride=1)
        yield case("stride over kernel", stride=3)
        yield case("padding counted", kernel=3, stride=2, padding=1)
        yield case("padding not counted", kernel=3, stride=2, padding=1, count_include_pad=False)
        yield case("asymmetric padding", kernel=3, padding=((1, 0), (0, 1), (1, 1))[:axes], count_include_pad=False)
        yield case("ceil_mode", kernel=3, stride=2, ceil_mode=True)
        yield case("ceil_mode, no window in the padding", padding=((0, 1),) * axes, ceil_mode=True)
        options: dict[str, Any] = {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}
        yield case("ceil_mode, padding counted", **options)
        yield case("ceil_mode, padding not counted", count_include_pad=False, **options)
        yield case("dilation", dilation=2, stride=1)
        yield case("dilation, ceil_mode, padding counted", dilation=2, **options)
        yield case("dilation, ceil_mode, padding not counted", dilation=2, count_include_pad=False, **options)
        yield case("same lower", kernel=2, stride=1, padding="same_lower", count_include_pad=False)
        yield case("NaN", inputs=inputs.with_nan)
        yield case("empty batch", shape=(0, *shape[1:]))
        yield case("size-1 axes", shape=(1, 1, *(1,) * axes), kernel=1)
        yield case("strided input", layout="strided")
        yield case("read-only input", layout="read-only")
        yield case("float64", dtype="float64")
        yield _adaptive(f"AdaptiveAvgPool{axes}d", shape, "plain", 3)
        yield _adaptive(f"AdaptiveAvgPool{axes}d", shape, "size-1 axes", 1)
    yield _pool("AvgPool2d", "average pool", 2, PLANE, "divisor", divisor_override=3)
    yield _pool("AvgPool2d", "average pool", 2, (2, 2, 24, 24), "large reduction", kernel=24, inputs=inputs.positive)
    yield _adaptive("AdaptiveAvgPool", PLANE, "plain", (3, 2))
    yield _adaptive("AdaptiveAvgPool", PLANE, "more windows than cells", (11, 9))
    yield _adaptive("GlobalAvgPool", PLANE, "plain")
    yield _adaptive("GlobalAvgPool", (2, 3, 60, 50), "large reduction", make=inputs.positive)


def lp_pools() -> Iterator[LayerCase]:
    """LpPool1d to LpPool3d and GlobalLpPool."""
    for axes, shape in enumerate(SHAPES, 1):
        case = partial(_pool, f"LpPool{axes}d", "Lp pool", axes, shape)
        yield case("plain", power=3)
        yield case("power 1", power=1)
        yield case("power 2, overlapping", power=2, kernel=3, stride=1)
        yield case("power 2.5, ceil_mode", power=2.5, kernel=3, stride=2, ceil_mode=True)
        yield case("power 2, padding", power=2, kernel=3, stride=2, padding=1)
        yield case("power 2, same lower", power=2, stride=1, padding="same_lower")
        yield case("windows of zeros", power=2, inputs=inputs.windows_of_zeros)
        yield case("NaN", power=2, inputs=inputs.with_nan)
        yield case("empty batch", power=2, shape=(0, *shape[1:]))
        yield case("strided input", power=2, layout="strided")
        yield case("float64", power=3, dtype="float64")
    yield _adaptive("GlobalLpPool", PLANE, "plain", op="Lp pool")
    yield _adaptive("GlobalLpPool", PLANE, "power 3", 3.0, op="Lp pool")


def _pool(
    name: str,
    op: str,
    axes: int,
    usual: tuple[int, ...],
    variant: str,
    *,
    shape: tuple[int, ...] | None = None,
    inputs: inputs.Maker = inputs.real,
    kernel: int = 2,
    power: float | None = None,
    layout: str = "plain",
    dtype: str = "float32",
    **options: Any,
) -> LayerCase:
    shape = usual if shape is None else shape
    stride = options.get("stride", kernel)
    terms: dict[Part, int] = {"forward": kernel**axes, "input": (-(-kernel // stride)) ** axes}
    arguments = (kernel,) if power is None else (power, kernel)
    build = partial(getattr(layers, name), *arguments, **options)
    return LayerCase(f"{name}/{variant}", op, terms, dtype, build, shape, inputs, layout)


def _adaptive(
    name: str, shape: tuple[int, ...], variant: str, *arguments: Any, op: str = "", make: inputs.Maker = inputs.real
) -> LayerCase:
    op = op or ("max pool" if "Max" in name else "average pool")
    # Windows overlap by at most one cell on each side; if there are more windows than cells, a cell is in several.
    terms: dict[Part, int] = {"forward": prod(shape[2:]), "input": 4 ** len(shape[2:])}
    build = partial(getattr(layers, name), *arguments)
    return LayerCase(f"{name}/{variant}", op, terms, "float32", build, shape, make)
