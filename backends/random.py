"""Random numbers that are the same bits on every backend.

A counter-based generator has no state to carry through arrays: block ``i`` of a stream is a hash of
``(key, i)``, so any device computes any part of it, in any order, from integer operations that no library
rounds. The hash is Threefry-2x32 with 20 rounds. Unsigned 32-bit arithmetic is not complete in every library
(PyTorch has no shifts for it), so words travel in int64 and are cut back to 32 bits.

Uniform numbers are a word scaled by a power of two, which is exact. Normal numbers come from the inverse of
the normal distribution, evaluated in float64 with ``+ - * /`` alone, one operation at a time: IEEE-754 fixes
each of these and every library keeps to it, while `log`, `cos` (Box and Muller's way) and, in PyTorch on a
CPU, even `sqrt` differ in the last bit from library to library.

References
----------
J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
M. J. Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37
(1988) 477-484.
"""

import hashlib
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..common import checks
from ..common.types import Array, DType, Namespace, dtype_name
from .backend import FLOATS, Backend
from .execution.blocks import concat_all
from .recording.guards import counted, require_repeatable
from .recording.slots import Slot
from .registry import BackendLike, get_backend

_MASK = 0xFFFFFFFF
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

# Blocks hashed at a time on a CPU: two int64 words and their temporaries stay in the L2 cache.
_CHUNK = 1 << 14


def threefry2x32(key: tuple[int, int], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Threefry-2x32-20: hash two 32-bit words of counter under two of key.

    ``counter`` holds Python integers or int64 arrays with values below 2**32; two of the same come back.
    The left word is cut to 32 bits once per injection only: it can't outgrow int64 in between.
    """
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    left, right = (counter[0] + schedule[0]) & _MASK, (counter[1] + schedule[1]) & _MASK
    for injection in range(1, 6):
        for rotation in _ROTATIONS[(injection - 1) % 2]:
            left = left + right
            right = (((right << rotation) | (right >> (32 - rotation))) ^ left) & _MASK
        left = (left + schedule[injection % 3]) & _MASK
        right = (right + schedule[(injection + 1) % 3] + injection) & _MASK
    return left, right


class Generator:
    """A stream of random numbers, given by its seed alone.

    Each draw goes on where the last one ended. `fold_in` derives an independent stream from a name or a
    number, so that what a layer draws does not depend on what was drawn before it.

    Parameters
    ----------
    seed : int
        Any integer from 0 to 2**64 - 1.

    Examples
    --------
    >>> generator = Generator(7).fold_in("weights")
    >>> generator.uniform((2, 3), backend="numpy").shape
    (2, 3)
    """

    def __init__(self, seed: int = 0) -> None:
        seed = checks.seed("seed", seed)
        self.key = (seed & _MASK, seed >> 32)
        self.position = 0

    def __repr__(self) -> str:
        return f"Generator({self.key[1] << 32 | self.key[0]})"

    def slots(self) -> Iterator[Slot]:
        """Its key, and its position, which a compiled step that draws moves on: see `Backend.compile`."""
        yield Slot.attribute(f"{self!r}.key", self, "key")
        yield Slot(
            f"{self!r}.position",
            (id(self), "position"),
            lambda: self.position,
            lambda value: setattr(self, "position", value),
            lambda: self,
        )

    def fold_in(self, name: str | int) -> "Generator":
        """A new generator that depends on this one's key and on ``name``, not on what was drawn."""
        if not isinstance(name, str) and not checks.is_integer(name):
            raise ValueError(f"name must be a string or an integer, got {checks.shown(name)}")
        text = (f"str:{name}" if isinstance(name, str) else f"int:{int(name)}").encode()
        digest = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
        left, right = threefry2x32(self.key, (digest & _MASK, digest >> 32))
        return Generator(right << 32 | left)

    def bits(self, shape: tuple[int, ...], backend: BackendLike | None = None) -> Array:
        """Words of 32 random bits, int64 in ``[0, 2**32)``."""
        b, shape = get_backend(backend), _shape(shape)
        words = prod(shape)
        with b.context():
            left, right = self._blocks(-(-words // 2), b)
            flat = b.xp.reshape(b.xp.stack([left, right], axis=-1), (2 * left.shape[0],))
            return b.xp.reshape(flat[:words], shape)

    def uniform(
        self,
        shape: tuple[int, ...],
        low: float = 0.0,
        high: float = 1.0,
        dtype: DType | str | None = None,
        backend: BackendLike | None = None,
    ) -> Array:
        """Uniform on ``[low, high)``, with 24 random bits in float32 and 53 in float64."""
        b, name = _where(backend, dtype)
        shape, low, high = _shape(shape), checks.number("low", low), checks.number("high", high)
        if high < low:
            raise ValueError(f"high must be a number >= low, {low!r}, got {high!r}")
        if not _computes(b, "int64", name):
            return b.asarray(self.uniform(shape, low, high, name, "numpy"))
        xp = b.xp
        with b.context():
            if name == "float64":
                unit = self._unit(shape, b)
            else:
                unit = xp.astype(self.bits(shape, b) >> 8, xp.float32) * 2.0**-24
            if (low, high) == (0.0, 1.0):
                return unit
            kind = np.dtype(name).type
            below = float(np.nextafter(kind(high), kind(low)))
            return xp.minimum(unit * (high - low) + low, below)

    def normal(
        self,
        shape: tuple[int, ...],
        mean: float = 0.0,
        std: float = 1.0,
        dtype: DType | str | None = None,
        backend: BackendLike | None = None,
    ) -> Array:
        """Normal with that mean and standard deviation, computed in float64 and rounded once."""
        b, name = _where(backend, dtype)
        shape, mean, std = _shape(shape), checks.number("mean", mean), checks.number("std", std, least=0)
        if not _computes(b, "int64", "float64"):
            return b.asarray(self.normal(shape, mean, std, name, "numpy"))
        with b.context():
            values = _normal_quantile(self._unit(shape, b) + 2.0**-54, b.xp) * std + mean
            return b.xp.astype(values, getattr(b.xp, name))

    def permutation(self, n: int) -> np.ndarray[Any, Any]:
        """A random order of ``0 .. n - 1``, on the host, where batches are put together."""
        high, low = self.bits((2, checks.integer("n", n, 0)), "numpy")
        return np.argsort((high << 31) | (low >> 1), stable=True)

    def _unit(self, shape: tuple[int, ...], b: Backend) -> Array:
        """float64 on ``[0, 1)`` in steps of 2**-53: every value is exact."""
        xp = b.xp
        with b.context():
            left, right = self._blocks(prod(shape), b)
            whole = xp.astype(left >> 5, xp.float64) * 2.0**26 + xp.astype(right >> 6, xp.float64)
            return xp.reshape(whole * 2.0**-53, shape)

    def _blocks(self, count: int, b: Backend) -> tuple[Array, Array]:
        """The next ``count`` blocks of the stream, two words each."""
        xp = b.xp
        place = None if b.is_host else counted(self)
        if place is None:
            require_repeatable(
                "random numbers from a stream that it was not given, or on the host: each replay would have the same"
            )
        first, self.position = self.position, self.position + count
        if place is not None:
            # Where a step begins in the stream is the device's to know, how far it has come since then is not.
            start, known = place
            index = xp.arange(first - known, first - known + count, dtype=xp.int64, device=b.device) + start
            return threefry2x32(self.key, (index & _MASK, index >> 32))
        chunk = _CHUNK if b.is_host else max(count, 1)
        parts = []
        for start in range(0, max(count, 1), chunk):
            stop = min(start + chunk, count)
            index = xp.arange(first + start, first + stop, dtype=xp.int64, device=b.device)
            parts.append(threefry2x32(self.key, (index & _MASK, index >> 32)))
        if len(parts) == 1:
            return parts[0]
        left, right = zip(*parts, strict=True)
        return concat_all(left, 0, xp), concat_all(right, 0, xp)


def _where(backend: BackendLike | None, dtype: DType | str | None) -> tuple[Backend, str]:
    b = get_backend(backend)
    name = b.dtype_name if dtype is None else dtype_name(dtype)
    if name not in FLOATS:
        raise TypeError(f"dtype must be {checks.alternatives(FLOATS)}, got {name}")
    return b, name


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return checks.shape("shape", shape, empty=True)


def _computes(b: Backend, *dtypes: str) -> bool:
    """Whether the device has these dtypes; where it has not, the host draws."""
    return all(map(b.has, dtypes))


# Coefficients of AS 241, routine PPND16, numerator and denominator, highest power first.
_CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
_MIDDLE = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
_TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)


def _normal_quantile(p: Array, xp: Namespace) -> Array:
    """Inverse of the standard normal distribution for ``0 < p < 1`` in float64 (AS 241)."""
    q = p - 0.5
    centre = q * _ratio(_CENTRE, 0.180625 - q * q)
    smaller = xp.minimum(p, 1.0 - p)
    r = _sqrt(-_log(smaller, xp))
    outer = xp.where(r <= 5.0, _ratio(_MIDDLE, r - 1.6), _ratio(_TAIL, r - 5.0))
    outer = xp.where(q < 0.0, -outer, outer)
    return xp.where(xp.abs(q) <= 0.425, centre, outer)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], r: Array) -> Array:
    numerator, denominator = coefficients
    above, below = r * numerator[0] + numerator[1], r * denominator[0] + denominator[1]
    for a, b in zip(numerator[2:], denominator[2:], strict=True):
        above, below = above * r + a, below * r + b
    return above / below


