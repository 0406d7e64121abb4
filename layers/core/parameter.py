"""A trainable array, its gradient, and what optimizers keep beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ...backends import Backend, Generator, ambient_backend, backend_of, get_backend, operations_of, origins, to_host
from ...backends.execution.execution import Compiled
from ...backends.lookup import require_plain
from ...backends.recording.guards import require_owned
from ...backends.recording.slots import Slot
from ...common.types import Array, dtype_name
from ..initialisers import Initialiser
from .arrays import require_float
from .placement import foreign, moved


class Owner(Protocol):
    """What a parameter needs to know of its layer."""

    @property
    def backend(self) -> Backend:
        """Where the layer computes."""

    @property
    def generator(self) -> Generator:
        """The layer's stream of random numbers."""


def copied(array: Array, like: Array, b: Backend) -> Array:
    """A copy that lies in memory as ``like`` does, where the library has a say in that."""
    with b.context():
        copy = b.xp.empty_like(like, dtype=array.dtype)
        copy[...] = array
    origins.passed_on(array, copy)
    return copy


def change(
    function: Callable[..., Sequence[Array]],
    changed: Sequence[Array],
    *read: Array,
    backend: Backend,
    compiled: Compiled | None = None,
) -> None:
    """Put ``function(*changed, *read)`` in place of ``changed``, entry by entry, all stored arrays of one shape.

    Arrays are widened on the way in and narrowed on the way out. The function may compute in place; ``compiled`` is
    that of `Operations.update`.
    """

    def work(*stored: Array) -> None:
        results = function(*(backend.up(array) for array in stored))
        for kept, array in zip(stored, results, strict=False):
            if array is not kept:
                kept[...] = backend.down(array)

    with backend.context():
        operations_of(backend.xp).update(work, *changed, *read, compiled=compiled)


def _add(total: Array, term: Array) -> tuple[Array]:
    total += term
    return (total,)


