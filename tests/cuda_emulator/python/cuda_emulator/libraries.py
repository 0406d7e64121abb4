"""Loads the libraries that stand for CUDA's driver, NVRTC and cuBLAS.

CuPy opens them by their short names, such as ``libcuda.so.1``. The dynamic loader looks among the libraries of the
process first, and compares the name that each was built with, so what is loaded here is what CuPy gets.
"""

import ctypes
import functools
import os
import sys
from pathlib import Path
from typing import Any

#: Where `build` puts them, in the virtual environment.
FOLDER = Path(sys.prefix, "cuda_emulator")


@functools.cache
def device() -> Any:
    """The library with the device, after all of them have been loaded."""
    os.environ.setdefault("CUPY_CACHE_DIR", str(FOLDER / "cache"))
    # Others depend on the first; cuBLAS is looked up together with cublasLt.
    paths = [FOLDER / "libcuda.so.1", *sorted(FOLDER.glob("libnvrtc.so.*")), *sorted(FOLDER.glob("libcublas*.so.*"))]
    first, *_ = [ctypes.CDLL(str(path)) for path in paths]
    return first
