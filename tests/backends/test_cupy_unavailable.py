"""A GPU that can't be used is an error with a cause and a cure, never an exception of CUDA.

CuPy's wheel imports on a machine without a GPU, so the backend tests for each thing that may be missing. The double of
CuPy in conftest.py lacks one at a time.
"""

import importlib
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

import xpnn as nn


def test_fake_cupy_that_lacks_nothing_computes(fake_cupy):
    b = nn.get_backend("cupy")
    assert b.spec == "cupy:0"
    assert b.to_numpy(b.asarray([1.0, 2.0]) * 2.0).tolist() == [2.0, 4.0]
    assert not b.is_host
    assert b.notes() == "Fake GPU; TF32 off; kernels off"


def test_cupy_not_installed(no_module, refused):
    no_module("cupy")
    error = refused("cupy")
    assert error.cause == "no package cupy"
    assert 'pip install "cupy-cuda13x[ctk]>=14"' in error.cure
    assert error.backend == "cupy:0"


def fail_to_import(monkeypatch, name: str, error: Exception) -> None:
    """Make ``import name`` raise, within the backend of that name only."""
    shipped = importlib.import_module(f"xpnn.backends.{name}")

    def import_module(wanted, package=None):
        if wanted == name:
            raise error
        return importlib.import_module(wanted, package)

    monkeypatch.setattr(shipped, "importlib", SimpleNamespace(import_module=import_module))


def test_cupy_with_a_broken_shared_library(monkeypatch, refused):
    fail_to_import(monkeypatch, "cupy", ImportError("libcublas.so.13: cannot open shared object file\n more\n lines"))
    error = refused("cupy")
    assert "does not import" in error.cause and "libcublas.so.13" in error.cause
    assert "pip install" in error.cure


def test_a_package_that_cupy_needs_is_not_cupy_missing(monkeypatch, refused):
    missing = ModuleNotFoundError("No module named 'cuda.pathfinder'", name="cuda.pathfinder")
    fail_to_import(monkeypatch, "cupy", missing)
    assert "cuda.pathfinder" in refused("cupy").cause


@pytest.mark.parametrize("version", ["13.6.0", "9.0.0", "13.0.0rc1"])
def test_cupy_older_than_14(fake_cupy, refused, version):
    fake_cupy.module.__version__ = version
    error = refused("cupy")
    assert version in error.cause and "14" in error.cause
    assert "pip install" in error.cure


@pytest.mark.parametrize("version", ["14.0.0", "14.2.0", "15.0.0a1"])
def test_cupy_14_and_newer_are_accepted(fake_cupy, version):
    fake_cupy.module.__version__ = version
    assert nn.get_backend("cupy").version() == version


def test_no_driver(fake_cupy, refused):
    fake_cupy.runtime.driverGetVersion = lambda: 0
    fake_cupy.raises("getDeviceCount", fake_cupy.runtime.CUDARuntimeError("cudaErrorInsufficientDriver: too old"))
    error = refused("cupy")
    assert "no NVIDIA driver/device" in str(error)
    assert "nvidia-smi" in error.cure
    assert "too old" not in str(error), "version 0 is no driver, not an old one"


def test_driver_that_does_not_answer_is_no_driver(fake_cupy, refused):
    fake_cupy.raises("driverGetVersion", fake_cupy.runtime.CUDARuntimeError("cudaErrorUnknown: unknown error"))
    assert "no NVIDIA driver/device" in str(refused("cupy"))


def test_the_error_for_an_old_driver_has_both_cuda_versions(fake_cupy, refused):
    fake_cupy.runtime.driverGetVersion = lambda: 12040
    fake_cupy.raises(
        "getDeviceCount",
        fake_cupy.runtime.CUDARuntimeError(
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
        ),
    )
    error = refused("cupy")
    assert "CUDA 12.4" in error.cause and "CUDA 13.2" in error.cause
    assert "update the driver" in error.cure


def test_driver_without_a_device(fake_cupy, refused):
    fake_cupy.raises(
        "getDeviceCount",
        fake_cupy.runtime.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"),
    )
    error = refused("cupy")
    assert "no NVIDIA device" in error.cause
    assert "CUDA_VISIBLE_DEVICES" in error.cure


def test_device_count_of_zero(fake_cupy, refused):
    fake_cupy.runtime.getDeviceCount = lambda: 0
    assert "no NVIDIA device" in refused("cupy").cause


def test_another_cuda_error_is_quoted(fake_cupy, refused):
    fake_cupy.raises(
        "getDeviceCount", fake_cupy.runtime.CUDARuntimeError("cudaErrorInitializationError: initialization error")
    )
    assert "cudaErrorInitializationError" in refused("cupy").cause


