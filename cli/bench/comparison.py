"""One comparison with PyTorch, which is a row of the table and of the files: times, errors, verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from .measure import Side, Times, measure
from .other_processes import Watch

# With a larger relative error the two sides did not compute the same.
BOUND = 1e-3
# For gradients of nets in float32: rounding next to the kink of a ReLU, or at a near tie in a pool, changes where a
# gradient goes. PyTorch's own two memory formats differ by 1e-2, so the comparison in float64 decides.
STEP_BOUND, FLOAT64_BOUND = 5e-2, 1e-6

# The heads of the columns, and their formats.
HEADER = ("name", "phase", "batch", "ours ms", "torch ms", "", "ratio", "plain", "GFLOP/s", "error")
FORMS = ("<26", "<9", ">5", ">9", ">9", "<4", ">6", ">6", ">8", ">8")
PEAKS = " peak MB, ours / torch"


@dataclass
class Row:
    """One measurement: median milliseconds; ``ratio`` is PyTorch's time divided by ours, above 1 we are faster.

    ``plain_ratio`` is the time of the textbook convolution divided by ours. ``torch_format`` is the faster of PyTorch's
    memory formats. ``gb_per_s`` counts each array that is read or written once, ``launches`` the kernels, copies and
    fills of a step on a device. A value that does not apply or is unknown is None. ``relative_error`` is the norm of
    the difference from PyTorch's result divided by its norm: the largest of all arrays, for a net's step that of all
    gradients together. ``float64_error`` is the largest of all gradients of a net if both sides compute in float64.

    ``compiled`` says whether a net's step was compiled by `Backend.compile`; ``compiled_error`` is then the relative
    error of all weights after some steps, against plain ones. ``kernels`` says whose kernels could compute:
    ``"numba"``, ``"cuda"`` or ``""`` for array functions alone.

    ``disturbed`` is True if other processes disturbed samples that had to be used: the times are written, but are no
    measurement, and the ratio does not count. It is None if the system does not report the load of other processes.
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
    compiled: bool = False
    compiled_error: float | None = None
    kernels: str = ""
    wrong: bool = False
    note: str = ""

    @property
    def measured_ratio(self) -> float | None:
        """The ratio, if the row is not disturbed."""
        return None if self.disturbed else self.ratio

    def cells(self) -> list[str]:
        """The cells of the row, each as wide as its column; a disturbed row has no ratio and rough times."""
        figures = (
            self.time(self.ours_ms),
            self.time(self.torch_ms),
            "nhwc" if self.torch_format == "channels_last" else "",
            *(
                "-" if self.disturbed else _text(value, form)
                for value, form in ((self.ratio, ".2f"), (self.plain_ratio, ".1f"), (self.gflops, ".0f"))
            ),
            _text(self.relative_error, ".1e"),
        )
        cells = padded((self.name, self.phase, str(self.batch), *figures))
        if self.ours_peak_mb is not None:
            cells.append(f" {self.ours_peak_mb:.0f} / {_text(self.torch_peak_mb, '.0f')}")
        if self.launches is not None:
            cells.append(f" {self.launches} launches")
        if self.compiled:
            cells.append(" compiled")
        if self.disturbed:
            cells += [" NOT MEASURED: disturbed by other processes"]
        elif self.discarded:
            cells.append(f" ({self.discarded} samples discarded)")
        return cells

    def time(self, ms: float | None, form: str = ".3f") -> str:
        """Milliseconds as text, with ``~`` before it in a disturbed row."""
        return f"~{ms:{form}}" if self.disturbed and ms is not None else _text(ms, form)

    @property
    def verdict(self) -> str:
        """The errors in one line if they are too large, else empty."""
        if not self.wrong:
            return ""
        if self.compiled:
            return f"WRONG: weights {self.compiled_error:.1e} of the norm away from plain steps, {BOUND:g} is allowed"
        text = f"WRONG: {self.relative_error:.1e} of the norm away from PyTorch, {self._bound:g} is allowed"
        return text + (f"; in float64 {self.float64_error:.1e}" if self.float64_error is not None else "")

    def __str__(self) -> str:
        text = " ".join(self.cells()).rstrip()
        return f"{text}\n    {self.verdict}" if self.wrong else text

    @property
    def _bound(self) -> float:
        return STEP_BOUND if self.kind in ("net", "growth") and self.phase == "step" else BOUND

    def judge(self) -> None:
        """Set ``wrong`` if an error that is known is above its bound."""
        errors = (
            (self.relative_error, self._bound),
            (self.float64_error, FLOAT64_BOUND),
            (self.compiled_error, BOUND),
        )
        self.wrong = any(error is not None and not error <= bound for error, bound in errors)


@dataclass(frozen=True)
class Plan:
    """The arguments of `measure` for all rows."""

    rounds: int
    watch: Watch
    patience: float = 20.0
    rest: float | None = None

    def row(self, kind: str, name: str, phase: str, batch: int, sides: dict[str, Side], **known: Any) -> Row:
        """Time the sides, which are named "ours", "torch FORMAT" and "plain", and make the row."""
        (row,) = self.rows(kind, name, phase, batch, sides, {"ours": known})
        return row

    def rows(
        self, kind: str, name: str, phase: str, batch: int, sides: dict[str, Side], own: dict[str, dict[str, Any]]
    ) -> list[Row]:
        """As `row`, for several sides of ours that are timed beside the same others; each has its own attributes."""
        times = measure(sides, self.rounds, self.watch, self.patience, self.rest)
        rows = [Row(kind, name, phase, batch, times.medians[side], **known) for side, known in own.items()]
        return [_row(row, times) for row in rows]


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


def padded(cells: Sequence[str]) -> list[str]:
    """The cells of a row, each as wide as its column."""
    return [f"{cell:{form}}" for cell, form in zip(cells, FORMS, strict=True)]


WRONG, NOT_MEASURED, NOT_COMPARED, PASSED = "wrong", "not measured", "not compared", "passed"


def outcome(rows: Sequence[Row]) -> str:
    """The result of a benchmark as a whole.

    `WRONG` if a row is wrong; `NOT_MEASURED` if other processes disturbed a row, or there are no rows; `NOT_COMPARED`
    if no row was compared with PyTorch; else `PASSED`.
    """
    if any(row.wrong for row in rows):
        return WRONG
    if not rows or any(row.disturbed for row in rows):
        return NOT_MEASURED
    return PASSED if any(row.relative_error is not None for row in rows) else NOT_COMPARED


def summary(rows: list[Row]) -> str:
    """The last line: counts, mean ratio, wrong rows."""
    ratios = [row.measured_ratio for row in rows if row.measured_ratio is not None]
    text = f"bench: {len(rows)} rows"
    disturbed = sum(row.disturbed is True for row in rows)
    if disturbed:
        text += f", {disturbed} of them NOT MEASURED (disturbed by other processes)"
    if ratios:
        mean = exp(sum(map(log, ratios)) / len(ratios))
        text += f", faster than PyTorch in {sum(r > 1.0 for r in ratios)} of {len(ratios)}, geometric mean {mean:.2f}"
    wrong = [f"{row.name} {row.phase}" for row in rows if row.wrong]
    if wrong:
        return f"{text}; WRONG: {', '.join(wrong)}"
    compared = sum(row.relative_error is not None for row in rows)
    if not compared:
        return f"{text}; results not compared"
    return f"{text}; none wrong" + (f" of {compared} compared" if compared < len(rows) else "")


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
