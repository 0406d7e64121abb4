"""The numerics of `nn.functional`: a function called without ``xp`` computes in the numerics of its arrays."""

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


def in_numerics_of_arrays(function: Callable[P, R], module: str) -> Callable[P, R]:
    """The function as users call it, with ``module`` as its ``__module__``.

    Called without ``xp``, it computes as a layer in exact numerics does, with float32 widened before and rounded
    after, if exact numerics made one of its arrays, or if the enclosing `use_backend` or ``XPNN_NUMERICS`` sets exact
    numerics. In all other cases it is called unchanged.
    """

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        if not (origins.watching or os.environ.get(NUMERICS_VARIABLE)):
            return function(*args, **keywords)
        xp: Any = keywords.get("xp")
        # The namespace of exact numerics, with which layers call: their arrays are widened already.
        if hasattr(xp, "raw"):
            return function(*args, **keywords)
        arrays = [each for each in (*args, *keywords.values()) if _is_array(each)]
        if not all(map(has_backend, arrays)):
            # There are no exact numerics for a library without a backend; anything else the function refuses.
            return function(*args, **keywords)
        makers = [found for found in map(origins.maker_of, arrays) if found is not None]
        b = makers[0].backend if makers else _default(arrays)
        if xp is None and b is not None and b.numerics == "exact" and _are_stored(arrays):
            with b.context():
                widened: Any = [b.up(each) if _is_array(each) else each for each in args]
                options: Any = {name: b.up(each) if _is_array(each) else each for name, each in keywords.items()}
                result: R = _narrowed(function(*widened, **{**options, "xp": b.xp}), b, function.__name__)
                return result
        plain = function(*args, **keywords)
        if origins.watching and arrays:
            _record(plain, backend_of(arrays[0]), function.__name__)
            if not makers or makers[0].backend.numerics == "exact":
                # A gradient may be computed from this result, as the one of a softmax is.
                origins.count_fast_result()
        return plain

    call.__module__ = module
    return call


def _is_array(value: Any) -> bool:
    return is_array_api_obj(value) and not checks.is_number(value)


def _are_stored(arrays: list[Array]) -> bool:
    """Whether exact numerics stores such arrays: those of floats must be float32."""
    names = [dtype_name(array.dtype) for array in arrays]
    return not any(name in FLOATS and name != "float32" for name in names)


def _default(arrays: list[Array]) -> Backend | None:
    """The backend for arrays whose backend is not recorded; None for fast numerics by default."""
    ambient = ambient_backend()
    if ambient is not None and arrays and ambient.owns(arrays[0]):
        return ambient
    return backend_of(arrays[0]) if arrays and os.environ.get(NUMERICS_VARIABLE) else None


def _narrowed(result: Any, b: Backend, name: str) -> Any:
    """A result with its arrays rounded to the dtype in which they are stored."""
    if isinstance(result, tuple):
        return tuple([_narrowed(each, b, name) for each in result])
    if not _is_array(result):
        return result
    array = b.down(result)
    origins.record_maker(array, b, name)
    return array


def _record(result: Any, b: Backend, name: str) -> None:
    """Record which backend computed the arrays of a result."""
    for each in result if isinstance(result, tuple) else (result,):
        if _is_array(each):
            origins.record_maker(each, b, name)
