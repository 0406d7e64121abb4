"""Settings of an optimizer, which each of its groups of parameters may have of its own.

A setting is an attribute of the optimizer as well, so that the formulas of a rule read it as ``self.lr``: that of the
group whose parameters are being updated, and otherwise that of the first group.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from ...common import checks
from ...layers.core.parameter import Parameter
from .groups import Grouped, ParameterGroup, distinct, require_known, split

#: A check of a setting: its name and value to the value in one form, as in `xpnn.common.checks`.
Check: TypeAlias = Callable[[str, Any], Any]
#: Settings of all optimizers.
OF_ALL = ("lr", "weight_decay", "maximize")


class Setting(property):
    """The attribute of a setting, which reads it from the group at hand; `GroupSettings.__setattr__` sets it.

    A step reads settings for each parameter: this takes a third of the time of a function that looks into the group.
    """

    def __init__(self, name: str) -> None:
        super().__init__(attrgetter(f"_group.now.{name}"))


class GroupSettings:
    """The part of an optimizer that holds its parameters in groups, and their settings.

    Parameters
    ----------
    parameters
        See `Optimizer`.
    """

    settings: ClassVar[tuple[str, ...]] = OF_ALL
    #: Settings that a rule defines in its class, and perhaps sets nowhere else.
    constants: ClassVar[Mapping[str, Any]] = {}
    limits: ClassVar[Mapping[str, Check]] = {
        "lr": partial(checks.number, above=0),
        "weight_decay": partial(checks.number, least=0),
        "maximize": checks.flag,
    }

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls.settings:
            own = vars(cls).get(name, getattr(cls, name, None))
            if not isinstance(own, Setting):
                cls.constants = cls.constants if own is None else {**cls.constants, name: own}
                setattr(cls, name, Setting(name))

    def __init__(self, parameters: Grouped) -> None:
        #: The values that the constructor was given, for groups that have none of their own.
        self.defaults: dict[str, Any] = {}
        self.param_groups: list[ParameterGroup] = []
        self.parameters: dict[str, Parameter] = {}
        for named, given in split(parameters, type(self).__name__):
            self._append(named, given)
        # The group whose settings are read as attributes.
        self._group = self.param_groups[0]
        for name, value in vars(self).pop("_early", {}).items():
            setattr(self, name, value)

    def _configure(self, **settings: Any) -> None:
        """Check settings by ``limits``, and set them in all groups but those that were given their own."""
        for name, value in settings.items():
            setattr(self, name, self.limits[name](name, value))
        for group in self.param_groups:
            # The constructors of a class and its bases set some each.
            if all(name in group for name in self.settings):
                with self._reading(group):
                    self._require_consistent()

    def _require_consistent(self) -> None:
        """Raise `ValueError` for settings that exclude each other."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(getattr(type(self), name, None), Setting):
            super().__setattr__(name, value)
            return
        if "param_groups" not in vars(self):
            # A rule may set its numbers before it calls this class's constructor.
            vars(self).setdefault("_early", {})[name] = value
            return
        self.defaults.setdefault(name, checks.plain(value))
        for group in self.param_groups:
            if name in group.pending:
                group.pending.discard(name)
            else:
                group[name] = value

    @contextmanager
    def _reading(self, group: ParameterGroup) -> Iterator[None]:
        """Within the ``with`` block, settings read as attributes are those of that group."""
        before = vars(self).get("_group", group)
        self._group = group
        try:
            yield
        finally:
            self._group = before

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Train more parameters from now on: a dict with ``"params"`` and with settings of its own, as in PyTorch.

        Other settings are those that the constructor was given.

        Raises
        ------
        ValueError
            As for the constructor; then nothing is added.
        """
        ((named, given),) = split([group], type(self).__name__, len(self.parameters))
        self._append(named, given)
        added = self.param_groups[-1]
        added.pending.clear()
        added.update({name: value for name, value in self.defaults.items() if name not in given})
        try:
            with self._reading(added):
                self._require_consistent()
        except ValueError:
            self.param_groups.pop()
            self.parameters = {name: p for name, p in self.parameters.items() if name not in added.named}
            raise

    def _append(self, named: Mapping[str, Parameter], given: Mapping[str, Any]) -> None:
        """Add a group, whose other settings are not set yet."""
        owner, place = type(self).__name__, len(self.param_groups)
        require_known(given, (*self.settings, *OF_ALL), owner, place)
        checked = {
            name: self.limits[name](f"{name} of group {place}", value) if name in self.limits else value
            for name, value in given.items()
        }
        named = distinct(named, self.param_groups, place, owner)
        self.param_groups.append(ParameterGroup(named, checked, (*self.settings, *OF_ALL), self.constants))
        self.parameters |= named

    def settings_of(self, group: ParameterGroup) -> dict[str, Any]:
        """The settings that are saved, as the group has them."""
        with self._reading(group):
            return {name: getattr(self, name) for name in self.settings}


for _name in OF_ALL:
    setattr(GroupSettings, _name, Setting(_name))
