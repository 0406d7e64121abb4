"""Test a device for the arithmetic that exact numerics requires, when a backend is opened.

Required are IEEE-754 float64 arithmetic, casts and rounding in every array operation, and a float64 matrix product that
is exact while all partial sums are whole numbers below 2**53. A GPU library may emulate float64 products with fewer
bits (cuBLAS, by an environment variable); a device may compute float64 in float32, or fuse successive array operations.
All results are copied to the host in one transfer.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...common.types import Array, Namespace
from ..errors import BackendUnavailable

# Odd, as are all factors below, so that results have all 53 bits and a lost bit is seen.
LONG_TERMS = (1 << 16) - 1
SIDE = 128  # of a square matrix


class Machine(Protocol):
    """A backend before it gets the exact namespace."""

    @property
    def spec(self) -> str:
        """Its canonical name."""

    @property
    def xp(self) -> Namespace:
        """The library's own namespace."""

    def has(self, dtype: str) -> bool:
        """Whether the device has a dtype of that name."""

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        """Host data as an array of the device."""

    def to_numpy(self, array: Array) -> Any:
        """An array of the device on the host."""


def require_exact(b: Machine) -> None:
    """Raise `BackendUnavailable` unless the device has the arithmetic that exact numerics requires."""
    if not (b.has("float64") and b.has("int64")):
        raise BackendUnavailable(
            b.spec, "numerics='exact' computes in float64 and int64, which this device lacks", "use numerics='fast'"
        )
    found = np.asarray(b.to_numpy(_results(b)))
    for (name, _, expected), result in zip(TESTS, found, strict=True):
        if result != expected:
            raise BackendUnavailable(
                b.spec,
                f"numerics='exact' relies on {name}; expected {expected!r} on this device, got {result!r}",
                "unset variables such as CUBLAS_EMULATE_DOUBLE_PRECISION and fast-math options, or use numerics='fast'",
            )


def _results(b: Machine) -> Array:
    xp = b.xp
    known = xp.reshape(b.asarray(np.array(OPERANDS), "float64"), (len(OPERANDS),))
    return xp.stack([xp.reshape(test(xp, known), ()) for _, test, _ in TESTS])


def _long_product(xp: Namespace, known: Array) -> Array:
    """The most terms of a float64 product, each with the largest quanta of its budget."""
    left = xp.zeros((1, LONG_TERMS), dtype=known.dtype, device=known.device) + (2.0**18 - 1.0)
    right = xp.zeros((LONG_TERMS, 1), dtype=known.dtype, device=known.device) + (2.0**19 - 1.0)
    return xp.matmul(left, right)


def _wide_product(xp: Namespace, known: Array) -> Array:
    """Two terms of the widest slices, 26 bits, and zeros, in a size for which libraries use their fast routine."""
    terms = xp.arange(SIDE, device=known.device)
    left = xp.where(terms < 2, known[WIDE_INDEX], 0.0)
    right = xp.where(terms == 1, known[WIDE_INDEX] - 1.0, left)
    rows = xp.zeros((SIDE, 1), dtype=known.dtype, device=known.device) + left
    columns = xp.zeros((1, SIDE), dtype=known.dtype, device=known.device) + right[:, None]
    return xp.max(xp.abs(xp.matmul(rows, columns) - WIDE_SLICE * (2.0 * WIDE_SLICE - 1.0)))


def _sum(xp: Namespace, known: Array) -> Array:
    """An odd number of whole numbers of 40 bits."""
    return xp.sum(xp.zeros(((1 << 13) - 1,), dtype=known.dtype, device=known.device) + (2.0**40 - 1.0))


def _quotients(xp: Namespace, known: Array) -> Array:
    """The number of whole numbers below `SIDE` whose seventh differs from the host's."""
    dividends = xp.astype(xp.arange(SIDE, device=known.device), known.dtype)
    return xp.sum(xp.astype(dividends / known[1] != known[-SIDE:], known.dtype))


WIDE_INDEX, WIDE_SLICE = 6, 2.0**26 - 1.0
TENTH, SEVEN, HALVES, SMALLEST_NORMAL, HALFWAY_DOWN = 0.1, 7.0, 2.5, 2.0**-126, 1.0 + 2.0**-24
HALFWAY_UP = 1.0 + 3.0 * 2.0**-24
OPERANDS = (
    *(TENTH, SEVEN, HALVES, SMALLEST_NORMAL, HALFWAY_DOWN, 2.0**52 + 1.0, WIDE_SLICE, HALFWAY_UP),
    *(dividend / SEVEN for dividend in range(SIDE)),
)
TESTS: tuple[tuple[str, Callable[[Namespace, Array], Array], float], ...] = (
    (
        "an exact float64 matrix product of whole numbers below 2**53",
        _long_product,
        LONG_TERMS * (2**18 - 1) * (2**19 - 1),
    ),
    ("an exact float64 matrix product of 26-bit numbers", _wide_product, 0.0),
    ("an exact float64 sum of whole numbers below 2**53", _sum, ((1 << 13) - 1) * (2**40 - 1)),
    ("correctly rounded float64 division", _quotients, 0.0),
    ("correctly rounded float64 products, not fused", lambda xp, k: (k[0] * k[0]) - 0.01, TENTH * TENTH - 0.01),
    ("rounding of halves to even", lambda xp, k: xp.round(k[2]), 2.0),
    ("float64 additions", lambda xp, k: k[0] + k[1], TENTH + SEVEN),
    ("casts to float32 that round to even", lambda xp, k: _cast(xp, k[4]), float(np.float32(HALFWAY_DOWN))),
    ("casts to float32 that round to even", lambda xp, k: _cast(xp, k[7]), float(np.float32(HALFWAY_UP))),
    ("casts of float64 to int64 and back", lambda xp, k: xp.astype(xp.astype(k[5], xp.int64), xp.float64), 2.0**52 + 1),
    ("normal float32 numbers down to 2**-126", lambda xp, k: _cast(xp, k[3]), SMALLEST_NORMAL),
)


def _cast(xp: Namespace, value: Array) -> Array:
    return xp.astype(xp.astype(value, xp.float32), xp.float64)
