"""Weights that a user gives to a loss: numbers, kept on the host and copied to each device once."""

import hashlib
from typing import Any, Self

from ...backends import Backend, to_host
from ...backends.inputs import describe
from ...common.types import Array, DType, dtype_name

SHOWN = 16  # a message with more numbers than that is no help


class Weights:
    """Numbers that do not change, for any backend.

    Parameters
    ----------
    numbers : array_like
        Floats or integers: nested numbers, or an array of any backend. They are copied.
    what : str
        What a message calls them.

    Raises
    ------
    TypeError
        For anything but numbers.
    """

    def __init__(self, numbers: Any, what: str) -> None:
        host = to_host(numbers, what)
        if host.dtype.kind == "b":
            raise TypeError(f"{what} must be numbers, got {describe(numbers)}")
        self._host = host.astype("float64")
        self._copies: dict[tuple[Backend, str], Array] = {}

    @classmethod
    def given(cls, numbers: Any, what: str) -> Self | None:
        """Weights, or None for None."""
        return None if numbers is None else cls(numbers, what)

    def on(self, backend: Backend, dtype: DType) -> Array:
        """The array on that backend in that dtype, copied there the first time."""
        key = backend, dtype_name(dtype)
        if key not in self._copies:
            copy = backend.asarray(self._host.astype(key[1]))
            # Streams that read the copy later have no order with the one that made it.
            backend.synchronize()
            self._copies[key] = copy
        return self._copies[key]

    def digest(self) -> str:
        """The beginning of the SHA-256 of the numbers, which tells other ones where `repr` leaves them out."""
        return hashlib.sha256(self._host.tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        if self._host.size > SHOWN:
            return f"<{self._host.size} numbers>"
        return repr(self._host.tolist())
