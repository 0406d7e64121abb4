"""``xpnn bench --layers``: single layers, losses and updates beside PyTorch's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...backends import Backend
from ...layers import AvgPool2d, BatchNorm2d, Conv2d, Dense, Layer, MaxPool2d, ReLU
from ...training.optimizers import SGD, Adam
from .comparison import Plan, Row
from .host_arrays import relative_error
from .layer_calls import Calls, OurLayer, OurLoss, OurUpdate, TextbookLayer, TorchLayer, TorchLoss, TorchUpdate
from .measure import Side
from .pytorch import PyTorch

BOTH = ("forward", "backward")
POOL = (*BOTH, "step")


@dataclass(frozen=True)
class LayerCase:
    """A layer, the shape of its input without the batch, and the usual batch; a net's ``first`` layer needs no dx."""

    name: str
    build: Callable[[Backend], Layer]
    shape: tuple[int, ...]
    batch: int
    first: bool = False
    phases: tuple[str, ...] = BOTH


@dataclass(frozen=True)
class LossCase:
    """Softmax cross-entropy over that number of classes."""

    name: str
    classes: int
    batch: int
    phases: tuple[str, ...] = BOTH


@dataclass(frozen=True)
class UpdateCase:
    """An optimizer on both sides, for parameters of these shapes."""

    name: str
    ours: Callable[[Any], Any]
    theirs: Callable[[Any, Any], Any]
    shapes: tuple[tuple[int, ...], ...]
    batch: int = 1
    phases: tuple[str, ...] = ("step",)


Case = LayerCase | LossCase | UpdateCase


def conv(
    channels: int,
    size: int,
    out: int,
    kernel: int,
    batch: int,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    first: bool = False,
    phases: tuple[str, ...] = BOTH,
) -> LayerCase:
    """A convolution of square images, named by its sizes; the padding is half the kernel unless given."""
    before = kernel // 2 if padding is None else padding
    name = f"conv {channels}x{size}x{size}->{out} {kernel}x{kernel}"
    name += f" s{stride}" if stride > 1 else ""
    name += f" g{groups}" if groups > 1 else ""

    def build(b: Backend) -> Layer:
        return Conv2d(channels, out, kernel, stride, before, groups=groups, backend=b)

    return LayerCase(name, build, (channels, size, size), batch, first, phases)


# Learning rate, so large that a step is not lost in the rounding of the values.
RATE = 0.1
# Four matrices, nine million weights.
WEIGHTS = ((1500, 1500),) * 4

CASES: tuple[Case, ...] = (
    conv(64, 56, 64, 3, 8),
    conv(64, 32, 64, 3, 32),
    conv(128, 16, 128, 3, 32),
    conv(128, 28, 128, 3, 32),
    conv(256, 8, 256, 3, 32),
    conv(256, 14, 256, 3, 32),
    conv(512, 4, 512, 3, 32),
    conv(64, 56, 128, 3, 8, stride=2),
    conv(128, 28, 128, 3, 32, stride=2),
    conv(256, 56, 64, 1, 8),
    conv(3, 224, 64, 7, 8, stride=2, first=True),
    conv(16, 32, 16, 3, 32),
    conv(32, 32, 32, 3, 32),
    conv(32, 16, 64, 5, 32),
    conv(3, 32, 32, 3, 32, first=True),
    conv(1, 28, 6, 5, 64, first=True),
    conv(6, 14, 16, 5, 64, padding=0),
    conv(64, 56, 64, 3, 8, groups=64),
    LayerCase("max-pool 2x2", lambda b: MaxPool2d(2, backend=b), (64, 112, 112), 8, phases=POOL),
    LayerCase("max-pool 3x3 s2", lambda b: MaxPool2d(3, 2, 1, backend=b), (64, 112, 112), 8, phases=POOL),
    LayerCase("average pool 2x2", lambda b: AvgPool2d(2, backend=b), (64, 112, 112), 8, phases=POOL),
    LayerCase("average pool 3x3 s2", lambda b: AvgPool2d(3, 2, 1, backend=b), (64, 112, 112), 8, phases=POOL),
    LayerCase("batch norm 64x32x32", lambda b: BatchNorm2d(64, backend=b), (64, 32, 32), 32),
    LayerCase("ReLU 64x32x32", lambda b: ReLU(backend=b), (64, 32, 32), 32),
    LossCase("softmax cross-entropy 1000", 1000, 512),
    LayerCase("dense 1024->1024", lambda b: Dense(1024, 1024, backend=b), (1024,), 128),
    UpdateCase(
        "SGD momentum, 9M weights",
        lambda p: SGD(p, lr=RATE, momentum=0.9),
        lambda optim, p: optim.SGD(p, lr=RATE, momentum=0.9),
        WEIGHTS,
    ),
    UpdateCase("Adam, 9M weights", lambda p: Adam(p, lr=RATE), lambda optim, p: optim.Adam(p, lr=RATE), WEIGHTS),
)


