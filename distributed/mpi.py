"""MPI, by mpi4py: reductions and broadcasts of NumPy buffers, and of CuPy's.

MPI reads and writes the memory of NumPy arrays directly. It does so for device memory too if it is CUDA-aware;
otherwise such a buffer is copied to pinned host memory and back.
"""

import atexit
import ctypes
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from .communicator import Exchange, Reduction

INSTALL = "pip install 'mpi4py>=4', beside the MPI of your cluster or the package mpich"
# Set by MPI's own launchers in the processes that they start.
_LAUNCHED = ("PMI_RANK", "PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def is_launched() -> bool:
    """Whether this process was started by ``mpiexec``, or by another launcher of MPI programs."""
    return any(name in os.environ for name in _LAUNCHED)


def is_installed() -> bool:
    """Whether the package mpi4py can be found; it is not imported."""
    return find_spec("mpi4py") is not None


@cache
def library() -> Any:
    """``mpi4py.MPI``; importing it starts MPI.

    Raises
    ------
    ModuleNotFoundError, RuntimeError
        If mpi4py is not installed, or its MPI library can't be loaded.
    """
    try:
        import mpi4py
    except ImportError as error:
        raise ModuleNotFoundError(f"nn.distributed needs mpi4py for MPI: {INSTALL}") from error
    # At the end of a failed program MPI would wait for the other ranks: such a program ends before `_end` is called.
    mpi4py.rc.finalize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(f"mpi4py is installed, but no MPI library can be loaded ({error}); {INSTALL}") from error
    atexit.register(_end, MPI)
    return MPI


def abandon() -> None:
    """Let the program end without MPI, which would wait for ranks that wait for this one."""
    atexit.unregister(_end)


def _end(mpi: Any) -> None:
    """End MPI with the program; until then the program and other groups may use it."""
    if mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


def description() -> str:
    """The MPI library's name and version, such as ``MPICH 5.0.2``, and whether it is CUDA-aware; starts MPI."""
    mpi = library()
    name, version = mpi.get_vendor()
    aware = "reads device memory" if is_cuda_aware() else "not CUDA-aware: device memory is copied through the host"
    return f"{name} {'.'.join(map(str, version))} ({aware})"


@cache
def is_cuda_aware() -> bool:
    """Whether the MPI library says that it accepts pointers to device memory."""
    if os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1":
        # Cray's MPICH.
        return True
    try:
        query = ctypes.CDLL(library().__file__).MPIX_Query_cuda_support
    except (OSError, AttributeError):
        return False
    return bool(query())


class MPICommunicator:
    """The processes that ``mpiexec`` started."""

    def __init__(self) -> None:
        self._mpi = library()
        # A communicator of its own keeps its messages apart from those of the program.
        self._world = self._mpi.COMM_WORLD.Dup()
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        self.description = f"MPI ({description()})"
        self._ops = {"sum": self._mpi.SUM, "max": self._mpi.MAX}

    def all_reduce(self, buffer: Any, op: Reduction) -> Exchange:
        """See `Communicator.all_reduce`."""
        return self._exchange(buffer, lambda each: self._world.Iallreduce(self._mpi.IN_PLACE, each, self._ops[op]))

    def broadcast(self, buffer: Any, root: int) -> Exchange:
        """See `Communicator.broadcast`."""
        return self._exchange(buffer, lambda each: self._world.Ibcast(each, root))

    def _exchange(self, buffer: Any, start: Callable[[Any], Any]) -> Exchange:
        if isinstance(buffer, np.ndarray):
            yield from _completed(start(buffer))
            return
        from .staging import DeviceBuffer, Staged

        if is_cuda_aware():
            yield from DeviceBuffer(buffer).finished(has_started=False)
            yield from _completed(start(buffer))
            return
        staged = Staged(buffer)
        yield from staged.finished(has_started=False)
        yield from _completed(start(staged.host))
        staged.copy_back()
        yield from staged.finished(has_started=True)

    def close(self, *, failed: bool) -> None:
        """Free the communicator, unless a rank failed: then other ranks may never arrive."""
        if not failed and not self._mpi.Is_finalized():
            self._world.Free()


def _completed(request: Any) -> Exchange:
    while not request.Test():
        yield True
