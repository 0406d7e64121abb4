"""What CUDA refuses while streams are captured into a graph, and what a graph then does. This holds on a GPU too."""

import threading
from contextlib import suppress

import numpy as np
import pytest

RELAXED, THREAD_LOCAL, GLOBAL = 2, 1, 0
UNSUPPORTED, INVALIDATED, UNMATCHED, UNJOINED, ISOLATION, IMPLICIT, CAPTURED_EVENT, WRONG_THREAD = (
    *(900, 901, 903, 904, 905, 906, 907, 908),
)
INVALID_STATE = 401


@pytest.fixture
def cp(gpu):
    import cupy

    # Compiled and loaded beforehand, which a capture may forbid.
    cupy.arange(4, dtype="float32") + 1
    return cupy


@pytest.fixture
def stream(cp):
    made = cp.cuda.Stream(non_blocking=True)
    yield made
    # A test that fails leaves no capture behind.
    with suppress(RuntimeError):
        cp.cuda.runtime.streamEndCapture(made.ptr)


class Refused:
    """Asserts that a call in the ``with`` block fails with this status."""

    def __init__(self, cp, status):
        self.errors = (cp.cuda.runtime.CUDARuntimeError, cp.cuda.driver.CUDADriverError)
        self.status = status

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert isinstance(error, self.errors), f"expected status {self.status}, got {error!r}"
        assert error.status == self.status
        return True


def begin(stream, mode=RELAXED):
    stream.begin_capture(mode=mode)
    return stream


def test_captured_work_runs_at_each_launch_and_not_before(cp, stream):
    x = cp.zeros(4, "float32")
    cp.cuda.Device().synchronize()
    with begin(stream):
        x += 1
        x *= 2
        graph = stream.end_capture()
    assert x.get().tolist() == [0] * 4
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    assert x.get().tolist() == [14] * 4


def test_an_argument_keeps_its_value_of_the_capture(cp, stream):
    x = cp.zeros(1, "float32")
    kernel = cp.RawKernel('extern "C" __global__ void f(float* x, float y) { *x += y; }', "f")
    kernel((1,), (1,), (x, np.float32(0)))
    cp.cuda.Device().synchronize()
    with begin(stream):
        kernel((1,), (1,), (x, np.float32(3)))
        graph = stream.end_capture()
    graph.launch(stream)
    graph.launch(stream)
    stream.synchronize()
    assert float(x[0]) == 6


def test_sums_and_fills_and_copies_are_captured(cp, stream):
    x, out, copied = cp.arange(6, dtype="float32"), cp.ones((), "float32"), cp.zeros((), "float32")
    cp.sum(x, out=out)
    cp.cuda.Device().synchronize()
    with begin(stream):
        cp.sum(x, out=out)
        cp.cuda.runtime.memcpyAsync(copied.data.ptr, out.data.ptr, out.nbytes, 3, stream.ptr)
        out.data.memset_async(0, out.nbytes, stream)
        graph = stream.end_capture()
    graph.launch(stream)
    stream.synchronize()
    assert float(copied) == 15 and float(out) == 0


@pytest.mark.parametrize("mode", [RELAXED, THREAD_LOCAL, GLOBAL])
def test_waiting_for_a_stream_in_a_capture_is_refused_and_invalidates_it(cp, stream, mode):
    begin(stream, mode)
    with Refused(cp, UNSUPPORTED):
        stream.synchronize()
    with Refused(cp, INVALIDATED):
        stream.end_capture()
    assert not stream.is_capturing()
    stream.synchronize()


@pytest.mark.parametrize("wait", ["device", "free", "pageable copy"])
def test_what_waits_is_refused(cp, stream, wait):
    x = cp.zeros(4, "float32")
    host = np.zeros(4, "float32")
    begin(stream, GLOBAL)
    with Refused(cp, UNSUPPORTED):
        if wait == "device":
            cp.cuda.runtime.deviceSynchronize()
        elif wait == "free":
            cp.cuda.runtime.free(cp.cuda.runtime.malloc(256))
        else:
            cp.cuda.runtime.memcpyAsync(x.data.ptr, host.ctypes.data, 16, 1, stream.ptr)
    with Refused(cp, INVALIDATED):
        stream.end_capture()


def test_the_question_whether_a_stream_is_done_is_refused(cp, stream):
    begin(stream)
    # CuPy returns this status instead of raising it.
    assert cp.cuda.runtime.streamQuery(stream.ptr) == UNSUPPORTED
    with Refused(cp, INVALIDATED):
        stream.end_capture()


def test_pinned_memory_may_be_copied(cp, stream):
    x = cp.zeros(4, "float32")
    pinned = np.frombuffer(cp.cuda.alloc_pinned_memory(16), "float32", 4)
    pinned[:] = 5
    cp.cuda.Device().synchronize()
    begin(stream)
    # CuPy's own methods refuse any copy from the host.
    cp.cuda.runtime.memcpyAsync(x.data.ptr, pinned.ctypes.data, 16, 1, stream.ptr)
    graph = stream.end_capture()
    # The copy reads what is there at the launch.
    pinned[:] = 6
    graph.launch(stream)
    stream.synchronize()
    assert x.get().tolist() == [6] * 4


