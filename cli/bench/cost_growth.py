"""``xpnn bench --growth``: how time and memory of a block grow with batch, image and channels."""

from collections.abc import Callable, Iterator

from ...backends import Backend
from .block_steps import OurBlock, TorchBlock
from .comparison import Plan, Row
from .host_arrays import relative_error
from .measure import Side
from .peak_memory import peaks
from .pytorch import PyTorch
from .torch_module import load_weights

# The sizes that grow, their values, and the (batch, channels, image) for a value.
SERIES: dict[str, tuple[tuple[int, ...], Callable[[int], tuple[int, int, int]]]] = {
    "batch": ((1, 2, 4, 8, 16, 32, 64, 128, 256), lambda n: (n, 64, 32)),
    "image": ((16, 28, 56, 112, 224), lambda n: (4, 64, n)),
    "channels": ((8, 16, 32, 64, 128, 256, 512), lambda n: (8, n, 16)),
}


def growth_rows(b: Backend, pytorch: PyTorch | None, plan: Plan, memory: bool) -> Iterator[Row]:
    """A row for each value of each size."""
    for name, (values, sizes) in SERIES.items():
        for value in values:
            batch, channels, size = sizes(value)
            ours = OurBlock(b, channels, size, batch)
            sides, error = {"ours": Side(ours.step, b.synchronize)}, None
            for memory_format in pytorch.formats() if pytorch else ():
                assert pytorch is not None
                theirs = TorchBlock(pytorch, ours.model, ours.host, memory_format)
                load_weights(pytorch, theirs.net, ours.model, b)
                if error is None:
                    error = relative_error(ours.results(), theirs.results())
                sides[f"torch {memory_format}"] = Side(theirs.step, pytorch.wait)
            row = plan.row("growth", name, "step", batch, sides, relative_error=error, size=value)
            del ours, sides
            if memory:
                what = f"block:{channels}:{size}"
                row.ours_peak_mb, row.torch_peak_mb = peaks(what, b, pytorch, batch)
            yield row
