"""Show which backends work on this machine, and why the others do not."""

import argparse
import platform
import subprocess
import sys

import numpy as np

from .. import __version__
from ..backends import get_backend, survey
from ..backends.registry import VARIABLE, from_environment
from ..common.cores import available_cores
from ..common.terminal import columns, say, table
from ..distributed import mpi, nccl
from .backend_option import open_backend
from .errors import preparing

#: Seconds in which MPI has to start.
SECONDS = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """There are no options."""


def run(options: argparse.Namespace) -> None:
    """Print versions, the table of backends, and which one is chosen by default."""
    with preparing():
        default, auto = open_backend(None, default="numpy"), get_backend("auto")
    say(
        f"xpnn {__version__}, NumPy {np.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {available_cores()} cores"
    )
    with preparing():
        rows = survey()
    cells = [(row.name, "yes" if row.usable else "no", row.version, row.device, row.note) for row in rows]
    print(table(("backend", "usable", "version", "device", "notes"), cells, columns(), words=(2, 4)))
    source = f"{VARIABLE}={spec}" if (spec := from_environment()) else "no setting"
    say(f'default: {default.spec} ({source}); "auto": {auto.spec}')
    say(f"several processes: MPI: {_mpi()}; NCCL: {nccl.missing() or 'usable'}")


def _mpi() -> str:
    """The MPI library, which is started in a process of its own, because it may end that; or why there is none."""
    if not mpi.is_installed():
        return f"mpi4py is not installed: {mpi.INSTALL}"
    program = f"from {mpi.__name__} import description; print('MPI:', description())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"does not start within {SECONDS} s"
    found = [line.removeprefix("MPI: ") for line in done.stdout.splitlines() if line.startswith("MPI: ")]
    errors = done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"]
    return found[0] if found else errors[-1]
