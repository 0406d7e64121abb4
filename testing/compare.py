"""Comparison of arrays from two backends: `assert_match`, errors in ULPs, and equality of bits.

Namespace, device, dtype and shape are compared first. The tolerance of the values depends on the operation and the
length of its sums, not on the test: see `xpnn.testing.tolerances`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import BackendLike, backend_of, get_backend, to_host
from ..backends.inputs import host_data
from ..common import checks
from ..common.types import Array, dtype_name
from .tolerances import EPS, EXACT, Bound, Part, bound

Host = np.ndarray[Any, Any]

#: Upper limits, in ULPs, of the bins of `Comparison.histogram`; a last bin counts larger errors.
EDGES = (0.0, *(2.0**k for k in range(-6, 11)))


@dataclass(frozen=True)
class Comparison:
    """The difference of two arrays.

    Attributes
    ----------
    ulps : float
        Largest error, in units in the last place of the value, or of the largest value of the array, as the bound says;
        infinite where NaN or infinities differ.
    relative : float
        The same, relative to the value or the largest value.
    share : float
        The largest error divided by its bound: above 1 the arrays don't match.
    index : tuple of int
        Where the error is largest; ``got`` and ``wanted`` are the values there.
    histogram : tuple of int
        Number of entries with an error in each of the bins of `EDGES`.
    """

    ulps: float
    relative: float
    share: float
    index: tuple[int, ...]
    got: str
    wanted: str
    histogram: tuple[int, ...]

    @property
    def matches(self) -> bool:
        """Whether the error is within the bound."""
        return self.share <= 1.0


def compare(
    actual: Host, desired: Host, limit: Bound = EXACT, terms: int = 1, *, factor: float = 1.0, floor: float = 0.0
) -> Comparison:
    """Compare two host arrays of one shape, the first of floats.

    Parameters
    ----------
    actual : ndarray
        float32 or float64; ULPs are those of its dtype.
    desired : ndarray
        Of any dtype; a float64 reference is not rounded.
    limit : Bound
        The bound for the error, for sums of ``terms`` terms; it is multiplied by ``factor``.
    terms : int
    factor : float
    floor : float
        The least value that counts as the largest one; for arrays of zeros that is 1.
    """
    if not actual.size:
        return Comparison(0.0, 0.0, 0.0, (), "", "", (0,) * (len(EDGES) + 1))
    kind = actual.dtype.name
    a, d = actual.astype(np.float64), desired.astype(np.float64)
    plain = np.isfinite(a) & np.isfinite(d)
    # A reference beyond the range of the dtype is rounded to infinity.
    with np.errstate(over="ignore"):
        same = (actual == desired.astype(kind)) | (np.isnan(a) & np.isnan(d))
    error = np.where(plain, np.abs(np.where(plain, a - np.where(plain, d, 0.0), 0.0)), np.where(same, 0.0, np.inf))
    size = np.where(plain, np.abs(np.where(plain, d, 0.0)), 0.0)
    if limit.of == "largest":
        size = np.full(size.shape, max(size.max(), floor) or 1.0)
    # A reference of 0 or a subnormal number counts as the smallest normal number.
    size = np.maximum(size, float(np.finfo(kind).tiny))
    relative = error / size
    ulps = error / np.spacing(np.minimum(size, float(np.finfo(kind).max)).astype(kind)).astype(np.float64)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(relative)), relative.shape))
    allowed = limit.units(terms) * EPS[kind] * factor
    worst = float(relative[index])
    counts = np.bincount(np.searchsorted(EDGES, ulps.ravel()), minlength=len(EDGES) + 1)
    return Comparison(
        ulps=float(ulps.max()),
        relative=worst,
        share=worst / allowed if allowed else (0.0 if worst == 0.0 else np.inf),
        index=index,
        got=str(actual[index]),
        wanted=str(desired[index]),
        histogram=tuple(int(n) for n in counts),
    )


def same_bits(a: Host, b: Host) -> bool:
    """Whether two host arrays have the same dtype, shape and bits; all NaN are equal."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        nan = np.isnan(a)
        if not np.array_equal(nan, np.isnan(b)):
            return False
        a, b = np.where(nan, a.dtype.type(0), a), np.where(nan, b.dtype.type(0), b)
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def assert_match(
    actual: Array,
    desired: Any,
    *,
    level: str = "elementwise",
    part: Part = "forward",
    terms: int = 1,
    backend: BackendLike | None = None,
    dtype: str | None = None,
    name: str = "array",
) -> None:
    """Assert that ``actual`` has the right namespace, device, dtype and shape, and the values of ``desired``.

    Parameters
    ----------
    actual : array
        Of any backend.
    desired : array_like
        Of any backend, or on the host; the tolerance includes the rounding of a float64 reference to the dtype of
        ``actual``.
    level : str
        The row of the table of tolerances: an operation, or ``"exact"`` (equal bits, except for the sign of zero),
        ``"elementwise"``, ``"reduction"`` or ``"network"``.
    part : {"forward", "input", "parameter", "buffer"}
        The column of the table.
    terms : int
        Length of the longest sum in the computation of a value.
    backend : optional
        The expected backend of ``actual``.
    dtype : str, optional
        The expected dtype; by default that of ``desired``, if it is an array.
    name : str
        The name of the array in messages.

    Raises
    ------
    AssertionError
        The message has the property that differs, or the index of the largest error with both values, the relative
        error and ULPs.
    """
    terms, limit = checks.integer("terms", terms, 0), bound(level, part)
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
    if kind not in EPS:
        if not np.array_equal(a, d):
            index = tuple(int(i) for i in np.argwhere(a != d)[0])
            raise AssertionError(f"{name}: at {index} got {a[index]!s}, expected {d[index]!s}")
        return
    found = compare(a, d, limit, terms)
    if not found.matches:
        what = "NaN or infinity differs: " if np.isinf(found.ulps) else ""
        finite = np.where(np.isfinite(d), d, 0)
        scale = "the value" if limit.of == "each" else f"the largest value {float(np.abs(finite).max()):.3g}"
        raise AssertionError(
            f"{name}: {what}at {found.index} got {found.got}, expected {found.wanted}: {found.ulps:.3g} ULP of "
            f"{scale}, relative {found.relative:.3g}, allowed {limit.units(terms) * EPS[kind]:.3g} "
            f"(level {level!r}, {kind}, sums of {terms})"
        )


