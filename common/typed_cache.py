"""A cache of results that distinguishes 1, True and 1.0, and 0.0 and -0.0.

These are equal, so that another cache would return the result for 1 where a function must refuse True, or zeros of the
other sign.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

R = TypeVar("R")


def typed_cache(maxsize: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """As `functools.lru_cache` with ``typed=True``, for positional arguments, and typed within tuples too.

    0.0 and -0.0 are different arguments. For arguments without a hash, such as lists, the function is called each time.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @lru_cache(maxsize=maxsize)
        def computed(types: Any, *args: Any) -> R:
            return function(*args)

        @wraps(function)
        def cached(*args: Any) -> R:
            try:
                return computed(_types(args), *args)
            except TypeError:
                return function(*args)

        # As of `functools.lru_cache`.
        vars(cached)["cache_clear"] = computed.cache_clear
        return cached

    return decorate


def _types(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The types of values and of those in tuples; for a zero of type float, its text instead, which has the sign."""
    return tuple(
        [
            _types(value) if type(value) is tuple else type(value) if type(value) is not float or value else str(value)
            for value in values
        ]
    )
