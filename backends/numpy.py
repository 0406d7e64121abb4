"""NumPy: the host computes. The reference that the other backends are compared with."""

from typing import Any

import array_api_compat.numpy
import numpy as np
from numpy.lib.stride_tricks import as_strided

from .backend import Backend
from .errors import BackendUnavailable
from .primitives import Primitives
from .types import Array, Device, Namespace
from .windows import Windows


class NumpyPrimitives(Primitives):
    """Windows as a strided view: nothing is copied until the product needs contiguous columns."""

    def windows(self, x: Array, windows: Windows) -> Array:
        spatial = x.strides[1:-1]
        apart = (s * n for s, n in zip(spatial, windows.stride, strict=True))
        within = (s * n for s, n in zip(spatial, windows.dilation, strict=True))
        return as_strided(
            x,
            shape=(x.shape[0], *windows.count, *windows.kernel, x.shape[-1]),
            strides=(x.strides[0], *apart, *within, x.strides[-1]),
            writeable=False,
        )


class NumpyBackend(Backend):
    """The CPU, through NumPy and its BLAS."""

    primitives = NumpyPrimitives

    @classmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        if device not in (None, "cpu"):
            raise BackendUnavailable(f"numpy:{device}", "NumPy has one device, the CPU", 'write "numpy"')
        return "numpy", array_api_compat.numpy, "cpu"

    @classmethod
    def spec_of(cls, array: Array) -> str:
        return "numpy"

    @classmethod
    def version(cls) -> str:
        return np.__version__

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray | np.generic)

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        return host

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def notes(self) -> str:
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return f"BLAS {blas['name']} {blas['version']}"
