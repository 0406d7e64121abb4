"""A stream of random numbers that has the same bits on every backend.

A counter-based generator has no state in arrays: block ``i`` of a stream is a hash of ``(key, i)``, so any device
computes any part of it in any order. Uniform numbers are a word of the hash scaled by a power of two, which is exact.
Normal numbers are the inverse of the normal distribution at uniform ones.
"""

import hashlib
from collections.abc import Iterator
from math import ceil, prod
from typing import Any

import numpy as np

from ...common import checks
from ...common.types import Array, DType, dtype_name
from ..backend import FLOATS, Backend
from ..execution.blocks import concat_all
from ..lookup import operations_of
from ..recording.guards import counted, require_repeatable
from ..recording.slots import Slot
from ..registry import BackendLike, get_backend
from .normal_quantile import normal_quantile
from .threefry import MASK, threefry2x32

# Blocks hashed at a time on a CPU, so that two int64 words and their temporaries stay in the L2 cache.
_CHUNK = 1 << 14


class Generator:
    """A stream of random numbers that depends only on its seed.

    Each draw continues where the last one ended. `fold_in` derives an independent stream from a name or a number, so
    that the numbers of a layer do not depend on what was drawn before.

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
        self.key = (seed & MASK, seed >> 32)
        self.position = 0

    def __repr__(self) -> str:
        return f"Generator({self.key[1] << 32 | self.key[0]})"

    def slots(self) -> Iterator[Slot]:
        """Its key and its position, which a compiled step that draws changes: see `Backend.compile`."""
        yield Slot.attribute(f"{self!r}.key", self, "key")
        yield Slot(
            f"{self!r}.position",
            (id(self), "position"),
            lambda: self.position,
            lambda value: setattr(self, "position", value),
            lambda: self,
        )

    def fold_in(self, name: str | int) -> "Generator":
        """A new generator that depends on this one's key and on ``name``, but not on previous draws."""
        if not isinstance(name, str) and not checks.is_integer(name):
            raise ValueError(f"name must be a string or an integer, got {checks.shown(name)}")
        text = (f"str:{name}" if isinstance(name, str) else f"int:{int(name)}").encode()
        digest = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
        left, right = threefry2x32(self.key, (digest & MASK, digest >> 32))
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
        xp, prepared = b.xp, _prepared(b, name)
        with b.context():
            if prepared is not None:
                blocks = prod(shape) if name == "float64" else -(-prod(shape) // 2)
                unit = prepared.uniform(self.key, *self._advance(blocks), shape, name)
            elif name == "float64":
                unit = self._unit(shape, b)
            else:
                unit = xp.astype(self.bits(shape, b) >> 8, xp.float32) * 2.0**-24
            if (low, high) == (0.0, 1.0):
                return unit
            kind = np.dtype(name).type
            below = float(np.nextafter(kind(high), kind(low)))
            return xp.minimum(unit * (high - low) + low, below)

    def at_least(self, shape: tuple[int, ...], p: float, backend: BackendLike | None = None) -> Array:
        """Booleans, each whether a float32 number of `uniform` is at least ``p``, from 0 to 1."""
        b, shape = get_backend(backend), _shape(shape)
        # A multiple of 2**-24, exact in float32 and float64, so that the comparison is the same in every library.
        least = ceil(checks.number("p", p, least=0.0, most=1.0) * 2.0**24)
        prepared = _prepared(b, "float32")
        if prepared is None:
            return self.uniform(shape, dtype="float32", backend=b) >= least * 2.0**-24
        found: Array = prepared.at_least(self.key, *self._advance(-(-prod(shape) // 2)), shape, least)
        return found

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
        prepared = _prepared(b, name)
        if prepared is not None:
            found: Array = prepared.normal(self.key, *self._advance(prod(shape)), shape, name, mean, std)
            return found
        with b.context():
            values = normal_quantile(self._unit(shape, b) + 2.0**-54, b.xp) * std + mean
            return b.xp.astype(values, getattr(b.xp, name))

    def permutation(self, n: int) -> np.ndarray[Any, Any]:
        """A random order of ``0 .. n - 1``, on the host, where batches are selected."""
        high, low = self.bits((2, checks.integer("n", n, 0)), "numpy")
        return np.argsort((high << 31) | (low >> 1), stable=True)

    def _unit(self, shape: tuple[int, ...], b: Backend) -> Array:
        """float64 on ``[0, 1)`` in steps of 2**-53: every value is exact."""
        xp = b.xp
        with b.context():
            left, right = self._blocks(prod(shape), b)
            whole = xp.astype(left >> 5, xp.float64) * 2.0**26 + xp.astype(right >> 6, xp.float64)
            return xp.reshape(whole * 2.0**-53, shape)

    def _advance(self, count: int) -> tuple[Array, int]:
        """Draw ``count`` blocks: an array on the host with a position, and how far from there they begin."""
        found = counted(self)
        if found is None:
            require_repeatable(
                "random numbers from a stream that it was not given, or on the host: each replay would have the same"
            )
        first, self.position = self.position, self.position + count
        if found is None:
            return np.array([first], np.int64), 0
        start, known = found
        return start.reshape(1), first - known

    def _blocks(self, count: int, b: Backend) -> tuple[Array, Array]:
        """The next ``count`` blocks of the stream, two words each."""
        xp = b.xp
        count_on_device = counted(self)
        if count_on_device is None or not b.owns(count_on_device[0]):
            count_on_device = None
            require_repeatable(
                "random numbers from a stream that it was not given, or on the host: each replay would have the same"
            )
        first, self.position = self.position, self.position + count
        # The device has the position at which the step began; how far the step has drawn since then is known here.
        begun, known = count_on_device or (None, 0)
        chunk = _CHUNK if b.is_host else max(count, 1)
        parts = []
        for start in range(0, max(count, 1), chunk):
            stop = min(start + chunk, count)
            index = xp.arange(first - known + start, first - known + stop, dtype=xp.int64, device=b.device)
            index = index if begun is None else index + begun
            parts.append(threefry2x32(self.key, (index & MASK, index >> 32)))
        if len(parts) == 1:
            return parts[0]
        left, right = zip(*parts, strict=True)
        return concat_all(left, 0, xp), concat_all(right, 0, xp)


def _prepared(b: Backend, dtype: str) -> Any:
    """An engine's draws on that backend; None if array functions must compute them."""
    return operations_of(b.xp).prepare("random numbers", None, dtype) if b.spec == "numpy" else None


def _where(backend: BackendLike | None, dtype: DType | str | None) -> tuple[Backend, str]:
    b = get_backend(backend)
    name = b.dtype_name if dtype is None else dtype_name(dtype)
    if name not in FLOATS:
        raise TypeError(f"dtype must be {checks.alternatives(FLOATS)}, got {name}")
    return b, name


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return checks.shape("shape", shape, empty=True)


def _computes(b: Backend, *dtypes: str) -> bool:
    """Whether the device has these dtypes; if not, the host draws."""
    return all(map(b.has, dtypes))
