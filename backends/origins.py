"""Which backend made an array, where that decides in which numerics to go on.

Arrays are the library's own and say nothing of numerics. So that a loss, a pure function or a gradient does not leave
exact numerics because nobody told it, what exact numerics made is remembered beside the arrays, weakly: outputs and
gradients of layers, gradients of losses, results of pure functions, values of parameters, and what came in through
`Backend.asarray` or a loader. Views of such an array count as well, as long as they share its memory. What a user
computes from it does not.

As soon as a process has opened a backend with exact numerics, `watching` is True, and what fast numerics made is
remembered too, so that a gradient of it can be refused. A process that never does so pays for one look at `watching`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..common.types import Array, dtype_name

#: Whether a backend with exact numerics was opened in this process.
watching = False
#: Gradients, and results of functions, that fast numerics computed of arrays which exact numerics may have made.
doubts = 0
#: The name of who makes an array of what came in from outside.
INPUT = "asarray"


class Place(Protocol):
    """What is asked of the `Backend` that made an array."""

    @property
    def numerics(self) -> str:
        """``"fast"`` or ``"exact"``."""

    @classmethod
    def memory_of(cls, array: Array) -> Any:
        """An object that lives as long as one of the arrays that share its memory."""


class Maker(NamedTuple):
    """Where an array was computed, and the class or function that returned it."""

    backend: Any
    name: str

    @property
    def is_input(self) -> bool:
        """Whether the array came in from outside, as data."""
        return self.name == INPUT


def _itself(array: Array) -> Any:
    return array


#: What arrays that share memory have in common, as `Backend.memory_of`; the registry, which is above, puts it here.
memory_of: Callable[[Array], Any] = _itself

_made: dict[int, tuple[weakref.ref[Any], Maker]] = {}
# An array may go in one thread while another remembers the one that takes its place in memory. A thread that holds the
# lock may be interrupted by the end of an array of its own.
_lock = threading.RLock()


def watch() -> None:
    """Remember from now on."""
    global watching
    watching = True


def doubt() -> None:
    """Note a result of fast numerics on which a gradient may depend, of an array that exact numerics may have made."""
    global doubts
    with _lock:
        doubts += 1


def made(array: Any, backend: Place, name: str, *, whole: bool = True) -> None:
    """Remember who made an array; ``whole`` says that nobody else has arrays in the same memory."""
    if not watching or not hasattr(array, "dtype") or dtype_name(array.dtype) == "float64":
        return
    maker = Maker(backend, name)
    _remember(array, maker)
    if whole and backend.numerics == "exact" and (memory := backend.memory_of(array)) is not array:
        _remember(memory, maker)


def maker(array: Any) -> Maker | None:
    """Who made an array, or the array of which it is a view; None where that is not known."""
    if not watching or not hasattr(array, "dtype"):
        return None
    found = _of(array)
    if found is None:
        memory = memory_of(array)
        found = None if memory is array else _of(memory)
    return found


def exact(array: Any) -> tuple[Any, bool] | None:
    """The backend with exact numerics that made an array, and whether it only took it in; None for other arrays."""
    found = maker(array)
    return None if found is None or found.backend.numerics == "fast" else (found.backend, found.is_input)


def passed_on(array: Array, copy: Array) -> None:
    """Say of a copy what is known of the array."""
    if (found := maker(array)) is not None:
        made(copy, *found)


def require_exact(array: Any, what: str, owner: str, before: int | None = None, since: str = "the forward") -> None:
    """Raise `ValueError` for a gradient of which it is known, or to be feared, that fast numerics computed it.

    ``before`` is the number of `doubts` when the forward to which the gradient belongs was computed, or at the time
    that ``since`` names.
    """
    found = maker(array)
    if found is not None and found.backend.numerics == "fast":
        raise ValueError(
            f"{what} was computed in fast numerics by {found.name}, but {owner} computes in exact numerics; pass "
            "backend=model.backend to a loss, numerics='exact' to a layer or container, arrays of "
            f"model.backend.asarray and no xp to a function, so that {found.name} computes in exact numerics too"
        )
    if found is None and before is not None and before != doubts:
        raise ValueError(
            f"{what} comes from your own arithmetic, and since {since} something was computed in fast numerics, "
            f"but {owner} computes in exact numerics; pass the loss its backend, as in "
            "CrossEntropy(backend=model.backend), and functions arrays of model.backend.asarray, or, if this gradient "
            "does not depend on that result, give it as model.backend.asarray(dy)"
        )


def _remember(thing: Any, maker: Maker) -> None:
    key = id(thing)
    try:
        reference = weakref.ref(thing, lambda _: _forget(key))
    except TypeError:
        # A number, or an array of a library that takes no weak references.
        return
    with _lock:
        _made[key] = reference, maker


def _forget(key: int) -> None:
    # Another object may have taken the place of one that is gone.
    with _lock:
        entry = _made.get(key)
        if entry is not None and entry[0]() is None:
            del _made[key]


def _of(thing: Any) -> Maker | None:
    entry = _made.get(id(thing))
    return entry[1] if entry is not None and entry[0]() is thing else None
