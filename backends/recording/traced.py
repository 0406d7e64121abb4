"""Arrays that record what is computed from them: `TracedArray`, a subclass of NumPy's array.

Within a recording every function of NumPy that is passed a traced array computes on plain arrays, and is then put on
the tape as a call that writes into the same memory again. A result that shares memory with an argument is a view, which
needs no call. Values can't be read: what Python decides by them would be frozen. Outside of a recording traced arrays,
such as those that a layer still holds, compute as plain ones.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

import numpy as np

from ...common.types import Array
from .calls import Tape, current
from .guards import CaptureError


class Allocated:
    """The memory of an array that a recording made; deleted with the array and its last view."""

    kind = "made"

    def __init__(self, number: int, array: Array, free: Callable[[int], None]) -> None:
        self.number, self.address, self._free = number, array.ctypes.data, free

    def __del__(self) -> None:
        self._free(self.number)


class External:
    """An array that a recording was given.

    Attributes
    ----------
    array, before : array
        The array, and a copy of its entries before the recording's first write.
    used : bool
        Whether a call reads or writes it.
    """

    kind = "given"

    def __init__(self, number: int, array: Array) -> None:
        self.number, self.array, self.address = number, array, array.ctypes.data
        self.before: Array | None = None
        self.used = False


class TracedArray(np.ndarray[Any, Any]):
    """An array of a recording.

    Attributes
    ----------
    plain : array
        The same memory as a plain array.
    source : Allocated or External
    weak : bool
        Whether it stands for a number of Python, which has the dtype of the arrays that it is combined with.
    """

    plain: Array
    source: Allocated | External
    weak: bool

    @classmethod
    def over(cls, array: Array, source: Any, weak: bool = False) -> TracedArray:
        """A plain array as a traced one."""
        made: TracedArray = array.view(cls)
        made.plain, made.source, made.weak = array, source, weak
        return made

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **keywords: Any) -> Any:
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if method == "at":
            return _in_place(function, inputs, keywords)
        return _computed(function, inputs, keywords, writes=True)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        if function in _WRITERS:
            return _in_place(function, args, keywords)
        return traced_call(function, args, keywords)

    def __getitem__(self, index: Any) -> Any:
        if _has_mask(index):
            raise CaptureError("a compiled step can't select entries by a mask: their number depends on values")
        return traced_call(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if current() is None or not _is_basic(index):
            _in_place(operator.setitem, (self, index, value), {})
            return
        whole = index if isinstance(index, tuple) else (index,)
        target = self._view(self.plain[whole if Ellipsis in whole else (*whole, ...)])
        given = value if isinstance(value, TracedArray | int | float) else np.asarray(value)
        if isinstance(given, np.ndarray) and given.ndim > target.ndim:
            # An assignment ignores leading axes of size 1, `copyto` doesn't.
            given = given.reshape(given.shape[given.ndim - target.ndim :])
        _in_place(np.copyto, (target, given), {"casting": "unsafe"})

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def _view(self, array: Array) -> TracedArray:
        return TracedArray.over(array, self.source, self.weak)

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        return self.transpose()

    @property
    def mT(self) -> Any:  # noqa: N802 - NumPy's name
        return self.swapaxes(-1, -2)

    def view(self, *args: Any) -> Any:
        """A view, traced too."""
        return traced_call(np.ndarray.view, (self, *args), {})

    def __reduce__(self) -> Any:
        return self.plain.copy().__reduce__()

    def __repr__(self) -> str:
        return repr(self.plain)

    __str__ = __repr__


def plain(array: Any) -> Any:
    """The same memory as a plain array; anything else as it is."""
    return array.plain if isinstance(array, TracedArray) else array


def is_traced(value: Any) -> bool:
    """Whether a value is an array of a recording."""
    return isinstance(value, TracedArray)


def unwrapped(value: Any) -> Any:
    """Nested arguments with plain arrays."""
    if isinstance(value, TracedArray):
        return value.plain
    if isinstance(value, tuple | list):
        each = [unwrapped(each) for each in value]
        return type(value)(*each) if hasattr(value, "_fields") else type(value)(each)
    if isinstance(value, dict):
        return {name: unwrapped(each) for name, each in value.items()}
    return value


def traced_call(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Call a function that computes new arrays or views, and record it."""
    if function in _REFUSED and current() is not None:
        raise CaptureError(
            f"a compiled step can't call {function.__name__}: the size of its result depends on values"
        )
    if function in _LIKE and current() is not None:
        return _LIKE[function](*args, **keywords)
    return _computed(function, args, keywords, writes=function in _WITH_OUT)


