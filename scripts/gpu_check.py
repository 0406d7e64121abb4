"""Check everything on a machine with a GPU, within minutes: ``python scripts/gpu_check.py FOLDER --wheels WHEELS``.

Needs an unpacked archive of the repository, in a folder of any name, and a Python with NumPy and CuPy (and PyTorch, to
compare with). Nothing is installed and no network is asked: packages that this Python lacks come as wheels in a folder,
which are unpacked beside the results while the check runs. Stages, in this order:

========= ===========================================================================================================
preflight imports, the driver, the device; always run, and what does not import ends the check at once, in words
smoke     each backend opened, 60 parity cases in both numerics, the golden runs, a captured step, a pinned upload
parity    all cases of the parity catalogue, in both numerics
nets      training steps of whole nets, plain and compiled, beside PyTorch's; largest first
layers    single layers beside PyTorch's
suite     the tests that use the GPU
========= ===========================================================================================================

Each has a limit on its time, and ``--seconds`` is the limit of all. What does not pass is noted and the next one runs.
``summary.txt`` (short, printed last), ``results.json`` and ``log.txt`` are written anew, each whole or not at all,
within a second of every row and case, so that a limit, Ctrl-C, SIGTERM or a lost machine costs no more than what ran.
Whatever ends it, SIGKILL too, ends all processes that it started.

Exit status 0 if all passed, 1 if not (a limit counts, and what did not run, was skipped or disturbed), 2 for a bad
call, 130 and 143 after a signal. This file uses the standard library alone.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from ..cli.standalone import children
    from ..cli.standalone.process import prepare, put
    from .gpu import options, parts, plan, preflight, summary
else:
    # Run as a file, perhaps where `xpnn` is not installed.
    sys.path.append(str(Path(__file__).resolve().parents[1] / "cli"))
    from gpu import options, parts, plan, preflight, summary
    from standalone import children
    from standalone.process import prepare, put

# Seconds between two looks at what runs, and between two writes of the files.
LOOK, WRITE = 0.05, 1.0
# Of the time as a whole, what is kept to write and to end.
RESERVE = 2.0
# Exit status of a benchmark of which nothing failed, and something was not measured.
MEASURED_NOT = 3
# Characters of each part's log in the JSON, and failures of each part that are printed as they come.
OUTPUT, PRINTED = 2000, 25

Part = parts.Part
PASSED, FAILED, LIMIT, INTERRUPTED = parts.PASSED, parts.FAILED, parts.LIMIT, parts.INTERRUPTED
NOT_RUN = parts.NOT_RUN
RUNNING, TOGETHER = parts.RUNNING, parts.TOGETHER


@dataclass
class Job:
    """A process, what it prints and the rows that it appends."""

    command: list[str]
    name: str
    process: Any = None
    seen: int = 0
    code: int | None = None


class Stopped(Exception):
    """A signal asked for the end."""


class Check:
    """A run of the parts, and the three files that tell of it."""

    def __init__(
        self, asked: argparse.Namespace, scratch: Path, caught: list[int], keeper: children.Keeper | None = None
    ) -> None:
        self.asked, self.scratch, self.caught, self.keeper = asked, scratch, caught, keeper
        self.deadline = time.monotonic() + asked.seconds
        self.about = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "source": preflight.source()}
        self.about["system"] = f"{platform.system()} {platform.release()}, {plan.cores()} cores, "
        self.about["system"] += f"Python {platform.python_version()}"
        self.parts: list[Part] = plan.plan(asked)
        self.ended = ""
        self.written = 0.0
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("XPNN_BACKEND", "XPNN_NUMERICS")},
            "PYTHONPATH": preflight.import_path(scratch),
            "PYTHONUNBUFFERED": "1",
            # On the host arrays are the reference; compiled kernels would have to be compiled first.
            "XPNN_NUMBA": "0",
        }
        if asked.cache is not None:
            self.environment["CUPY_CACHE_DIR"] = str(asked.cache)

    def run(self) -> int:
        """All stages; the exit status."""
        try:
            for stage in dict.fromkeys(part.stage for part in self.parts):
                self.run_stage(stage)
                if stage == "preflight":
                    if self.unfit():
                        break
                    self.keep_to_mode()
            status = 0 if all(part.status == PASSED for part in self.parts) else 1
        except Stopped:
            self.ended = f"stopped by {signal.Signals(self.caught[0]).name}"
            status = 128 + self.caught[0]
        self.write()
        print("\n".join(["", *summary.summarise(self.about, self.parts, self.ended)]), flush=True)
        return status

    def run_stage(self, stage: str) -> None:
        """The parts of a stage, all within its limit."""
        ours = [part for part in self.parts if part.stage == stage]
        end = min(time.monotonic() + self.asked.limits[stage], self.deadline - RESERVE)
        print(f"gpu_check: {stage}, {max(0.0, end - time.monotonic()):.0f} s at most", flush=True)
        together = stage in TOGETHER and not self.asked.alone
        groups = [ours] if together else [[part] for part in ours]
        for left, group in zip(range(len(groups), 0, -1), groups, strict=True):
            # One part that hangs leaves half of the time to those behind it.
            now = time.monotonic()
            share = end if left == 1 else now + (end - now) * 0.5
            if end - now > 0.5:
                self.run_parts(group, share)
            for part in group:
                told = f"{part.status}, {part.counts()}, {part.seconds:.1f} s"
                print(f"gpu_check: {part.name}: {told}", flush=True)

    def run_parts(self, group: list[Part], end: float) -> None:
        """Run parts at the same time, until then at most; nothing that they do stops the caller."""
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
                        self.look(part, of_part, over, time.monotonic() - started)
                if self.caught:
                    raise Stopped
                if time.monotonic() - self.written > WRITE:
                    self.write()
                time.sleep(LOOK)
        finally:
            for part, of_part in jobs:
                if part.status == RUNNING:
                    self.look(part, of_part, True, time.monotonic() - started)
                    part.status = INTERRUPTED
        self.write()

    def look(self, part: Part, jobs: list[Job], over: bool, seconds: float) -> None:
        """Take a running part's rows, and judge it once its processes have ended, or are ended: time is ``over``."""
        for job in jobs:
            if job.code is None and job.process is not None:
                job.code = job.process.poll()
                if over or job.code is not None:
                    self.kill(job)
            self.read_rows(part, job)
        if over or all(job.code is not None or job.process is None for job in jobs):
            self.judge(part, jobs, seconds)

    def start(self, part: Part, command: list[str]) -> Job:
        """A process of its own group, with a file for what it prints and one for its rows."""
        number = sum(1 for _ in self.scratch.glob("*.log"))
        job = Job([], f"{number}")
        lines = str(self.lines(job))
        job.command = [lines if word == "LINES" else word for word in command]
        with (self.scratch / f"{job.name}.log").open("wb") as log:
            try:
                job.process = subprocess.Popen(
                    job.command,
                    cwd=self.scratch,
                    env=children.marked(
                        {**self.environment, **part.environment, "XPNN_GPU_LINES": lines}, self.mark(job)
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                part.problem = f"does not start: {error}"
                return job
        if self.keeper is not None:
            self.keeper.note(job.process.pid)
        return job

    def mark(self, job: Job) -> str:
        """By which a job's processes are found, in whatever group or session they are."""
        return f"{self.scratch}/{job.name}"

    def kill(self, job: Job) -> None:
        """End a job's process and all that it started, which may have outlived it."""
        children.end(job.process.pid, f"{self.mark(job)};")
        children.reap(job.process)
        if self.keeper is not None:
            self.keeper.forget(job.process.pid)

    def lines(self, job: Job) -> Path:
        """The file of a job's rows."""
        return self.scratch / f"{job.name}.rows"

    def read_rows(self, part: Part, job: Job) -> None:
        """Take what a job has appended since the last look; a line that is not complete is for the next one."""
        try:
            with self.lines(job).open("rb") as file:
                file.seek(job.seen)
                fresh = file.read()
        except OSError:
            return
        whole = fresh[: fresh.rfind(b"\n") + 1]
        job.seen += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if part.take(row) and part.failed <= PRINTED:
                    print(f"gpu_check: {part.name}: FAILED {row['name']}: {summary.problem_of(row)}"[:500], flush=True)
                    if part.failed == PRINTED:
                        print(f"gpu_check: {part.name}: further failures are in the files", flush=True)

    def judge(self, part: Part, jobs: list[Job], seconds: float) -> None:
        """What became of a part whose processes have ended."""
        part.seconds = seconds
        part.output = "".join(self.printed(job) for job in jobs)
        codes = [job.code for job in jobs if job.code]
        if not part.problem and any(job.code is None for job in jobs):
            part.problem = f"stopped after {seconds:.0f} s"
            part.status = FAILED if part.failed else LIMIT
            return
        # A benchmark that other processes disturbed says so by its status too.
        codes = [code for code in codes if not (code == MEASURED_NOT and part.disturbed)]
        part.status = FAILED if codes or part.problem else part.verdict()
        if part.status == NOT_RUN and not part.total:
            part.problem = f"told of nothing: {summary.last_line(part.output)}"
        if codes and not part.failed:
            how = ", ".join(f"signal {-code}" if code < 0 else f"exit {code}" for code in codes)
            part.problem = f"{how}: {summary.last_line(part.output)}"

    def printed(self, job: Job) -> str:
        """What a job printed, under its command."""
        text = (self.scratch / f"{job.name}.log").read_bytes().decode("utf-8", "replace")
        command = " ".join(job.command).replace(f"{self.scratch}/", "")
        return f"\n== {command}\n{summary.shortened(text)}"

    def unfit(self) -> bool:
        """Whether the preflight found that nothing can be checked; what it found of the machine is kept."""
        looked = [part for part in self.parts if part.stage == "preflight"]
        for row in (row for part in looked for row in part.rows):
            self.about |= row.get("about", {})
        # An import that is slow on a cold disk is no reason to stop.
        if all(part.status in (PASSED, LIMIT) for part in looked):
            return False
        self.ended = "stopped at once: the preflight failed" + preflight.cure(
            [row["package"] for part in looked for row in part.rows if row.get("package")]
        )
        return True

    def keep_to_mode(self) -> None:
        """A device in exclusive mode lets in one process at a time."""
        if "Exclusive" in self.about.get("driver", "") and not self.asked.alone:
            self.asked.alone = True
            done = [part for part in self.parts if part.stage == "preflight"]
            self.parts = done + [part for part in plan.plan(self.asked) if part.stage != "preflight"]

    def write(self) -> None:
        """The three files, as things stand."""
        told = [
            {**asdict(part), "commands": len(part.commands), "output": part.output[-OUTPUT:]} for part in self.parts
        ]
        report = {"machine": self.about, "ended": self.ended, "limits": self.asked.limits, "parts": told}
        log = "".join(f"\n==== {part.name}\n{part.output}" for part in self.parts if part.output)
        lines = summary.summarise(self.about, self.parts, self.ended)
        put(self.asked.folder / "summary.txt", "\n".join(lines) + "\n")
        put(self.asked.folder / "results.json", json.dumps(report, separators=(",", ":")) + "\n")
        put(self.asked.folder / "log.txt", log)
        self.written = time.monotonic()


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Signals that ask for the end, noted where the check looks between two writes; children are not sent them."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, frame: caught.append(number)) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    """Run all stages."""
    prepare()
    asked = options.parse(arguments)
    with signals() as caught:
        scratch = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        keeper = children.Keeper(f"{scratch}/", scratch)
        try:
            if asked.wheels is not None:
                for line in preflight.unpack(asked.wheels, scratch / "wheels"):
                    print(f"gpu_check: {line}", flush=True)
            return Check(asked, scratch, caught, keeper).run()
        finally:
            keeper.close()
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
