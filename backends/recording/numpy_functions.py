"""How functions of NumPy are replayed: into which array they write, and with as little Python code as possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...common.types import Array

#: Function, arguments and keywords of a call.
Bound = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

#: Functions that write into their first argument.
WRITERS = {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}
#: Functions of shapes and dtypes only.
ABOUT = {np.can_cast, np.common_type, np.iscomplexobj, np.isrealobj, np.may_share_memory, np.min_scalar_type, np.ndim}
ABOUT |= {np.result_type, np.shape, np.shares_memory, np.size}
#: Functions whose results have a shape that depends on values.
REFUSED = {np.argwhere, np.compress, np.extract, np.flatnonzero, np.nonzero, np.unique, np.unique_all}
REFUSED |= {np.unique_counts, np.unique_inverse, np.unique_values, np.ndarray.compress, np.ndarray.nonzero}
#: Functions that write into ``out``.
WITH_OUT = {np.clip, np.concatenate, np.cumsum, np.stack}
for _name in ("all", "any", "argmax", "argmin", "clip", "cumsum", "max", "min", "prod", "sum"):
    WITH_OUT |= {getattr(np, _name), getattr(np.ndarray, _name)}
_COPIES = {np.copy, np.ndarray.astype, np.ndarray.copy}
_RESHAPES = {np.ravel, np.reshape, np.ndarray.flatten, np.ndarray.ravel, np.ndarray.reshape}
# Reductions, and the ufuncs that compute them without Python code around.
_REDUCTIONS: dict[Any, np.ufunc] = {
    np.all: np.logical_and,
    np.any: np.logical_or,
    np.max: np.maximum,
    np.min: np.minimum,
    np.prod: np.multiply,
    np.sum: np.add,
}
_REDUCTIONS |= {getattr(np.ndarray, function.__name__): ufunc for function, ufunc in _REDUCTIONS.items()}
# Those that have another dtype than integers that they reduce.
_WIDENING = {np.sum, np.prod, np.ndarray.sum, np.ndarray.prod}


def into(out: Any, function: Any, args: Any, keywords: Any) -> Bound:
    """The call of a function of `WITH_OUT` or a ufunc that writes into ``out``."""
    given = {name: value for name, value in keywords.items() if value is not np._NoValue and name != "out"}
    reduces = function in _REDUCTIONS and given.keys() <= {"axis", "dtype", "keepdims"} and len(args) <= 2
    if not reduces or (function in _WIDENING and given.get("dtype") is None and args[0].dtype.kind in "biu"):
        return function, args, {**keywords, "out": out}
    axis = args[1] if len(args) == 2 else given.pop("axis", None)
    return _REDUCTIONS[function].reduce, args[:1], {**given, "axis": axis, "out": out}


def copied(own: Any, function: Any, args: Any, keywords: Any) -> Bound:
    """The call of a function without ``out``, whose result is copied into ``own``: one array, or a list of them."""
    if function in _COPIES and own.shape == args[0].shape:
        return np.copyto, (own, args[0]), {"casting": "unsafe"}
    if function in _RESHAPES and keywords.get("order", "C") == "C" and own.flags.c_contiguous and own.size:
        # Row-major order, in which the result can be seen in the shape of the argument.
        return np.copyto, (own.reshape(args[0].shape), args[0]), {}
    if function is np.where and len(args) == 3 and args[0].dtype == bool:
        return select, (own, *args), {}
    return (copy_all if isinstance(own, list) else copy), (own, function, args, keywords), {}


def copy(own: Array, function: Any, args: Any, keywords: Any) -> None:
    """Call a function, and copy its result."""
    np.copyto(own, function(*args, **keywords))


def copy_all(own: list[Array], function: Any, args: Any, keywords: Any) -> None:
    """Call a function, and copy its results."""
    for target, each in zip(own, function(*args, **keywords), strict=True):
        if target is not each:
            np.copyto(target, each)


def select(own: Array, mask: Array, x: Any, y: Any) -> None:
    """`np.where` without a temporary array."""
    np.copyto(own, y)
    np.copyto(own, x, where=mask)


def is_basic(index: Any) -> bool:
    """Whether an index selects a view: integers, slices, None and an ellipsis."""
    whole = index if isinstance(index, tuple) else (index,)
    basic = (int, slice, np.integer)
    return all(
        each is None or each is Ellipsis or (isinstance(each, basic) and not isinstance(each, bool)) for each in whole
    )


def has_mask(index: Any) -> bool:
    """Whether an index has a mask, which selects a number of entries that depends on values."""
    whole = index if isinstance(index, tuple) else (index,)
    return any(isinstance(each, np.ndarray) and each.dtype.kind == "b" for each in whole)
