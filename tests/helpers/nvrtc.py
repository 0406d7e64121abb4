"""NVRTC, NVIDIA's run-time compiler of CUDA C++, which needs no GPU.

Use it in a separate process: CuPy uses the NVRTC that its process has loaded, and with an emulated device it must not
use this one.
"""

import ctypes
from functools import cache
from pathlib import Path


@cache
def library(folder: str):
    """The library in a folder that ``pip install --target FOLDER nvidia-cuda-nvrtc`` made."""
    (found, *_) = sorted(Path(folder).glob("**/libnvrtc.so.*"))
    # NVRTC loads this one by its name without a path.
    for builtins in found.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))
    return ctypes.CDLL(str(found))


def compiled(folder: str, code: str, *options: str) -> tuple[int, str]:
    """NVRTC's status, 0 if it accepts the source, and its log."""
    nvrtc, program, size = library(folder), ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), given)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.value.decode()
