"""How functions are compiled: for given types, kept on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

from ....common.types import Array

#: Arrays in one piece of memory that are read only, or written.
READ1, READ2, READ3, READ4 = (types.Array(types.float32, n, "C", readonly=True) for n in (1, 2, 3, 4))
WRITE1, WRITE2, WRITE3, WRITE4 = (types.Array(types.float32, n, "C") for n in (1, 2, 3, 4))
READ_BYTES4, WRITE_BYTES4 = types.Array(types.int8, 4, "C", readonly=True), types.Array(types.int8, 4, "C")
PLACES = types.Array(types.int64, 1, "C", readonly=True)
INT, NUMBER = types.int64, types.float32


def compiled(*arguments: Any, contract: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for arguments of these types, at once.

    With ``contract`` a product and a sum may be contracted into one rounding; nothing else is rearranged, and NaN and
    infinity stay what they are.
    """

    def compile_it(function: Callable[..., None]) -> Callable[..., None]:
        fast = {"contract"} if contract else False
        options: dict[str, Any] = {"nogil": True, "fastmath": fast, "error_model": "numpy"}
        try:
            made = numba.njit(types.void(*arguments), cache=True, **options)(function)
        except RuntimeError:
            # No folder can be written, neither beside this file nor the user's: compile in every process.
            made = numba.njit(types.void(*arguments), **options)(function)
        done: Callable[..., None] = made
        return done

    return compile_it


def in_one_piece(x: Array) -> Array:
    """``x``, or a copy where its memory has gaps or another order than its axes."""
    # `np.require` takes 3 microseconds to find that there is nothing to do.
    return x if x.flags.c_contiguous and x.flags.aligned else np.require(x, requirements=("C", "A"))