def malloc_in_a_thread(cp):
    """The status of an allocation by another thread, 0 if it is allowed."""
    found = []

    def allocate():
        try:
            cp.cuda.runtime.free(cp.cuda.runtime.malloc(256))
            found.append(0)
        except cp.cuda.runtime.CUDARuntimeError as error:
            found.append(error.status)

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    return found[0]


def test_an_allocation_is_refused_by_mode_and_thread(cp, stream):
    for mode, own, other in ((RELAXED, 0, 0), (THREAD_LOCAL, UNSUPPORTED, 0), (GLOBAL, UNSUPPORTED, UNSUPPORTED)):
        begin(stream, mode)
        assert malloc_in_a_thread(cp) == other
        if not other:
            stream.end_capture()
            begin(stream, mode)
        if own:
            with Refused(cp, UNSUPPORTED):
                cp.cuda.runtime.malloc(256)
            with Refused(cp, INVALIDATED):
                stream.end_capture()
        else:
            cp.cuda.runtime.free(cp.cuda.runtime.malloc(256))
            stream.end_capture()


def test_the_legacy_stream_cannot_be_captured(cp):
    with Refused(cp, UNSUPPORTED):
        cp.cuda.runtime.streamBeginCapture(0)


def test_legacy_work_beside_a_capture_of_a_blocking_stream_is_refused(cp):
    x, blocking = cp.zeros(4, "float32"), cp.cuda.Stream()
    begin(blocking)
    with Refused(cp, IMPLICIT):
        x.data.memset_async(0, 16, cp.cuda.Stream.null)
    with Refused(cp, INVALIDATED):
        blocking.end_capture()


def test_legacy_work_beside_a_capture_of_a_non_blocking_stream_is_allowed(cp, stream):
    x = cp.zeros(4, "float32")
    begin(stream)
    x.data.memset_async(1, 16, cp.cuda.Stream.null)
    stream.end_capture()


def test_a_capture_begins_once_and_ends_where_it_began(cp, stream):
    with Refused(cp, INVALID_STATE):
        cp.cuda.runtime.streamEndCapture(stream.ptr)
    begin(stream)
    with Refused(cp, INVALID_STATE):
        stream.begin_capture()
    stream.end_capture()


def fork(cp, stream):
    """Another stream that has joined the capture of the first."""
    other, event = cp.cuda.Stream(non_blocking=True), cp.cuda.Event(disable_timing=True)
    event.record(stream)
    other.wait_event(event)
    return other


def test_a_stream_that_waits_for_a_captured_event_joins(cp, stream):
    x, y, back = cp.zeros(4, "float32"), cp.zeros(4, "float32"), cp.cuda.Event(disable_timing=True)
    cp.cuda.Device().synchronize()
    begin(stream)
    other = fork(cp, stream)
    assert other.is_capturing()
    with other:
        y += 1
    with stream:
        x += 2
    back.record(other)
    stream.wait_event(back)
    graph = stream.end_capture()
    assert not other.is_capturing()
    graph.launch(stream)
    stream.synchronize()
    assert x.get().tolist() == [2] * 4 and y.get().tolist() == [1] * 4


def test_a_stream_that_joined_must_be_joined_again(cp, stream):
    y = cp.zeros(4, "float32")
    begin(stream)
    other = fork(cp, stream)
    with other:
        y += 1
    with Refused(cp, UNJOINED):
        stream.end_capture()


def test_the_other_stream_cannot_end_the_capture(cp, stream):
    begin(stream)
    other = fork(cp, stream)
    with Refused(cp, UNMATCHED):
        other.end_capture()
    with Refused(cp, INVALIDATED):
        stream.end_capture()


def test_an_event_from_outside_is_refused(cp, stream):
    event = cp.cuda.Event(disable_timing=True)
    event.record(cp.cuda.Stream(non_blocking=True))
    begin(stream)
    with Refused(cp, ISOLATION):
        stream.wait_event(event)
    with Refused(cp, INVALIDATED):
        stream.end_capture()


def test_a_captured_event_cannot_be_waited_for_by_the_host(cp, stream):
    event = cp.cuda.Event(disable_timing=True)
    begin(stream)
    event.record(stream)
    with Refused(cp, CAPTURED_EVENT):
        event.synchronize()
    with Refused(cp, INVALIDATED):
        stream.end_capture()


def test_another_thread_cannot_end_a_capture_unless_it_is_relaxed(cp, stream):
    found = []

    def end():
        try:
            stream.end_capture()
            found.append(0)
        except cp.cuda.runtime.CUDARuntimeError as error:
            found.append(error.status)

    for mode in (THREAD_LOCAL, RELAXED):
        begin(stream, mode)
        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        if found[-1]:
            with Refused(cp, INVALIDATED):
                stream.end_capture()
    assert found == [WRONG_THREAD, 0]
