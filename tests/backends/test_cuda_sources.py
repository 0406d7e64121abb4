"""The CUDA sources as NVIDIA's own compiler takes them, which needs no GPU; an emulated device may take more.

With ``pip install nvidia-cuda-nvrtc``; nothing of it is found otherwise, and the compiler's tests are skipped.
"""

import ctypes
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from xpnn.backends.engines.cuda import adaptive, columns, depthwise, losses, norms, pools, source, sums, updates
from xpnn.backends.engines.cuda import winograd as tiles
from xpnn.layers.convolution import winograd

MODULES = [adaptive, columns, depthwise, losses, norms, pools, sums]
SOURCES = {
    **{module.__name__.rpartition(".")[2]: module.SOURCE for module in MODULES},
    **{f"update, {name}": updates._source(rule) for name, rule in updates.RULES.items()},
    **{f"winograd, {m}": tiles.source(winograd.transforms(points, m)) for m, points in winograd.POINTS.items()},
}
# Structs that kernels take by value: of which source, and the dtype that the host writes.
STRUCTS = {
    "Strides": ("pools", source.STRIDES),
    "Geometry": ("pools", source.GEOMETRY),
    "Divisor": ("pools", pools.DIVISOR),
    "Bins": ("adaptive", adaptive.BINS),
    "Sizes": ("losses", losses.SIZES),
    "Row": ("update, adam", updates.ROW),
}
# Of C's headers, which NVRTC does not include.
MACROS = r"\b(NAN|INFINITY|HUGE_VALF?|[A-Z]+_(MAX|MIN|EPSILON)|M_[A-Z0-9_]+|u?int(8|16|32|64)_t|size_t|std)\b"


@pytest.fixture(scope="module")
def nvrtc():
    """The compiler, by the path of its package: another library of its name may be loaded."""
    if find_spec("nvidia") is None:
        pytest.skip("no package nvidia-cuda-nvrtc")
    folders = [Path(folder) for folder in importlib.import_module("nvidia").__path__]
    found = [path for folder in folders for path in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    if not found:
        pytest.skip("no package nvidia-cuda-nvrtc for Linux")
    # It asks for this one by its name alone.
    for builtins in found[-1].parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))
    return ctypes.CDLL(str(found[-1]))


def complaints(nvrtc, code):
    """What the compiler says of a source that it does not take; "" for one that it does."""
    options = [b"-std=c++17", b"-arch=sm_75", b"-ftz=true"]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"k.cu", 0, None, None) == 0
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0:
            return ""
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        return log.value.decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@pytest.mark.parametrize("dtype", source.TYPES)
@pytest.mark.parametrize("name", SOURCES)
def test_nvrtc_compiles(nvrtc, name, dtype):
    assert not complaints(nvrtc, SOURCES[name].code(dtype))


def test_the_compiler_complains_of_what_is_no_source(nvrtc):
    assert '"NAN" is undefined' in complaints(nvrtc, "__global__ void k(float* x) { *x = NAN; }")


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_are_as_large_as_their_dtypes(nvrtc, name):
    where, dtype = STRUCTS[name]
    check = f'static_assert(sizeof({name}) == {dtype.itemsize}, "");'
    assert not complaints(nvrtc, SOURCES[where].code("float32") + check)


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_have_the_fields_of_their_dtypes_in_that_order(name):
    where, dtype = STRUCTS[name]
    body = re.search(rf"struct {name} {{(.*?)}};", SOURCES[where].code("float32"), re.DOTALL)[1]
    assert re.findall(r"(\w+)(?:\[\w+\])?[,;]", body) == list(dtype.names)


def test_the_arguments_of_a_step_fit_into_4_kib(nvrtc):
    check = 'static_assert(sizeof(Table) + sizeof(Settings) <= 4096, "");'
    assert not complaints(nvrtc, SOURCES["update, sgd"].code("float32") + check)


@pytest.mark.parametrize("name", SOURCES)
def test_sources_use_nothing_of_headers(name):
    text = re.sub(r"//.*", "", SOURCES[name].code("float32"))
    assert not re.search(MACROS, text) and "#include" not in text
