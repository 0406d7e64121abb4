"""How time and memory of a block grow with batch, image and channels.

The block is `Conv2d` 3x3, `BatchNorm2d` and `ReLU`, forward and backward, with as many channels out as in.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np

from ...backends import Backend
from ...layers import BatchNorm2d, Conv2d, ReLU, Sequential
from .measure import Side
from .memory import peaks
from .mirror import load, mirror
from .opponent import Opponent
from .plain import HostArray
from .rows import Plan, Row
from .work import as_handed_on, relative_error, upstream

# What grows: its values, and how each makes (batch, channels, image).
SERIES: dict[str, tuple[tuple[int, ...], Callable[[int], tuple[int, int, int]]]] = {
    "batch": ((1, 2, 4, 8, 16, 32, 64, 128, 256), lambda n: (n, 64, 32)),
    "image": ((16, 28, 56, 112, 224), lambda n: (4, 64, n)),
    "channels": ((8, 16, 32, 64, 128, 256, 512), lambda n: (8, n, 16)),
}
LABELS = {
    "batch": "images in a batch (64 channels, 32 x 32)",
    "image": "height and width (64 channels, batch 4)",
    "channels": "channels (16 x 16, batch 8)",
}


class OurBlock:
    """The block on a backend, its input and upstream gradient as a net hands them on."""

    def __init__(self, b: Backend, channels: int, size: int, batch: int) -> None:
        self.b = b
        self.model = Sequential(
            Conv2d(channels, channels, 3, padding=1), BatchNorm2d(channels), ReLU(), backend=b, seed=0
        )
        shape = (batch, channels, size, size)
        self.host = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        self.x, self.dy = as_handed_on(b, self.host), as_handed_on(b, upstream(self.host))

    def step(self) -> Any:
        """Forward and backward; the input's gradient."""
        self.model.zero_grad()
        self.model.forward(self.x)
        return self.model.backward(self.dy)

    def results(self) -> list[HostArray]:
        """All gradients but that of the convolution's bias, which the batch norm behind it makes zero."""
        found = [self.step(), *(p.grad for name, p in self.model.named_parameters() if name != "0.bias")]
        return [self.b.to_numpy(array) for array in found]


class TorchBlock:
    """The same in PyTorch."""

    def __init__(self, opponent: Opponent, model: Any, x: HostArray, memory_format: str) -> None:
        self.opponent = opponent
        self.net = opponent.module(mirror(opponent, model), memory_format)
        self.x = opponent.tensor(x, memory_format).requires_grad_()
        self.dy = opponent.tensor(upstream(x), memory_format)
        self.wanted = [self.x, *self.net.parameters()]

    def step(self) -> Any:
        """Forward and backward; all gradients."""
        return self.opponent.torch.autograd.grad(self.net(self.x), self.wanted, self.dy)

    def results(self) -> list[HostArray]:
        """As `OurBlock.results`."""
        dx, weight, _, *others = self.step()
        return [self.opponent.host(tensor) for tensor in (dx, weight, *others)]


def block_step(
    b: Backend, opponent: Opponent | None, channels: int, size: int, batch: int, side: str
) -> Callable[[], object]:
    """A step of one side, for the measurement of its memory."""
    ours = OurBlock(b, channels, size, batch)
    if opponent is None:
        ours.model.state_dict()
        return ours.step
    return TorchBlock(opponent, ours.model, ours.host, side).step


def growth_rows(b: Backend, opponent: Opponent | None, plan: Plan, memory: bool) -> Iterator[Row]:
    """A row for each value of what grows."""
    for name, (values, place) in SERIES.items():
        for value in values:
            batch, channels, size = place(value)
            ours = OurBlock(b, channels, size, batch)
            sides, error = {"ours": Side(ours.step, b.synchronize)}, None
            for memory_format in opponent.formats() if opponent else ():
                assert opponent is not None
                theirs = TorchBlock(opponent, ours.model, ours.host, memory_format)
                load(opponent, theirs.net, ours.model, b)
                if error is None:
                    error = relative_error(ours.results(), theirs.results())
                sides[f"torch {memory_format}"] = Side(theirs.step, opponent.wait)
            row = plan.row("growth", name, "step", batch, sides, relative_error=error, size=value)
            del ours, sides
            if memory:
                what = f"block:{channels}:{size}"
                row.ours_peak_mb, row.torch_peak_mb = peaks(what, b, opponent, batch)
            yield row


def plot_growth(rows: list[Row], title: str) -> bytes:
    """A PNG of `draw_growth`."""
    png = BytesIO()
    draw_growth(rows, title).savefig(png, dpi=120, format="png")
    return png.getvalue()


def draw_growth(rows: list[Row], title: str) -> Any:
    """A figure: time above, memory below, each over batch, image and channels, all axes logarithmic.

    Lines join what was measured; times that other processes disturbed are crosses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    quantities = (("ms", "milliseconds, forward + backward"), ("peak_mb", "peak memory, MB"))
    axes = figure.subplots(2, 3, squeeze=False)
    for i, (quantity, label) in enumerate(quantities):
        for j, name in enumerate(SERIES):
            axis = axes[i][j]
            for side, told, colour in (("ours", "xpnn", "#2b6cb0"), ("torch", "PyTorch, better format", "#dd6b20")):
                points = [
                    (row.size, getattr(row, f"{side}_{quantity}"), quantity == "ms" and row.disturbed is True)
                    for row in rows
                    if row.name == name
                ]
                known = [(x, y) for x, y, rough in points if x is not None and y is not None and y > 0.0 and not rough]
                if known:
                    axis.plot(*zip(*known, strict=True), "o-", markersize=4, color=colour, label=told)
                rough = [(x, y) for x, y, disturbed in points if disturbed and x is not None and y is not None]
                if rough:
                    beside = f"{told}: disturbed, not measured"
                    axis.plot(*zip(*rough, strict=True), "x", markersize=5, color=colour, alpha=0.5, label=beside)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            values = [row.size for row in rows if row.name == name]
            axis.set_xticks(values, [str(value) for value in values])
            axis.minorticks_off()
            axis.set(xlabel=LABELS[name], ylabel=label)
            axis.grid(alpha=0.3)
            if axis.lines:
                axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure
