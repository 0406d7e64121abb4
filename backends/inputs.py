"""Which objects are arrays, and the messages for objects that are not.

A backend computes with its own library's class of arrays. A subclass may have other operators: ``*`` of an `np.matrix`
is a matrix product, and a masked array omits entries in some functions and not in others, so that a loss would be a
different number. Subclasses are refused, except `np.memmap` and PyTorch's ``Parameter``, which compute as their class.

Arrays of a library without a backend are refused as well. The message has the call that converts them, which depends on
the object: a dense form, DLPack (no copy), or ``__array__``.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj, is_dask_array, is_jax_array, is_ndonnx_array

from ..common.checks import shown
from ..common.types import dtype_name
from .errors import first_line
from .recording.traced import TracedArray

NUMBERS = "biuf"
_FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})
#: Root modules of the libraries with a backend, and the call that makes a plain array from one of a subclass.
LIBRARIES = {"torch": "x.as_subclass(torch.Tensor)", "cupy": "x.view(cupy.ndarray)", "array_api_strict": ""}


def is_plain_numpy(kind: type) -> bool:
    """Whether a class is one of NumPy's: arrays, scalars, or arrays in a file; or that of arrays in a recording."""
    return kind is np.ndarray or kind is TracedArray or kind is np.memmap or issubclass(kind, np.generic)


def are_numpy_floats(arrays: Iterable[Any]) -> bool:
    """Whether all that are not None are plain arrays of NumPy of one dtype, float32 or float64."""
    found = None
    for array in arrays:
        if array is not None:
            if type(array) is not np.ndarray or (found is not None and array.dtype != found):
                return False
            found = array.dtype
    return found is None or found in _FLOATS


def describe(array: Any) -> str:
    """An argument in words: ``float32 array of torch, shape (8, 1, 28, 28)``, ``list``."""
    dtype, shape = getattr(array, "dtype", None), getattr(array, "shape", None)
    if dtype is None or shape is None:
        return "None" if array is None else type(array).__name__
    kind = type(array)
    library = kind.__module__.partition(".")[0]
    form = f"shape {tuple(shape)}" if hasattr(shape, "__iter__") else f"shape {shape}"
    if isinstance(array, np.ndarray) and not is_plain_numpy(kind):
        name = "a masked array" if isinstance(array, np.ma.MaskedArray) else f"a {library}.{kind.__name__}"
        return f"{name} of {_dtype(dtype)}, {form}"
    where = f" on {array.device}" if hasattr(array, "device") and library != "numpy" else ""
    return f"{_dtype(dtype)} array of {library}{where}, {form}"


def _dtype(dtype: Any) -> str:
    """The name of a dtype, and the byte order of NumPy's if it is not this machine's."""
    if isinstance(dtype, np.dtype):
        return dtype.name if dtype.isnative else f"{dtype.name} (of the other byte order)"
    return dtype_name(dtype)


def advice(array: Any, spec: str = "numpy") -> str:
    """How to make an array of a backend from another object."""
    copy = f"nn.get_backend({spec!r}).asarray"
    kind = type(array)
    if isinstance(array, np.ma.MaskedArray):
        return "a mask is not applied: fill it first, x.filled(value), or leave out samples that have masked entries"
    if isinstance(array, np.ndarray) and not is_plain_numpy(kind):
        return "convert it to a plain array: np.asarray(x)"
    if (own := _library(kind)) is not None:
        if getattr(array, "layout", None) is not None and "strided" not in str(array.layout):
            return "make it dense: x.to_dense()"
        if _library(kind, exact=True) is None:
            return f"convert it to a plain array: {LIBRARIES[own]}"
        return "nothing is copied between backends silently: bring it to the host, nn.backend_of(x).to_numpy(x)"
    if is_sparse(array):
        return f"make it dense: {copy}(np.asarray(x.{'toarray' if hasattr(array, 'toarray') else 'todense'}()))"
    if callable(getattr(array, "__dlpack__", None)):
        library = {"strict": "array_api_strict", "numpy": "np"}.get(spec.partition(":")[0], spec.partition(":")[0])
        share = f"share its memory with {library}.from_dlpack(x)"
        return f"copy it with {copy}(np.asarray(x)), or {share}" if hasattr(array, "__array__") else share
    if hasattr(array, "__array__"):
        return f"copy it with {copy}(np.asarray(x))"
    return f"make one with {copy}(x)"


def conversion(array: Any) -> str:
    """How to make an array of float32 from another object."""
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        return advice(array)
    return _no_numbers(array.dtype) or "convert it with asarray(x, 'float32')"


