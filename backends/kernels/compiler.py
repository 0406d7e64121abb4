"""How functions are compiled: for given types, kept on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import Any

import numba
from numba import types

#: Arrays in one piece of memory that are read only, or written.
READ1, READ2, READ3 = (types.Array(types.float32, n, "C", readonly=True) for n in (1, 2, 3))
WRITE2, WRITE3 = (types.Array(types.float32, n, "C") for n in (2, 3))
PLACES = types.Array(types.int64, 1, "C", readonly=True)
INT = types.int64


def compiled(*arguments: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for arguments of these types, at once.

    A product and a sum may be contracted into one rounding; nothing else is rearranged, and NaN and infinity stay what
    they are.
    """

    def compile_it(function: Callable[..., None]) -> Callable[..., None]:
        options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
        try:
            made = numba.njit(types.void(*arguments), cache=True, **options)(function)
        except RuntimeError:
            # No folder can be written, neither beside this file nor the user's: compile in every process.
            made = numba.njit(types.void(*arguments), **options)(function)
        done: Callable[..., None] = made
        return done

    return compile_it
