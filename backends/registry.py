"""Names to backends.

Nothing is imported until it is asked for: the table holds where a backend's class is, not the class. A
backend that was opened once is kept and handed out again, so that its transfer counts are of one piece.
Other packages add backends through the entry point group ``xpnn.backends``.
"""

import importlib
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import is_array_api_obj

from ..common import checks, environment
from ..common.types import Array, DType, Namespace, dtype_name
from . import origins
from .backend import ALGORITHMS, FLOATS, NUMERICS, PRECISIONS, SLICE_PRODUCTS, Backend, Settings
from .errors import BackendUnavailable
from .inputs import describe, host_data, is_plain_numpy, is_standard, unsupported
from .primitives import Primitives

BackendLike: TypeAlias = str | Backend | ModuleType

GROUP = "xpnn.backends"
VARIABLE = environment.BACKEND
NUMERICS_VARIABLE = environment.NUMERICS
AUTO = ("cupy", "numpy")

_SHIPPED = {
    "numpy": ("numpy", "NumpyBackend"),
    "cupy": ("cupy", "CupyBackend"),
    "torch": ("torch", "TorchBackend"),
    "strict": ("strict", "StrictBackend"),
}
_NAMES = {"array_api_strict": "strict"}
_opened: dict[tuple[str, *Settings], Backend] = {}
_primitives: dict[Namespace, Primitives] = {}
_current: ContextVar[Backend | None] = ContextVar("xpnn_backend", default=None)


def names() -> list[str]:
    """Names that `get_backend` takes, shipped ones first; usable or not."""
    return [*_SHIPPED, *(e.name for e in entry_points(group=GROUP) if e.name not in _SHIPPED)]


def backend_class(name: str) -> type[Backend]:
    """The class behind a name, without opening a device."""
    if name in _SHIPPED:
        module, attribute = _SHIPPED[name]
        loaded: type[Backend] = getattr(importlib.import_module(f".{module}", __package__), attribute)
        return loaded
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            found: type[Backend] = entry.load()
            return found
    raise ValueError(f"unknown backend {name!r}; the backends are {', '.join(names())} and auto")


def get_backend(
    backend: BackendLike | None = None,
    dtype: DType | str | None = None,
    numerics: str | None = None,
    precision: str | None = None,
    algorithms: str | None = None,
    slice_products: int | None = None,
) -> Backend:
    """The backend of that name, opened and proved to compute.

    Parameters
    ----------
    backend : str, Backend, namespace or None
        ``"numpy"``, ``"cupy"``, ``"cupy:1"``, ``"torch"``, ``"torch:cuda:0"``, ``"strict"``, ``"strict:device1"``;
        ``"auto"``, the first usable of cupy and numpy; an array namespace such as ``numpy`` itself; None, the
        one of the enclosing `use_backend`, else of the environment variable ``XPNN_BACKEND``, else numpy.
    dtype : str or dtype, optional
        Default floating dtype, ``"float32"`` unless given.
    numerics : str, optional
        ``"fast"``, or ``"exact"`` for the same float32 bits on every backend; unless given, that of the environment
        variable ``XPNN_NUMERICS``, else fast.
    precision : str, optional
        ``"float32"``, or ``"tf32"`` to allow TF32 in matrix products on a GPU.
    algorithms : str, optional
        ``"any"``, or ``"direct"`` for convolutions that are sums of products and nothing else, without algorithms whose
        rounding error is larger, such as Winograd's. In exact numerics they always are.
    slice_products : {2, 3}, optional
        For exact numerics, which splits the factors of a matrix product into slices of 13 to 26 bits: the number of
        float64 matrix products of slices that are added up to one matrix product. 2: one slice of the left factor
        times two of the right (one times one for up to 32 terms), with errors of float32's size. 3: two slices of each,
        without the product of the two lower ones; the error is that of the rounding to float32.

    Raises
    ------
    ValueError
        For an unknown name or setting.
    BackendUnavailable
        For a known backend that does not work here; says why and what mends it.
    """
    if backend is None:
        backend = _current.get() or from_environment() or "numpy"
    if isinstance(backend, Backend):
        settings = backend.settings
        spec = backend.spec
    else:
        # Only what is needed is looked up: a wrong value must not disturb who says what it wants.
        usual = environment.value(NUMERICS_VARIABLE) if numerics is None else None
        settings = ("float32", usual or "fast", "float32", "any", 2)
        spec = backend if isinstance(backend, str) else name_of(backend)
    wanted: Settings = (
        settings[0] if dtype is None else _float_name(dtype),
        settings[1] if numerics is None else checks.choice("numerics", numerics, NUMERICS),
        settings[2] if precision is None else checks.choice("precision", precision, PRECISIONS),
        settings[3] if algorithms is None else checks.choice("algorithms", algorithms, ALGORITHMS),
        settings[4] if slice_products is None else checks.choice("slice_products", slice_products, SLICE_PRODUCTS),
    )
    if wanted[1] == "exact" and wanted[0] != "float32":
        raise ValueError(
            "dtype must be float32 with numerics='exact', which computes in float64 and stores float32; got float64"
        )
    if wanted[1] == "exact" and wanted[2] != "float32":
        raise ValueError(
            f"precision must be 'float32' with numerics='exact', which multiplies in float64; got {wanted[2]!r}"
        )
    if isinstance(backend, Backend) and wanted == settings:
        return backend
    if spec == "auto":
        spec = first_usable()
    key = (spec, *wanted)
    if key not in _opened:
        name, colon, device = spec.partition(":")
        if colon and not device:
            raise ValueError(f"backend {spec!r} names no device after the colon")
        opened = backend_class(name).open(device or None, *wanted)
        _opened[key] = _opened.setdefault((opened.spec, *wanted), opened)
    return _opened[key]


