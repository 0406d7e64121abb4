"""Matrix products of CuPy's arrays, by cuBLAS directly.

CuPy refuses every call of cuBLAS on a stream that is being captured (cupy/cupy issue 6290, open at version 14.2), and
with it `cupy.matmul`. NVIDIA supports capture with a workspace of the caller. So products of floats are computed here,
whether a stream captures or not: a recorded product uses the same routine and workspace size, and has the same bits.

CuPy decides by a setting of the process whether factors may be rounded to TF32, and reads it for some products only.
Here it is an argument, and holds for all of them.

In mixed precision both factors are converted to 16 bits, which tensor cores multiply, and sums and results are float32.
"""

import ctypes
from typing import Any

import numpy as np

from ...common.types import Array
from .cublas import Library, library_of
from .matmul_plan import MatmulPlan
from .narrow import to_16_bits

# The most plans of one `CublasMatmul`, one for each combination of shapes and strides.
PLANS = 4096
# By a dtype's letter, of library_types.h and cublas_api.h: cudaDataType_t, cublasComputeType_t (full and TF32).
TYPES = {"f": (0, 68, 77), "d": (1, 70, 70)}
# cudaDataType_t of 16-bit factors, with results of float32.
NARROW_TYPES = {"float16": 2, "bfloat16": 14}
DEFAULT_ALGORITHM = -1

_SCALARS = {kind: (number(1.0), number(0.0)) for kind, number in (("f", ctypes.c_float), ("d", ctypes.c_double))}
# Addresses of 1 and 0 in each type, which cuBLAS reads during the call.
_ONE_AND_ZERO = {kind: tuple(map(ctypes.addressof, numbers)) for kind, numbers in _SCALARS.items()}


class CublasMatmul:
    """``matmul(a, b)`` of float arrays, on the current stream.

    Parameters
    ----------
    cupy : module
    tf32 : bool
        Whether factors of float32 may be rounded to 10 bits.
    library : Library, optional
        The one of the module by default.
    narrow : {"", "float16", "bfloat16"}
        What to round factors of float32 to.
    """

    def __init__(self, cupy: Any, tf32: bool = False, library: Library | None = None, narrow: str = "") -> None:
        self.cupy, self.tf32, self.narrow = cupy, tf32, narrow
        # Cached, because planning takes longer in Python than a product of small matrices on a GPU.
        self._plans: dict[Any, MatmulPlan] = {}
        self.library = library_of(cupy) if library is None else library

    def accepts(self, a: Array, b: Array) -> bool:
        """Whether cuBLAS can multiply these: arrays of float32 or float64 with at least one axis."""
        array = self.cupy.ndarray
        return (
            isinstance(a, array)
            and isinstance(b, array)
            and a.dtype.char in TYPES
            and b.dtype.char in TYPES
            and a.ndim > 0
            and b.ndim > 0
        )

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``a (*, M, K)`` times ``b (*, K, N)``, batches broadcast; 1-d factors as for `numpy.matmul`.

        Nothing is copied if each matrix of a factor, and of ``out``, is stored by rows or by columns, at any distance
        from one row or column to the next, and the matrices of a batch are evenly spaced.
        """
        if a.dtype != b.dtype:
            a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
        dtype, kind, left, right = a.dtype, a.dtype.char, a, b
        steps = a.strides, b.strides
        if self.narrow and kind == "f":
            left, right = to_16_bits(a, self.narrow), to_16_bits(b, self.narrow)
            # Plans count in entries of the result: twice the bytes of a factor's.
            steps = tuple(2 * n for n in left.strides), tuple(2 * n for n in right.strides)
        form = kind, a.shape, steps[0], b.shape, steps[1], *((out.shape, out.strides) if out is not None else ())
        plan = self._plans.get(form)
        if plan is None:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            plan = self._plans[form] = MatmulPlan.of(*form)
        if plan.copied:
            a, b = (self._dense(x, shape) for x, shape in zip((a, b), plan.copied, strict=True))
            return self.matmul(a, b, out)
        y = out
        if y is None:
            y = self.cupy.empty(plan.shape, dtype)
        elif not plan.direct or y.dtype != dtype or self._overlap(y, left) or self._overlap(y, right):
            y[...] = self.matmul(a, b)
            return y
        if plan.empty:
            y.fill(0)
            return y
        number, full, rounded = TYPES[kind]
        factor = number if left is a else NARROW_TYPES[self.narrow]
        if plan.transposed:
            left, right = right, left
        one, zero = _ONE_AND_ZERO[kind]
        handle = self.library.on_current_stream()
        self.library.call(
            plan.routine,
            *(handle, *plan.sizes, one, left.data.ptr, factor, *plan.left, right.data.ptr, factor, *plan.right),
            *(zero, y.data.ptr, number, *plan.result, rounded if self.tf32 else full, DEFAULT_ALGORITHM),
        )
        return y

    def _overlap(self, a: Array, b: Array) -> bool:
        """Whether two arrays may share memory; most have different allocations, which is a cheap test."""
        one, other = a.data.mem, b.data.mem
        if one is not other and (one.ptr + one.size <= other.ptr or other.ptr + other.size <= one.ptr):
            return False
        return bool(self.cupy.may_share_memory(a, b))

    def _dense(self, x: Array, shape: tuple[int, ...] | None) -> Array:
        """A factor, or a copy of that shape if it has no form for cuBLAS."""
        return x if shape is None else self.cupy.ascontiguousarray(self.cupy.broadcast_to(x, shape))
