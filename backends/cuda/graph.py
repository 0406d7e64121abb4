"""Steps recorded as CUDA graphs, through CuPy.

A stream that captures computes nothing: it adds kernels, with their arguments, to a graph, which is launched as a
whole. These rules make that correct:

- The capture has a memory pool of its own. Memory of temporary arrays returns to that pool and is used by nothing else,
  so a launch overwrites nothing that is in use. The pool lives as long as the graph and all arrays of the recording.
- Products have workspaces of the recording's own (`xpnn.backends.cuda.cublas`).
- The stream that captures is the recorder's, and nothing else is queued on it: kernels of another thread would become
  part of the graph. A process makes one recording at a time.
- A graph is launched on the caller's current stream, in its order. Launches on several streams wait for each other,
  because they share the recording's memory.
- A copy from the host is refused, because a replay would read a buffer that CuPy has reused meanwhile. CuPy itself
  refuses a copy to the host while a stream captures.

Written from CuPy's documentation and sources; `tests/backends/test_cuda_graph.py` runs it on any device of CuPy.
"""

import gc
import re
import sys
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

from ...common.types import Array
from ..backend import Backend
from ..errors import first_line
from ..recording.guards import RECORDING, CaptureError, require_repeatable
from ..recording.recorder import Work
from .cublas import library_of

# A node in the description of a graph: a name and its attributes, where an edge is two names.
_NODE = re.compile(r'^\s*"?(?!graph\b|node\b|edge\b|subgraph\b|label\b)\w+"?\s*\[', re.MULTILINE)
# Alignment of CuPy's memory, in bytes.
MEMORY_ALIGNMENT = 512
# An argument whose entries are spread over more than this many times their own bytes is copied without gaps.
LOOSE = 4


class RecordingMemory:
    """The memory of one recording: a pool whose blocks are freed once the recording is dropped.

    CuPy does not free the blocks of a pool that is deleted: the pieces of a block refer to each other, and Python's
    garbage collector can't see these references. Arrays of a recording may outlive it, such as gradients that its step
    made; the memory of such an array is freed with it.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._pool, self._device = cuda, cuda.MemoryPool(), cuda.device.get_device_id()
        self._dropped = False
        _memories.add(self)

    def malloc(self, size: int) -> Any:
        """An allocator for CuPy."""
        memory = self._pool.malloc(size)
        if not size:
            return memory
        piece = self._cuda.UnownedMemory(memory.ptr, size, _Piece(memory, self), self._device)
        return self._cuda.MemoryPointer(piece, 0)

    def drop(self) -> None:
        """Free all that no array uses now, and the rest as its arrays are deleted."""
        self._dropped = True
        self.free_unused()

    def free_unused(self) -> None:
        """Free what no array uses, unless the recording is in use, or another one is being made."""
        if not self._dropped or sys.is_finalizing():
            return
        if _running:
            _waiting.add(self)
            return
        with self._cuda.Device(self._device):
            self._pool.free_all_blocks()
            if not self._pool.total_bytes():
                _memories.discard(self)


class _Piece:
    """A piece of a recording's memory that an array uses."""

    def __init__(self, pointer: Any, memory: RecordingMemory) -> None:
        self._pointer, self._memory = pointer, memory

    def __del__(self) -> None:
        self._pointer = None
        self._memory.free_unused()


# Strong references to pools that have memory. The pieces of a pool have weak ones, which Python clears first if pool
# and arrays become garbage together; then the pieces could not be freed.
_memories: set[RecordingMemory] = set()
# Pools to free after the recording that is being made: freeing waits for the device, which may break a capture.
_waiting: set[RecordingMemory] = set()
_running = 0


