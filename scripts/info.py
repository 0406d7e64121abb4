"""Show which backends work on this machine, and why the others don't."""

import argparse
import os
import platform

import numpy as np

from .. import __version__
from ..backends import get_backend, survey
from ..backends.registry import VARIABLE, from_environment
from .backend_option import open_backend
from .errors import preparing


def configure(parser: argparse.ArgumentParser) -> None:
    """Takes nothing."""


def run(options: argparse.Namespace) -> None:
    """Print versions, the table of backends, and which one is chosen by default."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    with preparing():
        default, auto = open_backend(None, default="numpy"), get_backend("auto")
    console = Console(highlight=False, markup=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    console.print(
        f"xpnn {__version__}, NumPy {np.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {cores} cores"
    )
    table = Table("backend", "usable", "version", "device")
    table.add_column("notes", overflow="fold")
    with preparing():
        rows = survey()
    for row in rows:
        cells = (row.name, "yes" if row.usable else "no", row.version, row.device, row.note)
        table.add_row(*map(Text, cells))
    console.print(table)
    source = f"{VARIABLE}={spec}" if (spec := from_environment()) else "no setting"
    console.print(f'default: {default.spec} ({source}); "auto": {auto.spec}')
