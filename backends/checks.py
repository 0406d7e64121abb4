"""The checks of arguments, for the whole library: what was given, what is accepted, and what to do.

Each function takes the argument's name and value and returns the value as the rest of the code wants it: integers and
numbers as Python's own, whatever library they came from. Each raises `ValueError` for a value that is not accepted, and
`TypeError` for an object of another class, with one style of message::

    batch_size must be an integer >= 1, got 0
    lr must be a number > 0, got 'fast'
    loss must be a Loss, got the class CrossEntropy; make an object of it: CrossEntropy()
"""

import inspect
from collections.abc import Iterable
from math import inf, isfinite
from numbers import Integral, Real
from reprlib import Repr
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")

_repr = Repr()
_repr.maxstring = _repr.maxother = 120


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, of Python or NumPy, and not a boolean."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, of Python or NumPy, and not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A value as a message quotes it: classes as such, arrays by dtype and shape, long text and lists shortened."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape:
        return f"an array of {str(dtype).rpartition('.')[2]}, shape {tuple(shape)}"
    return _repr.repr(value)


def integer(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """An integer within limits that both count as inside."""
    if is_integer(value) and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    if least is not None and most is not None:
        accepted = f"an integer from {least} to {most}"
    else:
        accepted = (
            "an integer" + (f" >= {least}" if least is not None else "") + (f" <= {most}" if most is not None else "")
        )
    raise ValueError(f"{name} must be {accepted}, got {shown(value)}")


def number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    infinite: bool = False,
) -> float:
    """A real number within limits: at least ``least`` or above ``above``, at most ``most`` or below ``below``.

    NaN is never accepted, infinity only where ``infinite`` says so. An integer stays one.
    """
    if (
        is_number(value)
        and (isfinite(value) or (infinite and abs(value) == inf))
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        return int(value) if is_integer(value) else float(value)
    limits = [
        f"{sign} {limit:g}"
        for sign, limit in ((">=", least), (">", above), ("<=", most), ("<", below))
        if limit is not None
    ]
    accepted = " ".join(["a number" if infinite or limits else "a finite number", " and ".join(limits)]).strip()
    raise ValueError(f"{name} must be {accepted}, got {shown(value)}")


def choice(name: str, value: T, accepted: Iterable[object]) -> T:
    """One of a few values."""
    choices = tuple(accepted)
    # An array compares entry by entry, and what has no hash is none of them.
    if not any(type(value) is type(each) and value == each for each in choices):
        raise ValueError(f"{name} must be {alternatives(map(repr, choices))}, got {shown(value)}")
    return value


def flag(name: str, value: object) -> bool:
    """True or False, of Python or NumPy; 0, 1 and text are neither."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def instance(name: str, value: Any, kind: type[T], hint: str = "") -> T:
    """An object of a class; ``hint`` is what to do otherwise."""
    if isinstance(value, kind):
        return value
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    if inspect.isclass(value) and issubclass(value, kind):
        hint = f"make an object of it: {value.__name__}()"
    raise TypeError(f"{name} must be {article} {kind.__name__}, got {shown(value)}{f'; {hint}' if hint else ''}")


def alternatives(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *before, last = words
    return f"{', '.join(before)} or {last}" if before else last
