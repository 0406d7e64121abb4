"""An import hook that replaces functions in CuPy's extension modules before they run.

An extension is loaded in two steps: ``create_module`` opens the file, ``exec_module`` runs its code, which may call
CUDA. The functions are replaced between the two.
"""

import importlib.machinery
import os
import sys
from types import ModuleType
from typing import Any

from .libraries import device

# The extensions that have CUDA's runtime linked in, or Thrust, or CUB.
REPLACED = {
    "cupy_backends.cuda.api.runtime",
    "cupy.cuda.cub",
    "cupy.cuda.jitify",
    "cupy.cuda.thrust",
    "cupy.random._generator_api",
}
REASONS = {
    -1: "its file cannot be read",
    -2: "it has no table of symbols",
    -3: "a function could not be overwritten",
    0: "it has no function of CUDA",
}


class Loader:
    """The usual loader of an extension, with replaced functions."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = self._usual.create_module(spec)
        replaced = device().cuda_emulator_replace(os.fsencode(spec.origin or ""))
        if replaced <= 0:
            raise ImportError(
                f"the emulated CUDA device cannot run this CuPy: {spec.origin}: {REASONS[replaced]}. Use a wheel of "
                f"CuPy 13 or 14 from PyPI, or set CUDA_EMULATOR=0"
            )
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._usual.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


class Finder:
    """Finds what the usual finder finds, with another loader for the extensions in `REPLACED`."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name == "cupy_backends":
            device()
        if name not in REPLACED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            spec.loader = Loader(spec.loader)
        return spec


def install() -> None:
    """Let imports of CuPy in this process use the emulated device, unless ``CUDA_EMULATOR=0``."""
    if os.environ.get("CUDA_EMULATOR", "1") != "0" and Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
