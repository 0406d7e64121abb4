"""Execution for NumPy: worker threads, workspaces of each thread, memory layout by strides."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import numpy as np

from ...common.types import Array, Namespace
from .. import overrides
from ..engines import numba
from ..execution.execution import Execution
from ..execution.one_blas_thread import setup_once
from ..execution.workers import workers
from ..recording.calls import current

# Bytes of an array that a worker computes at a time. With fewer, threads wait for the interpreter lock between steps.
CHUNK_BYTES = 1 << 20


class NumpyExecution(Execution):
    """Worker threads on blocks that stay in a core's cache."""

    block_bytes = 1 << 20
    views = True
    cheap_reads = True

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp)
        self._workspaces = threading.local()
        # glibc returns a freed array to the system above a size that grows with the largest array freed so far, and
        # each new array then costs a page fault for every 4 kB. This raises that size.
        np.empty((32 << 20) - 8192, np.uint8)

    def prepare(self, operation: str, problem: Any, dtype: str) -> Any:
        return numba.prepare(operation, problem, dtype)

    def find_kernels(self) -> str:
        return "numba" if numba.used() else ""

    def parallel(self, n: int, work: Callable[[int], None]) -> None:
        tape = current()
        if tape is None:
            workers.run(n, work)
        else:
            tape.parallel(n, work)

    def setup_once(self) -> AbstractContextManager[None]:
        return setup_once

    def workspace(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        tape = current()
        if tape is not None:
            return tape.new(shape, like.dtype)
        arrays: dict[Any, Array] = self._workspaces.__dict__
        key, size = (name, like.dtype.char), prod(shape)
        if key not in arrays or arrays[key].size < size:
            arrays[key] = np.empty(size, like.dtype)
        return arrays[key][:size].reshape(shape)

    def free_workspaces(self) -> None:
        # Arrays in use stay alive; each thread makes its next ones anew.
        self._workspaces = threading.local()

    def flat(self, x: Array, shape: tuple[int, ...], name: str = "columns") -> Array:
        if x.flags.c_contiguous:
            return x.reshape(shape)
        flat = self.workspace(name, x.shape, x)
        np.copyto(flat, x)
        return flat.reshape(shape)

    def memory_order(self, x: Array) -> tuple[int, ...] | None:
        order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
        return order if x.transpose(order).flags.c_contiguous else None

    def channel_rows(self, x: Array) -> Array | None:
        last = np.moveaxis(x, 1, -1)
        suits = x.size and last.flags.c_contiguous and not overrides.is_small(x.nbytes, CHUNK_BYTES)
        return last.reshape(-1, x.shape[1]) if suits else None