def opaque(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function of arrays, recorded as one call, so that it may read values: each replay calls it."""

    def call(*args: Any, **keywords: Any) -> Array:
        if current() is None:
            return function(*args, **keywords)
        found: Array = traced_call(function, args, keywords)
        return found

    return call


def opaque_writer(function: Callable[..., Array]) -> Callable[..., Array]:
    """The function, which writes into its last argument and returns that, recorded as one call."""

    @wraps(function)
    def call(*args: Any) -> Array:
        tape, out = current(), args[-1]
        if tape is None:
            return function(*args)
        tape.written(out)
        function(*unwrapped(args))
        tape.append(function, args, {})
        return out

    return call


def recorded(kernels: Any) -> Any:
    """Compiled kernels, each call of which is recorded; they may write into all of their arrays."""
    return _Recorded(kernels)


class _Recorded:
    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kernels, name)

        def call(*args: Any, **keywords: Any) -> Any:
            tape, arrays = current(), _arrays((args, keywords))
            if tape is not None:
                for array in arrays:
                    tape.written(array)
            result = found(*unwrapped(args), **unwrapped(keywords))
            if tape is not None and arrays:
                tape.append(found, args, keywords)
            return result

        return call if callable(found) else found


def _computed(function: Any, args: Any, keywords: Any, writes: bool) -> Any:
    """Call a function and record that; ``writes`` says that it can write into ``out``."""
    tape, out = current(), keywords.get("out")
    if out is not None:
        return _into(function, args, keywords, out if isinstance(out, tuple) else (out,))
    if tape is not None:
        args, weak = _strengthened(args)
    bound, named = unwrapped(args), unwrapped(keywords)
    result = function(*bound, **named)
    if tape is None or function in _ABOUT:
        return result
    sources = [each for each in _arrays((args, keywords)) if each.size]
    several = isinstance(result, tuple | list)
    own = []
    for each in result if several else (result,):
        source = next((s for s in sources if isinstance(each, np.ndarray) and np.may_share_memory(each, s.plain)), None)
        own.append(_like(each, tape, weak) if source is None else source._view(each))
    made = [new for new, each in zip(own, result if several else (result,), strict=True) if new.plain is not each]
    if made and writes:
        named_out = tuple(own) if several else own[0]
        function, args, keywords = _as_ufunc(function, args, keywords)
        tape.append(function, args, {**keywords, "out": named_out})
    elif made:
        _append_copies(tape, function, args, keywords, own if several else own[0])
    if not several:
        return own[0]
    return type(result)(*own) if hasattr(result, "_fields") else type(result)(own)


def _as_ufunc(function: Any, args: Any, keywords: Any) -> tuple[Any, Any, Any]:
    """A reduction as that of a ufunc."""
    given = {name: value for name, value in keywords.items() if value is not np._NoValue and name != "out"}
    reduces = function in _REDUCTIONS and given.keys() <= {"axis", "dtype", "keepdims"} and len(args) <= 2
    if not reduces or (given.get("dtype") is None and function in _OTHER_DTYPE and args[0].dtype.kind in "biu"):
        return function, args, keywords
    axis = args[1] if len(args) == 2 else given.pop("axis", None)
    return _REDUCTIONS[function].reduce, args[:1], {**given, "axis": axis}


def _like(result: Any, tape: Tape, weak: bool) -> TracedArray:
    """A result in the recording's memory."""
    if not isinstance(result, np.ndarray | np.generic | bool | int | float):
        raise CaptureError(f"a compiled step can't record what returns a {type(result).__name__}")
    array = np.asarray(result)
    own: TracedArray = tape.new(array.shape, array.dtype, array.strides, weak)  # type: ignore[assignment]
    np.copyto(own.plain, array)
    return own


def _append_copies(tape: Tape, function: Any, args: Any, keywords: Any, own: Any) -> None:
    """Record a function that has no ``out``: copies of an array directly, anything else by a temporary array."""
    if function in _COPIES and isinstance(args[0], TracedArray) and _is_copy(function, args, keywords, own):
        # In row-major order, so that `own` can be seen in the shape of the argument.
        target = own if own.shape == args[0].shape else own._view(own.plain.reshape(args[0].shape))
        tape.append(np.copyto, (target, args[0]), {"casting": "unsafe"})
    elif function is np.where and len(args) == 3 and plain(args[0]).dtype == bool:
        tape.append(_select, (own, *args), {})
    elif isinstance(own, list):
        tape.append(_copy_all, (own, function, args, keywords), {})
    else:
        tape.append(_copy, (own, function, args, keywords), {})


def _is_copy(function: Any, args: Any, keywords: Any, own: TracedArray) -> bool:
    x = args[0]
    if own.shape == x.shape:
        return function in (np.ndarray.astype, np.ndarray.copy, np.copy)
    rows = function in (np.reshape, np.ndarray.reshape, np.ravel, np.ndarray.ravel, np.ndarray.flatten)
    return rows and keywords.get("order", "C") == "C" and own.flags.c_contiguous and x.size == own.size


def _copy(own: Array, function: Any, args: Any, keywords: Any) -> None:
    np.copyto(own, function(*args, **keywords))


def _copy_all(own: list[Array], function: Any, args: Any, keywords: Any) -> None:
    for target, each in zip(own, function(*args, **keywords), strict=True):
        if target is not each:
            np.copyto(target, each)


def _select(own: Array, mask: Array, x: Any, y: Any) -> None:
    """`np.where` without a temporary array."""
    np.copyto(own, y)
    np.copyto(own, x, where=mask)


def _into(function: Any, args: Any, keywords: Any, targets: tuple[Any, ...]) -> Any:
    """A function that writes into existing arrays."""
    tape = current()
    if tape is not None:
        for target in targets:
            if target is not None:
                tape.written(target)
        args, _ = _strengthened(args, *targets)
    function(*unwrapped(args), **unwrapped(keywords))
    if tape is not None:
        tape.append(function, tuple(args), keywords)
    return targets[0] if len(targets) == 1 else targets


def _in_place(function: Any, args: Any, keywords: Any) -> Any:
    """A function that writes into its first argument and returns None."""
    tape = current()
    if tape is not None:
        tape.written(args[0])
        args, _ = _strengthened(args, args[0])
    function(*unwrapped(args), **unwrapped(keywords))
    if tape is not None:
        tape.append(function, tuple(args), keywords)


def _strengthened(args: Any, *targets: Any) -> tuple[Any, bool]:
    """Arguments with numbers of Python in the dtype of the arrays beside them, and whether there are numbers only."""
    weak = [each for each in args if isinstance(each, TracedArray) and each.weak]
    if not weak:
        return args, False
    strong = [
        each for each in (*args, *targets) if isinstance(each, np.ndarray | np.generic) and not _is_weak(each)
    ]
    if not strong:
        return args, True
    dtype = np.result_type(*strong, *(0.0 if each.dtype.kind == "f" else 0 for each in weak))
    return tuple(_strong(each, dtype) if _is_weak(each) else each for each in args), False


def _is_weak(value: Any) -> bool:
    return isinstance(value, TracedArray) and value.weak


def _strong(number: TracedArray, dtype: Any) -> TracedArray:
    tape = current()
    assert tape is not None
    own: TracedArray = tape.new((), dtype)  # type: ignore[assignment]
    _in_place(np.copyto, (own, TracedArray.over(number.plain, number.source)), {"casting": "unsafe"})
    return own


def _arrays(value: Any) -> list[TracedArray]:
    """The traced arrays in nested arguments."""
    if isinstance(value, TracedArray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, tuple | list):
        return []
    return [array for each in value for array in _arrays(each)]


def _is_basic(index: Any) -> bool:
    whole = index if isinstance(index, tuple) else (index,)
    return all(each is None or each is Ellipsis or isinstance(each, int | slice | np.integer) for each in whole) and (
        not any(isinstance(each, bool) for each in whole)
    )


def _has_mask(index: Any) -> bool:
    whole = index if isinstance(index, tuple) else (index,)
    return current() is not None and any(getattr(each, "dtype", None) == bool for each in whole)


def _new_like(x: Array, dtype: Any = None, order: str = "K", subok: bool = False, shape: Any = None, **_: Any) -> Any:
    tape = current()
    assert tape is not None
    like = np.empty_like(plain(x), dtype=dtype, order=order, subok=False, shape=shape)  # type: ignore[arg-type]
    return tape.new(like.shape, like.dtype, like.strides)


def _filled_like(value: Any) -> Callable[..., Any]:
    def make(x: Array, *args: Any, **keywords: Any) -> Any:
        own = _new_like(x, *args, **keywords)
        own[...] = value
        return own

    return make


def _full_like(x: Array, fill_value: Any, *args: Any, **keywords: Any) -> Any:
    return _filled_like(fill_value)(x, *args, **keywords)


def _reader(name: str) -> Callable[..., Any]:
    """A method that returns values to Python."""
    method = getattr(np.ndarray, name)

    def read(self: TracedArray, *args: Any) -> Any:
        if current() is not None:
            raise CaptureError(
                f"a compiled step can't read values ({name.strip('_')}): what Python does with them would be the same "
                "at every replay. Keep float(), bool(), item() and to_numpy out of it"
            )
        return method(self.plain, *args)

    return read


def _method(name: str) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)

    def call(self: TracedArray, *args: Any, **keywords: Any) -> Any:
        return traced_call(method, (self, *args), keywords)

    return call


