"""The number of CPU cores that this process may use.

It is the number in the affinity mask of the process, or less where the quota of its control group allows less CPU time.
Worker threads, image decoding, `xpnn info`, `xpnn bench` and `scripts/gpu_check.py` all use this count.

This file needs the standard library only: `scripts/gpu_check.py` reads it on machines that lack the packages of xpnn.
"""

import os
from math import ceil
from pathlib import Path

# The files with quota and period in microseconds, in control groups of version 2 and of version 1.
_QUOTA_FILES = (
    ("sys/fs/cgroup/cpu.max",),
    ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def available_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use, at least 1.

    Parameters
    ----------
    root : Path
        The folder that holds ``sys/fs/cgroup``. A container sees its own control group there. A quota of 2.5 cores
        counts as 3.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in _QUOTA_FILES:
        try:
            quota, period = " ".join((root / file).read_text(encoding="ascii") for file in files).split()
        except (OSError, ValueError):
            continue
        # A group without a limit has the quota "max" (version 2) or -1 (version 1).
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            cores = min(cores, max(1, ceil(int(quota) / int(period))))
    return cores
