"""What is known of one measurement, on the screen and in a file."""

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

HEADER = (
    f"{'name':<26} {'phase':<9} {'batch':>5} {'ours ms':>9} {'torch ms':>9} {'':<4} {'ratio':>6} {'plain':>6} "
    f"{'GFLOP/s':>8} {'error':>8}  {'peak MB, ours / torch'}"
)


@dataclass
class Row:
    """One measurement: medians in milliseconds; the ratio is PyTorch's time by ours, above 1 we are faster.

    ``plain_ratio`` is the textbook's time by ours. ``torch_format`` is the faster of PyTorch's memory formats.
    ``gb_per_s`` counts arrays that must be read and written once, ``launches`` the kernels, copies and fills of a step
    on a device. What does not apply, or can't be told here, is None. ``relative_error`` is the norm of the difference
    from PyTorch's result over its norm, the largest of all arrays, and of a net's step that of all gradients together;
    ``float64_error`` that of a net's gradients where both sides compute in float64, the largest of all.
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

    def __str__(self) -> str:
        peaks = ""
        if self.ours_peak_mb is not None:
            peaks = f"{self.ours_peak_mb:.0f} / {_told(self.torch_peak_mb, '.0f')}"
        text = (
            f"{self.name:<26} {self.phase:<9} {self.batch:>5} {self.ours_ms:>9.3f} {_told(self.torch_ms, '.3f'):>9} "
            f"{'nhwc' if self.torch_format == 'channels_last' else '':<4} {_told(self.ratio, '.2f'):>6} "
            f"{_told(self.plain_ratio, '.1f'):>6} {_told(self.gflops, '.0f'):>8} "
            f"{_told(self.relative_error, '.1e'):>8}  {peaks}"
        ).rstrip()
        text += f"  {self.launches} launches" if self.launches is not None else ""
        if self.discarded or self.disturbed:
            text += f"  ({self.discarded} samples discarded{', others disturbed' if self.disturbed else ''})"
        if self.wrong:
            text += f"\n    WRONG: {self.relative_error:.1e} of the norm away from PyTorch, {self._bound:g} is allowed"
            text += f"; in float64 {self.float64_error:.1e}" if self.float64_error is not None else ""
        return text

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


def summary(rows: list[Row]) -> str:
    """The last line."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    told = f"bench: {len(rows)} rows"
    if ratios:
        mean = exp(sum(map(log, ratios)) / len(ratios))
        told += f", faster than PyTorch in {sum(r > 1.0 for r in ratios)} of {len(ratios)}, geometric mean {mean:.2f}"
    wrong = [f"{row.name} {row.phase}" for row in rows if row.wrong]
    disturbed = sum(row.disturbed is True for row in rows)
    if disturbed:
        told += f"; {disturbed} disturbed by other processes"
    return f"{told}; WRONG: {', '.join(wrong)}" if wrong else f"{told}; none wrong"


def _told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
