"""Checks that ``scripts/gpu_check.py`` runs in child processes: ``python -m xpnn.scripts.gpu.run_checks KIND BACKEND``.

The result of each check is appended to the file ``--lines`` at once, as a row of JSON, so that it is kept if the
process is stopped or dies later. A row has a ``name``, whether the check ``passed``, the ``problem`` if not, and other
results in ``told``; the first row may have the ``total`` number of rows.

- ``parity``: cases of the catalogue against NumPy and float64, all or some.
- ``golden``: training runs in exact numerics whose bits are committed.
- ``device``: functions of a device: a compiled step, a pinned upload, the caller's stream, a memory limit.
- ``nccl``: NCCL with one rank.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import Backend, Generator, get_backend
from ...backends.errors import first_line
from ...cli.argument_types import at_least
from ...cli.errors import UsageError
from ...cli.output_files import append
from ...cli.parity.case_selection import choose, split
from ...cli.parity.json_report import case_report
from ...cli.standalone.arguments import Parser
from ...layers import CrossEntropy, Dense
from ...layers.models import lenet5
from ...testing.cases import Case
from ...testing.golden_runs import GOLDEN, golden_run
from ...testing.outcomes import Outcome
from ...testing.parity import Parity
from ...training.optimizers import SGD
from .nccl_checks import nccl_rows

# Neighbouring cases go to one process, because they share kernels, which are then compiled once.
NEIGHBOURS = 8
IMAGE = (1, 28, 28)
# Steps of the compiled net: two plain, one recorded, the others replayed.
STEPS = 6
# The largest relative error of losses and weights: a compiled step may sum products in another order.
BOUND = 1e-4
UPLOADED = 1 << 26
MEBIBYTE = 1 << 20

Row = dict[str, Any]


def parity_rows(b: Backend, numerics: str, pattern: str, count: int, part: tuple[int, int]) -> Iterator[Row]:
    """A row for each chosen case of one part of the cases."""
    reference = get_backend("numpy", numerics=numerics)
    chosen, _ = split(choose(pattern), b, reference)
    if count:
        chosen = spread(chosen, count)
    chosen = share(chosen, *part)
    yield {"total": len(chosen)}
    run = Parity(b, reference)
    for case in chosen:
        yield parity_row(run.run(case))


def parity_row(outcome: Outcome) -> Row:
    """All figures of a case without its histograms."""
    row = case_report(outcome)
    for array in row["arrays"]:
        for against in ("truth", "reference"):
            array[against].pop("histogram", None)
    return row


def spread(chosen: list[Case], count: int) -> list[Case]:
    """``count`` cases: the first of each operation, then the second of each, and so on."""
    by_operation: dict[str, list[Case]] = {}
    for case in chosen:
        by_operation.setdefault(case.op, []).append(case)
    in_turn = chain.from_iterable(zip_longest(*by_operation.values()))
    wanted = {case.name for case in [case for case in in_turn if case is not None][:count]}
    return [case for case in chosen if case.name in wanted]


def share(chosen: list[Case], index: int, parts: int) -> list[Case]:
    """The cases of one of several processes that share them."""
    blocks = [chosen[start : start + NEIGHBOURS] for start in range(0, len(chosen), NEIGHBOURS)]
    return list(chain.from_iterable(blocks[index::parts]))


def golden_rows(b: Backend, part: tuple[int, int]) -> Iterator[Row]:
    """A row for each golden run of one part of them."""
    index, parts = part
    chosen = dict(list(GOLDEN.items())[index::parts])
    yield {"total": len(chosen)}
    for name, expected in chosen.items():
        started = time.perf_counter()
        found = golden_run(b, name)
        seconds = time.perf_counter() - started
        told = f"200 steps in {seconds:.1f} s, SHA-256 {found[:16]}..."
        problem = "" if found == expected else f"SHA-256 is {found}, committed is {expected}"
        yield {"name": f"golden {name}", "passed": not problem, "problem": problem, "told": told, "seconds": seconds}


def device_rows(b: Backend) -> Iterator[Row]:
    """A row for each check of the device; one that raises has failed."""
    checks: dict[str, Callable[[Backend], str]] = {}
    if b.spec.startswith("cupy"):
        checks = {"captured step": captured, "captured step, exact": captured_exact, "pinned upload": uploaded}
        checks |= {"caller's stream": streamed, "memory limit": limited}
    checks["memory"] = memory_in_use
    yield {"total": len(checks)}
    for name, check in checks.items():
        row: Row = {"name": name, "passed": True, "problem": ""}
        try:
            row["told"] = check(b)
        except Exception as error:
            # Errors of a GPU are of many kinds.
            row |= {"passed": False, "problem": f"{type(error).__name__}: {first_line(error)}"}
        yield row


def captured(b: Backend) -> str:
    """Check that a compiled training step has the results of a plain one."""
    (step, arrays), (_, plain) = _steps(b, True), _steps(b, False)
    counts = f"recorded {getattr(step, 'recorded', 0)}, replayed {getattr(step, 'replayed', 0)}"
    if b.spec.startswith("cupy") and not getattr(step, "replayed", 0):
        raise ArithmeticError(f"nothing was replayed: {counts}")
    error = max(_relative(a, p) for a, p in zip(arrays, plain, strict=True))
    same = all(a.tobytes() == p.tobytes() for a, p in zip(arrays, plain, strict=True))
    if not error <= BOUND:
        raise ArithmeticError(f"weights and losses are {error:.1e} from those of plain steps, {BOUND:g} is allowed")
    if b.numerics == "exact" and not same:
        raise ArithmeticError(f"the bits are not those of plain steps ({error:.1e} away)")
    return f"{counts}; " + ("the bits of plain steps" if same else f"{error:.1e} from plain steps")


def captured_exact(b: Backend) -> str:
    """Check the same in exact numerics, where the bits must be equal."""
    return captured(get_backend(b, numerics="exact"))


def _steps(b: Backend, compiled: bool) -> tuple[Any, list[np.ndarray[Any, Any]]]:
    """The step, and the losses and weights of a few steps."""
    generator = Generator(0).fold_in("gpu_check")
    x = b.asarray(generator.uniform((16, *IMAGE), backend="numpy"), "float32")
    y = b.asarray(generator.permutation(16) % 10)
    model = lenet5(IMAGE, 10, backend=b, seed=0)
    optimizer, loss = SGD(model, lr=0.05, momentum=0.9), CrossEntropy(backend=b)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        return value

    chosen = b.compile(step, model, optimizer) if compiled else step
    losses = [b.to_numpy(chosen(x, y)) for _ in range(STEPS)]
    return chosen, [np.array(losses), *(b.to_numpy(p.value) for _, p in model.named_parameters())]


def _relative(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    wide = b.astype(np.float64)
    return float(np.linalg.norm(a - wide)) / max(float(np.linalg.norm(wide)), 1e-30)


def uploaded(b: Backend) -> str:
    """Check that uploaded batches arrive complete; returns the speed."""
    uploader = b.uploader()
    hosts = [np.arange(UPLOADED // 4, dtype=np.float32) + start for start in range(3)]
    labels = np.arange(64)
    sent = [uploader.send([host, labels]) for host in hosts]
    for host, each in zip(hosts, sent, strict=True):
        x, y = uploader.receive(each)
        if b.to_numpy(x).tobytes() != host.tobytes() or b.to_numpy(y).tobytes() != labels.tobytes():
            raise ArithmeticError("what arrived is not what was sent")
    b.synchronize()
    seconds = []
    for host in hosts:
        started = time.perf_counter()
        uploader.receive(uploader.send([host]))
        b.synchronize()
        seconds.append(time.perf_counter() - started)
    return (
        f"{UPLOADED >> 20} MiB three times, whole; {UPLOADED / min(seconds) * 1e-9:.1f} GB/s with the copy on the host"
    )


def limited(b: Backend) -> str:
    """Check that the error of a full memory pool is recognised."""
    b.free_memory()
    try:
        b.memory(limit=b.memory()["pool"] + 8 * MEBIBYTE)
        try:
            b.xp.ones(64 * MEBIBYTE // 4, dtype=b.xp.float32, device=b.device)
        except Exception as error:
            if not b.is_out_of_memory(error):
                raise
            return f"8 MiB more, 64 MiB refused: {type(error).__name__}"
        raise ArithmeticError("a limit of 8 MiB let 64 MiB through")
    finally:
        # In CuPy 0 is no limit.
        b.memory(limit=0)


def streamed(b: Backend) -> str:
    """Check that a layer has the same results on the caller's stream as on the default one."""
    import cupy

    layer = Dense(256, 256, backend=b, seed=0)
    x = b.asarray(np.linspace(-1.0, 1.0, 64 * 256, dtype=np.float32).reshape(64, 256))
    usual = b.to_numpy(layer(x))
    b.synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        y = layer(x)
    stream.synchronize()
    error = _relative(b.to_numpy(y), usual)
    if not error <= BOUND:
        raise ArithmeticError(f"{error:.1e} from the result on the default stream")
    return "a dense layer on a non-blocking stream, " + ("same bits" if error == 0.0 else f"{error:.1e} away")


