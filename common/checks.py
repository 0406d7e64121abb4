"""Checks of arguments, for the whole library.

Each function accepts the name and value of an argument and returns the value in one form: integers and numbers as
Python's own, whatever library they came from. Each raises `ValueError` for a value that is not accepted, and
`TypeError` for an object of another class. The message says what is accepted, what was given and perhaps what to do::

    batch_size must be an integer >= 1, got 0
    lr must be a number > 0, got 'fast'
    loss must be a Loss, got the class CrossEntropy; make an object of it: CrossEntropy()
"""

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from math import inf
from numbers import Integral, Real
from reprlib import Repr
from typing import Any, TypeGuard, TypeVar

import numpy as np

from .types import dtype_name

T = TypeVar("T")

_repr = Repr()
_repr.maxstring = _repr.maxother = 120


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, of Python or NumPy, and not a boolean."""
    # The usual case first, because every step asks.
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, of Python or NumPy, and not a boolean."""
    if type(value) is float:
        # The usual case first, because every loss asks.
        return True
    return isinstance(value, Real) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A value for a message: classes by name, arrays by dtype and shape, long text and lists shortened."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and isinstance(shape, tuple) and not isinstance(value, np.generic):
        return f"an array of {dtype_name(dtype)}, shape {tuple(shape)}"
    try:
        return _repr.repr(value)
    except ValueError:  # Python does not convert integers of more than 4300 digits to text
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def integer(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """An integer from ``least`` to ``most``, both included."""
    if is_integer(value) and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    if least is not None and most is not None:
        accepted = f"an integer from {least} to {most}"
    else:
        accepted = (
            "an integer" + (f" >= {least}" if least is not None else "") + (f" <= {most}" if most is not None else "")
        )
    raise ValueError(f"{name} must be {accepted}, got {shown(value)}")


def seed(name: str, value: object) -> int:
    """An unsigned integer of 64 bits."""
    if is_integer(value) and 0 <= value < 1 << 64:
        return int(value)
    raise ValueError(f"{name} must be an integer from 0 to 2**64 - 1, got {shown(value)}")


def number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    infinite: bool = False,
    nan: bool = False,
) -> float:
    """A real number within limits: at least ``least`` or above ``above``, at most ``most`` or below ``below``.

    Infinity and NaN are accepted only with ``infinite`` and ``nan``. An integer stays an integer.
    """
    found = _plain(value)
    if nan and found is not None and found != found:
        return found
    if (
        found is not None
        and (-inf < found < inf or (infinite and abs(found) == inf))
        and (least is None or found >= least)
        and (above is None or found > above)
        and (most is None or found <= most)
        and (below is None or found < below)
    ):
        return found
    if least is not None and most is not None:
        accepted = f"a number from {least:g} to {most:g}"
    else:
        limits = " and ".join(
            f"{sign} {limit:g}"
            for sign, limit in ((">=", least), (">", above), ("<=", most), ("<", below))
            if limit is not None
        )
        accepted = f"a number {limits}" if limits else "a number" if infinite or nan else "a finite number"
    raise ValueError(f"{name} must be {accepted}, got {shown(value)}")


def _plain(value: object) -> float | None:
    """A number as Python's own; None for anything else and for an integer beyond the range of floats."""
    if type(value) is float:
        return value
    try:
        found = float(value) if is_number(value) else None
    except OverflowError:
        return None
    return int(value) if is_integer(value) else found


def plain(value: Any) -> Any:
    """A number, or a tuple of numbers, as Python's own; anything else unchanged."""
    if isinstance(value, tuple):
        return tuple(plain(each) for each in value)
    number = _plain(value)
    return value if number is None else number