def _sqrt(a: Array) -> Array:
    """Square root for ``0.6 < a < 45`` by Heron's iteration from a linear guess, which is within 60%."""
    root = a * 0.14 + 1.2
    for _ in range(6):
        root = (root + a / root) * 0.5
    return root


def _log(p: Array, xp: Namespace) -> Array:
    """Natural logarithm for ``2**-64 < p <= 0.5``, from exact and IEEE-fixed steps only.

    ``p`` is brought to ``[1, 2)`` by multiplying with powers of two (exact); then ``log m = 2 artanh((m-1)/(m+1))``,
    whose odd series at ``|s| <= 1/3`` reaches float64 with 16 terms.
    """
    exponent = xp.zeros_like(p)
    for step in (32, 16, 8, 4, 2, 1):
        small = p < 2.0 ** (1 - step)
        p = xp.where(small, p * 2.0**step, p)
        exponent = xp.where(small, exponent - step, exponent)
    small = p < 1.0
    p = xp.where(small, p * 2.0, p)
    exponent = xp.where(small, exponent - 1.0, exponent)
    s = (p - 1.0) / (p + 1.0)
    square = s * s
    series = square * (1.0 / 33.0) + 1.0 / 31.0
    for odd in range(29, 0, -2):
        series = series * square + 1.0 / odd
    return s * series * 2.0 + exponent * 0.6931471805599453