class Parameter:
    """A trainable array and the gradient that `Layer.backward` adds up for it.

    The value is made on first use: until then a parameter is only a shape and an initialiser, which its layer may
    still place on another backend or seed otherwise, at no cost.

    Parameters
    ----------
    value : array, optional
        Of a parameter of no layer, also what decides on its backend: the one with exact numerics that made the array,
        else that of the enclosing `use_backend`, else the array's library.
    grad : array, optional
    shape, initialiser
        Instead of ``value``: how to make it.
    owner : optional
        The layer, whose backend computes with the value and whose generator draws it.
    name : str
        What the owner calls it.

    Attributes
    ----------
    value : array
        An optimizer changes it in place, except for an array that was set from outside: that is copied first.
    grad : array or None
        Sum of the gradients since `Layer.zero_grad`; None when there were none.
    states : mapping
        For each optimizer what it keeps beside this parameter; it moves along.
    """

    def __init__(
        self,
        value: Array | None = None,
        grad: Array | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        initialiser: Initialiser | None = None,
        owner: Owner | None = None,
        name: str = "",
    ) -> None:
        if value is None and (shape is None or initialiser is None or owner is None):
            raise ValueError("a parameter needs a value, or a shape, an initialiser and an owner")
        if value is not None:
            require_plain(value, "value")
            require_float(value, "value")
        self._value = value
        self.grad = grad
        # Arrays that were made here, so that nobody handed them in who would be surprised to see them change.
        self._own_value: Array | None = None
        self._own_grad: Array | None = None
        self.shape: tuple[int, ...] = tuple(value.shape if value is not None else shape or ())
        self.states: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
        self._initialiser, self._owner, self._name = initialiser, owner, name
        # Of a parameter of no layer: the backend that it was made for.
        self._backend = None if value is None or owner is not None else _backend_for(value)
        # `origins.doubts` before the forward to which the gradient belongs.
        self._doubts = origins.doubts
        # Where it was moved to last: a parameter of two layers is moved once.
        self._moved_to: Backend | None = None

    @property
    def backend(self) -> Backend:
        """What computes with this parameter: its owner's backend, or that for which it was made."""
        if self._owner is not None:
            return self._owner.backend
        if self._backend is None or not self._backend.owns(self._value):
            self._backend = _backend_for(self._value)
        return self._backend

    def belong_to(self, owner: Owner) -> None:
        """Compute where that layer does, unless it is another layer's already."""
        if self._owner is None:
            self._owner = owner

    @property
    def value(self) -> Array:
        """The array; setting it replaces it by another of the same shape."""
        if self._value is None and self._initialiser is not None and self._owner is not None:
            generator = self._owner.generator.fold_in(self._name)
            self._value = self._initialiser(self.shape, generator, self._owner.backend)
        if origins.watching and (b := self.backend).numerics == "exact":
            origins.made(self._value, b, "Parameter", whole=False)
        return self._value

    @value.setter
    def value(self, array: Array) -> None:
        if self._owner is not None and not self._owner.backend.owns(array):
            raise TypeError(foreign(array, self._owner.backend, "value"))
        require_plain(array, "value")
        require_float(array, "value")
        if tuple(array.shape) != self.shape:
            raise ValueError(f"this parameter has shape {self.shape}, got an array of shape {tuple(array.shape)}")
        require_owned(self, f"a parameter of shape {self.shape}")
        self._value = array

    def slots(self, name: str) -> Iterator[Slot]:
        """Where `Backend.compile` finds value and gradient, by a full name."""
        yield Slot.attribute(name, self, "value", self._keep_own_value)
        yield Slot.attribute(f"{name}.grad", self, "grad", self._own_gradient)

    def own_value(self) -> Array:
        """The value, to be changed in place: a copy from now on if the array came from outside.

        The copy lies in memory as the gradient does, so that an update runs along both.
        """
        self._doubts = origins.doubts
        if self._own_value is None or self._value is not self._own_value:
            like = self.value if self.grad is None else self.grad
            self._value = self._own_value = copied(self.value, like, self.backend)
        return self._own_value

    def _keep_own_value(self) -> None:
        """`own_value` where an optimizer changes it; else a copy of the same memory layout, if it came from outside."""
        if self.states:
            self.own_value()
        elif self._own_value is None or self._value is not self._own_value:
            self._value = self._own_value = copied(self.value, self.value, self.backend)

    def _own_gradient(self) -> None:
        """Let ``grad`` be an array that may be changed in place: a copy if others may hold it."""
        if self.grad is not None and (self._own_grad is None or self.grad is not self._own_grad):
            self.grad = self._own_grad = copied(self.grad, self.grad, self.backend)

    def keep(self) -> None:
        """Take the value for one made here: it changes in place from now on, and stays where it lies in memory."""
        self._own_value = self._value

    def accumulate(self, gradient: Array) -> None:
        """Add to ``grad``, in place but for the first gradient, which others may hold too."""
        require_owned(self, f"the gradient of a parameter of shape {self.shape}")
        self.check_gradient(gradient)
        if self.grad is None:
            self.grad = gradient
            return
        self._own_gradient()
        change(_add, [self.grad], gradient, backend=self.backend)

    def zero_grad(self) -> None:
        """Forget the gradient: ``grad`` becomes None."""
        self.grad, self._doubts = None, origins.doubts

    def check_gradient(self, gradient: Array, *, is_last: bool = False) -> None:
        """Raise `ValueError` for a gradient of fast numerics, where the parameter is of exact numerics.

        ``is_last`` says that the value is changed by it next: then it may not come from somebody's own arithmetic
        either, if fast numerics computed something since the last step or `zero_grad`.
        """
        if origins.watching and self.backend.numerics == "exact":
            what, before = f"the parameter of shape {self.shape}", self._doubts if is_last else None
            origins.require_exact(gradient, "the gradient", what, before, "the last step or zero_grad()")

    def move(self, backend: Backend) -> None:
        """Take value, gradient and optimizer states to another backend."""
        if self._moved_to == backend and (self._value is None or backend.owns(self._value)):
            # By another layer of which it is a parameter too.
            return
        self._moved_to = backend
        if self._owner is None:
            self._backend = backend
        # Nothing of the old place is kept.
        self._own_value = self._own_grad = None
        self._value = None if self._value is None else moved(self._value, backend)
        self.grad = None if self.grad is None else moved(self.grad, backend)
        for optimizer, state in self.states.items():
            self.remember(optimizer, state, backend)

    def remember(self, optimizer: Any, state: Mapping[str, Any], backend: Backend) -> None:
        """Keep a state for an optimizer, its arrays on that backend."""
        self.states[optimizer] = {k: _kept(v, backend) if hasattr(v, "dtype") else v for k, v in state.items()}

    def __getstate__(self) -> dict[str, Any]:
        # A weak mapping can't be pickled; a copy of an optimizer that nothing else holds is gone again at once.
        # A shallow copy shares its arrays, so they are neither's own.
        return {**self.__dict__, "states": list(self.states.items()), "_own_value": None, "_own_grad": None}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes, states=WeakKeyDictionary(attributes["states"]))

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape})"


def _backend_for(value: Array) -> Backend:
    """What is to compute with a value that no layer has: the backend in exact numerics that made it, else that of the
    enclosing `use_backend` where it lives there, else its library's."""
    found, ambient = origins.maker(value), ambient_backend()
    if found is not None and found.backend.numerics == "exact":
        made_by: Backend = found.backend
        return made_by
    name = dtype_name(value.dtype)
    if ambient is not None and ambient.owns(value) and (ambient.numerics == "fast" or name == ambient.dtype_name):
        return get_backend(ambient, name)
    return get_backend(backend_of(value), name)


def _kept(array: Array, backend: Backend) -> Array:
    """A state's array on a backend, in its dtype; a count or power, which is 0-d, stays as precise as it is."""
    if array.ndim == 0 and backend.has(dtype_name(array.dtype)):
        return backend.asarray(to_host(array))
    return moved(array, backend)
