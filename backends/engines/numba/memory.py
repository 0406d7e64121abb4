"""Runs of numbers inside jobs, by their addresses: copied, set to 0, added.

Numba checks every index for a negative number unless it counts from 0, and the compiler then does not use vectors; nor
does it where two arrays may overlap. These instructions do without: runs do not overlap.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from .atomics import WORD
from .compiler import instruction

cgutils: Any = untyped
_BYTE = ir.IntType(8)
# Bytes of a vector.
_VECTOR = 64


@instruction
def copy_run(context: Any, to: Any, source: Any, count: Any, number: Any) -> Any:
    """Copy ``count`` numbers of the dtype of ``number``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, source, count, _ = arguments
        with builder.if_then(builder.icmp_signed(">", count, ir.Constant(WORD, 0))):
            places = [builder.inttoptr(address, _BYTE.as_pointer()) for address in (to, source)]
            cgutils.raw_memcpy(builder, *places, count, number.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, number), generate


@instruction
def hold(context: Any, array: Any) -> Any:
    """Do nothing with an array, which Numba frees after its last use: an address alone does not keep its memory."""
    return types.void(array), lambda context, builder, signature, arguments: context.get_dummy_value()


@instruction
def fetch_run(context: Any, address: Any, size: Any) -> Any:
    """Ask for ``size`` bytes to be brought into the core's second cache, line by line."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, size = arguments
        place, flag = _BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with _range(builder, ir.Constant(WORD, 0), size, _VECTOR) as offset:
            line = builder.inttoptr(builder.add(address, offset), place)
            builder.call(function, [line, ir.Constant(flag, 0), ir.Constant(flag, 2), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def clear_run(context: Any, to: Any, count: Any, number: Any) -> Any:
    """Set ``count`` numbers of the dtype of ``number`` to 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, count, _ = arguments
        with builder.if_then(builder.icmp_signed(">", count, ir.Constant(WORD, 0))):
            size = builder.mul(count, ir.Constant(WORD, number.bitwidth // 8))
            cgutils.memset(builder, builder.inttoptr(to, _BYTE.as_pointer()), size, 0)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 2, number), generate


@instruction
def add_run(context: Any, to: Any, source: Any, count: Any, number: Any) -> Any:
    """Add ``count`` numbers of the dtype of ``number`` to those at ``to``."""
    real = ir.FloatType() if number == types.float32 else ir.DoubleType()
    lanes = _VECTOR // (number.bitwidth // 8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, source, count, _ = arguments
        to, source = (builder.inttoptr(address, real.as_pointer()) for address in (to, source))
        whole = builder.and_(count, ir.Constant(WORD, -lanes))
        for kind, first, last, step in (
            (ir.VectorType(real, lanes), ir.Constant(WORD, 0), whole, lanes),
            (real, whole, count, 1),
        ):
            with _range(builder, first, last, step) as index:
                places = [builder.bitcast(builder.gep(a, [index]), kind.as_pointer()) for a in (to, source)]
                left, right = (builder.load(place, align=number.bitwidth // 8) for place in places)
                builder.store(builder.fadd(left, right), places[0], align=number.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, number), generate


@contextmanager
def _range(builder: Any, first: Any, last: Any, step: int) -> Iterator[Any]:
    """A loop over ``range(first, last, step)``."""
    before, body, after = builder.block, builder.append_basic_block("run"), builder.append_basic_block("rest")
    builder.cbranch(builder.icmp_signed("<", first, last), body, after)
    builder.position_at_end(body)
    index = builder.phi(WORD)
    yield index
    following = builder.add(index, ir.Constant(WORD, step))
    index.add_incoming(first, before)
    index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, last), body, after)
    builder.position_at_end(after)
