"""A trainable array, its gradient, and the state of optimizers for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ...backends import Backend, Generator, origins
from ...backends.lookup import require_plain
from ...backends.recording.guards import in_recording, require_owned
from ...backends.recording.slots import Slot
from ...backends.sole_reference import ONE_REFERENCE
from ...common import checks
from ...common.types import Array
from ..initialisers import Initialiser
from .array_checks import require_float
from .in_place import copy_with_layout, update_in_place
from .placement import backend_of_value, moved, moved_state, wrong_backend_message


class Owner(Protocol):
    """What a parameter uses of its layer."""

    @property
    def backend(self) -> Backend:
        """Where the layer computes."""

    @property
    def generator(self) -> Generator:
        """The layer's stream of random numbers."""


def _add(total: Array, term: Array) -> tuple[Array]:
    total += term
    return (total,)


class Parameter:
    """A trainable array and its gradient, to which `Layer.backward` adds.

    The value is created on first use. Until then a parameter is only a shape and an initialiser, and the backend and
    seed of its layer may still change at no cost.

    Parameters
    ----------
    value : array, optional
        For a parameter without a layer. It also determines the backend: the one with exact numerics that computed the
        array, else that of the enclosing `use_backend`, else that of the array's library.
    grad : array, optional
    shape, initialiser
        In place of ``value``: how to create it.
    owner : optional
        The layer, whose backend stores the value and whose generator draws it.
    name : str
        The parameter's name in its layer.
    requires_grad : bool

    Attributes
    ----------
    value : array
        An optimizer updates it in place; an array that was set by a user is copied before the first update.
    grad : array or None
        Sum of the gradients since `Layer.zero_grad`; None if there were none.
    requires_grad : bool
        Whether backward computes a gradient; may be set between steps. With False the parameter is *frozen*: ``grad``
        becomes None, and optimizers and clipping leave it and its state alone.
    states : mapping
        The state of each optimizer for this parameter, which is moved with it.
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
        requires_grad: bool = True,
    ) -> None:
        if value is None and (shape is None or initialiser is None or owner is None):
            raise ValueError("a parameter must have a value, or a shape, an initialiser and an owner")
        if value is not None:
            require_plain(value, "value")
            require_float(value, "value")
        self._value = value
        self.grad = grad
        #: Another object after each access by which code outside of layers may change the value: see `kept`.
        self.seen = object()
        # Arrays created here, which may be changed in place; arrays set by a user must not change.
        self._own_value: Array | None = None
        self._own_grad: Array | None = None
        self.shape: tuple[int, ...] = tuple(value.shape if value is not None else shape or ())
        self.states: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
        self._initialiser, self._owner, self._name = initialiser, owner, name
        # The backend of a parameter without a layer.
        self._backend = None if value is None or owner is not None else backend_of_value(value)
        # `origins.fast_results` before the forward to which the gradient belongs.
        self._fast_results = origins.fast_results
        self._requires_grad = checks.flag("requires_grad", requires_grad)
        # The target of the last move, so that a parameter of two layers is moved once.
        self._moved_to: Backend | None = None
        #: Called with the parameter after each `accumulate`, while a step runs; see `xpnn.distributed`.
        self.on_gradient: Callable[[Parameter], None] | None = None

    @property
    def requires_grad(self) -> bool:
        """Whether backward computes a gradient; with False the parameter is frozen."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = checks.flag("requires_grad", value)
        if not value:
            self.zero_grad()

    @property
    def backend(self) -> Backend:
        """The backend of the owner, or of the array for a parameter without a layer."""
        if self._owner is not None:
            return self._owner.backend
        if self._backend is None or not self._backend.owns(self._value):
            self._backend = backend_of_value(self._value)
        return self._backend

    def belong_to(self, owner: Owner) -> None:
        """Make that layer the owner, unless there is one."""
        if self._owner is None:
            self._owner = owner

    def read_by(self, owner: Owner) -> Array:
        """`read`, by a layer that becomes the owner unless there is one."""
        if self._owner is None:
            self._owner = owner
        return self.read() if self._value is None or origins.watching else self._value

    def read(self) -> Array:
        """The array, for a layer to compute with: it must not be changed, and not be returned to the user."""
        if self._value is None and self._initialiser is not None and self._owner is not None:
            generator = self._owner.generator.fold_in(self._name)
            self._value = self._initialiser(self.shape, generator, self._owner.backend)
        if origins.watching and (b := self.backend).numerics == "exact":
            origins.record_maker(self._value, b, "Parameter", whole=False)
        return self._value

    @property
    def value(self) -> Array:
        """The array; it can be set to another one of the same shape."""
        array = self.read()
        # After the array is referred to from here: `is_held_elsewhere` sees one or the other.
        self.seen = object()
        return array

    @value.setter
    def value(self, array: Array) -> None:
        if self._owner is not None and not self._owner.backend.owns(array):
            raise TypeError(wrong_backend_message(array, self._owner.backend, "value"))
        require_plain(array, "value")
        require_float(array, "value")
        if tuple(array.shape) != self.shape:
            raise ValueError(f"value must have shape {self.shape}, got an array of shape {tuple(array.shape)}")
        require_owned(self, f"a parameter of shape {self.shape}")
        self._value, self.seen = array, object()

    def is_held_elsewhere(self) -> bool:
        """Whether something else refers to the array of the value; see `xpnn.layers.core.kept`."""
        if self._value is None:
            self.read()
        own = self._own_value is self._value
        return sys.getrefcount(self._value) != ONE_REFERENCE + own

    def is_sole_access(self) -> bool:
        """Whether there is no other way to the memory of the value."""
        return self.backend.is_sole_array(self._value)

    def slots(self, name: str) -> Iterator[Slot]:
        """Value and gradient for `Backend.compile`, under a full name."""
        yield Slot.attribute(name, self, "value", self._keep_own_value, self.adopt_value)
        yield Slot.attribute(f"{name}.grad", self, "grad", self._own_gradient, self._adopt_gradient)

    def own_value(self) -> Array:
        """The value, to be changed in place; an array that was set by a user is replaced by a copy.

        The copy has the memory layout of the gradient, so that an update reads both in memory order.
        """
        self._fast_results = origins.fast_results
        if self._own_value is None or self._value is not self._own_value:
            like = self.value if self.grad is None else self.grad
            self._value = self._own_value = copy_with_layout(self.value, like, self.backend)
        array = self._own_value
        self.seen = object()
        return array

    def _keep_own_value(self) -> None:
        """`own_value` if an optimizer changes it; otherwise the copy has the memory layout of the value."""
        if self.states:
            self.own_value()
        elif self._own_value is None or self._value is not self._own_value:
            self._value = self._own_value = copy_with_layout(self.value, self.value, self.backend)
        self.seen = object()

    def _own_gradient(self) -> None:
        """Replace ``grad`` by a copy, unless it was created here and may be changed in place."""
        if self.grad is not None and (self._own_grad is None or self.grad is not self._own_grad):
            self.grad = self._own_grad = copy_with_layout(self.grad, self.grad, self.backend)

    def _adopt_gradient(self) -> None:
        """Treat the gradient as created here."""
        self._own_grad = self.grad

    def is_own_value(self) -> bool:
        """Whether updates change the value in place, because it was created here."""
        return self._own_value is not None and self._own_value is self._value

    def adopt_value(self) -> None:
        """Treat the value as created here: updates change it in place, and it keeps its memory layout."""
        self._own_value = self._value

    def accumulate(self, gradient: Array) -> None:
        """Add to ``grad``, in place except for the first gradient, which may be in use elsewhere."""
        if in_recording():
            require_owned(self, f"the gradient of a parameter of shape {self.shape}")
        if origins.watching:
            self.check_gradient(gradient)
        if self.grad is None:
            self.grad = gradient
        else:
            self._own_gradient()
            update_in_place(_add, [self.grad], gradient, backend=self.backend)
        if self.on_gradient is not None:
            self.on_gradient(self)

    def zero_grad(self) -> None:
        """Set ``grad`` to None."""
        self.grad, self._fast_results = None, origins.fast_results

    def check_gradient(self, gradient: Array, *, is_last: bool = False) -> None:
        """Raise `ValueError` for a gradient from fast numerics if the parameter is in exact numerics.

        ``is_last`` means that the value is updated with it next. Then a gradient of unknown origin, such as the result
        of a user's arithmetic, is refused too if fast numerics computed anything since the last step or `zero_grad`.
        """
        if origins.watching and self.backend.numerics == "exact":
            what, before = f"the parameter of shape {self.shape}", self._fast_results if is_last else None
            origins.require_exact(gradient, "the gradient", what, before, "the last step or zero_grad()")

    def move(self, backend: Backend) -> None:
        """Move value, gradient and optimizer states to another backend."""
        if self._moved_to == backend and (self._value is None or backend.owns(self._value)):
            # Another layer with this parameter has moved it.
            return
        self._moved_to = backend
        if self._owner is None:
            self._backend = backend
        # Free the memory on the old backend.
        self._own_value = self._own_grad = None
        self._value = None if self._value is None else moved(self._value, backend)
        self.seen = object()
        self.grad = None if self.grad is None else moved(self.grad, backend)
        for optimizer, state in self.states.items():
            self.set_state(optimizer, state, backend)

    def set_state(self, optimizer: Any, state: Mapping[str, Any], backend: Backend) -> None:
        """Set the state of an optimizer, with its arrays moved to that backend."""
        self.states[optimizer] = {k: moved_state(v, backend) if hasattr(v, "dtype") else v for k, v in state.items()}

    def __getstate__(self) -> dict[str, Any]:
        # A weak mapping cannot be pickled; the copy of an optimizer without other references is freed at once.
        # A shallow copy shares its arrays, so neither object may change them in place.
        states = list(self.states.items())
        own = {"_own_value": None, "_own_grad": None, "seen": object(), "on_gradient": None}
        return {**self.__dict__, "states": states, **own}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes, states=WeakKeyDictionary(attributes["states"]))

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape})"
