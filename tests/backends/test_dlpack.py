"""Arrays of other libraries with the same memory: `Backend.from_dlpack`."""

import numpy as np
import pytest

import xpnn as nn


class Producer:
    """A producer that follows the protocol as strictly as its text, around an array of a library."""

    def __init__(self, array, device=None):
        self.array, self.device, self.calls = array, device, []

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        kind = self.__dlpack_device__()[0]
        if kind == 2:
            # 0 is ambiguous, 1 the legacy default stream, 2 the one of the thread, -1 none; others are handles.
            assert stream is None or (isinstance(stream, int) and stream != 0 and stream >= -1)
        else:
            assert stream is None
        assert copy is None or copy is False
        self.calls.append(stream)
        keywords = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
        return self.array.__dlpack__(**{name: value for name, value in keywords.items() if value is not None})


def exported(at, host):
    """A producer whose memory is that of an array of the backend, and that array."""
    array = at.put(host)
    return Producer(array), array


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "uint8", "bool"])
def test_the_memory_is_shared_and_nothing_is_transferred(exporting, dtype):
    producer, array = exported(exporting, np.array([[1, 0, 3], [4, 5, 6]]).astype(dtype))
    before = dict(exporting.backend.transfers)
    found = exporting.backend.from_dlpack(producer)
    assert exporting.backend.owns(found) and len(producer.calls) == 1
    assert dict(exporting.backend.transfers) == before
    array[0, 1] = True if dtype == "bool" else 1
    assert exporting.get(found).tolist() == exporting.get(array).tolist()


def test_layers_compute_with_it(exporting, rng):
    producer, array = exported(exporting, rng.standard_normal((4, 3)).astype(np.float32))
    model = nn.Sequential(nn.Dense(3, 2), nn.ReLU(), backend=exporting.backend, seed=0)
    y = model(exporting.backend.from_dlpack(producer))
    assert np.array_equal(exporting.get(y), exporting.get(model(array)))
    model.backward(exporting.backend.from_dlpack(Producer(y)))


def test_what_layers_return_leaves_the_same_way(exporting, rng):
    model = nn.Sequential(nn.Dense(3, 2), backend=exporting.backend, seed=0)
    y = model(exporting.put(rng.standard_normal((4, 3)).astype(np.float32)))
    other = nn.get_backend(exporting.backend, "float64" if exporting.wide_enough else "float32").from_dlpack(y)
    y[0, 0] = 7.0
    assert float(exporting.get(other)[0, 0]) == 7.0


def test_in_exact_numerics_it_is_input(exporting, rng):
    exact = exporting.computing("exact")
    host = rng.standard_normal((4, 3)).astype(np.float32)
    host[0, 0] = 1e-42
    array = nn.get_backend(exact, numerics="fast").asarray(host)
    found = exact.from_dlpack(array)
    assert exact.to_numpy(found).tolist() == np.where(host == host[0, 0], np.float32(0), host).tolist()
    layer = nn.Dense(3, 2, backend=exact, seed=0)
    y = layer(found)
    layer.backward(exact.from_dlpack(y))


def test_an_array_on_another_device_is_refused(at):
    device = (1, 0) if at.backend.spec.startswith("cupy") else (2, 0)
    producer = Producer(np.ones(3, np.float32), device)
    with pytest.raises(ValueError, match=r"the array is on (the CPU|a CUDA device), 0, .*copy it with asarray"):
        at.backend.from_dlpack(producer)
    assert not producer.calls


@pytest.mark.parametrize("thing", [[1.0], 3, "x", None, object()])
def test_what_does_not_follow_the_protocol_is_refused(at, thing):
    with pytest.raises(TypeError, match="must have __dlpack__ and __dlpack_device__"):
        at.backend.from_dlpack(thing)


def test_complex_numbers_and_half_floats_are_refused(at):
    for dtype in (np.complex64, np.float16):
        with pytest.raises((TypeError, ValueError), match=r"layers have no|can't be shared|is on"):
            at.backend.from_dlpack(np.ones(3, dtype))


def test_cupy_passes_its_stream(gpu):
    producer = Producer(gpu.asarray(np.ones(3, np.float32)))
    gpu.from_dlpack(producer)
    assert producer.calls[0] is not None


def test_a_tensor_and_an_array_of_numpy(torch):
    numpy, backend = nn.get_backend("numpy"), nn.get_backend("torch")
    tensor = torch.ones(2, 3)
    array = numpy.from_dlpack(tensor)
    tensor[0, 0] = 5.0
    assert array[0, 0] == 5.0
    again = backend.from_dlpack(array)
    assert again.data_ptr() == tensor.data_ptr()
    y = nn.Dense(3, 2, backend="numpy")(array)
    assert torch.from_dlpack(y).shape == (2, 2)
    with pytest.raises(ValueError, match=r"x\.detach\(\)"):
        numpy.from_dlpack(tensor.requires_grad_())


def test_the_error_for_another_backends_array_names_it(torch):
    with pytest.raises(
        TypeError, match=r"asarray\(.*\.to\('torch'\); without a copy: nn\.get_backend\('numpy'\)\.from_dlpack\(x\)"
    ):
        nn.Dense(3, 2, backend="numpy")(torch.ones(2, 3))
    with pytest.raises(TypeError, match=r"get_backend\('torch'\)\.from_dlpack\(x\)"):
        nn.Dense(3, 2, backend="torch")(np.ones((2, 3), np.float32))


def test_a_read_only_array_is_shared():
    host = np.ones((2, 3), np.float32)
    host.flags.writeable = False
    found = nn.get_backend("numpy").from_dlpack(host)
    assert np.shares_memory(found, host)
    nn.Dense(3, 2, backend="numpy")(found)
