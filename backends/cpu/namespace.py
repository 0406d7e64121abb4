"""The namespace of the NumPy backend: NumPy's standard one, whose new arrays belong to the recording that is made.

Functions that are passed arrays of a recording are recorded by themselves. Here are those to which NumPy passes none:
functions that make arrays, and a few that convert their arguments first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import array_api_compat.numpy
import numpy as np

from ...common.types import Array
from ..recording.calls import current
from ..recording.opaque import one_call
from ..recording.traced import is_traced

compat: Any = array_api_compat.numpy


class NumpyNamespace:
    """``array_api_compat.numpy``, with arrays in the memory of a recording."""

    def __init__(self) -> None:
        # By this name `xpnn.backends.registry.name_of` finds the backend of a namespace.
        self.__name__: str = compat.__name__
        self.take, self.count_nonzero, self.clip = (
            partial(one_call, function) for function in (compat.take, compat.count_nonzero, compat.clip)
        )
        self.arange, self.eye, self.linspace, self.tril, self.triu = map(
            _constant, (compat.arange, compat.eye, compat.linspace, compat.tril, compat.triu)
        )

    def __getattr__(self, name: str) -> Any:
        found = getattr(compat, name)
        # Stored, because layers look up a function for each operation.
        self.__dict__[name] = found
        return found

    def __dir__(self) -> list[str]:
        return dir(compat)

    def __repr__(self) -> str:
        return f"<namespace {self.__name__}>"

    def __reduce__(self) -> str:
        return "numpy_namespace"

    def empty(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
        """An uninitialised array."""
        tape = current()
        if tape is None:
            return compat.empty(shape, dtype=dtype, device=device)
        return tape.new(_shape(shape), np.float64 if dtype is None else dtype)

    def zeros(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
        """An array of zeros."""
        return compat.zeros(shape, dtype=dtype, device=device) if current() is None else self._filled(shape, 0, dtype)

    def ones(self, shape: Any, *, dtype: Any = None, device: Any = None) -> Array:
        """An array of ones."""
        return compat.ones(shape, dtype=dtype, device=device) if current() is None else self._filled(shape, 1, dtype)

    def full(self, shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Array:
        """An array of one value."""
        if current() is None:
            return compat.full(shape, fill_value, dtype=dtype, device=device)
        return self._filled(shape, fill_value, np.asarray(fill_value).dtype if dtype is None else dtype)

    def asarray(self, obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Array:
        """An array of anything."""
        if not is_traced(obj):
            return compat.asarray(obj, dtype=dtype, device=device, copy=copy)
        if dtype is None or obj.dtype == dtype:
            return obj.copy(order="K") if copy else obj
        return obj.astype(dtype)

    def _filled(self, shape: Any, value: Any, dtype: Any) -> Array:
        made = self.empty(shape, dtype=dtype)
        made[...] = value
        return made


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(n) for n in shape)


def _constant(make: Callable[..., Array]) -> Callable[..., Array]:
    """A function whose results in a recording are constants, not to be written to."""

    def call(*args: Any, **keywords: Any) -> Array:
        made = make(*args, **keywords)
        if current() is not None and not is_traced(made):
            made.flags.writeable = False
        return made

    return call


numpy_namespace = NumpyNamespace()
