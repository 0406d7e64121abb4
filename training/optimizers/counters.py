"""Numbers that a rule counts beside a parameter: its steps, and powers of decay rates.

They are Python's numbers, or 0-d arrays on the device where a compiled step must count without the host
(``capturable``), and in a recording on the CPU. Either form may be read from a checkpoint, so each function here
accepts both. Powers come from repeated multiplication, because `pow` does not give the same bits everywhere.
"""

from math import sqrt
from typing import Any, TypeAlias

from ...backends import Backend
from ...backends.recording.traced import is_traced
from ...common.types import Array, Namespace

Number: TypeAlias = float | Array


class Counting:
    """Base of optimizers that count steps.

    Attributes
    ----------
    capturable : bool
        Whether they are counted on the device.
    """

    capturable: bool

    def count_on_device(self) -> None:
        """Set ``capturable`` to True."""
        self.capturable = True


def on_host(number: Number, b: Backend, factor: float | None = None) -> Number:
    """The number times a factor, as a number of Python; one on the device is read, once, and in no recording."""
    if is_traced(number):
        return number if factor is None else number * factor
    number = b.to_numpy(number).item() if hasattr(number, "dtype") else number
    return number if factor is None else number * factor


def on_device(number: Number, b: Backend, factor: float | None = None) -> Array:
    """The number times a factor, as a 0-d array: integers as such, other numbers in the widest float dtype."""
    if not hasattr(number, "dtype"):
        number = b.xp.full((), number, dtype=_dtype_of(number, b), device=b.device)
    # NumPy makes a scalar of a product of 0-d arrays.
    return number if factor is None else b.xp.asarray(number * factor)


def counter(number: Number, start: float, b: Backend) -> Array:
    """`on_device`, in the dtype of a counter that starts at ``start``: one that was loaded may have another dtype."""
    number, dtype = on_device(number, b), _dtype_of(start, b)
    return number if number.dtype == dtype else b.xp.astype(number, dtype)


def as_factor(number: Number, like: Array, xp: Namespace) -> Number:
    """The number to multiply an array by; one on the device in the array's dtype."""
    return xp.astype(number, like.dtype) if hasattr(number, "dtype") else number


def square_root(number: Number, b: Backend) -> Number:
    """The root, rounded correctly."""
    root: Number = b.xp.sqrt(number) if hasattr(number, "dtype") else sqrt(number)
    return root


def widest(b: Backend) -> Any:
    """The widest float dtype of the device."""
    return b.xp.float64 if b.has("float64") else b.dtype


def _dtype_of(number: float, b: Backend) -> Any:
    return getattr(b.xp, "int64", None) or b.xp.int32 if isinstance(number, int) else widest(b)