def per_axis(name: str, value: int | Sequence[int], axes: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each axis, from an integer or a sequence of them."""
    # The usual cases first, because layers call this in each forward.
    if type(value) is int and value >= least:
        return (value,) * axes
    if type(value) is tuple and len(value) == axes and _are_ints(value) and min(value, default=least) >= least:
        return value
    value = listed(value)
    given: Sequence[object] = value if is_sequence(value) else (value,) * axes
    if len(given) != axes or not all(is_integer(each) and each >= least for each in given):
        several = f", or one for each of {axes} axes" if axes != 1 or is_sequence(value) else ""
        raise ValueError(f"{name} must be an integer >= {least}{several}, got {shown(value)}")
    return tuple(int(each) for each in given if is_integer(each))


def _are_ints(values: tuple[object, ...]) -> bool:
    """Whether all are Python's integers and none a boolean; fast."""
    return set(map(type, values)) == {int}


def size(name: str, value: int | Sequence[int], axes: int, least: int = 1) -> int | tuple[int, ...]:
    """An integer, or one for each axis: as `per_axis`, but a single integer stays an integer."""
    each = per_axis(name, value, axes, least)
    return each[0] if is_integer(value) else each


def shape(
    name: str,
    value: object,
    least: int = 0,
    accepted: str = "",
    *,
    length: int | None = None,
    empty: bool = False,
) -> tuple[int, ...]:
    """A sequence of integers, of a given length if there is one, and not empty unless ``empty``.

    ``accepted`` replaces the description of accepted values in the message.
    """
    if type(value) is tuple and length is None and _are_ints(value) and min(value) >= least:
        return value
    value = listed(value)
    if is_sequence(value) and (value or empty) and all(is_integer(each) and each >= least for each in value):
        found = tuple(int(each) for each in value)
        if length in (None, len(found)):
            return found
    usual = f"a sequence of {'' if length is None else f'{length} '}integers >= {least}"
    raise ValueError(f"{name} must be {accepted or usual}, got {shown(value)}")


def numbers(
    name: str,
    value: object,
    count: int,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> tuple[float, ...]:
    """``count`` real numbers, in any sequence or vector, each within the limits of `number`."""
    given = _entries(value)
    if given is None or len(given) != count:
        raise ValueError(f"{name} must be a sequence of {count} numbers, got {shown(value)}")
    return tuple(
        number(f"{name}[{i}]", each, least=least, above=above, most=most, below=below) for i, each in enumerate(given)
    )


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a sequence, such as a list or a tuple, and not text."""
    return isinstance(value, tuple | list) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)
    )


def listed(value: Any) -> Any:
    """A NumPy array of integers as a list of Python's; anything else unchanged."""
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "iu" else value


def _entries(value: object) -> tuple[Any, ...] | None:
    """The entries of a sequence or vector; None for text and for anything without an order."""
    if isinstance(value, str | bytes | bytearray | Mapping | Set) or not isinstance(value, Iterable):
        return None
    try:
        return tuple(value)
    except TypeError:
        return None


def choice(name: str, value: T, accepted: Iterable[object]) -> T:
    """A value that is one of ``accepted``."""
    choices = tuple(accepted)
    # Not `value in choices`: an array compares entry by entry, and True is equal to 1.
    for each in choices:
        alike = isinstance(value, str) if isinstance(each, str) else is_integer(value) and is_integer(each)
        if value is each or (alike and value == each):
            return each
    raise ValueError(f"{name} must be {alternatives(map(repr, choices))}, got {shown(value)}")


def flag(name: str, value: object) -> bool:
    """True or False, of Python or NumPy; 0, 1 and text are not accepted."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def instance(name: str, value: Any, kind: type[T], hint: str = "") -> T:
    """An object of a class; ``hint`` is the advice in the message."""
    if isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    if inspect.isclass(value) and issubclass(value, kind):
        hint = f"make an object of it: {value.__name__}()"
    raise TypeError(f"{name} must be {article} {kind.__name__}, got {shown(value)}{f'; {hint}' if hint else ''}")


def accepts(function: object, arguments: int) -> bool:
    """Whether an object, but not a class, accepts this number of arguments; True if its signature is unknown."""
    if not callable(function) or inspect.isclass(function):
        return False
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # a function of an extension without a signature
        return True
    return True


def mapping(name: str, value: Any, hint: str = "") -> Mapping[Any, Any]:
    """A mapping, such as a dict; ``hint`` is the advice in the message."""
    if isinstance(value, Mapping):
        return value
    raise TypeError(f"{name} must be a mapping, got {shown(value)}{f'; {hint}' if hint else ''}")


def path(name: str, value: Any) -> str | os.PathLike[str]:
    """The path of a file or folder."""
    if isinstance(value, str | os.PathLike):
        return value
    raise TypeError(f"{name} must be a path, got {shown(value)}")


def alternatives(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *before, last = words
    return f"{', '.join(before)} or {last}" if before else last
