"""Matrix products inside jobs: the BLAS that NumPy uses, called by its address.

The address is an argument of a job and no constant in it, so that compiled code can be cached on disk. Integers of a
BLAS have 64 or 32 bits; the address of one with 32 is passed as a negative number.

The callers of these jobs set the BLAS to one thread (`Bound.uses_blas`).
"""

import ctypes
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from threadpoolctl import ThreadpoolController

from .atomics import WORD
from .compiler import instruction

_ROW_MAJOR, _NORMAL, _TRANSPOSED = 101, 111, 112
#: Prefixes and suffixes of the names of C functions in libraries: of OpenBLAS in NumPy's wheels first.
_NAMES = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))


@cache
def gemm_address(dtype: str) -> int:
    """The address of ``cblas_sgemm`` or ``cblas_dgemm``, negative if its integers have 32 bits; 0 if there is none."""
    letter = {"float32": "s", "float64": "d"}[dtype]
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        for prefix, suffix in _NAMES:
            function = getattr(ctypes.CDLL(library.filepath), f"{prefix}cblas_{letter}gemm{suffix}", None)
            if function is not None:
                address = int(ctypes.cast(function, ctypes.c_void_p).value or 0)
                return address if suffix == "64_" else -address
    return 0


@instruction
def gemm(
    context: Any,
    function: Any,
    left: Any,
    right: Any,
    rows: Any,
    columns: Any,
    depth: Any,
    a: Any,
    pitch_a: Any,
    b: Any,
    pitch_b: Any,
    keep: Any,
    c: Any,
    pitch_c: Any,
    number: Any,
) -> Any:
    """``c = op(a) op(b) + keep c`` with ``op(a) (rows, depth)`` and ``op(b) (depth, columns)``, in row-major order.

    ``a``, ``b`` and ``c`` are addresses, followed by the distance of their rows in entries. ``left`` and ``right`` are
    1 if a matrix is stored transposed, else 0. ``keep`` is 0 or 1, and ``number`` any number of the dtype.
    """
    real = ir.FloatType() if number == types.float32 else ir.DoubleType()

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address, left, right, rows, columns, depth, a, pitch_a, b, pitch_b, keep, c, pitch_c, _ = values
        narrow = ir.IntType(32)

        def operation(flag: Any) -> Any:
            is_set = builder.icmp_signed("!=", flag, ir.Constant(WORD, 0))
            return builder.select(is_set, ir.Constant(narrow, _TRANSPOSED), ir.Constant(narrow, _NORMAL))

        def call(whole: Any, where: Any) -> None:
            def size(value: Any) -> Any:
                return value if whole is WORD else builder.trunc(value, whole)

            memory, flags = real.as_pointer(), [ir.Constant(narrow, _ROW_MAJOR), operation(left), operation(right)]
            sizes = [size(rows), size(columns), size(depth)]
            factor = builder.sitofp(keep, real)
            kinds = [narrow] * 3 + [whole] * 3 + [real, memory, whole, memory, whole, real, memory, whole]
            kind = ir.FunctionType(ir.VoidType(), kinds)
            builder.call(
                builder.inttoptr(where, kind.as_pointer()),
                [
                    *flags,
                    *sizes,
                    ir.Constant(real, 1.0),
                    builder.inttoptr(a, memory),
                    size(pitch_a),
                    builder.inttoptr(b, memory),
                    size(pitch_b),
                    factor,
                    builder.inttoptr(c, memory),
                    size(pitch_c),
                ],
            )

        has_wide = builder.icmp_signed(">", address, ir.Constant(WORD, 0))
        with builder.if_else(has_wide) as (wide, otherwise):
            with wide:
                call(WORD, address)
            with otherwise:
                call(narrow, builder.neg(address))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 13, number), generate
