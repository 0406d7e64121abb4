"""What other processes take of the cores that this one may use, as far as Linux tells.

Under foreign load two threads of a BLAS that wait for each other take many times as long, so that a sample says
nothing about the code. ``/proc/stat`` counts the busy time of each core; what is not this process's own is others'.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

# Of the cores' time: more than that by others disturbs.
LIMIT = 0.1
# Seconds.
SHORTEST = 0.06
STAT = Path("/proc/stat")
# user, nice, system, irq, softirq and steal, as columns behind the core's name; guests are in user already.
BUSY = (0, 1, 2, 5, 6, 7)


@dataclass(frozen=True)
class Look:
    """Seconds until a moment: on the clock, busy on all cores, and of those this process's own."""

    wall: float
    busy: float
    own: float


class Watch:
    """A clock that also sees what other processes do; tests put another in its place."""

    def __init__(self) -> None:
        usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self._names = {f"cpu{i}" for i in usable}
        self._ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        time.sleep(seconds)

    def look(self) -> Look | None:
        """The counters now; None where the system keeps none."""
        try:
            lines = STAT.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        columns = [line.split()[1:] for line in lines if line.partition(" ")[0] in self._names]
        busy = sum(int(core[i]) for core in columns for i in BUSY if i < len(core))
        if not columns:
            return None
        return Look(self.now(), busy * (1.0 / self._ticks), time.process_time())

    def foreign(self, since: Look | None) -> float | None:
        """The share of the cores that other processes took since then; None where that can't be told.

        The counters go in ticks of 10 ms: of less than `SHORTEST` they tell nothing.
        """
        now = self.look()
        if since is None or now is None or now.wall - since.wall < SHORTEST:
            return None
        taken = (now.busy - since.busy) - (now.own - since.own)
        return max(0.0, taken) / ((now.wall - since.wall) * len(self._names))

    def wait_until_quiet(self, seconds: float, window: float = 0.25) -> str:
        """Wait, so long at most, until others leave the cores alone; what to say if they don't, else empty."""
        end = self.now() + seconds
        while True:
            since = self.look()
            if since is None:
                return "can't tell whether the machine is quiet: it has no /proc/stat"
            self.sleep(window)
            share = self.foreign(since)
            if share is None or share < LIMIT:
                return ""
            if self.now() >= end:
                return f"the machine is not quiet after {seconds:g} s: other processes take {share:.0%} of the cores"
