"""Loading of part of a state, of names with a prefix, of narrow floats, and of files that PyTorch wrote."""

import builtins
import sys

import numpy as np
import pytest

import xpnn as nn


def net(seed=0, **placement) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dense(12, 2), seed=seed, **placement)


def host(model) -> dict[str, np.ndarray]:
    return {name: np.array(model.backend.to_numpy(array)) for name, array in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def run(at):
    """A net on the backend under test, and the state of another one, on the host."""
    return net(backend=at.backend), host(net(seed=1, backend=at.backend))


def test_all_names_fit(run):
    model, state = run
    assert model.load_state_dict(state) == ([], [])
    assert same(host(model), state)


def test_strict_lists_what_differs_and_changes_nothing(run):
    model, state = run
    before = host(model)
    del state["0.bias"]
    with pytest.raises(ValueError, match=r"missing 0\.bias; unknown extra"):
        model.load_state_dict(state | {"extra": np.zeros(1, np.float32)})
    assert same(host(model), before)


def test_without_strict_names_may_differ(run):
    model, state = run
    before = host(model)
    part = {name: array for name, array in state.items() if not name.startswith("3.")}
    found = model.load_state_dict(part | {"b": np.zeros(1), "a": "no array"}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["3.weight", "3.bias"], ["b", "a"])
    assert same(host(model), {name: part.get(name, before[name]) for name in before})


def test_without_strict_shapes_and_dtypes_must_fit(run):
    model, state = run
    before = host(model)
    part = {"0.weight": state["0.weight"], "3.bias": np.zeros(3, np.float32), "1.weight": np.zeros(3, np.int64)}
    with pytest.raises(ValueError, match=r"3\.bias has shape \(3,\), expected \(2,\)") as error:
        model.load_state_dict(part, strict=False)
    assert "1.weight holds int64, expected float32 or float64" in str(error.value)
    assert same(host(model), before)


@pytest.mark.parametrize("strict", [True, False])
def test_batch_norm_without_a_count_of_batches(run, strict):
    model, state = run
    model(model.backend.asarray(np.ones((2, 2, 4, 4), np.float32)))
    del state["1.num_batches_tracked"]
    assert model.load_state_dict(state, strict=strict) == ([], [])
    after = host(model)
    assert after.pop("1.num_batches_tracked") == 1
    assert same(after, state)


def test_float16_is_widened(run):
    model, state = run
    narrow = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in state.items()}
    model.load_state_dict(narrow)
    assert same(host(model), {name: a.astype(state[name].dtype) for name, a in narrow.items()})


def test_strict_must_be_a_flag(run):
    with pytest.raises(ValueError, match="strict must be True or False, got 'no'"):
        run[0].load_state_dict(run[1], strict="no")


def prefixed(path, prefix, *others):
    """A file of a net whose names have a prefix, and more arrays; returns the net's state."""
    part = host(net(seed=2))
    state = {prefix + name: array for name, array in part.items()}
    for other in others:
        state[other] = np.zeros(1, np.float32)
    path.write_bytes(nn.interop.safetensors.to_bytes(state, {"epoch": 4}))
    return part


def test_a_prefix_is_removed_and_other_parts_are_left_alone(tmp_path):
    state = prefixed(tmp_path / "w", "module.", "head.weight")
    model = net()
    found = nn.load(model, tmp_path / "w", prefix="module.")
    assert found == {"epoch": 4} and found.missing_keys == found.unexpected_keys == []
    assert same(host(model), state)


def test_the_error_says_which_prefix_is_in_front(tmp_path):
    prefixed(tmp_path / "w", "module.", "head.weight")
    with pytest.raises(ValueError, match=r"prefix='module\.'"):
        nn.load(net(), tmp_path / "w")
    found = nn.load(model := net(), tmp_path / "w", strict=False)
    assert found.missing_keys == [name for name in model.state_dict() if not name.endswith("tracked")]
    assert "head.weight" in found.unexpected_keys and "module.0.weight" in found.unexpected_keys


@pytest.mark.parametrize("kept", ["0.", "3.bias"])
def test_no_advice_on_a_prefix_if_only_some_names_have_it(kept):
    state = {("module." if name.startswith(kept) else "a_") + name: array for name, array in host(net()).items()}
    with pytest.raises(ValueError, match=r"missing 0\.weight") as error:
        net().load_state_dict(state)
    assert "prefix" not in str(error.value)


