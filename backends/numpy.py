"""NumPy: the host computes. The reference that the other backends are compared with."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import array_api_compat.numpy
import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..common.types import Array, Device, Namespace
from . import overrides
from .backend import Backend
from .contractions.windows import Windows
from .engines import numba as compiled_kernels
from .errors import BackendUnavailable
from .execution.blocks import even_slices
from .execution.workers import held, one_thread, workers
from .inputs import is_plain_numpy
from .primitives import Compiled, Primitives

# A matrix product with fewer multiplications than this takes the short way through OpenBLAS, which packs nothing and is
# up to twice as fast where the other two sizes are small.
SHORT = 1_000_000
# Bytes of an array that a worker goes through at a time: with less, threads wait for the interpreter between steps.
ELEMENTS = 1 << 20
# The same of each array of an update: smaller ones lose more to handing over the interpreter lock than to memory.
UPDATE = 1 << 19
# Multiplications in a worker's share of a matrix product: some 0.2 ms, where waking a worker takes up to 0.1 ms.
SHARE = 1 << 23


class NumpyPrimitives(Primitives):
    """Worker threads on blocks that stay in a core's cache, each with a matrix library on one thread."""

    block_bytes = 1 << 20
    views = True
    reads = True

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp)
        self._own = threading.local()
        # glibc returns large arrays to the system when they are freed, and each new one then costs a page fault for
        # every 4 kB; the size from which it does so grows with the largest one freed so far.
        np.empty((32 << 20) - 8192, np.uint8)

    @property
    def kernels(self) -> compiled_kernels.Kernels | None:
        return compiled_kernels.load()

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        if a.ndim == b.ndim == 2 and _never_threads(a, b):
            return np.matmul(a, b, out=out)
        rows = _short(b.shape, 32) if a.ndim == b.ndim == 2 and a.flags.c_contiguous and b.flags.c_contiguous else 0
        with one_thread:
            if not rows or len(a) < 2 * rows:
                return np.matmul(a, b, out=out)
            if out is None:
                out = np.empty((len(a), b.shape[1]), a.dtype)
            whole = len(a) // rows * rows
            np.matmul(a[:whole].reshape(-1, rows, a.shape[1]), b, out=out[:whole].reshape(-1, rows, b.shape[1]))
            if whole < len(a):
                np.matmul(a[whole:], b, out=out[whole:])
            return out

    def put_product(self, target: Array, index: tuple[slice | int, ...], a: Array, b: Array) -> None:
        self.matmul(a, b, target[index])

    def contract_rows(self, x: Array, dy: Array, out: Array | None = None) -> Array:
        rows = _short((x.shape[1], dy.shape[1]), 64) if x.flags.c_contiguous and dy.flags.c_contiguous else 0
        with one_thread:
            if not rows or len(x) < 2 * rows:
                return self.product(x.T, dy) if out is None else np.matmul(x.T, dy, out=out)
            whole = len(x) // rows * rows
            parts = self.workspace("sums of rows", (whole // rows, x.shape[1], dy.shape[1]), x)
            left = x[:whole].reshape(-1, rows, x.shape[1]).transpose(0, 2, 1)
            np.matmul(left, dy[:whole].reshape(-1, rows, dy.shape[1]), out=parts)
            total = np.sum(parts, axis=0, out=out)
            if whole < len(x):
                total += np.matmul(x[whole:].T, dy[whole:])
            return total

    def sum_rows(self, x: Array) -> Array:
        columns = x.shape[1]
        if x.size < ELEMENTS // 16 or not x.flags.c_contiguous:
            return np.sum(x, axis=0)
        # A product with ones goes through memory ten times faster than a sum over short rows, which are joined for it.
        joined = max(1, 512 // columns)
        blocks = even_slices(len(x) // joined, x.nbytes // (4 * ELEMENTS))
        parts = np.empty((len(blocks), 1, joined * columns), x.dtype)

        def work(i: int) -> None:
            rows = x[blocks[i].start * joined : blocks[i].stop * joined].reshape(-1, joined * columns)
            np.matmul(np.ones((1, len(rows)), x.dtype), rows, out=parts[i])

        self.parallel(len(blocks), work)
        total = parts.reshape(-1, columns).sum(axis=0)
        rest = x[len(x) // joined * joined :]
        return total + rest.sum(axis=0) if len(rest) else total

    def product(self, a: Array, b: Array) -> Array:
        rows, columns = a.shape[0], b.shape[1]
        shares = min(rows * columns * a.shape[1] // SHARE, 16)
        if shares < 2:
            return self.matmul(a, b)
        y = np.empty((rows, columns), a.dtype)
        # A power of two, to come out even on as many workers.
        slices = even_slices(max(rows, columns), 1 << shares.bit_length() - 1)

        def work(i: int) -> None:
            if rows > columns:
                np.matmul(a[slices[i]], b, out=y[slices[i]])
            else:
                np.matmul(a, b[:, slices[i]], out=y[:, slices[i]])

        self.parallel(len(slices), work)
        return y

    def windows(self, x: Array, windows: Windows) -> Array:
        spatial = x.strides[1:-1]
        apart = (s * n for s, n in zip(spatial, windows.stride, strict=True))
        within = (s * n for s, n in zip(spatial, windows.dilation, strict=True))
        return as_strided(
            x,
            shape=(x.shape[0], *windows.count, *windows.kernel, x.shape[-1]),
            strides=(x.strides[0], *apart, *within, x.strides[-1]),
            writeable=False,
        )

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        workers.run(n, work)

    def held(self) -> AbstractContextManager[None]:
        return held

    def workspace(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        kept: dict[Any, Array] = self._own.__dict__
        key, size = (name, like.dtype.char), prod(shape)
        if key not in kept or kept[key].size < size:
            kept[key] = np.empty(size, like.dtype)
        return kept[key][:size].reshape(shape)

    def elementwise(self, function: Callable[..., Array], x: Array, *others: Array) -> Array:
        if overrides.small(x.nbytes, 2 * ELEMENTS):
            return function(x, *others)
        y = np.empty_like(x, subok=False)
        arrays = _flat_views((x, *others, y))
        blocks = even_slices(len(arrays[0]), min(len(arrays[0]), x.nbytes // ELEMENTS))

        def work(i: int) -> None:
            *given, result = (array[blocks[i]] for array in arrays)
            result[...] = function(*given)

        self.parallel(len(blocks), work)
        return y

    def update(self, function: Callable[..., None], *arrays: Array, compiled: Compiled | None = None) -> None:
        if overrides.small(arrays[0].nbytes, 2 * UPDATE):
            function(*arrays)
            return
        flat = _flat_views(arrays)
        suits = flat[0].ndim == 1 and all(array.dtype == np.float32 for array in flat)
        kernels = self.kernels if compiled is not None and suits else None
        if compiled is not None and kernels is not None:
            function = compiled(kernels) or function
        blocks = even_slices(len(flat[0]), min(len(flat[0]), flat[0].nbytes // UPDATE))

        def work(i: int) -> None:
            function(*(array[blocks[i]] for array in flat))

        self.parallel(len(blocks), work)

    def positive(self, x: Array) -> Array:
        y = np.empty_like(x, subok=False)
        if overrides.small(x.nbytes, 2 * ELEMENTS):
            return _clip(x, y)
        source, result = _flat_views((x, y))
        blocks = even_slices(len(source), min(len(source), x.nbytes // ELEMENTS))
        kernels = self.kernels if source.ndim == 1 and x.dtype == np.float32 else None
        positive = _clip if kernels is None else kernels.positive
        self.parallel(len(blocks), lambda i: positive(source[blocks[i]], result[blocks[i]]))
        return y

    def clamp(self, x: Array, low: Any = None, high: Any = None) -> Array:
        # Both bounds at once take a quarter of the time of a minimum or maximum with one.
        return x.clip(-np.inf if low is None else low, np.inf if high is None else high)

    def shared(self, share: Array, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            product = share * x
        # The largest tells of NaN in a tenth of the time that a look at each entry takes.
        return super().shared(share, x) if product.size and np.isnan(np.max(product)) else product

    def select(self, mask: Array, x: Array) -> Array:
        return _select(mask, x, np.empty_like(x, subok=False))

    def below(self, x: Array, largest: Array) -> Array:
        return super().below(x, largest) if np.any(largest == np.inf) else x - largest

    def pick(self, x: Array, index: Array) -> Array:
        if x.ndim > 2:
            return np.take_along_axis(x, index, axis=1)
        return x[np.arange(len(x)), index[:, 0]][:, np.newaxis]

    def add_at(self, x: Array, index: Array, value: Array | float) -> Array:
        if x.ndim > 2:
            np.put_along_axis(x, index, np.take_along_axis(x, index, axis=1) + value, axis=1)
        else:
            x[np.arange(len(x)), index[:, 0]] += value[:, 0] if isinstance(value, np.ndarray) and value.ndim else value
        return x

    def gate(self, dy: Array, y: Array) -> Array:
        dx = np.empty_like(y, subok=False)
        if overrides.small(y.nbytes, 2 * ELEMENTS):
            return _gate(dy, y, dx)
        given, passed, result = _flat_views((dy, y, dx))
        kernels = self.kernels if result.ndim == 1 and dy.dtype == y.dtype == np.float32 else None
        gate = _gate if kernels is None else kernels.gate
        blocks = even_slices(len(result), min(len(result), y.nbytes // ELEMENTS))
        self.parallel(len(blocks), lambda i: gate(given[blocks[i]], passed[blocks[i]], result[blocks[i]]))
        return dx

    def memory_order(self, x: Array) -> tuple[int, ...] | None:
        order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
        return order if x.transpose(order).flags.c_contiguous else None

    def channel_rows(self, x: Array) -> Array | None:
        last = np.moveaxis(x, 1, -1)
        suits = x.size and last.flags.c_contiguous and not overrides.small(x.nbytes, ELEMENTS)
        return last.reshape(-1, x.shape[1]) if suits else None

    def flat(self, x: Array, shape: tuple[int, ...], name: str = "columns") -> Array:
        if x.flags.c_contiguous:
            return x.reshape(shape)
        flat = self.workspace(name, x.shape, x)
        np.copyto(flat, x)
        return flat.reshape(shape)


def _select(mask: Array, x: Array, out: Array) -> Array:
    """``x`` where the mask is true, else 0."""
    # The bits as integers, times 0 or 1: `where` branches, and takes ten times as long where the mask is random.
    whole = np.int32 if x.dtype.itemsize == 4 else np.int64
    np.multiply(x.view(whole), mask, out=out.view(whole))
    return out


def _gate(dy: Array, y: Array, out: Array) -> Array:
    """``dy`` where ``y > 0``, 0 where ``y <= 0``, and NaN where ``y`` is NaN."""
    _select(np.greater(y, 0.0), dy, out)
    # The largest tells of NaN in a twentieth of the time that a look at each entry takes.
    if y.size and np.isnan(np.max(y)):
        np.copyto(out, y, where=np.isnan(y))
    return out


def _clip(x: Array, out: Array) -> Array:
    """``max(x, 0)``: twice as fast as a maximum, but for -0, to which 0 is added."""
    np.clip(x, 0.0, np.inf, out=out)
    out += 0.0
    return out


def _short(sizes: tuple[int, int], least: int) -> int:
    """How many rows a product may have to take the short way; 0 if fewer than ``least``."""
    rows = min(256, (SHORT - 1) // max(1, sizes[0] * sizes[1]))
    return rows if rows >= least else 0


def _flat_views(arrays: tuple[Array, ...]) -> list[Array]:
    """Arrays of one shape as vectors if all lie in memory in the same order, else with their longest step first."""
    order = np.argsort([-step for step in arrays[0].strides], kind="stable")
    views = [array.transpose(order) for array in arrays]
    return [view.reshape(-1) for view in views] if all(view.flags.c_contiguous for view in views) else views


def _never_threads(a: Array, b: Array) -> bool:
    """Whether OpenBLAS computes the product of two matrices on one thread, however many it may use."""
    rows, columns = int(a.shape[0]), int(b.shape[1])
    return rows * columns * int(a.shape[1]) < (9216 if rows == 1 or columns == 1 else 262144)


class NumpyBackend(Backend):
    """The CPU, through NumPy and its BLAS."""

    primitives = NumpyPrimitives

    @classmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        if device not in (None, "cpu"):
            raise BackendUnavailable(f"numpy:{device}", "NumPy has one device, the CPU", 'write "numpy"')
        return "numpy", array_api_compat.numpy, "cpu"

    @classmethod
    def spec_of(cls, array: Array) -> str:
        return "numpy"

    @classmethod
    def version(cls) -> str:
        return np.__version__

    @classmethod
    def is_plain(cls, kind: type) -> bool:
        return is_plain_numpy(kind)

    def owns(self, array: Any) -> bool:
        return is_plain_numpy(type(array))

    def up(self, array: Array) -> Array:
        """As of `Backend`, and without what the array knows of a file."""
        return super().up(self.plain(array))

    def plain(self, array: Array) -> Array:
        return array.view(np.ndarray) if type(array) is np.memmap else array

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        return host

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def notes(self) -> str:
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"BLAS {blas['name']} {blas['version']}; {compiled_kernels.note()}"
