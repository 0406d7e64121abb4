"""What only an emulated device does: it counts, finds mistakes that a GPU may hide, and refuses CuPys it cannot run."""

import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from device_counts import MODES, device_counts, require_emulator

HERE = Path(__file__).parent
GOLDEN = "../testing/test_golden_runs.py"


@pytest.fixture
def cp(gpu):
    require_emulator("the device is not emulated")
    import cupy

    return cupy


def python(program, **environment):
    """What a program prints in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.strip()


def run_tests(*files, expression="", **environment):
    """Run tests of other files in a process with other settings of the emulator."""
    paths = [str(HERE / file) for file in files]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, "-k", expression]
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]


def test_operations_are_counted(cp):
    x, host = cp.arange(16, dtype="float32").reshape(4, 4), np.zeros(8, "float32")
    x + 1
    cp.matmul(x, x)
    with device_counts() as counts:
        y = x + 1
        cp.matmul(x, x)
        y.data.memset_async(0, 16)
        cp.cuda.runtime.memcpyAsync(y.data.ptr, x.data.ptr, 16, 3, 0)
        cp.cuda.runtime.memcpyAsync(y.data.ptr, host.ctypes.data, 16, 1, 0)
        cp.cuda.Device().synchronize()
        x.get()
    assert counts == {"kernels": 1, "others": 1, "fills": 1, "within": 1, "to_device": 1, "to_host": 1, "waits": 3}


def test_memory_that_was_not_written_is_nan(cp):
    found = python("import cupy; print(bool(cupy.isnan(cupy.empty(1000, 'float32')).all()))")
    assert found == "True"
    zeros = "import cupy; print(bool(cupy.isnan(cupy.empty(1000, 'float32')).any()))"
    assert python(zeros, CUDA_EMULATOR_POISONED="0") == "False"


def test_shared_memory_is_not_that_of_the_block_before(cp):
    f = cp.RawKernel(
        """
        extern "C" __global__ void f(float* x) {
            __shared__ float s[1];
            if (blockIdx.x == 0) s[0] = 1;
            __syncthreads();
            x[blockIdx.x] = s[0];
        }
        """,
        "f",
    )
    x = cp.zeros(2, "float32")
    f((2,), (1,), (x,))
    assert np.isnan(x.get()[1])


def test_threads_that_wait_for_each_other_for_ever_are_an_error(cp, capfd):
    # The first 16 lanes wait for the others, which wait for them elsewhere.
    g = cp.RawKernel(
        """
        extern "C" __global__ void g(int* x) {
            if (threadIdx.x < 16) __syncwarp(~0u);
            else __syncthreads();
        }
        """,
        "g",
    )
    x = cp.zeros(1, "int32")
    g((1,), (32,), (x,))
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="launch failure"):
        cp.cuda.Device().synchronize()
    assert "threads of kernel g wait for each other for ever" in capfd.readouterr().err
    # The device goes on.
    assert int((cp.arange(3) + 1).sum()) == 6


FIRST_OF_ALL = """
import cupy
f = cupy.RawKernel('''
extern "C" __global__ void f(int* x) { atomicCAS(x, -1, blockIdx.x * 10 + threadIdx.x); }
''', "f")
x = cupy.full(1, -1, "int32")
f((3,), (4,), (x,))
print(int(x[0]))
"""


def test_threads_run_in_reversed_order_if_asked(cp):
    assert python(FIRST_OF_ALL) == "0"
    assert python(FIRST_OF_ALL, CUDA_EMULATOR_REVERSED="1") == "23"


UNORDERED = """
import cupy
first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
x, y = cupy.zeros(4), cupy.zeros(4)
x + 1
cupy.cuda.Device().synchronize()
with first:
    x += 1
with second:
    y = x + 1
second.synchronize()
with second:
    print(int(y.sum()))
"""


def test_a_late_stream_shows_what_was_not_waited_for(cp):
    assert python(UNORDERED) == "8"
    assert python(UNORDERED, CUDA_EMULATOR_LATE="all") == "4"


@pytest.mark.parametrize("late", MODES)
def test_streams_and_captures_are_the_same_when_late(cp, late):
    run_tests("test_streams.py", "test_captures.py", "test_memory.py", CUDA_EMULATOR_LATE=late)


def test_operations_are_the_same_in_reversed_order(cp):
    chosen = "test_kernels or reductions or running or scattered or assignments"
    run_tests("test_operations.py", "test_kernels.py", expression=chosen, CUDA_EMULATOR_REVERSED="1")


def test_exact_numerics_depend_on_none_of_the_settings(cp):
    """Golden hashes, with late streams, threads in reversed order, subnormal numbers, and no fused multiply-adds."""
    settings = {"LATE": "all", "REVERSED": "1", "FLUSH": "none", "FMAD": "0"}
    run_tests(GOLDEN, expression="cupy", **{f"CUDA_EMULATOR_{name}": value for name, value in settings.items()})


def test_a_wrong_setting_is_an_error_that_names_the_right_ones(cp):
    run = subprocess.run(
        [sys.executable, "-c", "import cupy; cupy.arange(3)"],
        env={**os.environ, "CUDA_EMULATOR_LATE": "very"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "must be one of none all blocking nonblocking random, got very" in run.stderr


def test_an_extension_without_functions_of_cuda_is_refused(cp):
    from cuda_emulator import importing

    class Usual:
        @staticmethod
        def create_module(spec):
            return None

    import numpy.random._mt19937 as other

    spec = importlib.machinery.ModuleSpec("cupy_backends.cuda.api.runtime", None, origin=other.__file__)
    with pytest.raises(ImportError, match=r"cannot run this CuPy.*Use a wheel of CuPy 13 or 14 .*CUDA_EMULATOR=0"):
        importing.Loader(Usual()).create_module(spec)


def test_a_cupy_of_another_version_is_refused_by_the_build(cp, tmp_path):
    from cuda_emulator.building import Build, BuildError

    build = object.__new__(Build)
    build.site = tmp_path
    (tmp_path / "cupy").mkdir()
    for version in ("12.3.0", "15.0.0a1"):
        (tmp_path / "cupy" / "_version.py").write_text(f"__version__ = '{version}'\n")
        with pytest.raises(BuildError, match=f"must be version 13 or 14, got {version}"):
            build._check_version()


def test_without_the_emulator_cupy_is_left_alone(cp):
    program = "import sys; print(any('cuda_emulator' in repr(each) for each in sys.meta_path))"
    assert python(program) == "True"
    assert python(program, CUDA_EMULATOR="0") == "False"


def test_functions_that_are_not_emulated_say_their_names(cp, capfd):
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="not supported"):
        cp.cuda.runtime.ipcGetMemHandle(cp.zeros(1).data.ptr)
    assert "cudaIpcGetMemHandle is not emulated" in capfd.readouterr().err


def test_counts_have_the_names_of_the_device(cp):
    from cuda_emulator import counts

    text = (HERE / "native" / "device" / "counts.h").read_text()
    assert f"enum Count {{ {', '.join(counts())}, count_of_counts }}" in text
