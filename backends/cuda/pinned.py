"""Copies of batches to a GPU while it computes, through CuPy.

A copy that runs beside the computation must start in pinned memory and on a stream of its own. Two rules make it
correct: nothing is overwritten while a copy still reads it, and nothing is read before its copy is done. Two events
enforce them, for each pinned buffer and a buffer of the same size on the device:

    host:            wait for `copied`;   fill the pinned buffer
    copy stream:     wait for `consumed`; pinned -> device buffer;      record `copied`
    compute stream:  wait for `copied`;   device buffer -> new arrays;  record `consumed`

The arrays are allocated for the compute stream, because CuPy's memory pool reuses freed memory in the order of a
stream: the next copy would overwrite arrays of the copy stream while kernels still read them. The copy from buffer to
arrays, within the device, costs little compared with the one over the bus. The device buffers belong to the copy stream
and are used only after a wait for `consumed`, so they too may be freed in its order.

Written from CuPy's documentation; `tests/backends/test_pinned.py` tests what can be tested without a GPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.types import Array
from ..memory_order import axes_in_memory, inverse
from ..recording.guards import require_repeatable
from ..upload import Uploader

if TYPE_CHECKING:
    from ..backend import Backend

# Alignment of arrays in a buffer, in bytes: that of CUDA's own allocations.
BUFFER_ALIGNMENT = 256


class StagingBuffers:
    """A pinned buffer, a buffer on the device, and the events that say when each is free."""

    def __init__(self, cuda: Any) -> None:
        self.copied = cuda.Event(block=True, disable_timing=True)
        self.consumed = cuda.Event(disable_timing=True)
        self.size = 0
        self.pinned: Any = None
        self.staged: Any = None

    def grow(self, size: int, cuda: Any, stream: Any) -> None:
        """Make each buffer at least ``size`` bytes large."""
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
        # As many as there were copies at the same time. If a loader drops a batch that was not received, only its copy
        # is queued, and its buffers are freed after it.
        self._free: deque[StagingBuffers] = deque()
        with backend.context():
            self._stream = cupy.cuda.Stream(non_blocking=True)

    def send(self, parts: Sequence[np.ndarray[Any, Any]]) -> Any:
        """Fill a pinned buffer and queue its copy."""
        b, cuda = self._backend, self._cupy.cuda
        hosts = [b.host_array(part, b.dtype if part.dtype.kind == "f" else None) for part in parts]
        starts, size = [], 0
        for host in hosts:
            starts.append(size)
            size += -(-host.nbytes // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT
        # A new device object: each remembers the device to return to, so two threads must not share one.
        with cuda.Device(b.device.id):
            try:
                staging = self._free.popleft()
            except IndexError:
                staging = StagingBuffers(cuda)
            staging.copied.synchronize()
            self._stream.wait_event(staging.consumed)
            staging.grow(size, cuda, self._stream)
            if size:
                buffer = np.frombuffer(staging.pinned, np.uint8, size)
                for host, start in zip(hosts, starts, strict=True):
                    place = buffer[start : start + host.nbytes].view(host.dtype)
                    host = host.transpose(axes_in_memory(host.strides))
                    np.copyto(place.reshape(host.shape), host)
                staging.staged.copy_from_host_async(staging.pinned.ptr, size, self._stream)
            self._stream.record(staging.copied)
        return staging, [
            (host.shape, host.dtype, start, axes_in_memory(host.strides))
            for host, start in zip(hosts, starts, strict=True)
        ]

    def receive(self, sent: Any) -> list[Array]:
        """Arrays of the current stream, filled when the copy is done."""
        b, cupy = self._backend, self._cupy
        require_repeatable(f"{b.spec}.uploader, a copy from the host")
        staging, layout = sent
        arrays = []
        with b.context():
            current = cupy.cuda.get_current_stream()
            current.wait_event(staging.copied)
            for shape, dtype, start, axes in layout:
                array = cupy.empty(tuple(shape[axis] for axis in axes), dtype)
                size = prod(shape) * dtype.itemsize
                if size:
                    array.data.copy_from_device_async(staging.staged + start, size, current)
                b.counts.count("to_device", size)
                array = array if axes == tuple(range(len(axes))) else array.transpose(inverse(axes))
                arrays.append(b._with_origin(array))
            current.record(staging.consumed)
        self._free.append(staging)
        return arrays
