"""Which backend an estimator computes on, and arrays from the caller's library to it and back."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj
from numpy.typing import NDArray
from sklearn import get_config

from ...backends import Backend, BackendLike, backend_of, get_backend, to_host
from ...common.types import Array, Namespace, dtype_name


def is_dispatched(X: Any) -> bool:
    """Whether X is an array of a library other than NumPy, and scikit-learn is told to keep such arrays."""
    return bool(get_config().get("array_api_dispatch")) and is_array_api_obj(X) and not isinstance(X, np.ndarray)


def namespace_of(X: Any) -> Namespace:
    """The namespace of the arrays that `validate_data` makes of X."""
    return array_namespace(X) if is_dispatched(X) else np


def open_backend(backend: BackendLike | None, X: Any, dtype: Any, numerics: str | None) -> Backend:
    """The backend that was given, else that of a dispatched X, else the usual one; in float32 unless given."""
    if backend is None and is_dispatched(X):
        backend = backend_of(X).spec
    return get_backend(backend, dtype, numerics)


def accepted_dtypes(backend: Backend, is_open: bool, xp: Namespace) -> Any:
    """What `validate_data` may return: with an open dtype float64 too, as an estimator of scikit-learn keeps it."""
    if is_open and backend.has("float64") and backend.numerics == "fast" and backend.precision == "float32":
        return [xp.float64, xp.float32]
    return getattr(xp, backend.dtype_name)


def with_dtype_of(backend: Backend, X: Array) -> Backend:
    """The backend in X's dtype."""
    return get_backend(backend, dtype_name(X.dtype))


def on_device(X: Array, backend: Backend) -> Array:
    """X in the backend's dtype: itself if it is there; else a NumPy array, which batches are copied from."""
    if isinstance(X, np.ndarray) or not backend.owns(X):
        return to_host(X)
    return backend.asarray(X, backend.dtype_name)


def home_of(X: Any) -> str | None:
    """The name of the backend of a dispatched X; None for X on the host."""
    return backend_of(X).spec if is_dispatched(X) else None


def kept_at(home: str | None, host: NDArray[Any]) -> Array:
    """A small array of an estimator, such as its classes, where X of `fit` was; text stays on the host."""
    if home is None or host.dtype.kind not in "iufb":
        return host
    own = get_backend(home)
    return own.asarray(host, None if own.has(host.dtype.name) else own.dtype_name)


def require_home(X: Any, home: str | None, name: str, method: str) -> None:
    """Raise `ValueError` if scikit-learn dispatches arrays and X is elsewhere than X of `fit`."""
    if get_config().get("array_api_dispatch") and home_of(X) != home:
        raise ValueError(
            f"Inputs passed to {name}.{method}() must use the same namespace and the same device as those passed to "
            f"fit(): fit was given arrays of {home or 'numpy'}, {method} those of {home_of(X) or 'numpy'}. Convert X, "
            "or leave out array_api_dispatch=True for X on the host."
        )


def like(X: Any, result: Array, backend: Backend) -> Any:
    """A result of the backend as an array of the library and device of X, which is NumPy unless X is dispatched."""
    if not is_dispatched(X):
        return backend.to_numpy(result)
    if backend.owns(X):
        return result
    own = backend_of(X)
    return own.asarray(backend.to_numpy(result))
