"""Arguments and results of a step: what of them a recording depends on, and how their arrays are replaced."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...common.types import Array, dtype_name
from ..origins import exact_maker

Owns = Callable[[Any], bool]


def form_of(value: Any, owns: Owns, arrays: list[Array]) -> Any:
    """Nested values with descriptions in place of their arrays, which are appended to ``arrays``.

    A recording serves all arguments of the same form.
    """
    if owns(value):
        arrays.append(value)
        return "array", description(value, owns), exact_maker(value)
    if isinstance(value, tuple | list):
        return type(value), tuple(form_of(each, owns, arrays) for each in value)
    if isinstance(value, dict):
        return dict, tuple((name, form_of(each, owns, arrays)) for name, each in value.items())
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        # 1, 1.0 and True are equal and not the same argument.
        return type(value), _number(value)
    raise TypeError(
        "arguments and results of a compiled step must be arrays of its backend, numbers, and tuples, lists and dicts "
        "of them, got "
        f"{type(value).__module__}.{type(value).__name__}"
    )


def with_arrays(value: Any, owns: Owns, arrays: Iterator[Array]) -> Any:
    """The nested values with other arrays, in the order in which `form_of` found them."""
    if owns(value):
        return next(arrays)
    if isinstance(value, list):
        return [with_arrays(each, owns, arrays) for each in value]
    if isinstance(value, tuple):
        each = [with_arrays(each, owns, arrays) for each in value]
        return type(value)(*each) if hasattr(value, "_fields") else tuple(each)
    if isinstance(value, dict):
        return {name: with_arrays(each, owns, arrays) for name, each in value.items()}
    return value


def description(value: Any, owns: Owns) -> Any:
    """What of a value a recording depends on: shape and dtype of an array, all of a number."""
    if owns(value):
        return tuple(value.shape), dtype_name(value.dtype)
    # An array of another backend was moved there since the recording, which then does not fit.
    return ("foreign", id(value)) if is_array(value) else _number(value)


def is_array(value: Any) -> bool:
    """Whether a value is an array of any library."""
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.generic)


def _number(value: Any) -> Any:
    """A number in a form to compare: 0.0 and -0.0 differ, and NaN is equal to itself."""
    if isinstance(value, np.generic):
        return value.dtype.name, _number(value.item())
    return value.hex() if isinstance(value, float) else value
