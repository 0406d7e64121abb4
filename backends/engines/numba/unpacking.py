"""Arguments of a job as its compiled function reads them: arrays and numbers at an address."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.np import arrayobj as untyped_arrays

from .compiler import instruction

cgutils: Any = untyped
untyped_types: Any = types
arrayobj: Any = untyped_arrays
_WORD = ir.IntType(64)


def unpacker(kinds: tuple[Any, ...]) -> Any:
    """An instruction that reads arguments of these types at an address, as `Job.bind` stored them, into a tuple."""
    result = untyped_types.Tuple(kinds)

    def unpack(context: Any, address: Any) -> Any:
        return result(types.int64), generate

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        words = builder.inttoptr(values[0], _WORD.as_pointer())
        position = iter(range(10_000))

        def word() -> Any:
            return builder.load(builder.gep(words, [ir.Constant(_WORD, next(position))]))

        found = [
            _read_array(context, builder, kind, word)
            if isinstance(kind, types.Array)
            else _read_number(context, builder, kind, word())
            for kind in kinds
        ]
        return context.make_tuple(builder, result, found)

    return instruction(unpack)


def _read_number(context: Any, builder: Any, kind: Any, word: Any) -> Any:
    if isinstance(kind, types.Integer):
        return word
    number = builder.bitcast(word, ir.DoubleType())
    return context.cast(builder, number, types.float64, kind)


def _read_array(context: Any, builder: Any, kind: Any, word: Callable[[], Any]) -> Any:
    data = word()
    shape = [word() for _ in range(kind.ndim)]
    size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    strides: list[Any] = []
    step = ir.Constant(_WORD, size)
    for length in reversed(shape):
        strides.insert(0, step)
        step = builder.mul(step, length)
    array = arrayobj.make_array(kind)(context, builder)
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(data, array.data.type),
        shape=cgutils.pack_array(builder, shape) if shape else [],
        strides=cgutils.pack_array(builder, strides) if strides else [],
        itemsize=ir.Constant(_WORD, size),
        meminfo=None,
    )
    return array._getvalue()
