"""What all schedules have in common: they set the rate of an optimizer, and are saved and loaded.

A rate has the same bits on every machine, because it is computed on the host, in Python floats, by ``+ - * /`` only
(`xpnn.common.portable_math`). A new schedule is a subclass of `TimedSchedule` with a `rate`, and a line in the
package's list.

An optimizer may have several groups of parameters. Then each has a base rate of its own: ``base_lr`` is that of the
group whose rate is computed, and otherwise that of the first.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from ...common import checks
from ..optimizers import Optimizer


class Schedule:
    """Base of the schedules: saving, loading and repr.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rate is set.

    Raises
    ------
    TypeError
        If it is not an optimizer.
    """

    #: Names of the attributes that `state_dict` holds: arguments, and what changes with the steps.
    settings: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = checks.instance("optimizer", optimizer, Optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Settings and state."""
        return {name: getattr(self, name) for name in (*self.settings, *self.state_names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of a schedule of this class, with the optimizer at the rate that it had then.

        The settings in the state replace this schedule's, as in PyTorch, except ``total_steps``.

        Raises
        ------
        ValueError
            If it is the state of another class, or has another ``total_steps``; then nothing is replaced.
        """
        checks.mapping("state", state, "give what state_dict() returned")
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: state must hold {', '.join(mine)}, "
                f"got {', '.join(state) or 'nothing'}"
            )
        if state.get("total_steps") != mine.get("total_steps"):
            raise ValueError(
                f"{type(self).__name__} has {mine['total_steps']} steps, the state is of one with "
                f"{state['total_steps']}; a schedule can't be made longer or shorter later: make it with "
                f"total_steps={state['total_steps']}, or start again without the state"
            )
        for name, value in state.items():
            setattr(self, name, value)

    def _rates_in(self, state: Mapping[str, Any], name: str) -> list[Any]:
        """The rates in a state under a name, one for each group; raises `ValueError` if there are more or fewer."""
        given = state.get(name) if isinstance(state, Mapping) else None
        rates = list(given) if isinstance(given, list | tuple) else [given]
        groups = len(self.optimizer.param_groups)
        if len(rates) != groups:
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: the state has rates of {len(rates)} groups of parameters, the "
                f"optimizer has {groups}"
            )
        return rates

    def __repr__(self) -> str:
        options = "".join(f", {name}={getattr(self, name)!r}" for name in self.settings)
        return f"{type(self).__name__}({self.optimizer!r}{options})"


class TimedSchedule(Schedule):
    """Base of the schedules whose rate is a function of the step, in closed form: no error accumulates.

    Parameters
    ----------
    optimizer : Optimizer
        Its ``lr`` is the base rate, and that of each group of parameters is the group's.

    Attributes
    ----------
    base_lrs : list of float
        The rates of the groups when the schedule was made; that of a group which was added later is its rate then.
    taken : int
        Steps so far: the current rate is that of this step, counted from 0.
    """

    state_names = ("base_lr", "taken")
    #: Whether a step beyond ``total_steps`` is an error.
    ends: ClassVar[bool] = False

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        # The group whose rate is computed.
        self._place = 0
        self.taken = 0

    @property
    def base_lr(self) -> float:
        """The base rate of the group whose rate is computed, and otherwise of the first; setting it sets all."""
        rate: float = self.base_lrs[self._place]
        return rate

    @base_lr.setter
    def base_lr(self, rate: float) -> None:
        self.base_lrs = [rate] * len(self.base_lrs)

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0: from ``base_lr``, which is that of one group."""
        raise NotImplementedError(f"{type(self).__name__} defines no rate")

    def rates(self, step: int) -> list[float]:
        """The learning rate of each group at a step."""
        groups = self.optimizer.param_groups
        self.base_lrs += [group["lr"] for group in groups[len(self.base_lrs) :]]
        found = []
        for place in range(len(groups)):
            self._place = place
            found.append(self.rate(step))
        self._place = 0
        return found

    def step(self) -> None:
        """Advance to the next step and set its rate."""
        self.taken += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """As for `Schedule`; with several groups ``base_lr`` is a list."""
        state = super().state_dict()
        if len(self.base_lrs) > 1:
            state["base_lr"] = list(self.base_lrs)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As for `Schedule`; also `ValueError` if the state is of an optimizer with more or fewer groups."""
        rates = self._rates_in(state, "base_lr")
        super().load_state_dict(state if rates[0] is None else {**state, "base_lr": rates[0]})
        self.base_lrs = rates
        self._set()

    def _set(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates(self.taken), strict=True):
            group["lr"] = rate
