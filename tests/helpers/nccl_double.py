"""A double of `cupy.cuda.nccl` for processes on one machine, on any device of CuPy; see `install`.

Collectives are asynchronous, as NCCL's are: a call returns at once, a thread exchanges the data when the stream comes
to it, and what the stream does afterwards waits. An emulated device runs each operation as it is queued, so events and
streams are doubled too: an event that was recorded after a collective is done only when that is, and a stream that is
told to wait for it holds up the host.

It refuses what NCCL refuses, and what would be wrong without being noticed: other calls on other ranks (NCCL would hang
or mix them up), a buffer that is written while it is exchanged, two ranks on one GPU, host memory, another device's
memory or stream. Sums are in the order of the ranks. In a maximum of floats the number wins over NaN, because NCCL
doesn't promise more.
"""

import os
import queue
import socket
import sys
import threading
import time
import types

import cupy
import numpy as np
from cupy.cuda import runtime
from nccl_double_root import receive, send, serve

(NCCL_INT8, NCCL_UINT8, NCCL_INT32, NCCL_UINT32, NCCL_INT64, NCCL_UINT64, NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64) = (
    range(9)
)
NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN = range(4)
_DTYPES = dict(
    enumerate(("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"), NCCL_INT8)
)
_ERRORS = {
    1: "NCCL_ERROR_UNHANDLED_CUDA_ERROR: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
    2: "NCCL_ERROR_SYSTEM_ERROR: unhandled system error (run with NCCL_DEBUG=INFO for details)",
    3: "NCCL_ERROR_INTERNAL_ERROR: internal error - please report this issue to the NCCL developers",
    4: "NCCL_ERROR_INVALID_ARGUMENT: invalid argument (run with NCCL_DEBUG=WARN for details)",
    5: "NCCL_ERROR_INVALID_USAGE: invalid usage (run with NCCL_DEBUG=WARN for details)",
    6: "NCCL_ERROR_REMOTE_ERROR: remote process exited or there was a network error",
}
available = True
#: Calls of each name so far.
calls: dict[str, int] = {}


class NcclError(RuntimeError):
    """An error as NCCL raises it; the reason, which NCCL would write to its log, is a note."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(_ERRORS[status])
        self.status = status
        if reason:
            self.add_note(reason)
            print(f"NCCL WARN {reason}", file=sys.stderr, flush=True)


def get_version() -> int:
    return 22809


get_build_version = get_version


def get_unique_id() -> bytes:
    """128 bytes, by which ranks find the process that called this; it answers them in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}".encode().ljust(128, b"\0")


