"""Matrix products by cuBLAS itself, for the time of a capture.

CuPy refuses every call of cuBLAS on a stream that is being captured (cupy/cupy issue 6290, open at version 14.2), and
with it `cupy.matmul`. NVIDIA supports capture, with a workspace that belongs to the caller: otherwise the graph would
allocate one. So a handle and a workspace of our own take the products of floats here, through ctypes, in the library
that CuPy has loaded; all that is around them (views, copies, results) stays CuPy's.
"""

import ctypes
import importlib
import sys
from math import prod
from typing import Any

from .types import Array

# What NVIDIA recommends for Hopper and later; older devices need less.
WORKSPACE = 32 << 20
# Of cublas_api.h and library_types.h: cudaDataType_t, cublasComputeType_t (full and TF32), and a factor's C type.
TYPES = {"float32": (0, 68, 77, ctypes.c_float), "float64": (1, 70, 70, ctypes.c_double)}
DEFAULT_ALGORITHM = -1
LARGEST = 2**31 - 1


def load(runtime_version: int) -> Any:
    """The cuBLAS of the CUDA version that CuPy runs on, as ``runtimeGetVersion`` tells it."""
    major = runtime_version // 1000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    try:
        # CuPy has loaded it by now, and the loader finds it again by this name wherever it lies.
        return ctypes.CDLL(name)
    except OSError as error:
        try:
            found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublas")
            return ctypes.CDLL(found.abs_path)
        except Exception:
            raise RuntimeError(f"compile needs cuBLAS, and {name} does not load ({error})") from None


class Products:
    """``matmul(a, b)`` of float arrays into one stream, by a cuBLAS handle of its own.

    Parameters
    ----------
    cupy : module
    library : ctypes library
        What `load` gives.
    stream : cupy.cuda.Stream
        Where products are queued; it may be capturing.
    tf32 : bool
        Whether factors of float32 may be rounded to 10 bits.
    """

    def __init__(self, cupy: Any, library: Any, stream: Any, tf32: bool) -> None:
        # One handle for a device and the life of the process: it is never destroyed.
        self._cupy, self._library, self._tf32 = cupy, library, tf32
        self._workspace = cupy.cuda.alloc(WORKSPACE)
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        # A new stream brings the workspace of the library back, so it comes first.
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream.ptr))
        workspace = ctypes.c_void_p(self._workspace.ptr)
        self._call("cublasSetWorkspace_v2", self._handle, workspace, ctypes.c_size_t(WORKSPACE))

    def takes(self, a: Array, b: Array) -> bool:
        """Whether these are factors for cuBLAS: floats of one dtype, of at least one axis each."""
        return str(a.dtype) in TYPES and a.dtype == b.dtype and a.ndim > 0 and b.ndim > 0

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``a (*, M, K)`` times ``b (*, K, N)``, batches broadcast; 1-d factors as for `numpy.matmul`."""
        cupy = self._cupy
        rows, columns = a.ndim == 1, b.ndim == 1
        a, b = a[None, :] if rows else a, b[:, None] if columns else b
        (m, k), (depth, n) = a.shape[-2:], b.shape[-2:]
        if k != depth:
            raise ValueError(f"matmul: {a.shape} and {b.shape} do not fit, {k} columns and {depth} rows")
        batch = cupy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y = cupy.empty((*batch, m, n), dtype=a.dtype)
        if k == 0:
            y.fill(0)
        elif y.size:
            self._multiply(a, b, y, prod(batch), m, n, k)
        y = y[..., 0, :] if rows else y
        y = y[..., 0] if columns else y
        if out is None:
            return y
        out[...] = y
        return out

    def _multiply(self, a: Array, b: Array, y: Array, count: int, m: int, n: int, k: int) -> None:
        # cuBLAS reads columns first: row-major matrices are their transposes there, and y' = b' a'.
        left, right = (self._operand(each, y.shape[:-2]) for each in (b, a))
        if max(m, n, k, left.leading, right.leading, count) > LARGEST:
            raise ValueError(f"matmul: factors of {a.shape} and {b.shape} are too large for cuBLAS's 32-bit sizes")
        kind, compute, fast, factor = TYPES[str(y.dtype)]
        one, zero = factor(1.0), factor(0.0)
        self._call(
            "cublasGemmStridedBatchedEx",
            self._handle,
            *(left.transposed, right.transposed, n, m, k, ctypes.byref(one)),
            *(ctypes.c_void_p(left.array.data.ptr), kind, left.leading, ctypes.c_longlong(left.apart)),
            *(ctypes.c_void_p(right.array.data.ptr), kind, right.leading, ctypes.c_longlong(right.apart)),
            *(ctypes.byref(zero), ctypes.c_void_p(y.data.ptr), kind, n, ctypes.c_longlong(m * n)),
            *(count, fast if self._tf32 else compute, DEFAULT_ALGORITHM),
        )

    def _operand(self, x: Array, batch: tuple[int, ...]) -> "Operand":
        """A factor as cuBLAS takes it, copied where its strides are none of a matrix or of an even batch."""
        operand = Operand.of(x, batch)
        if operand is None:
            dense = self._cupy.ascontiguousarray(self._cupy.broadcast_to(x, (*batch, *x.shape[-2:])))
            operand = Operand.of(dense, batch)
        if operand is None:
            raise ValueError(f"matmul: a factor of shape {x.shape} and strides {x.strides} has no form for cuBLAS")
        return operand

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with cuBLAS status {status}")


class Operand:
    """A factor by address: whether cuBLAS transposes it, its leading dimension, and matrices apart by how much."""

    def __init__(self, array: Array, transposed: int, leading: int, apart: int) -> None:
        self.array, self.transposed, self.leading, self.apart = array, transposed, leading, apart

    @classmethod
    def of(cls, x: Array, batch: tuple[int, ...]) -> "Operand | None":
        """The factor without a copy, or None where it needs one."""
        size = x.itemsize
        strides = [stride // size for stride in x.strides]
        (rows, columns), (down, across) = x.shape[-2:], strides[-2:]
        apart = cls._even(x.shape[:-2], strides[:-2], batch)
        if apart is None or any(stride < 0 or stride % size for stride in x.strides):
            return None
        # An axis of one entry has whatever stride; the leading dimension must not be smaller than a row.
        if (across == 1 or columns == 1) and (down >= columns or rows == 1):
            return cls(x, 0, max(down if rows > 1 else columns, columns, 1), apart)
        if (down == 1 or rows == 1) and (across >= rows or columns == 1):
            return cls(x, 1, max(across if columns > 1 else rows, rows, 1), apart)
        return None

    @staticmethod
    def _even(shape: tuple[int, ...], strides: list[int], batch: tuple[int, ...]) -> int | None:
        """The one step from matrix to matrix through a whole batch, 0 for one matrix; None if there is none."""
        if prod(shape) == 1:
            return 0
        if tuple(shape) != tuple(batch):
            return None
        step: int | None = None
        reach = 0
        for n, stride in zip(reversed(shape), reversed(strides), strict=True):
            if n == 1:
                continue
            if step is not None and stride != reach:
                return None
            step, reach = stride if step is None else step, stride * n
        return step
