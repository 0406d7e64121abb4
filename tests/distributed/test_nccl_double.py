"""The double of NCCL refuses what NCCL refuses, and what NCCL would do wrong; two ranks are threads here."""

import importlib
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import nccl_double_root
import numpy as np
import pytest

double = pytest.importorskip("nccl_double", reason="CuPy is not installed", exc_type=ImportError)
cupy = double.cupy


INVALID_ARGUMENT, INTERNAL_ERROR = 4, 3


@pytest.fixture
def ranks(gpu, monkeypatch):
    """Two communicators, and a stream for each."""
    monkeypatch.setattr(nccl_double_root, "is_same_gpu", lambda bus, others: False)
    identifier = double.get_unique_id()
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda rank: double.NcclCommunicator(2, identifier, rank), range(2)))
    yield [(each, cupy.cuda.Stream(non_blocking=True)) for each in made]
    for each in made:
        each.abort()


def outcome(comm, seconds=5.0):
    """The error of what was started on a communicator."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            comm.check_async_error()
        except double.NcclError as error:
            return error.status
        time.sleep(0.005)
    return None


def test_sums_and_broadcasts_arrive(ranks):
    arrays = [cupy.full(4, rank + 1.0, "float32") for rank in range(2)]
    for (comm, stream), array in zip(ranks, arrays, strict=True):
        comm.allReduce(array.data.ptr, array.data.ptr, 4, double.NCCL_FLOAT32, double.NCCL_SUM, stream.ptr)
    for comm, _ in ranks:
        comm.destroy()
    for array in arrays:
        assert np.array_equal(cupy.asnumpy(array), [3.0] * 4)


@pytest.mark.parametrize("other", [(3, 7, 0), (4, 8, 0), (4, 7, 2)], ids=["count", "dtype", "operation"])
def test_ranks_that_start_different_collectives_are_found(ranks, other):
    for (comm, stream), (count, dtype, op) in zip(ranks, [(4, 7, 0), other], strict=True):
        array = cupy.ones(8, "float64")
        comm.allReduce(array.data.ptr, array.data.ptr, count, dtype, op, stream.ptr)
    assert [outcome(comm) for comm, _ in ranks] == [INVALID_ARGUMENT] * 2


def test_wrong_arguments_are_refused(ranks):
    comm, stream = ranks[0]
    array, host = cupy.ones(8, "float32"), np.ones(8, "float32")
    pointer, usual = array.data.ptr, (8, double.NCCL_FLOAT32, double.NCCL_SUM, stream.ptr)
    calls = [
        lambda: comm.allReduce(pointer, pointer, 8, 99, double.NCCL_SUM, stream.ptr),
        lambda: comm.allReduce(pointer, pointer, 8, double.NCCL_FLOAT32, 99, stream.ptr),
        lambda: comm.allReduce(host.ctypes.data, host.ctypes.data, *usual),
        lambda: comm.allReduce(pointer, pointer + 4, 4, *usual[1:]),
        lambda: comm.broadcast(pointer, pointer, 8, double.NCCL_FLOAT32, 2, stream.ptr),
    ]
    for call in calls:
        with pytest.raises(double.NcclError, match="NCCL_ERROR_INVALID_ARGUMENT") as found:
            call()
        assert found.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize("end", ["abort", "destroy"])
def test_nothing_can_be_started_after_the_end(ranks, end):
    comm, stream = ranks[0]
    array = cupy.ones(8, "float32")
    getattr(comm, end)()
    with pytest.raises(double.NcclError) as found:
        comm.allReduce(array.data.ptr, array.data.ptr, 8, double.NCCL_FLOAT32, double.NCCL_SUM, stream.ptr)
    assert found.value.status == INVALID_ARGUMENT


def test_a_buffer_that_is_written_while_it_is_exchanged_is_found(ranks):
    (comm, stream), (other, other_stream) = ranks
    array, second = cupy.ones(8, "float32"), cupy.ones(8, "float32")
    comm.allReduce(array.data.ptr, array.data.ptr, 8, double.NCCL_FLOAT32, double.NCCL_SUM, stream.ptr)
    time.sleep(0.2)
    array[0] = 5.0
    other.allReduce(second.data.ptr, second.data.ptr, 8, double.NCCL_FLOAT32, double.NCCL_SUM, other_stream.ptr)
    assert outcome(comm) == INTERNAL_ERROR


def test_a_collective_waits_for_other_ranks_without_holding_up_the_caller(ranks):
    (comm, stream), (other, other_stream) = ranks
    array, second = cupy.ones(8, "float32"), cupy.ones(8, "float32")
    comm.allReduce(array.data.ptr, array.data.ptr, 8, double.NCCL_FLOAT32, double.NCCL_SUM, stream.ptr)
    event = double.Event()
    event.record(stream)
    assert not event.done
    other.allReduce(second.data.ptr, second.data.ptr, 8, double.NCCL_FLOAT32, double.NCCL_SUM, other_stream.ptr)
    end = time.monotonic() + 10.0
    while not event.done:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_double_has_the_names_and_values_of_cupys_own():
    # No GPU is needed for this.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = importlib.import_module("cupy.cuda.nccl")
    if not real.available:
        pytest.skip("NVIDIA's library of 300 MB, which only a GPU uses, is not installed: the extra `nccl`")
    names = [name for name in vars(double) if name.startswith("NCCL_")]
    assert len(names) == 13 and all(getattr(double, name) == getattr(real, name) for name in names)
    for name in ("get_unique_id", "get_version", "get_build_version"):
        assert type(getattr(double, name)()) is type(getattr(real, name)())
    assert len(double.get_unique_id()) == len(real.get_unique_id())
    for status in range(1, 7):
        found = double.NcclError(status)
        assert str(found) == str(real.NcclError(status)) and found.status == real.NcclError(status).status
    for name in ("allReduce", "broadcast", "check_async_error", "destroy", "abort", "rank_id", "size", "device_id"):
        assert hasattr(real.NcclCommunicator, name) and hasattr(double.NcclCommunicator, name)
