"""The weights of classes or entries that a user gives to a loss: stored on the host, copied once to each backend."""

import hashlib
from typing import Any, Self

from ...backends import Backend, to_host
from ...backends.inputs import describe
from ...common.types import Array, DType, dtype_name

MAX_SHOWN = 16  # numbers in a message


class LossWeights:
    """Constant numbers for any backend.

    Parameters
    ----------
    numbers : array_like
        Floats or integers: nested numbers, or an array of any backend. They are copied.
    what : str
        Their name in messages.

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
        """The weights, or None if there are none."""
        return None if numbers is None else cls(numbers, what)

    def on(self, backend: Backend, dtype: DType) -> Array:
        """The array on that backend in that dtype, copied there the first time."""
        key = backend, dtype_name(dtype)
        if key not in self._copies:
            copy = backend.asarray(self._host.astype(key[1]))
            # Streams that read the copy later do not wait for the stream that made it.
            backend.synchronize()
            self._copies[key] = copy
        return self._copies[key]

    def digest(self) -> str:
        """The first 16 digits of the numbers' SHA-256; it tells apart numbers that `repr` leaves out."""
        return hashlib.sha256(self._host.tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        if self._host.size > MAX_SHOWN:
            return f"<{self._host.size} numbers>"
        return repr(self._host.tolist())
