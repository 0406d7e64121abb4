"""What a person sees while a model trains: a live line on a terminal, plain lines elsewhere, on standard error.

A step that shows nothing costs a clock and an addition. Figures are read, which waits for the device, a few times a
second on a terminal, every ten seconds elsewhere, and after the last step of an epoch, where the loop reads them too.
There is no thread that redraws: it would take the interpreter from the one that feeds the device.
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
# Speed is that of so many of the last readings: ten seconds of a terminal, a minute and more of lines.
_READINGS = 40
_WIDEST_BAR, _NARROWEST_BAR = 40, 6


class Progress:
    """Epoch, step, running figures, speed and time left, and one line for each finished epoch.

    Parameters
    ----------
    epochs, steps : int
        Epochs, and steps in each.
    shown : bool
        False: nothing is printed and nothing is read.
    start : (int, int)
        Where training goes on: the epoch, from 1, and how many of its steps are done.
    unit : str
        What is counted by the second.
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
        self._figures: Mapping[str, float] = {}
        self._samples = 0
        # (seconds of training, samples, steps of all epochs) at the last readings.
        self._readings: deque[tuple[float, int, int]] = deque(maxlen=_READINGS)
        # Seconds and number of the pauses between epochs, in which there are no steps.
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
        """Note a step.

        Parameters
        ----------
        epoch, step : int
            Which it was, both from 1.
        samples : int
            In its batch.
        read : callable
            Gives the running figures of the epoch by name; may wait for the device.
        """
        if not self.shown:
            return
        self._samples += samples
        self._last = perf_counter()
        if self._last < self._due and step < self.steps and self._readings:
            return
        self._at = epoch, step
        self._look(read)

    def _look(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Read the figures, measure the speed, show both."""
        epoch, step = self._at
        first = not self._readings
        self._figures = read()
        self._last = now = perf_counter()
        # What went before the first step's end, such as compilation, says nothing about speed.
        self._readings.append((now - self._paused, self._samples, (epoch - 1) * self.steps + step))
        if self._live is not None:
            self._draw(now)
        elif step < self.steps and not first:
            named = {f"train_{name}": value for name, value in self._figures.items()}
            self._tell([f"step {step:,}/{self.steps:,}", *described(named), *self._pace()])
            self._due = now + _BETWEEN_LINES

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print a finished epoch; without ``images_per_second`` in it, the speed of its steps as seen from here."""
        if not self.shown:
            return
        self._at = int(row["epoch"]), self.steps
        told = {name: value for name, value in row.items() if name not in ("images_per_second", "seconds")}
        seconds, samples = self._last - self._epoch_began, self._samples - self._epoch_samples
        if "images_per_second" in row:
            told["images_per_second"] = row["images_per_second"]
        elif samples and seconds > 0.0:
            told["images_per_second"] = samples / seconds
        told |= {"seconds": row["seconds"]} if "seconds" in row else {}
        pieces = list(described(told, self.unit))
        widths = [cells(piece) for piece in pieces]
        if len(widths) == len(self._widths):
            widths = [max(pair) for pair in zip(widths, self._widths, strict=True)]
        self._widths = widths
        self._tell([padded(piece, width) for piece, width in zip(pieces, widths, strict=True)])

        now = perf_counter()
        self._paused, self._pauses = self._paused + now - self._last, self._pauses + 1
        self._epoch_began, self._epoch_samples = now, self._samples
        self._due = now + (_BETWEEN_LINES if self._live is None else 0.0)

    def note(self, text: str) -> None:
        """Print a line about something that happened: early stopping, a checkpoint that was restored."""
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

    def _tell(self, pieces: list[str]) -> None:
        """Print figures behind the epoch, in as many lines as the terminal is too narrow for."""
        head, width = self._head(), self._width()
        beside = cells(head) + 2
        fits = width is None or all(beside + cells(piece) <= width for piece in pieces)
        self._print("\n".join(fitted([head, *pieces], width, indent=beside if fits else 2)))

    def _width(self) -> int | None:
        # Of a terminal that can't draw Rich does not ask how wide it is.
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
        """Speed by the last readings, and the time that the rest takes at it, validation and all."""
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
        """Show the line, and on a narrow terminal less of it."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        _, step = self._at
        head, width = Text(f"epoch {self._at[0]}/{self.epochs}", "bold"), self._live.console.width
        figures, pace = list(described(self._figures)), self._pace()
        counter = f"{step:>{len(str(self.steps))}}/{self.steps}"
        for told in ([counter, *figures, *pace], [*figures, *pace], [*figures[:1], *pace], pace):
            tail = Text("  ".join(told))
            room = min(width - head.cell_len - tail.cell_len - 4, _WIDEST_BAR)
            if room >= _NARROWEST_BAR:
                break
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        line.add_column(no_wrap=True)
        line.add_column(width=max(room, 1))
        line.add_column(no_wrap=True, overflow="ellipsis")
        line.add_row(head, ProgressBar(self.steps, step, width=max(room, 1)), tail)
        self._live.update(line, refresh=True)
        self._due = now + _BETWEEN_DRAWINGS
