"""Functions that are recorded as one call each, whatever they do inside: they may read values and branch by them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ...common.types import Array
from .calls import current
from .traced import traced_arrays, traced_call, unwrapped


def one_call(function: Callable[..., Array], *args: Any, **keywords: Any) -> Array:
    """``function(*args, **keywords)``, a new array or a view."""
    if current() is None:
        return function(*args, **keywords)
    found: Array = traced_call(function, args, keywords)
    return found


def opaque_writer(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function that writes into its last argument and returns that."""

    @wraps(function)
    def call(*args: Any) -> Array:
        tape, out = current(), args[-1]
        if tape is None:
            return function(*args)
        tape.written(out)
        function(*unwrapped(args))
        tape.append(function, args, {})
        found: Array = out
        return found

    return call


class RecordedKernels:
    """Compiled kernels, each call of which is recorded; they may write into all of their arrays.

    Parameters
    ----------
    kernels : module
    """

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kernels, name)
        return self._recorded(found) if callable(found) else found

    @staticmethod
    def _recorded(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            tape, arrays = current(), traced_arrays((args, keywords))
            if tape is None or not arrays:
                return kernel(*args, **keywords)
            for array in arrays:
                tape.written(array)
            result = kernel(*unwrapped(args), **unwrapped(keywords))
            tape.append(kernel, args, keywords)
            return result

        return call
