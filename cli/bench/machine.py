"""The machine on which a benchmark runs: description, and its best speed of a matrix product and of a copy."""

import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import numpy as np

from ...backends import Backend, get_backend
from ...backends.execution.thread_count import thread_count
from ...common.cores import available_cores
from ...common.processor import processor_name
from .pytorch import PyTorch

# Rows of the square matrices that are multiplied, and float32 numbers that are copied.
ORDER = 2048
COPIED = 1 << 25
TRIES = 7


def describe_machine(backend: Backend, pytorch: PyTorch | None = None) -> dict[str, Any]:
    """Processor, memory, versions and settings."""
    torch = None
    if pytorch is not None:
        torch = f"{pytorch.torch.__version__} on {pytorch.device}, eager, {pytorch.torch.get_num_threads()} threads"
    return {
        "backend": f"{backend.spec} {backend.version()} ({backend.notes()})",
        "numerics": backend.numerics,
        "processor": processor_name(),
        "cores": available_cores(),
        "threads": thread_count(),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": f"{np.__version__}, {get_backend('numpy').notes()}",
        "torch": torch,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def measure_limits(backend: Backend, count: int) -> dict[str, float]:
    """The best of several tries at a matrix product, in GFLOP/s, and at a copy, in GB/s read and written."""
    xp = backend.xp
    a = backend.asarray(np.random.default_rng(0).random((ORDER, ORDER), dtype=np.float32))
    with backend.context(), ThreadPoolExecutor(count) as pool:
        product = _best(lambda: xp.matmul(a, a), backend)
        copy = _best(_copy(backend, count, pool), backend)
    return {
        "gemm_gflops": round(2 * ORDER**3 / product * 1e-9, 1),
        "copy_gb_per_s": round(2 * 4 * COPIED / copy * 1e-9, 1),
    }


def _best(call: Callable[[], object], backend: Backend) -> float:
    """Seconds of the fastest call."""
    fastest = float("inf")
    for _ in range(TRIES):
        started = perf_counter()
        call()
        backend.synchronize()
        fastest = min(fastest, perf_counter() - started)
    return fastest


def _copy(backend: Backend, count: int, pool: ThreadPoolExecutor) -> Callable[[], object]:
    """A call that copies an array: on the host into existing memory, with a part for each thread."""
    if backend.spec != "numpy":
        source = backend.xp.ones(COPIED, dtype=backend.xp.float32, device=backend.device)
        return lambda: backend.xp.asarray(source, copy=True)
    parts = [(np.zeros(COPIED // count, np.float32), np.ones(COPIED // count, np.float32)) for _ in range(count)]
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def memory() -> str | None:
    """The machine's memory."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return None