Backend.reopen = staticmethod(get_backend)


def from_environment() -> str | None:
    """The name in the environment variable ``XPNN_BACKEND``; None where it is unset.

    Raises
    ------
    ValueError
        If it is no name of a backend.
    """
    spec = environment.value(VARIABLE)
    name, colon, device = (spec or "auto").partition(":")
    if name not in ("auto", *_SHIPPED) and name not in names():
        raise environment.wrong(VARIABLE, spec or "")
    if colon and (not device or name == "auto"):
        raise environment.wrong(VARIABLE, spec or "")
    return spec


@contextmanager
def use_backend(
    backend: BackendLike,
    dtype: DType | str | None = None,
    numerics: str | None = None,
    precision: str | None = None,
    algorithms: str | None = None,
    slice_products: int | None = None,
) -> Iterator[Backend]:
    """Within the ``with`` block, layers that name no backend are made on this one."""
    chosen = get_backend(backend, dtype, numerics, precision, algorithms, slice_products)
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)


def ambient_backend() -> Backend | None:
    """The backend of the enclosing `use_backend`, if any."""
    return _current.get()


def first_usable() -> str:
    """What ``"auto"`` means on this machine."""
    for name in AUTO[:-1]:
        try:
            get_backend(name)
        except BackendUnavailable:
            continue
        return name
    return AUTO[-1]


def backend_of(array: Array, like: Backend | None = None) -> Backend:
    """The backend that an array lives on, with the settings of ``like``."""
    kind = _home(array)
    if kind is None:
        raise TypeError(unsupported(array, "the argument"))
    spec = kind.spec_of(array)
    if like is not None:
        return get_backend(spec, *like.settings)
    return get_backend(spec)


def to_host(array: Any, what: str = "an array") -> np.ndarray[Any, Any]:
    """An array of any backend, or nested numbers, as a NumPy array: a transfer that the caller asked for."""
    if not isinstance(array, np.ndarray | np.generic) and _home(array) is not None:
        return backend_of(array).to_numpy(array)
    return host_data(array, what, convert=True)


_ONLY_NUMPY = {np.ndarray}
# The backends of classes of arrays that were looked up.
_homes: dict[type, type[Backend]] = {}


def _home(array: Any) -> type[Backend] | None:
    """The class of the backend that computes with an array; None for subclasses, and for what is no array."""
    kind = type(array)
    home = _homes.get(kind)
    if home is None:
        if is_plain_numpy(kind):
            home = backend_class("numpy")
        elif is_array_api_obj(array) and not isinstance(array, np.ndarray):
            name = _library(kind.__module__)
            home = backend_class(name) if name in names() else None
        if home is None or not home.is_plain(kind):
            return None
        _homes[kind] = home
    return home if home.is_dense(array) else None


