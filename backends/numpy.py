"""NumPy: the host computes. The reference that the other backends are compared with."""

import threading
from collections.abc import Callable
from math import prod
from typing import Any

import array_api_compat.numpy
import numpy as np
from numpy.lib.stride_tricks import as_strided

from .backend import Backend
from .blocks import even_slices
from .errors import BackendUnavailable
from .primitives import Primitives
from .types import Array, Device, Namespace
from .windows import Windows
from .workers import one_thread, workers

# Bytes of an array that a worker goes through at a time.
ELEMENTS = 1 << 18


class NumpyPrimitives(Primitives):
    """Worker threads on blocks that stay in a core's cache, each with a matrix library on one thread."""

    block_bytes = 1 << 20

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp)
        self._own = threading.local()
        # glibc returns large arrays to the system when they are freed, and each new one then costs a page fault for
        # every 4 kB; the size from which it does so grows with the largest one freed so far.
        np.empty((32 << 20) - 8192, np.uint8)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        with one_thread:
            return np.matmul(a, b, out=out)

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

    def workspace(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        kept = self._own.__dict__
        key, size = (name, like.dtype.char), prod(shape)
        if key not in kept or kept[key].size < size:
            kept[key] = np.empty(size, like.dtype)
        return kept[key][:size].reshape(shape)

    def elementwise(self, function: Callable[..., Array], x: Array, *others: Array) -> Array:
        if x.nbytes < 2 * ELEMENTS or len(x) < 2:
            return function(x, *others)
        y = np.empty_like(x)
        blocks = even_slices(len(x), min(len(x), x.nbytes // ELEMENTS))

        def work(i: int) -> None:
            block = blocks[i]
            y[block] = function(x[block], *(other[block] for other in others))

        self.parallel(len(blocks), work)
        return y

    def flat(self, x: Array, shape: tuple[int, ...]) -> Array:
        if x.flags.c_contiguous:
            return x.reshape(shape)
        flat = self.workspace("columns", x.shape, x)
        np.copyto(flat, x)
        return flat.reshape(shape)


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

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray | np.generic)

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        return host

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def notes(self) -> str:
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"BLAS {blas['name']} {blas['version']}"
