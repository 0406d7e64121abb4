"""NCCL, by CuPy: reductions and broadcasts of device memory, one process for each GPU.

NCCL works on a stream of its own, beside the computation: it begins when the stream of the computation has filled a
buffer, and that stream waits, when the result is wanted, without the host. `cupyx.distributed` starts it; the
identifier by which the processes find each other goes through MPI, or through its server at the address of rank 0.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .communicator import Exchange, Reduction

#: Set by torchrun and other launchers: who this process is, of how many, and where rank 0 can be reached.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Whether the environment has all variables that ``torchrun`` sets."""
    return all(name in os.environ for name in ENVIRONMENT)


def missing() -> str | None:
    """Why NCCL can't be used; None if it can."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return "CuPy is not installed: pip install 'xpnn[cupy]'"
    if not nccl.available:
        return "CuPy finds no NCCL library: pip install nvidia-nccl-cu13, or nvidia-nccl-cu12 for CUDA 12"
    return None


class NCCLCommunicator:
    """The processes of a group, each with a GPU.

    Parameters
    ----------
    rank, size : int
    address : tuple of str and int, optional
        Where rank 0 can be reached; through MPI unless given.
    """

    def __init__(self, rank: int, size: int, address: tuple[str, int] | None = None) -> None:
        import cupy
        from cupyx.distributed import init_process_group

        self._cupy = cupy
        self.rank, self.size = rank, size
        host, port = address or (None, None)
        self._backend = init_process_group(size, rank, host=host, port=port, use_mpi=address is None)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        version = cupy.cuda.nccl.get_version()
        self.description = f"NCCL {version // 10000}.{version // 100 % 100}.{version % 100}"

    def all_reduce(self, buffer: Any, op: Reduction) -> Exchange:
        """See `Communicator.all_reduce`."""
        return self._exchange(buffer, lambda each: self._backend.all_reduce(each, each, op, self._stream))

    def broadcast(self, buffer: Any, root: int) -> Exchange:
        """See `Communicator.broadcast`."""
        return self._exchange(buffer, lambda each: self._backend.broadcast(each, root, self._stream))

    def _exchange(self, buffer: Any, start: Callable[[Any], None]) -> Exchange:
        cuda, on_host = self._cupy.cuda, isinstance(buffer, np.ndarray)
        if not buffer.size:
            return
        device = self._cupy.asarray(buffer) if on_host else buffer
        computing = cuda.get_current_stream()
        filled, done = (cuda.Event(disable_timing=True) for _ in range(2))
        filled.record(computing)
        self._stream.wait_event(filled)
        start(device)
        done.record(self._stream)
        wanted = False
        while not done.done and (on_host or not wanted):
            wanted = yield True
        computing.wait_event(done)
        if on_host:
            buffer[...] = device.get()

    def close(self, *, failed: bool) -> None:
        """End NCCL, unless a rank failed: then other ranks may never arrive."""
        if not failed:
            self._stream.synchronize()
            self._backend.stop()