def _memory_of(array: Any) -> Any:
    """What arrays that share memory have in common; of what is no array of a backend, itself."""
    home = _home(array)
    return array if home is None else home.memory_of(array)


origins.memory_of = _memory_of


def has_backend(array: Any) -> bool:
    """Whether it is an array of a backend."""
    return _home(array) is not None


def require_plain(array: Any, what: str) -> None:
    """Raise `TypeError` unless it is an array of a backend."""
    if _home(array) is None:
        raise TypeError(unsupported(array, what))


def require_standard(arrays: Mapping[str, Any]) -> None:
    """Raise `TypeError` unless all are arrays of one library: of a backend, or another that keeps to the standard.

    The keys are the names that a message calls them by.
    """
    # In nearly all calls, and each function of a step makes one.
    if set(map(type, arrays.values())) == _ONLY_NUMPY:
        return
    homes: set[Any] = {_home(array) for array in arrays.values()}
    if None in homes:
        for name, array in arrays.items():
            if _home(array) is None and not is_standard(array):
                raise TypeError(unsupported(array, name))
        homes = {_home(array) or array.__array_namespace__() for array in arrays.values()}
    if len(homes) > 1:
        given = ", ".join(f"{name} {describe(array)}" for name, array in arrays.items())
        raise TypeError(f"arrays must be of one library, got {given}; move them with backend.asarray(...)")


def primitives(xp: Namespace) -> Primitives:
    """The contractions for an array namespace: its backend's own, or the standard-only ones."""
    if xp not in _primitives and (raw := getattr(xp, "raw", None)) is not None:
        from .exact.primitives import ExactPrimitives

        _primitives[xp] = ExactPrimitives(xp, primitives(raw))
    if xp not in _primitives:
        name = name_of(xp) if hasattr(xp, "__name__") else ""
        kind = backend_class(name) if name and name in names() else None
        own = xp if kind is None else kind.namespace(xp)
        if own is xp:
            _primitives[xp] = Primitives(xp) if kind is None else kind.primitives(xp)
        else:
            _primitives[xp] = primitives(own)
    return _primitives[xp]


def name_of(namespace: Namespace) -> str:
    """The backend name of an array namespace (``numpy``, ``array_api_compat.torch``, ``array_api_strict``...)."""
    if not hasattr(namespace, "__name__"):
        raise ValueError(f"backend must be a name, a Backend or an array namespace, got {checks.shown(namespace)}")
    return _library(namespace.__name__)


def _library(module: str) -> str:
    """The name of the backend whose arrays come from that module."""
    parts = module.split(".")
    name = parts[1] if parts[0] == "array_api_compat" and len(parts) > 1 else parts[0]
    if name in _NAMES or name in _SHIPPED:
        return _NAMES.get(name, name)
    for entry in entry_points(group=GROUP):
        if entry.load().library == name:
            return entry.name
    return name


def _float_name(dtype: DType | str) -> str:
    name = dtype_name(dtype) if isinstance(dtype, Hashable) else ""
    if name not in FLOATS:
        raise ValueError(f"dtype must be {checks.alternatives(FLOATS)}, got {name or checks.shown(dtype)}")
    return name


@dataclass(frozen=True)
class Status:
    """What is known of one backend on this machine: a row of ``xpnn info``."""

    name: str
    version: str
    device: str
    usable: bool
    note: str


def device_name(backend: Backend) -> str:
    """The device in a word: ``cpu``, ``cuda:0``, ``device1``."""
    return str(backend.device).replace("array_api_strict.Device", "").strip("()'<>").replace("CUDA Device ", "cuda:")


def survey() -> list[Status]:
    """Try every backend, and say of each what it is or why it does not work."""
    rows = []
    for name in names():
        for spec in (name, "torch:cuda:0") if name == "torch" else (name,):
            try:
                backend = get_backend(spec)
            except BackendUnavailable as error:
                rows.append(Status(spec, "", "", False, f"{error.cause}; {error.cure}"))
            else:
                rows.append(Status(spec, backend.version(), device_name(backend), True, backend.notes()))
    return rows
