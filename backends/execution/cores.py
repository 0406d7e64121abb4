"""The number of threads that compute.

``XPNN_NUM_THREADS`` sets it, the calling thread included. Otherwise it is the number of cores that this process may
use, by its affinity and the quota of its control group.
"""

import os
from functools import cache
from math import ceil
from pathlib import Path

from ...common import environment

VARIABLE = environment.NUM_THREADS


def thread_count() -> int:
    """The number of threads that compute.

    Raises
    ------
    ValueError
        If ``XPNN_NUM_THREADS`` is set to anything but an integer of at least 1.
    """
    return _given(os.environ.get(VARIABLE, ""))


@cache
def _given(text: str) -> int:
    # Cached by the text, because every layer calls this.
    given = environment.value(VARIABLE) if text else None
    return available_cores() if given is None else int(given)


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, by affinity and by the quota of its control group (version 2 or 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (
        ("sys/fs/cgroup/cpu.max",),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            quota, period = " ".join((root / file).read_text(encoding="ascii") for file in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            cores = min(cores, max(1, ceil(int(quota) / int(period))))
    return cores