class Graph:
    """A recorded step, with all that a launch needs."""

    def __init__(self, cuda: Any, graph: Any, memory: RecordingMemory, workspaces: dict[int, Any]) -> None:
        self._cuda, self._graph = cuda, [graph]
        # The event after the last replay and its copies, and the stream of both.
        self._done, self._stream = cuda.Event(disable_timing=True), None
        # The graph is freed first, then memory. At the end of the process the driver frees both.
        weakref.finalize(self, _drop, self._graph, workspaces, memory).atexit = False

    def __call__(self) -> None:
        """Launch it on the current stream."""
        self._graph[0].launch(self._cuda.get_current_stream())

    def fits(self) -> bool:
        """True: the host reads no values in a recording."""
        return True

    @property
    def launches(self) -> int:
        """Its nodes, counted in CUDA's textual description of it."""
        return len(_NODE.findall(self._graph[0].debug_dot_str()))

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Make the current stream wait for the last replay first, if that was on another stream."""
        current = self._cuda.get_current_stream()
        if self._stream is not None and self._stream != current:
            current.wait_event(self._done)
        try:
            yield
        finally:
            current.record(self._done)
            self._stream = current


def _drop(graph: list[Any], workspaces: dict[int, Any], memory: RecordingMemory) -> None:
    graph.clear()
    workspaces.clear()
    memory.drop()


class GraphRecorder:
    """Records on a stream of its own; implements `xpnn.backends.recording.recorder.Recorder`.

    Parameters
    ----------
    backend : CupyBackend
    cupy : module
    """

    reads_numbers: ClassVar[bool] = False
    rehearses: ClassVar[bool] = True

    def __init__(self, backend: Backend, cupy: Any) -> None:
        self._backend, self._cupy, self._cublas = backend, cupy, library_of(cupy)
        with backend.context():
            self._stream = cupy.cuda.Stream(non_blocking=True)

    def context(self) -> AbstractContextManager[None]:
        """The device."""
        return self._backend.context()

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of the device."""
        return self._backend.owns(value)

    def copy(self, array: Array) -> Array:
        """A copy in the same memory order."""
        return array.copy(order="K")

    def write(self, target: Array, source: Array) -> None:
        """Copy on the current stream."""
        target[...] = source

    def number(self, value: float) -> Array:
        """Filled by a kernel with the number as an argument: nothing is copied from the host."""
        return self._cupy.full((), value, dtype="int64" if isinstance(value, int) else "float64")

    def empty_like(self, array: Array) -> Array:
        """A new array of the same strides and alignment; without gaps if its entries are far apart (see `LOOSE`)."""
        cupy = self._cupy
        reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
        before = -sum(each for each in reach if each < 0)
        size = before + sum(each for each in reach if each > 0) + array.itemsize
        if not array.size or size > LOOSE * max(array.nbytes, MEMORY_ALIGNMENT):
            return cupy.empty_like(array)
        shift = (array.data.ptr - before) % MEMORY_ALIGNMENT
        return cupy.ndarray(array.shape, array.dtype, cupy.cuda.alloc(shift + size) + (shift + before), array.strides)

    def layout(self, array: Array) -> Hashable:
        """Its strides along axes of more than one entry."""
        return tuple(stride for n, stride in zip(array.shape, array.strides, strict=True) if n > 1)

    def reads(self, array: Array) -> bool:
        """True: what kernels read is not known."""
        return True

    def is_view(self, array: Array) -> bool:
        """Whether it is a view of another array."""
        return array.base is not None

    def repeats(self, array: Array) -> bool:
        """Whether it is broadcast along an axis."""
        return any(n > 1 and not stride for n, stride in zip(array.shape, array.strides, strict=True))

    def record(self, work: Work, given: list[Array], numbers: list[Array]) -> tuple[Any, Graph]:
        """Capture the work on these arrays; returns its result and the graph."""
        memory = RecordingMemory(self._cupy.cuda)
        try:
            return self._capture(partial(work, given, numbers), memory)
        except BaseException:
            memory.drop()
            raise

    def _capture(self, work: Callable[[], Any], memory: RecordingMemory) -> tuple[Any, Graph]:
        cuda, stream = self._cupy.cuda, self._stream
        with ExitStack() as stack:
            stack.enter_context(_one_at_a_time())
            # This replaces an allocator that a user has set: CuPy has no function that returns it, and without ours a
            # copy from the host would be recorded.
            cuda.set_pinned_memory_allocator(self._pinned_memory)
            stack.enter_context(cuda.using_allocator(memory.malloc))
            stack.enter_context(stream)
            workspaces = stack.enter_context(self._cublas.own_workspaces())
            self._cublas.on_current_stream()
            stream.begin_capture(cuda.runtime.streamCaptureModeRelaxed)
            try:
                result = work()
            except BaseException as error:
                _abandon(stream)
                if isinstance(error, CaptureError) or not isinstance(error, Exception):
                    raise
                raise CaptureError(_explained(error)) from error
            try:
                graph = stream.end_capture()
            except Exception as error:
                raise CaptureError(_explained(error)) from error
        return result, Graph(cuda, graph, memory, workspaces)

    def _pinned_memory(self, size: int) -> Any:
        """CuPy's pinned memory; refused in a recording, because each copy from the host allocates some first."""
        require_repeatable(f"a copy of {size} bytes from the host, as of an index table")
        return self._cupy.get_default_pinned_memory_pool().malloc(size)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Allow one recording at a time in a process, and postpone garbage collection and freeing of memory.

    Garbage may include pinned memory, for example, which must not be freed while a stream captures.
    """
    global _running
    with RECORDING:
        _running += 1
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            _running -= 1
            if collects:
                gc.enable()
            while _waiting and not _running:
                _waiting.pop().free_unused()


def _abandon(stream: Any) -> None:
    """End a capture that failed, and ignore the error of ending it: the step's own error says more."""
    try:
        stream.end_capture()
    except Exception:
        return


def _explained(error: Exception) -> str:
    """The message for an error that ended a capture: its usual cause and what to do."""
    text = first_line(error)
    if "is capturing" in text or "StreamCapture" in text:
        return (
            f"a recorded step can't wait for the device ({text}): keep float(), bool(), to_numpy and "
            "synchronize out of it"
        )
    if "during stream capture" in text:
        return f"CuPy can't record this ({text}); write products as matmul of the backend's xp, of floats"
    return f"the step can't be recorded: {text}"
