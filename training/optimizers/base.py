"""What every optimizer is: from gradients to new values, one parameter at a time.

The arithmetic is PyTorch's, step by step. An optimizer keeps what it remembers of a parameter beside that parameter,
so ``model.to(backend)`` moves it along. Powers of decay rates are kept by repeated multiplication: `pow` is not the
same bits everywhere.

Values and what is remembered of them change in place, part by part: ``state_dict`` shows the change, as in PyTorch, and
there is no array of the size of a parameter in between. An array that a user set as a value or gradient never changes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias

from ...backends import Backend, operations_of
from ...backends.engines.numba import Kernels
from ...backends.lookup import require_plain
from ...backends.recording.guards import require_owned
from ...backends.recording.slots import ABSENT, Slot
from ...common import checks
from ...common.types import Array, Namespace
from ...layers.core.arrays import require_float
from ...layers.core.layer import Layer
from ...layers.core.parameter import Parameter, change

Trainable: TypeAlias = Layer | Mapping[str, Parameter] | Iterable[Parameter]


class Rule(NamedTuple):
    """A rule by name, its settings, and names and first values of the counters that it keeps on the device."""

    name: str
    settings: tuple[float, ...]
    counters: Mapping[str, float] = {}


class Optimizer:
    """Base of the optimizers.

    Parameters
    ----------
    parameters : Layer, mapping of str to Parameter, or iterable of Parameter
        What to train; a parameter that is given twice, under two names or as that of two layers, is trained once.
    lr : float
        Learning rate, above 0; may be set between steps.
    weight_decay : float
        Adds ``weight_decay * value`` to each gradient; decoupled, it takes ``lr * weight_decay * value`` off the value.

    Raises
    ------
    ValueError
        For a rate out of range, or nothing to train.
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
        """Take one step along the gradients; a parameter without one stays."""
        require_owned(self, f"what {type(self).__name__} remembers")
        groups: dict[Backend, list[tuple[Parameter, Array]]] = {}
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.check_gradient(parameter.grad, is_last=True)
                groups.setdefault(parameter.backend, []).append((parameter, parameter.grad))
        for b, group in groups.items():
            for parameter, gradient in self._update_together(group, b):
                self._update(parameter, gradient, b)

    def _update_together(self, group: list[tuple[Parameter, Array]], b: Backend) -> list[tuple[Parameter, Array]]:
        """Take the step with all parameters at once where the backend has a kernel; returns those it does not take."""
        rule = self._rule() if self._is_of_rule("_rule") else None
        # A rate that a user set may be an array.
        if rule is None or not all(isinstance(each, int | float) for each in rule.settings):
            return group
        prepared = operations_of(b.xp).prepare("update", (rule.name, rule.settings), b.dtype_name)
        if prepared is None:
            return group
        rows, left = [], []
        with b.context():
            for parameter, gradient in group:
                value, memory, fresh = self._remembered_of(parameter, gradient, b)
                state = parameter.states[self]
                if not prepared.takes(value, gradient, *memory):
                    left.append((parameter, gradient))
                    # `_update` takes arrays that are missing as the sign of a first step.
                    for name in self._memory() if fresh else ():
                        del state[name]
                    continue
                for name, start in rule.counters.items():
                    state[name] = counter(state.get(name, start), start, b)
                numbers = () if rule.counters else self._numbers({"fresh": fresh, **self._advance(state, b)})
                rows.append((value, memory, gradient, (*numbers, fresh), [state[name] for name in rule.counters]))
            prepared(rows)
        return left

    def _remembered_of(self, parameter: Parameter, gradient: Array, b: Backend) -> tuple[Array, list[Array], bool]:
        """A value that may be changed in place, the arrays remembered beside it, and whether these are new."""
        require_plain(gradient, "a gradient")
        require_float(gradient, "a gradient")
        if gradient.shape != parameter.shape:
            raise ValueError(f"a gradient has shape {tuple(gradient.shape)}, its parameter {parameter.shape}")
        state, names = parameter.states.setdefault(self, {}), self._memory()
        fresh = any(name not in state for name in names)
        value = parameter.own_value()
        if fresh:
            state.update({name: b.xp.zeros_like(value) for name in names})
        return value, [state[name] for name in names], fresh

    def _update(self, parameter: Parameter, gradient: Array, b: Backend) -> None:
        names, xp = self._memory(), b.xp
        with b.context():
            value, _, fresh = self._remembered_of(parameter, gradient, b)
            state = parameter.states[self]
            numbers = self._advance(state, b)

        def work(value: Array, *others: Array) -> list[Array]:
            *memory, gradient = others
            known = {"fresh": fresh, **numbers, **dict(zip(names, memory, strict=True))}
            value = self._changed(value, gradient, known, xp)
            return [value, *(known[name] for name in names)]

        def compiled(kernels: Kernels) -> Callable[..., None] | None:
            return self._compiled(kernels, {"fresh": fresh, **numbers}) if self._is_of_rule("_compiled") else None

        change(work, [value, *(state[name] for name in names)], gradient, backend=b, compiled=compiled)

    def _changed(self, value: Array, gradient: Array, known: dict[str, Any], xp: Namespace) -> Array:
        """A part of the value after the step, which may be computed in place; so may what is ``known``."""
        if self.weight_decay and self.decoupled:
            value *= 1.0 - self.lr * self.weight_decay
        elif self.weight_decay:
            gradient = gradient + value * self.weight_decay
        value -= self._step(gradient, known, xp)
        return value

    def _memory(self) -> tuple[str, ...]:
        """Names of the arrays of the value's shape that are remembered: zeros before the first step."""
        return ()

    def _advance(self, state: dict[str, Any], b: Backend) -> dict[str, Any]:
        """Bring the numbers in ``state`` up to date, once a step; gives those that `_step` takes."""
        return {}

    def _step(self, gradient: Array, known: dict[str, Any], xp: Namespace) -> Array:
        """What to subtract from the value; brings the arrays in ``known`` up to date.

        Beside those remembered, it holds the numbers of `_advance`, and whether this is the first step, ``fresh``.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no _step")

    def _compiled(self, kernels: Kernels, known: dict[str, Any]) -> Callable[..., None] | None:
        """The same step as a kernel, which changes a value and what is remembered, given these and a gradient.

        None where there is none for these settings. ``known`` is that of `_step` without arrays.
        """
        return None

    def _rule(self) -> Rule | None:
        """The same step by its name, for a backend that takes it with all parameters at once; None if it has none."""
        return None

    def _numbers(self, known: dict[str, Any]) -> tuple[float, ...]:
        """The numbers of `_advance` as the rule takes them; whether this is the first step comes after them."""
        return ()

    def _is_of_rule(self, name: str) -> bool:
        """Whether that method is meant for the rule: not where a subclass has another `_step`, `_advance` and such."""
        kind = type(self)
        owner = _definer(kind, name)
        theirs = all(issubclass(owner, _definer(kind, each)) for each in ("_step", "_advance", "_memory"))
        return theirs and kind._changed is Optimizer._changed

    def zero_grad(self) -> None:
        """Forget the gradients: ``grad`` becomes None."""
        for parameter in self.parameters.values():
            parameter.zero_grad()

    def count_on_device(self) -> None:
        """Count steps on the device from now on, as `Backend.compile` needs; rules that count none do nothing."""

    def slots(self) -> Iterator[Slot]:
        """Where settings, parameters, gradients and what is remembered are kept, for `Backend.compile`."""
        kind = type(self).__name__
        parameters = list(self.parameters.values())
        yield Slot.constant(f"{kind}.backend", self, "backend", lambda: tuple([each.backend for each in parameters]))
        for name in (*self.settings, *(name for name in ("capturable",) if hasattr(self, name))):
            yield Slot.attribute(f"{kind}.{name}", self, name)
        for name, parameter in self.parameters.items():
            yield from parameter.slots(name)
            for key in parameter.states.get(self, {}):
                yield self._remembered(f"{kind}'s {key} of {name}", parameter, key)

    def _remembered(self, name: str, parameter: Parameter, key: str) -> Slot:
        """The slot of one thing remembered, found by its parameter: the mapping that holds it may be replaced."""
        return Slot(
            name,
            (id(parameter), f"{id(self)}.{key}"),
            lambda: parameter.states.get(self, {}).get(key, ABSENT),
            lambda value: parameter.states.setdefault(self, {}).__setitem__(key, value),
        )

    def state_dict(self) -> dict[str, Any]:
        """Settings, and for each parameter by name what is remembered of it."""
        return {
            "settings": {name: getattr(self, name) for name in self.settings},
            "state": {name: dict(p.states.get(self, {})) for name, p in self.parameters.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of an optimizer of this kind over parameters of these names.

        Its settings, the learning rate among them, take the place of this optimizer's, as in PyTorch; set others
        afterwards. (`fit` compares them when it resumes, and refuses what differs.)

        Raises
        ------
        ValueError
            If the settings or names are not this optimizer's; then nothing is replaced.
        """
        if not isinstance(state, Mapping) or not {"settings", "state"} <= state.keys():
            raise ValueError(
                f"{type(self).__name__}.load_state_dict takes what state_dict() gave, a mapping with 'settings' and "
                f"'state'; got {checks.shown(state)}"
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
            parameter.remember(self, state["state"][name], parameter.backend)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.settings)})"


