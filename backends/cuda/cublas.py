"""Matrix products of CuPy's arrays, by cuBLAS itself.

CuPy refuses every call of cuBLAS on a stream that is being captured (cupy/cupy issue 6290, open at version 14.2), and
with it `cupy.matmul`. NVIDIA supports capture, with a workspace that belongs to the caller: otherwise the graph would
allocate one. So products of floats are made here through ctypes, in the library that CuPy uses, whether a stream
captures or not: a recorded product is then the plain one, by the same routine with a workspace of the same size, and
has the same bits. CuPy decides by a switch of the process whether factors may be rounded to TF32, and reads it for some
products only; here each caller says so, for all of them.

A handle of cuBLAS may not be used by two threads at once, nor a workspace by two streams. So there is a handle for each
thread and device, with a workspace for each stream; what a recording multiplies has workspaces of its own, which live
as long as the recording.
"""

import ctypes
import importlib
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...common.types import Array
from ..execution.per_thread import PerThread

# Bytes that NVIDIA recommends, from compute capability 9.0 on and before.
WORKSPACE, SMALLER_WORKSPACE = 32 << 20, 4 << 20
# Streams of one thread whose workspaces are kept.
STREAMS = 4
# Shapes and strides for which it is known how they are multiplied.
PLANS = 4096
# By a dtype's letter, of library_types.h and cublas_api.h: cudaDataType_t, cublasComputeType_t (full and TF32).
KINDS = {"f": (0, 68, 77), "d": (1, 70, 70)}
DEFAULT_ALGORITHM = -1
LARGEST = 2**31 - 1
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
_SCALARS = {kind: (number(1.0), number(0.0)) for kind, number in (("f", ctypes.c_float), ("d", ctypes.c_double))}
#: Addresses of 1 and 0 in each type, which cuBLAS reads as it is called.
_ONE_AND_ZERO = {kind: tuple(map(ctypes.addressof, numbers)) for kind, numbers in _SCALARS.items()}


