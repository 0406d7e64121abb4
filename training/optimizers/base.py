"""What all optimizers have in common: a step over the parameters, settings, state, and saving both.

A rule, such as `Adam`, is a subclass that defines

- ``settings``: names of its numbers, which are saved and compared when a run is resumed, and which each group of
  parameters may have values of its own for; ``limits``: a check of each;
- `_state_names`: names of the arrays that it keeps beside each parameter, if any;
- `_advance`: the numbers of a step, if it counts steps;
- `_step`: the formula. It changes the arrays of `State` **in place** and **returns** what to subtract from the value.

These read a setting as an attribute, ``self.lr``, which is that of the group whose parameters are updated.

One more method, `_fused_update`, names an engine's kernel of the same arithmetic for all parameters together;
a rule without one runs on array functions. The arithmetic is PyTorch's, operation by operation.

Values and state change in place, part by part: ``state_dict`` shows the change, as in PyTorch, and no temporary array
has the size of a parameter. An array that a user set as a value or gradient never changes. State is kept in
`Parameter.states`, so ``model.to(backend)`` moves it with the parameter.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from ...backends import Backend, operations_of, origins
from ...backends.recording.guards import require_owned
from ...backends.recording.slots import ABSENT, Slot
from ...common import checks
from ...common.types import Array, Namespace
from ...layers.core.in_place import update_in_place
from ...layers.core.parameter import Parameter
from .counters import Number, counter
from .group_settings import GroupSettings
from .groups import Grouped, ParameterGroup
from .parameters import require_gradient
from .rule import FusedUpdate, State
from .saved_state import require_same_parameters, saved_groups

_NUMBERS = frozenset((bool, int, float))


class Optimizer(GroupSettings):
    """Base of the optimizers.

    Parameters
    ----------
    parameters : Layer, mapping of str to Parameter, or iterable of Parameter or of (str, Parameter)
        What to train; a parameter that is given twice, under two names or as that of two layers, is trained once. Or a
        list of groups, each a dict with parameters under ``"params"`` and with settings of its own:
        ``[{"params": head.named_parameters(), "lr": 1e-3}, {"params": body, "weight_decay": 0.0}]``.
    lr : float
        Learning rate, above 0; may be set between steps. With several groups, each setting of the optimizer reads as
        that of the first group, and setting it sets it in all.
    weight_decay : float
        Adds ``weight_decay * value`` to each gradient; if decoupled, subtracts ``lr * weight_decay * value`` from the
        value instead.
    maximize : bool
        Whether to go up the gradient: each step uses its negative.

    Attributes
    ----------
    parameters : dict of str to Parameter
        Those of all groups. Names that were given are kept, others are numbers; a name that an earlier group has gets a
        number, ``weight (2)``.
    param_groups : list of ParameterGroup
        Dicts with ``"params"`` and all settings, which may be set: ``optimizer.param_groups[0]["lr"] = 0.1``.

    Raises
    ------
    ValueError
        If a setting is out of range or unknown, there is nothing to train, or a parameter is in two groups.
    """

    lr: float
    weight_decay: float
    maximize: bool

    def __init__(self, parameters: Grouped, lr: float, weight_decay: float = 0.0, *, maximize: bool = False) -> None:
        super().__init__(parameters)
        self._configure(lr=lr, weight_decay=weight_decay, maximize=maximize)

    @property
    def decoupled(self) -> bool:
        """Whether weight decay does not pass through the gradient."""
        return False

    def step(self) -> None:
        """Update each parameter that has a gradient and is not frozen."""
        require_owned(self, f"the state of {type(self).__name__}")
        if len(self.param_groups) == 1:
            self._step_group(self.param_groups[0])
            return
        for group in self.param_groups:
            with self._reading(group):
                self._step_group(group)

    def _step_group(self, group: ParameterGroup) -> None:
        """Update the parameters of the group whose settings are read."""
        of_backends: list[tuple[Backend, list[tuple[Parameter, Array]]]] = []
        for parameter in group.named.values():
            if parameter.grad is not None and parameter.requires_grad:
                if origins.watching:
                    parameter.check_gradient(parameter.grad, is_last=True)
                b = parameter.backend
                if not of_backends or b is not of_backends[-1][0]:
                    of_backends.append((b, []))
                of_backends[-1][1].append((parameter, parameter.grad))
        for b, some in of_backends:
            with b.context():
                self._update_all(some, b)

    def _update_all(self, group: Sequence[tuple[Parameter, Array]], b: Backend) -> None:
        """Update parameters of one backend: with its kernel where it has one, the others one by one."""
        kind: Any = type(self)
        fused = self._fused_update() if _has_own_kernel(kind) else None
        # A rate that a user set may be an array.
        if fused is not None and _NUMBERS.issuperset(map(type, fused.settings)):
            kernel = operations_of(b.xp).prepare("update", (fused.name, fused.settings), b.dtype_name)
        else:
            kernel = None
        rows, names, maximize = [], self._state_names(), self.maximize
        counters, needed = {} if fused is None else fused.counters, set(names)
        for parameter, gradient in group:
            if not (b.accepts_directly(gradient) and gradient.shape == parameter.shape):
                require_gradient(parameter, gradient)
            stored, value = parameter.states.setdefault(self, {}), parameter.own_value()
            is_first = not stored.keys() >= needed
            if is_first:
                # A setting that was changed may need one more array.
                stored.update({name: b.xp.zeros_like(value) for name in names if name not in stored})
            arrays = list(map(stored.__getitem__, names))
            if kernel is None or not kernel.accepts(value, gradient, *arrays):
                state = State(dict(zip(names, arrays, strict=True)), self._advance(stored, b), is_first)
                self._update(value, gradient, state, b)
                continue
            for name, start in counters.items():
                stored[name] = counter(stored.get(name, start), start, b)
            numbers = () if counters else self._advance(stored, b)
            if maximize:
                gradient = b.xp.asarray(-gradient)
            rows.append((value, arrays, gradient, (*numbers, is_first), list(map(stored.__getitem__, counters))))
        if kernel is not None:
            kernel(rows)

    def _update(self, value: Array, gradient: Array, state: State, b: Backend) -> None:
        """Update one parameter by array functions, part by part."""
        update_in_place(
            partial(self._update_part, state, b.xp),
            [value, *state.arrays.values()],
            gradient,
            backend=b,
        )

    def _update_part(self, state: State, xp: Namespace, value: Array, *others: Array) -> tuple[Array, ...]:
        """`_apply` to a part of the value, of each array of the state, and of the gradient, in this order."""
        *parts, gradient = others
        arrays = dict(zip(state.arrays, parts, strict=True))
        self._apply(value, gradient, State(arrays, state.numbers, state.is_first), xp)
        return value, *parts

    def _apply(self, value: Array, gradient: Array, state: State, xp: Namespace) -> None:
        """Take the step and the weight decay, in place."""
        if self.maximize:
            gradient = -gradient
        if self.weight_decay and self.decoupled:
            value *= 1.0 - self.lr * self.weight_decay
        elif self.weight_decay:
            gradient = gradient + value * self.weight_decay
        value -= self._step(gradient, state, xp)

    def _state_names(self) -> tuple[str, ...]:
        """Names of the arrays of the value's shape that are kept beside it."""
        return ()

    def _advance(self, stored: dict[str, Any], b: Backend) -> tuple[Number, ...]:
        """Advance the counters in ``stored`` by one step; returns the numbers that `_step` uses."""
        return ()

    def _step(self, gradient: Array, state: State, xp: Namespace) -> Array:
        """What to subtract from the value; changes ``state.arrays`` in place."""
        raise NotImplementedError(f"{type(self).__name__} defines no _step")

    def _fused_update(self) -> FusedUpdate | None:
        """The kernel for all parameters together; None if there is none."""
        return None

    def _decay_and_shrink(self) -> tuple[float, float]:
        """For kernels: the factor of the value in the gradient, and the factor by which the value itself changes."""
        return (0.0, 1.0 - self.lr * self.weight_decay) if self.decoupled else (self.weight_decay, 1.0)

    def zero_grad(self) -> None:
        """Drop the gradients: ``grad`` becomes None."""
        for parameter in self.parameters.values():
            parameter.zero_grad()

    def count_on_device(self) -> None:
        """Count steps on the device from now on, as `Backend.compile` needs; does nothing if the rule counts none."""

    def slots(self) -> Iterator[Slot]:
        """Where settings, parameters, gradients and state are stored, for `Backend.compile`."""
        kind = type(self).__name__
        parameters = list(self.parameters.values())
        yield Slot.constant(f"{kind}.backend", self, "backend", lambda: tuple([each.backend for each in parameters]))
        if hasattr(self, "capturable"):
            yield Slot.attribute(f"{kind}.capturable", self, "capturable")
        several = len(self.param_groups) > 1
        for i, group in enumerate(self.param_groups):
            for name in self.settings:
                if name in group:
                    what = f"{kind}.{name} of group {i}" if several else f"{kind}.{name}"
                    yield Slot.item(what, group, name, varies="between" if name == "lr" else "")
        for name, parameter in self.parameters.items():
            yield from parameter.slots(name)
            for key in parameter.states.get(self, {}):
                yield self._state_slot(f"{kind}'s {key} of {name}", parameter, key)

    def _state_slot(self, name: str, parameter: Parameter, key: str) -> Slot:
        """The slot of one array or counter, found through its parameter: the mapping that holds it may be replaced."""
        return Slot(
            name,
            (id(parameter), f"{id(self)}.{key}"),
            lambda: parameter.states.get(self, {}).get(key, ABSENT),
            lambda value: parameter.states.setdefault(self, {}).__setitem__(key, value),
            varies="within",
        )

    def state_names(self) -> dict[str, set[str]]:
        """For each parameter by name, the names of the arrays that are kept beside it."""
        found: dict[str, set[str]] = {}
        for group in self.param_groups:
            with self._reading(group):
                found |= {name: set(self._state_names()) for name in group.named}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Settings (those of the first group), the state of each parameter by name, and the groups.

        ``param_groups`` has for each group its settings, and under ``"params"`` the names of its parameters.
        """
        return {
            "settings": self.settings_of(self.param_groups[0]),
            "state": {name: dict(p.states.get(self, {})) for name, p in self.parameters.items()},
            "param_groups": [{**self.settings_of(group), "params": list(group.named)} for group in self.param_groups],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of an optimizer of this class over parameters of these names in these groups.

        Its settings, the learning rate among them, replace this optimizer's, as in PyTorch; set others afterwards.
        (`fit` compares them when it resumes, and refuses what differs.)

        Raises
        ------
        ValueError
            If the settings, names or groups are not this optimizer's; then nothing is replaced.
        """
        if not isinstance(state, Mapping) or not {"settings", "state"} <= state.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: state must be what state_dict() returned, a mapping with "
                f"'settings' and 'state', got {checks.shown(state)}"
            )
        saved = saved_groups(state, self.settings)
        if any(each.keys() != set(self.settings) for each, _ in saved) or (
            state["state"].keys() != self.parameters.keys()
        ):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: settings {sorted(state['settings'])} and parameters "
                f"{sorted(state['state'])} are not those of this optimizer, {sorted(self.settings)} and "
                f"{sorted(self.parameters)}"
            )
        require_same_parameters(
            f"{type(self).__name__}.load_state_dict: the state",
            [names for _, names in saved],
            [list(group.named) for group in self.param_groups],
        )
        for group, (settings, _) in zip(self.param_groups, saved, strict=True):
            group.update(settings)
        for name, parameter in self.parameters.items():
            parameter.set_state(self, state["state"][name], parameter.backend)

    def __repr__(self) -> str:
        several = len(self.param_groups) > 1
        each = [", ".join(f"{k}={v!r}" for k, v in self.settings_of(group).items()) for group in self.param_groups]
        shown = [f"group {i}: {settings}" for i, settings in enumerate(each)] if several else each
        return f"{type(self).__name__}({'; '.join(shown)})"


@cache
def _has_own_kernel(kind: Any) -> bool:
    """Whether the kernel does what a class computes: not if a subclass overrides the formula only."""
    owner = _definer(kind, "_fused_update")
    is_last = all(issubclass(owner, _definer(kind, name)) for name in ("_step", "_advance", "_state_names"))
    return bool(is_last and kind._apply is Optimizer._apply)


def _definer(kind: type, name: str) -> type:
    """The class from which ``kind`` inherits that method."""
    return next(each for each in kind.__mro__ if name in vars(each))
