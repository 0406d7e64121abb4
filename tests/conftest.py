"""Every test that computes runs on every backend here, and on inputs as unpleasant as users' inputs are.

A backend that can't be used is skipped with its reason; ``XPNN_REQUIRE_BACKENDS=torch,cupy`` makes that a failure.
"""

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.engines import numba
from xpnn.backends.kept_calls import forget_all
from xpnn.backends.overrides import Choices, using

# Compiled kernels would take the place of the array functions that are tested; their own tests switch them on. With
# XPNN_NUMBA=1 all tests but those of `array_functions` run with them.
os.environ.setdefault("XPNN_NUMBA", "0")
# What `pytest -m fuzz` draws from; the workers of a parallel run inherit it.
os.environ.setdefault("XPNN_FUZZ_SEED", str(random.SystemRandom().randrange(1 << 32)))

# name of the parameter -> (backend, whether the arrays that tests put there are read-only)
VARIANTS = {
    "numpy": ("numpy", False),
    "numpy-readonly": ("numpy", True),
    "strict": ("strict", False),
    "strict-device1": ("strict:device1", False),
    "strict-no-float64": ("strict:no_float64", False),
    "torch": ("torch", False),
    "cupy": ("cupy", False),
    "torch-cuda": ("torch:cuda:0", False),
}


def required() -> set[str]:
    return set(filter(None, os.environ.get("XPNN_REQUIRE_BACKENDS", "").split(",")))


def open_variant(name: str) -> nn.Backend:
    spec, _ = VARIANTS[name]
    try:
        opened = nn.get_backend(spec)
    except nn.BackendUnavailable as error:
        if name in required():
            pytest.fail(f"required by XPNN_REQUIRE_BACKENDS: {error}")
        pytest.skip(str(error))
    if name == "torch":
        # The tests' arrays are small; on a busy machine threads that wait for each other take ten times as long.
        import torch

        torch.set_num_threads(1)
    return opened


def pytest_configure(config):
    # A shell starts programs in the background with Ctrl-C ignored, and so would be all that tests interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if wrong := sorted(required() - set(VARIANTS)):
        names = ", ".join(VARIANTS)
        raise pytest.UsageError(
            f"XPNN_REQUIRE_BACKENDS must be names of {names}, with commas between, got {wrong[0]!r}"
        )


def pytest_addoption(parser):
    parser.addoption("--catalogue", metavar="FILE", help="write the table of what the catalogue's cases ran on")


