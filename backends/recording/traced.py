"""Arrays that record what is computed from them: `TracedArray`, a subclass of NumPy's array.

Within a recording every function of NumPy that is passed a traced array computes on plain arrays, and is then put on
the tape as a call that writes into the same memory again. A result that shares memory with an argument is a view, which
needs no call. Values can't be read: what Python decides by them would be frozen. Outside of a recording traced arrays,
such as those that a layer still holds, compute as plain ones.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ...common.types import Array
from .calls import Tape, current
from .guards import CaptureError, NumberRead
from .numpy_functions import ABOUT, REFUSED, WITH_OUT, WRITERS, copied, has_mask, into, is_basic
from .sources import Allocated, External


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
        if function in WRITERS:
            return _in_place(function, args, keywords)
        return traced_call(function, args, keywords)

    def __getitem__(self, index: Any) -> Any:
        if current() is not None and has_mask(index):
            raise CaptureError("a compiled step can't select entries by a mask: their number depends on values")
        return traced_call(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if current() is None or not is_basic(index):
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
    if function in REFUSED and current() is not None:
        raise CaptureError(f"a compiled step can't call {function.__name__}: the size of its result depends on values")
    if function in _LIKE and current() is not None:
        return _LIKE[function](*args, **keywords)
    return _computed(function, args, keywords, writes=function in WITH_OUT)


def _computed(function: Any, args: Any, keywords: Any, writes: bool) -> Any:
    """Call a function and record that; ``writes`` says that it can write into ``out``."""
    tape, out = current(), keywords.get("out")
    if out is not None:
        return _into(function, args, keywords, out if isinstance(out, tuple) else (out,))
    if tape is not None:
        args, weak = _strengthened(args)
    bound, named = unwrapped(args), unwrapped(keywords)
    result = function(*bound, **named)
    if tape is None or function in ABOUT:
        return result
    sources = [each for each in traced_arrays((args, keywords)) if each.size]
    several = isinstance(result, tuple | list)
    own = []
    for each in result if several else (result,):
        source = next((s for s in sources if isinstance(each, np.ndarray) and np.may_share_memory(each, s.plain)), None)
        own.append(_like(each, tape, weak) if source is None else source._view(each))
    made = [new for new, each in zip(own, result if several else (result,), strict=True) if new.plain is not each]
    if made:
        target: Any = own if several else own[0]
        call = into(tuple(own) if several else target, function, args, keywords) if writes else None
        tape.append(*(call or copied(target, function, args, keywords)))
    if not several:
        return own[0]
    return type(result)(*own) if hasattr(result, "_fields") else type(result)(own)


def _like(result: Any, tape: Tape, weak: bool) -> TracedArray:
    """A result in the recording's memory."""
    if not isinstance(result, np.ndarray | np.generic | bool | int | float):
        raise CaptureError(f"a compiled step can't record what returns a {type(result).__name__}")
    array = np.asarray(result)
    own: TracedArray = tape.new(array.shape, array.dtype, array.strides, weak)
    np.copyto(own.plain, array)
    return own


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
    strong = [each for each in (*args, *targets) if isinstance(each, np.ndarray | np.generic) and not _is_weak(each)]
    if not strong:
        return args, True
    dtype = np.result_type(*strong, *(0.0 if each.dtype.kind == "f" else 0 for each in weak))
    return tuple(_strong(each, dtype) if _is_weak(each) else each for each in args), False


def _is_weak(value: Any) -> bool:
    return isinstance(value, TracedArray) and value.weak


def _strong(number: TracedArray, dtype: Any) -> TracedArray:
    tape = current()
    assert tape is not None
    own: TracedArray = tape.new((), dtype)
    _in_place(np.copyto, (own, TracedArray.over(number.plain, number.source)), {"casting": "unsafe"})
    return own


def traced_arrays(value: Any) -> list[TracedArray]:
    """The traced arrays in nested arguments."""
    if isinstance(value, TracedArray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, tuple | list):
        return []
    return [array for each in value for array in traced_arrays(each)]


def _new_like(x: Array, dtype: Any = None, order: Any = "K", subok: bool = False, shape: Any = None, **_: Any) -> Any:
    tape = current()
    assert tape is not None
    like = np.empty_like(plain(x), dtype, order, False, shape)
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
            raise (NumberRead if self.weak else CaptureError)(
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
    "searchsorted squeeze std sum swapaxes take trace transpose var view"
)
for _name in _READERS.split():
    setattr(TracedArray, _name, _reader(_name))
for _name in _METHODS.split():
    if hasattr(np.ndarray, _name):
        setattr(TracedArray, _name, _method(_name))
for _name, _view in (("T", lambda array: array.transpose()), ("mT", lambda array: array.swapaxes(-1, -2))):
    setattr(TracedArray, _name, property(_view))
for _name in ("fill", "partition", "put", "sort"):
    setattr(TracedArray, _name, _writer(_name))

_LIKE: dict[Any, Callable[..., Any]] = {
    np.empty_like: _new_like,
    np.full_like: _full_like,
    np.ones_like: _filled_like(1),
    np.zeros_like: _filled_like(0),
}
