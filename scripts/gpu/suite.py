"""A plugin of pytest by which ``scripts/gpu_check.py`` learns of each test as it ends.

``pytest -p xpnn.scripts.gpu.suite`` appends a line of JSON for every test to the file that the environment variable
``XPNN_GPU_LINES`` names: its name, whether it passed, why not. With pytest-xdist the process that was started writes.
"""

import os
from pathlib import Path
from typing import Any

from ...cli.targets import append

VARIABLE = "XPNN_GPU_LINES"
# Of a failure's text; its end names what was expected.
KEPT = 2000


class Lines:
    """Writes a line for each test."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.total = 0

    def pytest_collection_finish(self, session: Any) -> None:
        """Without workers this process knows how many tests there are."""
        self._expect(len(session.items))

    def pytest_xdist_node_collection_finished(self, node: Any, ids: Any) -> None:
        """Of the workers, which all have the same tests, the first one tells."""
        self._expect(len(ids))

    def _expect(self, total: int) -> None:
        if total and not self.total:
            self.total = total
            append(self.file, {"total": total})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test ends with its call, or before it where it is skipped or its fixtures fail."""
        if report.when == "call" or report.outcome != "passed":
            row = {"name": report.nodeid, "passed": report.outcome != "failed", "skipped": report.outcome == "skipped"}
            if report.outcome == "failed":
                text = str(report.longrepr)
                row |= {"problem": _reason(report), "text": text[-KEPT:]}
            append(self.file, row | {"seconds": report.duration})

    def pytest_collectreport(self, report: Any) -> None:
        """A file that can't be collected is a failure."""
        if report.failed:
            text = str(report.longrepr)
            row = {"name": report.nodeid or "collection", "passed": False, "problem": _last(text)}
            append(self.file, {**row, "text": text[-KEPT:]})


def pytest_configure(config: Any) -> None:
    """Register in the process that was started, not in its workers."""
    file = os.environ.get(VARIABLE)
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Lines(Path(file)), "xpnn_gpu_lines")


def _reason(report: Any) -> str:
    """The error in one line: where pytest knows it, else the last one of its text."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(text.split())[:300] if crash is not None else _last(text)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
