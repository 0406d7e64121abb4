"""Cases of normalisation: statistics of batches, of samples, and running statistics."""

from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

from ... import layers
from ..tolerances import Part
from . import inputs
from .case import LayerCase
from .convolutions import SHAPES


def batch_norms() -> Iterator[LayerCase]:
    """BatchNorm1d to BatchNorm3d."""
    for axes, shape in enumerate(SHAPES, 1):
        case = partial(_channel_norm, f"BatchNorm{axes}d", shape)
        yield case("plain")
        yield case("evaluation", training=False)
        yield case("no affine", affine=False)
        yield case("average over all batches", momentum=None)
        yield case("no running statistics", track_running_stats=False)
        yield case("large mean", make=inputs.shifted)
        yield case("variance 0", make=inputs.constant)
        yield case("strided input", layout="strided")
        yield case("read-only input", layout="read-only")
        yield case("float64", dtype="float64")
    yield _channel_norm("BatchNorm1d", (6, 4), "no spatial axes")
    yield _channel_norm("BatchNorm1d", (4000, 2), "large batch")
    yield _channel_norm("BatchNorm2d", (5, 1, 1, 1), "size-1 axes")
    yield _channel_norm("BatchNorm2d", (3, 4, 8, 7), "eps 0.1, momentum 0.3", eps=0.1, momentum=0.3)
    yield _channel_norm("BatchNorm2d", (3, 4, 8, 7), "NaN", make=inputs.with_nan)


def sample_norms() -> Iterator[LayerCase]:
    """InstanceNorm, LayerNorm and GroupNorm, which normalise each sample separately."""
    for axes, shape in enumerate(SHAPES, 1):
        case = partial(_channel_norm, f"InstanceNorm{axes}d", shape)
        yield case("plain")
        yield case("affine", affine=True)
        yield case("running statistics", track_running_stats=True)
        yield case("evaluation", training=False, track_running_stats=True)
        yield case("empty batch", shape=(0, *shape[1:]))
    yield _norm("LayerNorm", (5, 3, 8), "plain", ((3, 8),), 24)
    yield _norm("LayerNorm", (5, 3, 8), "last axis", (8,), 24)
    yield _norm("LayerNorm", (5, 3, 8), "no bias", (8,), 24, bias=False)
    yield _norm("LayerNorm", (5, 3, 8), "no affine", (8,), 24, elementwise_affine=False)
    yield _norm("LayerNorm", (3, 4000), "large reduction", (4000,), 4000)
    yield _norm("LayerNorm", (5, 24), "large mean", (24,), 24, make=inputs.shifted)
    yield _norm("LayerNorm", (0, 3, 8), "empty batch", (8,), 24)
    yield _norm("LayerNorm", (5, 3, 8), "strided input", (8,), 24, layout="strided")
    yield _norm("LayerNorm", (5, 3, 8), "float64", (8,), 24, dtype="float64")
    plane = (3, 4, 8, 7)
    yield _norm("GroupNorm", plane, "plain", (2, 4), 112)
    yield _norm("GroupNorm", plane, "one group", (1, 4), 224)
    yield _norm("GroupNorm", plane, "a group for each channel", (4, 4), 168)
    yield _norm("GroupNorm", plane, "no affine", (2, 4), 112, affine=False)
    yield _norm("GroupNorm", (0, 4, 8, 7), "empty batch", (2, 4), 112)
    yield _norm("GroupNorm", plane, "float64", (2, 4), 112, dtype="float64")


def other_norms() -> Iterator[LayerCase]:
    """RMSNorm and LocalResponseNorm."""
    yield _norm("RMSNorm", (5, 3, 8), "plain", ((3, 8), 1e-5), 24)
    yield _norm("RMSNorm", (5, 3, 8), "last axis", (8, 1e-5), 24)
    # The truth in float64 has another eps than float32.
    yield _norm("RMSNorm", (5, 3, 8), "eps of the dtype", (8,), 24)
    yield _norm("RMSNorm", (5, 3, 8), "eps 0.1", (8, 0.1), 24)
    yield _norm("RMSNorm", (5, 3, 8), "no affine", (8,), 24, elementwise_affine=False)
    yield _norm("RMSNorm", (3, 4000), "large reduction", (4000,), 4000)
    yield _norm("RMSNorm", (4, 1), "size-1 axes", (1, 0.5), 4)
    yield _norm("RMSNorm", (5, 3, 8), "zeros", (8, 1e-5), 24, make=inputs.windows_of_zeros)
    yield _norm("RMSNorm", (5, 3, 8), "NaN", (8,), 24, make=inputs.with_nan)
    yield _norm("RMSNorm", (0, 3, 8), "empty batch", (8,), 24)
    yield _norm("RMSNorm", (5, 3, 8), "strided input", (8,), 24, layout="strided")
    yield _norm("RMSNorm", (5, 3, 8), "float64", (8,), 24, dtype="float64")
    plane = (2, 6, 4, 3)
    yield _norm("LocalResponseNorm", plane, "plain", (5, 0.5), 10)
    yield _norm("LocalResponseNorm", plane, "usual numbers", (5,), 10)
    yield _norm("LocalResponseNorm", plane, "even size", (4, 2.0, 0.5, 0.25), 8)
    yield _norm("LocalResponseNorm", plane, "size 1", (1, 0.5), 2)
    yield _norm("LocalResponseNorm", plane, "more than all channels", (99, 5.0, 2.0), 12)
    yield _norm("LocalResponseNorm", (2, 6, 7), "one spatial axis", (3, 0.5, 1), 6)
    yield _norm("LocalResponseNorm", (2, 1, 4, 3), "size-1 axes", (3, 0.5), 6)
    yield _norm("LocalResponseNorm", plane, "NaN", (3, 0.5), 6, make=inputs.with_nan)
    yield _norm("LocalResponseNorm", (0, 6, 4, 3), "empty batch", (3, 0.5), 6)
    yield _norm("LocalResponseNorm", plane, "strided input", (3, 0.5), 6, layout="strided")
    yield _norm("LocalResponseNorm", plane, "channels last", (3, 0.5), 6, layout="channels last")
    yield _norm("LocalResponseNorm", plane, "float64", (3, 0.5), 6, dtype="float64")


def _channel_norm(
    name: str, usual: tuple[int, ...], variant: str, *, shape: tuple[int, ...] | None = None, **options: Any
) -> LayerCase:
    shape = usual if shape is None else shape
    return _norm(name, shape, variant, (shape[1],), prod(shape) // shape[1], **options)


def _norm(
    name: str,
    shape: tuple[int, ...],
    variant: str,
    arguments: tuple[Any, ...],
    cells: int,
    *,
    make: inputs.Maker = inputs.real,
    layout: str = "plain",
    dtype: str = "float32",
    training: bool = True,
    **options: Any,
) -> LayerCase:
    terms: dict[Part, int] = {"forward": cells, "input": cells, "parameter": cells, "buffer": cells}
    build = partial(getattr(layers, name), *arguments, **options)
    return LayerCase(f"{name}/{variant}", "normalisation", terms, dtype, build, shape, make, layout, training)
