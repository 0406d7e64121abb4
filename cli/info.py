"""Show which backends work on this machine, and why the others do not."""

import argparse
import platform

import numpy as np

from .. import __version__
from ..backends import get_backend, survey
from ..backends.registry import VARIABLE, from_environment
from ..common.cores import available_cores
from ..common.terminal import columns, say, table
from .backend_option import open_backend
from .errors import preparing


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
