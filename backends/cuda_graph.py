"""CUDA graphs: how a step is recorded on CuPy.

A stream that captures computes nothing: it notes kernels, with their arguments, into a graph, which is launched as
one. What makes that right here:

- The capture has a memory pool of its own. Temporary arrays go back to that pool and are never lent to anyone else, so
  a launch overwrites nothing that is in use; the pool lives as long as the graph.
- The plain runs before it are on the same stream and take their products from the same handle of cuBLAS, so that all
  kernels are loaded by then.
- A graph is launched on the stream that is current for the caller, and so stands in its order.
- A copy from the host would read a buffer that CuPy lends to others meanwhile; it is refused. So is a read by the host,
  which CuPy itself refuses while a stream captures.

Written by CuPy's documentation and sources; see `tests/backends/test_cuda_graph.py` for what of it is proved without a
GPU.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from .backend import Backend
from .capture import CaptureError, require_repeatable
from .cublas import Products, load
from .errors import first_line
from .types import Array


class GraphRecorder:
    """Records on a stream of its own; see `xpnn.backends.capture.Recorder`.

    Parameters
    ----------
    backend : CupyBackend
    cupy : module
    """

    def __init__(self, backend: Backend, cupy: Any) -> None:
        self._backend, self._cupy = backend, cupy
        with backend.context():
            self._stream = cupy.cuda.Stream(non_blocking=True)
            library = load(cupy.cuda.runtime.runtimeGetVersion())
            self._products = Products(cupy, library, self._stream, backend.precision == "tf32")

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

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """The stream of the recorder, after what is queued on the caller's, and before what follows there."""
        current = self._cupy.cuda.get_current_stream()
        self._stream.wait_event(current.record())
        try:
            with self._stream, self._own_products():
                yield
        finally:
            current.wait_event(self._stream.record())

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Capture, and give what launches the graph."""
        cuda = self._cupy.cuda
        pool = cuda.MemoryPool()
        # Garbage with arrays in it should not be found, and freed, halfway.
        gc.collect()
        with ExitStack() as stack:
            stack.enter_context(self._own_products())
            stack.enter_context(self._no_copies_from_host())
            stack.enter_context(cuda.using_allocator(pool.malloc))
            stack.enter_context(self._stream)
            self._stream.begin_capture()
            try:
                result = work()
            except BaseException as error:
                self._abandon()
                if isinstance(error, CaptureError) or not isinstance(error, Exception):
                    raise
                raise CaptureError(_explained(error)) from error
            try:
                graph = self._stream.end_capture()
            except Exception as error:
                raise CaptureError(_explained(error)) from error

        def replay() -> None:
            # The graph's addresses are the pool's.
            _ = pool
            graph.launch(cuda.get_current_stream())

        return result, replay

    def _abandon(self) -> None:
        """End a capture that failed, whose own complaint says less than the error that broke it."""
        try:
            self._stream.end_capture()
        except Exception:
            return

    @contextmanager
    def _own_products(self) -> Iterator[None]:
        """`cupy.matmul` by a handle that may capture, on this recorder's stream; on others it stays what it is."""
        cupy, usual = self._cupy, self._cupy.matmul

        def matmul(a: Any, b: Any, *rest: Any, **keywords: Any) -> Any:
            plain = not rest and keywords.keys() <= {"out"}
            if plain and cupy.cuda.get_current_stream() == self._stream and self._products.takes(a, b):
                return self._products.matmul(a, b, keywords.get("out"))
            return usual(a, b, *rest, **keywords)

        cupy.matmul = matmul
        try:
            yield
        finally:
            cupy.matmul = usual

    @contextmanager
    def _no_copies_from_host(self) -> Iterator[None]:
        """CuPy's copies from the host raise in a recording: each asks for a pinned buffer first.

        CuPy tells nobody which allocator is set; afterwards it is the default pool's.
        """
        pool = self._cupy.get_default_pinned_memory_pool()

        def lend(size: int) -> Any:
            require_repeatable(
                f"a copy of {size} bytes from the host (of an index table, or of the addresses where more than 8 "
                "arrays are joined)"
            )
            return pool.malloc(size)

        self._cupy.cuda.set_pinned_memory_allocator(lend)
        try:
            yield
        finally:
            self._cupy.cuda.set_pinned_memory_allocator(pool.malloc)


def _explained(error: Exception) -> str:
    """What broke a capture, and what usually does."""
    told = first_line(error)
    if "is capturing" in told or "StreamCapture" in told:
        return (
            f"the step waits for the device, which a recording can't ({told}): keep float(), bool(), to_numpy and "
            "synchronize out of it"
        )
    if "cuBLAS" in told or "cuSOLVER" in told or "cuRAND" in told or "cuSPARSE" in told:
        return f"CuPy can't record this ({told}); write products as xp.matmul of floats"
    return f"the step can't be recorded: {told}"
