"""Functions of arrays whose compiled calls are kept, so that a second call only swaps addresses.

A step of a small net computes the same operations again and again, on other arrays of the same shapes. What Python does
for each of them is the same every time: it chooses an algorithm, finds a prepared object, makes arrays and binds jobs.
`kept_calls` does it once for each *form* of the arguments: the shapes, strides and dtypes of the arrays, and the
settings. From then on it makes the arrays for the results, writes the new addresses into a copy of the jobs' arguments,
and runs them: a step of a small LeNet calls 900 functions of Python instead of 2800, and takes 0.6 of the time.

That is possible where compiled jobs on a CPU compute everything; the third call with a form finds out, by running the
function with traced arrays (`xpnn.backends.recording.traced`). Where the function computes anything by array functions,
and on all other backends, in recordings, in a team of workers and while choices are overridden, it is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Generic, TypeVar

import numpy as np

from . import overrides
from .engines import numba
from .execution.team import current_team
from .recording.calls import current

R = TypeVar("R")

#: Calls with one form before its compiled calls are kept, which takes as long as some of them.
CALLS_BEFORE = 2
#: Forms of a function; all are forgotten when there are more. Sizes of a last batch, or of images, may vary.
MOST_FORMS = 1024
#: Memory layouts of one form's arrays; further ones are not kept.
MOST_LAYOUTS = 4


class _Form:
    """What is known of calls with one shape of the first array, and the same settings of the same types."""

    def __init__(self, settings: tuple[Any, ...]) -> None:
        self.calls = 0
        self.kept: tuple[Any, ...] = ()
        self.is_refused = False
        # A form is found by equality, which does not distinguish 0.0 and -0.0.
        self.zeros = _zeros(settings)


def _zeros(settings: tuple[Any, ...]) -> str:
    """The float zeros of settings, and of tuples in them, as text with their signs."""
    found = (
        _zeros(value) if isinstance(value, tuple) else str(value) if type(value) is float and value == 0.0 else ""
        for value in settings
    )
    return "".join(found)


_made: list[KeptCalls[Any]] = []


def forget_all() -> None:
    """Forget the calls of all functions."""
    for each in _made:
        each.cache_clear()


class KeptCalls(Generic[R]):
    """A function ``f(*arrays, *settings)``; see `kept_calls`."""

    def __init__(self, function: Callable[..., R], arrays: int) -> None:
        self.function, self._arrays = function, arrays
        self._forms: dict[Any, _Form] = {}
        update_wrapper(self, function)
        _made.append(self)

    def __call__(self, *args: Any) -> R:
        """Call it, or run the kept calls."""
        first = args[0]
        if type(first) is not np.ndarray or current() is not None or overrides.active or current_team():
            return self.function(*args)
        count = self._arrays
        settings = args[count:]
        try:
            form = self._forms.get((first.shape, settings, *map(type, settings)))
        except TypeError:
            # A setting without a hash, of which the function says what is wrong with it.
            return self.function(*args)
        if form is not None and form.zeros and form.zeros != _zeros(settings):
            return self.function(*args)
        if form is None or not form.kept or not numba.used():
            return self._not_kept(form, args)
        for kept in form.kept:
            done, found = kept(args[:count])
            if done:
                result: R = found
                return result
        return self._not_kept(form, args)

    def cache_clear(self) -> None:
        """Forget all forms."""
        self._forms = {}

    def _not_kept(self, form: _Form | None, args: tuple[Any, ...]) -> R:
        """Call the function as it is, and keep its calls if it was called often enough."""
        arrays, settings = args[: self._arrays], args[self._arrays :]
        if form is None:
            if len(self._forms) >= MOST_FORMS:
                self._forms = {}
            form = self._forms.setdefault((args[0].shape, settings, *map(type, settings)), _Form(settings))
        form.calls += 1
        result = self.function(*args)
        if form.is_refused or form.calls <= CALLS_BEFORE or len(form.kept) >= MOST_LAYOUTS or not numba.used():
            return result
        from .engines.numba.kept_call import can_be_kept, keep

        if not can_be_kept(arrays):
            # Those of the next call may be.
            return result
        kept = keep(self.function, arrays, settings)
        if kept is None:
            form.is_refused = True
        else:
            form.kept = (*form.kept, kept)
        return result


def kept_calls(arrays: int) -> Callable[[Callable[..., R]], KeptCalls[R]]:
    """Decorator for a function whose first arguments are that many arrays, or None, and the others settings.

    Settings have a hash, and arguments no names. The function returns new arrays, nested tuples of them and other
    values. It reads nothing but its arguments and what depends on them, and changes nothing; arrays that it finds
    elsewhere are constants.
    """
    return lambda function: KeptCalls(function, arrays)
