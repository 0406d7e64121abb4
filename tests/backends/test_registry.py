"""From names to backends: accepted names, the default, and error messages."""

import copy
import pickle
from dataclasses import FrozenInstanceError

import array_api_compat.numpy
import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import ambient_backend, backend_of, names, survey, to_host


def test_default_is_numpy_in_float32():
    b = nn.get_backend()
    assert b.spec == "numpy"
    assert (b.dtype_name, b.numerics, b.precision, b.algorithms) == ("float32", "fast", "float32", "any")
    assert b.dtype == np.float32
    assert b is nn.get_backend("numpy")


@pytest.mark.parametrize("namespace", [np, array_api_compat.numpy], ids=["numpy", "array_api_compat.numpy"])
def test_numpy_namespaces_name_numpy(namespace):
    assert nn.get_backend(namespace) is nn.get_backend("numpy")


def test_namespaces_of_other_libraries_name_their_backends(torch):
    strict = pytest.importorskip("array_api_strict")
    from array_api_compat import torch as compat_torch

    assert nn.get_backend(torch) is nn.get_backend("torch")
    assert nn.get_backend(compat_torch) is nn.get_backend("torch")
    assert nn.get_backend(strict) is nn.get_backend("strict")


def test_namespace_of_a_backend_names_it(at):
    assert nn.get_backend(at.xp).spec.partition(":")[0] == at.backend.spec.partition(":")[0]


def test_a_backend_is_its_own_name(at):
    assert nn.get_backend(at.backend) is at.backend
    assert nn.get_backend(at.backend.spec) is at.backend


def test_backend_of_an_array(at):
    x = at.put([1.0, 2.0])
    assert backend_of(x) is at.backend
    assert backend_of(x, like=at.wide()) is at.wide()


@pytest.mark.parametrize("thing", [1.0, [1.0], None, "numpy"])
def test_other_objects_have_no_backend(thing):
    with pytest.raises(TypeError, match=r"the argument must be an array of a backend, got .*; make one with"):
        backend_of(thing)


