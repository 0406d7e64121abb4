"""From names to backends.

The table of names holds the module of each backend's class, so that no array library is imported before it is needed.
An open backend is returned again for the same name and settings, so that all its transfers are in one count. Other
packages add backends through the entry point group ``xpnn.backends``.
"""

import importlib
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeAlias

from ..common import checks, environment
from ..common.types import DType, Namespace, dtype_name
from .backend import ALGORITHMS, FLOATS, NUMERICS, PRECISIONS, SLICE_PRODUCTS, Backend, Settings
from .errors import BackendUnavailable
from .narrow import ROUNDOFF

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
_current: ContextVar[Backend | None] = ContextVar("xpnn_backend", default=None)


def names() -> list[str]:
    """Names that `get_backend` accepts, those of this package first; they need not be usable."""
    return [*_SHIPPED, *(e.name for e in entry_points(group=GROUP) if e.name not in _SHIPPED)]


def backend_class(name: str) -> type[Backend]:
    """The class of that name, without opening a device."""
    if name in _SHIPPED:
        module, attribute = _SHIPPED[name]
        loaded: type[Backend] = getattr(importlib.import_module(f".{module}", __package__), attribute)
        return loaded
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            found: type[Backend] = entry.load()
            return found
    raise ValueError(f"backend must be {checks.alternatives([*names(), 'auto'])}, got {name!r}")


def get_backend(
    backend: BackendLike | None = None,
    dtype: DType | str | None = None,
    numerics: str | None = None,
    precision: str | None = None,
    algorithms: str | None = None,
    slice_products: int | None = None,
) -> Backend:
    """The backend of that name, opened and tested with a small computation.

    Parameters
    ----------
    backend : str, Backend, namespace or None
        ``"numpy"``, ``"cupy"``, ``"cupy:1"``, ``"torch"``, ``"torch:cuda:0"``, ``"strict"``, ``"strict:device1"``;
        ``"auto"``, the first usable of cupy and numpy; an array namespace such as ``numpy``; None for that of the
        enclosing `use_backend`, else of the environment variable ``XPNN_BACKEND``, else numpy.
    dtype : str or dtype, optional
        Default floating dtype, ``"float32"`` unless given.
    numerics : str, optional
        ``"fast"``, or ``"exact"`` for the same float32 bits on every backend; unless given, that of the environment
        variable ``XPNN_NUMERICS``, else fast.
    precision : str, optional
        ``"float32"``, or ``"tf32"`` to allow TF32 in matrix products on a GPU; ``"float16"`` or ``"bfloat16"`` for
        mixed precision on NumPy, CuPy and PyTorch: layers store what backward needs in 16 bits and round the factors of
        products to these, which are added up in float32, as everything else is computed. `GradScaler` and `fit` scale
        the loss for float16.
    algorithms : str, optional
        ``"any"``, or ``"direct"`` for convolutions that are sums of products and nothing else, without algorithms whose
        rounding error is larger, such as Winograd's. In exact numerics they always are.
    slice_products : {1, 2, 3}, optional
        For exact numerics, which splits the factors of a matrix product into slices of 13 to 26 bits: the number of
        float64 matrix products of slices that are added up to one matrix product. 1: one slice of each, with errors up
        to seven times float32's on normally distributed numbers, in 0.6 of the time. 2: one slice of the left factor
        times two of the right (one times one for up to 32 terms), with errors of float32's size. 3: two slices of each,
        without the product of the two lower ones; the error is that of the rounding to float32.

    Raises
    ------
    ValueError
        For an unknown name or setting.
    BackendUnavailable
        For a known backend that does not work here; the message has the cause and what to do.
    """
    if backend is None:
        backend = _current.get() or from_environment() or "numpy"
    if isinstance(backend, Backend):
        settings = backend.settings
        spec = backend.spec
    else:
        # Read only if needed: a wrong value of the variable must not matter to a caller that passes numerics.
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
    if wanted[2] in ROUNDOFF and wanted[0] != "float32":
        raise ValueError(f"dtype must be float32 with precision={wanted[2]!r}, which keeps weights in it; got float64")
    if isinstance(backend, Backend) and wanted == settings:
        return backend
    if spec == "auto":
        spec = first_usable()
    key = (spec, *wanted)
    if key not in _opened:
        name, colon, device = spec.partition(":")
        if colon and not device:
            raise ValueError(f"backend must have a device after its colon, as in 'cupy:0', got {spec!r}")
        kind = backend_class(name)
        if wanted[2] in ROUNDOFF and kind.narrow_format(wanted[2]) is None:
            raise ValueError(f"precision {wanted[2]!r} is for the backends numpy, cupy and torch, got {name!r}")
        opened = kind.open(device or None, *wanted)
        _opened[key] = _opened.setdefault((opened.spec, *wanted), opened)
    return _opened[key]


Backend.reopen = staticmethod(get_backend)


def from_environment() -> str | None:
    """The name in the environment variable ``XPNN_BACKEND``; None if it is not set.

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
    """Within the ``with`` block, layers without a ``backend`` argument use this one."""
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
    """The name of the backend that ``"auto"`` selects on this machine."""
    for name in AUTO[:-1]:
        try:
            get_backend(name)
        except BackendUnavailable:
            continue
        return name
    return AUTO[-1]


def name_of(namespace: Namespace) -> str:
    """The backend name of an array namespace (``numpy``, ``array_api_compat.torch``, ``array_api_strict``...)."""
    if not hasattr(namespace, "__name__"):
        raise ValueError(f"backend must be a name, a Backend or an array namespace, got {checks.shown(namespace)}")
    return library_name(namespace.__name__)


def library_name(module: str) -> str:
    """The name of the backend whose arrays are of a class from that module."""
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
