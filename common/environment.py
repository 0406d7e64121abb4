"""The environment variables that xpnn reads, in one table: what each accepts, and the error for other values.

An empty variable counts as unset; blanks around a value are ignored. A wrong value raises `ValueError` where the
variable is needed, never at import. The commands check all variables before they begin (`check`) and end with one line
and status 2 if one is wrong.

This file needs the standard library only: `scripts/gpu_check.py` reads it on machines that lack the packages of xpnn.
"""

import difflib
import os
from dataclasses import dataclass
from typing import Any

BACKEND = "XPNN_BACKEND"
NUMERICS = "XPNN_NUMERICS"
NUM_THREADS = "XPNN_NUM_THREADS"
NUMBA = "XPNN_NUMBA"
CUDA_KERNELS = "XPNN_CUDA_KERNELS"
TRACEBACK = "XPNN_TRACEBACK"
REQUIRE_BACKENDS = "XPNN_REQUIRE_BACKENDS"
NVRTC = "XPNN_NVRTC"
FUZZ_SEED = "XPNN_FUZZ_SEED"
GPU_LINES = "XPNN_GPU_LINES"
STARTED_FOR = "XPNN_STARTED_FOR"


@dataclass(frozen=True)
class Variable:
    """What a variable accepts, in words; its ``values``, if they are few; ``number`` if it is a count."""

    accepted: str
    values: tuple[str, ...] = ()
    number: bool = False
    hint: str = ""


VARIABLES = {
    BACKEND: Variable("the name of a backend: numpy, cupy, cupy:1, torch, torch:cuda:0, strict or auto"),
    NUMERICS: Variable("'fast' or 'exact'", ("fast", "exact")),
    NUM_THREADS: Variable("an integer >= 1", hint="unset it for all cores available", number=True),
    NUMBA: Variable("0 (no compiled kernels) or 1", ("0", "1")),
    CUDA_KERNELS: Variable("0 (no CUDA kernels of our own) or 1", ("0", "1")),
    TRACEBACK: Variable("0 or 1 (the commands show tracebacks)", ("0", "1")),
    REQUIRE_BACKENDS: Variable("names of the tests' backends, with commas between"),
    FUZZ_SEED: Variable("an integer >= 0, for the tests"),
    NVRTC: Variable("a folder with NVIDIA's compiler NVRTC, for the tests"),
    GPU_LINES: Variable("a file; set by scripts/gpu_check.py for the tests that it runs"),
    STARTED_FOR: Variable("a mark; set by scripts/gpu_check.py to find the processes that it started"),
}


# The table behind `os.environ` and the variables' keys in it: layers look for each operation, and a look there takes a
# tenth of the time.
_table: Any = getattr(os.environ, "_data", None)
_keys = {} if _table is None else {name: os.environ.encodekey(name) for name in VARIABLES}


def given(name: str) -> str:
    """A variable as it is set, unchecked; empty if it is not."""
    if _table is None:
        return os.environ.get(name, "")
    key = _keys[name]
    return os.environ.decodevalue(_table[key]) if key in _table else ""


def value(name: str) -> str | None:
    """A variable's value without blanks around it; None if it is unset or empty.

    Raises
    ------
    ValueError
        For a value that the variable does not accept.
    """
    text = given(name)
    if not text:
        return None
    return _checked(name, text)


def _checked(name: str, given: str) -> str:
    text, variable = given.strip(), VARIABLES[name]
    right = text in variable.values if variable.values else bool(text)
    if variable.number:
        right = text.isascii() and text.isdecimal() and len(text) < 20 and int(text) >= 1
    if not right:
        raise wrong(name, given)
    return text


def wrong(name: str, given: str) -> ValueError:
    """The error for a value that the variable does not accept."""
    variable = VARIABLES[name]
    hint = f"; {variable.hint}" if variable.hint else ""
    return ValueError(f"{name} must be {variable.accepted}, got {given!r}{hint}")


def switch(name: str, *, unset: bool = True) -> bool:
    """Whether a variable that accepts 0 and 1 is 1."""
    text = value(name)
    return unset if text is None else text == "1"


def check() -> None:
    """Check the values of all variables, and that no other one that begins with ``XPNN_`` resembles one of them.

    Raises
    ------
    ValueError
        For the first one that is wrong.
    """
    for name in VARIABLES:
        value(name)
    for name in sorted(os.environ):
        if not name.startswith("XPNN_") or name in VARIABLES:
            continue
        if close := difflib.get_close_matches(name, VARIABLES, 1, 0.85):
            raise ValueError(f"{name} is no variable of xpnn; did you mean {close[0]}?")
