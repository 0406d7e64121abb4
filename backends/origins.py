"""A record of which backend made an array, for functions that must continue in the same numerics.

Arrays are the library's own and have no attribute for numerics. So that a loss, a pure function or a gradient does not
leave exact numerics by mistake, the arrays that exact numerics made are recorded by weak references: outputs and
gradients of layers, gradients of losses, results of pure functions, values of parameters, and arrays from
`Backend.asarray` or a loader. Views of such an array count as well if they share its memory; arrays that a user
computes from it do not.

As soon as a process has opened a backend with exact numerics, `watching` is True, and arrays that fast numerics made
are recorded too, so that a gradient of them can be refused. Any other process only reads `watching`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..common.types import Array, dtype_name

#: Whether a backend with exact numerics was opened in this process.
watching = False
#: The number of results and gradients that fast numerics computed from arrays that exact numerics may have made.
fast_results = 0
#: The name of the maker of arrays that come from `Backend.asarray` or an uploader.
INPUT = "asarray"


class MakerBackend(Protocol):
    """The part of a `Backend` that this module needs."""

    @property
    def numerics(self) -> str:
        """``"fast"`` or ``"exact"``."""

    @classmethod
    def memory_of(cls, array: Array) -> Any:
        """An object that lives as long as one of the arrays that share its memory."""


class Maker(NamedTuple):
    """The backend that computed an array, and the class or function that returned it."""

    backend: Any
    name: str

    @property
    def is_input(self) -> bool:
        """Whether the array came from `Backend.asarray` or an uploader."""
        return self.name == INPUT


def _itself(array: Array) -> Any:
    return array


_memory_of: Callable[[Array], Any] = _itself

_made: dict[int, tuple[weakref.ref[Any], Maker]] = {}
# One thread may delete an array while another records the next one at the same address. The lock is reentrant, because
# the deletion of another array may interrupt the thread that has it.
_lock = threading.RLock()


def find_memory_by(memory_of: Callable[[Array], Any]) -> None:
    """Set the function that returns an object which is the same for arrays that share memory, and for no others."""
    global _memory_of
    _memory_of = memory_of


def watch() -> None:
    """Record arrays from now on."""
    global watching
    watching = True


def count_fast_result() -> None:
    """Count a result that fast numerics computed from an array that exact numerics may have made."""
    global fast_results
    with _lock:
        fast_results += 1


def record_maker(array: Any, backend: MakerBackend, name: str, *, whole: bool = True) -> None:
    """Record who made an array; ``whole`` says that no other array shares its memory."""
    if not watching or not hasattr(array, "dtype") or dtype_name(array.dtype) == "float64":
        return
    maker = Maker(backend, name)
    _record(array, maker)
    if whole and backend.numerics == "exact" and (memory := backend.memory_of(array)) is not array:
        _record(memory, maker)


def maker_of(array: Any) -> Maker | None:
    """Who made an array, or the array that it is a view of; None if unknown."""
    if not watching or not hasattr(array, "dtype"):
        return None
    found = _of(array)
    if found is None:
        memory = _memory_of(array)
        found = None if memory is array else _of(memory)
    return found


def is_recorded(thing: Any) -> bool:
    """Whether this module has a weak reference to the object."""
    return _of(thing) is not None


def exact_maker(array: Any) -> tuple[Any, bool] | None:
    """The backend with exact numerics that made an array, and whether it is data; None for other arrays."""
    found = maker_of(array)
    return None if found is None or found.backend.numerics == "fast" else (found.backend, found.is_input)


def copy_maker(array: Array, copy: Array) -> None:
    """Record the maker of an array for its copy, too."""
    if (found := maker_of(array)) is not None:
        record_maker(copy, *found)


def require_exact(array: Any, what: str, owner: str, before: int | None = None, since: str = "the forward") -> None:
    """Raise `ValueError` for a gradient that fast numerics computed, or may have computed.

    ``before`` is the number of `fast_results` at the forward of the gradient, or at the time that ``since`` names.
    """
    found = maker_of(array)
    if found is not None and found.backend.numerics == "fast":
        raise ValueError(
            f"{what} was computed in fast numerics by {found.name}, but {owner} computes in exact numerics; pass "
            "backend=model.backend to a loss, numerics='exact' to a layer or container, arrays of "
            f"model.backend.asarray and no xp to a function, so that {found.name} computes in exact numerics too"
        )
    if found is None and before is not None and before != fast_results:
        raise ValueError(
            f"{what} comes from your own arithmetic, and since {since} something was computed in fast numerics, "
            f"but {owner} computes in exact numerics; pass the loss its backend, as in "
            "CrossEntropy(backend=model.backend), and functions arrays of model.backend.asarray, or, if this gradient "
            "does not depend on that result, give it as model.backend.asarray(dy)"
        )


def _record(thing: Any, maker: Maker) -> None:
    key = id(thing)
    try:
        reference = weakref.ref(thing, lambda _: _forget(key))
    except TypeError:
        # A number, or an array of a library without weak references.
        return
    with _lock:
        _made[key] = reference, maker


def _forget(key: int) -> None:
    # Another object may have got the address of the deleted one.
    with _lock:
        entry = _made.get(key)
        if entry is not None and entry[0]() is None:
            del _made[key]


def _of(thing: Any) -> Maker | None:
    entry = _made.get(id(thing))
    return entry[1] if entry is not None and entry[0]() is thing else None
