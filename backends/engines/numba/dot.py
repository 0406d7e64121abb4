"""The dot product of two vectors inside jobs, in a fixed number of lanes."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from .atomics import WORD
from .compiler import instruction

cgutils: Any = untyped
_INDEX = ir.IntType(32)
# Lanes of a vector, and vectors that are added up side by side.
LANES, CHAINS = 16, 4


def _dot(is_wide: bool) -> Any:
    """The instruction `dot`, or `wide_dot`."""

    def product(context: Any, a: Any, b: Any, size: Any, number: Any) -> Any:
        real = ir.FloatType() if number == types.float32 else ir.DoubleType()
        total = types.float64 if is_wide else number
        return total(types.int64, types.int64, types.int64, number), _generator(real, is_wide)

    return instruction(product)


def _generator(real: Any, is_wide: bool) -> Any:
    result = ir.DoubleType() if is_wide else real
    stored, vector, fuse = ir.VectorType(real, LANES), ir.VectorType(result, LANES), ("contract",)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, size, _ = arguments
        a, b = (builder.inttoptr(address, real.as_pointer()) for address in (a, b))

        def widened(value: Any, kind: Any) -> Any:
            return value if value.type == kind else builder.fpext(value, kind)

        def load(base: Any, index: Any) -> Any:
            place = builder.bitcast(builder.gep(base, [index]), stored.as_pointer())
            return widened(builder.load(place, align=4), vector)

        def load_one(base: Any, index: Any) -> Any:
            return widened(builder.load(builder.gep(base, [index])), result)

        def add_product(total: Any, left: Any, right: Any) -> None:
            product = builder.fmul(left, right, flags=fuse)
            builder.store(builder.fadd(builder.load(total), product, flags=fuse), total)

        chains = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * LANES)) for _ in range(CHAINS)]
        step = ir.Constant(WORD, LANES * CHAINS)
        whole = builder.mul(builder.sdiv(size, step), step)
        with cgutils.for_range_slice(builder, ir.Constant(WORD, 0), whole, step, inc=True) as (index, _):
            for chain, total in enumerate(chains):
                at = builder.add(index, ir.Constant(WORD, LANES * chain))
                add_product(total, load(a, at), load(b, at))
        vectors = builder.mul(builder.sdiv(size, ir.Constant(WORD, LANES)), ir.Constant(WORD, LANES))
        with cgutils.for_range_slice(builder, whole, vectors, ir.Constant(WORD, LANES), inc=True) as (index, _):
            add_product(chains[0], load(a, index), load(b, index))
        sums = [builder.load(chain) for chain in chains]
        while len(sums) > 1:
            sums = [builder.fadd(left, right) for left, right in zip(sums[::2], sums[1::2], strict=True)]
        total, half = sums[0], LANES // 2
        while half:
            parts = [
                builder.shuffle_vector(
                    total, total, ir.Constant(ir.VectorType(_INDEX, half), list(range(first, first + half)))
                )
                for first in (0, half)
            ]
            total, half = builder.fadd(*parts), half // 2
        total = builder.extract_element(total, ir.Constant(_INDEX, 0))
        rest = cgutils.alloca_once_value(builder, total)
        with cgutils.for_range_slice(builder, vectors, size, ir.Constant(WORD, 1), inc=True) as (index, _):
            add_product(rest, load_one(a, index), load_one(b, index))
        return builder.load(rest)

    return generate


#: ``dot(a, b, size, number)``: ``sum a[i] b[i]`` over ``size`` entries at two addresses, of the dtype of ``number``.
dot = _dot(is_wide=False)
#: The same, added up in float64.
wide_dot = _dot(is_wide=True)
