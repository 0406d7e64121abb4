"""Progress of training on standard error: a live line on a terminal, plain lines elsewhere.

A step that shows nothing costs a clock reading and an addition. Metrics are read, which waits for the device, a few
times a second on a terminal, every ten seconds elsewhere, and after the last step of an epoch, where the loop reads
them too. No thread redraws the line, because it would compete for the interpreter with the one that feeds the device.
"""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Self

from ..common.terminal import cells, columns, fitted, padded, wrapped
from .formatting import clock, described, per_second

_BETWEEN_DRAWINGS = 0.25
_BETWEEN_LINES = 10.0
# The speed is measured over this number of readings: ten seconds on a terminal, more than a minute elsewhere.
_READINGS = 40
_WIDEST_BAR, _NARROWEST_BAR = 40, 6


class Progress:
    """Shows epoch, step, running metrics, speed and time left, and one line for each finished epoch.

    Parameters
    ----------
    epochs, steps : int
        Epochs, and steps in each.
    shown : bool
        If False, nothing is printed and nothing is read.
    start : (int, int)
        Where training begins: the epoch, from 1, and how many of its steps are done.
    unit : str
        What is counted per second.
    console : rich.console.Console, optional
        Where to print; standard error unless given.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        shown: bool,
        start: tuple[int, int] = (1, 0),
        unit: str = "images",
        console: Any = None,
    ) -> None:
        self.epochs, self.steps, self.shown, self.unit = epochs, steps, shown, unit
        self._console = console
        self._live: Any = None
        self._at = start
        self._metrics: Mapping[str, float] = {}
        self._samples = 0
        # (seconds of training, samples, steps of all epochs) at the last readings.
        self._readings: deque[tuple[float, int, int]] = deque(maxlen=_READINGS)
        # Total seconds and number of the pauses between epochs, such as validation.
        self._paused, self._pauses = 0.0, 0
        self._last = self._due = self._epoch_began = perf_counter()
        self._epoch_samples = 0
        self._widths: list[int] = []

    def __enter__(self) -> Self:
        self._last = self._epoch_began = perf_counter()
        self._due = self._last + _BETWEEN_LINES
        if self.shown and self._on_terminal():
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self._draw(0.0)
        return self

    def step(self, epoch: int, step: int, samples: int, read: Callable[[], Mapping[str, float]]) -> None:
        """Record a step.

        Parameters
        ----------
        epoch, step : int
            Which it was, both from 1.
        samples : int
            In its batch.
        read : callable
            Returns the running metrics of the epoch by name; may wait for the device.
        """
        if not self.shown:
            return
        self._samples += samples
        self._last = perf_counter()
        if self._last < self._due and step < self.steps and self._readings:
            return
        self._at = epoch, step
        self._read_and_show(read)

    def _read_and_show(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Read the metrics, measure the speed, show both."""
        epoch, step = self._at
        first = not self._readings
        self._metrics = read()
        self._last = now = perf_counter()
        # The time before the end of the first step, which may include compilation, does not count.
        self._readings.append((now - self._paused, self._samples, (epoch - 1) * self.steps + step))
        if self._live is not None:
            self._draw(now)
        elif step < self.steps and not first:
            named = {f"train_{name}": value for name, value in self._metrics.items()}
            self._print_pieces([f"step {step:,}/{self.steps:,}", *described(named), *self._pace()])
            self._due = now + _BETWEEN_LINES

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print a finished epoch, with the measured speed of its steps unless it has ``images_per_second``."""
        if not self.shown:
            return
        self._at = int(row["epoch"]), self.steps
        shown = {name: value for name, value in row.items() if name not in ("images_per_second", "seconds")}
        seconds, samples = self._last - self._epoch_began, self._samples - self._epoch_samples
        if "images_per_second" in row:
            shown["images_per_second"] = row["images_per_second"]
        elif samples and seconds > 0.0:
            shown["images_per_second"] = samples / seconds
        shown |= {"seconds": row["seconds"]} if "seconds" in row else {}
        pieces = list(described(shown, self.unit))
        widths = [cells(piece) for piece in pieces]
        if len(widths) == len(self._widths):
            widths = [max(pair) for pair in zip(widths, self._widths, strict=True)]
        self._widths = widths
        self._print_pieces([padded(piece, width) for piece, width in zip(pieces, widths, strict=True)])

        now = perf_counter()
        self._paused, self._pauses = self._paused + now - self._last, self._pauses + 1
        self._epoch_began, self._epoch_samples = now, self._samples
        self._due = now + (_BETWEEN_LINES if self._live is None else 0.0)

    def note(self, text: str) -> None:
        """Print a line about an event, such as early stopping."""
        if self.shown:
            self._print(wrapped(text, self._width()))

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _on_terminal(self) -> bool:
        if self._console is None and sys.stderr.isatty():
            from rich.console import Console

            self._console = Console(stderr=True)
        return self._console is not None and self._console.is_terminal and not self._console.is_dumb_terminal

    def _print_pieces(self, pieces: list[str]) -> None:
        """Print the pieces after the epoch, in several lines if the terminal is too narrow for one."""
        head, width = self._head(), self._width()
        beside = cells(head) + 2
        fits = width is None or all(beside + cells(piece) <= width for piece in pieces)
        self._print("\n".join(fitted([head, *pieces], width, indent=beside if fits else 2)))

    def _width(self) -> int | None:
        # Rich does not measure the width of a terminal that can't draw.
        if self._live is not None:
            return int(self._live.console.width)
        return columns(sys.stderr if self._console is None else self._console.file)

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr if self._console is None else self._console.file, flush=True)

    def _head(self) -> str:
        width = len(str(self.epochs))
        return f"epoch {self._at[0]:>{width}}/{self.epochs}"

    def _pace(self) -> list[str]:
        """The speed over the last readings, and the time left at that speed, validation included."""
        if len(self._readings) < 2:
            return []
        (began, samples, steps), (ended, samples_now, steps_now) = self._readings[0], self._readings[-1]
        if ended <= began or steps_now == steps:
            return []
        left = (self.epochs * self.steps - steps_now) * (ended - began) / (steps_now - steps)
        if self._pauses:
            left += (self.epochs - self._at[0] + 1) * self._paused / self._pauses
        return [per_second((samples_now - samples) / (ended - began), self.unit), f"{clock(left)} left"]

    def _draw(self, now: float) -> None:
        """Redraw the live line, with fewer pieces on a narrow terminal."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        _, step = self._at
        head, width = Text(f"epoch {self._at[0]}/{self.epochs}", "bold"), self._live.console.width
        metrics, pace = list(described(self._metrics)), self._pace()
        counter = f"{step:>{len(str(self.steps))}}/{self.steps}"
        for pieces in ([counter, *metrics, *pace], [*metrics, *pace], [*metrics[:1], *pace], pace):
            tail = Text("  ".join(pieces))
            bar = min(width - head.cell_len - tail.cell_len - 4, _WIDEST_BAR)
            if bar >= _NARROWEST_BAR:
                break
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        line.add_column(no_wrap=True)
        line.add_column(width=max(bar, 1))
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_row(head, ProgressBar(self.steps, step, width=max(bar, 1)), tail)
        self._live.update(line, refresh=True)
        self._due = now + _BETWEEN_DRAWINGS
