"""The compiled calls of a function of arrays, made again for other arrays: see `xpnn.backends.kept_calls`.

The function is run with traced arrays, on a tape that accepts compiled programs and nothing else. Each word of a job's
arguments that is the address of an array is a place in one of the function's arguments, in an array that it returns, or
in one that it made meanwhile; these share one piece of memory by lifetime. All other words are constants.

So a call is: make the arrays of the results and that piece of memory; let compiled code compare the arguments with the
form and write their addresses; run the program. Threads that call at the same time have a copy of the words each.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from ....common.types import Array
from ...recording.calls import recording
from ...recording.guards import CaptureError
from ...recording.memory_plan import ALIGNMENT, aligned, plan
from ...recording.sources import External
from ...recording.tape import extent
from ...recording.traced import TracedArray, traced_arrays, unwrapped
from .bound import Arguments, address_of
from .kept_tape import CompiledTape
from .packing import BY_OBJECT, object_form, relocate
from .pool import run_program


class KeptCall:
    """The compiled calls of a function for one form of its arrays.

    Parameters
    ----------
    inputs : tuple of array or None
    tape : CompiledTape
        What the function did with them.
    outcome : nested tuples of arrays and other values
        What it returned.
    """

    def __init__(self, inputs: tuple[Any, ...], tape: CompiledTape, outcome: Any) -> None:
        self._tape, self._inputs = tape, inputs
        self._results: list[tuple[tuple[int, ...], Any]] = []
        self._places: dict[int, int] = {}
        # The result is an expression of the arrays ``o`` of a call, compiled once, since it is made in every call.
        self._names: dict[str, Any] = {"view": np.ndarray}
        self._make = eval(f"lambda o: {self._expression(outcome)}", self._names)
        self._shapes, self._kinds = [shape for shape, _ in self._results], [kind for _, kind in self._results]
        self._scratch_of, self._scratch_bytes = self._planned()
        arguments: list[Arguments] = []
        self._rows: list[tuple[int, int, int]] = []
        for program in tape.programs:
            arguments += program.bound.keep
            self._rows += program.bound.rows
        if any(each.addressed for each in arguments):
            raise CaptureError("a kept call has addresses in arrays")
        self._is_shared = any(items > 1 for _, items, _ in self._rows)
        self._uses_blas = any(program.bound.uses_blas for program in tape.programs)
        self._number = len(self._rows)
        if self._scratch_bytes:
            self._shapes.append((self._scratch_bytes + ALIGNMENT,))
            self._kinds.append(np.dtype(np.uint8))
        self._words, moved = self._joined(arguments)
        self._form = object_form(inputs)
        # The memory of arrays that are not returned begins at a multiple of `ALIGNMENT`, as in the trace.
        last = len(inputs) + len(self._results)
        self._moved = np.array([len(moved), last, ALIGNMENT, *(n for each in moved for n in each)], np.int64)
        self._form_at, self._moved_at = address_of(self._form), address_of(self._moved)
        # Constants stay alive with the arguments that have their addresses; arrays of the trace are not needed.
        self._constants = [value for each in arguments for value in each.values if self._place(value) is None]
        self._dtypes = [x.dtype for x in inputs if x is not None]
        self._free: list[tuple[Array, Array, int, int]] = []
        del self._tape, self._inputs

    def __call__(self, inputs: tuple[Any, ...]) -> tuple[bool, Any]:
        """Whether the arrays have the form, and then the result for them."""
        objects = map(np.empty, self._shapes, self._kinds)
        try:
            copy = self._free.pop()
        except IndexError:
            copy = self._copy()
        together = (*inputs, *objects)
        if not relocate(id(together), self._form_at, self._moved_at, copy[2]):
            self._free.append(copy)
            return False, None
        run_program(copy[3], self._number, self._is_shared, self._uses_blas)
        self._free.append(copy)
        return True, self._make(together)

    def _expression(self, value: Any) -> str:
        """How a result is made of the arrays of a call."""
        if isinstance(value, tuple):
            each = "".join(f"{self._expression(each)}, " for each in value)
            return f"{self._name(type(value))}({each})" if hasattr(value, "_fields") else f"({each})"
        if not isinstance(value, np.ndarray):
            if traced_arrays([value, dict(getattr(value, "__dict__", {}))]):
                raise CaptureError("a kept call returns arrays in tuples only")
            return self._name(value)
        if not isinstance(value, TracedArray):
            raise CaptureError("a kept call returns no constant arrays")
        if isinstance(value.source, External):
            return self._view_of_input(value)
        number = value.source.number
        size, dtype = self._tape.lifetimes[number].size, value.dtype
        if size % dtype.itemsize:
            raise CaptureError("a kept call returns an array that is cut from another one")
        whole = value.plain.flags.c_contiguous and value.nbytes == size
        shape = value.shape if whole else (size // dtype.itemsize,)
        if number not in self._places:
            self._places[number] = len(self._results)
            self._results.append((shape, dtype))
        place = self._places[number]
        found = f"o[{len(self._inputs) + place}]"
        if whole and self._results[place] == (shape, dtype):
            return found
        offset = value.plain.ctypes.data - value.source.address
        return f"view({self._name(value.shape)}, {self._name(dtype)}, {found}, {offset}, {self._name(value.strides)})"

    def _view_of_input(self, value: TracedArray) -> str:
        """`_expression` for an argument, or for all its entries in the order of memory."""
        place = value.source.number
        x, shape = self._inputs[place], value.shape
        if shape == x.shape and value.strides == x.strides:
            return f"o[{place}]"
        order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
        if value.size != x.size or not (x.transpose(order).flags.c_contiguous and value.plain.flags.c_contiguous):
            raise CaptureError("a kept call returns a part of an argument")
        return f"o[{place}].transpose({self._name(order)}).reshape({self._name(shape)})"

    def _name(self, value: Any) -> str:
        """A name of a constant in the expression."""
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def _planned(self) -> tuple[dict[int, int], int]:
        """Where arrays that are not returned begin in their memory, and its bytes."""
        numbers = [number for number in range(len(self._tape.made)) if number not in self._places]
        offsets, size = plan([self._tape.lifetimes[number] for number in numbers])
        return dict(zip(numbers, offsets, strict=True)), size

    def _place(self, value: Any) -> tuple[int, int] | None:
        """The object that holds an array's first entry, and the bytes before it; None for a constant."""
        if not isinstance(value, np.ndarray) or not value.size:
            return None
        address = value.ctypes.data
        for at, array in enumerate(self._inputs):
            if array is not None and _holds(array, address):
                return at, address - array.ctypes.data
        for number, memory in enumerate(self._tape.made):
            if _holds(memory, address):
                before = address - memory.ctypes.data
                if number in self._places:
                    return len(self._inputs) + self._places[number], before
                return len(self._inputs) + len(self._results), self._scratch_of[number] + before
        return None

    def _joined(self, arguments: list[Arguments]) -> tuple[Array, list[tuple[int, int, int]]]:
        """The words of all jobs in one array; and word, object and bytes of each address to be written.

        The rows of the program then have the words of their arguments, instead of addresses.
        """
        moved: list[tuple[int, int, int]] = []
        starts: dict[int, int] = {}
        size = 0
        for each in arguments:
            table = each.memory.reshape(-1, each.memory.shape[-1])
            for i, row in enumerate(table):
                starts[row.ctypes.data] = size + i * len(row)
            at = 0
            for value in each.values:
                place = self._place(value)
                if place is not None:
                    moved += [(size + i * table.shape[1] + at, *place) for i in range(len(table))]
                at += 1 + (value.ndim if isinstance(value, np.ndarray) else 0)
            size += table.size
        self._rows = [(function, items, starts[where]) for function, items, where in self._rows]
        return np.concatenate([each.memory.reshape(-1) for each in arguments] or [np.zeros(0, np.int64)]), moved

    def _copy(self) -> tuple[Array, Array, int, int]:
        """Words and program for one call at a time, and their addresses."""
        words = self._words.copy()
        at = address_of(words)
        program = np.array([(function, items, at + 8 * word) for function, items, word in self._rows], np.int64)
        return words, program, at, address_of(program)


