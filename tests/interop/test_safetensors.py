"""Files of weights: the same bytes from every backend; writing and loading are atomic."""

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import xpnn as nn
from xpnn.backends import to_host
from xpnn.interop.safetensors import load, read, save


def model(backend="numpy", seed=1, dtype=None):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Dense(12, 4), backend=backend, seed=seed, dtype=dtype
    )


def weights(net) -> dict[str, np.ndarray]:
    return {name: np.array(to_host(array)) for name, array in net.state_dict().items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_come_back_bit_for_bit(at, tmp_path, dtype):
    b = nn.get_backend(at.backend, dtype)
    saved, other = model(b, seed=1), model(b, seed=2)
    assert not same(weights(saved), weights(other))
    save(saved, tmp_path / "w.safetensors")
    load(other, tmp_path / "w.safetensors")
    assert same(weights(other), weights(saved))
    for array in other.state_dict().values():
        assert b.owns(array)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_writes_the_same_file(at, tmp_path, dtype):
    about = {"epoch": 3, "accuracy": 0.1, "name": "é"}
    save(model("numpy", dtype=dtype), tmp_path / "numpy", about)
    save(model(nn.get_backend(at.backend, dtype)), tmp_path / "here", about)
    assert sha256(tmp_path / "here") == sha256(tmp_path / "numpy")


def test_a_file_moves_between_backends(at, tmp_path):
    save(model(at.backend), tmp_path / "w")
    there = model("numpy", seed=9)
    load(there, tmp_path / "w")
    assert same(weights(there), weights(model("numpy", seed=1)))


def test_the_file_is_a_safetensors_file(tmp_path):
    save(model(), tmp_path / "w")
    arrays = safetensors.numpy.load_file(tmp_path / "w")
    assert same(arrays, weights(model()))
    assert sorted(arrays) == ["0.bias", "0.weight", "3.bias", "3.weight"]


def test_a_loaded_model_does_not_hold_the_file_open(tmp_path):
    net = model(seed=2)
    save(model(), tmp_path / "w")
    load(net, tmp_path / "w")
    before = weights(net)
    save(model(seed=3), tmp_path / "w")
    assert same(weights(net), before)


@pytest.mark.parametrize(
    "about", [{}, {"epoch": 3}, {"nested": {"list": [1, 2.5, None, True]}, "text": 'quotes " and\nlines é'}]
)
def test_metadata_is_read_as_written(tmp_path, about):
    save(model(), tmp_path / "w", about)
    assert read(tmp_path / "w")[1] == about
    assert load(model(seed=2), tmp_path / "w") == about


def test_missing_metadata_is_an_empty_mapping(tmp_path):
    save(model(), tmp_path / "w")
    assert load(model(), tmp_path / "w") == {}


def test_order_of_metadata_does_not_change_the_file(tmp_path):
    save(model(), tmp_path / "one", {"a": 1, "b": 2})
    save(model(), tmp_path / "other", {"b": 2, "a": 1})
    assert sha256(tmp_path / "one") == sha256(tmp_path / "other")


def test_files_of_other_programs_load(tmp_path):
    wanted = {name: array.astype(np.float64) for name, array in weights(model(seed=5)).items()}
    safetensors.numpy.save_file(wanted, tmp_path / "w", {"format": "pt"})
    net = model(seed=2)
    assert load(net, tmp_path / "w") == {}
    assert same(weights(net), weights(model(seed=5))), "floats are rounded to the model's dtype"


def test_arrays_of_integers_are_not_loaded_as_parameters(tmp_path):
    integers = {name: np.ones(array.shape, np.int64) for name, array in weights(model()).items()}
    safetensors.numpy.save_file(integers, tmp_path / "w")
    net = model()
    with suppress(TypeError, ValueError):
        load(net, tmp_path / "w")
    assert {array.dtype.name for array in weights(net).values()} == {"float32"}


class Counting(nn.Layer):
    """A layer with a scalar parameter and a counter."""

    def __init__(self, value=0.5, count=0, **placement):
        super().__init__(**placement)
        self.parameters["scale"] = nn.Parameter(self.backend.asarray(np.float32(value)))
        self.buffers["count"] = self.backend.asarray(np.array(count, np.int64))


def test_scalars_and_integer_buffers_are_read_as_written(at, tmp_path):
    save(Counting(2.5, 7, backend=at.backend), tmp_path / "w")
    assert read(tmp_path / "w")[0]["count"].shape == ()
    other = Counting(backend=at.backend)
    load(other, tmp_path / "w")
    assert same(weights(other), {"scale": np.array(2.5, np.float32), "count": np.array(7)})


def test_a_model_without_weights_has_a_file_too(tmp_path):
    save(nn.ReLU(), tmp_path / "w", {"a": 1})
    assert load(nn.ReLU(), tmp_path / "w") == {"a": 1}


def header(**entries) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


DAMAGE = {
    "truncated by a byte": lambda whole: whole[:-1],
    "truncated in the header": lambda whole: whole[:20],
    "a byte too long": lambda whole: whole + b"\0",
    "empty": lambda whole: b"",
    "garbage": lambda whole: bytes(range(256)) * 8,
    "text": lambda whole: b"<html>404 Not Found</html>" * 10,
    "huge header": lambda whole: struct.pack("<Q", 1 << 60) + whole[8:],
    "about is not JSON": lambda whole: header(__metadata__={"xpnn": "{not json"}),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_damaged_file_raises_an_error_that_names_it_and_does_not_change_the_model(at, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    save(model(at.backend, seed=1), path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    net = model(at.backend, seed=2)
    before = weights(net)
    with pytest.raises(ValueError, match="is not a complete safetensors file") as caught:
        load(net, path)
    assert str(path) in str(caught.value)
    assert same(weights(net), before)


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_a_missing_file_raises_an_error_that_names_it_and_does_not_change_the_model(tmp_path, name):
    net = model(seed=2)
    before = weights(net)
    with pytest.raises(FileNotFoundError, match="no file") as caught:
        load(net, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert same(weights(net), before)


def test_the_file_of_another_model_raises_an_error_that_lists_all_differences(at, tmp_path):
    save(nn.Sequential(nn.Conv2d(2, 5, 3), nn.Dense(12, 4)), tmp_path / "w")
    net = model(at.backend)
    before = weights(net)
    with pytest.raises(ValueError) as caught:
        load(net, tmp_path / "w")
    for problem in ("missing 3.weight", "missing 3.bias", "unknown 1.weight", "unknown 1.bias"):
        assert problem in str(caught.value)
    assert "0.weight has shape (5, 2, 3, 3), expected (3, 2, 3, 3)" in str(caught.value)
    assert same(weights(net), before)


@pytest.mark.parametrize("where", ["write_bytes", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, where):
    path = tmp_path / "w.safetensors"
    save(model(seed=1), path, {"epoch": 1})
    before = path.read_bytes()
    write_bytes = Path.write_bytes

    def disk_full(self, data):
        if where == "write_bytes":
            write_bytes(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, where, disk_full)
    with pytest.raises(OSError, match="No space left"):
        save(model(seed=2), path, {"epoch": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_first_write_leaves_no_file(tmp_path, monkeypatch):
    def disk_full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save(model(), tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_json_can_not_hold_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "w"
    save(model(seed=1), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save(model(seed=2), path, {"array": np.ones(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        save(model(), tmp_path / "no" / "w")


def test_saving_again_replaces_the_file(tmp_path):
    save(model(seed=1), str(tmp_path / "w"))
    save(model(seed=2), str(tmp_path / "w"))
    assert same(read(str(tmp_path / "w"))[0], weights(model(seed=2)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]


def test_saving_reads_each_array_once_and_changes_no_weight(at, tmp_path):
    net = model(at.backend)
    before = weights(net)
    calls, _ = at.backend.transfers["to_host"]
    save(net, tmp_path / "w")
    if at.backend.spec != "numpy":
        assert at.backend.transfers["to_host"][0] - calls == 4
    assert same(weights(net), before)


def test_save_and_load_are_public():
    assert nn.save is save and nn.load is load
