"""The golden runs as `xpnn parity` reports them: passed, failed, or not run and why not."""

from dataclasses import dataclass

from ..backends import Backend
from ..testing.golden_runs import GOLDEN, golden_run

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


@dataclass(frozen=True)
class GoldenRun:
    """What became of a training run whose bits are committed: `PASSED`, `FAILED` or `NOT_RUN`, and why not."""

    name: str
    status: str
    told: str

    def __str__(self) -> str:
        return f"{self.name}, {self.told}"


def golden(backend: Backend) -> list[GoldenRun]:
    """Train for 200 steps and hold the bits against those that are committed."""
    runs = []
    for name, expected in GOLDEN.items():
        try:
            found = golden_run(backend, name)
        except ValueError as error:
            runs.append(GoldenRun(name, NOT_RUN, f"NOT RUN: {error}"))
            continue
        same = found == expected
        told = "as committed" if same else f"DIFFERS from the committed {expected[:16]}"
        told = f"200 steps on the digits: {found[:16]} {told}"
        runs.append(GoldenRun(name, PASSED if same else FAILED, told))
    return runs