class NcclCommunicator:
    """A rank; its signature and methods are those of CuPy's class."""

    def __init__(self, ndev: int, commId: bytes, rank: int) -> None:
        if not isinstance(commId, bytes):
            raise TypeError(f"Argument 'commId' has incorrect type (expected bytes, got {type(commId).__name__})")
        if not 0 <= rank < ndev or len(commId) != 128:
            raise NcclError(4, f"rank {rank} of {ndev}")
        self._device, self._size, self._rank = runtime.getDevice(), ndev, rank
        self._is_open, self._failed = True, 0
        host, _, port = commId.rstrip(b"\0").decode().partition(":")
        self._link = socket.create_connection((host, int(port)))
        bus = runtime.deviceGetPCIBusId(self._device)
        send(self._link, {"rank": rank, "size": ndev, "bus": bus})
        answer, _ = receive(self._link)
        if answer is None or answer["status"]:
            raise NcclError(*((6,) if answer is None else (answer["status"], answer["reason"])))
        self._queue: queue.Queue = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def rank_id(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    def device_id(self) -> int:
        return self._device

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        if op not in (NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN):
            raise NcclError(4, f"op {op}")
        self._start("allReduce", sendbuf, recvbuf, count, datatype, op, stream)

    def broadcast(self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int) -> None:
        if not 0 <= root < self._size:
            raise NcclError(4, f"root {root}")
        self._start("broadcast", sendbuff, recvbuff, count, datatype, root, stream)

    def check_async_error(self) -> None:
        if self._failed:
            raise NcclError(self._failed)

    def destroy(self) -> None:
        """Wait for what was started, and end."""
        if self._is_open:
            self._is_open = False
            self._queue.put(None)
            self._queue.join()
            self._link.close()

    def abort(self) -> None:
        """End; what was started never ends, or ends in an error."""
        if self._is_open:
            self._is_open = False
            self._failed = 6
            self._link.close()

    def _start(
        self, name: str, source: int, target: int, count: int, datatype: int, argument: int, stream: int
    ) -> None:
        calls[name] = calls.get(name, 0) + 1
        if not self._is_open:
            raise NcclError(4, f"{name} after destroy or abort")
        if datatype not in _DTYPES:
            raise NcclError(4, f"datatype {datatype}")
        nbytes = count * np.dtype(_DTYPES[datatype]).itemsize
        for pointer in {source, target}:
            _require_device_memory(pointer, nbytes, self._device)
        if source != target and source < target + nbytes and target < source + nbytes:
            raise NcclError(4, "the buffers overlap")
        if (status := runtime.streamQuery(stream)) not in (0, 600):
            raise NcclError(1, f"stream {stream}: CUDA's error {status}")
        work = _Work(name, source, target, count, datatype, argument, stream)
        _streams[stream].append(work)
        self._queue.put(work)

    def _work(self) -> None:
        """The thread: one collective after another, when its stream has done what was before it."""
        while (work := self._queue.get()) is not None:
            try:
                self._exchange(work)
            except OSError:
                self._failed = 6
            self._queue.task_done()
        self._queue.task_done()

    def _exchange(self, work: "_Work") -> None:
        for event in work.after:
            event.wait()
        runtime.setDevice(self._device)
        runtime.streamSynchronize(work.stream)
        dtype = np.dtype(_DTYPES[work.datatype])
        sent = _read(work, dtype)
        time.sleep(float(os.environ.get("NCCL_DOUBLE_DELAY", "0")))
        send(self._link, {"call": [work.name, work.count, str(dtype), work.argument]}, sent.tobytes())
        answer, data = receive(self._link)
        if answer is None:
            # Another rank ended: NCCL doesn't go on, and says so only when it is asked.
            self._failed = 6
            return
        if answer["status"]:
            self._failed = answer["status"]
            print(f"NCCL WARN {answer['reason']}", file=sys.stderr, flush=True)
            return
        if _read(work, dtype).tobytes() != sent.tobytes():
            self._failed = 3
            print("NCCL WARN a buffer was written while it was exchanged", file=sys.stderr, flush=True)
            return
        result = np.frombuffer(data, dtype)
        if result.size:
            runtime.memcpyAsync(work.target, result.ctypes.data, result.nbytes, runtime.memcpyHostToDevice, work.stream)
            runtime.streamSynchronize(work.stream)
        work.done.set()


class _Work:
    """A collective on a stream."""

    def __init__(self, name, source, target, count, datatype, argument, stream) -> None:
        self.name, self.source, self.target, self.count = name, source, target, count
        self.datatype, self.argument, self.stream = datatype, argument, stream
        self.after = [work.done for work in _unfinished(stream)]
        self.done = threading.Event()


def _require_device_memory(pointer: int, nbytes: int, device: int) -> None:
    """Refuse host memory, that of another device, and pointers that aren't aligned."""
    found = runtime.pointerGetAttributes(pointer)
    if found.type not in (2, 3) or found.device != device:
        raise NcclError(4, f"pointer of memory type {found.type} on device {found.device}, not on device {device}")


def _read(work: _Work, dtype: np.dtype) -> np.ndarray:
    """The data, as the stream finds it, which waits for no other one."""
    found = np.empty(work.count, dtype)
    if found.size:
        runtime.memcpyAsync(found.ctypes.data, work.source, found.nbytes, runtime.memcpyDeviceToHost, work.stream)
        runtime.streamSynchronize(work.stream)
    return found


# ---- streams and events that wait for collectives

# What each stream still has to do.
_streams: dict[int, list[_Work]] = {}
_Event, _BaseStream = cupy.cuda.Event, cupy.cuda.Stream.__mro__[1]
_wait_event, _synchronize = _BaseStream.wait_event, _BaseStream.synchronize


def _unfinished(stream: int) -> list[_Work]:
    found = [work for work in _streams.get(stream, ()) if not work.done.is_set()]
    _streams[stream] = found
    return found


class Event(_Event):
    """An event that is done when the collectives before it are."""

    _before: tuple[_Work, ...] = ()

    def record(self, stream=None) -> None:
        stream = cupy.cuda.get_current_stream() if stream is None else stream
        self._before = tuple(_unfinished(stream.ptr))
        super().record(stream)

    @property
    def done(self) -> bool:
        if not all(work.done.is_set() for work in self._before):
            return False
        if self._before:
            # A device whose queues run only when something waits for them.
            super().synchronize()
        return super().done

    def hold_up(self) -> None:
        for work in self._before:
            work.done.wait()

    def synchronize(self) -> None:
        self.hold_up()
        super().synchronize()


def _stream_waits(self, event) -> None:
    """As the device can't wait, the host does."""
    if isinstance(event, Event):
        event.hold_up()
    _wait_event(self, event)


def _stream_synchronizes(self) -> None:
    for work in _unfinished(self.ptr):
        work.done.wait()
    _synchronize(self)


def install(replace=setattr) -> None:
    """Replace `cupy.cuda.nccl` in this process, and what CuPy's events and streams wait for.

    ``replace`` is called as `setattr` is; a test gives one that undoes it.
    """
    module = types.ModuleType("cupy.cuda.nccl", __doc__)
    module.__dict__.update({name: value for name, value in globals().items() if not name.startswith("_")})
    replace(cupy.cuda, "nccl", module)
    replace(cupy.cuda, "Event", Event)
    replace(_BaseStream, "wait_event", _stream_waits)
    replace(_BaseStream, "synchronize", _stream_synchronizes)
    # Processes that share a device are told apart as if each saw one of its own.
    if bus := os.environ.get("NCCL_DOUBLE_BUS"):
        replace(runtime, "deviceGetPCIBusId", lambda device: bus)
