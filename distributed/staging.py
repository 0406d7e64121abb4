"""Copies of CuPy's buffers in pinned host memory, for an MPI that can't read device memory."""

from typing import Any

import cupy
import numpy as np

from .communicator import Exchange


class DeviceBuffer:
    """A device buffer, and the stream on which it was filled: the current one of its device.

    An exchange may go on while another stream is current, or another device.

    Parameters
    ----------
    buffer : cupy array
    """

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer
        with buffer.device:
            self.stream = cupy.cuda.get_current_stream()

    def finished(self, *, has_started: bool) -> Exchange:
        """Wait until the device has done what was queued on the stream so far."""
        with self.buffer.device:
            event = cupy.cuda.Event(disable_timing=True)
            event.record(self.stream)
        while not event.done:
            yield has_started


class Staged(DeviceBuffer):
    """A copy of a device buffer in pinned host memory, which the stream is told to fill.

    Attributes
    ----------
    host : numpy array
        The copy.
    """

    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer)
        self._memory = cupy.cuda.alloc_pinned_memory(max(buffer.nbytes, 1))
        self.host = np.frombuffer(self._memory, buffer.dtype, buffer.size)
        if buffer.nbytes:
            with buffer.device:
                buffer.data.copy_to_host_async(self._memory.ptr, buffer.nbytes, self.stream)

    def copy_back(self) -> None:
        """Tell the stream to copy it to the device again; this object must be kept until that is done."""
        if self.host.nbytes:
            with self.buffer.device:
                self.buffer.data.copy_from_host_async(self._memory.ptr, self.host.nbytes, self.stream)
