"""The order of work on streams, events, and functions of the host. This holds on a GPU too."""

import threading

import numpy as np
import pytest


@pytest.fixture
def cp(gpu):
    import cupy

    return cupy


def test_a_stream_runs_in_order(cp):
    with cp.cuda.Stream(non_blocking=True) as stream:
        x = cp.zeros(100, "float32")
        for i in range(20):
            x = x * 2 + i
        stream.synchronize()
    wanted = 0
    for i in range(20):
        wanted = wanted * 2 + i
    assert x.get().tolist() == [wanted] * 100


def test_an_event_orders_two_streams(cp):
    first, second = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    x = cp.zeros(1000, "float32")
    cp.cuda.Device().synchronize()
    for _ in range(10):
        with first:
            x += 1
        second.wait_event(first.record())
        with second:
            x *= 2
        first.wait_event(second.record())
    first.synchronize()
    second.synchronize()
    assert x.get().tolist() == [2046] * 1000


def test_blocking_streams_are_ordered_with_the_legacy_stream(cp):
    blocking, x = cp.cuda.Stream(), cp.zeros(1000, "float32")
    for _ in range(5):
        with blocking:
            x += 1
        x *= 2
    assert x.get().tolist() == [62] * 1000


def test_an_event_that_was_not_recorded_has_happened(cp):
    event = cp.cuda.Event()
    assert event.done
    event.synchronize()
    cp.cuda.Stream(non_blocking=True).wait_event(event)


def test_events_measure_time(cp):
    start, end = cp.cuda.Event(), cp.cuda.Event()
    start.record()
    cp.arange(1000) + 1
    end.record()
    end.synchronize()
    assert start.done and end.done and cp.cuda.get_elapsed_time(start, end) >= 0


def test_functions_of_the_host_run_in_the_order_of_their_stream(cp):
    stream, calls = cp.cuda.Stream(non_blocking=True), []
    for i in range(5):
        stream.launch_host_func(calls.append, i)
    stream.synchronize()
    assert calls == list(range(5))


def test_a_function_of_the_host_may_wait_for_a_thread_that_uses_the_device(cp):
    stream, done = cp.cuda.Stream(non_blocking=True), threading.Event()

    def compute():
        with cp.cuda.Stream(non_blocking=True) as own:
            x = cp.arange(10) + 1
            own.synchronize()
            assert int(x.get().sum()) == 55
        done.set()

    def wait(_):
        threading.Thread(target=compute).start()
        assert done.wait(60)

    stream.launch_host_func(wait, None)
    stream.synchronize()
    assert done.is_set()


def test_threads_compute_on_streams_of_their_own(cp):
    found = {}

    def compute(i):
        with cp.cuda.Stream(non_blocking=True) as stream:
            x = cp.full(500, i, "float64")
            for _ in range(30):
                x = x + i
            stream.synchronize()
            found[i] = x.get()

    threads = [threading.Thread(target=compute, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[i], np.full(500, 31.0 * i)) for i in range(6))


def test_a_stream_that_is_gone_is_refused(cp):
    handle = cp.cuda.runtime.streamCreateWithFlags(1)
    cp.cuda.runtime.streamDestroy(handle)
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="invalid resource handle"):
        cp.cuda.runtime.streamSynchronize(handle)
