"""Sums and maxima over the entries of a row, in vectors of one length and a fixed order.

The last vector of a row begins earlier if the rest does not fill it; what it shares with the one before is replaced by
what changes no result. A row shorter than a vector is copied and filled up.
"""

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir

from .lanes import Code, Lanes, cgutils
from .vector_math import Vector

#: Entries of a vector.
LENGTH = 16


class Part:
    """Entries of a row from index ``at``: as many as a vector has, where the mask is true, or ``count`` of them."""

    def __init__(self, lanes: Lanes, at: Any, mask: Any = None, count: Any = None) -> None:
        self.lanes, self.at, self.mask, self.count = lanes, at, mask, count

    def load(self, array: Any, begin: Any, filling: float | Vector = 0.0) -> Vector:
        """Entries of the array whose row begins at ``begin``; the others are the filling."""
        lanes, builder = self.lanes, self.lanes.builder
        at = lanes.code.add(begin, self.at)
        filled = filling.value if isinstance(filling, Vector) else lanes.constant(filling)
        if self.count is not None:
            return Vector(lanes, self._load_some(array, at, filled))
        value = lanes.load(array, at)
        return Vector(lanes, value if self.mask is None else builder.select(self.mask, value, filled))

    def store(self, value: Vector, array: Any, begin: Any) -> None:
        """Write the entries; the others stay."""
        lanes, builder = self.lanes, self.lanes.builder
        at, written = lanes.code.add(begin, self.at), value.value
        if self.count is not None:
            self._store_some(written, array, at)
            return
        if self.mask is not None:
            written = builder.select(self.mask, written, lanes.load(array, at))
        lanes.store(written, array, at)

    def _load_some(self, array: Any, at: Any, filled: Any) -> Any:
        code, place = self.lanes.code, self._memory()
        self.lanes.store(filled, place, 0)
        with code.each(0, self.count) as i:
            code.builder.store(code.read(array, code.add(at, i)), code.builder.gep(place, [i]))
        return self.lanes.load(place, 0)

    def _store_some(self, value: Any, array: Any, at: Any) -> None:
        code, place = self.lanes.code, self._memory()
        self.lanes.store(value, place, 0)
        with code.each(0, self.count) as i:
            code.builder.store(code.read(place, i), code.builder.gep(array, [code.add(at, i)]))

    def _memory(self) -> Any:
        lanes = self.lanes
        place = cgutils.alloca_once(lanes.builder, ir.ArrayType(lanes.code.number, LENGTH))
        return lanes.builder.bitcast(place, lanes.code.number.as_pointer())


def parts(code: Code, count: Any) -> Iterator[Part]:
    """The vectors of a row of ``count`` entries: a loop over whole ones, and the rest."""
    builder, lanes = code.builder, Lanes(code, LENGTH)
    whole = builder.sdiv(count, code.word(LENGTH))
    with code.each(0, whole) as i:
        yield Part(lanes, code.times(i, LENGTH))
    rest = builder.sub(count, code.times(whole, LENGTH))
    is_long = builder.icmp_signed(">", whole, code.word(0))
    has_rest = builder.icmp_signed(">", rest, code.word(0))
    with builder.if_then(builder.and_(is_long, has_rest)):
        numbers = ir.Constant(lanes.vector(lanes.whole), list(range(LENGTH)))
        shared = builder.sub(code.word(LENGTH), rest)
        shared = shared if lanes.whole.width == 64 else builder.trunc(shared, lanes.whole)
        yield Part(
            lanes, builder.sub(count, code.word(LENGTH)), builder.icmp_signed(">=", numbers, lanes.spread(shared))
        )
    with builder.if_then(builder.and_(builder.not_(is_long), has_rest)):
        yield Part(lanes, code.word(0), count=rest)


class Running:
    """A vector that is combined with others in a loop, and its entries with each other at the end."""

    def __init__(self, code: Code, start: float, combine: Callable[[Vector, Vector], Vector]) -> None:
        self.lanes, self.combine = Lanes(code, LENGTH), combine
        self.place = code.variable(self.lanes.constant(start))

    def include(self, value: Vector) -> None:
        """Combine with a vector."""
        so_far = Vector(self.lanes, self.lanes.builder.load(self.place))
        self.lanes.builder.store(self.combine(so_far, value).value, self.place)

    def all(self) -> Vector:
        """All entries combined, in each entry of the result."""
        builder, value = self.lanes.builder, Vector(self.lanes, self.lanes.builder.load(self.place))
        step = LENGTH // 2
        while step:
            swapped = ir.Constant(ir.VectorType(ir.IntType(32), LENGTH), [i ^ step for i in range(LENGTH)])
            value = self.combine(value, Vector(self.lanes, builder.shuffle_vector(value.value, value.value, swapped)))
            step //= 2
        return value

    def number(self) -> Any:
        """All entries combined."""
        return self.lanes.builder.extract_element(self.all().value, ir.Constant(ir.IntType(32), 0))


def added(so_far: Vector, value: Vector) -> Vector:
    """The sum."""
    return so_far + value


def larger(so_far: Vector, value: Vector) -> Vector:
    """The maximum; NaN stays."""
    builder = so_far.lanes.builder
    wins = builder.fcmp_unordered(">", value.value, so_far.value)
    wins = builder.and_(wins, so_far.is_number())
    return Vector(so_far.lanes, builder.select(wins, value.value, so_far.value))