def _holds(array: Array, address: int) -> bool:
    before, size = extent(array.shape, array.itemsize, array.strides)
    return bool(0 <= address - (array.ctypes.data - before) < size)


def can_be_kept(arrays: tuple[Any, ...]) -> bool:
    """Whether a call with these arrays, or None, can be kept: NumPy's, aligned, with entries, in separate memory."""
    given = [array for array in arrays if array is not None]
    if not all(type(array) is np.ndarray and array.flags.aligned and array.size for array in given):
        return False
    # In common memory, an address would be in either array.
    return not any(np.may_share_memory(one, other) for one, other in combinations(given, 2))


def keep(function: Callable[..., Any], arrays: tuple[Any, ...], settings: tuple[Any, ...]) -> KeptCall | None:
    """The compiled calls of ``function(*arrays, *settings)``; None if it does anything else.

    The arrays are such that `can_be_kept` is true.
    """
    if not BY_OBJECT:
        return None
    tape = CompiledTape()
    inside = [None if x is None else TracedArray.over(x, External(i, x)) for i, x in enumerate(arrays)]
    try:
        with recording(tape):
            outcome = function(*inside, *settings)
        tape.close()
        found = KeptCall(arrays, tape, outcome)
    except Exception:
        # What is wrong with the arguments, the function itself says.
        return None
    finally:
        tape.close()
    # A call that computed something that was not recorded has other results, here or for other numbers.
    others = tuple([None if x is None else _disturbed(x) for x in arrays])
    with np.errstate(all="ignore"):
        right = _same(found(arrays)[1], unwrapped(outcome)) and _same(found(others)[1], function(*others, *settings))
    return found if right else None


def _disturbed(x: Array) -> Array:
    """A copy in the same memory layout; if it is of floats, with other ones."""
    before, size = extent(x.shape, x.itemsize, x.strides)
    twin: Array = np.ndarray(x.shape, x.dtype, aligned(size).data, before, x.strides)
    twin[...] = np.flip(x) * x.dtype.type(1.0625) if x.dtype.kind == "f" else x
    return twin


def _same(one: Any, other: Any) -> bool:
    """Whether two results have the same bits."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        same = one.shape == other.shape and one.strides == other.strides and one.dtype == other.dtype
        return bool(same and one.tobytes() == other.tobytes())
    return one is other or bool(one == other)
