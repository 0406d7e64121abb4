"""A test double of CuPy: NumPy under CuPy's names, with functions that a test can make fail."""

import importlib
import sys
import threading
from types import ModuleType, SimpleNamespace

import array_api_compat.numpy
import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import lookup, registry
from xpnn.backends.cuda import matmul
from xpnn.backends.engines import cuda
from xpnn.backends.recording import guards


class CUDARuntimeError(RuntimeError):
    """As CuPy's: the name of the CUDA error, then its text."""


class FakeDevice:
    """As CuPy's: it has no hash, each thread has a current one, and an object remembers the device to return to."""

    current = threading.local()

    def __init__(self, index: int = 0) -> None:
        self.id = index
        self._before: list[int] = []

    def __eq__(self, other) -> bool:
        return isinstance(other, FakeDevice) and self.id == other.id

    __hash__ = None

    def __enter__(self) -> "FakeDevice":
        self._before.append(current_device())
        FakeDevice.current.id = self.id
        return self

    def __exit__(self, *_) -> None:
        FakeDevice.current.id = self._before.pop()

    def synchronize(self) -> None:
        pass


def current_device() -> int:
    """Index of the current device of this thread."""
    return getattr(FakeDevice.current, "id", 0)


class FakeArray(np.lib.mixins.NDArrayOperatorsMixin):
    """As CuPy's: a NumPy array inside, with no access to it that CuPy does not have.

    NumPy's arrays can't be combined with it, and nothing converts it silently; `test_doubles` compares it with CuPy's.
    """

    __module__ = "cupy"

    def __init__(self, host: np.ndarray, device: FakeDevice | None = None) -> None:
        self._host = host
        self.device = FakeDevice(current_device()) if device is None else device

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: self._host.flags)

    def transpose(self, *axes):
        return FakeArray(self._host.transpose(*axes), self.device)

    def __getitem__(self, index):
        index = _inside(index if isinstance(index, tuple) else (index,))
        whole = index if any(part is Ellipsis for part in index) else (*index, ...)  # else NumPy makes scalars
        return FakeArray(self._host[whole], self.device)

    def __setitem__(self, index, value):
        self._host[_inside(index)] = _inside(value)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **keywords):
        keywords |= {} if out is None else {"out": _inside(out)}
        result = getattr(ufunc, method)(*_inside(inputs), **keywords)
        return _outside(result) if out is None else out[0]

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one.")

    def __bool__(self):
        return bool(self._host)

    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)


def _inside(value):
    """CuPy's arrays as NumPy's, for a function of NumPy; arrays of NumPy itself are refused."""
    if isinstance(value, FakeArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return type(value)(map(_inside, value)) if isinstance(value, tuple | list) else value


def _outside(value):
    if isinstance(value, np.ndarray | np.generic):
        return FakeArray(np.asarray(value))
    return type(value)(map(_outside, value)) if isinstance(value, tuple | list) else value


def _function(function):
    """A function of NumPy's namespace as one of CuPy's; those that make arrays do so on the current device."""

    def call(*arguments, device=None, **keywords):
        return _outside(function(*_inside(arguments), **{name: _inside(value) for name, value in keywords.items()}))

    return call


def _array(host):
    """`cupy.array` of a host array: C order, unless it is in Fortran order as a whole."""
    return FakeArray(np.array(host, order="F" if np.asarray(host).flags.fnc else "C"))


def _asnumpy(array):
    """`cupy.asnumpy`: C order, always."""
    return np.array(array._host if isinstance(array, FakeArray) else array, order="C")


class FakeCupy:
    """What `xpnn.backends.cupy` uses of CuPy, as attributes that a test overwrites before it opens the backend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13020,
            getDeviceCount=lambda: 1,
            getDevice=current_device,
            getDeviceProperties=lambda index: {"name": b"Fake GPU"},
        )
        FakeDevice.current.id = 0
        self.module = ModuleType("cupy")
        self.module.__version__ = "14.2.0"
        self.module.__path__ = []
        self.module.ndarray = FakeArray
        self.module.generic = FakeArray
        self.module.cuda = SimpleNamespace(runtime=self.runtime, Device=FakeDevice)
        self.module.array = _array
        self.module.asnumpy = _asnumpy
        namespace = ModuleType("array_api_compat.cupy")
        for name, value in vars(array_api_compat.numpy).items():
            if not name.startswith("__"):
                is_function = callable(value) and not isinstance(value, type)
                setattr(namespace, name, _function(value) if is_function else value)
        namespace.asarray = lambda host, dtype=None, **_: host if isinstance(host, FakeArray) else _array(host)
        for module in (self.module, namespace):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        # It has no cuBLAS: products are the namespace's.
        monkeypatch.setattr(matmul.CublasMatmul, "accepts", lambda self, a, b: False)
        # Nor has it a compiler.
        monkeypatch.setattr(cuda, "enabled", False)
        self.namespace = namespace

    def raises(self, where: str, error: Exception) -> None:
        """Make ``cupy.<where>`` or ``cupy.cuda.runtime.<where>`` raise."""

        def fail(*_args, **_keywords):
            raise error

        setattr(self.runtime if hasattr(self.runtime, where) else self.module, where, fail)


@pytest.fixture
def fresh_registry(monkeypatch):
    """The registry as in a new process: nothing is open yet."""
    monkeypatch.setattr(registry, "_opened", {})
    monkeypatch.setattr(lookup, "_operations", {})
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
    """Open a backend that can't work; returns its error, which must be one line with a cause and a cure."""

    def open_it(spec: str) -> nn.BackendUnavailable:
        with pytest.raises(nn.BackendUnavailable) as caught:
            nn.get_backend(spec)
        error = caught.value
        assert error.cause and error.cure, "the error must say why and what to do"
        assert str(error).count("\n") == 0, f"one line: {error}"
        assert error.cause in str(error) and error.cure in str(error)
        assert error.backend.partition(":")[0] == spec.partition(":")[0]
        return error

    return open_it


@pytest.fixture
def nothing_compiles_in_a_recording(monkeypatch):
    """Fails a test in which a kernel is compiled, or loaded, while a step is recorded: its rehearsal should have."""
    try:
        from cupy.cuda import compiler
    except ImportError:
        yield
        return
    usual, inside = compiler._compile_module_with_cache, []

    def compile_it(source, *arguments, **keywords):
        mode = guards._mode.get()
        if mode is not None and mode.records:
            inside.append(source)
        return usual(source, *arguments, **keywords)

    monkeypatch.setattr(compiler, "_compile_module_with_cache", compile_it)
    yield
    assert not inside, f"a kernel was compiled, or loaded, inside a recording: {inside[0][-2000:]}"
