"""CUDA graphs: how a step is recorded on CuPy.

A stream that captures computes nothing: it notes kernels, with their arguments, into a graph, which is launched as
one. What makes that right here:

- The capture has a memory pool of its own. Temporary arrays go back to that pool and are never lent to anyone else, so
  a launch overwrites nothing that is in use; the pool lives as long as the graph and every array of the recording.
- Products have workspaces of the recording's own (`xpnn.backends.cublas`).
- The stream that captures is the recorder's, and nothing else is queued there: kernels of another thread would join the
  graph. Recordings of a process are one after another.
- A graph is launched on the stream that is current for the caller, and so stands in its order; launches on several
  streams wait for each other, because they share the recording's memory.
- A copy from the host would read a buffer that CuPy lends to others meanwhile; it is refused. So is a read by the host,
  which CuPy itself refuses while a stream captures.

Written by CuPy's documentation and sources; `tests/backends/test_cuda_graph.py` runs it on whatever CuPy computes on.
"""

import gc
import re
import sys
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from .backend import Backend
from .capture import RECORDING, CaptureError, require_repeatable
from .cublas import shared
from .errors import first_line
from .types import Array

# A node in the description of a graph: a name and its attributes, where an edge is two names.
_NODE = re.compile(r'^\s*"?(?!graph\b|node\b|edge\b|subgraph\b|label\b)\w+"?\s*\[', re.MULTILINE)
# What CuPy's memory is aligned to, in bytes.
ALIGNED = 512
# How many times the bytes of its entries the memory of an argument may reach over, to be kept as it lies.
LOOSE = 4


class Room:
    """The memory of one recording: a pool that gives its blocks back to the device once the recording is dropped.

    CuPy's pool alone does not: the pieces of a block refer to each other, where Python's garbage collector can't see
    them, and stay when the pool goes. Arrays of a recording may outlive it, as gradients do that its step made; each
    gives back what it held when it goes.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._pool, self._device = cuda, cuda.MemoryPool(), cuda.device.get_device_id()
        self._dropped = False
        _rooms.add(self)

    def malloc(self, size: int) -> Any:
        """An allocator for CuPy."""
        memory = self._pool.malloc(size)
        if not size:
            return memory
        held = self._cuda.UnownedMemory(memory.ptr, size, _Held(memory, self), self._device)
        return self._cuda.MemoryPointer(held, 0)

    def drop(self) -> None:
        """Give back what no array holds, now and from now on."""
        self._dropped = True
        self.give_back()

    def give_back(self) -> None:
        """Free what no array holds, unless the recording is still there, or another one runs."""
        if not self._dropped or sys.is_finalizing():
            return
        if _running:
            _waiting.add(self)
            return
        with self._cuda.Device(self._device):
            self._pool.free_all_blocks()
            if not self._pool.total_bytes():
                _rooms.discard(self)


class _Held:
    """Keeps a piece of a room's memory for an array."""

    def __init__(self, memory: Any, room: Room) -> None:
        self._memory, self._room = memory, room

    def __del__(self) -> None:
        self._memory = None
        self._room.give_back()


# Rooms with memory. A pool is known to its pieces by weak references, which Python clears before anything else where
# pool and arrays are garbage together: what is here is none.
_rooms: set[Room] = set()
# Rooms that wait for the end of the recording that runs: to free memory waits for the device, and may break a capture.
_waiting: set[Room] = set()
_running = 0


class Graph:
    """A recorded step, and all that a launch needs."""

    def __init__(self, cuda: Any, graph: Any, room: Room, workspaces: dict[int, Any]) -> None:
        self._cuda, self._graph = cuda, [graph]
        # What the last turn queued, and where.
        self._done, self._stream = cuda.Event(disable_timing=True), None
        # The graph goes first, then memory. At the end of the process the driver takes both.
        weakref.finalize(self, _drop, self._graph, workspaces, room).atexit = False

    def __call__(self) -> None:
        """Launch it on the current stream."""
        self._graph[0].launch(self._cuda.get_current_stream())

    @property
    def launches(self) -> int:
        """Its nodes, counted in CUDA's description of it."""
        return len(_NODE.findall(self._graph[0].debug_dot_str()))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """After what the last turn queued, on whatever stream."""
        current = self._cuda.get_current_stream()
        if self._stream is not None and self._stream != current:
            current.wait_event(self._done)
        try:
            yield
        finally:
            current.record(self._done)
            self._stream = current


