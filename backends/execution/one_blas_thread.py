"""Matrix libraries on one thread, for as long as a ``with one_blas_thread:`` block lasts.

Within a block of work a matrix library must not start threads of its own: they compete with the workers, and may change
the order of sums and with it the bits of a result.
"""

import ctypes
import os
import threading
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


class SetupOnce(threading.local):
    """A context around many calls, in which the first `one_blas_thread` block of this thread lasts to the end.

    Setting the threads of matrix libraries takes 5 to 15 microseconds, entering a block within such a block 1.
    """

    depth = 0
    entered = False

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *raised: object) -> None:
        self.depth -= 1
        if self.entered and not self.depth:
            self.entered = False
            one_blas_thread.__exit__(None, None, None)


setup_once = SetupOnce()


class _OpenBlas:
    """Number of threads of an OpenBLAS by its own functions: threadpoolctl takes six times as long."""

    def __init__(self, read: Any, write: Any) -> None:
        read.restype, write.argtypes, write.restype = ctypes.c_int, [ctypes.c_int], None
        self.get_num_threads, self.set_num_threads = read, write


def _direct(library: Any) -> Any:
    """The functions of a library that threadpoolctl found, or what that has for it."""
    if library.internal_api != "openblas":
        return library
    loaded = ctypes.CDLL(library.filepath)
    for prefix in ("scipy_", ""):
        for suffix in ("64_", "_64", ""):
            read, write = (
                getattr(loaded, f"{prefix}openblas_{verb}_num_threads{suffix}", None) for verb in ("get", "set")
            )
            if read is not None and write is not None:
                return _OpenBlas(read, write)
    return library


class OneBlasThread:
    """Within the ``with`` block, matrix libraries that were loaded before the first use run on one thread.

    Blocks may overlap, in one thread or several. The first to enter saves the settings, the last to leave restores
    them.
    """

    def __init__(self) -> None:
        self._reset()
        self._libraries: list[Any] | None = None

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[int] = []

    @property
    def is_inside(self) -> bool:
        """Whether some thread is in such a block."""
        return self._inside > 0

    def __enter__(self) -> None:
        if setup_once.depth and not setup_once.entered:
            setup_once.entered = True
            self._enter()
        self._enter()

    def _enter(self) -> None:
        with self._lock:
            if not self._inside:
                if self._libraries is None:
                    self._libraries = list(map(_direct, ThreadpoolController().select(user_api="blas").lib_controllers))
                self._before = [library.get_num_threads() for library in self._libraries]
                try:
                    for library in self._libraries:
                        _allow_any_thread(library)
                        library.set_num_threads(1)
                except BaseException:
                    self._restore()
                    raise
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore()

    def _restore(self) -> None:
        for library, threads in zip(self._libraries or (), self._before, strict=True):
            _allow_any_thread(library)
            library.set_num_threads(threads)
            _allow_any_thread(library)

    def before_fork(self) -> None:
        """Wait until no thread changes settings, here or in threadpoolctl, which has a lock of its own."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let threads change settings again."""
        self._lock.release()

    def after_fork(self) -> None:
        """Reset: the child has only the thread that forked, outside of all blocks."""
        if self._inside:
            self._restore()
        self._reset()


def _allow_any_thread(library: Any) -> None:
    """Let any thread set a library's number of threads next.

    Since version 3.8 threadpoolctl accepts it only from the first thread that set it, as long as that lives. Here the
    last of several callers restores it, which may be another thread.
    """
    if hasattr(library, "clear_controlling_thread"):
        library.clear_controlling_thread(force=True)


one_blas_thread = OneBlasThread()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=one_blas_thread.before_fork,
        after_in_parent=one_blas_thread.after_fork_in_parent,
        after_in_child=one_blas_thread.after_fork,
    )