def load(runtime_version: int) -> Any:
    """The cuBLAS of the CUDA version that CuPy runs on, as ``runtimeGetVersion`` tells it."""
    major = runtime_version // 1000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    try:
        # The one that CuPy has loaded, if it has.
        return ctypes.CDLL(name, mode=getattr(os, "RTLD_NOLOAD", ctypes.DEFAULT_MODE))
    except OSError:
        pass
    try:
        # How CuPy finds it.
        return ctypes.CDLL(importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            raise ImportError(f"{name} does not load ({error})") from None


class Handle:
    """A handle of cuBLAS on one device, which one thread has at a time."""

    def __init__(self, pointer: int | None) -> None:
        self.pointer = pointer
        #: The workspace of each stream, by the stream's address.
        self.workspaces: OrderedDict[int, Any] = OrderedDict()
        #: How many of them are kept.
        self.most: float = STREAMS
        #: The stream that was set last; None if it must be set again.
        self.stream: int | None = None


class Library:
    """cuBLAS, and a handle of it for each thread and device.

    Parameters
    ----------
    cupy : module
    functions : ctypes library, optional
        In place of what `load` gives.
    """

    def __init__(self, cupy: Any, functions: Any = None) -> None:
        self._cupy, self._given = cupy, functions
        self._handles: dict[int, PerThread[Handle]] = {}

    @cached_property
    def functions(self) -> dict[str, Any]:
        """Those that are called here, with the types of their arguments."""
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
        """This thread's handle by address, set to the current stream and a workspace that no other stream has."""
        handle, stream = self.handle(), self._cupy.cuda.get_current_stream().ptr
        if handle.stream != stream:
            handle.stream = None
            self.call("cublasSetStream_v2", handle.pointer, stream)
            # A new stream brings the library's own workspace back, so that it comes first.
            workspace, size = self._workspace(handle, stream)
            self.call("cublasSetWorkspace_v2", handle.pointer, workspace.ptr, size)
            handle.stream = stream
        return handle.pointer

    def _workspace(self, handle: Handle, stream: int) -> tuple[Any, int]:
        """Memory that was allocated for the current stream, and is freed in its order."""
        size = WORKSPACE if int(self._cupy.cuda.Device().compute_capability) >= 90 else SMALLER_WORKSPACE
        memory = handle.workspaces.pop(stream, None)
        handle.workspaces[stream] = memory = self._cupy.cuda.alloc(size) if memory is None else memory
        while len(handle.workspaces) > handle.most:
            handle.workspaces.popitem(last=False)
        return memory, size

    @contextmanager
    def own_workspaces(self) -> Iterator[OrderedDict[int, Any]]:
        """Within, this thread's products get new workspaces, which whoever keeps this mapping keeps."""
        handle = self.handle()
        usual, most = handle.workspaces, handle.most
        handle.workspaces, handle.most, handle.stream = OrderedDict(), float("inf"), None
        try:
            yield handle.workspaces
        finally:
            handle.workspaces, handle.most, handle.stream = usual, most, None


@cache
def shared(cupy: Any) -> Library:
    """The one of a CuPy: of the module, and not of its name, which a stand-in in a test shares."""
    return Library(cupy)


class Products:
    """``matmul(a, b)`` of float arrays, into the current stream.

    Parameters
    ----------
    cupy : module
    tf32 : bool
        Whether factors of float32 may be rounded to 10 bits.
    library : Library, optional
        That of the module, unless given.
    """

    def __init__(self, cupy: Any, tf32: bool = False, library: Library | None = None) -> None:
        self.cupy, self.tf32 = cupy, tf32
        # Making a plan takes Python longer than a GPU takes for a product of small matrices.
        self._plans: dict[Any, Plan] = {}
        self.library = shared(cupy) if library is None else library

    def takes(self, a: Array, b: Array) -> bool:
        """Whether these are factors for cuBLAS: float32 or float64, of at least one axis each."""
        array = self.cupy.ndarray
        return (
            isinstance(a, array)
            and isinstance(b, array)
            and a.dtype.char in KINDS
            and b.dtype.char in KINDS
            and a.ndim > 0
            and b.ndim > 0
        )

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``a (*, M, K)`` times ``b (*, K, N)``, batches broadcast; 1-d factors as for `numpy.matmul`.

        Nothing is copied where each matrix of a factor, and of ``out``, is stored by rows or by columns, at whatever
        distance from one row or column to the next, and the matrices of a batch are evenly spaced.
        """
        if a.dtype != b.dtype:
            a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
        kind = a.dtype.char
        form = kind, a.shape, a.strides, b.shape, b.strides, *((out.shape, out.strides) if out is not None else ())
        plan = self._plans.get(form)
        if plan is None:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = self._plans[form] = Plan.of(*form)
        if plan.copied:
            a, b = (self._dense(x, shape) for x, shape in zip((a, b), plan.copied, strict=True))
            return self.matmul(a, b, out)
        y = out
        if y is None:
            y = self.cupy.empty(plan.shape, a.dtype)
        elif not plan.direct or y.dtype != a.dtype or self._overlap(y, a) or self._overlap(y, b):
            y[...] = self.matmul(a, b)
            return y
        if plan.empty:
            y.fill(0)
            return y
        left, right = (b, a) if plan.turned else (a, b)
        one, zero = _ONE_AND_ZERO[kind]
        number, full, rounded = KINDS[kind]
        handle = self.library.on_current_stream()
        self.library.call(
            plan.routine,
            *(handle, *plan.sizes, one, left.data.ptr, number, *plan.left, right.data.ptr, number, *plan.right),
            *(zero, y.data.ptr, number, *plan.result, rounded if self.tf32 else full, DEFAULT_ALGORITHM),
        )
        return y

    def _overlap(self, a: Array, b: Array) -> bool:
        """Whether two arrays may share memory; most are of different allocations, which is quick to see."""
        one, other = a.data.mem, b.data.mem
        if one is not other and (one.ptr + one.size <= other.ptr or other.ptr + other.size <= one.ptr):
            return False
        return bool(self.cupy.may_share_memory(a, b))

    def _dense(self, x: Array, shape: tuple[int, ...] | None) -> Array:
        """A factor, or where it has no form for cuBLAS a copy of that shape."""
        return x if shape is None else self.cupy.ascontiguousarray(self.cupy.broadcast_to(x, shape))


@dataclass(frozen=True)
class Plan:
    """How factors of certain shapes and strides are multiplied.

    Attributes
    ----------
    shape : tuple of int
        Of the result.
    copied : pair of shapes, or None
        What each factor is to be copied to first, None for one that is not; None if neither is.
    direct : bool
        Whether cuBLAS can write to a result of the strides that were given.
    empty : bool
        Whether nothing is to be multiplied, and the result is zeros, if it has entries at all.
    turned : bool
        Whether the transposed product is computed, of the factors in the other order.
    routine : str
    sizes, left, right, result : tuple of int
        Its arguments, but for addresses, types and scalars.
    """

    shape: tuple[int, ...]
    copied: tuple[tuple[int, ...] | None, tuple[int, ...] | None] | None = None
    direct: bool = True
    empty: bool = False
    turned: bool = False
    routine: str = ""
    sizes: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    result: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        kind: str,
        a_shape: tuple[int, ...],
        a_strides: tuple[int, ...],
        b_shape: tuple[int, ...],
        b_strides: tuple[int, ...],
        y_shape: tuple[int, ...] | None = None,
        y_strides: tuple[int, ...] = (),
    ) -> "Plan":
        """The plan for factors, and for a result if it is given."""
        size, row, column = np.dtype(kind).itemsize, len(a_shape) == 1, len(b_shape) == 1
        left, right = Factor(a_shape, a_strides, row, False), Factor(b_shape, b_strides, False, column)
        (m, k), (depth, n) = left.shape[-2:], right.shape[-2:]
        if k != depth:
            raise ValueError(f"matmul: {a_shape} and {b_shape} do not fit, {k} columns and {depth} rows")
        batch = left.batch if left.batch == right.batch else np.broadcast_shapes(left.batch, right.batch)
        count = prod(batch)
        shape = (*batch, *(() if row else (m,)), *(() if column else (n,)))
        if y_shape not in (None, shape):
            raise ValueError(f"matmul: {a_shape} times {b_shape} has shape {shape}, and out has {y_shape}")
        if not prod(shape) or not k:
            return cls(shape, empty=True)
        if max(m, n, k, count) > LARGEST:
            raise ValueError(f"matmul: {count} products of {m} x {k} and {k} x {n} are too large for 32-bit sizes")
        y = Factor(shape, y_strides or _dense(shape, size), row, column).matrix(batch, size)
        if y is None or (y.apart == 0 and count > 1):
            return cls(shape, direct=False)
        a, b = left.matrix(batch, size), right.matrix(batch, size)
        if a is None or b is None:
            return cls(shape, (None if a else left.whole(batch), None if b else right.whole(batch)))
        if count > 1 and b.apart == 0:
            a, y, count = _joined(a, y, count)
        elif count > 1 and a.apart == 0:
            b, y, count = _joined(b.transposed(), y.transposed(), count)
            b, y = b.transposed(), y.transposed()
        turned = bool(y.by_rows)
        if turned:
            # cuBLAS writes columns first; a result by rows is one by columns of the transposed product.
            a, b, y = b.transposed(), a.transposed(), y.transposed()
        sizes = (a.by_rows, b.by_rows, y.rows, y.columns, a.columns)
        if count == 1:
            return cls(
                *(shape, None, True, False, turned, "cublasGemmEx", sizes, (a.leading,), (b.leading,), (y.leading,))
            )
        return cls(
            *(shape, None, True, False, turned, "cublasGemmStridedBatchedEx", sizes),
            *((a.leading, a.apart), (b.leading, b.apart), (y.leading, y.apart, count)),
        )


class Matrix(NamedTuple):
    """Matrices of a batch in memory, as cuBLAS's arguments describe them.

    ``down`` is the distance in entries between rows, ``across`` between columns, ``apart`` between matrices.
    ``by_rows`` is 1 where rows are stored one after the other and 0 where columns are, ``leading`` apart each.
    """

    rows: int
    columns: int
    down: int
    across: int
    apart: int
    by_rows: int
    leading: int

    def transposed(self) -> "Matrix":
        """The same memory, rows for columns."""
        rows, columns, down, across, apart, by_rows, leading = self
        return Matrix(columns, rows, across, down, apart, 1 - by_rows, leading)


def _matrix(rows: int, columns: int, down: int, across: int, apart: int) -> Matrix | None:
    """None where neither rows nor columns are contiguous, or one begins before the last one ends.

    An axis of one entry may have any stride.
    """
    if (across == 1 or columns == 1) and (rows == 1 or columns <= down <= LARGEST):
        return Matrix(rows, columns, down, across, apart, 1, down if rows > 1 else columns)
    if (down == 1 or rows == 1) and (columns == 1 or rows <= across <= LARGEST):
        return Matrix(rows, columns, down, across, apart, 0, across if columns > 1 else rows)
    return None


def _joined(x: Matrix, y: Matrix, count: int) -> tuple[Matrix, Matrix, int]:
    """A batch of factors ``x`` and results ``y`` whose other factor is one matrix, as one of more rows, if they are."""
    tall = []
    for rows, columns, down, across, apart, *_ in (x, y):
        down = apart if rows == 1 else down
        fits = 0 < apart == rows * down and rows * count <= LARGEST
        joined = _matrix(rows * count, columns, down, across, 0) if fits else None
        if joined is None:
            return x, y, count
        tall.append(joined)
    return tall[0], tall[1], 1


def _dense(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Strides of a new array."""
    strides = []
    for n in reversed(shape):
        strides.append(size)
        size *= n
    return tuple(reversed(strides))


class Factor:
    """An array as a batch of matrices; ``row`` or ``column`` is True for a vector that stands for one."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], row: bool, column: bool) -> None:
        self.given = shape
        if column:
            shape, strides = (*shape, 1), (*strides, 0)
        if row:
            shape, strides = (*shape[:-1], 1, shape[-1]), (*strides[:-1], 0, strides[-1])
        # The stride of an axis of one entry has no meaning, and a copy would keep a negative one.
        self.strides = tuple(step if n > 1 else 0 for n, step in zip(shape, strides, strict=True))
        self.shape, self.batch = shape, shape[:-2]

    def matrix(self, batch: tuple[int, ...], size: int) -> Matrix | None:
        """The memory of the matrices over a whole batch of entries of that size; None if cuBLAS has no form for it."""
        apart, (down, across) = self.apart(batch), self.strides[-2:]
        if apart is None or down % size or across % size or apart % size or min(down, across, apart) < 0:
            return None
        rows, columns = self.shape[-2:]
        return _matrix(rows, columns, down // size, across // size, apart // size)

    def apart(self, batch: tuple[int, ...]) -> int | None:
        """The one step in bytes from matrix to matrix through a whole batch; None if there is none."""
        step: int | None = None
        reach = 0
        own, steps = self.batch, self.strides[:-2]
        for i in range(1, len(batch) + 1):
            if batch[-i] == 1:
                continue
            stride = steps[-i] if i <= len(own) and own[-i] != 1 else 0
            if step is not None and stride != reach:
                return None
            step, reach = stride if step is None else step, stride * batch[-i]
        return step or 0

    def whole(self, batch: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a copy that cuBLAS has a form for: over all of the batch, where that has no even step."""
        return self.given if self.apart(batch) is not None else (*batch, *self.given[len(self.batch) :])
