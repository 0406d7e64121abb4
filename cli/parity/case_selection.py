"""Which cases of the parity catalogue run: those that ``--filter`` finds, and that the backends can compute."""

import re

from ...backends import Backend
from ...testing.cases import Case, cases, pool_corners
from ..errors import UsageError


def choose(pattern: str, *, modes: bool = False) -> list[Case]:
    """Cases in whose name the expression matches; with ``modes`` also the corner cases of pooling."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"--filter {pattern!r} is not a regular expression: {error}") from error
    known = [*cases(), *(pool_corners() if modes else ())]
    chosen = [case for case in known if wanted.search(case.name)]
    if not chosen:
        raise UsageError(f"--filter {pattern!r} finds none of the {len(known)} cases; xpnn parity --list shows them")
    return chosen


def split(chosen: list[Case], *backends: Backend) -> tuple[list[Case], str]:
    """Cases that the backends can run, and why the others are left out."""
    for b in backends:
        wide = b.numerics == "fast" and b.has("float64")
        kept = [case for case in chosen if wide or case.dtype == "float32"]
        if len(kept) < len(chosen):
            why = "exact numerics stores float32" if b.numerics != "fast" else f"{b.spec} has no float64"
            return kept, f"{len(chosen) - len(kept)} cases in float64: {why}"
    return chosen, ""