def _drop(graph: list[Any], workspaces: dict[int, Any], room: Room) -> None:
    graph.clear()
    workspaces.clear()
    room.drop()


class GraphRecorder:
    """Records on a stream of its own; see `xpnn.backends.capture.Recorder`.

    Parameters
    ----------
    backend : CupyBackend
    cupy : module
    """

    def __init__(self, backend: Backend, cupy: Any) -> None:
        self._backend, self._cupy, self._cublas = backend, cupy, shared(cupy)
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

    def number(self, value: int) -> Array:
        """Filled by a kernel that is given the number: nothing is copied from the host."""
        return self._cupy.full((), value, dtype="int64")

    def twin(self, array: Array) -> Array:
        """An array of the same strides, but for one that lies in much more memory than it fills, and alignment."""
        cupy = self._cupy
        reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
        before = -sum(each for each in reach if each < 0)
        size = before + sum(each for each in reach if each > 0) + array.itemsize
        if not array.size or size > LOOSE * max(array.nbytes, ALIGNED):
            return cupy.empty_like(array)
        shift = (array.data.ptr - before) % ALIGNED
        return cupy.ndarray(array.shape, array.dtype, cupy.cuda.alloc(shift + size) + (shift + before), array.strides)

    def layout(self, array: Array) -> Hashable:
        """Its strides, where they matter."""
        return tuple(stride for n, stride in zip(array.shape, array.strides, strict=True) if n > 1)

    def repeats(self, array: Array) -> bool:
        """Whether it is broadcast along an axis."""
        return any(n > 1 and not stride for n, stride in zip(array.shape, array.strides, strict=True))

    def record(self, work: Callable[[], Any]) -> tuple[Any, Graph]:
        """Capture, and give what launches the graph."""
        room = Room(self._cupy.cuda)
        try:
            return self._capture(work, room)
        except BaseException:
            room.drop()
            raise

    def _capture(self, work: Callable[[], Any], room: Room) -> tuple[Any, Graph]:
        cuda, stream = self._cupy.cuda, self._stream
        with ExitStack() as stack:
            stack.enter_context(_one_at_a_time())
            # Whoever set another allocator since the last recording has this one from now on: CuPy tells nobody which
            # is set, and without it a copy from the host would be recorded.
            cuda.set_pinned_memory_allocator(self._lend)
            stack.enter_context(cuda.using_allocator(room.malloc))
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
        return result, Graph(cuda, graph, room, workspaces)

    def _lend(self, size: int) -> Any:
        """CuPy's pinned memory, but not in a recording: each copy from the host asks for it first."""
        require_repeatable(f"a copy of {size} bytes from the host, as of an index table")
        return self._cupy.get_default_pinned_memory_pool().malloc(size)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """One recording in a process. Garbage is collected, and what waits to be freed is freed, after it.

    What garbage holds of a device may not be freed while a stream captures, as pinned memory may not.
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
                _waiting.pop().give_back()


def _abandon(stream: Any) -> None:
    """End a capture that failed, whose own complaint says less than the error that broke it."""
    try:
        stream.end_capture()
    except Exception:
        return


def _explained(error: Exception) -> str:
    """What broke a capture, and what usually does."""
    told = first_line(error)
    if "is capturing" in told or "StreamCapture" in told:
        return (
            f"the step waits for the device, which a recording can't ({told}): keep float(), bool(), to_numpy and "
            "synchronize out of it"
        )
    if "during stream capture" in told:
        return f"CuPy can't record this ({told}); write products as matmul of the backend's xp, of floats"
    return f"the step can't be recorded: {told}"
