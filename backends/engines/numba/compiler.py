"""Compilation by Numba: for given argument types, cached on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from ....common.types import Array

INT = types.int64


def instruction(make: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator `numba.extending.intrinsic`, which makes a function of compiled code from LLVM's instructions."""
    made: Callable[..., Any] = intrinsic(make)
    return made


def compiled(
    *arguments: Any, contract: bool = True, result: Any = types.void
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that compiles a function for arguments of these types, immediately.

    With ``contract``, a product and a sum may become one fused multiply-add. Nothing else is rearranged, and NaN and
    infinity are preserved.
    """

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        fast = {"contract"} if contract else False
        options: dict[str, Any] = {"nogil": True, "fastmath": fast, "error_model": "numpy"}
        try:
            made = numba.njit(result(*arguments), cache=True, **options)(function)
        except RuntimeError:
            # Neither the folder of this file nor the user's cache is writable: compile in every process.
            made = numba.njit(result(*arguments), **options)(function)
        typed: Callable[..., Any] = made
        return typed

    return compile_it


def njit(cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator `numba.njit`: for any types, each compiled when it is first met."""

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = numba.njit(cache=cache, **options)(function)
        except RuntimeError:
            # As in `compiled`.
            made = numba.njit(**options)(function)
        return made

    return compile_it


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a function that is called by compiled ones and compiled with them, for any types."""
    fast: Any = {"contract"}
    made: Callable[..., Any] = numba.njit(error_model="numpy", fastmath=fast)(function)
    return made


def contiguous(x: Array) -> Array:
    """``x`` itself if it is C-contiguous and aligned, else a copy."""
    return x if x.flags.c_contiguous and x.flags.aligned else x.copy(order="C")
