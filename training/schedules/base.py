"""What every schedule is: settings and a memory beside an optimizer, whose rate it sets.

A rate must be the same bits on every machine. So it is computed on the host, in Python floats, by ``+ - * /`` alone:
`math.cos` and `pow` may differ in the last bit from one C library to the next.
"""

from collections.abc import Mapping
from math import pi
from typing import Any, ClassVar

from ...common import checks
from ..optimizers.base import Optimizer


class Schedule:
    """Base of the schedules: what is saved, loaded and shown.

    Parameters
    ----------
    optimizer : Optimizer
        Whose learning rate is set.

    Raises
    ------
    TypeError
        For anything but an optimizer.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[tuple[str, ...]] = ()

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = checks.instance("optimizer", optimizer, Optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Settings, and all that is needed to go on."""
        return {name: getattr(self, name) for name in (*self.settings, *self.memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a schedule of this kind, the optimizer at the rate it had then.

        The settings of that schedule take the place of this one's, as in PyTorch, but for the number of steps that it
        is laid out for.

        Raises
        ------
        ValueError
            If it is the state of another kind, or of one laid out for another number of steps; then nothing is
            replaced.
        """
        checks.mapping("state", state, "give what state_dict() gave")
        mine = self.state_dict()
        if state.keys() != mine.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: state must hold {', '.join(mine)}, "
                f"got {', '.join(state) or 'nothing'}"
            )
        if state.get("total_steps") != mine.get("total_steps"):
            raise ValueError(
                f"{type(self).__name__} is laid out for {mine['total_steps']} steps, the state for "
                f"{state['total_steps']}; a schedule can't be made longer or shorter on the way: make it with "
                f"total_steps={state['total_steps']}, or start it anew without the state"
            )
        for name, value in state.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        options = "".join(f", {name}={getattr(self, name)!r}" for name in self.settings)
        return f"{type(self).__name__}({self.optimizer!r}{options})"


class TimedSchedule(Schedule):
    """Base of the schedules whose rate is a function of the step; nothing accumulates.

    Parameters
    ----------
    optimizer : Optimizer
        Its ``lr`` is the base rate.

    Attributes
    ----------
    base_lr : float
        The rate of the optimizer when the schedule was made.
    taken : int
        Steps taken: the rate now set is that of this step, counted from 0.
    """

    memory = ("base_lr", "taken")
    #: Whether a step beyond ``total_steps`` is an error.
    ends: ClassVar[bool] = False

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.base_lr = optimizer.lr
        self.taken = 0

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__} defines no rate")

    def step(self) -> None:
        """Go on to the next step and set its rate."""
        self.taken += 1
        self._set()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As for `Schedule`."""
        super().load_state_dict(state)
        self._set()

    def _set(self) -> None:
        self.optimizer.lr = self.rate(self.taken)


def cosine_pi(x: float) -> float:
    """``cos(pi x)`` to 1e-15 for small ``|x|``: the argument is reduced exactly, then a Taylor polynomial taken."""
    x = abs(x) % 2.0
    if x > 1.0:
        x = 2.0 - x
    if x > 0.5:
        return -cosine_pi(1.0 - x)
    return _taylor(x * pi, 18) if x <= 0.25 else (0.5 - x) * pi * _taylor((0.5 - x) * pi, 19)


def _taylor(angle: float, terms: int) -> float:
    """``cos(angle)`` for even ``terms``, ``sin(angle) / angle`` for odd, up to that power of the angle."""
    square, value = angle * angle, 1.0
    for n in range(terms, 1, -2):
        value = 1.0 - value * square / (n * (n - 1))
    return value


def power(base: float, exponent: int) -> float:
    """``base^exponent`` for an exponent >= 0, by squaring."""
    value = 1.0
    while exponent:
        if exponent % 2:
            value *= base
        base, exponent = base * base, exponent // 2
    return value
