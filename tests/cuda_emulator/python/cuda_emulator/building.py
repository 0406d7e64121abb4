"""Builds the emulator for the CuPy of this environment, in half a minute."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .libraries import FOLDER

NATIVE = Path(__file__).parents[2] / "native"
# Kernels: without optimisation they are slow, with more of it they compile slowly. What CUDA promises and C++ does not:
# integers wrap around, and memory may be read as another type.
KERNEL_FLAGS = (
    *("-O1", "-w", "-fPIC", "-fno-strict-aliasing", "-fwrapv", "-fno-threadsafe-statics"),
    *("-mfma", "-mf16c", "-mpopcnt", "-D__CUDA_ARCH__=900"),
)
CONTRACTION = {"fused": "-ffp-contract=fast", "plain": "-ffp-contract=off"}
LIBRARY_FLAGS = ("-std=c++17", "-fPIC", "-Wall", "-Wextra", "-fno-strict-aliasing")
# Of CuPy, whose functions have the names and types that are replaced.
VERSIONS = (13, 14)
STANDARD_HEADERS = (
    *("array", "bit", "climits", "cmath", "complex", "cstddef", "cstdint", "limits", "tuple", "type_traits"),
    "utility",
)


class BuildError(Exception):
    """Something that is missing, and what to do about it."""


def run(*command: str | Path) -> str:
    """The output of a command; `BuildError` if it fails."""
    try:
        ran = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run ({error}); on Debian and Ubuntu: apt install g++") from None
    if ran.returncode:
        raise BuildError(f"{' '.join(map(str, command))}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


class Build:
    """The files of one build, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.compiler = os.environ.get("CXX", "g++")
        self.is_clang = "clang" in run(self.compiler, "--version")
        self.site = self._site_packages()
        self._check_version()
        self.major = self._cuda_major()
        self.cuda = self._cuda_headers()
        self.minor = self._cuda_minor()

    def _site_packages(self) -> Path:
        for place in map(Path, sys.path):
            if (place / "cupy" / "_core" / "include").is_dir():
                return place
        raise BuildError("CuPy is not installed: pip install cupy-cuda13x")

    def _check_version(self) -> None:
        text = (self.site / "cupy" / "_version.py").read_text(encoding="utf-8")
        found = re.search(r"__version__ = '((\d+)[^']*)'", text)
        if not found or int(found[2]) not in VERSIONS:
            version = found[1] if found else "an unknown version"
            raise BuildError(f"CuPy must be version 13 or 14, got {version}: pip install cupy-cuda13x")

    def _extension(self, name: str) -> Path:
        found = sorted(self.site.glob(f"{name}.*.so"))
        if not found:
            raise BuildError(f"CuPy has no extension {name}: use a wheel of CuPy 13 or 14 from PyPI")
        return found[0]

    def _cuda_major(self) -> int:
        """The version of CUDA that CuPy was built for, which is in the name of the cuBLAS that it needs."""
        needed = run("objdump", "-p", self._extension("cupy_backends/cuda/libs/cublas"))
        found = re.search(r"NEEDED +libcublas\.so\.(\d+)", needed)
        if not found:
            raise BuildError("this CuPy does not link cuBLAS: use a wheel of CuPy 13 or 14 from PyPI")
        return int(found[1])

    def _cuda_headers(self) -> Path:
        """The headers of the package nvidia-cuda-runtime: structs have NVIDIA's own layout."""
        for folder in (f"nvidia/cu{self.major}/include", "nvidia/cuda_runtime/include"):
            if (self.site / folder / "cuda_runtime_api.h").is_file():
                return self.site / folder
        packages = "nvidia-cuda-runtime nvidia-cuda-crt"
        if self.major == 12:
            packages = "nvidia-cuda-runtime-cu12 nvidia-cuda-nvcc-cu12"
        raise BuildError(f"the headers of CUDA {self.major} are missing: pip install {packages}")

    def _cuda_minor(self) -> int:
        text = (self.cuda / "cuda_runtime_api.h").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", text)
        if not found or int(found[1]) // 1000 != self.major:
            raise BuildError(f"the headers in {self.cuda} are not those of CUDA {self.major}")
        return int(found[1]) % 1000 // 10

    def digest(self) -> str:
        """Changes with all that a compiled kernel depends on, and so with CuPy's keys for its cache."""
        text = hashlib.sha256(repr((self.compiler, KERNEL_FLAGS, run(self.compiler, "--version"))).encode())
        for file in sorted([*NATIVE.glob("kernel/**/*"), *NATIVE.glob("compiler/*")]):
            if file.is_file():
                text.update(file.read_bytes())
        return text.hexdigest()[:16]

    def kernel_flags(self) -> list[str]:
        """Flags of every kernel, and of the prelude, which is compiled beforehand."""
        return [
            *KERNEL_FLAGS,
            *(() if self.is_clang else ("-fwhole-program",)),
            f"-DCUDA_EMULATOR_MAJOR={self.major}",
            f"-I{NATIVE / 'kernel'}",
            f"-I{NATIVE / 'kernel' / 'include'}",
            f"-I{self.folder / 'include'}",
            f"-I{self.site / 'cupy' / '_core' / 'include'}",
        ]

    def headers(self) -> None:
        """The names of libc++'s headers, which all mean the same file."""
        for name in STANDARD_HEADERS:
            path = self.folder / "include" / "cuda" / "std" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#pragma once\n#include <cuda_std.h>\n")

    def prelude(self, way: str) -> None:
        """The prelude, compiled with or without fused multiply-adds."""
        folder = self.folder / way
        folder.mkdir()
        (folder / "prelude.h").write_text(f'#include "{NATIVE / "kernel" / "prelude.h"}"\n')
        out = folder / ("prelude.h.pch" if self.is_clang else "prelude.h.gch")
        flags = [*self.kernel_flags(), CONTRACTION[way]]
        run(self.compiler, "-std=c++17", *flags, "-x", "c++-header", folder / "prelude.h", "-o", out)

    def configuration(self) -> None:
        """What the stand-in for NVRTC must know, as a header."""

        def quoted(values: Sequence[str]) -> str:
            return ", ".join(f'"{value}"' for value in values)

        lines = [
            f'#define CUDA_EMULATOR_COMPILER "{self.compiler}"',
            f'#define CUDA_EMULATOR_DIGEST "{self.digest()}"',
            f"#define CUDA_EMULATOR_MAJOR {self.major}",
            f"#define CUDA_EMULATOR_MINOR {self.minor}",
            f"#define CUDA_EMULATOR_FLAGS {quoted(self.kernel_flags())}",
        ]
        for way, contraction in CONTRACTION.items():
            header = self.folder / way / "prelude.h"
            included = ["-include-pch", f"{header}.pch"] if self.is_clang else ["-include", f"{header}"]
            lines.append(f"#define CUDA_EMULATOR_{way.upper()} {quoted([contraction, *included])}")
        (self.folder / "configuration.h").write_text("\n".join(lines) + "\n")

    def library(self, name: str, sources: str, *flags: str | Path) -> None:
        """A library that the dynamic loader takes for CUDA's of this name."""
        files = sorted((NATIVE / sources).glob("*.cpp"))
        # The packages of CUDA 12 have a folder each.
        include = [f"-I{self.cuda}", f"-I{self.site}/nvidia/cuda_nvcc/include", f"-I{self.folder}"]
        run(
            *(self.compiler, *LIBRARY_FLAGS, *include, "-shared", *files, *flags, f"-Wl,-soname,{name}"),
            *("-ldl", "-pthread", "-o", self.folder / name),
        )

    def missing_of_cublas(self) -> None:
        """The functions of cuBLAS that CuPy's extension needs and the emulator lacks, as a header of refusals."""
        needed = run("nm", "-D", "--undefined-only", self._extension("cupy_backends/cuda/libs/cublas"))
        names = set(re.findall(r"\b(cublas\w+)", needed))
        for file in NATIVE.glob("cublas/*.cpp"):
            text = file.read_text(encoding="utf-8")
            names -= set(re.findall(r"\bint (cublas\w+)\(", text))
            if "PRODUCTS(S" in text:
                names -= {f"cublas{x}gemm{kind}" for x in "SDCZ" for kind in ("_v2", "StridedBatched", "Batched")}
            names -= {f"cublas{name}_v2" for name in re.findall(r"^DOT\((\w+),", text, re.M)}
        (self.folder / "missing.h").write_text("".join(f"MISSING({name})\n" for name in sorted(names)))

    def all(self) -> None:
        """Everything, several parts at a time."""
        self.headers()
        self.configuration()
        self.missing_of_cublas()
        device, cublas = f"-L{self.folder}", f"libcublas.so.{self.major}"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = [
                pool.submit(self.library, "libcuda.so.1", "device", "-O2", "-Wl,-Bsymbolic"),
                pool.submit(self.library, f"libnvrtc.so.{self.major}", "compiler", "-O1"),
                *(pool.submit(self.prelude, way) for way in CONTRACTION),
            ]
            for part in parts:
                part.result()
        fast = ("-O3", "-mavx2", "-mfma", "-mf16c")
        self.library(cublas, "cublas", *fast, device, "-l:libcuda.so.1", "-Wl,-rpath,$ORIGIN")
        # CuPy asks for this one too, without calling it.
        empty = self.folder / "empty.cpp"
        empty.write_text('extern "C" int cublasLtGetVersion() { return 0; }\n')
        name = f"libcublasLt.so.{self.major}"
        run(self.compiler, "-shared", "-fPIC", empty, f"-Wl,-soname,{name}", "-o", self.folder / name)


def build(folder: Path = FOLDER) -> None:
    """Build everything in a folder. What is there already is deleted, except the cache of kernels, whose keys change.

    Raises
    ------
    BuildError
        If something is missing; the message says what to install.
    """
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text())) if sys.platform == "linux" else set()
    if not {"avx2", "fma", "f16c"} <= flags:
        raise BuildError("the emulated CUDA device needs Linux on a processor with AVX2, FMA and F16C")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and path.name != "cache":
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    Build(folder).all()