def pytest_collection_modifyitems(items):
    """``-k cupy`` finds all that needs CuPy: its variants, and the tests of CuPy alone."""
    for item in items:
        if {"gpu", "on_gpu"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("cupy")


def pytest_terminal_summary(terminalreporter, config):
    """Say once which backends the tests ran on, and why not on the others."""
    if config.getoption("catalogue") and terminalreporter.getreports("passed"):
        write_catalogue(Path(config.getoption("catalogue")), terminalreporter.getreports("passed"))
    if "fuzz" in config.getoption("markexpr").replace("not fuzz", ""):
        terminalreporter.write_line(f"drawn from XPNN_FUZZ_SEED={os.environ['XPNN_FUZZ_SEED']}")
    for name, (spec, _) in VARIANTS.items():
        try:
            nn.get_backend(spec)
        except nn.BackendUnavailable as error:
            terminalreporter.write_line(f"skipped: all tests on {name}: {error.cause}")


def write_catalogue(path: Path, passed) -> None:
    """The table layer x backend with the dtypes in which its case passed."""
    ran: dict[str, dict[str, set[str]]] = {}
    for report in passed:
        for key, value in report.user_properties:
            if key == "catalogue":
                name, spec, dtype = value
                ran.setdefault(name, {}).setdefault(spec, set()).add(dtype)
    specs = list(dict.fromkeys(spec for backends in ran.values() for spec in backends))
    lines = [
        "# What runs where",
        "",
        "Forward and every gradient of each layer and loss, of whole nets, and 100 steps of each optimizer, in all",
        "configurations of the parity catalogue, compared with NumPy in float64. Written by",
        "`pytest tests/test_catalogue.py --catalogue=docs/catalogue.md` from what passed on the machine it ran on; a",
        "backend that is missing could not be used there.",
        "",
        f"| subject | {' | '.join(specs)} |",
        f"| --- |{' --- |' * len(specs)}",
    ]
    for name, backends in ran.items():
        cells = (" ".join(sorted(backends.get(spec, ()))) or "no" for spec in specs)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Place:
    """Where a test computes: a backend, and how arrays get there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.backend = open_variant(name)
        self.read_only = VARIANTS[name][1]

    def put(self, host, dtype=None):
        """A host array (or nested numbers) on the backend."""
        if isinstance(host, np.ndarray | np.generic) or dtype:
            host = np.asarray(host, dtype=dtype)
            if host.dtype == np.float64 and not self.wide_enough:
                pytest.skip("no float64 on this device")
        array = self.backend.asarray(host)
        if self.read_only:
            array = np.array(array)
            array.flags.writeable = False
        return array

    def get(self, array) -> np.ndarray:
        return self.backend.to_numpy(array)

    @property
    def xp(self):
        return self.backend.xp

    @property
    def wide_enough(self) -> bool:
        """Whether the device has float64."""
        return self.backend.has("float64")

    def wide(self) -> nn.Backend:
        """This backend with float64 as its default dtype."""
        if not self.wide_enough:
            pytest.skip("no float64 on this device")
        return nn.get_backend(self.backend, "float64")

    def computing(self, numerics: str) -> nn.Backend:
        """This backend in these numerics, of which exact ones need float64."""
        return nn.get_backend(self.wide() if numerics == "exact" else self.backend, "float32", numerics)

    def __repr__(self) -> str:
        return f"Place({self.name!r})"


@pytest.fixture(params=list(VARIANTS), scope="session")
def at(request) -> Place:
    return Place(request.param)


@pytest.fixture(
    params=[name for name, (spec, read_only) in VARIANTS.items() if not (spec.startswith("strict:") or read_only)],
    scope="session",
)
def exporting(request) -> Place:
    """Where arrays have `__dlpack__`; the second device of array-api-strict has none, and NumPy is once enough."""
    return Place(request.param)


@pytest.fixture(params=[name for name, (spec, _) in VARIANTS.items() if not spec.startswith("strict")], scope="session")
def with_16_bits(request) -> nn.Backend:
    """The backends that have 16-bit floats; array-api-strict has none."""
    return open_variant(request.param)


@pytest.fixture(scope="session", autouse=True)
def strictest():
    """The standard's newest version, and nothing of it that a library may leave out."""
    try:
        import array_api_strict
    except ImportError:
        yield
        return
    with array_api_strict.ArrayAPIStrictFlags(
        api_version=array_api_strict.__array_api_version__,
        boolean_indexing=False,
        data_dependent_shapes=False,
        enabled_extensions=(),
    ):
        yield


@pytest.fixture(scope="session")
def on_gpu() -> Place:
    """CuPy alone, on a GPU or on an emulated device; the test is skipped where there is none."""
    return Place("cupy")


@pytest.fixture(scope="session")
def gpu(on_gpu) -> nn.Backend:
    """CuPy's backend, on whatever device CuPy computes on."""
    return on_gpu.backend


@pytest.fixture
def exact(at):
    """The backend of this test in exact numerics."""
    if not at.wide_enough:
        pytest.skip("no float64 on this device")
    if at.read_only:
        pytest.skip("the backend of numpy once more")
    return nn.get_backend(at.backend, numerics="exact")


@pytest.fixture(params=["float16", "bfloat16"])
def mixed(request, with_16_bits) -> nn.Backend:
    """A backend in mixed precision."""
    return nn.get_backend(with_16_bits, precision=request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def compiled_kernels(monkeypatch):
    """The compiled kernels, switched on: the suite does without them otherwise."""
    pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
    monkeypatch.setenv("XPNN_NUMBA", "1")
    assert numba.used()


@pytest.fixture
def array_functions(monkeypatch):
    """Array functions compute, and no compiled kernels: the test is about what they do."""
    monkeypatch.setenv("XPNN_NUMBA", "0")


@pytest.fixture
def compiled_engine():
    """Operations are computed by compiled jobs where there are some; ``"kernels"`` is in the set if there were."""
    pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
    with using(Choices(kernels=True)) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_kept():
    """Calls of earlier tests with the same shapes are not repeated: what is patched is called."""
    forget_all()


@pytest.fixture(autouse=True)
def no_backend_variable(monkeypatch):
    """Tests say which backend and numerics they mean; the caller's environment does not."""
    monkeypatch.delenv("XPNN_BACKEND", raising=False)
    monkeypatch.delenv("XPNN_NUMERICS", raising=False)


@pytest.fixture(scope="session")
def torch():
    """PyTorch as an oracle, where it is installed."""
    if "torch" in required():
        import torch
    else:
        torch = pytest.importorskip("torch", reason="PyTorch is not installed: no oracle to compare with")
    return torch


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that asks a device without float64 for it has nothing to test there."""
    try:
        return (yield)
    except (nn.BackendUnavailable, TypeError) as error:
        at = pyfuncitem.funcargs.get("at")
        asked = ("does not compute float64", "has no dtype float64")
        if isinstance(at, Place) and not at.wide_enough and any(words in str(error) for words in asked):
            pytest.skip("no float64 on this device")
        raise
