"""Batches to a GPU while it computes, through CuPy.

A copy that runs beside the computation must start in pinned memory and on a stream of its own, and then two rules keep
it right: nothing is overwritten that a copy still reads, and nothing is read before its copy is done. They are kept by
two events of each slot, a pinned buffer with a buffer of the same size on the device:

    host:            wait for `copied`;   fill the pinned buffer
    copy stream:     wait for `consumed`; pinned -> device buffer;      record `copied`
    compute stream:  wait for `copied`;   device buffer -> new arrays;  record `consumed`

The arrays are allocated for the compute stream, whose order CuPy's memory pool relies on when it lends freed memory
again; arrays allocated for the copy stream would be lent to the next copy while kernels still read them. The copy from
buffer to arrays, within the device, costs little beside the one that crosses the bus. The device buffers belong to the
copy stream and are used after a wait for `consumed` alone, so they too may be freed in its order.

Written by CuPy's documentation; see `tests/backends/test_pinned.py` for what of it is proved without a GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.types import Array
from ..compiled_step import require_repeatable
from ..memory_order import axes_in_memory, inverse
from ..upload import Uploader

if TYPE_CHECKING:
    from ..backend import Backend

# Where an array may begin in a buffer; what CUDA aligns its own allocations to.
ALIGNED = 256


class Slot:
    """A pinned buffer, a buffer on the device, and what tells when each is free."""

    def __init__(self, cuda: Any) -> None:
        self.copied = cuda.Event(block=True, disable_timing=True)
        self.consumed = cuda.Event(disable_timing=True)
        self.size = 0
        self.pinned: Any = None
        self.staged: Any = None

    def grow(self, size: int, cuda: Any, stream: Any) -> None:
        """At least ``size`` bytes in each buffer."""
        if size > self.size:
            self.pinned = cuda.alloc_pinned_memory(size)
            with stream:
                self.staged = cuda.alloc(size)
            self.size = size


class PinnedUploader(Uploader):
    """Copies on a stream of its own, beside the computation.

    Parameters
    ----------
    backend : CupyBackend
    cupy : module
    """

    def __init__(self, backend: Backend, cupy: Any) -> None:
        super().__init__(backend)
        self._backend, self._cupy = backend, cupy
        # As many as batches were ever on their way at once. A slot that a loader gives up unread has nothing queued but
        # its copy, so what frees its buffers stands behind that.
        self._free: deque[Slot] = deque()
        with backend.context():
            self._stream = cupy.cuda.Stream(non_blocking=True)

    def send(self, parts: Sequence[np.ndarray[Any, Any]]) -> Any:
        """Fill a pinned buffer, and queue its copy."""
        b, cuda = self._backend, self._cupy.cuda
        hosts = [b.host_array(part, b.dtype if part.dtype.kind == "f" else None) for part in parts]
        starts, size = [], 0
        for host in hosts:
            starts.append(size)
            size += -(-host.nbytes // ALIGNED) * ALIGNED
        # A device of our own: CuPy's device objects remember where to go back to, for one thread at a time.
        with cuda.Device(b.device.id):
            try:
                slot = self._free.popleft()
            except IndexError:
                slot = Slot(cuda)
            slot.copied.synchronize()
            self._stream.wait_event(slot.consumed)
            slot.grow(size, cuda, self._stream)
            if size:
                buffer = np.frombuffer(slot.pinned, np.uint8, size)
                for host, start in zip(hosts, starts, strict=True):
                    place = buffer[start : start + host.nbytes].view(host.dtype)
                    host = host.transpose(axes_in_memory(host.strides))
                    np.copyto(place.reshape(host.shape), host)
                slot.staged.copy_from_host_async(slot.pinned.ptr, size, self._stream)
            self._stream.record(slot.copied)
        return slot, [
            (host.shape, host.dtype, start, axes_in_memory(host.strides))
            for host, start in zip(hosts, starts, strict=True)
        ]

    def receive(self, sent: Any) -> list[Array]:
        """Arrays of the current stream, filled once the copy is done."""
        b, cupy = self._backend, self._cupy
        require_repeatable(f"{b.spec}.uploader, a copy from the host")
        slot, layout = sent
        arrays = []
        with b.context():
            current = cupy.cuda.get_current_stream()
            current.wait_event(slot.copied)
            for shape, dtype, start, axes in layout:
                array = cupy.empty(tuple(shape[axis] for axis in axes), dtype)
                size = prod(shape) * dtype.itemsize
                if size:
                    array.data.copy_from_device_async(slot.staged + start, size, current)
                b.ledger.count("to_device", size)
                array = array if axes == tuple(range(len(axes))) else array.transpose(inverse(axes))
                arrays.append(b._made(array))
            current.record(slot.consumed)
        self._free.append(slot)
        return arrays
