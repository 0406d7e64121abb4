"""Memory of the device and of the host, and copies between them. This holds on a GPU too."""

import numpy as np
import pytest

TO_DEVICE, TO_HOST, WITHIN = 1, 2, 3


@pytest.fixture
def runtime(gpu):
    from cupy.cuda import runtime

    return runtime


@pytest.fixture
def memory(runtime):
    """1,024 bytes of the device."""
    address = runtime.malloc(1024)
    yield address
    runtime.free(address)


def test_addresses_are_told_apart(runtime, memory):
    import cupy

    pinned, host = cupy.cuda.alloc_pinned_memory(64), np.zeros(8)
    assert runtime.pointerGetAttributes(memory + 100).type == 2
    assert runtime.pointerGetAttributes(pinned.ptr).type == 1
    assert runtime.pointerGetAttributes(host.ctypes.data).type == 0


def test_copies_there_and_back(runtime, memory):
    sent, back = np.arange(128.0), np.zeros(128)
    runtime.memcpy(memory, sent.ctypes.data, 1024, TO_DEVICE)
    runtime.memcpy(back.ctypes.data, memory, 1024, TO_HOST)
    assert np.array_equal(sent, back)


def test_an_asynchronous_copy_of_pageable_memory_is_taken_at_the_call(runtime, memory):
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    host, back = np.full(128, 3.0), np.zeros(128)
    runtime.memcpyAsync(memory, host.ctypes.data, 1024, TO_DEVICE, stream.ptr)
    host[:] = 0
    runtime.memcpyAsync(back.ctypes.data, memory, 1024, TO_HOST, stream.ptr)
    # A copy to pageable memory has ended when the function returns.
    assert back.tolist() == [3.0] * 128


@pytest.mark.parametrize("kind", [TO_HOST, WITHIN])
def test_a_direction_that_is_not_that_of_the_addresses_is_refused(runtime, memory, kind):
    host = np.zeros(16)
    with pytest.raises(runtime.CUDARuntimeError, match="invalid argument"):
        runtime.memcpy(memory, host.ctypes.data, 128, kind)


def test_fills(runtime, memory):
    back = np.zeros(1024, "uint8")
    runtime.memset(memory, 7, 1000)
    runtime.memset(memory + 1000, 8, 24)
    runtime.memcpy(back.ctypes.data, memory, 1024, TO_HOST)
    assert back.tolist() == [7] * 1000 + [8] * 24


def test_freeing_twice_is_refused(runtime):
    address = runtime.malloc(64)
    runtime.free(address)
    with pytest.raises(runtime.CUDARuntimeError, match="invalid argument"):
        runtime.free(address)


def test_more_than_there_is_is_refused(runtime):
    free, total = runtime.memGetInfo()
    assert 0 < free <= total
    with pytest.raises(runtime.CUDARuntimeError, match="out of memory"):
        runtime.malloc(total + 1)


def test_pools_return_memory(gpu):
    import cupy

    pool = cupy.cuda.MemoryPool()
    before = cupy.cuda.runtime.memGetInfo()[0]
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.zeros(1 << 20, "float32")
    assert cupy.cuda.runtime.memGetInfo()[0] <= before - x.nbytes
    del x
    pool.free_all_blocks()
    assert cupy.cuda.runtime.memGetInfo()[0] == before
