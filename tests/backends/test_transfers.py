"""Transfers between host and device: what they accept, preserve and count."""

import resource
from types import SimpleNamespace

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.backend import DTYPES
from xpnn.backends.memory_order import axes_in_memory
from xpnn.common.types import dtype_name


def traffic(backend: nn.Backend, direction: str, action) -> tuple[int, int]:
    """Calls and bytes that an action transfers in a direction."""
    calls, nbytes = backend.transfers[direction]
    action()
    return backend.transfers[direction][0] - calls, backend.transfers[direction][1] - nbytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_transferred_both_ways_unchanged(at, dtype):
    host = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    array = at.backend.asarray(host)
    assert dtype_name(array.dtype) == dtype
    assert at.backend.owns(array)
    back = at.backend.to_numpy(array)
    assert back.dtype == host.dtype and np.array_equal(back, host)


@pytest.mark.parametrize("host", [1.5, [1.0, 2.0], ((0.5,), (1.5,)), []], ids=["scalar", "list", "tuples", "empty"])
def test_floats_on_the_host_get_the_default_dtype(at, host):
    for backend in (at.backend, at.wide()):
        array = backend.asarray(host)
        assert dtype_name(array.dtype) == backend.dtype_name
        assert np.array_equal(backend.to_numpy(array), np.asarray(host, dtype=np.float64))


def test_integers_and_booleans_in_lists_stay_what_they_are(at):
    assert dtype_name(at.backend.asarray([1, 2]).dtype) == "int64"
    assert dtype_name(at.backend.asarray(3).dtype) == "int64"
    assert dtype_name(at.backend.asarray([True, False]).dtype) == "bool"


def test_a_numpy_array_keeps_its_dtype_and_not_the_default_one(at):
    assert dtype_name(at.backend.asarray(np.ones(2)).dtype) == "float64"
    assert dtype_name(at.backend.asarray(np.float64(1)).dtype) == "float64"
    assert dtype_name(at.wide().asarray(np.ones(2, np.float32)).dtype) == "float32"


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_a_requested_dtype_is_returned(at, dtype):
    wanted = np.array([0.0, 1.0, 2.0]).astype(dtype)
    own = getattr(at.xp, dtype)
    for host in ([0.0, 1.0, 2.0], np.array([0.0, 1.0, 2.0]), at.put(np.array([0.0, 1.0, 2.0], np.float32))):
        for spelled in (dtype, own, np.dtype(dtype)):
            array = at.backend.asarray(host, spelled)
            assert at.backend.owns(array) and dtype_name(array.dtype) == dtype
            assert np.array_equal(at.get(array), wanted)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (2, 0, 4), (1, 1, 1)])
def test_shapes_of_one_or_no_entry(at, shape):
    host = np.full(shape, 2.5, dtype=np.float32)
    array = at.backend.asarray(host)
    assert tuple(array.shape) == shape
    assert at.get(array).shape == shape and np.array_equal(at.get(array), host)


def reversed_rows():
    return np.arange(12.0, dtype=np.float32).reshape(3, 4)[::-1, ::2]


def transposed():
    return np.arange(12.0, dtype=np.float32).reshape(3, 4).T


def broadcast():
    return np.broadcast_to(np.arange(4.0, dtype=np.float32), (3, 4))


def read_only():
    host = np.arange(4.0, dtype=np.float32)
    host.flags.writeable = False
    return host


def big_endian():
    return np.arange(4.0).astype(">f4")


def unaligned():
    return np.frombuffer(b"\x00" + np.arange(4.0, dtype=np.float32).tobytes(), np.float32, offset=1)


@pytest.mark.parametrize("make", [reversed_rows, transposed, broadcast, read_only, big_endian, unaligned])
def test_asarray_accepts_any_memory_layout(at, make):
    host = make()
    array = at.backend.asarray(host)
    assert dtype_name(array.dtype) == "float32"
    assert np.array_equal(at.get(array), host)
    assert at.get(array + array).dtype == np.dtype("=f4"), "native byte order once it is in"


