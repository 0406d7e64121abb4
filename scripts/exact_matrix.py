"""Show that exact numerics gives the same bits under all settings of this machine: ``python scripts/exact_matrix.py``.

Trains one small net, with Adam and with SGD, in a separate process under each setting that changes how libraries
compute: threads, the kernels of OpenBLAS, NumPy, PyTorch and MKL, flushing of subnormal numbers, a batch in parts.
Prints for each the hash of the trained weights and states, in exact and for contrast in fast numerics, and then::

    exact_matrix: 31 configurations, 1 hash in exact numerics, 10 in fast numerics

Exit status 0 for one hash in exact numerics; 1 for more (the different ones are named), and if a run failed or none was
possible; 2 for a bad call. Settings that this processor lacks, and backends that can't be used, are listed but not
counted.

This file imports only the standard library; the trainings import `xpnn` as it is installed for this Python.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from ..cli.standalone import process
    from ..cli.standalone.arguments import Parser
    from ..common import environment
    from ..common.files import write_whole
    from ..common.processor import processor_name
else:
    # Run as a file, maybe on a Python without `xpnn`: these modules import only the standard library.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from cli.standalone import process
    from cli.standalone.arguments import Parser
    from common import environment
    from common.files import write_whole
    from common.processor import processor_name

# The time limit of a run, which needs a few seconds.
SECONDS = 120.0
# Digits of a hash in the table.
SHOWN = 12
CHILD = Path(__file__).resolve().parent / "exact" / "training_hash.py"
CORES = ("Haswell", "SkylakeX", "Zen", "Nehalem", "Sandybridge")


@dataclass
class Configuration:
    """A setting, and the result of the run under it."""

    backend: str
    setting: str
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    exact: str = ""
    fast: str = ""
    seconds: float = 0.0
    problem: str = ""
    skipped: bool = False


def run_task(task: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a task in a child process; returns its answer, or the ``problem`` if there is none."""
    command = [sys.executable, str(CHILD), json.dumps({**task, "parent": os.getpid()})]
    inherited = {name: text for name, text in os.environ.items() if name not in ("XPNN_BACKEND", "XPNN_NUMERICS")}
    try:
        done = subprocess.run(
            command, env={**inherited, **variables}, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not done after {SECONDS:.0f} s"}
    if done.returncode == -signal.SIGILL:
        return {"skipped": True, "problem": "not on this processor"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"problem": f"failed, exit {done.returncode}: {lines[-1]}"}
    return answer


def threads(count: int) -> dict[str, str]:
    """Variables that set the number of threads of all libraries."""
    return {f"{library}_NUM_THREADS": str(count) for library in ("OPENBLAS", "OMP", "MKL")}


def configurations(backend: str, dispatched: list[str]) -> Iterator[Configuration]:
    """All settings for a backend, the default first; ``dispatched`` are processor features that NumPy can disable."""
    # One thread for most: with more threads than idle cores PyTorch takes ten times as long.
    one = threads(1)
    for count in (1, 2):
        yield Configuration(backend, f"threads {count}", threads(count))
    yield Configuration(backend, "shards 3", one, {"shards": 3})
    if backend.partition(":")[0] == "torch":
        for level in ("default", "avx2", "avx512"):
            yield Configuration(backend, f"ATEN_CPU_CAPABILITY={level}", {**one, "ATEN_CPU_CAPABILITY": level})
        for branch in ("COMPATIBLE", "AVX2"):
            yield Configuration(backend, f"MKL_CBWR={branch}", {**one, "MKL_CBWR": branch})
        yield Configuration(backend, "flush denormal", one, {"flush_denormal": True})
        return
    for core in CORES:
        yield Configuration(backend, f"OPENBLAS_CORETYPE={core}", {**one, "OPENBLAS_CORETYPE": core})
    # Each feature builds on those before it, so it is disabled with all that come after it.
    for kept in range(len(dispatched)):
        without = " ".join(dispatched[kept:])
        yield Configuration(backend, f"NumPy without {without}", {**one, "NPY_DISABLE_CPU_FEATURES": without})


def run(configuration: Configuration, steps: int) -> None:
    """Run a configuration and store the result in it."""
    c = configuration
    answer = run_task({"backend": c.backend, "steps": steps, "arguments": c.arguments}, c.environment)
    c.problem = answer.get("unusable", answer.get("problem", ""))
    c.skipped = answer.get("skipped", False)
    c.exact, c.fast, c.seconds = answer.get("exact", ""), answer.get("fast", ""), answer.get("seconds", 0.0)


def row(configuration: Configuration) -> str:
    """A line of the table."""
    c = configuration
    result = ("NOT RUN: " * c.skipped + c.problem) or f"{c.exact[:SHOWN]}  {c.fast[:SHOWN]}  {c.seconds:5.1f} s"
    return f"{c.backend:<8} {c.setting:<46} {result}".rstrip()


def verdict(made: list[Configuration]) -> tuple[list[str], int]:
    """The last lines, and the exit status."""
    ran = [c for c in made if c.exact]
    exact, fast = Counter(c.exact for c in ran), Counter(c.fast for c in ran)
    usual = exact.most_common(1)[0][0] if exact else ""
    lines = [
        f"odd: {c.backend} {c.setting}: {c.exact[:SHOWN]}, most have {usual[:SHOWN]}" for c in ran if c.exact != usual
    ]
    lines += [f"failed: {c.backend} {c.setting}: {c.problem}" for c in made if c.problem and not c.skipped]
    lines.append(
        f"exact_matrix: {len(ran)} configurations, {len(exact)} {'hash' if len(exact) == 1 else 'hashes'} in exact "
        f"numerics, {len(fast)} in fast numerics"
    )
    return lines, int(len(lines) > 1 or len(exact) != 1)


def step_count(text: str) -> int:
    """A number of steps."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


# The names in `xpnn.backends.registry`, which this process does not import.
BACKENDS = ("numpy", "cupy", "torch", "strict", "auto")


def backend_names(text: str) -> list[str]:
    """Backends, separated by commas."""
    if not (found := [name for name in text.split(",") if name]):
        raise argparse.ArgumentTypeError("must name a backend")
    for name in found:
        if name.partition(":")[0] not in BACKENDS:
            raise argparse.ArgumentTypeError(f"unknown backend {name!r}; the backends are {', '.join(BACKENDS)}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run all configurations; returns the exit status."""
    process.prepare()
    made: list[Configuration] = []
    try:
        with process.terminated():
            return _run_all(arguments, made)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt as error:
        lines, _ = verdict(made)
        process.print_error(f"exact_matrix: {str(error) or 'interrupted'} after {len(made)} runs; {lines[-1]}")
        return process.status_of(error)
    finally:
        process.silence()


def _run_all(arguments: list[str] | None, made: list[Configuration]) -> int:
    parser = Parser(
        prog="exact_matrix",
        description="Check that exact numerics has the same bits under all settings here.",
    )
    parser.add_argument(
        "--backends", default="numpy,torch,strict", type=backend_names, help="backends, with commas between"
    )
    parser.add_argument(
        "--steps",
        default=50,
        type=step_count,
        help="steps of a training, half by each optimizer, in epochs of 5",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file")
    options = parser.parse_args(arguments)
    try:
        environment.check()
    except ValueError as error:
        parser.error(str(error))
    if options.json is not None:
        try:
            if options.json.is_dir() or not options.json.parent.is_dir():
                parser.error(f"--json {options.json}: name a file in an existing folder")
            if options.json.is_file() or not options.json.exists():
                process.require_writable(options.json.parent)
        except OSError as error:
            parser.error(f"--json {options.json}: no file can be made there ({error.strerror})")
    print(f"{'backend':<8} {'setting':<46} {'exact':<{SHOWN}}  {'fast':<{SHOWN}}  seconds")
    for backend in options.backends:
        answer = run_task({"backend": backend}, {})
        if "dispatched" not in answer:
            reason = answer.get("unusable", answer.get("problem", "no answer"))
            made.append(Configuration(backend, "can't be used", problem=reason, skipped="unusable" in answer))
            print(row(made[-1]), flush=True)
            continue
        for configuration in configurations(backend, answer["dispatched"]):
            run(configuration, options.steps)
            made.append(configuration)
            print(row(configuration), flush=True)
    lines, status = verdict(made)
    print("\n".join(lines), flush=True)
    if options.json is not None:
        about = {"python": platform.python_version(), "system": platform.platform(), "processor": processor_name()}
        report = {"machine": about, "steps": options.steps, "configurations": [asdict(c) for c in made]}
        try:
            write_whole(options.json, json.dumps(report, indent=1) + "\n")
        except OSError as error:
            process.print_error(f"exact_matrix: {options.json} could not be written: {error.strerror}")
            return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
