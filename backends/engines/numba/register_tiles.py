"""Sums of products in vector registers, written in LLVM instructions.

The compiler does not keep an array of sums in registers, so the tiles of direct and depthwise convolution are written
in instructions: some sums times one or two vectors of features stay in registers while a loop adds products to them.

Vectors have 16 numbers; shorter registers hold one in parts. The last vector of a row has a mask. Which tile computes a
sum changes no bit of it: each sum has its own register, and its terms have one order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as untyped_llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from .compiler import instruction

cgutils: Any = untyped
llvm: Any = untyped_llvm
#: Numbers of a vector, and of one for few features.
LANES, HALF_LANES = 16, 8
#: Whether the processor has 32 registers of 512 bits, so that a tile may have 16 sums of 16 numbers.
HAS_LARGE_REGISTERS = bool(llvm.get_host_cpu_features().get("avx512f", False))
#: Flags with which LLVM may fuse a product and a sum.
FUSE = ("contract",)
_NUMBER, _WORD, _BIT, _INDEX = ir.FloatType(), ir.IntType(64), ir.IntType(1), ir.IntType(32)


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@contextmanager
def _loop(builder: Any, count: Any) -> Iterator[Any]:
    """A loop over ``0 .. count - 1`` that is not unrolled: unrolled twice, sums are moved from registers to memory."""
    before, body = builder.block, builder.append_basic_block("products")
    after = builder.append_basic_block("sums")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_WORD, 0)), body, after)
    builder.position_at_end(body)
    index = builder.phi(_WORD)
    yield index
    following = builder.add(index, ir.Constant(_WORD, 1))
    index.add_incoming(ir.Constant(_WORD, 0), before)
    index.add_incoming(following, builder.block)
    branch = builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    rule = builder.module.add_metadata([ir.MetaDataString(builder.module, "llvm.loop.unroll.disable")])
    # The name of a loop is a node that refers to itself.
    name = builder.module.add_metadata([rule, builder.module.add_metadata([rule])])
    name.operands = (name, rule)
    branch.set_metadata("llvm.loop", name)
    builder.position_at_end(after)


def _fetch(builder: Any, place: Any) -> None:
    """Ask for the line of a pointer to be brought into the core's first cache; any address will do."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _INDEX, _INDEX, _INDEX])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # To be read, often, data.
    flags = [ir.Constant(_INDEX, flag) for flag in (0, 3, 1)]
    builder.call(function, [builder.bitcast(place, byte), *flags])


