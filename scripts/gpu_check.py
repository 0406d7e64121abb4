"""Check everything on a machine with a GPU within minutes: ``python scripts/gpu_check.py FOLDER --wheels WHEELS``.

Needs an unpacked archive of the repository, in a folder of any name, and a Python with NumPy and CuPy (and PyTorch for
comparison). Nothing is installed and no network is used: packages that this Python lacks are given as a folder of
wheels, which are unpacked into a temporary folder for the check. The stages, in this order:

========= ===========================================================================================================
preflight imports, the driver, the device; always run; a package that does not import ends the check at once
smoke     each backend opened, 60 parity cases in both numerics, the golden runs, a compiled step, a pinned upload
nccl      exchanges by NCCL with one rank; skipped where CuPy finds no NCCL library
parity    all cases of the parity catalogue, in both numerics
nets      training steps of whole nets, plain and compiled, beside PyTorch's; largest first
layers    single layers beside PyTorch's
suite     the tests that use the GPU
========= ===========================================================================================================

Each stage has a time limit, and ``--seconds`` limits the whole check. After a failure the next stage runs.
``summary.txt`` (short, printed last), ``results.json`` and ``log.txt`` are rewritten within a second of every row, each
whole or not at all, so that a limit, Ctrl-C, SIGTERM or a lost machine loses no earlier result. When the check ends,
even by SIGKILL, all processes that it started end too.

Exit status 0 if everything passed; 1 if not (also for a limit, and for what did not run, was skipped or disturbed); 2
for a bad call; 130 and 143 after a signal. This file imports only the standard library.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from ..cli.standalone import children, process
    from ..common.cores import available_cores
    from ..common.files import write_whole
    from .gpu import options, plan, preflight, summary
    from .gpu.jobs import Job
    from .gpu.parts import FAILED, INTERRUPTED, LIMIT, NOT_RUN, PASSED, RUNNING, TOGETHER, Part
else:
    # Run as a file, maybe on a Python without `xpnn`: these modules import only the standard library.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from gpu import options, plan, preflight, summary
    from gpu.jobs import Job
    from gpu.parts import FAILED, INTERRUPTED, LIMIT, NOT_RUN, PASSED, RUNNING, TOGETHER, Part

    from cli.standalone import children, process
    from common.cores import available_cores
    from common.files import write_whole

# Seconds between two polls of the processes, and between two writes of the files.
POLL, WRITE = 0.05, 1.0
# Seconds at the end of the whole time, reserved to write the files and to end.
RESERVE = 2.0
# Exit status of a benchmark that did not fail, but in which something was not measured.
NOT_MEASURED = 3
# Characters of each part's log in the JSON, and failures of each part that are printed at once.
OUTPUT, PRINTED = 2000, 25


class Stopped(Exception):
    """A signal was received."""


class Check:
    """A run of all parts, and the three files with the results."""

    def __init__(
        self, chosen: argparse.Namespace, scratch: Path, caught: list[int], keeper: children.Keeper | None = None
    ) -> None:
        self.options, self.scratch, self.caught, self.keeper = chosen, scratch, caught, keeper
        self.deadline = time.monotonic() + chosen.seconds
        self.about = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "source": preflight.source()}
        self.about["system"] = f"{platform.system()} {platform.release()}, {available_cores()} cores, "
        self.about["system"] += f"Python {platform.python_version()}"
        self.parts: list[Part] = plan.plan(chosen)
        self.ended = ""
        self.written = 0.0
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("XPNN_BACKEND", "XPNN_NUMERICS")},
            "PYTHONPATH": preflight.import_path(scratch),
            "PYTHONUNBUFFERED": "1",
            # On the host array functions are the reference; Numba's kernels would have to be compiled first.
            "XPNN_NUMBA": "0",
        }
        if chosen.cache is not None:
            self.environment["CUPY_CACHE_DIR"] = str(chosen.cache)

    def run(self) -> int:
        """Run all stages; returns the exit status."""
        try:
            for stage in dict.fromkeys(part.stage for part in self.parts):
                self.run_stage(stage)
                if stage == "preflight":
                    if self.has_failed_preflight():
                        break
                    self.respect_exclusive_mode()
            status = 0 if all(part.status == PASSED for part in self.parts) else 1
        except Stopped:
            self.ended = f"stopped by {signal.Signals(self.caught[0]).name}"
            status = 128 + self.caught[0]
        self.write()
        print("\n".join(["", *summary.summarise(self.about, self.parts, self.ended)]), flush=True)
        return status

    def run_stage(self, stage: str) -> None:
        """Run the parts of a stage within its limit."""
        ours = [part for part in self.parts if part.stage == stage]
        end = min(time.monotonic() + self.options.limits[stage], self.deadline - RESERVE)
        print(f"gpu_check: {stage}, {max(0.0, end - time.monotonic()):.0f} s at most", flush=True)
        together = stage in TOGETHER and not self.options.alone
        groups = [ours] if together else [[part] for part in ours]
        for remaining, group in zip(range(len(groups), 0, -1), groups, strict=True):
            # A part that hangs gets at most half of the time; the rest is for the parts after it.
            now = time.monotonic()
            share = end if remaining == 1 else now + (end - now) * 0.5
            if end - now > 0.5:
                self.run_parts(group, share)
            for part in group:
                result = f"{part.status}, {part.counts()}, {part.seconds:.1f} s"
                print(f"gpu_check: {part.name}: {result}", flush=True)

    def run_parts(self, group: list[Part], end: float) -> None:
        """Run parts at the same time, at most until ``end``; their failures raise nothing."""
        started = time.monotonic()
        jobs: list[tuple[Part, list[Job]]] = []
        try:
            for part in group:
                part.status = RUNNING
                jobs.append((part, []))
                for command in part.commands:
                    jobs[-1][1].append(self.start(part, command))
            while any(part.status == RUNNING for part in group):
                over = time.monotonic() >= end
                for part, of_part in jobs:
                    if part.status == RUNNING:
                        self.poll(part, of_part, over, time.monotonic() - started)
                if self.caught:
                    raise Stopped
                if time.monotonic() - self.written > WRITE:
                    self.write()
                time.sleep(POLL)
        finally:
            for part, of_part in jobs:
                if part.status == RUNNING:
                    self.poll(part, of_part, True, time.monotonic() - started)
                    part.status = INTERRUPTED
        self.write()

    def poll(self, part: Part, jobs: list[Job], over: bool, seconds: float) -> None:
        """Read the new rows of a running part, and judge it if its processes have ended or time is ``over``."""
        for job in jobs:
            job.poll(over)
            self.read_rows(part, job)
        if over or all(job.ended for job in jobs):
            self.judge(part, jobs, seconds)

    def start(self, part: Part, command: list[str]) -> Job:
        """Start a process of a part."""
        job = Job(command, self.scratch, {**self.environment, **part.environment}, self.keeper)
        part.problem = job.problem or part.problem
        return job

    def read_rows(self, part: Part, job: Job) -> None:
        """Add the new rows of a job to its part; print those that failed."""
        for row in job.new_rows():
            if part.add(row) and part.failed <= PRINTED:
                print(f"gpu_check: {part.name}: FAILED {row['name']}: {summary.problem_of(row)}"[:500], flush=True)
                if part.failed == PRINTED:
                    print(f"gpu_check: {part.name}: further failures are in the files", flush=True)

    def judge(self, part: Part, jobs: list[Job], seconds: float) -> None:
        """Set the status of a part whose processes have ended."""
        part.seconds = seconds
        part.output = "".join(job.printed() for job in jobs)
        codes = [job.code for job in jobs if job.code]
        if not part.problem and any(job.code is None for job in jobs):
            part.problem = f"stopped after {seconds:.0f} s"
            part.status = FAILED if part.failed else LIMIT
            return
        # A benchmark that other processes disturbed ends with this status, and its rows say so.
        codes = [code for code in codes if not (code == NOT_MEASURED and part.disturbed)]
        part.status = FAILED if codes or part.problem else part.verdict()
        if part.status == NOT_RUN and not part.total:
            part.problem = f"no rows: {summary.last_line(part.output)}"
        if codes and not part.failed:
            how = ", ".join(f"signal {-code}" if code < 0 else f"exit {code}" for code in codes)
            part.problem = f"{how}: {summary.last_line(part.output)}"

    def has_failed_preflight(self) -> bool:
        """Whether the preflight failed, so that nothing can be checked; adds the description of the machine."""
        parts_of_preflight = [part for part in self.parts if part.stage == "preflight"]
        for row in (row for part in parts_of_preflight for row in part.rows):
            self.about |= row.get("about", {})
        # An import that was only slow, as from a cold disk, is no reason to stop.
        if all(part.status in (PASSED, LIMIT) for part in parts_of_preflight):
            return False
        self.ended = "stopped at once: the preflight failed" + preflight.cure(
            [row["package"] for part in parts_of_preflight for row in part.rows if row.get("package")]
        )
        return True

    def respect_exclusive_mode(self) -> None:
        """Run one process at a time if the device is in exclusive mode, which admits no more."""
        if "Exclusive" in self.about.get("driver", "") and not self.options.alone:
            self.options.alone = True
            done = [part for part in self.parts if part.stage == "preflight"]
            self.parts = done + [part for part in plan.plan(self.options) if part.stage != "preflight"]

    def write(self) -> None:
        """Write the three files with the results so far."""
        results = [
            {**asdict(part), "commands": len(part.commands), "output": part.output[-OUTPUT:]} for part in self.parts
        ]
        report = {"machine": self.about, "ended": self.ended, "limits": self.options.limits, "parts": results}
        log = "".join(f"\n==== {part.name}\n{part.output}" for part in self.parts if part.output)
        lines = summary.summarise(self.about, self.parts, self.ended)
        write_whole(self.options.folder / "summary.txt", "\n".join(lines) + "\n")
        write_whole(self.options.folder / "results.json", json.dumps(report, separators=(",", ":")) + "\n")
        write_whole(self.options.folder / "log.txt", log)
        self.written = time.monotonic()


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Within the ``with`` block signals that end the check are added to a list, which the check polls."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, frame: caught.append(number)) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """Run all stages; returns the exit status."""
    process.prepare()
    chosen = options.parse(arguments)
    with signals() as caught:
        scratch = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        keeper = children.Keeper(f"{scratch}/", scratch)
        try:
            if chosen.wheels is not None:
                for line in preflight.unpack(chosen.wheels, scratch / "wheels"):
                    print(f"gpu_check: {line}", flush=True)
            return Check(chosen, scratch, caught, keeper).run()
        finally:
            keeper.close()
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
