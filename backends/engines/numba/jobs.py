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
from threading import RLock
from types import CodeType, FunctionType
from typing import Any

import numba
import numpy as np
from numba import types

from ....common.types import Array, dtype_name
from ...recording.calls import current
from .bound import Arguments, Bound, address_of
from .packing import pack
from .progress import compiling
from .unpacking import unpacker

_AS_WORD, _AS_FLOAT = struct.Struct("<q"), struct.Struct("<d")
# In place of a number of axes: an integer, and any other number.
_INT, _REAL = -1, -2
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

    @property
    def is_own_array(self) -> bool:
        """Whether it is an array of the dtype that the job is compiled for."""
        return self.axes is not None and not self.dtype

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
        self._axes = tuple([_code(kind) for kind in kinds])
        self._packed_axes = np.array(self._axes, np.int64)
        self._numbers = [(place, axes == _REAL) for place, axes in enumerate(self._axes) if axes < 0]
        self._words = sum(1 + max(0, axes) for axes in self._axes)
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
        return bind_phases([(self, items)], *arguments, dtype=dtype or self._dtype_of(arguments))

    def _dtype_of(self, arguments: tuple[Any, ...]) -> str:
        """The dtype of the first array whose kind has no dtype."""
        own = (value.dtype for value, kind in zip(arguments, self.kinds, strict=False) if kind.is_own_array)
        found = next(own, None)
        return "" if found is None else dtype_name(found)

    def bind_parts(self, items: Sequence[int], *arguments: Any, dtype: str = "") -> Bound:
        """The job once for each part, with the number of the part as its last argument.

        Parameters
        ----------
        items : sequence of int
            The items of each part.
        *arguments : array or number
            All but the last.
        dtype : str
            As for `bind`.
        """
        dtype = dtype or self._dtype_of(arguments)
        memory = np.tile(self.packed((*arguments, 0)), (len(items), 1))
        memory[:, -1] = range(len(items))
        function, first, size = self.address(dtype), address_of(memory), 8 * self._words
        rows = [(function, count, first + part * size) for part, count in enumerate(items)]
        tape = current()
        if tape is None:
            return Bound(rows, [Arguments(memory, arguments)], self.uses_blas)
        for array in self.results(arguments):
            tape.written(array)
        return Bound(rows, [Arguments(memory, arguments)], self.uses_blas, (list(items), tape.describe(arguments)))

    def results(self, arguments: tuple[Any, ...]) -> list[Array]:
        """The arrays that the job writes to; those without entries are placeholders."""
        return [value for value, kind in zip(arguments, self.kinds, strict=False) if kind.written and value.size]

    def packed(self, arguments: tuple[Any, ...]) -> Array:
        """The memory from which the compiled function reads its arguments."""
        # In few calls, as this runs for each operation of a step.
        numbers = [(at, _bits(arguments[at]) if is_real else arguments[at]) for at, is_real in self._numbers]
        memory = np.empty(self._words, np.int64)
        if not pack(arguments, numbers, self._packed_axes, memory):
            raise ValueError(f"{self.function.__name__}: arguments must be C-contiguous, of {self._axes} axes")
        return memory

    def _compile(self, dtype: str) -> int:
        fast: Any = {"contract"} if self.contract else False
        options: dict[str, Any] = {"error_model": "numpy", "fastmath": fast}
        inner = numba.njit(inline="never", **options)(self.function)
        # Numba caches beside the file of a function and by its time. So this function claims to be in the job's file.
        # It has no closure, which would be a part of the cache's key and differ in each process.
        code = _located(_entry.__code__, self.function.__code__)
        names = {"_inner": inner, "_unpack": unpacker(tuple(kind.of(dtype) for kind in self.kinds))}
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


def bind_phases(
    phases: Sequence[tuple[Job, int]], *arguments: Any, dtype: str, addressed: Sequence[Array] = ()
) -> Bound:
    """Jobs with the same kinds of arguments, each with its number of items, bound to one set of them.

    ``addressed`` are arrays whose addresses are in the int64 arrays of the arguments; jobs may write to all of them.
    """
    memory = phases[0][0].packed(arguments)
    address, uses_blas = address_of(memory), False
    rows = []
    for job, items in phases:
        rows.append((job.address(dtype), items, address))
        uses_blas = uses_blas or job.uses_blas
    tape = current()
    if tape is None:
        return Bound(rows, [Arguments(memory, arguments, addressed)], uses_blas)
    for array in (*phases[0][0].results(arguments), *addressed):
        tape.written(array)
    described = [value for value in arguments if not (addressed and getattr(value, "dtype", None) == np.int64)]
    signature = [items for _, items in phases], tape.describe((described, addressed))
    return Bound(rows, [Arguments(memory, arguments, addressed)], uses_blas, signature)


def job(*kinds: Kind, uses_blas: bool = False, contract: bool = True) -> Callable[[Callable[..., None]], Job]:
    """Decorator that makes a `Job` of a function ``f(item, *arguments)``."""
    return lambda function: Job(function, kinds, uses_blas, contract)


# Each job's copy of `_entry` has others of its own.
_inner: Any = None
_unpack: Any = None


def _entry(item: Any, arguments: Any) -> None:
    _inner(item, *_unpack(arguments))


def _located(code: CodeType, like: CodeType) -> CodeType:
    """A function's code as if it were written where another function is."""
    return code.replace(
        co_filename=like.co_filename,
        co_firstlineno=like.co_firstlineno,
        co_name=like.co_name,
        co_qualname=like.co_qualname,
    )


def _bits(number: float) -> int:
    """The bits of a float64, as an int64."""
    word: int = _AS_WORD.unpack(_AS_FLOAT.pack(number))[0]
    return word


def _code(kind: Kind) -> int:
    """The number of axes, `_INT` or `_REAL`."""
    if kind.axes is not None:
        return kind.axes
    return _INT if kind.dtype == "int64" else _REAL
