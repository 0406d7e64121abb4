"""The dot product of two vectors inside jobs, in a fixed number of lanes."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from .atomics import WORD
from .compiler import instruction

cgutils: Any = untyped
# Lanes of a vector, and vectors that are added up side by side.
LANES, CHAINS = 16, 4


@instruction
def dot(context: Any, a: Any, b: Any, size: Any, number: Any) -> Any:
    """``sum a[i] b[i]`` over ``size`` entries at two addresses, of the dtype of ``number``."""
    real = ir.FloatType() if number == types.float32 else ir.DoubleType()
    vector = ir.VectorType(real, LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, size, _ = arguments
        a, b = (builder.inttoptr(address, real.as_pointer()) for address in (a, b))
        fuse = ("contract",)

        def load(base: Any, index: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [index]), vector.as_pointer()), align=4)

        chains = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * LANES)) for _ in range(CHAINS)]
        step = ir.Constant(WORD, LANES * CHAINS)
        whole = builder.mul(builder.sdiv(size, step), step)
        with cgutils.for_range_slice(builder, ir.Constant(WORD, 0), whole, step, inc=True) as (index, _):
            for chain, total in enumerate(chains):
                at = builder.add(index, ir.Constant(WORD, LANES * chain))
                product = builder.fmul(load(a, at), load(b, at), flags=fuse)
                builder.store(builder.fadd(builder.load(total), product, flags=fuse), total)
        sums = [builder.load(chain) for chain in chains]
        while len(sums) > 1:
            sums = [builder.fadd(left, right) for left, right in zip(sums[::2], sums[1::2], strict=True)]
        lanes = [builder.extract_element(sums[0], ir.Constant(ir.IntType(32), lane)) for lane in range(LANES)]
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [builder.fadd(left, right) for left, right in zip(lanes[:half], lanes[half:], strict=True)]
        result = cgutils.alloca_once_value(builder, lanes[0])
        with cgutils.for_range_slice(builder, whole, size, ir.Constant(WORD, 1), inc=True) as (index, _):
            product = builder.fmul(
                builder.load(builder.gep(a, [index])), builder.load(builder.gep(b, [index])), flags=fuse
            )
            builder.store(builder.fadd(builder.load(result), product, flags=fuse), result)
        return builder.load(result)

    return number(types.int64, types.int64, types.int64, number), generate
