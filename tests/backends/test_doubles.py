"""The test double of CuPy refuses what CuPy refuses: each test runs on both."""

import numpy as np
import pytest


@pytest.fixture(params=["double", "real cupy"])
def cupy(request):
    if request.param == "double":
        return request.getfixturevalue("fake_cupy").module
    request.getfixturevalue("gpu")
    import cupy

    return cupy


def test_devices_are_compared_and_have_no_hash(cupy):
    assert cupy.cuda.Device(0) == cupy.cuda.Device(0) == cupy.array(np.ones(2)).device
    with pytest.raises(TypeError, match="unhashable"):
        hash(cupy.cuda.Device(0))


def test_a_device_object_enters_again_and_goes_back(cupy):
    device = cupy.cuda.Device(0)
    with device, device:
        assert cupy.cuda.runtime.getDevice() == 0
    assert cupy.cuda.runtime.getDevice() == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_nothing_becomes_a_numpy_array_silently(cupy):
    x = cupy.array(np.ones(2))
    for convert in (np.array, lambda x: np.concatenate([np.ones(1), x])):
        with pytest.raises(TypeError):
            convert(x)
    with pytest.raises(TypeError, match="Implicit conversion to a NumPy array is not allowed"):
        np.asarray(x)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, host: x + host,
        lambda x, host: host + x,
        lambda x, host: np.add(x, host),
        lambda x, host: x * host[:1],
        lambda x, host: x + np.asarray(1.0),
    ],
)
def test_arrays_of_the_host_do_not_mix_with_it(cupy, mix):
    with pytest.raises(TypeError):
        mix(cupy.array(np.ones(2)), np.ones(2))


def test_numbers_mix_with_it(cupy):
    y = (cupy.array(np.ones(2, np.float32)) + 1.0) * np.float32(2.0)
    assert type(y) is type(cupy.array(np.ones(1))) and cupy.asnumpy(y).tolist() == [4.0, 4.0]


def test_a_copy_from_the_host_is_in_c_order_unless_it_came_in_fortran_order(cupy):
    host = np.arange(24.0).reshape(2, 3, 4)
    assert cupy.array(host).strides == host.strides
    assert cupy.array(host.T).strides == host.T.strides
    assert cupy.array(host.transpose(0, 2, 1)).strides == (96, 24, 8)
    assert cupy.asnumpy(cupy.array(host).transpose(0, 2, 1)).strides == (96, 24, 8)


def test_a_single_value_can_be_read(cupy):
    x = cupy.array(np.asarray(2.5))
    assert (float(x), int(x), bool(x > 2.0)) == (2.5, 2, True)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(cupy.array(np.ones(2)))


def test_indexing_gives_arrays(cupy):
    x = cupy.array(np.arange(3.0))
    assert float(x[1]) == 1.0 and x[1].shape == () and type(x[1]) is type(x)
    x[1:] = 5.0
    assert cupy.asnumpy(x).tolist() == [0.0, 5.0, 5.0]
