"""What a person sees while a model trains: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self

# Reading the loss waits for the device; a person needs it a few times a second.
_SECONDS_BETWEEN_READINGS = 0.25


class Progress:
    """A bar over all steps, with the current loss, and one line for each finished epoch.

    Parameters
    ----------
    epochs, steps : int
        Epochs, and steps in each.
    shown : bool
        False: nothing is printed.
    """

    def __init__(self, epochs: int, steps: int, *, shown: bool) -> None:
        self.epochs, self.steps, self.shown = epochs, steps, shown
        self._bar: Any = None
        self._last_reading = time.monotonic()

    def __enter__(self) -> Self:
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[measured]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(
                "", total=self.epochs * self.steps, epoch=1, epochs=self.epochs, measured=""
            )
            self._bar.start()
        return self

    def step(self, epoch: int, read: Callable[[], dict[str, float]]) -> None:
        """Go on by a step; ``read`` is asked for the figures now and then."""
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._last_reading > _SECONDS_BETWEEN_READINGS:
            self._last_reading = now
            self._bar.update(self._task, measured=_line(read()))
        self._bar.update(self._task, advance=1, epoch=epoch)

    def epoch(self, row: dict[str, float]) -> None:
        """Print a finished epoch."""
        if not self.shown:
            return
        line = f"epoch {row['epoch']:>3}/{self.epochs}  {_line(row)}"
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, highlight=False)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _line(row: dict[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in row.items() if name not in ("epoch",))
