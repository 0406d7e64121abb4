"""Check everything on a machine with a GPU: ``python scripts/gpu_check.py FOLDER``.

Runs, each in a process of its own, what a GPU can be asked: ``xpnn info``, parity in both numerics with the golden runs
(all at the same time), benchmarks (each alone), and the test suite with the GPU backends required. A part that fails or
runs out of time is noted and the next one runs. Writes ``summary.txt`` (40 lines at most, also printed last),
``results.json`` and ``log.txt`` into the folder; installs nothing, needs no network, and ends within its time. Exit
status 1 if a part failed.

Uses the standard library alone, and `xpnn` as it is installed for this Python.
"""

import argparse
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUMMARY_LINES = 40
LINE_WIDTH = 220
# Ends of each log that are kept; with at most ten parts this stays far below 10 MiB.
LOG_BYTES = 300_000
# What parts of each stage may take of the time, in seconds, at most; the suite gets what is left.
SECONDS = {"info": 40.0, "parity": 170.0, "bench": 50.0, "captured": 40.0, "nets": 75.0}
# Figures that a row of a benchmark may have besides its times.
EXTRAS = ("launches", "gb_per_s")


@dataclass
class Part:
    """One command and what became of it."""

    name: str
    stage: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    report: str = ""
    status: str = "not run"
    seconds: float = 0.0
    output: str = ""
    result: Any = None

    @property
    def passed(self) -> bool:
        """Whether it ran and was content."""
        return self.status == "passed"


def plan(options: argparse.Namespace, scratch: Path) -> list[Part]:
    """The parts in the order in which they matter."""
    xpnn = [sys.executable, "-m", "xpnn"]
    parts = [Part("info", "info", [*xpnn, "info"])]
    for numerics in ("fast", "exact"):
        for backend in options.backends:
            name = f"parity {backend} {numerics}"
            report = str(scratch / f"{name.replace(' ', '_').replace(':', '_')}.json")
            command = [*xpnn, "parity", "--backend", backend, "--reference", "numpy", "--numerics", numerics]
            command += ["--filter", options.filter, "--json", report]
            parts.append(Part(name, "parity", command, report=report))
    for backend in options.backends:
        name = f"bench {backend}"
        report = str(scratch / f"{name.replace(' ', '_').replace(':', '_')}.json")
        command = [*xpnn, "bench", "--backend", backend, "--only", options.net, "--rounds", str(options.rounds)]
        command += ["--no-memory", "--wait", "2", "--json", report]
        parts.append(Part(name, name, command, report=report))
    for backend in options.backends:
        if backend.startswith("cupy"):
            parts += measurements(backend, options.rounds, scratch)
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options.tests]
    if importlib.util.find_spec("xdist"):
        suite += ["-n", str(min(8, os.cpu_count() or 1))]
    parts.append(Part("suite", "suite", suite, {"XPNN_REQUIRE_BACKENDS": options.require}))
    return parts


def measurements(backend: str, rounds: int, scratch: Path) -> list[Part]:
    """What is timed on the GPU that is checked, each alone: compiled steps, then nets and layers beside PyTorch."""
    modules = {
        "captured": ["xpnn.scripts.captured", "--rounds", str(rounds)],
        "nets": ["xpnn", "bench", "--nets", "--layers"],
    }
    parts = []
    for kind, arguments in modules.items():
        report = str(scratch / f"{kind}_{backend.replace(':', '_')}.json")
        command = [sys.executable, "-m", *arguments, "--backend", backend, "--json", report]
        parts.append(Part(f"{kind} {backend}", f"{kind} {backend}", command, report=report))
    return parts


def run(part: Part, seconds: float) -> None:
    """Run a part, for so long at most; nothing that it does stops the caller."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            part.status = f"failed to start: {error}"
            return
        try:
            code = process.wait(timeout=max(seconds, 1.0))
            part.status = "passed" if code == 0 else f"failed, exit {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            part.status = f"stopped after {seconds:.0f} s"
        log.seek(0)
        part.output = log.read().decode("utf-8", "replace")
    part.seconds = time.monotonic() - started
    part.result = read(part.report)


def read(report: str) -> Any:
    """A part's own JSON, if it wrote one."""
    try:
        return json.loads(Path(report).read_text(encoding="utf-8")) if report else None
    except (OSError, ValueError):
        return None


