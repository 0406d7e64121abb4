"""A backend that another package registers under the entry point group does all that the shipped ones do.

The other package is made here: a second copy of array-api-strict, loaded as ``tinylib``, which xpnn does not name
anywhere.
"""

import importlib.util
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import backend_of, names, operations_of, survey
from xpnn.backends.operations import Operations


def load_tinylib(monkeypatch) -> ModuleType:
    strict = pytest.importorskip("array_api_strict")
    spec = importlib.util.spec_from_file_location(
        "tinylib", strict.__file__, submodule_search_locations=list(strict.__path__)
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tinylib", module)
    spec.loader.exec_module(module)
    array_class = type(module.empty(0))
    monkeypatch.setattr(array_class, "__array_namespace__", lambda array, api_version=None: module)
    return module


class TinyBackend(nn.Backend):
    @classmethod
    def connect(cls, device):
        return "tinylib", sys.modules["tinylib"], sys.modules["tinylib"].Device("CPU_DEVICE")

    @classmethod
    def spec_of(cls, array):
        return "tinylib"

    @classmethod
    def version(cls):
        return "0.0"

    def owns(self, array):
        return isinstance(array, type(self.xp.empty(0)))

    def _put(self, host):
        return self.xp.asarray(host, copy=True)

    def _get(self, array):
        return np.array(array)


@pytest.fixture
def tiny(monkeypatch, fresh_registry):
    """A package that registers a backend by the name of its arrays' library."""
    load_tinylib(monkeypatch)
    package = ModuleType("tiny_package")
    package.TinyBackend = TinyBackend
    monkeypatch.setitem(sys.modules, "tiny_package", package)
    found = [EntryPoint("tinylib", "tiny_package:TinyBackend", "xpnn.backends")]
    monkeypatch.setattr(fresh_registry, "entry_points", lambda group: found if group == "xpnn.backends" else [])
    yield nn.get_backend("tinylib")
    for name in [name for name in sys.modules if name.startswith("tinylib.")]:
        del sys.modules[name]


def test_entry_point_backend_is_found_by_name(tiny):
    assert isinstance(tiny, TinyBackend)
    assert names() == ["numpy", "cupy", "torch", "strict", "tinylib"]
    assert nn.get_backend("tinylib", "float64").dtype_name == "float64"
    assert nn.get_backend(sys.modules["tinylib"]) is tiny


def test_entry_point_backend_is_in_the_survey_and_in_the_message_of_unknown_names(tiny):
    row = next(row for row in survey() if row.name == "tinylib")
    assert row.usable and row.version == "0.0"
    with pytest.raises(ValueError, match="strict, tinylib or auto"):
        nn.get_backend("abacus")


def test_entry_point_backend_trains_layers_as_numpy_does(tiny, rng):
    x, dy = rng.standard_normal((2, 3, 5, 5)).astype("float32"), rng.standard_normal((2, 4)).astype("float32")
    results = []
    for b in (nn.get_backend("numpy"), tiny):
        model = nn.Sequential(
            nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(8, 4), backend=b, seed=5
        )
        y = model.forward(b.asarray(x))
        dx = model.backward(b.asarray(dy))
        assert b.owns(y) and b.owns(dx)
        results.append((y, dx, *(p.grad for _, p in model.named_parameters())))
    for on_numpy, on_tiny in zip(*results, strict=True):
        nn.testing.assert_match(on_tiny, on_numpy, level="reduction", terms=75, backend=tiny)


def test_a_model_moves_to_an_entry_point_backend_and_back(tiny):
    model = nn.Dense(2, 3, seed=1)
    before = np.array(model.parameters["weight"].value)
    assert tiny.owns(model.to("tinylib").parameters["weight"].value)
    assert model.to("numpy").parameters["weight"].value.tolist() == before.tolist()


def test_arrays_of_an_entry_point_backend_are_refused_elsewhere(tiny):
    x = tiny.asarray([1.0])
    assert backend_of(x) is tiny
    with pytest.raises(TypeError, match="tinylib"):
        nn.get_backend("numpy").asarray(x)


def test_an_entry_point_backend_without_its_own_operations_gets_the_standard_ones(tiny):
    assert type(operations_of(tiny.xp)) is Operations


def test_an_entry_point_does_not_replace_a_shipped_backend(tiny, fresh_registry, monkeypatch):
    other = EntryPoint("numpy", "tiny_package:TinyBackend", "xpnn.backends")
    monkeypatch.setattr(fresh_registry, "entry_points", lambda group: [other])
    assert nn.get_backend("numpy").spec == "numpy"
    assert names().count("numpy") == 1
