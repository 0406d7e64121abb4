"""Arrays inside jobs that are given by their address: for a table of many arrays, such as those of all parameters."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.np import arrayobj as untyped_arrays

from .atomics import WORD
from .compiler import instruction

cgutils: Any = untyped
arrayobj: Any = untyped_arrays


@instruction
def vector_at(context: Any, address: Any, first: Any, size: Any, number: Any) -> Any:
    """The array ``(size,)`` that begins with entry ``first`` of the one at an address, of the dtype of ``number``.

    A loop over all its entries is vectorised; from any other first index it is not, as an index may be negative.
    """
    kind = types.Array(number, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, first, size, _ = arguments
        width = ir.Constant(WORD, context.get_abi_sizeof(context.get_data_type(number)))
        array = arrayobj.make_array(kind)(context, builder)
        arrayobj.populate_array(
            array,
            data=builder.gep(builder.inttoptr(address, array.data.type), [first]),
            shape=cgutils.pack_array(builder, [size]),
            strides=cgutils.pack_array(builder, [width]),
            itemsize=width,
            meminfo=None,
        )
        return array._getvalue()

    return kind(types.int64, types.int64, types.int64, number), generate
