"""Time two or more sides in turn, in one process, while other processes leave the machine idle.

All benchmarks that compare are timed here.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .other_processes import LIMIT, Watch

# Seconds between samples. Worker threads of one library spin for tens of milliseconds and would slow the other side.
REST = 0.16
# Seconds of a sample, which repeats its call that long.
SAMPLE = 0.1
# A sample lasts at least this share of `SAMPLE`.
SHARE = 0.62
# Seconds of calls before a sample, which are not timed: after a rest a core is slow at first.
WARM = 0.05
# The largest number of rounds, as a multiple of the requested one: disturbed samples are repeated.
PATIENCE = 3


def nothing() -> None:
    """The wait of a call that returns when it is done."""


@dataclass(frozen=True)
class Side:
    """A call that is timed, and the call that waits until a device has done it."""

    call: Callable[[], object]
    wait: Callable[[], object] = nothing


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a call of each side, over ``samples`` samples.

    ``discarded`` is the number of samples that were repeated because other processes disturbed them. ``disturbed`` is
    True if some of these had to be used, None if the system does not report the load of other processes. ``note`` is
    text for the user.
    """

    medians: dict[str, float]
    samples: int
    discarded: int
    disturbed: bool | None
    note: str = ""


def measure(
    sides: Mapping[str, Side], rounds: int, watch: Watch, patience: float = 20.0, rest: float | None = None
) -> Times:
    """Time all sides in turn: ``rounds`` undisturbed samples of each, or disturbed ones after `PATIENCE` times as many.

    Parameters
    ----------
    sides : mapping of str to Side
        Each side is called a few times before it is timed.
    rounds : int
        Samples of each side.
    watch : Watch
    patience : float
        Seconds to wait for an idle machine before the first sample.
    rest : float, optional
        Seconds before each sample, `REST` unless given.
    """
    rest = REST if rest is None else rest
    note = watch.wait_until_quiet(patience)
    repeats = {name: _repeats(side, watch, rest) for name, side in sides.items()}
    clean: dict[str, list[float]] = {name: [] for name in sides}
    bad: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    load_known = True
    for _ in range(PATIENCE * rounds):
        for name, side in sides.items():
            milliseconds, foreign = _sample(side, repeats[name], watch, rest)
            load_known = load_known and foreign is not None
            if foreign is None or foreign < LIMIT:
                clean[name].append(milliseconds)
            else:
                bad[name].append((foreign, milliseconds))
        if min(map(len, clean.values())) >= rounds:
            break
    used, discarded, disturbed = {}, 0, False
    for name in sides:
        lacking = max(0, rounds - len(clean[name]))
        least = [milliseconds for _, milliseconds in sorted(bad[name])[:lacking]]
        used[name] = clean[name] + least
        disturbed = disturbed or bool(least)
        discarded += len(bad[name]) - len(least)
    medians = {name: statistics.median(values) for name, values in used.items()}
    known = disturbed if load_known or disturbed else None
    return Times(medians, min(map(len, used.values())), discarded, known, note)


def disturbance(disturbed: bool | None) -> str:
    """Text to append to times if some samples were disturbed."""
    return "; NOT MEASURED: disturbed by other processes, these times are rough" if disturbed else ""


def _repeats(side: Side, watch: Watch, rest: float) -> int:
    """The number of calls in a sample; the first calls, which load and plan, are not timed."""
    watch.sleep(rest)
    for _ in range(2):
        side.call()
    side.wait()
    seconds, calls = 0.0, 1
    for _ in range(3):
        started = watch.now()
        for _ in range(calls):
            side.call()
        side.wait()
        seconds = max((watch.now() - started) / calls, 1e-7)
        if seconds * calls > 0.2 * SAMPLE:
            break
        calls = max(1, round(0.3 * SAMPLE / seconds))
    return max(1, round(SAMPLE / seconds))


def _sample(side: Side, repeats: int, watch: Watch, rest: float) -> tuple[float, float | None]:
    """Milliseconds of a call, and the share of the cores that other processes used meanwhile."""
    watch.sleep(rest)
    started = watch.now()
    while repeats > 1 and watch.now() - started < WARM:
        side.call()
        side.wait()
    load, started = watch.load(), watch.now()
    calls, elapsed = 0, 0.0
    # Calls may be faster now than when `_repeats` timed them.
    while not calls or elapsed < SHARE * SAMPLE:
        for _ in range(repeats):
            side.call()
        side.wait()
        calls += repeats
        elapsed = watch.now() - started
    return elapsed / calls * 1e3, watch.foreign(load)
