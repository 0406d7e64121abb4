"""The name of the machine's processor.

This file needs the standard library only: `scripts/exact_matrix.py` reads it on machines that lack packages of xpnn.
"""

import platform
from pathlib import Path


def processor_name() -> str:
    """The model name that Linux reports, or else what `platform` knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
