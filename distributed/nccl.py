"""NCCL, by CuPy: reductions and broadcasts of device memory, one process for each GPU.

NCCL works on a stream of its own, beside the computation: it begins when the stream of the computation has filled a
buffer. Where the result is wanted the host waits for it, by looking again and again: a host that waited within CUDA
could not raise the error of a rank that fails. The identifier by which the processes find each other goes through MPI,
or by TCP to the address of rank 0; see `rendezvous`.
"""

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .communicator import Communicator, Exchange, Reduction
from .group import Group
from .rendezvous import identifier_of_root

#: Set by torchrun and other launchers: who this process is, of how many, and where rank 0 can be reached.
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Seconds between an error of NCCL, such as a lost connection, and the end, unless the group says first who failed.
PATIENCE = 5.0
# cudaErrorNotReady, which CuPy returns as a number.
_NOT_READY = 600


def is_launched() -> bool:
    """Whether the environment has all variables that ``torchrun`` sets."""
    return all(name in os.environ for name in ENVIRONMENT)


def missing() -> str | None:
    """Why NCCL can't be used; None if it can."""
    try:
        with warnings.catch_warnings():
            # CuPy warns that there is no NCCL library.
            warnings.simplefilter("ignore")
            from cupy.cuda import nccl, runtime
    except ImportError:
        return "CuPy is not installed: pip install 'cupy-cuda13x[ctk]>=14'"
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return f"CuPy finds no GPU: {error}"
    if not count:
        return "CuPy finds no GPU"
    if not nccl.available:
        return "CuPy finds no NCCL library: pip install 'nvidia-nccl-cu13>=2.27', or nvidia-nccl-cu12 for CUDA 12"
    return None


class NCCLCommunicator:
    """The processes of a group, each with a GPU, which is this thread's current device.

    Parameters
    ----------
    rank, size : int
    address : tuple of str and int, optional
        Where rank 0 can be reached.
    world : Communicator, optional
        What connects the processes already, without an address; it is closed with this one.

    Raises
    ------
    RuntimeError
        If the processes can't reach each other, or NCCL can't connect them.
    """

    def __init__(
        self, rank: int, size: int, address: tuple[str, int] | None = None, world: Communicator | None = None
    ) -> None:
        import cupy
        from cupy.cuda import nccl

        self._cupy, self._world = cupy, world
        self.rank, self.size = rank, size
        self._device = cupy.cuda.Device()
        if world is not None:
            identifier = Group(world).of_root(bytes(nccl.get_unique_id()) if rank == 0 else None)
        else:
            assert address is not None
            identifier = identifier_of_root(rank, size, address, nccl.get_unique_id)
        try:
            self._comm = nccl.NcclCommunicator(size, identifier, rank)
        except nccl.NcclError as error:
            raise RuntimeError(
                f"rank {rank}: NCCL can't connect the ranks ({error}): each process needs a GPU of its own, and the "
                "machines a network between them; with NCCL_DEBUG=WARN in the environment NCCL says more"
            ) from error
        self._error: type[Exception] = nccl.NcclError
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._ops = {"sum": nccl.NCCL_SUM, "max": nccl.NCCL_MAX}
        self._dtypes = {
            "float32": nccl.NCCL_FLOAT32,
            "float64": nccl.NCCL_FLOAT64,
            "int32": nccl.NCCL_INT32,
            "int64": nccl.NCCL_INT64,
            "uint8": nccl.NCCL_UINT8,
        }
        version = nccl.get_version()
        self.description = f"NCCL {version // 10000}.{version // 100 % 100}.{version % 100}"

    def all_reduce(self, buffer: Any, op: Reduction) -> Exchange:
        """See `Communicator.all_reduce`."""
        return self._exchange(buffer, self._comm.allReduce, self._ops[op])

    def broadcast(self, buffer: Any, root: int) -> Exchange:
        """See `Communicator.broadcast`."""
        return self._exchange(buffer, self._comm.broadcast, root)

    def _exchange(self, buffer: Any, call: Callable[..., None], argument: int) -> Exchange:
        if not buffer.size:
            return
        cuda, on_host = self._cupy.cuda, isinstance(buffer, np.ndarray)
        if not on_host and buffer.device != self._device:
            raise RuntimeError(
                f"the arrays of rank {self.rank} must be on its GPU {self._device.id}, but are on GPU "
                f"{buffer.device.id}; make the model with backend=group.device('cupy')"
            )
        with self._device:
            done = cuda.Event(disable_timing=True)
            if on_host:
                # This does not wait for the computation.
                with self._stream:
                    device = self._cupy.asarray(buffer)
            else:
                device, filled = buffer, cuda.Event(disable_timing=True)
                filled.record(cuda.get_current_stream())
                self._stream.wait_event(filled)
            pointer, dtype = device.data.ptr, self._dtypes[device.dtype.name]
            call(pointer, pointer, device.size, dtype, argument, self._stream.ptr)
            done.record(self._stream)
        broken: float | None = None
        while not done.done:
            # Where another rank is at fault, its name comes soon.
            if (problem := self._problem(done)) is not None:
                broken = time.monotonic() if broken is None else broken
                if time.monotonic() - broken > PATIENCE:
                    raise RuntimeError(f"rank {self.rank}: {self.description} failed: {problem}") from problem
            yield True
        if on_host:
            with self._device:
                device.get(stream=self._stream, out=buffer)

    def _problem(self, done: Any) -> Exception | None:
        """What has stopped NCCL, or the device."""
        runtime = self._cupy.cuda.runtime
        try:
            self._comm.check_async_error()
            if runtime.eventQuery(done.ptr) not in (0, _NOT_READY):
                # This raises the error of a kernel before.
                runtime.deviceSynchronize()
        except (self._error, runtime.CUDARuntimeError) as error:
            found: Exception = error
            return found
        return None

    def close(self, *, failed: bool) -> None:
        """End NCCL; after a failure without waiting for ranks that may never come."""
        if failed:
            self._comm.abort()
        else:
            self._stream.synchronize()
            self._comm.destroy()
        if self._world is not None:
            self._world.close(failed=failed)