def _writer(name: str) -> Callable[..., Any]:
    method = getattr(np.ndarray, name)

    def call(self: TracedArray, *args: Any, **keywords: Any) -> Any:
        return _in_place(method, (self, *args), keywords)

    return call


_READERS = (
    "__bool__ __complex__ __contains__ __dlpack__ __float__ __index__ __int__ dump dumps item tobytes tofile tolist"
)
_METHODS = (
    "__copy__ __deepcopy__ all any argmax argmin argpartition argsort astype byteswap choose clip compress conj "
    "conjugate copy cumprod cumsum diagonal dot flatten max mean min nonzero prod ptp ravel repeat reshape round "
    "searchsorted squeeze std sum swapaxes take trace transpose var"
)
for _name in _READERS.split():
    setattr(TracedArray, _name, _reader(_name))
for _name in _METHODS.split():
    if hasattr(np.ndarray, _name):
        setattr(TracedArray, _name, _method(_name))
for _name in ("fill", "partition", "put", "sort"):
    setattr(TracedArray, _name, _writer(_name))

_WRITERS = {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}
#: Functions of properties other than values, whose results may differ in form.
_ABOUT = {np.can_cast, np.iscomplexobj, np.isrealobj, np.may_share_memory, np.ndim, np.result_type, np.shape, np.size}
_COPIES = {np.copy, np.ravel, np.reshape, np.ndarray.astype, np.ndarray.copy, np.ndarray.flatten, np.ndarray.ravel}
#: Reductions of integers to another dtype.
_OTHER_DTYPE = {np.sum, np.prod, np.ndarray.sum, np.ndarray.prod}
_COPIES.add(np.ndarray.reshape)
#: Reductions, and the ufuncs that compute them without Python code around.
_REDUCTIONS = {
    np.all: np.logical_and,
    np.any: np.logical_or,
    np.max: np.maximum,
    np.min: np.minimum,
    np.prod: np.multiply,
    np.sum: np.add,
}
_REDUCTIONS |= {getattr(np.ndarray, function.__name__): ufunc for function, ufunc in _REDUCTIONS.items()}
_ABOUT |= {np.shares_memory, np.common_type, np.min_scalar_type}
_REFUSED = {np.argwhere, np.compress, np.extract, np.flatnonzero, np.nonzero, np.unique, np.unique_all}
_REFUSED |= {np.unique_counts, np.unique_inverse, np.unique_values, np.ndarray.compress, np.ndarray.nonzero}
_WITH_OUT = {np.clip, np.concatenate, np.cumsum, np.stack}
for _name in ("all", "any", "argmax", "argmin", "clip", "cumsum", "max", "min", "prod", "sum"):
    _WITH_OUT |= {getattr(np, _name), getattr(np.ndarray, _name)}
_LIKE = {
    np.empty_like: _new_like,
    np.full_like: _full_like,
    np.ones_like: _filled_like(1),
    np.zeros_like: _filled_like(0),
}
