"""Copies of CuPy's buffers in pinned host memory, for an MPI that can't read device memory."""

from typing import Any

import cupy
import numpy as np

from .communicator import Exchange


def finished_on_device(*, has_started: bool) -> Exchange:
    """Wait until the device has done what was queued on the current stream so far."""
    event = cupy.cuda.Event(disable_timing=True)
    event.record()
    while not event.done:
        yield has_started


class Staged:
    """A copy of a device buffer in pinned host memory, which the current stream is told to fill.

    Attributes
    ----------
    host : numpy array
        The copy.
    """

    def __init__(self, buffer: Any) -> None:
        self._buffer, self._stream = buffer, cupy.cuda.get_current_stream()
        self._memory = cupy.cuda.alloc_pinned_memory(max(buffer.nbytes, 1))
        self.host = np.frombuffer(self._memory, buffer.dtype, buffer.size)
        if buffer.nbytes:
            buffer.data.copy_to_host_async(self._memory.ptr, buffer.nbytes, self._stream)

    def copy_back(self) -> None:
        """Tell the stream to copy it to the device again; this object must be kept until that is done."""
        if self.host.nbytes:
            self._buffer.data.copy_from_host_async(self._memory.ptr, self.host.nbytes, self._stream)
