"""Jobs: compiled functions that threads share item by item, called by their address.

A job is written as a function ``f(item, *arguments)`` with the kinds of its arguments::

    @job(read(1), write(1), INT)
    def double(item, x, out, chunk):
        for i in range(item * chunk, min((item + 1) * chunk, x.shape[0])):
            out[i] = x[i] + x[i]

    perform(double.bind(items, x, out, chunk))

`Job.bind` stores the addresses, sizes and numbers in memory, where the compiled function reads them. So a bound job is
three numbers, threads call it without Python (`xpnn.backends.engines.numba.pool`), and several bound jobs join to one
program (`Bound.join`).

It is compiled on its first `Job.bind` for a dtype, and cached on disk as `compiler.compiled` functions are.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from threading import RLock
from types import CodeType, FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.np import arrayobj as untyped_arrays

from .bound import Bound, address_of
from .compiler import instruction
from .progress import compiling

cgutils: Any = untyped
untyped_types: Any = types
arrayobj: Any = untyped_arrays
_WORD = ir.IntType(64)
#: One compilation at a time.
_LOCK = RLock()


@dataclass(frozen=True)
class Kind:
    """The kind of an argument: a C-contiguous array, or a number if ``axes`` is None.

    Attributes
    ----------
    axes : int or None
    dtype : str
        ``""`` for the dtype that the job is compiled for.
    written : bool
        Whether the job writes to the array.
    """

    axes: int | None
    dtype: str = ""
    written: bool = False

    def of(self, dtype: str) -> Any:
        """Numba's type, in a job that is compiled for ``dtype``."""
        kind = getattr(types, self.dtype or dtype)
        return kind if self.axes is None else types.Array(kind, self.axes, "C", readonly=not self.written)


def read(axes: int, dtype: str = "") -> Kind:
    """An array that a job reads."""
    return Kind(axes, dtype)


def write(axes: int, dtype: str = "") -> Kind:
    """An array that a job writes to."""
    return Kind(axes, dtype, written=True)


#: An int64, and a number of the job's dtype.
INT, NUMBER = Kind(None, "int64"), Kind(None)


class Job:
    """A function ``f(item, *arguments)`` that is compiled for a dtype when it is first bound.

    Parameters
    ----------
    function : callable
    kinds : tuple of Kind
    uses_blas : bool
        Whether it calls the matrix library.
    contract : bool
        Whether a product and a sum may become one fused multiply-add.
    """

    def __init__(self, function: Callable[..., None], kinds: tuple[Kind, ...], uses_blas: bool, contract: bool) -> None:
        self.function, self.kinds, self.uses_blas, self.contract = function, kinds, uses_blas, contract
        self.__doc__ = function.__doc__
        self._addresses: dict[str, int] = {}
        self._compiled: list[Any] = []

    def address(self, dtype: str) -> int:
        """Address of the compiled function ``f(int64 item, int64 arguments)``."""
        found = self._addresses.get(dtype)
        if found is None:
            with _LOCK:
                if dtype not in self._addresses:
                    self._addresses[dtype] = self._compile(dtype)
                found = self._addresses[dtype]
        return found

    def bind(self, items: int, *arguments: Any, dtype: str = "") -> Bound:
        """The job for items ``0 .. items - 1``.

        Parameters
        ----------
        items : int
        *arguments : array or number
            Arrays are C-contiguous.
        dtype : str
            That of the job; unless given, that of the first array whose kind has no dtype.
        """
        words, dtype = self._words(arguments, dtype)
        memory = np.array(words, np.int64)
        row = (self.address(dtype), items, address_of(memory))
        return Bound([row], [memory, arguments], self.uses_blas)

    def bind_parts(self, items: Sequence[int], *arguments: Any) -> Bound:
        """The job once for each part, with the number of the part as its last argument.

        Parameters
        ----------
        items : sequence of int
            The items of each part.
        *arguments : array or number
            All but the last.
        """
        words, dtype = self._words((*arguments, 0), "")
        memory = np.array([words] * len(items), np.int64)
        memory[:, -1] = range(len(items))
        function, first, size = self.address(dtype), address_of(memory), 8 * len(words)
        rows = [(function, count, first + part * size) for part, count in enumerate(items)]
        return Bound(rows, [memory, arguments], self.uses_blas)

    def _words(self, arguments: tuple[Any, ...], dtype: str) -> tuple[list[int], str]:
        """The arguments as int64, and the job's dtype."""
        words: list[int] = []
        for kind, value in zip(self.kinds, arguments, strict=True):
            if kind.axes is None:
                words.append(int(value) if kind.dtype == "int64" else _bits(value))
                continue
            if not value.flags.c_contiguous:
                raise ValueError(f"{self.function.__name__}: arguments must be C-contiguous")
            words.append(address_of(value))
            words.extend(value.shape)
            if not (dtype or kind.dtype):
                dtype = _name(value.dtype)
        return words, dtype

    def _compile(self, dtype: str) -> int:
        fast: Any = {"contract"} if self.contract else False
        options: dict[str, Any] = {"error_model": "numpy", "fastmath": fast}
        inner = numba.njit(inline="never", **options)(self.function)
        # Numba caches beside the file of a function and by its time. So this function claims to be in the job's file.
        # It has no closure, which would be a part of the cache's key and differ in each process.
        code = _located(_entry.__code__, self.function.__code__)
        names = {"_inner": inner, "_unpack": _unpacker(tuple(kind.of(dtype) for kind in self.kinds))}
        entry = FunctionType(code, names, self.function.__name__)
        # The cache distinguishes functions by this name; the signature is the same for all dtypes.
        entry.__module__, entry.__qualname__ = self.function.__module__, f"{self.function.__qualname__}_{dtype}"
        signature = types.void(types.int64, types.int64)
        with compiling(self.function.__name__):
            try:
                made = numba.cfunc(signature, cache=True, **options)(entry)
            except RuntimeError:
                # No folder for the cache is writable: compile in every process.
                made = numba.cfunc(signature, **options)(entry)
        self._compiled.append(made)
        address: Any = made.address
        return int(address)


def job(*kinds: Kind, uses_blas: bool = False, contract: bool = True) -> Callable[[Callable[..., None]], Job]:
    """Decorator that makes a `Job` of a function ``f(item, *arguments)``."""
    return lambda function: Job(function, kinds, uses_blas, contract)


def _entry(item: Any, arguments: Any) -> None:
    _inner(item, *_unpack(arguments))  # type: ignore[name-defined]  # noqa: F821 - given as globals of its copies


def _located(code: CodeType, like: CodeType) -> CodeType:
    """A function's code as if it were written where another function is."""
    return code.replace(
        co_filename=like.co_filename,
        co_firstlineno=like.co_firstlineno,
        co_name=like.co_name,
        co_qualname=like.co_qualname,
    )


def _unpacker(kinds: tuple[Any, ...]) -> Any:
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


@cache
def _name(dtype: Any) -> str:
    # NumPy makes the name anew in each call, which takes some microseconds.
    return str(dtype.name)


def _bits(number: float) -> int:
    """The bits of a float64, as an int64."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
