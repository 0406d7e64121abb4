"""What exact numerics relies on, tried out on the device before anything is promised.

IEEE-754 float64 arithmetic, casts and rounding one array operation at a time, and a float64 matrix product that is
exact while all partial sums are whole numbers below 2**53. A GPU library may emulate float64 products with fewer bits
(cuBLAS, by an environment variable); a device may compute float64 in float32, or count on fused operations between
array operations. All results are fetched in one transfer.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...common.types import Array, Namespace
from ..errors import BackendUnavailable

# Odd, as are all factors below: then the results have all 53 bits, and a lost one shows.
TERMS = (1 << 16) - 1
SIDE = 128  # of a square product


class Machine(Protocol):
    """What is tried: a backend, before its namespace is the exact one."""

    @property
    def spec(self) -> str:
        """Its name."""

    @property
    def xp(self) -> Namespace:
        """The library's own namespace."""

    def has(self, dtype: str) -> bool:
        """Whether the device computes with a dtype of that name."""

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        """Host data as an array of the device."""

    def to_numpy(self, array: Array) -> Any:
        """An array of the device on the host."""


def require_exact(b: Machine) -> None:
    """Raise `BackendUnavailable` unless the device keeps to what exact numerics relies on."""
    if not (b.has("float64") and b.has("int64")):
        raise BackendUnavailable(
            b.spec, "numerics='exact' computes in float64 and int64, which this device lacks", "use numerics='fast'"
        )
    found = np.asarray(b.to_numpy(_answers(b)))
    for (name, _, expected), answer in zip(QUESTIONS, found, strict=True):
        if answer != expected:
            raise BackendUnavailable(
                b.spec,
                f"numerics='exact' relies on {name}, which this device does not keep ({answer!r} for {expected!r})",
                "unset variables such as CUBLAS_EMULATE_DOUBLE_PRECISION and fast-math options, or use numerics='fast'",
            )


def _answers(b: Machine) -> Array:
    xp = b.xp
    known = xp.reshape(b.asarray(np.array(OPERANDS), "float64"), (len(OPERANDS),))
    return xp.stack([xp.reshape(question(xp, known), ()) for _, question, _ in QUESTIONS])


def _long_product(xp: Namespace, known: Array) -> Array:
    """As many terms as a budget lets into a sum, each with its largest quanta."""
    left = xp.zeros((1, TERMS), dtype=known.dtype, device=known.device) + (2.0**18 - 1.0)
    right = xp.zeros((TERMS, 1), dtype=known.dtype, device=known.device) + (2.0**19 - 1.0)
    return xp.matmul(left, right)


def _wide_product(xp: Namespace, known: Array) -> Array:
    """The widest slices, of 26 bits, two terms and zeros; of a size for which libraries take their fast routine."""
    terms = xp.arange(SIDE, device=known.device)
    left = xp.where(terms < 2, known[WIDEST], 0.0)
    right = xp.where(terms == 1, known[WIDEST] - 1.0, left)
    rows = xp.zeros((SIDE, 1), dtype=known.dtype, device=known.device) + left
    columns = xp.zeros((1, SIDE), dtype=known.dtype, device=known.device) + right[:, None]
    return xp.max(xp.abs(xp.matmul(rows, columns) - WIDE * (2.0 * WIDE - 1.0)))


def _sum(xp: Namespace, known: Array) -> Array:
    """An odd number of whole numbers of 40 bits."""
    return xp.sum(xp.zeros(((1 << 13) - 1,), dtype=known.dtype, device=known.device) + (2.0**40 - 1.0))


def _quotients(xp: Namespace, known: Array) -> Array:
    """How many of the first whole numbers give another seventh than on the host."""
    dividends = xp.astype(xp.arange(SIDE, device=known.device), known.dtype)
    return xp.sum(xp.astype(dividends / known[1] != known[-SIDE:], known.dtype))


WIDEST, WIDE = 6, 2.0**26 - 1.0
THIRD, SEVENTH, HALVES, TINY, NARROW = 0.1, 7.0, 2.5, 2.0**-126, 1.0 + 2.0**-24
UPWARDS = 1.0 + 3.0 * 2.0**-24
OPERANDS = (
    *(THIRD, SEVENTH, HALVES, TINY, NARROW, 2.0**52 + 1.0, WIDE, UPWARDS),
    *(dividend / SEVENTH for dividend in range(SIDE)),
)
QUESTIONS: tuple[tuple[str, Callable[[Namespace, Array], Array], float], ...] = (
    ("an exact float64 matrix product of whole numbers below 2**53", _long_product, TERMS * (2**18 - 1) * (2**19 - 1)),
    ("an exact float64 matrix product of 26-bit numbers", _wide_product, 0.0),
    ("an exact float64 sum of whole numbers below 2**53", _sum, ((1 << 13) - 1) * (2**40 - 1)),
    ("correctly rounded float64 division", _quotients, 0.0),
    ("correctly rounded float64 products, not fused", lambda xp, k: (k[0] * k[0]) - 0.01, THIRD * THIRD - 0.01),
    ("rounding of halves to even", lambda xp, k: xp.round(k[2]), 2.0),
    ("float64 additions", lambda xp, k: k[0] + k[1], THIRD + SEVENTH),
    ("casts to float32 that round to even", lambda xp, k: _cast(xp, k[4]), float(np.float32(NARROW))),
    ("casts to float32 that round to even", lambda xp, k: _cast(xp, k[7]), float(np.float32(UPWARDS))),
    ("casts of float64 to int64 and back", lambda xp, k: xp.astype(xp.astype(k[5], xp.int64), xp.float64), 2.0**52 + 1),
    ("normal float32 numbers down to 2**-126", lambda xp, k: _cast(xp, k[3]), TINY),
)


def _cast(xp: Namespace, value: Array) -> Array:
    return xp.astype(xp.astype(value, xp.float32), xp.float64)
