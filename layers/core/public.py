"""Pure functions as users call them: without ``xp``, in the numerics of the arrays that they are given."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from array_api_compat import is_array_api_obj

from ...backends import Backend, ambient_backend, backend_of, origins
from ...backends.backend import FLOATS
from ...backends.lookup import has_backend
from ...backends.registry import NUMERICS_VARIABLE
from ...common import checks
from ...common.types import Array, dtype_name

P = ParamSpec("P")
R = TypeVar("R")


def public(function: Callable[P, R], module: str) -> Callable[P, R]:
    """The function for callers outside of the library, who find it in that module.

    Without ``xp``, and where exact numerics made one of the arrays, or the enclosing `use_backend` or the environment
    asks for them, it computes as a layer in exact numerics does: float32 is widened before and rounded after it.
    """

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        if not (origins.watching or os.environ.get(NUMERICS_VARIABLE)):
            return function(*args, **keywords)
        xp: Any = keywords.get("xp")
        if hasattr(xp, "raw"):
            return function(*args, **keywords)
        arrays = [each for each in (*args, *keywords.values()) if _is_array(each)]
        if not all(map(has_backend, arrays)):
            # Of a library without a backend, which knows no exact numerics; or refused by the function.
            return function(*args, **keywords)
        makers = [found for found in map(origins.maker, arrays) if found is not None]
        b = makers[0].backend if makers else _default(arrays)
        if xp is None and b is not None and b.numerics == "exact" and _are_stored(arrays):
            with b.context():
                widened: Any = [b.up(each) if _is_array(each) else each for each in args]
                options: Any = {name: b.up(each) if _is_array(each) else each for name, each in keywords.items()}
                result: R = _narrowed(function(*widened, **{**options, "xp": b.xp}), b, function.__name__)
                return result
        plain = function(*args, **keywords)
        if origins.watching and arrays:
            _note(plain, backend_of(arrays[0]), function.__name__)
            if not makers or makers[0].backend.numerics == "exact":
                # A gradient may be computed from this result, as the one of a softmax is.
                origins.doubt()
        return plain

    call.__module__ = module
    return call


def _is_array(value: Any) -> bool:
    return is_array_api_obj(value) and not checks.is_number(value)


def _are_stored(arrays: list[Array]) -> bool:
    """Whether exact numerics stores them: the floats among them are float32."""
    names = [dtype_name(array.dtype) for array in arrays]
    return not any(name in FLOATS and name != "float32" for name in names)


def _default(arrays: list[Array]) -> Backend | None:
    """The backend for arrays of which nobody knows who made them."""
    ambient = ambient_backend()
    if ambient is not None and arrays and ambient.owns(arrays[0]):
        return ambient
    return backend_of(arrays[0]) if arrays and os.environ.get(NUMERICS_VARIABLE) else None


def _narrowed(result: Any, b: Backend, name: str) -> Any:
    """The arrays of a result as they are stored."""
    if isinstance(result, tuple):
        return tuple([_narrowed(each, b, name) for each in result])
    if not _is_array(result):
        return result
    array = b.down(result)
    origins.made(array, b, name)
    return array


def _note(result: Any, b: Backend, name: str) -> None:
    """Remember who made the arrays of a result."""
    for each in result if isinstance(result, tuple) else (result,):
        if _is_array(each):
            origins.made(each, b, name)
