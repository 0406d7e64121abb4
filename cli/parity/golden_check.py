"""The golden runs, trainings whose bits are committed, as `xpnn parity` reports them."""

from dataclasses import dataclass

from ...backends import Backend
from ...testing.golden_runs import GOLDEN, golden_run

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"


@dataclass(frozen=True)
class GoldenRun:
    """The result of a golden run: `PASSED`, `FAILED` or `NOT_RUN`, and ``told``, the same in words with the reason."""

    name: str
    status: str
    told: str

    def __str__(self) -> str:
        return f"{self.name}, {self.told}"


def check_golden_runs(backend: Backend) -> list[GoldenRun]:
    """Train for 200 steps and compare the bits with the committed ones."""
    runs = []
    for name, expected in GOLDEN.items():
        try:
            found = golden_run(backend, name)
        except ValueError as error:
            runs.append(GoldenRun(name, NOT_RUN, f"NOT RUN: {error}"))
            continue
        same = found == expected
        result = "as committed" if same else f"DIFFERS from the committed {expected[:16]}"
        runs.append(GoldenRun(name, PASSED if same else FAILED, f"200 steps on the digits: {found[:16]} {result}"))
    return runs
