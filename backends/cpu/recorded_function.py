"""A function of one array as a list of calls: what is left of an evaluation once Python has decided everything."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import numpy as np

from ...common.types import Array
from .. import overrides
from ..engines import numba
from ..recording.guards import CaptureError
from .recorder import NumpyRecorder


class RecordedFunction:
    """A function that is recorded for arrays of one shape, dtype and memory layout.

    Parameters
    ----------
    recorder : NumpyRecorder
    function : callable
        From an array to an array. All other arrays that it reads are constants of the recording.
    like : array
        An argument.

    Raises
    ------
    CaptureError
        If the function can't be recorded, or returns anything but an array.
    """

    def __init__(self, recorder: NumpyRecorder, function: Callable[[Array], Array], like: Array) -> None:
        self._argument = recorder.empty_like(like)
        self._argument[...] = like
        self._result, self._calls = recorder.record(lambda given, numbers: function(given[0]), [self._argument], [])
        if not isinstance(self._result, np.ndarray):
            raise CaptureError(f"a recorded function must return an array, got {type(self._result).__name__}")
        self._is_compiled = numba.used()
        self._in_use = Lock()

    def __call__(self, x: Array) -> Array | None:
        """The result in a new array; None if another thread is at it, or Python would decide differently for ``x``.

        It would also where choices are overridden, or an engine is used now and was not when this was recorded.
        """
        if overrides.active or numba.used() != self._is_compiled or not self._in_use.acquire(blocking=False):
            return None
        try:
            np.copyto(self._argument, x)
            if not self._calls.fits():
                return None
            self._calls()
            return self._result.copy(order="K")
        finally:
            self._in_use.release()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the calls use."""
        return self._calls.nbytes