class _Vector:
    """Loads and stores of a vector of ``lanes`` numbers, of which those in ``count`` are accessed."""

    def __init__(self, builder: Any, lanes: int, count: Any) -> None:
        self.builder, self.lanes, self.kind = builder, lanes, ir.VectorType(_NUMBER, lanes)
        self.count = count
        if count is not None:
            order = ir.Constant(ir.VectorType(_WORD, lanes), list(range(lanes)))
            self.mask = builder.icmp_signed("<", order, self.spread(count, _WORD))

    def spread(self, value: Any, kind: Any = _NUMBER) -> Any:
        """The value in all lanes."""
        builder, vector = self.builder, ir.VectorType(kind, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
        zeros = ir.Constant(ir.VectorType(_INDEX, self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(first, undefined, zeros)

    def load(self, place: Any) -> Any:
        """The vector at a pointer to its first number; 0 outside the mask."""
        pointer = self.builder.bitcast(place, self.kind.as_pointer())
        if self.count is None:
            return self.builder.load(pointer, align=4)
        masks = ir.VectorType(_BIT, self.lanes)
        kind = ir.FunctionType(self.kind, [self.kind.as_pointer(), _INDEX, masks, self.kind])
        name = f"llvm.masked.load.v{self.lanes}f32.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        zeros = ir.Constant(self.kind, [0.0] * self.lanes)
        return self.builder.call(function, [pointer, ir.Constant(_INDEX, 4), self.mask, zeros])

    def store(self, value: Any, place: Any) -> None:
        """Write the vector."""
        pointer = self.builder.bitcast(place, self.kind.as_pointer())
        if self.count is None:
            self.builder.store(value, pointer, align=4)
            return
        masks = ir.VectorType(_BIT, self.lanes)
        kind = ir.FunctionType(ir.VoidType(), [self.kind, self.kind.as_pointer(), _INDEX, masks])
        name = f"llvm.masked.store.v{self.lanes}f32.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        self.builder.call(function, [value, pointer, ir.Constant(_INDEX, 4), self.mask])

    def fuse(self, left: Any, right: Any, total: Any) -> Any:
        """``left * right + total``."""
        builder = self.builder
        return builder.fadd(total, builder.fmul(left, right, flags=FUSE), flags=FUSE)


def spread_tile(rows: int, vectors: int, lanes: int, masked: bool, ahead: int = 0) -> Callable[..., None]:
    """``out[i, f] = start[i, f] + sum over j of  x[a[i] + b[j]] * m[j, f]`` for ``rows`` entries of ``a``.

    There are ``vectors * lanes`` features, of which the last vector has ``count`` if it is ``masked``. All arguments
    are addresses, except for ``terms``, the number of ``j``; ``pitch``, ``start_step`` and ``step``, the distances of
    the rows of ``m``, ``start`` and ``out``; and ``relu``, whether negative sums become 0.

    While a row of ``m`` is multiplied, the numbers ``ahead`` bytes behind it are brought into a cache, unless that is
    0: requests that are spread evenly cost nothing, and memory is read while products are computed.
    """

    def tile(
        context: Any,
        x: Any,
        a: Any,
        b: Any,
        terms: Any,
        m: Any,
        pitch: Any,
        start: Any,
        start_step: Any,
        out: Any,
        step: Any,
        count: Any,
        relu: Any,
    ) -> Any:
        return types.void(*[types.int64] * 12), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, a, b, terms, m, pitch, start, start_step, out, step, count, relu = arguments
        x, m, start, out = (_at(builder, address, _NUMBER) for address in (x, m, start, out))
        a, b = _at(builder, a, _WORD), _at(builder, b, _WORD)
        full = [_Vector(builder, lanes, None) for _ in range(vectors - masked)]
        parts = [*full, _Vector(builder, lanes, count)] if masked else full

        def entry(base: Any, row: Any, distance: Any, part: int) -> Any:
            offset = builder.mul(row, distance)
            return builder.gep(base, [builder.add(offset, ir.Constant(_WORD, part * lanes))])

        places = [(i, k) for i in range(rows) for k in range(vectors)]
        starts = [builder.gep(x, [builder.load(builder.gep(a, [ir.Constant(_WORD, i)]))]) for i in range(rows)]
        sums = {
            (i, k): cgutils.alloca_once_value(
                builder, parts[k].load(entry(start, ir.Constant(_WORD, i), start_step, k))
            )
            for i, k in places
        }
        with _loop(builder, terms) as j:
            offset = builder.load(builder.gep(b, [j]))
            right = [part.load(entry(m, j, pitch, k)) for k, part in enumerate(parts)]
            for k in range(vectors if ahead else 0):
                _fetch(builder, builder.gep(entry(m, j, pitch, k), [ir.Constant(_WORD, ahead)]))
            for i in range(rows):
                left = parts[0].spread(builder.load(builder.gep(starts[i], [offset])))
                for k, part in enumerate(parts):
                    total = sums[i, k]
                    builder.store(part.fuse(left, right[k], builder.load(total)), total)
        with cgutils.if_likely(builder, builder.icmp_signed("!=", relu, ir.Constant(_WORD, 0))):
            for i, k in places:
                total, zeros = builder.load(sums[i, k]), ir.Constant(parts[k].kind, [0.0] * lanes)
                # NaN is not less than 0, and stays.
                builder.store(builder.select(builder.fcmp_ordered("<=", total, zeros), zeros, total), sums[i, k])
        for i, k in places:
            parts[k].store(builder.load(sums[i, k]), entry(out, ir.Constant(_WORD, i), step, k))
        return context.get_dummy_value()

    return instruction(tile)


def vector_tile(rows: int, masked: bool) -> Callable[..., None]:
    """``out[o[i], f] = start[o[i], f] + sum over j of  x[a[i] + b[j] + f] * m[r[j], f]`` for ``rows`` entries of ``a``.

    There is one vector of features, of ``count`` if it is ``masked``. All arguments are addresses, except for
    ``terms``, the number of ``j``; ``pitch``, the distance of the rows of ``m`` and ``out``; ``start_step``, that of
    the rows of ``start``; and ``relu``, whether negative sums become 0.
    """

    def tile(
        context: Any,
        x: Any,
        a: Any,
        o: Any,
        b: Any,
        r: Any,
        terms: Any,
        m: Any,
        start: Any,
        start_step: Any,
        out: Any,
        pitch: Any,
        count: Any,
        relu: Any,
    ) -> Any:
        return types.void(*[types.int64] * 13), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, a, o, b, r, terms, m, start, start_step, out, pitch, count, relu = arguments
        x, m, start, out = (_at(builder, address, _NUMBER) for address in (x, m, start, out))
        a, o, b, r = (_at(builder, address, _WORD) for address in (a, o, b, r))
        part = _Vector(builder, LANES, count if masked else None)
        starts = [builder.gep(x, [builder.load(builder.gep(a, [ir.Constant(_WORD, i)]))]) for i in range(rows)]
        lines = [builder.load(builder.gep(o, [ir.Constant(_WORD, i)])) for i in range(rows)]
        own = [builder.gep(start, [builder.mul(line, start_step)]) for line in lines]
        sums = [cgutils.alloca_once_value(builder, part.load(place)) for place in own]
        with _loop(builder, terms) as j:
            offset = builder.load(builder.gep(b, [j]))
            row = builder.load(builder.gep(r, [j]))
            right = part.load(builder.gep(m, [builder.mul(row, pitch)]))
            for begin, total in zip(starts, sums, strict=True):
                left = part.load(builder.gep(begin, [offset]))
                builder.store(part.fuse(left, right, builder.load(total)), total)
        with cgutils.if_likely(builder, builder.icmp_signed("!=", relu, ir.Constant(_WORD, 0))):
            zeros = ir.Constant(part.kind, [0.0] * LANES)
            for total in sums:
                value = builder.load(total)
                builder.store(builder.select(builder.fcmp_ordered("<=", value, zeros), zeros, value), total)
        for line, total in zip(lines, sums, strict=True):
            part.store(builder.load(total), builder.gep(out, [builder.mul(line, pitch)]))
        return context.get_dummy_value()

    return instruction(tile)
