"""Groups of parameters: each has settings of its own, such as its learning rate.

An optimizer has one group, or those that it is given as a list of dicts, as in PyTorch. A group's settings are those
that it names, and the optimizer's arguments for the others.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, TypeAlias

from ...common import checks
from ...layers.core.parameter import Parameter
from .parameters import Trainable, by_name, free_name, listed, once, trainable

#: What an optimizer is given: parameters, or dicts with these under ``"params"`` and with settings.
Grouped: TypeAlias = Trainable | Iterable[Mapping[str, Any]]


class ParameterGroup(dict[str, Any]):
    """A group of an optimizer: its parameters as a list under ``"params"``, and its settings by their names.

    A setting may be set at any time, ``group["lr"] = 0.1``; parameters are added by `Optimizer.add_param_group`.

    Attributes
    ----------
    named : dict of str to Parameter
        The parameters by the names that they have in the optimizer.
    pending : set of str
        Settings that the user gave to this group, and that the optimizer's own values do not replace when it is made.

    Raises
    ------
    ValueError
        When something is set that is no setting, or ``"params"``.
    """

    #: None while an object is copied.
    _settings: frozenset[str] | None = None
    now: SimpleNamespace | None = None

    def __init__(
        self,
        named: Mapping[str, Parameter],
        given: Mapping[str, Any],
        settings: Iterable[str],
        constants: Mapping[str, Any],
    ) -> None:
        super().__init__(params=list(named.values()), **given)
        # The settings as attributes, and those of the rule's class that are set nowhere.
        self.now = SimpleNamespace(**{**constants, **given})
        self.named, self.pending = dict(named), set(given)
        self._settings = frozenset(settings)

    def __setitem__(self, name: str, value: Any) -> None:
        if self._settings is not None:
            if name == "params" and name in self:
                raise ValueError("params of a group can't be set; add parameters by optimizer.add_param_group")
            if name not in {"params", "name", *self._settings}:
                raise ValueError(f"{_unknown(name, self._settings)}")
        # A rate that is a float64 of NumPy would make float64 of float32 values.
        super().__setitem__(name, checks.plain(value))
        if self.now is not None:
            setattr(self.now, name, self[name])

    def update(self, *others: Any, **more: Any) -> None:
        """Set several settings."""
        for name, value in dict(*others, **more).items():
            self[name] = value


def split(parameters: Grouped, owner: str, first: int = 0) -> Iterator[tuple[dict[str, Parameter], dict[str, Any]]]:
    """For each group its parameters by name, and the settings that it was given.

    Parameters without names are numbered through all groups, from ``first`` on.

    Raises
    ------
    ValueError
        If there are no parameters, or something else than groups among groups; the message begins with ``owner``.
    """
    # Iterated over once, because it may be a generator.
    given = listed(parameters)
    if not isinstance(given, list) or not any(isinstance(each, Mapping) for each in given):
        yield trainable(given, owner), {}
        return
    found = list(_groups(given, owner, first))
    if not first and not any(named for named, _ in found):
        raise ValueError(f"{owner}: there is nothing to train, the groups have no parameters")
    yield from found


def _groups(given: Iterable[Any], owner: str, numbered: int) -> Iterator[tuple[dict[str, Parameter], dict[str, Any]]]:
    for place, group in enumerate(given):
        what = f"{owner}: group {place}"
        if not isinstance(group, Mapping) or "params" not in group:
            raise ValueError(
                f"{what} must be a dict with parameters under 'params', perhaps with settings, such as "
                f"{{'params': layer.named_parameters(), 'lr': 0.01}}; got {checks.shown(group)}"
            )
        params = group["params"]
        named = by_name([params] if isinstance(params, Parameter) else params, numbered)
        if named is None:
            raise ValueError(
                f"{what}: params must be a layer, names with Parameters or an iterable of Parameters, got "
                f"{checks.shown(params)}"
            )
        numbered += len(named)
        yield once(named), {name: value for name, value in group.items() if name != "params"}


def distinct(
    named: Mapping[str, Parameter], groups: Iterable[ParameterGroup], place: int, owner: str
) -> dict[str, Parameter]:
    """A new group's parameters by names that no group before has.

    Raises
    ------
    ValueError
        If another group has one of them.
    """
    others = {parameter: (i, name) for i, group in enumerate(groups) for name, parameter in group.named.items()}
    taken = {name for _, name in others.values()}
    found: dict[str, Parameter] = {}
    for name, parameter in named.items():
        if parameter in others:
            before, other = others[parameter]
            also = "" if other == name else f" (there {other})"
            raise ValueError(f"{owner}: parameter {name} of group {place} is in group {before} too{also}; name it once")
        found[free_name(name, dict.fromkeys((*taken, *found)))] = parameter
    return found


def require_known(given: Mapping[str, Any], settings: Iterable[str], owner: str, place: int) -> None:
    """Raise `ValueError` for a setting that the optimizer does not have; ``name`` is any text."""
    for name in given:
        if name != "name" and name not in settings:
            raise ValueError(f"{owner}: group {place}: {_unknown(name, settings)}")


def _unknown(name: str, settings: Iterable[str]) -> str:
    known = sorted(set(settings))
    close = get_close_matches(name, known, 1)
    return f"{name!r} is no setting, these are: {', '.join(known)}" + (f"; did you mean {close[0]!r}?" if close else "")
