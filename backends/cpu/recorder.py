"""Steps recorded on the CPU, as lists of calls over arrays that share memory by lifetime.

A step is run with traced arrays (see `xpnn.backends.recording.tape`), which gives the calls and their memory. Four
checks make sure that a replay computes what the step does, or else raise a `CaptureError`:

- The first run is on copies with other numbers: in reverse order, with some bits of each float changed. Both runs must
  make the same calls, on arrays of the same places and on the same constants. So no value of Python depends on numbers.
- Each call may write into arrays of the recording, arguments and state only.
- A run in which no arrays share memory has the same results, bit for bit.
- After the last run, the state is restored, the memory filled with NaN, and the calls are replayed: results and state
  must have the bits of the run.

State then has the entries that it had before.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np

from ...common.types import Array
from ..backend import Backend
from ..errors import first_line
from ..execution.thread_count import thread_count
from ..origins import copy_maker
from ..recording.calls import recording
from ..recording.guards import RECORDING, CaptureError
from ..recording.memory_plan import aligned, plan
from ..recording.recorder import Work
from ..recording.sources import Allocated, External
from ..recording.tape import Tape, extent
from ..recording.traced import TracedArray
from .replay import Calls, with_threads

# An argument whose entries are spread over more than this many times their own bytes is copied without gaps.
LOOSE = 4


class NumpyRecorder:
    """Records calls of NumPy; implements `xpnn.backends.recording.recorder.Recorder`.

    Parameters
    ----------
    backend : NumpyBackend
    """

    reads_numbers: ClassVar[bool] = True
    rehearses: ClassVar[bool] = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def context(self) -> AbstractContextManager[None]:
        """Nothing to enter."""
        return self._backend.context()

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of NumPy."""
        return type(value) is np.ndarray or self._backend.owns(value)

    def copy(self, array: Array) -> Array:
        """A copy in the same memory order."""
        return array.copy(order="K") if isinstance(array, np.ndarray) else np.array(array)

    def write(self, target: Array, source: Any) -> None:
        """Copy now."""
        target[...] = source

    def number(self, value: float) -> Array:
        """A new array."""
        return np.array(value, "int64" if isinstance(value, int) else "float64")

    def empty_like(self, array: Array) -> Array:
        """A new array of the same strides; without gaps if its entries are far apart (see `LOOSE`)."""
        _, size = extent(array.shape, array.itemsize, array.strides)
        loose = not array.size or size > LOOSE * max(array.nbytes, 512)
        return np.empty_like(array, subok=False) if loose else _with_strides(array)

    def layout(self, array: Array) -> Hashable:
        """Its strides along axes of more than one entry."""
        return tuple([stride for n, stride in zip(array.shape, array.strides, strict=True) if n > 1])

    def reads(self, array: Array) -> bool:
        """Within `record`, whether a call has used an array that was given."""
        return not isinstance(array, TracedArray) or not isinstance(array.source, External) or array.source.used

    def is_view(self, array: Array) -> bool:
        """Whether it may share memory with another array."""
        return not isinstance(array.source, Allocated) if isinstance(array, TracedArray) else array.base is not None

    def repeats(self, array: Array) -> bool:
        """Whether it is broadcast along an axis, or can't be written to."""
        return not array.flags.writeable or any(
            n > 1 and not stride for n, stride in zip(array.shape, array.strides, strict=True)
        )

    def record(self, work: Work, given: list[Array], numbers: list[Array]) -> tuple[Any, Calls]:
        """Run the work, and replay it once."""
        from ..lookup import operations_of

        # Recorded calls have their own.
        operations_of(getattr(self._backend.xp, "raw", self._backend.xp)).free_workspaces()
        with ExitStack() as stack:
            stack.enter_context(_one_at_a_time())
            stack.enter_context(np.errstate(all="ignore"))
            survey = Tape(thread_count(), restores=False)
            _run(work, *self._inside(given, numbers, self._disturbed), survey)
            separate = self._computed(work, given, numbers, Tape(thread_count()))[0][1]
            offsets, size = plan(survey.lifetimes)
            # Only now, so that it is not held beside the arrays of the other runs.
            arena = aligned(size)
            tape = Tape(thread_count(), arena, offsets, with_threads)
            (outcome, wanted), sources = self._computed(work, given, numbers, tape)
            _require_same(survey, tape)
            if separate != wanted:
                raise CaptureError(
                    "a compiled step has other results where arrays share memory: what a call reads was deleted before "
                    "the call was recorded"
                )
            calls = Calls(tape, arena)
            arena.fill(0xFF)
            try:
                calls.settle()
                found = _digests(outcome, sources)
            finally:
                tape.restore()
            if found != wanted:
                raise CaptureError(
                    "a compiled step computes something that was not recorded: a replay has other results. Compute "
                    "with functions of the backend's xp on arrays of the backend"
                )
        return outcome, calls

    def _computed(
        self, work: Work, given: list[Array], numbers: list[Array], tape: Tape
    ) -> tuple[tuple[Any, Any], list[Any]]:
        """The outcome of a run on the arrays themselves and its digests, and the sources of the arrays."""
        inside = self._inside(given, numbers, lambda array: array)
        sources: list[Any] = [array.source for array in (*inside[0], *inside[1])]
        return _run(work, *inside, tape, lambda found: _digests(found, sources)), sources

    def _inside(
        self, given: list[Array], numbers: list[Array], as_seen: Callable[[Array], Array]
    ) -> tuple[list[TracedArray], list[TracedArray]]:
        """Arrays and numbers as a run sees them, each array once."""
        known: dict[int, External] = {}
        for number, array in enumerate([*given, *numbers]):
            if id(array) not in known:
                known[id(array)] = External(number, as_seen(array))
        found = [TracedArray.over(known[id(array)].array, known[id(array)]) for array in given]
        weak = [TracedArray.over(known[id(array)].array, known[id(array)], weak=True) for array in numbers]
        for array, inside in zip(given, found, strict=True):
            copy_maker(array, inside)
        return found, weak

    def _disturbed(self, array: Array) -> Array:
        """A copy with other numbers: in reverse order, floats with some bits of the mantissa flipped."""
        twin = _with_strides(array)
        self.write(twin, np.flip(array))
        if twin.dtype.kind == "f" and twin.dtype.itemsize in (4, 8):
            bits, mask = (np.uint32, 0x00255555) if twin.dtype.itemsize == 4 else (np.uint64, 0x0005555555555555)
            whole = twin.view(bits)
            np.bitwise_xor(whole, bits(mask), out=whole)
        return twin