def layer_rows(
    cases: tuple[Case, ...], b: Backend, pytorch: PyTorch | None, plan: Plan, batch: int | None
) -> Iterator[Row]:
    """A row for each phase of each case."""
    for case in cases:
        size = case.batch if batch is None or isinstance(case, UpdateCase) else batch
        sides, known = _sides(case, b, pytorch, size)
        theirs = [name for name in sides if name.startswith("torch")]
        for phase in case.phases:
            error = None
            if theirs:
                error = relative_error(sides["ours"].results(phase), sides[theirs[0]].results(phase))
            calls = {
                name: Side(side.calls[phase], pytorch.wait if pytorch and name in theirs else b.synchronize)
                for name, side in sides.items()
                if phase in side.calls
            }
            yield plan.row("layer", case.name, phase, size, calls, relative_error=error, **known.get(phase, {}))


def _sides(
    case: Case, b: Backend, pytorch: PyTorch | None, batch: int
) -> tuple[dict[str, Calls], dict[str, dict[str, Any]]]:
    """The sides by name, and for each phase its numbers of operations and bytes, if they are known."""
    generator = np.random.default_rng(0)
    sides: dict[str, Calls] = {}
    if isinstance(case, UpdateCase):
        values = [generator.standard_normal(shape, dtype=np.float32) for shape in case.shapes]
        sides["ours"] = OurUpdate(b, case.ours, values)
        if pytorch is not None:
            sides["torch contiguous_format"] = TorchUpdate(pytorch, case.theirs, values)
        return sides, {}
    if isinstance(case, LossCase):
        logits = generator.standard_normal((batch, case.classes), dtype=np.float32)
        targets = generator.integers(0, case.classes, batch)
        sides["ours"] = OurLoss(b, logits, targets)
        if pytorch is not None:
            sides["torch contiguous_format"] = TorchLoss(pytorch, logits, targets)
        return sides, {}
    x = generator.standard_normal((batch, *case.shape), dtype=np.float32)
    layer = case.build(b)
    sides["ours"] = ours = OurLayer(b, layer, x, case.first)
    if pytorch is not None:
        for memory_format in pytorch.formats(x.ndim):
            sides[f"torch {memory_format}"] = TorchLayer(pytorch, ours, x, memory_format)
    if b.is_host and TextbookLayer.has(layer):
        sides["plain"] = TextbookLayer(ours, x)
    return sides, _operations_and_bytes(layer, x.shape, ours.dy_host.shape, case.first)


def _operations_and_bytes(
    layer: Layer, x_shape: tuple[int, ...], y_shape: tuple[int, ...], first: bool
) -> dict[str, dict[str, Any]]:
    """Operations of the direct formula, and bytes of all arrays that a call reads and writes, each counted once."""
    products = layer.multiply_adds(x_shape, y_shape)
    if not products:
        return {}
    x, y = 4 * prod(x_shape), 4 * prod(y_shape)
    w = 4 * sum(prod(parameter.shape) for parameter in layer.parameters.values())
    backward = (2, x + y + 2 * w) if first else (4, 2 * x + y + 2 * w)
    found = {"forward": (2, x + y + w), "backward": backward}
    return {phase: {"flops": times * products, "bytes": total} for phase, (times, total) in found.items()}