def ulp_distance(a: Host, b: Host) -> Host:
    """The distance of ``a`` and ``b`` in floating-point numbers, entry by entry; both of one dtype, on the host.

    The distance of the two zeros and of two NaN is 0; that of NaN from a number is the largest integer.
    """
    a, b = (_native(host_data(each, name, convert=True)) for name, each in (("a", a), ("b", b)))
    if a.dtype != b.dtype or a.dtype.name not in EPS:
        raise TypeError(f"ulp_distance: a and b must be of one floating dtype, got {a.dtype} and {b.dtype}")
    integer: Any = np.int32 if a.dtype.name == "float32" else np.int64

    def ordered(x: Host) -> Host:
        bits = np.array(x, order="C").view(integer)
        return np.asarray(np.where(bits < 0, np.iinfo(integer).min - bits, bits).astype(object))

    distance = np.abs(ordered(a) - ordered(b))
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    distance = np.where(nan_a & nan_b, 0, np.where(nan_a ^ nan_b, np.iinfo(np.int64).max, distance))
    limit = np.iinfo(np.int64).max
    return np.asarray(np.minimum(distance, limit).astype(np.int64))


def _native(x: Host) -> Host:
    """An array in this machine's byte order."""
    return x.astype(x.dtype.newbyteorder("="), copy=False)