def _with_strides(array: Array) -> Array:
    """An uninitialised array of the same strides."""
    before, size = extent(array.shape, array.itemsize, array.strides)
    return np.ndarray(array.shape, array.dtype, aligned(size).data, before, array.strides)


def _run(
    work: Work,
    given: list[TracedArray],
    numbers: list[TracedArray],
    tape: Tape,
    look: Callable[[Any], Any] = lambda outcome: None,
) -> tuple[Any, Any]:
    """The outcome of a run that is recorded, in plain arrays, and what a function finds in it; restores the state."""
    try:
        with recording(tape):
            outcome = tape.finish(work(given, numbers))
        return outcome, look(outcome)
    except CaptureError:
        raise
    except Exception as error:
        raise CaptureError(f"the step can't be recorded: {first_line(error)}") from error
    finally:
        tape.closed = True
        tape.restore()


def _require_same(survey: Tape, tape: Tape) -> None:
    """Raise `CaptureError` unless both runs made the same calls."""
    for one, other in zip(survey.signature, tape.signature, strict=False):
        if not _equal(one, other):
            name = getattr(other[0], "__qualname__", str(other[0])) if isinstance(other, tuple) else str(other)
            raise CaptureError(
                f"a compiled step depends on values in a way that a replay can't repeat, seen at {name}: it decides in "
                "Python by numbers of arrays, or computes on a copy of an array that was made outside of the backend's "
                "xp, as by numpy.asarray"
            )
    same_arrays = [each.size for each in survey.lifetimes] == [each.size for each in tape.lifetimes]
    if len(survey.signature) != len(tape.signature) or not same_arrays:
        raise CaptureError("a compiled step makes other calls for other values, which a replay can't")


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


def _digests(outcome: Any, sources: list[External]) -> list[bytes]:
    """Hashes of all results and state."""
    arrays: list[Array] = []
    _collect(outcome, arrays)
    arrays += [source.array for source in sources if source.before is not None]
    return [hashlib.blake2b(_bytes(array), digest_size=16).digest() for array in arrays]


def _bytes(array: Array) -> Any:
    dense = array.transpose(np.argsort([-stride for stride in array.strides], kind="stable"))
    return np.ascontiguousarray(dense).reshape(-1).view(np.uint8).data


def _collect(value: Any, arrays: list[Array]) -> None:
    if isinstance(value, np.ndarray):
        arrays.append(value)
    elif isinstance(value, dict):
        _collect(list(value.values()), arrays)
    elif isinstance(value, tuple | list):
        for each in value:
            _collect(each, arrays)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """One recording at a time, without garbage collection: both runs must free arrays at the same places."""
    with RECORDING:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