def _no_numbers(dtype: Any) -> str:
    """What to do about a dtype; empty if it is one of real numbers."""
    if "complex" in _dtype(dtype):
        return "split it into x.real and x.imag"
    if getattr(dtype, "names", None):
        return f"take a field of it, x[{dtype.names[0]!r}]"
    if getattr(dtype, "kind", "f") in "US":
        return "number classes from 0; text of numbers is converted with x.astype(np.float32)"
    if getattr(dtype, "kind", "f") not in NUMBERS:
        return "convert it with x.astype(np.float32), if all of its entries are numbers"
    return ""


def host_data(data: Any, what: str, *, convert: bool = False) -> np.ndarray[Any, Any]:
    """Numbers on the host as a plain NumPy array: booleans, integers or floats, of any size and in any byte order.

    Parameters
    ----------
    data : array_like
    what : str
        The name of the data in a message.
    convert : bool
        Whether to accept arrays of other libraries, too, if NumPy can convert them.

    Raises
    ------
    TypeError
        For anything else; the message says what to do.
    """
    if isinstance(data, np.ndarray | np.generic):
        if not is_plain_numpy(type(data)):
            raise TypeError(f"{what} must be a plain array, got {describe(data)}; {advice(data)}")
        return _numbers(np.asarray(data), what, data)
    if is_sparse(data) or (not convert and _is_array(data)):
        raise TypeError(f"{what} must be an array on the host or nested numbers, got {describe(data)}; {advice(data)}")
    if (masked := _subclass_within(data)) is not None:
        raise TypeError(f"{what} must hold no {type(masked).__name__}, got {describe(masked)} in it; {advice(masked)}")
    try:
        array = np.asarray(data)
    except Exception as error:
        ragged = "; give all samples one shape" if "inhomogeneous" in str(error) else ""
        known = f"got {describe(data)} ({first_line(error)}){ragged}"
        if _is_array(data):
            raise TypeError(f"{what} must be an array on the host, {known}; {advice(data)}") from error
        raise TypeError(f"{what} must be numbers, {known}") from error
    if not is_plain_numpy(type(array)):
        raise TypeError(f"{what} must be a plain array, got {describe(array)}; {advice(array)}")
    if array.dtype == object and callable(getattr(data, "__dlpack__", None)):
        raise TypeError(f"{what} must be an array on the host, got {describe(data)}; {advice(data)}")
    return _numbers(array, what, data)


def _numbers(array: np.ndarray[Any, Any], what: str, given: Any) -> np.ndarray[Any, Any]:
    """The array; raises unless it has real numbers."""
    hint = _no_numbers(array.dtype)
    if hint:
        if given is None:
            raise TypeError(f"{what} must be numbers, got None")
        of = "" if hasattr(given, "dtype") else f" ({array.dtype.name} for NumPy)"
        raise TypeError(f"{what} must be numbers, got {describe(given)}{of}; {hint}")
    return array


def _library(kind: type, *, exact: bool = False) -> str | None:
    """The library whose class of arrays this is or, unless ``exact``, inherits from, if it has a backend."""
    for each in kind.__mro__[: 1 if exact else None]:
        root = each.__module__.partition(".")[0]
        if root in LIBRARIES:
            return root
    return None


def _is_array(data: Any) -> bool:
    """Whether an object is an array of any library, on any device."""
    return is_array_api_obj(data) or hasattr(data, "__cuda_array_interface__")


def is_standard(array: Any) -> bool:
    """Whether the functions of the standard can compute with an array of a library without a backend.

    Not with those of JAX, which are read-only, nor with those of Dask and ndonnx, whose values are not known yet.
    """
    if isinstance(array, np.ndarray) or _library(type(array)) is not None or is_sparse(array):
        return False
    if is_jax_array(array) or is_dask_array(array) or is_ndonnx_array(array):
        return False
    # The attributes that only these have, so that a test double of theirs is refused, too.
    return hasattr(array, "__array_namespace__") and not hasattr(array, "devices") and not hasattr(array, "compute")


def is_sparse(data: Any) -> bool:
    """Whether an object is an array that must be made dense first."""
    return hasattr(data, "shape") and (hasattr(data, "todense") or hasattr(data, "toarray"))


def _subclass_within(data: Any) -> Any:
    """A masked array, matrix or the like in nested lists, whose mask NumPy drops silently; None if there is none."""
    if not isinstance(data, list | tuple):
        return None
    kinds = set(map(type, data))
    if any(issubclass(kind, np.ndarray) and not is_plain_numpy(kind) for kind in kinds):
        return next(each for each in data if isinstance(each, np.ndarray) and not is_plain_numpy(type(each)))
    if not any(issubclass(kind, list | tuple) for kind in kinds):
        return None
    return next((found for each in data if (found := _subclass_within(each)) is not None), None)


def unsupported(array: Any, what: str, spec: str | None = None) -> str:
    """The message for an object in place of an array of a backend."""
    given = shown(array) if np.isscalar(array) else describe(array)
    return f"{what} must be an array of {spec or 'a backend'}, got {given}; {advice(array, spec or 'numpy')}"
