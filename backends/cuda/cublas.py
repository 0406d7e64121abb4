"""cuBLAS through ctypes: the library that CuPy uses, its handles and their workspaces.

Two threads must not use a handle at the same time, nor two streams a workspace. So there is a handle for each thread
and device, with a workspace for each stream. A recording has workspaces of its own, which live as long as it does:
without a workspace of the caller, a graph would allocate one.
"""

import ctypes
import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

from ..execution.per_thread import PerThread

# Bytes that NVIDIA recommends, from compute capability 9.0 on and before.
WORKSPACE, SMALLER_WORKSPACE = 32 << 20, 4 << 20
# The most workspaces of one thread, each of a stream.
STREAMS = 4
STATUS = {
    1: "CUBLAS_STATUS_NOT_INITIALIZED",
    3: "CUBLAS_STATUS_ALLOC_FAILED",
    7: "CUBLAS_STATUS_INVALID_VALUE",
    8: "CUBLAS_STATUS_ARCH_MISMATCH",
    11: "CUBLAS_STATUS_MAPPING_ERROR",
    13: "CUBLAS_STATUS_EXECUTION_FAILED",
    14: "CUBLAS_STATUS_INTERNAL_ERROR",
    15: "CUBLAS_STATUS_NOT_SUPPORTED",
}

_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
_FACTOR, _STRIDED = (_POINTER, _INT, _INT), (_POINTER, _INT, _INT, _LONG)
_SIGNATURES = {
    "cublasCreate_v2": (ctypes.POINTER(_POINTER),),
    "cublasSetStream_v2": (_POINTER, _POINTER),
    "cublasSetWorkspace_v2": (_POINTER, _POINTER, ctypes.c_size_t),
    "cublasGemmEx": (_POINTER, *(_INT,) * 5, _POINTER, *_FACTOR, *_FACTOR, _POINTER, *_FACTOR, _INT, _INT),
    "cublasGemmStridedBatchedEx": (
        *(_POINTER, *(_INT,) * 5, _POINTER, *_STRIDED, *_STRIDED, _POINTER, *_STRIDED),
        *(_INT, _INT, _INT),
    ),
}


def load(runtime_version: int) -> Any:
    """The cuBLAS of the CUDA version that CuPy uses, as ``runtimeGetVersion`` returns it."""
    major = runtime_version // 1000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    try:
        # The library that CuPy has loaded already, if it has.
        return ctypes.CDLL(name, mode=getattr(os, "RTLD_NOLOAD", ctypes.DEFAULT_MODE))
    except OSError:
        pass
    try:
        # The library that CuPy would load.
        return ctypes.CDLL(importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            raise ImportError(f"{name} does not load ({error})") from None


class Handle:
    """A handle of cuBLAS on one device, used by one thread at a time."""

    def __init__(self, pointer: int | None) -> None:
        self.pointer = pointer
        #: The workspace of each stream, by the stream's address.
        self.workspaces: OrderedDict[int, Any] = OrderedDict()
        #: The most of them.
        self.most: float = STREAMS
        #: The current stream of the handle; None if it must be set again.
        self.stream: int | None = None


class Library:
    """cuBLAS, and a handle of it for each thread and device.

    Parameters
    ----------
    cupy : module
    functions : ctypes library, optional
        In place of what `load` returns.
    """

    def __init__(self, cupy: Any, functions: Any = None) -> None:
        self._cupy, self._given = cupy, functions
        self._handles: dict[int, PerThread[Handle]] = {}

    @cached_property
    def functions(self) -> dict[str, Any]:
        """The functions that are called, with the types of their arguments."""
        library = self._given or load(self._cupy.cuda.runtime.runtimeGetVersion())
        found = {name: getattr(library, name) for name in _SIGNATURES}
        for name, function in found.items():
            function.argtypes, function.restype = _SIGNATURES[name], _INT
        return found

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of cuBLAS, and raise where it fails."""
        status = self.functions[name](*arguments)
        if status:
            raise RuntimeError(f"cuBLAS: {name} failed with {STATUS.get(status, 'status')} ({status})")

    def handle(self) -> Handle:
        """This thread's handle on the current device."""
        device = self._cupy.cuda.device.get_device_id()
        handles = self._handles.get(device)
        if handles is None:
            handles = self._handles.setdefault(device, PerThread(self._create))
        return handles.get()

    def _create(self) -> Handle:
        made = _POINTER()
        self.call("cublasCreate_v2", ctypes.byref(made))
        return Handle(made.value)

    def on_current_stream(self) -> int | None:
        """The address of this thread's handle, set to the current stream and a workspace that no other stream uses."""
        handle, stream = self.handle(), self._cupy.cuda.get_current_stream().ptr
        if handle.stream != stream:
            handle.stream = None
            self.call("cublasSetStream_v2", handle.pointer, stream)
            # Set first, because a new stream resets the workspace to the library's own.
            workspace, size = self._workspace(handle, stream)
            self.call("cublasSetWorkspace_v2", handle.pointer, workspace.ptr, size)
            handle.stream = stream
        return handle.pointer

    def _workspace(self, handle: Handle, stream: int) -> tuple[Any, int]:
        """Memory allocated for the current stream, and freed in its order, with its size."""
        size = WORKSPACE if int(self._cupy.cuda.Device().compute_capability) >= 90 else SMALLER_WORKSPACE
        memory = handle.workspaces.pop(stream, None)
        handle.workspaces[stream] = memory = self._cupy.cuda.alloc(size) if memory is None else memory
        while len(handle.workspaces) > handle.most:
            handle.workspaces.popitem(last=False)
        return memory, size

    @contextmanager
    def own_workspaces(self) -> Iterator[OrderedDict[int, Any]]:
        """Within the block this thread's products use new workspaces, which live as long as this mapping."""
        handle = self.handle()
        usual, most = handle.workspaces, handle.most
        handle.workspaces, handle.most, handle.stream = OrderedDict(), float("inf"), None
        try:
            yield handle.workspaces
        finally:
            handle.workspaces, handle.most, handle.stream = usual, most, None


@cache
def library_of(cupy: Any) -> Library:
    """The `Library` of a CuPy module, made once. The key is the module: a test double has the same name."""
    return Library(cupy)
