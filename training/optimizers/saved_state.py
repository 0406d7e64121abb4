"""Groups of parameters in the saved state of an optimizer, also in one that an earlier version saved."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Settings that earlier versions did not have, with the values that are as they computed.
LATER: dict[str, Any] = {"maximize": False, "amsgrad": False}


def with_later(settings: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Saved settings, with those of `LATER` that the optimizer has and the state lacks."""
    return {**{name: value for name, value in LATER.items() if name in known}, **settings}


def saved_groups(state: Mapping[str, Any], known: Iterable[str]) -> list[tuple[dict[str, Any], list[str]]]:
    """For each group of a saved state its settings, and the names of its parameters."""
    groups = state.get("param_groups")
    if not groups or len(groups) == 1:
        return [(with_later(state["settings"], known), list(state["state"]))]
    return [
        (
            with_later({name: value for name, value in group.items() if name != "params"}, known),
            list(group.get("params", ())),
        )
        for group in groups
    ]


def require_same_parameters(what: str, saved: Sequence[Sequence[str]], own: Sequence[Sequence[str]]) -> None:
    """Raise `ValueError` unless the groups of a saved state have the parameters of this optimizer's groups."""
    if len(saved) != len(own):
        raise ValueError(f"{what} has {_count(len(saved))} of parameters, this optimizer {_count(len(own))}")
    for place, (theirs, ours) in enumerate(zip(saved, own, strict=True)):
        if set(theirs) != set(ours):
            raise ValueError(
                f"{what} has in group {place} the parameters {', '.join(theirs) or 'none'}, this optimizer "
                f"{', '.join(ours) or 'none'}"
            )


def _count(groups: int) -> str:
    return "1 group" if groups == 1 else f"{groups} groups"
