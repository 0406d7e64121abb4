"""Arguments of jobs as words of memory."""

import importlib
import struct

import numpy as np
import pytest


@pytest.fixture
def packing(compiled_kernels):
    return importlib.import_module("xpnn.backends.engines.numba.packing")


@pytest.fixture
def jobs(compiled_kernels):
    return importlib.import_module("xpnn.backends.engines.numba.jobs")


@pytest.fixture(params=["by object", "in Python"])
def job(request, jobs, packing, monkeypatch):
    if request.param == "in Python":
        monkeypatch.setattr(packing, "BY_OBJECT", False)
    else:
        assert packing.BY_OBJECT, "CPython and NumPy have this layout"
    kinds = jobs.read(2), jobs.INT, jobs.write(1, "int8"), jobs.NUMBER, jobs.read(0), jobs.NUMBER
    return jobs.Job(lambda *_: None, kinds, uses_blas=False, contract=False)


def test_words_are_addresses_sizes_and_bits(job, tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(2, 3))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    y, z = np.zeros(0, np.int8), np.zeros(())
    words = job.packed((x, -7, y, -0.0, z, 2.5)).tolist()
    bits = [struct.unpack("<q", struct.pack("<d", number))[0] for number in (-0.0, 2.5)]
    assert words == [x.ctypes.data, 2, 3, -7, y.ctypes.data, 0, bits[0], z.ctypes.data, bits[1]]


@pytest.mark.parametrize(
    "x", [np.zeros((4, 6))[:, ::2], np.zeros((3, 2)).T, np.zeros(6), np.zeros((1, 2, 3))], ids=["gaps", "F", "1", "3"]
)
def test_other_axes_and_arrays_with_gaps_are_refused(job, x):
    with pytest.raises(ValueError, match="arguments must be C-contiguous"):
        job.packed((x, 1, np.zeros(2, np.int8), 0.0, np.zeros(()), 0.0))


def test_too_many_arguments_are_refused(job):
    with pytest.raises(ValueError, match="arguments must be"):
        job.packed((np.zeros((2, 2)), 1, np.zeros(2, np.int8), 0.0, np.zeros(()), 0.0, 1))


@pytest.mark.parametrize("number", [np.float64(1.0), 1.0, [1.0], None])
def test_what_is_no_array_is_refused(job, packing, number):
    with pytest.raises(AttributeError):
        job.packed((np.zeros((2, 2)), 1, np.zeros(2, np.int8), 0.0, number, 0.0))
    with pytest.raises(AttributeError):
        packing.addresses_of([np.zeros(2), number])


def test_addresses_of_many_arrays(job, packing):
    arrays = [np.zeros(n) for n in range(5)] + [np.zeros((2, 2)).T, np.zeros(())]
    assert packing.addresses_of(arrays).tolist() == [x.ctypes.data for x in arrays]
