"""What is known of one measurement, on the screen and in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from .load import Watch
from .measure import Side, Times, measure

# Above that error the two sides did not compute the same.
BOUND = 1e-3
# Of gradients through a ReLU in float32: a value next to the kink of a ReLU, or a near tie in a pool, sends its
# gradient another way. PyTorch's own two memory formats differ by 1e-2 there, so that float64 has the last word.
STEP_BOUND, FLOAT64_BOUND = 5e-2, 1e-6

# The cells of the table, and how they stand in their columns.
HEADER = ("name", "phase", "batch", "ours ms", "torch ms", "", "ratio", "plain", "GFLOP/s", "error")
FORMS = ("<26", "<9", ">5", ">9", ">9", "<4", ">6", ">6", ">8", ">8")
PEAKS = " peak MB, ours / torch"


@dataclass
class Row:
    """One measurement: medians in milliseconds; the ratio is PyTorch's time by ours, above 1 we are faster.

    ``plain_ratio`` is the textbook's time by ours. ``torch_format`` is the faster of PyTorch's memory formats.
    ``gb_per_s`` counts arrays that must be read and written once, ``launches`` the kernels, copies and fills of a step
    on a device. What does not apply, or can't be told here, is None. ``relative_error`` is the norm of the difference
    from PyTorch's result over its norm, the largest of all arrays, and of a net's step that of all gradients together;
    ``float64_error`` that of a net's gradients where both sides compute in float64, the largest of all.

    ``disturbed`` rows hold samples that other processes disturbed, since too few others could be had: their times are
    kept, but are no measurement, and no ratio counts. It is None where the system does not tell what others do.
    """

    kind: str
    name: str
    phase: str
    batch: int
    ours_ms: float
    torch_ms: float | None = None
    ratio: float | None = None
    ours_peak_mb: float | None = None
    torch_peak_mb: float | None = None
    relative_error: float | None = None
    float64_error: float | None = None
    torch_format: str | None = None
    plain_ms: float | None = None
    plain_ratio: float | None = None
    samples: int = 0
    discarded: int = 0
    disturbed: bool | None = None
    flops: int | None = None
    bytes: int | None = None
    gflops: float | None = None
    torch_gflops: float | None = None
    gb_per_s: float | None = None
    launches: int | None = None
    optimizer: str | None = None
    size: int | None = None
    wrong: bool = False
    note: str = ""

    @property
    def measured_ratio(self) -> float | None:
        """The ratio, where both times are measurements."""
        return None if self.disturbed else self.ratio

    def cells(self) -> list[str]:
        """The cells of the table's row, each as wide as its column; of a disturbed row no ratio, and times as rough."""
        figures = (
            self.time(self.ours_ms),
            self.time(self.torch_ms),
            "nhwc" if self.torch_format == "channels_last" else "",
            *(
                "-" if self.disturbed else _told(value, form)
                for value, form in ((self.ratio, ".2f"), (self.plain_ratio, ".1f"), (self.gflops, ".0f"))
            ),
            _told(self.relative_error, ".1e"),
        )
        cells = laid_out((self.name, self.phase, str(self.batch), *figures))
        if self.ours_peak_mb is not None:
            cells.append(f" {self.ours_peak_mb:.0f} / {_told(self.torch_peak_mb, '.0f')}")
        if self.launches is not None:
            cells.append(f" {self.launches} launches")
        if self.disturbed:
            cells += [" NOT MEASURED: disturbed by other processes"]
        elif self.discarded:
            cells.append(f" ({self.discarded} samples discarded)")
        return cells

    def time(self, ms: float | None, form: str = ".3f") -> str:
        """Milliseconds; rough ones, with a ``~``, where other processes disturbed."""
        return f"~{ms:{form}}" if self.disturbed and ms is not None else _told(ms, form)

    @property
    def verdict(self) -> str:
        """What is wrong, in a line; empty where nothing is."""
        if not self.wrong:
            return ""
        text = f"WRONG: {self.relative_error:.1e} of the norm away from PyTorch, {self._bound:g} is allowed"
        return text + (f"; in float64 {self.float64_error:.1e}" if self.float64_error is not None else "")

    def __str__(self) -> str:
        text = " ".join(self.cells()).rstrip()
        return f"{text}\n    {self.verdict}" if self.wrong else text

    @property
    def _bound(self) -> float:
        return STEP_BOUND if self.kind in ("net", "growth") and self.phase == "step" else BOUND

    def judge(self) -> None:
        """Say whether the errors, where there are any, are within their bounds."""
        errors = ((self.relative_error, self._bound), (self.float64_error, FLOAT64_BOUND))
        self.wrong = any(error is not None and not error <= bound for error, bound in errors)


