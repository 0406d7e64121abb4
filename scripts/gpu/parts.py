"""What is asked in processes of their own, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

PASSED, FAILED, LIMIT, INTERRUPTED, NOT_RUN = "passed", "failed", "limit", "interrupted", "not run"
# All rows skipped; and rows that other processes disturbed, so that nothing was measured.
SKIPPED, DISTURBED = "skipped", "disturbed"
RUNNING = "running"
# Of these stages all parts run at the same time; of the others each alone, so that times are its own.
TOGETHER = ("preflight", "smoke", "parity")


@dataclass
class Part:
    """What is asked in one or more processes at the same time, and what became of it."""

    name: str
    stage: str
    commands: list[list[str]]
    environment: dict[str, str] = field(default_factory=dict)
    status: str = NOT_RUN
    seconds: float = 0.0
    total: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    disturbed: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    output: str = ""

    def take(self, row: dict[str, Any]) -> bool:
        """Note a row; whether it tells of a failure."""
        self.total += int(row.get("total") or 0)
        if "name" not in row:
            return False
        # A row of a benchmark is wrong where both sides did not compute the same.
        bad = row.get("passed") is False or bool(row.get("wrong"))
        if row.get("skipped"):
            self.skipped += 1
        elif bad:
            self.failed += 1
        elif row.get("disturbed"):
            self.disturbed += 1
        else:
            self.passed += 1
        if bad or self.stage != "suite":
            self.rows.append(row)
        return bad

    def counts(self) -> str:
        """How many rows passed, of how many, in words."""
        done = self.passed + self.failed + self.skipped + self.disturbed
        told = f"{self.passed} passed" + (f", {self.failed} failed" if self.failed else "")
        told += f", {self.disturbed} disturbed" if self.disturbed else ""
        told += f", {self.skipped} skipped" if self.skipped else ""
        return told + (f", {self.total - done} not reached" if self.total > done else "")

    def verdict(self) -> str:
        """What its rows come to, once all its processes have ended well: less than all passed is something else."""
        if self.failed:
            return FAILED
        if self.disturbed:
            return DISTURBED
        if self.total > self.passed + self.skipped or not (self.passed or self.skipped):
            return NOT_RUN
        return PASSED if self.passed else SKIPPED
