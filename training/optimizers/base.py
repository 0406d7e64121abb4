"""What all optimizers have in common: a step over the parameters, settings, state, and saving both.

A rule, such as `Adam`, is a subclass that defines

- ``settings``: names of its numbers, which are saved and compared when a run is resumed;
- `_state_names`: names of the arrays that it keeps beside each parameter, if any;
- `_advance`: the numbers of a step, if it counts steps;
- `_step`: the formula. It changes the arrays of `State` **in place** and **returns** what to subtract from the value.

One more method, `_fused_update`, names an engine's kernel of the same arithmetic for all parameters together;
a rule without one runs on array functions. The arithmetic is PyTorch's, operation by operation.

Values and state change in place, part by part: ``state_dict`` shows the change, as in PyTorch, and no temporary array
has the size of a parameter. An array that a user set as a value or gradient never changes. State is kept in
`Parameter.states`, so ``model.to(backend)`` moves it with the parameter.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from ...backends import Backend, operations_of, origins
from ...backends.lookup import require_plain
from ...backends.recording.guards import require_owned
from ...backends.recording.slots import ABSENT, Slot
from ...common import checks
from ...common.types import Array, Namespace
from ...layers.core.array_checks import require_float
from ...layers.core.parameter import Parameter, update_in_place
from .counters import Number, counter
from .parameters import Trainable, trainable
from .rule import FusedUpdate, State


class Optimizer:
    """Base of the optimizers.

    Parameters
    ----------
    parameters : Layer, mapping of str to Parameter, or iterable of Parameter
        What to train; a parameter that is given twice, under two names or as that of two layers, is trained once.
    lr : float
        Learning rate, above 0; may be set between steps.
    weight_decay : float
        Adds ``weight_decay * value`` to each gradient; if decoupled, subtracts ``lr * weight_decay * value`` from the
        value instead.

    Raises
    ------
    ValueError
        If a setting is out of range, or there is nothing to train.
    """

    settings: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    decoupled: ClassVar[bool] = False

    def __init__(self, parameters: Trainable, lr: float, weight_decay: float = 0.0) -> None:
        self.parameters = trainable(parameters, type(self).__name__)
        self.lr = checks.number("lr", lr, above=0)
        self.weight_decay = checks.number("weight_decay", weight_decay, least=0)

    def __setattr__(self, name: str, value: Any) -> None:
        # A rate that is a float64 of NumPy would make float64 of float32 values.
        super().__setattr__(name, checks.plain(value) if name in self.settings else value)

    def step(self) -> None:
        """Update each parameter that has a gradient and is not frozen."""
        require_owned(self, f"the state of {type(self).__name__}")
        groups: list[tuple[Backend, list[tuple[Parameter, Array]]]] = []
        for parameter in self.parameters.values():
            if parameter.grad is not None and parameter.requires_grad:
                if origins.watching:
                    parameter.check_gradient(parameter.grad, is_last=True)
                b = parameter.backend
                if not groups or b is not groups[-1][0]:
                    groups.append((b, []))
                groups[-1][1].append((parameter, parameter.grad))
        for b, group in groups:
            with b.context():
                self._update_all(group, b)

    def _update_all(self, group: Sequence[tuple[Parameter, Array]], b: Backend) -> None:
        """Update the parameters of one backend: with its kernel where it has one, the others one by one."""
        fused = self._fused_update() if self._has_own_kernel() else None
        # A rate that a user set may be an array.
        if fused is not None and all(isinstance(each, int | float) for each in fused.settings):
            kernel = operations_of(b.xp).prepare("update", (fused.name, fused.settings), b.dtype_name)
        else:
            kernel = None
        rows, names = [], self._state_names()
        state_names = set(names)
        for parameter, gradient in group:
            _check_gradient(parameter, gradient, b)
            stored, value = parameter.states.setdefault(self, {}), parameter.own_value()
            is_first = not stored.keys() >= state_names
            if is_first:
                stored.update({name: b.xp.zeros_like(value) for name in names})
            arrays = [stored[name] for name in names]
            if kernel is None or fused is None or not kernel.accepts(value, gradient, *arrays):
                state = State(dict(zip(names, arrays, strict=True)), self._advance(stored, b), is_first)
                self._update(value, gradient, state, b)
                continue
            for name, start in fused.counters.items():
                stored[name] = counter(stored.get(name, start), start, b)
            numbers = () if fused.counters else self._advance(stored, b)
            rows.append((value, arrays, gradient, (*numbers, is_first), [stored[name] for name in fused.counters]))
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

    def _has_own_kernel(self) -> bool:
        """Whether the kernel does what this class computes: not if a subclass overrides the formula only."""
        kind = type(self)
        owner = _definer(kind, "_fused_update")
        is_last = all(issubclass(owner, _definer(kind, name)) for name in ("_step", "_advance", "_state_names"))
        return is_last and kind._apply is Optimizer._apply

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
        for name in (*self.settings, *(name for name in ("capturable",) if hasattr(self, name))):
            yield Slot.attribute(f"{kind}.{name}", self, name, varies="between" if name == "lr" else "")
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

    def state_dict(self) -> dict[str, Any]:
        """Settings, and the state of each parameter by name."""
        return {
            "settings": {name: getattr(self, name) for name in self.settings},
            "state": {name: dict(p.states.get(self, {})) for name, p in self.parameters.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` of an optimizer of this class over parameters of these names.

        Its settings, the learning rate among them, replace this optimizer's, as in PyTorch; set others afterwards.
        (`fit` compares them when it resumes, and refuses what differs.)

        Raises
        ------
        ValueError
            If the settings or names are not this optimizer's; then nothing is replaced.
        """
        if not isinstance(state, Mapping) or not {"settings", "state"} <= state.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: state must be what state_dict() returned, a mapping with "
                f"'settings' and 'state', got {checks.shown(state)}"
            )
        if state["settings"].keys() != set(self.settings) or state["state"].keys() != self.parameters.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: settings {sorted(state['settings'])} and parameters "
                f"{sorted(state['state'])} are not those of this optimizer, {sorted(self.settings)} and "
                f"{sorted(self.parameters)}"
            )
        for name in self.settings:
            setattr(self, name, state["settings"][name])
        for name, parameter in self.parameters.items():
            parameter.set_state(self, state["state"][name], parameter.backend)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.settings)})"


def _check_gradient(parameter: Parameter, gradient: Array, b: Backend) -> None:
    """Raise unless it is an array of floats of the parameter's shape."""
    if b.accepts_directly(gradient) and gradient.shape == parameter.shape:
        return
    require_plain(gradient, "a gradient")
    require_float(gradient, "a gradient")
    if gradient.shape != parameter.shape:
        raise ValueError(
            f"a gradient must have the shape of its parameter, {parameter.shape}, got {tuple(gradient.shape)}"
        )


def _definer(kind: type, name: str) -> type:
    """The class from which ``kind`` inherits that method."""
    return next(each for each in kind.__mro__ if name in vars(each))