@pytest.mark.parametrize("index", [(slice(None, None, -1),), (slice(None), slice(1, None, 2)), (1,), (slice(0, 0),)])
def test_to_numpy_accepts_views(at, index):
    if at.backend.spec.startswith("torch") and index[0] == slice(None, None, -1):
        pytest.skip("PyTorch has no views with a negative step")
    host = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    index = index if len(index) == 2 else (*index, slice(None))
    assert np.array_equal(at.get(at.put(host)[index]), host[index])


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (np.ones(2, np.float16), "float16"),
        (np.ones(2, np.complex64), "complex64"),
        (np.ones(2, complex), "complex128"),
        (np.array([None, 1]), "object"),
        (np.array(["a", "b"]), "str"),
        (np.array([b"a"]), "bytes"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "datetime64"),
        (["a"], "str"),
        (None, "got None"),
        ([None], "object"),
        (1j, "complex128"),
        (2**70, "object"),
        pytest.param(object(), "object", id="object"),
        ({"a": 1}, "object"),
    ],
    ids=repr,
)
def test_data_of_other_dtypes_are_refused(at, host, name):
    before = at.backend.transfers
    with pytest.raises(
        TypeError, match=r"asarray: (the data must be numbers|dtype must be bool, .* or float64), got"
    ) as caught:
        at.backend.asarray(host)
    assert name in str(caught.value) and at.backend.spec in str(caught.value)
    assert at.backend.transfers == before


@pytest.mark.parametrize("dtype", ["float16", "complex64", "str", "float"])
def test_an_unknown_dtype_lists_the_accepted_ones(at, dtype):
    with pytest.raises(TypeError, match=rf"dtype must be bool, .*, float32 or float64, got {dtype}"):
        at.backend.asarray([1.0], dtype)


def others(at):
    for spec in ("strict", "strict:device2", "torch"):
        try:
            other = nn.get_backend(spec)
        except nn.BackendUnavailable:
            continue
        if other is not at.backend:
            yield other


def test_arrays_of_another_backend_are_refused_with_the_call_that_moves_them(at):
    for other in others(at):
        x = other.asarray([1.0, 2.0])
        before = at.backend.transfers, other.transfers
        with pytest.raises(TypeError, match=r"nn\.backend_of\(x\)\.to_numpy\(x\)$") as caught:
            at.backend.asarray(x)
        assert at.backend.spec in str(caught.value)
        with pytest.raises(TypeError, match="the array must be one of"):
            at.backend.to_numpy(x)
        assert (at.backend.transfers, other.transfers) == before, "nothing is copied silently"


def test_to_numpy_accepts_no_host_data(at):
    with pytest.raises(TypeError, match=r"the array must be one of .*, got list"):
        at.backend.to_numpy([1.0])
    if at.backend.spec != "numpy":
        with pytest.raises(TypeError, match=r"got float32 array of numpy, shape \(2,\)"):
            at.backend.to_numpy(np.ones(2, np.float32))


def test_transfers_are_counted_in_calls_and_bytes(at):
    b, host = at.backend, np.ones((3, 5), np.float32)
    assert traffic(b, "to_device", lambda: b.asarray(host)) == (1, 60)
    assert traffic(b, "to_device", lambda: b.asarray([1.0, 2.0])) == (1, 8)
    assert traffic(b, "to_device", lambda: b.asarray(host, "float64")) == (1, 120)
    assert traffic(b, "to_device", lambda: b.asarray(np.ones((0, 2)))) == (1, 0)
    array = b.asarray(host)
    assert traffic(b, "to_host", lambda: b.to_numpy(array)) == (1, 60)
    assert traffic(b, "to_host", lambda: b.to_numpy(array[1, :])) == (1, 20)
    assert traffic(b, "to_device", lambda: b.to_numpy(array)) == (0, 0)


def test_an_array_of_the_backend_is_not_transferred(at):
    array = at.backend.asarray(np.ones(4, np.float32))
    count = traffic(at.backend, "to_device", lambda: at.backend.asarray(array))
    if at.backend.spec == "numpy":
        assert count == (1, 16), "on NumPy host and device are one: every call counts"
    else:
        assert count == (0, 0)
        assert at.backend.asarray(array) is array
        assert traffic(at.backend, "to_device", lambda: at.backend.asarray(array, "float64")) == (0, 0)


