"""Whether an object is referred to from one place only.

What depends on an array alone may be kept and used again as long as nobody can have written into the array. An array
that only one attribute refers to can't be written to by anyone else, which reference counts show.
"""

import sys
import weakref
from typing import Any

from . import origins


class _Holder:
    def __init__(self) -> None:
        self.thing = object()


def _one_reference() -> int:
    """The result of ``sys.getrefcount(holder.thing)`` for an object to which nothing else refers.

    -1, which is never the count, where counts say nothing: in other interpreters than CPython, and without its lock.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or not has_lock:
        return -1
    holder = _Holder()
    return sys.getrefcount(holder.thing)


ONE_REFERENCE = _one_reference()


def is_weakly_held(thing: Any) -> bool:
    """Whether there is a weak reference to an object, other than the record of its origin."""
    return weakref.getweakrefcount(thing) > int(origins.is_recorded(thing))
