"""Planting a mistake in a module of the library, and taking it out again.

Other modules have imported the functions by name, so no new function would reach them: the functions stay, and are
given the code that the changed source compiles to. Constants of the module and of its classes are set beside them.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

from xpnn.backends import get_backend, operations_of

CONSTANTS = (bool, int, float, str, tuple)


@contextmanager
def plant(module: ModuleType, old: str, new: str) -> Iterator[None]:
    """Run the module with ``new`` in place of ``old``, which its source must hold exactly once."""
    source = inspect.getsource(module)
    if (times := source.count(old)) != 1:
        raise LookupError(f"{module.__name__} holds {old!r} {times} times, expected once")
    names = ("__name__", "__package__", "__file__")
    changed: dict[str, Any] = {name: getattr(module, name) for name in names}
    exec(compile(source.replace(old, new), module.__file__ or "", "exec"), changed)
    undo: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, value in _differences(module, changed):
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        _forget()
        if not undo:
            raise LookupError(f"{module.__name__}: {new!r} for {old!r} changes no function and no constant")
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)
        _forget()


def _forget() -> None:
    """Look nothing up that was found before: with the mistake it may be something else."""
    for name, module in list(sys.modules.items()):
        if name.startswith("xpnn.layers"):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
    operations_of(get_backend("numpy").xp).clear_constants()


def _differences(module: ModuleType, changed: dict[str, Any]) -> Iterator[tuple[Any, str, Any]]:
    """What to set, as (owner, attribute, value), to make the module's functions and constants those of its copy."""
    for name, value in changed.items():
        yield from _difference(module, name, vars(module).get(name), value, module.__name__)


def _difference(owner: Any, name: str, here: Any, there: Any, home: str) -> Iterator[tuple[Any, str, Any]]:
    if name.startswith("__") and name.endswith("__") and not callable(here):
        return
    functions = zip(_functions(here), _functions(there), strict=False)
    for ours, theirs in functions:
        # What is imported from elsewhere, or written by a decorator, is no text of this module.
        if ours is theirs or ours.__module__ != home or ours.__code__.co_filename == "<string>":
            continue
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            if getattr(ours, attribute) != getattr(theirs, attribute):
                yield ours, attribute, getattr(theirs, attribute)
    if isinstance(here, type) and here.__module__ == home and here is not there:
        for member, value in vars(there).items():
            yield from _difference(here, member, vars(here).get(member), value, home)
    elif isinstance(here, CONSTANTS) and type(here) is type(there) and here != there:
        yield owner, name, there


def _functions(value: Any) -> list[FunctionType]:
    """The functions behind a name: itself, or inside a static method, class method, property or wrapper."""
    if isinstance(value, cached_property):
        inner: tuple[Any, ...] = (value.func,)
    elif isinstance(value, property):
        inner = (value.fget, value.fset, value.fdel)
    elif isinstance(value, staticmethod | classmethod):
        inner = (value.__func__,)
    else:
        inner = (value,)
    return [inspect.unwrap(f) for f in inner if isinstance(f, FunctionType) or hasattr(f, "cache_clear")]
