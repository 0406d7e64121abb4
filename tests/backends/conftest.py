"""A CuPy that is not there: NumPy under CuPy's names, which fails wherever a test tells it to."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import array_api_compat.numpy
import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import cublas, registry


class CUDARuntimeError(RuntimeError):
    """As CuPy's: the name of the CUDA error, then its text."""


class FakeDevice:
    def __init__(self, index: int = 0) -> None:
        self.id = index

    def __eq__(self, other) -> bool:
        return isinstance(other, FakeDevice) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __enter__(self) -> "FakeDevice":
        return self

    def __exit__(self, *_) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeArray(np.ndarray):
    device = FakeDevice(0)


class FakeCupy:
    """What `xpnn.backends.cupy` asks of CuPy, as attributes that a test overwrites before it opens the backend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13020,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda index: {"name": b"Fake GPU"},
        )
        self.module = ModuleType("cupy")
        self.module.__version__ = "14.2.0"
        self.module.__path__ = []
        self.module.ndarray = FakeArray
        self.module.generic = FakeArray
        self.module.cuda = SimpleNamespace(runtime=self.runtime, Device=FakeDevice)
        self.module.array = lambda host: np.array(host).view(FakeArray)
        self.module.asnumpy = lambda array: np.array(array)
        namespace = ModuleType("array_api_compat.cupy")
        namespace.__dict__.update({k: v for k, v in vars(array_api_compat.numpy).items() if not k.startswith("__")})
        for module in (self.module, namespace):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        # It has no cuBLAS: products are the namespace's.
        monkeypatch.setattr(cublas.Products, "takes", lambda products, a, b: False)
        self.namespace = namespace

    def raises(self, where: str, error: Exception) -> None:
        """Let ``cupy.<where>`` or ``cupy.cuda.runtime.<where>`` raise."""

        def fail(*_args, **_keywords):
            raise error

        setattr(self.runtime if hasattr(self.runtime, where) else self.module, where, fail)


@pytest.fixture
def fresh_registry(monkeypatch):
    """The registry as in a new process: nothing is open yet."""
    monkeypatch.setattr(registry, "_opened", {})
    monkeypatch.setattr(registry, "_primitives", {})
    return registry


@pytest.fixture
def fake_cupy(monkeypatch, fresh_registry) -> FakeCupy:
    return FakeCupy(monkeypatch)


@pytest.fixture
def no_module(monkeypatch, fresh_registry):
    """Call it with a package's name, and the package is not installed."""

    def remove(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)

    return remove


@pytest.fixture
def refused(fresh_registry):
    """Open a backend that can't work, and get the error, checked for form: one line, a cause and a cure."""

    def open_it(spec: str) -> nn.BackendUnavailable:
        with pytest.raises(nn.BackendUnavailable) as caught:
            nn.get_backend(spec)
        error = caught.value
        assert error.cause and error.cure, "an unavailable backend says why and what mends it"
        assert str(error).count("\n") == 0, f"one line: {error}"
        assert error.cause in str(error) and error.cure in str(error)
        assert error.backend.partition(":")[0] == spec.partition(":")[0]
        return error

    return open_it
