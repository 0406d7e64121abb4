"""Time training steps of several processes beside those of one process with as many threads.

Both sides are started in turn, each in new processes: ``mpiexec`` with a thread for each rank, and one process with a
thread for each of these. A row has the time of one process divided by that of the ranks, which compute the same batches
of the same size together, the share of the step in which rank 0 waited for others, what it exchanged in a step, and its
peak memory. ``--picture`` draws a step of rank 0: when it computed, and when each bucket of gradients was exchanged.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from ...common.files import write_whole
from ...common.terminal import columns, say, table
from ...distributed import mpi
from ..argument_types import at_least, text
from ..errors import NotMeasured, UsageError, preparing
from ..output_files import targets
from .net_steps import NETS
from .timeline_plot import plot_timeline

HEADER = ("net", "batch", "numerics", "ranks", "one / ranks", "waits", "messages", "MB exchanged", "peak MB", "of one")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``xpnn bench distributed``."""
    add = parser.add_argument
    add("--net", nargs="+", default=["lenet5", "resnet18"], choices=NETS, metavar="NET", help=", ".join(NETS))
    add("--ranks", type=at_least(2), default=2, metavar="N", help="processes, and threads of one process")
    add(
        "--numerics", nargs="+", default=["fast"], choices=("fast", "exact"), metavar="NAME", help="fast, exact or both"
    )
    add("--steps", type=at_least(4), default=40, metavar="N", help="steps of each run that are measured")
    add("--rounds", type=at_least(1), default=3, metavar="N", help="runs of each side, in turn")
    add("--json", default=None, type=text, metavar="FILE", help="write all rows there")
    add("--picture", default=None, type=text, metavar="FILE.png", help="draw a step of the first net")


def run(options: argparse.Namespace) -> None:
    """Measure each net; `NotMeasured` if a side does not run."""
    with preparing():
        launcher = _launcher()
        targets({"json": options.json, "picture": options.picture})
    rows: list[dict[str, Any]] = []
    for net in options.net:
        for numerics in options.numerics:
            rows.append(_measured(launcher, net, numerics, options))
            if options.picture and len(rows) == 1:
                picture = plot_timeline(rows[0].pop("timeline"), f"{net}: a step of rank 0 of {options.ranks}")
                Path(options.picture).write_bytes(picture)
            rows[-1].pop("timeline", None)
            if options.json:
                write_whole(Path(options.json), json.dumps(rows, indent=1) + "\n")
    cells = [
        (
            row["net"],
            str(row["batch"]),
            row["numerics"],
            str(row["ranks"]),
            f"{row['ratio']:.2f}",
            f"{row['waits']:.0%}",
            f"{row['messages']:.0f}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['peak_mb']:.0f}",
            f"{row['one_peak_mb']:.0f}",
        )
        for row in rows
    ]
    print(table(HEADER, cells, columns()))
    say(rows[0]["by"])


def _launcher() -> list[str]:
    """The arguments that start ranks."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None or not mpi.is_installed():
        raise UsageError(f"xpnn bench distributed needs mpi4py and mpiexec: {mpi.INSTALL}")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return [found, "--allow-run-as-root", "--oversubscribe"] if "Open MPI" in version else [found]


def _measured(launcher: list[str], net: str, numerics: str, options: argparse.Namespace) -> dict[str, Any]:
    worker = [sys.executable, "-m", f"{__package__}.distributed_steps", net, numerics, str(options.steps)]
    several = [*launcher, "-n", str(options.ranks), *worker]
    ones, ranks = [], []
    for _ in range(options.rounds):
        ones.append(_run(worker, options.ranks))
        ranks.append(_run(several, 1))
    last = ranks[-1]
    return {
        "net": net,
        "batch": NETS[net].batch,
        "numerics": numerics,
        "ranks": options.ranks,
        "ratio": median(each["seconds"] for each in ones) / median(each["seconds"] for each in ranks),
        "waits": median(each["waits"] for each in ranks),
        "messages": last["messages"],
        "bytes": last["bytes"],
        "peak_mb": last["peak_mb"],
        "one_peak_mb": ones[-1]["peak_mb"],
        "seconds": [each["seconds"] for each in ranks],
        "one_seconds": [each["seconds"] for each in ones],
        "by": last["by"],
        "timeline": last["timeline"],
    }


def _run(command: list[str], threads: int) -> dict[str, Any]:
    environment = {**os.environ, "XPNN_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise NotMeasured(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