def test_settings_of_one_device_count_separately(at):
    assert traffic(at.wide(), "to_device", lambda: at.backend.asarray([1.0])) == (0, 0)


def test_a_new_backend_has_counted_nothing(fresh_registry):
    assert nn.get_backend("numpy").transfers == {"to_device": (0, 0), "to_host": (0, 0)}


def test_values_are_copied_if_the_device_is_not_the_host(at):
    if at.backend.spec == "numpy":
        pytest.skip("on NumPy host and device are one: nothing is copied")
    host = np.zeros(3, np.float32)
    array = at.backend.asarray(host)
    host[:] = 7.0
    assert at.get(array).tolist() == [0.0, 0.0, 0.0]
    out = at.get(array)
    out[:] = 8.0
    assert at.get(array).tolist() == [0.0, 0.0, 0.0]


def test_numpy_copies_nothing(rng):
    b, host = nn.get_backend("numpy"), rng.random(3)
    assert b.asarray(host) is host and b.to_numpy(host) is host


def test_a_tensor_that_records_gradients_is_transferred(torch):
    b = nn.get_backend("torch")
    assert b.to_numpy(torch.ones(2, requires_grad=True) * 2).tolist() == [2.0, 2.0]


def test_memory_is_in_bytes(at):
    memory = at.backend.memory()
    assert memory.keys() == {"in_use", "peak", "pool"}
    assert all(type(value) is int and value >= 0 for value in memory.values())


def test_peak_memory_is_never_below_what_is_in_use(monkeypatch):
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=1))
    memory = nn.get_backend("numpy").memory()
    assert memory["peak"] >= memory["in_use"], "the kernel updates the two at different times"


def test_memory_on_a_cpu_has_no_limit_to_set(at):
    if at.backend.spec.startswith(("cupy", "torch:cuda")):
        pytest.skip("a GPU has a pool to limit")
    with pytest.raises(ValueError, match=f"{at.backend.spec}.*no memory pool"):
        at.backend.memory(limit=1 << 30)


def test_synchronize_returns_nothing(at):
    assert at.backend.synchronize() is None


LAYOUTS = {
    "as written": lambda x: x,
    "Fortran": lambda x: np.asfortranarray(x),
    "channels last": lambda x: x.transpose(0, 3, 1, 2),
    "batch last": lambda x: x.transpose(3, 0, 2, 1),
    "every second": lambda x: x[:, ::2].transpose(2, 0, 3, 1),
    "reversed": lambda x: x[:, ::-1].transpose(0, 3, 1, 2),
    "one value": lambda x: np.broadcast_to(x[:1, :1, :1, :], (3, 4, 2, 5)).transpose(0, 3, 1, 2),
}


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_axes_keep_their_order_in_memory_in_both_transfers(at, layout, numerics):
    if numerics == "exact" and not at.wide_enough:
        pytest.skip("no float64 on this device")
    b = nn.get_backend(at.backend, numerics=numerics)
    host = LAYOUTS[layout](np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5))
    array = b.asarray(host)
    assert np.array_equal(b.to_numpy(array), host)
    if layout != "one value":
        assert b.memory_order(array) == axes_in_memory(host.strides)
    assert axes_in_memory(b.to_numpy(array).strides) == b.memory_order(array)
    [sent] = b.uploader().receive(b.uploader().send([host]))
    assert np.array_equal(b.to_numpy(sent), host)
    assert b.memory_order(sent) == b.memory_order(array)


def test_an_array_of_the_device_keeps_its_order_to_the_host_and_back(at):
    x = at.put(np.arange(120.0, dtype="float32").reshape(2, 3, 4, 5))
    for axes in ((0, 2, 3, 1), (3, 1, 0, 2), (1, 0, 3, 2)):
        here = at.xp.permute_dims(x, axes)
        again = at.backend.asarray(at.backend.to_numpy(here).copy(order="K"))
        assert at.backend.memory_order(again) == at.backend.memory_order(here)
        assert np.array_equal(at.get(again), at.get(here))