def memory_in_use(b: Backend) -> str:
    """The memory of the device."""
    capacity, used = b.capacity()
    found = b.memory()
    parts = [f"{name} {size / MEBIBYTE:.0f} MiB" for name, size in found.items()]
    return f"{capacity / MEBIBYTE:.0f} MiB, by all {used / MEBIBYTE:.0f}; this process: {', '.join(parts)}"


def _part(text: str) -> tuple[int, int]:
    """``2/4`` as index and number of parts."""
    index, slash, parts = text.partition("/")
    if not (slash and index.isdecimal() and parts.isdecimal() and 1 <= int(index) <= int(parts)):
        raise argparse.ArgumentTypeError(f"must be I/N, the I-th of N parts, got {text!r}")
    return int(index) - 1, int(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; returns 1 if one failed, 2 if they can't run."""
    parser = Parser(prog="run_checks", description="Run checks for gpu_check, which reads the rows.")
    parser.add_argument("kind", choices=("parity", "golden", "device", "nccl"), help="which checks")
    parser.add_argument("backend", help="on which backend")
    parser.add_argument("--numerics", default="fast", choices=("fast", "exact"), help="of the parity cases")
    parser.add_argument("--filter", default="", metavar="RE", help="only parity cases whose name this expression finds")
    parser.add_argument(
        "--count", type=at_least(1), default=0, help="number of parity cases, of every operation; all unless given"
    )
    parser.add_argument(
        "--part", type=_part, default=(0, 1), metavar="I/N", help="the I-th of N parts of the rows; all unless given"
    )
    parser.add_argument("--lines", type=Path, required=True, metavar="FILE", help="append the rows to this file")
    options = parser.parse_args(arguments)
    failed = 0
    try:
        b = get_backend(options.backend, numerics=options.numerics)
        if options.kind == "parity":
            rows = parity_rows(b, options.numerics, options.filter, options.count, options.part)
        else:
            kinds = {"golden": lambda: golden_rows(b, options.part), "device": lambda: device_rows(b)}
            rows = (kinds | {"nccl": lambda: nccl_rows(b)})[options.kind]()
        for row in rows:
            append(options.lines, row)
            failed += row.get("passed") is False
            if row.get("problem"):
                print(f"FAILED {row['name']}: {row['problem']}", flush=True)
    except (UsageError, ValueError, RuntimeError) as error:
        print(f"run_checks: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
