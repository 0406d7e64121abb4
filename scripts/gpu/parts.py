"""A part of the check, with its counts of rows and its result."""

from dataclasses import dataclass, field
from typing import Any

PASSED, FAILED, LIMIT, INTERRUPTED, NOT_RUN = "passed", "failed", "limit", "interrupted", "not run"
# All rows were skipped; some rows were disturbed by other processes, so they are no measurements.
SKIPPED, DISTURBED = "skipped", "disturbed"
RUNNING = "running"
# Stages whose parts run at the same time; parts of the others run one by one, because they are timed.
TOGETHER = ("preflight", "smoke", "parity")


@dataclass
class Part:
    """One or more processes that run at the same time, and the rows that they append."""

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

    def add(self, row: dict[str, Any]) -> bool:
        """Count a row; returns whether it is a failure."""
        self.total += int(row.get("total") or 0)
        if "name" not in row:
            return False
        # A row of a benchmark is wrong if both sides did not compute the same.
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
        """The counts of rows in words."""
        done = self.passed + self.failed + self.skipped + self.disturbed
        text = f"{self.passed} passed" + (f", {self.failed} failed" if self.failed else "")
        text += f", {self.disturbed} disturbed" if self.disturbed else ""
        text += f", {self.skipped} skipped" if self.skipped else ""
        return text + (f", {self.total - done} not reached" if self.total > done else "")

    def verdict(self) -> str:
        """The status by the rows, if all processes ended with status 0; `PASSED` only if all rows passed."""
        if self.failed:
            return FAILED
        if self.disturbed:
            return DISTURBED
        if self.total > self.passed + self.skipped or not (self.passed or self.skipped):
            return NOT_RUN
        return PASSED if self.passed else SKIPPED