def test_no_advice_on_a_prefix_if_some_names_fit():
    state = host(net())
    state |= {f"module.{name}": array for name, array in state.items()}
    del state["0.weight"]
    with pytest.raises(ValueError, match=r"missing 0\.weight; unknown") as error:
        net().load_state_dict(state)
    assert "prefix" not in str(error.value)


def test_a_prefix_that_no_name_has(tmp_path):
    prefixed(tmp_path / "w", "module.")
    with pytest.raises(
        ValueError, match=r"no name begins with prefix 'model\.'; the first is 'module\.1\.num_batches_tracked'"
    ):
        nn.load(net(), tmp_path / "w", prefix="model.", strict=False)
    with pytest.raises(TypeError, match="prefix must be a str, got None"):
        nn.load(net(), tmp_path / "w", prefix=None)


def test_part_of_a_file(tmp_path):
    nn.save(net(seed=1), tmp_path / "w.safetensors", {"note": "a"})
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Identity(), seed=0)
    found = nn.load(model, tmp_path / "w.safetensors", strict=False)
    assert found == {"note": "a"}
    assert (found.missing_keys, found.unexpected_keys) == ([], ["3.bias", "3.weight"])


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="writes the files that are read")


def as_tensors(torch, state, dtype=None):
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    return {name: t.to(dtype) if dtype is not None and t.is_floating_point() else t for name, t in tensors.items()}


@pytest.mark.parametrize("suffix", [".pt", ".PTH", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch(torch, tmp_path, suffix, zipped):
    state, path = host(net(seed=3)), tmp_path / f"weights{suffix}"
    torch.save(as_tensors(torch, state), path, _use_new_zipfile_serialization=zipped)
    found = nn.load(model := net(), path)
    assert found == {} and found.missing_keys == found.unexpected_keys == []
    assert same(host(model), state)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_the_state_within_a_larger_file(torch, tmp_path, key):
    state = {f"module.{name}": array for name, array in host(net(seed=3)).items()}
    torch.save({"epoch": 3, key: as_tensors(torch, state), "optimizer": {"lr": 0.1}}, tmp_path / "a.pt")
    nn.load(model := net(), tmp_path / "a.pt", prefix="module.")
    assert same(host(model), host(net(seed=3)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_of_pytorch(torch, tmp_path, dtype):
    tensors = as_tensors(torch, host(net(seed=3)), getattr(torch, dtype))
    expected = {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}
    torch.save(tensors, tmp_path / "a.pt")
    nn.load(model := net(), tmp_path / "a.pt")
    assert same(host(model), expected)
    model = net()
    model.load_state_dict(tensors)
    assert same(host(model), expected)


def test_parameters_and_strided_tensors_of_pytorch(torch, tmp_path):
    module = torch.nn.Linear(3, 2)
    module.weight = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2).t())
    torch.save(dict(module.named_parameters()), tmp_path / "a.pt")
    nn.load(model := nn.Dense(3, 2), tmp_path / "a.pt")
    assert host(model)["weight"].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]


def test_a_file_of_code_is_refused(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a whole module is code: write torch\.save\(module\.state_dict\(\), path\)"):
        nn.load(nn.Dense(2, 2), tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a file of PyTorch"])
def test_a_damaged_file_of_pytorch(torch, tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match="can't be read as tensors by PyTorch"):
        nn.load(nn.Dense(2, 2), tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "got list"), ({"epoch": 3, "weights": {}}, "got 'epoch': int"), ({1: None}, "got 1: NoneType")],
)
def test_a_file_of_pytorch_without_a_state(torch, tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        nn.load(nn.Dense(2, 2), tmp_path / "a.pt")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        nn.load(nn.Dense(2, 2), tmp_path / "a.pt")
    (tmp_path / "b.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        nn.load(nn.Dense(2, 2), tmp_path / "b.pt")


def test_without_pytorch_the_message_says_how(monkeypatch, tmp_path):
    (tmp_path / "a.pt").write_bytes(b"PK")
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return original(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"pip install torch, or convert it where it is with safetensors\."):
        nn.load(nn.Dense(2, 2), tmp_path / "a.pt")
