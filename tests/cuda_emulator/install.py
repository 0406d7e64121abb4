"""Give a virtual environment an emulated CUDA device: run this with its Python.

    .venv/bin/python tests/cuda_emulator/install.py [CUPY]

Installs CuPy (``cupy-cuda13x==14.2.0``, or the given requirement) and NVIDIA's headers by pip, builds the emulator into
the environment, and writes ``cuda_emulator.pth``, which loads it into each process there. Takes about a minute.
"""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

PYTHON = Path(__file__).resolve().parent / "python"
CUPY = "cupy-cuda13x==14.2.0"
HEADERS = {
    "13": ["nvidia-cuda-runtime>=13,<14", "nvidia-cuda-crt>=13,<14"],
    "12": ["nvidia-cuda-runtime-cu12", "nvidia-cuda-nvcc-cu12"],
}
CHECK = """
import cupy
assert int(cupy.arange(10).sum()) == 45
name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
print(f"CuPy {cupy.__version__} computes on a device that is {name}")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cupy", nargs="?", default=CUPY, help=f"requirement of CuPy, {CUPY} by default")
    cupy = parser.parse_args().cupy
    if sys.prefix == sys.base_prefix:
        print("install.py: run this with the Python of a virtual environment: python3 -m venv .venv", file=sys.stderr)
        return 2
    wheels = [version for version in HEADERS if f"cuda{version}x" in cupy]
    if not wheels:
        print(f"install.py: CuPy must be cupy-cuda12x or cupy-cuda13x, got {cupy}", file=sys.stderr)
        return 2
    pip = [sys.executable, "-m", "pip", "install", "-q", cupy, *HEADERS[wheels[0]]]
    if status := subprocess.run(pip).returncode:
        return status
    sys.path.insert(0, str(PYTHON))
    from cuda_emulator.building import BuildError, build

    try:
        build()
    except BuildError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 1
    # A line of a .pth file that begins with import is run at the start of Python. The folder may be gone by then.
    add = f"sys.path.append({str(PYTHON)!r})"
    start = f"import os, sys; os.path.isdir({str(PYTHON)!r}) and ({add}, __import__('cuda_emulator').install())\n"
    Path(sysconfig.get_paths()["purelib"], "cuda_emulator.pth").write_text(start)
    return subprocess.run([sys.executable, "-c", CHECK]).returncode


if __name__ == "__main__":
    sys.exit(main())