def _definer(kind: type, name: str) -> type:
    """The class from which a class has that method."""
    return next(each for each in kind.__mro__ if name in vars(each))


def trainable(parameters: Trainable, owner: str) -> dict[str, Parameter]:
    """Parameters by name, each once and under its first name, from a layer, a mapping or an iterable of them.

    Raises
    ------
    ValueError
        Where there are none.
    """
    given = parameters
    if isinstance(parameters, Layer):
        parameters = dict(parameters.named_parameters())
        if not parameters:
            raise ValueError(f"{owner}: there is nothing to train, {given!r} has no parameters")
    found: Mapping[str, Any] = {}
    if isinstance(parameters, Mapping):
        found = parameters
    elif isinstance(parameters, Iterable) and getattr(parameters, "shape", None) != ():
        found = {str(i): parameter for i, parameter in enumerate(parameters)}
    if not found or not all(isinstance(parameter, Parameter) for parameter in found.values()):
        shown = checks.shown(parameters if checks.is_sequence(parameters) or not found else found)
        raise ValueError(
            f"{owner}: parameters must be a layer with parameters, a mapping of names to Parameters or an iterable of "
            f"them, got {shown}"
        )
    first: dict[Parameter, str] = {}
    for name, parameter in found.items():
        first.setdefault(parameter, name)
    return {name: parameter for parameter, name in first.items()}


def on_device(number: Any, b: Backend, factor: float | None = None) -> Array:
    """A number that is kept beside a parameter as a 0-d array, times a factor: integers as such, others in float64."""
    if not hasattr(number, "dtype"):
        number = b.xp.full((), number, dtype=_dtype_of(number, b), device=b.device)
    # NumPy makes a scalar of a product of 0-d arrays.
    return number if factor is None else b.xp.asarray(number * factor)


def counter(number: Any, start: float, b: Backend) -> Array:
    """`on_device`, in the dtype of a counter that begins with ``start``: one that was loaded may have another."""
    number, dtype = on_device(number, b), _dtype_of(start, b)
    return number if number.dtype == dtype else b.xp.astype(number, dtype)


def _dtype_of(number: float, b: Backend) -> Any:
    return getattr(b.xp, "int64", None) or b.xp.int32 if isinstance(number, int) else widest(b)


def widest(b: Backend) -> Any:
    """The widest float dtype of the device."""
    return b.xp.float64 if b.has("float64") else b.dtype
