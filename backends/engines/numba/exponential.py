"""The exponential function inside jobs, of numbers up to 0, in instructions that LLVM computes for whole vectors.

``exp x = 2^n exp r`` with ``n = round(x / log 2)``. Source of the polynomial for ``exp r``: S. Moshier, Cephes Math
Library, ``expf``; the error is below 2 ULP. Float64 calls the C library, number by number.
"""

from typing import Any

from llvmlite import ir
from numba import types

from .compiler import instruction

_COEFFICIENTS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
# log 2 as a sum of two numbers, the first with few bits.
_LOG2 = (0.693359375, -2.12194440e-4)
# The exponential of any smaller number is 0 in float32.
_LEAST = -104.0


@instruction
def exponential(context: Any, x: Any) -> Any:
    """``exp x`` for ``x <= 0``; NaN for NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        single, whole = ir.FloatType(), ir.IntType(32)
        if x.type != single:
            return builder.call(builder.module.declare_intrinsic("llvm.exp", [x.type]), [x])

        def real(value: float) -> Any:
            return ir.Constant(single, value)

        def power_of_two(n: Any) -> Any:
            return builder.bitcast(builder.shl(builder.add(n, ir.Constant(whole, 127)), ir.Constant(whole, 23)), single)

        x = builder.select(builder.fcmp_ordered("<", x, real(_LEAST)), real(_LEAST), x)
        floor = builder.module.declare_intrinsic("llvm.floor", [single])
        n = builder.call(floor, [builder.fadd(builder.fmul(x, real(1.4426950408889634)), real(0.5))])
        # A NaN has no integer.
        n = builder.select(builder.fcmp_ordered("ord", x, x), n, real(0.0))
        r = x
        for part in _LOG2:
            r = builder.fsub(r, builder.fmul(n, real(part)))
        sum_of_powers = real(_COEFFICIENTS[0])
        for coefficient in (*_COEFFICIENTS[1:], 1.0, 1.0):
            sum_of_powers = builder.fadd(builder.fmul(sum_of_powers, r), real(coefficient))
        # In two steps, as 2^n may be smaller than the smallest number that has all bits.
        exponent = builder.fptosi(n, whole)
        half = builder.ashr(exponent, ir.Constant(whole, 1))
        for part in (half, builder.sub(exponent, half)):
            sum_of_powers = builder.fmul(sum_of_powers, power_of_two(part))
        return sum_of_powers

    return x(x) if x in (types.float32, types.float64) else None, generate
