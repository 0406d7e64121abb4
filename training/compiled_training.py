"""Compiled training steps in `fit`: when they are used, and how training goes on where a step can't be recorded."""

from collections.abc import Callable
from math import prod
from typing import Any

from ..backends import Backend, CaptureError
from ..backends.recording.compiled_step import CompiledStep
from ..backends.recording.guards import NumberChanged
from ..layers.core.layer import Layer
from .nan_check import uses_only_library_code
from .run import Run

#: Steps from which a run is compiled: a recording takes as long as some ten steps.
LEAST_STEPS = 100
#: Bytes of parameters up to which a run on a CPU is compiled. While a step is recorded, what it changes is in memory
#: twice, and the steps of larger nets gain little.
MOST_BYTES = 16 << 20
# Calls without a repetition, as with batches of different shapes, after which steps run uncompiled.
PATIENCE = 32


class CompiledPart:
    """A part of a training step: compiled, or uncompiled from the first time on that it can't be recorded.

    Parameters
    ----------
    function : callable
    backend : Backend
    owners : tuple
        See `Backend.compile`.
    forced : bool
        Whether to raise the `CaptureError` instead.
    note : callable
        Called with a line for the user.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        backend: Backend,
        owners: tuple[Any, ...],
        forced: bool,
        note: Callable[[str], None],
    ) -> None:
        self._function, self._backend, self._forced, self._note = function, backend, forced, note
        self._recorded = 0
        step = backend.compile(function, *owners)
        self.compiled = step if isinstance(step, CompiledStep) else None
        if self.compiled is not None:
            self.compiled.warns = forced

    def __call__(self, *arrays: Any) -> Any:
        """What the function returns."""
        if self.compiled is None:
            return self._function(*arrays)
        try:
            result = self.compiled(*arrays)
        except CaptureError as error:
            if self._forced:
                raise
            self._stop(str(error))
            return error.result if isinstance(error, NumberChanged) else self._function(*arrays)
        if self.compiled.recorded != self._recorded:
            self._recorded = self.compiled.recorded
            # What uncompiled steps used: a recording has memory of its own.
            self._backend.free_memory()
        if not self._forced and self.compiled.unrepeated >= PATIENCE:
            self._stop("settings or shapes change at every step")
        return result

    def _stop(self, cause: str) -> None:
        self.compiled = None
        self._note(f"training steps run uncompiled: {cause}")


def compiles(run: Run) -> bool:
    """Whether the steps of a run are to be compiled.

    Raises
    ------
    ValueError
        If they have to be, and the backend can't.
    """
    choice, model, b = run.options.compile, run.model, run.model.backend
    if choice is True and b.narrow is not None:
        raise ValueError(f"compile=True: steps with precision={b.precision!r} are not recorded; leave compile out")
    records = type(b).compile is not Backend.compile and b.narrow is None
    if choice is True and not records:
        raise ValueError(f"compile=True: backend {b.spec!r} can't record steps; leave compile out")
    if choice != "auto" or not records:
        return choice is True
    steps = run.epochs * len(run.loader) - run.steps
    small = not b.is_host or _parameter_bytes(model) <= MOST_BYTES
    whole = len(run.sizes) == 1 and run.options.accumulate == 1 and run.group.size == 1
    return whole and small and steps >= LEAST_STEPS and _runs_no_code_of_the_user(run)


def _parameter_bytes(model: Layer) -> int:
    size = 8 if model.backend.dtype_name == "float64" else 4
    return sum(size * prod(parameter.shape) for _, parameter in model.named_parameters())


def _runs_no_code_of_the_user(run: Run) -> bool:
    """Whether a step calls code of this library only: that of a user may count or print, which a replay would not."""
    package = __name__.partition(".")[0]
    if not uses_only_library_code(run.model, run.loss, run.optimizer):
        return False
    owners = [*(layer for _, layer in run.model.named_layers()), run.loss, run.optimizer]
    given = [value for owner in owners for value in vars(owner).values() if callable(value)]
    return all(type(value).__module__.partition(".")[0] == package or _module(value) == package for value in given)


def _module(value: Any) -> str:
    return str(getattr(value, "__module__", "") or "").partition(".")[0]
