"""array-api-strict: an implementation of the standard without any other functions.

Code that runs on it runs on any conforming library. It simulates devices whose arrays can't be mixed, so a host array
raises as it would on a GPU. Tests use it in place of a GPU on machines that have none.
"""

import importlib
from typing import Any

import numpy as np

from ..common.types import Array, Device, Namespace
from .backend import Backend
from .errors import BackendUnavailable
from .operations import Operations


class StrictOperations(Operations):
    """The standard's functions; slices are views, because its arrays are NumPy's inside."""

    views = True


class StrictBackend(Backend):
    """array-api-strict on one of its simulated devices."""

    operations = StrictOperations

    @classmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        try:
            strict = importlib.import_module("array_api_strict")
        except ImportError as error:
            raise BackendUnavailable(
                "strict", f"no package array-api-strict ({error})", 'pip install "array-api-strict>=2.4"'
            ) from None
        name = device or "CPU_DEVICE"
        try:
            handle = strict.Device(name)
        except ValueError:
            known = ", ".join(str(d)[len("array_api_strict.Device('") : -2] for d in _devices(strict))
            raise BackendUnavailable(
                f"strict:{name}", f"array-api-strict has no device {name!r}", f"choose one of {known}"
            ) from None
        return "strict" if name == "CPU_DEVICE" else f"strict:{name}", strict, handle

    @classmethod
    def spec_of(cls, array: Array) -> str:
        name = _name(array.device)
        return "strict" if name == "CPU_DEVICE" else f"strict:{name}"

    @classmethod
    def version(cls) -> str:
        strict = importlib.import_module("array_api_strict")
        return f"{strict.__version__} (standard {strict.__array_api_version__})"

    @property
    def is_host(self) -> bool:
        return self.spec == "strict"

    def has(self, dtype: str) -> bool:
        return dtype in self.xp.__array_namespace_info__().dtypes(device=self.device)

    @classmethod
    def memory_of(cls, array: Array) -> Any:
        return super().memory_of(array._array)

    def owns(self, array: Any) -> bool:
        return isinstance(array, type(self.xp.empty(0))) and array.device == self.device

    def _strides(self, array: Array) -> tuple[int, ...]:
        return tuple(array._array.strides)

    def import_dlpack(self, array: Any) -> Array:
        return self.xp.from_dlpack(array)

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        return self.xp.asarray(host, dtype=getattr(self.xp, host.dtype.name), device=self.device, copy=True)

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        on_host = self.xp.asarray(array, device=self.xp.Device("CPU_DEVICE"), copy=True)
        return np.array(on_host)


def _name(device: Device) -> str:
    return str(device).partition("'")[2].rstrip("')")


def _devices(strict: Namespace) -> list[Device]:
    return list(strict.__array_namespace_info__().devices())
