"""Instructions of compiled code that are written in vectors: what LLVM's vectoriser doesn't find by itself.

It gives up on sums, whose order it must keep, and on loops over many arrays that might overlap. Here a Python function
writes the instructions::

    @vectorised
    def add(code, x, y, out, count):
        for lanes, at in code.over(count):
            lanes.store(lanes.add(lanes.load(x, at), lanes.load(y, at)), out, at)

The arguments of ``add`` in compiled code are arrays, of which the function sees the address of the first entry, and
int64 or numbers. `Code.over` writes a loop over vectors; a last vector that would reach beyond the end begins earlier
and computes some entries again. So results must not be written to an argument.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.np import arrayobj as untyped_arrays

from .compiler import instruction

cgutils: Any = untyped
untyped_types: Any = types
arrayobj: Any = untyped_arrays

WORD = ir.IntType(64)
# Entries of a vector, the longest that fits. Registers are shorter, and hold a vector in parts.
LENGTHS = (32, 16, 8, 4, 1)
# LLVM may fuse a product and a sum.
FUSE = ("contract",)


def vectorised(write: Callable[..., None]) -> Any:
    """Decorator that makes an instruction of compiled code from a function that writes it with a `Code`."""

    def typed(context: Any, *kinds: Any) -> Any:
        return types.void(*map(untyped_types.unliteral, kinds)), generate

    def generate(context: Any, builder: Any, found: Any, values: Any) -> Any:
        write(Code(context, builder, found.args), *_addresses(context, builder, found.args, values))
        return context.get_dummy_value()

    # Numba needs a name for each argument, and passes ``context`` first as `write` gets its `Code`.
    named: Any = typed
    named.__signature__ = signature(write)
    return instruction(named)


def _addresses(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    return [
        arrayobj.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(kinds, values, strict=True)
    ]


class Code:
    """Writes instructions for vectors of the dtype of the first array of floats."""

    def __init__(self, context: Any, builder: Any, kinds: Any) -> None:
        self.context, self.builder = context, builder
        arrays = (kind.dtype for kind in kinds if isinstance(kind, types.Array))
        self.dtype = next(dtype for dtype in arrays if isinstance(dtype, types.Float))
        self.number = context.get_data_type(self.dtype)

    def word(self, value: Any) -> Any:
        """An int64."""
        return ir.Constant(WORD, value) if isinstance(value, int) else value

    def add(self, *values: Any) -> Any:
        """The sum of int64 numbers."""
        total = self.word(values[0])
        for value in values[1:]:
            total = self.builder.add(total, self.word(value))
        return total

    def times(self, a: Any, b: Any) -> Any:
        """The product of two int64 numbers."""
        return self.builder.mul(self.word(a), self.word(b))

    def read(self, array: Any, at: Any) -> Any:
        """One entry of an array."""
        return self.builder.load(self.builder.gep(array, [self.word(at)]))

    @contextmanager
    def each(self, first: Any, stop: Any) -> Iterator[Any]:
        """A loop from ``first`` up to, but not including, ``stop``."""
        with cgutils.for_range(self.builder, self.word(stop), self.word(first)) as loop:
            yield loop.index

    def either(self, flag: Any) -> Iterator[bool]:
        """Two variants of what follows, the first of which is run if an int64 is not 0."""
        for wanted in (True, False):
            test = "!=" if wanted else "=="
            with self.builder.if_then(self.builder.icmp_signed(test, flag, self.word(0))):
                yield wanted

    def variable(self, value: Any) -> Any:
        """A variable: registers, as far as they suffice."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def over(self, count: Any, lengths: tuple[int, ...] = LENGTHS) -> "Iterator[tuple[Lanes, Any]]":
        """For vectors of each length a loop over ``count`` entries, of which the longest that fits is run."""
        builder, longer = self.builder, None
        for length in lengths:
            fits = builder.icmp_signed(">=", count, self.word(length))
            if longer is not None:
                fits = builder.and_(fits, builder.icmp_signed("<", count, self.word(longer)))
            longer = length
            with builder.if_then(fits):
                vectors = builder.sdiv(self.add(count, length - 1), self.word(length))
                last = builder.sub(count, self.word(length))
                with self.each(0, vectors) as i:
                    at = self.times(i, length)
                    late = builder.icmp_signed(">", at, last)
                    yield Lanes(self, length), builder.select(late, last, at)

    def over_once(
        self, count: Any, lengths: tuple[int, ...] = LENGTHS, kind: "type[Lanes] | None" = None
    ) -> "Iterator[tuple[Any, Any]]":
        """`over`, but no entry is computed twice: what is left over is in shorter vectors. For sums in memory.

        ``kind`` is the class of the vectors, by default `Lanes`.
        """
        builder, done = self.builder, self.word(0)
        for length in lengths:
            vectors = builder.sdiv(builder.sub(self.word(count), done), self.word(length))
            with self.each(0, vectors) as i:
                yield (kind or Lanes)(self, length), self.add(done, self.times(i, length))
            done = self.add(done, self.times(vectors, length))