def machine() -> dict[str, str]:
    """GPU, driver and versions, as far as they can be found out."""
    found = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "python": platform.python_version()}
    found["system"] = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores"
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        found["gpu"] = f"nvidia-smi does not answer ({type(error).__name__})"
    names = ("xpnn", "numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "array-api-compat", "array-api-strict")
    versions = (f"{name} {version(name)}" for name in names if version(name))
    return {**found, "packages": ", ".join(versions)}


def version(package: str) -> str:
    """Of an installed package; empty if there is none."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(package)
    except PackageNotFoundError:
        return ""


def summarise(about: dict[str, str], parts: list[Part]) -> list[str]:
    """At most 40 lines: the machine, a line for each part, and of what failed as much as there is room for."""
    lines = [f"{key:<9} {value}" for key, value in about.items()]
    lines += [f"{part.name:<28} {part.status:<20} {part.seconds:6.1f} s  {last_line(part)}" for part in parts]
    for part in parts:
        lines += [f"  {line}" for line in figures(part)]
    details = [[f"  {part.name}: {line}" for line in failures(part)] for part in parts if not part.passed]
    room = SUMMARY_LINES - len(lines)
    while details and room > 0:
        for of_one_part in details:
            if of_one_part and room > 0:
                lines.append(of_one_part.pop(0))
                room -= 1
        details = [of_one_part for of_one_part in details if of_one_part]
    return [line[:LINE_WIDTH].rstrip() for line in lines[:SUMMARY_LINES]]


def last_line(part: Part) -> str:
    """What a part said last: the verdict of parity, the counts of pytest."""
    lines = [line.strip() for line in part.output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def figures(part: Part) -> list[str]:
    """Measurements worth a line."""
    rows = part.result.get("rows", []) if isinstance(part.result, dict) else []
    lines = []
    for row in [row for row in rows if isinstance(row, dict) and row.get("ours_ms") is not None][:8]:
        told = [f"ours {row['ours_ms']:.3g} ms", f"PyTorch {row.get('torch_ms') or float('nan'):.3g} ms"]
        told.append(f"ratio {row.get('ratio') or float('nan'):.2f}")
        told += [f"plain {row['plain_ms']:.3g} ms, gain {row['gain']:.2f}"] if "gain" in row else []
        told += [f"{name} {row[name]:.4g}" for name in EXTRAS if isinstance(row.get(name), int | float)]
        lines.append(f"{part.name}: {row.get('name')} {row.get('phase')} batch {row.get('batch')}: {', '.join(told)}")
    return lines


def failures(part: Part) -> list[str]:
    """Which cases or tests failed, and how."""
    if isinstance(part.result, dict) and "cases" in part.result:
        return [f"{case['name']}: {case['problem']}" for case in part.result["cases"] if not case["passed"]]
    lines = part.output.splitlines()
    told = [line for line in lines if line.startswith(("FAILED", "ERROR", "    FAILED"))]
    return told or [line for line in lines if line.strip()][-4:]


def shortened(text: str) -> str:
    """The two ends of a long log."""
    if len(text) <= LOG_BYTES:
        return text
    half = LOG_BYTES // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def write(folder: Path, about: dict[str, str], parts: list[Part], lines: list[str]) -> None:
    """The three files, as they stand after each part: what was measured is kept, whatever comes."""
    for part in parts:
        for case in part.result.get("cases", []) if isinstance(part.result, dict) else []:
            for array in case["arrays"]:
                for against in ("truth", "reference"):
                    array[against].pop("histogram", None)
    told = [{**asdict(part), "output": shortened(part.output)[-4000:]} for part in parts]
    (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = json.dumps({"machine": about, "parts": told}, separators=(",", ":"))
    (folder / "results.json").write_text(report + "\n", encoding="utf-8")
    log = "".join(f"\n== {part.name}: {' '.join(part.command)}\n{shortened(part.output)}" for part in parts)
    (folder / "log.txt").write_text(log, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run all parts; 1 if one of them failed, 2 for a bad call."""
    parser = argparse.ArgumentParser(description="Check xpnn on a machine with a GPU; see the top of this file.")
    parser.add_argument("folder", type=Path, help="where the results go; made if it is not there")
    parser.add_argument("--backends", default="cupy,torch:cuda:0", type=lambda text: text.split(","))
    parser.add_argument("--require", default="cupy,torch-cuda", help="what the suite may not skip")
    parser.add_argument("--filter", default="", help="only parity cases whose name this expression finds")
    parser.add_argument("--net", default="lenet5", help="what the short benchmark measures")
    parser.add_argument("--rounds", type=int, default=9, help="samples of each side of a benchmark")
    parser.add_argument("--tests", nargs="+", default=[str(ROOT / "tests")], help="what pytest runs")
    parser.add_argument("--seconds", type=float, default=465.0, help="end within this time")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.seconds
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        (options.folder / "log.txt").touch()
    except OSError as error:
        print(f"gpu_check: can't write to {options.folder}: {error}", file=sys.stderr)
        return 2
    about = machine()
    with tempfile.TemporaryDirectory() as scratch:
        parts = plan(options, Path(scratch))
        for stage in dict.fromkeys(part.stage for part in parts):
            together = [part for part in parts if part.stage == stage]
            left = deadline - time.monotonic() - 3.0
            limit = min(left, SECONDS.get(stage.partition(" ")[0], left))
            if limit > 1.0:
                print(f"gpu_check: {', '.join(part.name for part in together)} ...", flush=True)
                with ThreadPoolExecutor(len(together)) as pool:
                    list(pool.map(run, together, [limit] * len(together)))
                for part in together:
                    print(f"gpu_check: {part.name}: {part.status}, {part.seconds:.1f} s", flush=True)
            write(options.folder, about, parts, summarise(about, parts))
    print("\n".join(["", *summarise(about, parts)]), flush=True)
    return 0 if all(part.passed for part in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
