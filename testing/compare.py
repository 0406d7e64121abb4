"""Do two arrays, from two backends, hold the same?

Form comes first (namespace, device, dtype, shape), because arrays that differ there are wrong however near their values
are. Values are compared with a tolerance that comes from the operation and the length of its sums, never from a
test: see `tolerance`.
"""

from math import sqrt
from typing import Any

import numpy as np

from ..backends import BackendLike, backend_of, get_backend, to_host
from ..backends.types import Array, dtype_name

EPS = {"float32": 2.0**-24, "float64": 2.0**-53}

# Error bounds in units of roundoff of the largest value, for an operation whose sums have K terms: c * sqrt(K).
# A sum of K products in any order is within K roundoffs of the exact one in the worst case, and within a few sqrt(K)
# with the independent errors of real data (N. Higham, "Accuracy and stability of numerical algorithms", 2002, ch. 3
# and 4.2); a comparison of two such sums doubles that.
LEVELS = {
    # one rounding, or a permutation: what differs is wrong
    "exact": 0.0,
    # a few elementary functions of each library's own, each within 4 ULP
    "elementwise": 16.0,
    # one sum of K products on either side
    "reduction": 8.0,
    # a net: errors of each layer are carried and amplified by those behind
    "network": 64.0,
}


def tolerance(level: str, dtype: str, terms: int = 1) -> float:
    """Largest difference allowed, relative to the largest value of the array."""
    if level not in LEVELS:
        raise ValueError(f"level takes one of {', '.join(LEVELS)}, got {level!r}")
    return LEVELS[level] * sqrt(max(terms, 1)) * EPS[dtype]


def assert_match(
    actual: Array,
    desired: Any,
    *,
    level: str = "elementwise",
    terms: int = 1,
    backend: BackendLike | None = None,
    dtype: str | None = None,
    name: str = "array",
) -> None:
    """Assert that ``actual`` is of the right form and holds what ``desired`` holds.

    Parameters
    ----------
    actual : array
        Of any backend.
    desired : array_like
        Of any backend, or on the host; float64 references are rounded to ``actual``'s dtype by the tolerance.
    level : {"exact", "elementwise", "reduction", "network"}
        Which row of the table of tolerances applies; ``"exact"`` compares bits, apart from the sign of zero.
    terms : int
        Length of the longest sum behind a value.
    backend : optional
        Where ``actual`` must be.
    dtype : str, optional
        What its dtype must be; that of ``desired`` unless given, if both are arrays of floats of any backend.
    name : str
        What the message calls it.

    Raises
    ------
    AssertionError
        Naming the form that differs, or the worst index with both values, relative error and ULPs.
    """
    here = backend_of(actual)
    if backend is not None and (wanted := get_backend(backend)).spec != here.spec:
        raise AssertionError(f"{name} is on {here.spec}, expected {wanted.spec}")
    kind = dtype_name(actual.dtype)
    if dtype is None and hasattr(desired, "dtype"):
        dtype = dtype_name(desired.dtype)
    if dtype is not None and kind != dtype:
        raise AssertionError(f"{name} has dtype {kind}, expected {dtype}")
    a, d = to_host(actual), to_host(desired)
    if a.shape != d.shape:
        raise AssertionError(f"{name} has shape {a.shape}, expected {d.shape}")
    if not a.size:
        return
    if kind not in EPS:
        if not np.array_equal(a, d):
            raise AssertionError(f"{name}: {_worst(a, d, (a != d).astype(np.float64))}")
        return
    d = d.astype(np.float64)
    wide = a.astype(np.float64)
    special = ~np.isfinite(d)
    if not np.array_equal(np.where(special, wide, 0.0), np.where(special, d, 0.0), equal_nan=True):
        raise AssertionError(f"{name}: NaN or infinity differs: {_worst(a, d, (special & ~_same(wide, d)) * 1.0)}")
    error = np.where(special, 0.0, np.abs(wide - np.where(special, 0.0, d)))
    error = np.where(np.isnan(error), np.inf, error)
    scale = float(np.max(np.abs(np.where(special, 0.0, d)), initial=0.0))
    allowed = tolerance(level, kind, terms) * (scale or 1.0)
    if not float(error.max()) <= allowed:
        raise AssertionError(
            f"{name}: {_worst(a, d, error)}; largest error {error.max():.3g}, allowed {allowed:.3g} "
            f"(level {level!r}, {kind}, sums of {terms}, largest value {scale:.3g})"
        )


def ulp_distance(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How many floating-point numbers lie between ``a`` and ``b``, entry by entry; both of one dtype, on the host.

    The two zeros are 0 apart, NaN is 0 from NaN and the largest integer from anything else.
    """
    if a.dtype != b.dtype or a.dtype.name not in EPS:
        raise TypeError(f"ulp_distance takes two arrays of one floating dtype, got {a.dtype} and {b.dtype}")
    integer: Any = np.int32 if a.dtype.name == "float32" else np.int64

    def ordered(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        bits = np.array(x, dtype=x.dtype.newbyteorder("="), order="C").view(integer)
        return np.asarray(np.where(bits < 0, np.iinfo(integer).min - bits, bits).astype(object))

    distance = np.abs(ordered(a) - ordered(b))
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    distance = np.where(nan_a & nan_b, 0, np.where(nan_a ^ nan_b, np.iinfo(np.int64).max, distance))
    limit = np.iinfo(np.int64).max
    return np.asarray(np.minimum(distance, limit).astype(np.int64))


def _same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def _worst(a: np.ndarray[Any, Any], d: np.ndarray[Any, Any], error: np.ndarray[Any, Any]) -> str:
    index = np.unravel_index(int(np.argmax(error)), a.shape)
    got, want = a[index], d[index]
    text = f"at {tuple(int(i) for i in index)} got {got!s}, expected {want!s}"
    if a.dtype.name in EPS:
        ulps = int(ulp_distance(np.asarray([got]), np.asarray([want]).astype(a.dtype))[0])
        relative = abs(float(got) - float(want)) / abs(float(want)) if want else float("inf")
        text += f" ({ulps} ULP, relative {relative:.3g})"
    return text