class Lanes:
    """Arithmetic of vectors of one length."""

    #: Of sums, differences and products, as LLVM names them.
    flags: tuple[str, ...] = FUSE

    def __init__(self, code: Code, length: int) -> None:
        self.code, self.builder, self.length = code, code.builder, length
        self.kind = ir.VectorType(code.number, length)
        #: Integers as wide as the numbers.
        self.whole = ir.IntType(code.dtype.bitwidth)

    def constant(self, value: float) -> Any:
        """A vector of one number."""
        return ir.Constant(self.kind, [float(value)] * self.length)

    def vector(self, kind: Any) -> Any:
        """The type of a vector of this length."""
        return ir.VectorType(kind, self.length)

    def constant_of(self, kind: Any, value: int) -> Any:
        """A vector of one integer of a type."""
        return ir.Constant(self.vector(kind), [value] * self.length)

    def whole_constant(self, value: int) -> Any:
        """A vector of one integer, as wide as the numbers."""
        return self.constant_of(self.whole, value)

    def spread(self, value: Any) -> Any:
        """A vector of one value."""
        kind = self.vector(value.type)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.length), [0] * self.length)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def _place(self, array: Any, at: Any) -> tuple[Any, int]:
        entry = array.type.pointee
        place = self.builder.gep(array, [self.code.word(at)])
        size = entry.width // 8 if isinstance(entry, ir.IntType) else 4 if isinstance(entry, ir.FloatType) else 8
        return self.builder.bitcast(place, ir.VectorType(entry, self.length).as_pointer()), size

    def load(self, array: Any, at: Any) -> Any:
        """Entries of an array from index ``at``."""
        place, size = self._place(array, at)
        return self.builder.load(place, align=size)

    def store(self, value: Any, array: Any, at: Any) -> None:
        """Write entries of an array from index ``at``."""
        place, size = self._place(array, at)
        self.builder.store(value, place, align=size)

    def add(self, a: Any, b: Any) -> Any:
        """The sum; with `FUSE`, a product that is added may be fused with it."""
        return self.builder.fadd(a, b, flags=self.flags)

    def subtract(self, a: Any, b: Any) -> Any:
        """The difference."""
        return self.builder.fsub(a, b, flags=self.flags)

    def multiply(self, a: Any, b: Any) -> Any:
        """The product."""
        return self.builder.fmul(a, b, flags=self.flags)

    def rectified(self, x: Any) -> Any:
        """ReLU: 0 where ``x <= 0``; NaN stays."""
        zero = self.constant(0.0)
        return self.builder.select(self.builder.fcmp_ordered("<=", x, zero), zero, x)

    def gated(self, dy: Any, y: Any) -> Any:
        """The gradient of ReLU: ``dy`` where ``y > 0``, 0 where ``y <= 0``, and NaN where ``y`` is NaN."""
        zero = self.constant(0.0)
        below = self.builder.select(self.builder.fcmp_ordered("<=", y, zero), zero, y)
        return self.builder.select(self.builder.fcmp_ordered(">", y, zero), dy, below)
