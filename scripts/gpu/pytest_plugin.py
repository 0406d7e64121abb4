"""A pytest plugin that reports each test to ``scripts/gpu_check.py`` when it ends.

``pytest -p xpnn.scripts.gpu.pytest_plugin`` appends a line of JSON for every test to the file that the environment
variable ``XPNN_GPU_LINES`` names: its name, whether it passed, why not. With pytest-xdist the first process writes.
"""

import os
from pathlib import Path
from typing import Any

from ...cli.output_files import append

VARIABLE = "XPNN_GPU_LINES"
# Characters of a failure's text that are written, from its end, which names what was expected.
CHARACTERS = 2000


class Lines:
    """Appends a line for each test."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.total = 0

    def pytest_collection_finish(self, session: Any) -> None:
        """Report the number of tests, without workers."""
        self._expect(len(session.items))

    def pytest_xdist_node_collection_finished(self, node: Any, ids: Any) -> None:
        """Report the number of tests of the first worker; all workers collect the same tests."""
        self._expect(len(ids))

    def _expect(self, total: int) -> None:
        if total and not self.total:
            self.total = total
            append(self.file, {"total": total})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Report a test after its call, or earlier if it is skipped or a fixture fails."""
        if report.when == "call" or report.outcome != "passed":
            row = {"name": report.nodeid, "passed": report.outcome != "failed", "skipped": report.outcome == "skipped"}
            if report.outcome == "failed":
                text = str(report.longrepr)
                row |= {"problem": _reason(report), "text": text[-CHARACTERS:]}
            append(self.file, row | {"seconds": report.duration})

    def pytest_collectreport(self, report: Any) -> None:
        """Report a file that can't be collected as a failure."""
        if report.failed:
            text = str(report.longrepr)
            row = {"name": report.nodeid or "collection", "passed": False, "problem": _last(text)}
            append(self.file, {**row, "text": text[-CHARACTERS:]})


def pytest_configure(config: Any) -> None:
    """Register the plugin in the first process, not in its workers."""
    file = os.environ.get(VARIABLE)
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Lines(Path(file)), "xpnn_gpu_lines")


def _reason(report: Any) -> str:
    """The error in one line: pytest's message if it has one, else the last line of the text."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(text.split())[:300] if crash is not None else _last(text)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
