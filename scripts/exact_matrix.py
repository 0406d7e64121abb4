"""Exact numerics in every environment this machine has: ``python scripts/exact_matrix.py``.

Trains one small net, with Adam and with SGD, in a process of its own under each setting that changes how libraries
compute: threads, the kernels of OpenBLAS, NumPy, PyTorch and MKL, flushing of subnormal numbers, a batch in parts.
Prints for each the hash of all that the run leaves, in exact numerics and, as a contrast, in fast ones; then::

    exact_matrix: 31 configurations, 1 hash in exact numerics, 10 in fast numerics

Exit status 0 for one hash in exact numerics; 1 for more, naming the odd ones, and where a run failed or none could be
made; 2 for a bad call. Settings that this processor does not know, and backends that can't be used, are listed and
count for nothing.

Uses the standard library alone, and `xpnn` as it is installed for this Python.
"""

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from ..cli.standalone import arguments as command_line
    from ..cli.standalone import process
    from ..cli.standalone.children import die_with_parent
else:
    # Run as a file, perhaps where `xpnn` is not installed.
    sys.path.append(str(Path(__file__).resolve().parents[1] / "cli"))
    from standalone import arguments as command_line
    from standalone import process
    from standalone.children import die_with_parent

SECONDS = 120.0  # for one run, which takes a few
SHOWN = 12  # digits of a hash in the table
BATCH, BATCHES = 16, 5
CORES = ("Haswell", "SkylakeX", "Zen", "Nehalem", "Sandybridge")


@dataclass
class Configuration:
    """A setting, and what became of the run under it."""

    backend: str
    setting: str
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    exact: str = ""
    fast: str = ""
    seconds: float = 0.0
    problem: str = ""
    skipped: bool = False