def test_to_host_accepts_arrays_and_numbers(at):
    assert to_host(at.put([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert to_host([1, 2]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("alias", "spec"),
    [
        ("numpy:cpu", "numpy"),
        ("torch:cpu", "torch"),
        ("torch:cpu:0", "torch"),
        ("strict:CPU_DEVICE", "strict"),
        ("strict:device1", "strict:device1"),
    ],
)
def test_two_names_of_one_device_are_one_backend(alias, spec):
    pytest.importorskip({"strict": "array_api_strict"}.get(spec.partition(":")[0], spec))
    b = nn.get_backend(alias)
    assert b.spec == spec
    assert b is nn.get_backend(spec) is nn.get_backend(alias)


def test_other_settings_are_other_backends_opened_once(at):
    wide = nn.get_backend(at.backend, "float64")
    assert wide is not at.backend and wide != at.backend
    assert wide.dtype_name == "float64" and wide.dtype == at.xp.float64
    assert wide is nn.get_backend(at.backend.spec, "float64") is nn.get_backend(at.backend, at.xp.float64)
    assert nn.get_backend(wide) is wide
    assert nn.get_backend(wide, "float32") is at.backend
    assert nn.get_backend(wide, precision="tf32").dtype_name == "float64", "a Backend brings its other settings"


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ({"dtype": "float16"}, "float32 or float64, got float16"),
        ({"dtype": "int32"}, "float32 or float64, got int32"),
        ({"dtype": ["float32"]}, r"float32 or float64, got \['float32'\]"),
        ({"dtype": 32}, "float32 or float64, got 32"),
        ({"numerics": "sloppy"}, "'fast' or 'exact', got 'sloppy'"),
        ({"numerics": True}, "'fast' or 'exact', got True"),
        ({"precision": "float8"}, "'float32', 'tf32', 'float16' or 'bfloat16', got 'float8'"),
        ({"precision": "direct"}, "'float32', 'tf32', 'float16' or 'bfloat16', got 'direct'"),
        ({"algorithms": "winograd"}, "'any' or 'direct', got 'winograd'"),
        ({"algorithms": True}, "'any' or 'direct', got True"),
        ({"slice_products": 4}, "1, 2 or 3, got 4"),
        ({"slice_products": True}, "1, 2 or 3, got True"),
    ],
)
def test_unknown_setting_lists_the_known(setting, known):
    with pytest.raises(ValueError, match=f"^{next(iter(setting))} must be {known}$"):
        nn.get_backend("numpy", **setting)


def test_precision_and_algorithms_combine(at):
    rounded, direct = nn.get_backend(at.backend, precision="tf32"), nn.get_backend(at.backend, algorithms="direct")
    both = nn.get_backend(at.backend, precision="tf32", algorithms="direct")
    assert [(b.precision, b.algorithms) for b in (at.backend, rounded, direct, both)] == [
        ("float32", "any"),
        ("tf32", "any"),
        ("float32", "direct"),
        ("tf32", "direct"),
    ]
    assert len({at.backend, rounded, direct, both}) == 4
    assert nn.get_backend(rounded, algorithms="direct") is nn.get_backend(direct, precision="tf32") is both
    assert nn.get_backend(both, algorithms="any") is rounded and nn.get_backend(both, precision="float32") is direct
    assert nn.get_backend(at.backend.spec, *both.settings) is both
    assert both.xp is rounded.xp and direct.xp is at.backend.xp
    assert "precision='tf32'" in repr(both) and "algorithms='direct'" in repr(both)


def test_use_backend_and_moves_by_name_keep_precision_and_algorithms():
    with nn.use_backend("numpy", precision="tf32", algorithms="direct") as b:
        assert (b.precision, b.algorithms) == ("tf32", "direct")
        made = nn.Dense(2, 2), nn.CrossEntropy(backend=b)
        assert made[0].backend is b
    for each in made:
        moved = each.to("strict")._backend
        assert (moved.spec, moved.precision, moved.algorithms) == ("strict", "tf32", "direct")
    x = np.ones(2, np.float32)
    assert backend_of(x, like=b) is b


@pytest.mark.parametrize("name", ["jax", "Numpy", "gpu:0"])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(ValueError, match=r"numpy, cupy, torch, strict.* or auto") as caught:
        nn.get_backend(name)
    assert repr(name.partition(":")[0]) in str(caught.value)
    assert not isinstance(caught.value, nn.BackendUnavailable)


@pytest.mark.parametrize("thing", [3, 1.5, object(), ["numpy"]])
def test_objects_that_name_no_backend_are_refused(thing):
    with pytest.raises(ValueError, match="backend must be a name, a Backend or an array namespace"):
        nn.get_backend(thing)


def test_use_backend_nests_and_ends(fresh_registry):
    pytest.importorskip("array_api_strict")
    assert ambient_backend() is None
    with nn.use_backend("strict") as outer:
        assert nn.get_backend() is outer is ambient_backend()
        with nn.use_backend("numpy", "float64") as inner:
            assert nn.get_backend() is inner
            assert inner.dtype_name == "float64"
        assert nn.get_backend() is outer
    assert ambient_backend() is None
    assert nn.get_backend().spec == "numpy"


def test_use_backend_ends_after_an_exception():
    with pytest.raises(ZeroDivisionError), nn.use_backend("numpy", "float64"):
        raise ZeroDivisionError
    assert ambient_backend() is None
    assert nn.get_backend().dtype_name == "float32"


def test_use_backend_that_can_not_be_used_changes_nothing():
    with pytest.raises(nn.BackendUnavailable), nn.use_backend("numpy:7"):
        raise AssertionError("the block must not run")
    assert ambient_backend() is None


def test_layers_made_within_use_backend_stay_there():
    pytest.importorskip("array_api_strict")
    with nn.use_backend("strict:device1") as b:
        layer = nn.Dense(2, 3)
    assert layer.backend is b


def test_environment_variable_is_the_last_choice_before_numpy(monkeypatch):
    pytest.importorskip("array_api_strict")
    monkeypatch.setenv("XPNN_BACKEND", "strict:device1")
    assert nn.get_backend().spec == "strict:device1"
    assert nn.get_backend("numpy").spec == "numpy"
    with nn.use_backend("strict"):
        assert nn.get_backend().spec == "strict"
    monkeypatch.setenv("XPNN_BACKEND", "")
    assert nn.get_backend().spec == "numpy"
    monkeypatch.setenv("XPNN_BACKEND", "abacus")
    with pytest.raises(ValueError, match="'abacus'"):
        nn.get_backend()


def test_auto_without_a_usable_cupy_is_numpy(no_module):
    no_module("cupy")
    assert nn.get_backend("auto") is nn.get_backend("numpy")
    assert nn.get_backend("auto", "float64") is nn.get_backend("numpy", "float64")


def test_auto_with_a_cupy_that_only_imports_is_numpy(fake_cupy):
    fake_cupy.runtime.driverGetVersion = lambda: 0
    assert nn.get_backend("auto").spec == "numpy"


def test_auto_with_a_usable_cupy_is_cupy(fake_cupy):
    assert nn.get_backend("auto").spec == "cupy:0"
    assert nn.get_backend("auto", "float64") is nn.get_backend("cupy", "float64")
    assert nn.get_backend("cupy:0") is nn.get_backend("cupy")


def test_survey_has_a_row_for_every_name_and_a_reason_for_each_unusable(no_module):
    no_module("cupy")
    rows = {row.name: row for row in survey()}
    assert {*names(), "torch:cuda:0"} == rows.keys()
    assert rows["numpy"].usable and rows["numpy"].version == np.__version__ and rows["numpy"].device == "cpu"
    assert not rows["cupy"].usable
    assert "no package cupy" in rows["cupy"].note and "pip install" in rows["cupy"].note
    for row in rows.values():
        assert row.version and row.device if row.usable else row.note


def test_survey_shows_a_usable_gpu(fake_cupy):
    row = next(row for row in survey() if row.name == "cupy")
    assert row.usable and row.version == "14.2.0" and "Fake GPU" in row.note


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copies_of_a_backend_are_the_backend(at, again):
    assert again(at.backend) is at.backend
    assert again(at.wide()) is at.wide()
    both = nn.get_backend(at.backend, precision="tf32", algorithms="direct")
    assert again(both) is both


def test_a_backend_is_frozen(at):
    with pytest.raises(FrozenInstanceError):
        at.backend.spec = "other"
    with pytest.raises(FrozenInstanceError):
        del at.backend.dtype_name


def test_backends_are_equal_by_name_and_settings(fresh_registry):
    one = nn.get_backend("numpy")
    fresh_registry._opened.clear()
    other = nn.get_backend("numpy")
    assert one is not other
    assert one == other and hash(one) == hash(other)
    for changed in ({"dtype": "float64"}, {"precision": "tf32"}, {"algorithms": "direct"}, {"slice_products": 3}):
        assert one != nn.get_backend("numpy", **changed)
    assert one != "numpy"


def test_repr_names_the_settings(at):
    text = repr(at.wide())
    assert repr(at.backend.spec) in text and "float64" in text and "\n" not in text
