"""A trainable array, its gradient, and what optimizers keep beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ..backends import Backend, Generator
from ..backends.types import Array
from .initialisers import Initialiser
from .placement import moved


class Parameter:
    """A trainable array and the gradient that `Layer.backward` adds up for it.

    The value is made on first use: until then a parameter is only a shape and an initialiser, which its layer may
    still place on another backend or seed otherwise, at no cost.

    Parameters
    ----------
    value : array, optional
    grad : array, optional
    shape, initialiser
        Instead of ``value``: how to make it.
    origin : callable, optional
        Gives the generator and backend to make it with.

    Attributes
    ----------
    value : array
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
        origin: Callable[[], tuple[Generator, Backend]] | None = None,
    ) -> None:
        if value is None and (shape is None or initialiser is None or origin is None):
            raise ValueError("a parameter needs a value, or a shape, an initialiser and an origin")
        self._value = value
        self.grad = grad
        self.shape: tuple[int, ...] = tuple(value.shape if value is not None else shape or ())
        self.states: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
        self._initialiser, self._origin = initialiser, origin

    @property
    def value(self) -> Array:
        """The array; setting it replaces it by another of the same shape."""
        if self._value is None and self._initialiser is not None and self._origin is not None:
            generator, backend = self._origin()
            self._value = self._initialiser(self.shape, generator, backend)
        return self._value

    @value.setter
    def value(self, array: Array) -> None:
        if tuple(array.shape) != self.shape:
            raise ValueError(f"this parameter has shape {self.shape}, got an array of shape {tuple(array.shape)}")
        self._value = array

    def accumulate(self, gradient: Array) -> None:
        """Add to ``grad``."""
        self.grad = gradient if self.grad is None else self.grad + gradient

    def move(self, backend: Backend) -> None:
        """Take value, gradient and optimizer states to another backend."""
        self._value = None if self._value is None else moved(self._value, backend)
        self.grad = None if self.grad is None else moved(self.grad, backend)
        for state in self.states.values():
            state.update({k: moved(v, backend) for k, v in state.items() if hasattr(v, "dtype")})

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape})"
