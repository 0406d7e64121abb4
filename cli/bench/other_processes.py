"""The load that other processes put on the cores of this one, on Linux.

Under such a load the threads of a BLAS wait for each other and take many times as long, so a sample is worthless.
``/proc/stat`` counts the busy time of each core; what this process did not use itself, others used.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

# A larger share of the cores' time used by others disturbs a sample.
LIMIT = 0.1
# Seconds; the counters tick every 10 ms, so they are too coarse for less.
SHORTEST = 0.06
STAT = Path("/proc/stat")
# Columns after the core's name: user, nice, system, irq, softirq and steal; guests are counted in user.
BUSY = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True)
class Load:
    """Counters in seconds: the clock, the busy time of all cores, and the part of it used by this process."""

    wall: float
    busy: float
    own: float


class Watch:
    """A clock that also reads the load of other processes."""

    def __init__(self) -> None:
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self._names = {f"cpu{i}" for i in usable}
        self._ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def load(self) -> Load | None:
        """The counters now; None if the system has none."""
        try:
            lines = STAT.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        columns = [line.split()[1:] for line in lines if line.partition(" ")[0] in self._names]
        busy = sum(int(core[i]) for core in columns for i in BUSY if i < len(core))
        if not columns:
            return None
        return Load(self.now(), busy * (1.0 / self._ticks), time.process_time())

    def foreign(self, since: Load | None) -> float | None:
        """The share of the cores that other processes used since then; None if unknown, as for less than `SHORTEST`."""
        now = self.load()
        if since is None or now is None or now.wall - since.wall < SHORTEST:
            return None
        used = (now.busy - since.busy) - (now.own - since.own)
        return max(0.0, used) / ((now.wall - since.wall) * len(self._names))

    def wait_until_quiet(self, seconds: float, window: float = 0.25) -> str:
        """Wait until other processes leave the cores idle; a note if they don't within that time, else empty."""
        end = self.now() + seconds
        while True:
            since = self.load()
            if since is None:
                return "can't tell whether the machine is idle: it has no /proc/stat"
            self.sleep(window)
            share = self.foreign(since)
            if share is None or share < LIMIT:
                return ""
            if self.now() >= end:
                return f"the machine is not idle after {seconds:g} s: other processes use {share:.0%} of the cores"