@pytest.mark.parametrize("index", [1, 3])
def test_device_number_too_high(fake_cupy, refused, index):
    error = refused(f"cupy:{index}")
    assert error.backend == f"cupy:{index}"
    assert f"no device {index}; this machine has 1" in error.cause
    assert 'write "cupy:0"' in error.cure


@pytest.mark.parametrize("spec", ["cupy:gpu", "cupy:-1", "cupy:0.5", "cupy:cuda:0"])
def test_device_that_is_no_number(fake_cupy, refused, spec):
    error = refused(spec)
    assert error.backend == spec
    assert "number" in error.cause and '"cupy:0"' in error.cure


def test_missing_compiler_shows_when_the_device_computes(fake_cupy, refused):
    fake_cupy.raises("array", RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: not found\n\nTraceback"))
    error = refused("cupy")
    assert "does not compute" in error.cause and "libnvrtc.so.13" in error.cause
    assert "[ctk]" in error.cure


def test_missing_cublas_shows_when_the_device_multiplies(fake_cupy, refused):
    def matmul(a, b):
        raise ImportError("libcublas.so.13: cannot open shared object file")

    fake_cupy.namespace.matmul = matmul
    assert "libcublas.so.13" in refused("cupy").cause


def test_wrong_result_is_not_usable(fake_cupy, refused):
    fake_cupy.namespace.matmul = lambda a, b: a + b
    assert "wrong" in refused("cupy").cause


def test_exception_without_a_text_is_named(fake_cupy, refused):
    fake_cupy.raises("array", MemoryError())
    assert "MemoryError" in refused("cupy").cause


def test_a_failure_is_not_remembered(fake_cupy, refused):
    fake_cupy.runtime.getDeviceCount = lambda: 0
    refused("cupy")
    fake_cupy.runtime.getDeviceCount = lambda: 1
    assert nn.get_backend("cupy").spec == "cupy:0"


def test_cuda_device_of_a_cpu_build_of_torch(torch, monkeypatch, refused):
    monkeypatch.setattr(torch.version, "cuda", None)
    error = refused("torch:cuda:0")
    assert error.backend == "torch:cuda:0"
    assert "CPU only" in error.cause and 'write "torch"' in error.cure


def test_cuda_build_of_torch_without_a_driver(torch, monkeypatch, refused):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "no NVIDIA driver/device" in refused("torch:cuda:0").cause


def test_cuda_device_number_too_high_for_torch(torch, monkeypatch, refused):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    error = refused("torch:cuda:2")
    assert "no device 2" in error.cause and "2" in error.cause


@pytest.mark.parametrize("spec", ["torch:xyz", "torch:meta", "torch:cpu:x", "torch:cuda:-1"])
def test_torch_device_that_does_not_exist(torch, refused, spec):
    assert 'write "torch" or "torch:cuda:0"' in refused(spec).cure or "CPU only" in refused(spec).cause


def test_torch_not_installed(no_module, refused):
    no_module("torch")
    error = refused("torch")
    assert "no package torch" in error.cause and error.cure == "pip install torch"


@pytest.mark.parametrize(
    "error",
    [ImportError("libc10.so: undefined symbol\n more\n lines"), OSError("libcudart.so.13: cannot open shared object")],
    ids=["ImportError", "OSError"],
)
def test_torch_with_a_broken_shared_library(torch, monkeypatch, refused, error):
    fail_to_import(monkeypatch, "torch", error)
    assert str(error).splitlines()[0] in refused("torch").cause


def test_cuda_device_of_torch_that_does_not_compute(torch, monkeypatch, refused):
    from xpnn.backends.torch import TorchBackend

    def no_kernel(backend, host):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with...")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(TorchBackend, "_put", no_kernel)
    monkeypatch.setattr(TorchBackend, "context", lambda backend: nullcontext())
    assert "no kernel image" in refused("torch:cuda:0").cause


def test_strict_names_its_devices(refused):
    error = refused("strict:device9")
    assert "device9" in error.cause
    for known in ("CPU_DEVICE", "device1", "device2"):
        assert known in error.cure


def test_strict_not_installed(no_module, refused):
    no_module("array_api_strict")
    error = refused("strict")
    assert "array-api-strict" in error.cause and error.cure == 'pip install "array-api-strict>=2.4"'


def test_numpy_has_one_device(refused):
    error = refused("numpy:1")
    assert "one device" in error.cause and error.cure == 'write "numpy"'