def trained(
    backend: str, numerics: str, steps: int, *, shards: int = 1, flush_denormal: bool = False, seed: int = 1
) -> str:
    """SHA-256 of losses, weights, statistics and optimizer states after so many steps, half with each optimizer."""
    import hashlib

    import xpnn as nn

    b = nn.get_backend(backend, numerics=numerics)
    if flush_denormal:
        import torch

        torch.set_flush_denormal(True)
    numbers = nn.random.Generator(seed)
    x = numbers.fold_in("x").normal((BATCH * BATCHES, 2, 8, 8), backend="numpy", dtype="float32")
    y = numbers.fold_in("y").permutation(BATCH * BATCHES) % 5
    digest = hashlib.sha256()
    for teach in (lambda model: nn.Adam(model, lr=0.01), lambda model: nn.SGD(model, lr=0.05, momentum=0.9)):
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Dense(128, 5),
            backend=b,
            seed=seed,
        )
        taught = teach(model)
        epochs = -(-steps // (2 * BATCHES))
        history = nn.fit(
            model, (x, y), optimizer=taught, epochs=epochs, batch_size=BATCH, shards=shards, progress=False
        )
        arrays = dict(model.state_dict())
        for name, state in taught.state_dict()["state"].items():
            arrays |= {f"{name}/{key}": value for key, value in state.items() if hasattr(value, "dtype")}
        for name, array in sorted(arrays.items()):
            digest.update(name.encode() + b.to_numpy(array).tobytes())
        digest.update(repr(history["train_loss"]).encode())
    return digest.hexdigest()


def child(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a process of its own does: train in both numerics, or tell what can be tried here."""
    import xpnn as nn

    backend = task["backend"]
    try:
        nn.get_backend(backend, numerics="exact")
    except (nn.BackendUnavailable, ValueError) as error:
        return {"unusable": str(error)}
    if "steps" not in task:
        # NumPy tells its dispatch nowhere else but in print.
        core = importlib.import_module("numpy._core._multiarray_umath")
        enabled = core.__cpu_features__
        return {"dispatched": [name for name in core.__cpu_dispatch__ if enabled.get(name)]}
    started = time.perf_counter()
    hashes = {
        numerics: trained(backend, numerics, task["steps"], **task["arguments"]) for numerics in ("exact", "fast")
    }
    return {**hashes, "seconds": time.perf_counter() - started}


def ask(task: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """A child's answer, or the ``problem`` that kept it from giving one."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps({**task, "parent": os.getpid()})]
    kept = {name: text for name, text in os.environ.items() if name not in ("XPNN_BACKEND", "XPNN_NUMERICS")}
    try:
        done = subprocess.run(
            command, env={**kept, **environment}, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not done after {SECONDS:.0f} s"}
    if done.returncode == -signal.SIGILL:
        return {"skipped": True, "problem": "not on this processor"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        told = done.stderr.strip().splitlines() or ["no word"]
        return {"problem": f"failed, exit {done.returncode}: {told[-1]}"}
    return answer


def threads(count: int) -> dict[str, str]:
    """Of every library that has some."""
    return {f"{library}_NUM_THREADS": str(count) for library in ("OPENBLAS", "OMP", "MKL")}


def configurations(backend: str, dispatched: list[str]) -> Iterator[Configuration]:
    """All settings for a backend, the usual one first; ``dispatched`` names what NumPy can do without."""
    # With more threads than a busy machine has cores free, PyTorch takes ten times as long: one is enough for the rest.
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
    # Each level builds on those before it, so it goes with all that come after.
    for kept in range(len(dispatched)):
        without = " ".join(dispatched[kept:])
        yield Configuration(backend, f"NumPy without {without}", {**one, "NPY_DISABLE_CPU_FEATURES": without})


def run(configuration: Configuration, steps: int) -> None:
    """Fill in what the run gives."""
    c = configuration
    answer = ask({"backend": c.backend, "steps": steps, "arguments": c.arguments}, c.environment)
    c.problem = answer.get("unusable", answer.get("problem", ""))
    c.skipped = answer.get("skipped", False)
    c.exact, c.fast, c.seconds = answer.get("exact", ""), answer.get("fast", ""), answer.get("seconds", 0.0)


def row(configuration: Configuration) -> str:
    """A line of the table."""
    c = configuration
    result = ("NOT RUN: " * c.skipped + c.problem) or f"{c.exact[:SHOWN]}  {c.fast[:SHOWN]}  {c.seconds:5.1f} s"
    return f"{c.backend:<8} {c.setting:<46} {result}".rstrip()


def verdict(made: list[Configuration]) -> tuple[list[str], int]:
    """Last lines, and the exit status."""
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


def at_least_one(text: str) -> int:
    """A number of steps."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes an integer >= 1, got {text!r}")
    return int(text)


# Of `xpnn.backends.registry`, which this process does not import.
BACKENDS = ("numpy", "cupy", "torch", "strict", "auto")


def names(text: str) -> list[str]:
    """Backends, separated by commas."""
    if not (found := [name for name in text.split(",") if name]):
        raise argparse.ArgumentTypeError("names no backend")
    for name in found:
        if name.partition(":")[0] not in BACKENDS:
            raise argparse.ArgumentTypeError(f"unknown backend {name!r}; the backends are {', '.join(BACKENDS)}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run all configurations; 1 if exact numerics give more than one hash, 2 for a bad call."""
    process.prepare()
    made: list[Configuration] = []
    try:
        with process.terminated():
            return _run_all(arguments, made)
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt as error:
        lines, _ = verdict(made)
        process.tell(f"exact_matrix: {str(error) or 'interrupted'} after {len(made)} runs; {lines[-1]}")
        return process.status_of(error)
    finally:
        process.silence()


def _run_all(arguments: list[str] | None, made: list[Configuration]) -> int:
    parser = command_line.Parser(
        prog="exact_matrix", description="One hash in every environment; see the top of this file."
    )
    parser.add_argument("--backends", default="numpy,torch,strict", type=names, help="names, separated by commas")
    parser.add_argument(
        "--steps", default=50, type=at_least_one, help="half of them with each optimizer, in whole epochs of 5"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        task = json.loads(options.child)
        die_with_parent(task["parent"])
        print(json.dumps(child(task)))
        return 0
    try:
        process.check_environment()
    except ValueError as error:
        parser.error(str(error))
    if options.json is not None:
        try:
            if options.json.is_dir() or not options.json.parent.is_dir():
                parser.error(f"--json {options.json}: name a file in a folder that is there")
            if options.json.is_file() or not options.json.exists():
                process.require_writable(options.json.parent)
        except OSError as error:
            parser.error(f"--json {options.json}: no file can be made there ({error.strerror})")
    print(f"{'backend':<8} {'setting':<46} {'exact':<{SHOWN}}  {'fast':<{SHOWN}}  seconds")
    for backend in options.backends:
        found = ask({"backend": backend}, {})
        if "dispatched" not in found:
            reason = found.get("unusable", found.get("problem", "no answer"))
            made.append(Configuration(backend, "can't be used", problem=reason, skipped="unusable" in found))
            print(row(made[-1]), flush=True)
            continue
        for configuration in configurations(backend, found["dispatched"]):
            run(configuration, options.steps)
            made.append(configuration)
            print(row(configuration), flush=True)
    lines, status = verdict(made)
    print("\n".join(lines), flush=True)
    if options.json is not None:
        about = {"python": platform.python_version(), "system": platform.platform(), "processor": processor()}
        told = {"machine": about, "steps": options.steps, "configurations": [asdict(c) for c in made]}
        try:
            process.put(options.json, json.dumps(told, indent=1) + "\n")
        except OSError as error:
            process.tell(f"exact_matrix: {options.json} could not be written: {error.strerror}")
            return 1
    return status


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    sys.exit(main())
