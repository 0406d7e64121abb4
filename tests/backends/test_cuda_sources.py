"""The CUDA sources are compiled by NVIDIA's compiler, which needs no GPU; an emulated device uses another compiler.

It runs where the environment variable ``XPNN_NVRTC`` names a folder with NVRTC in it, as
``pip install --target FOLDER nvidia-cuda-nvrtc`` makes one.
"""

import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import nvrtc
import pytest

from xpnn.backends.engines.cuda import (
    adaptive_pool,
    batch_norm_source,
    cross_entropy,
    depthwise,
    im2col,
    optimizer_steps,
    pools,
    prelude,
    row_sums,
    rows_by_index,
)
from xpnn.backends.engines.cuda import winograd as tiles
from xpnn.backends.engines.cuda.compilation import C_TYPES
from xpnn.layers.convolution import winograd_transforms as winograd

VARIABLE = "XPNN_NVRTC"
MODULES = (adaptive_pool, batch_norm_source, cross_entropy, depthwise, im2col, pools, row_sums, rows_by_index)
SOURCES = {
    **{module.__name__.rpartition(".")[2]: module.SOURCE for module in MODULES},
    **{f"tiles of {m}": tiles.source(winograd.transforms(points, m)) for m, points in winograd.POINTS.items()},
    **{name: optimizer_steps._source(rule) for name, rule in optimizer_steps.RULES.items()},
}
# The oldest device of CUDA 13, and those of today.
DEVICES = ("sm_75", "sm_90", "sm_100")
# Structs that are passed to kernels by value: the source that defines each, and its NumPy dtype.
STRUCTS = {
    "Strides": ("pools", prelude.STRIDES),
    "Geometry": ("pools", prelude.GEOMETRY),
    "Divisor": ("pools", pools.DIVISOR),
    "Bins": ("adaptive_pool", adaptive_pool.BINS),
    "Sizes": ("cross_entropy", cross_entropy.TARGET_SIZES),
    "Row": ("adam", optimizer_steps.ROW),
}
# Names that are defined in headers, which NVRTC does not include.
MACROS = r"\b(NAN|INFINITY|HUGE_VALF?|[A-Z]+_(MAX|MIN|EPSILON)|M_[A-Z0-9_]+|u?int(8|16|32|64)_t|size_t|std)\b"


@pytest.fixture(scope="module")
def compiled():
    """`nvrtc.compiled` with the folder that the variable names, in another process."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} names no folder with NVRTC")
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        yield lambda code, *options: other.submit(nvrtc.compiled, folder, code, *options).result()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", C_TYPES)
@pytest.mark.parametrize("name", SOURCES)
def test_nvidias_compiler_accepts_each_source(compiled, name, dtype, device):
    # The rule of an optimizer need not use all variables of a step.
    unused = "--diag-suppress=177,550"
    options = [f"--gpu-architecture={device}", "-std=c++17", "--ptxas-options=-v", unused]
    status, log = compiled(SOURCES[name].code(dtype), *options)
    assert status == 0, log
    assert "warning" not in log, log
    # In a block of 512 threads each has 128 registers; what does not fit is stored in memory ("spilled").
    assert all(int(count) <= 128 for count in re.findall(r"Used (\d+) registers", log)), log
    assert set(re.findall(r"(\d+) bytes spill", log)) <= {"0"}, log


def test_the_compiler_reports_an_error(compiled):
    status, log = compiled("__global__ void k(float* x) { *x = NAN; }")
    assert status and '"NAN" is undefined' in log


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_are_as_large_as_their_dtypes(compiled, name):
    where, dtype = STRUCTS[name]
    check = f'static_assert(sizeof({name}) == {dtype.itemsize}, "");'
    status, log = compiled(SOURCES[where].code("float32") + check, "-std=c++17")
    assert status == 0, log


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_have_the_fields_of_their_dtypes_in_that_order(name):
    where, dtype = STRUCTS[name]
    body = re.search(rf"struct {name} {{(.*?)}};", SOURCES[where].code("float32"), re.DOTALL)[1]
    assert re.findall(r"(\w+)(?:\[\w+\])?[,;]", body) == list(dtype.names)


def test_the_arguments_of_a_step_fit_into_4_kib(compiled):
    check = 'static_assert(sizeof(Table) + sizeof(Settings) <= 4096, "");'
    status, log = compiled(SOURCES["sgd"].code("float32") + check, "-std=c++17")
    assert status == 0, log


@pytest.mark.parametrize("name", SOURCES)
def test_sources_use_nothing_of_headers(name):
    text = re.sub(r"//.*", "", SOURCES[name].code("float32"))
    assert not re.search(MACROS, text) and "#include" not in text
