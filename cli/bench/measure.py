"""Two or more sides measured in turn, in one process, while the machine is quiet."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .load import LIMIT, Watch

# Seconds. Worker threads of one library spin on for tens of milliseconds and would slow the other.
REST = 0.16
# Seconds that a sample lasts, of as many calls as that takes.
SAMPLE = 0.1
# Of that, what a sample lasts at least.
SHARE = 0.62
# Seconds of calls before a sample: after a rest a sleeping core takes longer to wake; a steady state is what counts.
WARM = 0.05
# Rounds at most, in those asked for: what was disturbed is measured again.
PATIENCE = 3


def nothing() -> None:
    """There is nothing to wait for."""


@dataclass(frozen=True)
class Side:
    """What is timed, and what waits until a device has done it."""

    call: Callable[[], object]
    wait: Callable[[], object] = nothing


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a call by side, over so many samples each.

    ``discarded`` samples were taken again because other processes disturbed them. ``disturbed`` tells that some had to
    be used all the same; None where the system does not say what others do. ``note`` is for the person who waits.
    """

    medians: dict[str, float]
    samples: int
    discarded: int
    disturbed: bool | None
    note: str = ""


def measure(
    sides: Mapping[str, Side], rounds: int, watch: Watch, patience: float = 20.0, rest: float | None = None
) -> Times:
    """Measure all sides in turn, ``rounds`` undisturbed samples of each, if the machine lets.

    Parameters
    ----------
    sides : mapping of str to Side
        Each is called a few times before it is timed.
    rounds : int
        Samples of each side.
    watch : Watch
    patience : float
        Seconds to wait for a quiet machine before the first sample.
    rest : float, optional
        Seconds before each sample, `REST` unless given.
    """
    rest = REST if rest is None else rest
    note = watch.wait_until_quiet(patience)
    repeats = {name: _repeats(side, watch, rest) for name, side in sides.items()}
    clean: dict[str, list[float]] = {name: [] for name in sides}
    bad: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    told = True
    for _ in range(PATIENCE * rounds):
        for name, side in sides.items():
            milliseconds, foreign = _sample(side, repeats[name], watch, rest)
            told = told and foreign is not None
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
    known = disturbed if told or disturbed else None
    return Times(medians, min(map(len, used.values())), discarded, known, note)


def disturbance(disturbed: bool | None) -> str:
    """What to say behind times of which some were disturbed."""
    return "; NOT MEASURED: disturbed by other processes, these times are rough" if disturbed else ""


def interleave(sides: Mapping[str, Callable[[], object]], rounds: int, patience: float = 0.0) -> dict[str, float]:
    """Median milliseconds of a call of each side; the calls wait for their device themselves."""
    return measure({name: Side(call) for name, call in sides.items()}, rounds, Watch(), patience).medians


def _repeats(side: Side, watch: Watch, rest: float) -> int:
    """Calls in a sample; the first ones, which load and plan, do not count."""
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
    """Milliseconds a call, and the share of the cores that others took meanwhile."""
    watch.sleep(rest)
    started = watch.now()
    while repeats > 1 and watch.now() - started < WARM:
        side.call()
        side.wait()
    look, started = watch.look(), watch.now()
    calls, elapsed = 0, 0.0
    # Calls that were slow when they were counted may be over early.
    while not calls or elapsed < SHARE * SAMPLE:
        for _ in range(repeats):
            side.call()
        side.wait()
        calls += repeats
        elapsed = watch.now() - started
    return elapsed / calls * 1e3, watch.foreign(look)
