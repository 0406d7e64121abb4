"""``xpnn bench --loop``: the overhead of the training loop, an epoch of `fit` beside the same steps in a plain loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...backends import Backend, get_backend, use_backend
from ...layers.core.layer import Layer
from ...layers.core.release_after_backward import released
from ...layers.losses import CrossEntropy
from ...layers.models import BUILDERS
from ...training.datasets import load_dataset
from ...training.fit import fit
from ...training.optimizers import Adam
from .measure import Side, disturbance, measure
from .other_processes import Watch

BATCH = 32


@dataclass
class LoopRow:
    """One net: median milliseconds of a step; the overhead is what `fit` adds, as a share of the step.

    Attributes
    ----------
    bare_ms : float
        Forward, loss, backward and update, on batches that were made before.
    fit_ms : float
        The same with everything else that `fit` does: batches, checks of the loss, sums of loss and accuracy, progress.
    """

    kind: str
    name: str
    phase: str
    batch: int
    bare_ms: float
    fit_ms: float
    overhead: float
    disturbed: bool | None = None

    def __str__(self) -> str:
        return (
            f"{self.name}, batch {self.batch}: a step {self.bare_ms:.3f} ms, within fit {self.fit_ms:.3f} ms, "
            f"overhead {self.overhead:.1%}{disturbance(self.disturbed)}"
        )


def loop_rows(spec: str, batch: int | None, rounds: int) -> Iterator[LoopRow]:
    """The row of LeNet on the digits, the net with the shortest steps."""
    b, batch = get_backend(spec), batch or BATCH
    data = load_dataset("digits")
    loader = data.loader(batch)

    def net() -> tuple[Layer, Adam]:
        model = BUILDERS["lenet"](data.image, data.classes, backend=b, seed=0)
        return model, Adam(model)

    ready = list(data.loader(batch).batches(b))
    model, optimizer = net()
    sides = {
        "bare": Side(_plain_epoch(b, *net(), ready)),
        "fit": Side(lambda: fit(model, loader, optimizer=optimizer, epochs=1, progress=False, on_nan="stop")),
    }
    times = measure(sides, rounds, Watch(), 0.0)
    bare, whole = (times.medians[name] / len(ready) for name in ("bare", "fit"))
    yield LoopRow("loop", "digits_lenet", "step", batch, bare, whole, whole / bare - 1.0, times.disturbed)


def _plain_epoch(b: Backend, model: Layer, optimizer: Adam, batches: list[Any]) -> Callable[[], None]:
    loss = CrossEntropy()

    def epoch() -> None:
        with use_backend(b):
            for x, target in batches:
                optimizer.zero_grad()
                loss.forward(model.forward(x), target)
                with released():
                    model.backward(loss.backward(), input_grad=False)
                optimizer.step()
        b.synchronize()

    return epoch