@dataclass(frozen=True)
class Plan:
    """How to measure; ``rest`` in seconds before each sample, `measure`'s own unless given."""

    rounds: int
    watch: Watch
    patience: float = 20.0
    rest: float | None = None

    def row(self, kind: str, name: str, phase: str, batch: int, sides: dict[str, Side], **known: Any) -> Row:
        """Measure the sides "ours", "torch FORMAT"... and "plain", and make the row."""
        times = measure(sides, self.rounds, self.watch, self.patience, self.rest)
        return _row(Row(kind, name, phase, batch, times.medians["ours"], **known), times)


def _row(row: Row, times: Times) -> Row:
    theirs = {name.partition(" ")[2]: ms for name, ms in times.medians.items() if name.startswith("torch")}
    if theirs:
        row.torch_format = min(theirs, key=lambda name: theirs[name])
        row.torch_ms = theirs[row.torch_format]
        row.ratio = row.torch_ms / row.ours_ms
    row.plain_ms = times.medians.get("plain")
    row.plain_ratio = None if row.plain_ms is None else row.plain_ms / row.ours_ms
    row.samples, row.discarded, row.disturbed = times.samples, times.discarded, times.disturbed
    if row.flops:
        row.gflops = row.flops / row.ours_ms * 1e-6
        row.torch_gflops = None if row.torch_ms is None else row.flops / row.torch_ms * 1e-6
    if row.bytes:
        row.gb_per_s = row.bytes / row.ours_ms * 1e-6
    row.judge()
    row.note = times.note
    return row


def laid_out(cells: Sequence[str]) -> list[str]:
    """The cells of a row, each as wide as its column."""
    return [f"{cell:{form}}" for cell, form in zip(cells, FORMS, strict=True)]


WRONG, NOT_MEASURED, NOT_COMPARED, PASSED = "wrong", "not measured", "not compared", "passed"


def outcome(rows: Sequence[Row]) -> str:
    """What became of a benchmark as a whole: the worst of what its rows tell.

    `WRONG` where the sides did not compute the same; `NOT_MEASURED` where other processes disturbed a row, or there is
    none; `NOT_COMPARED` where there was nothing to compare results with; else `PASSED`.
    """
    if any(row.wrong for row in rows):
        return WRONG
    if not rows or any(row.disturbed for row in rows):
        return NOT_MEASURED
    return PASSED if any(row.relative_error is not None for row in rows) else NOT_COMPARED


def summary(rows: list[Row]) -> str:
    """The last line."""
    ratios = [row.measured_ratio for row in rows if row.measured_ratio is not None]
    told = f"bench: {len(rows)} rows"
    disturbed = sum(row.disturbed is True for row in rows)
    if disturbed:
        told += f", {disturbed} of them NOT MEASURED (disturbed by other processes)"
    if ratios:
        mean = exp(sum(map(log, ratios)) / len(ratios))
        told += f", faster than PyTorch in {sum(r > 1.0 for r in ratios)} of {len(ratios)}, geometric mean {mean:.2f}"
    wrong = [f"{row.name} {row.phase}" for row in rows if row.wrong]
    if wrong:
        return f"{told}; WRONG: {', '.join(wrong)}"
    compared = sum(row.relative_error is not None for row in rows)
    if not compared:
        return f"{told}; results not compared"
    return f"{told}; none wrong" + (f" of {compared} compared" if compared < len(rows) else "")


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
