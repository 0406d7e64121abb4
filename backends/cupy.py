"""CuPy on an NVIDIA GPU.

The CuPy wheel imports on a machine without a GPU, too, so `connect` queries the driver, then the device, and
`Backend.open` lets the device compute. CuPy creates arrays on the current device and ignores ``device=``, so all work
is done within `context`, which sets the current device and restores the caller's. CuPy's own setting for
TF32 holds for the whole process; it is not changed, since each namespace has its own precision (see
`xpnn.backends.cuda.namespace`).
"""

import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np

from ..common import checks, environment
from ..common.types import Array, Device, Namespace
from .backend import Backend, P, R
from .cuda.namespace import CupyNamespace, cupy_namespace
from .cuda.narrow import narrow_format
from .cuda.operations import CupyOperations
from .engines import cuda
from .engines.cuda import elementwise
from .errors import BackendUnavailable, first_line
from .library import NO_CONTEXT
from .memory_order import axes_in_memory, inverse
from .narrow import NarrowFormat
from .recording.compiled_step import CompiledStep
from .recording.guards import RECORDING
from .sole_reference import ONE_REFERENCE, is_weakly_held
from .upload import Uploader

OLDEST = 14
INSTALL = 'pip install "cupy-cuda13x[ctk]>=14" (for a driver of CUDA 12: "cupy-cuda12x[ctk]>=14")'


class CupyBackend(Backend):
    """One NVIDIA GPU, through CuPy."""

    operations = CupyOperations
    cure = INSTALL

    @classmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        if device is not None and not device.isdecimal():
            raise BackendUnavailable(f"cupy:{device}", "a CuPy device is a number", 'write "cupy" or "cupy:0"')
        spec = f"cupy:{int(device or 0)}"
        environment.value(environment.CUDA_KERNELS)
        cupy = _import_cupy(spec)
        index = _find_device(cupy.cuda.runtime, spec, int(device or 0))
        return spec, importlib.import_module("array_api_compat.cupy"), cupy.cuda.Device(index)

    @classmethod
    def namespace(cls, namespace: Namespace, precision: str = "float32") -> Namespace:
        if isinstance(namespace, CupyNamespace):
            return namespace
        return cupy_namespace(namespace, importlib.import_module("cupy"), precision == "tf32")

    @classmethod
    def narrow_format(cls, name: str) -> NarrowFormat | None:
        return narrow_format(name)

    @cached_property
    def product_xp(self) -> Namespace:
        if self.narrow is None:
            return self.xp
        return cupy_namespace(self.xp.compat, self._cupy, narrow=self.narrow.name)

    @classmethod
    def spec_of(cls, array: Array) -> str:
        return f"cupy:{array.device.id}"

    @classmethod
    def version(cls) -> str:
        return str(importlib.import_module("cupy").__version__)

    @cached_property
    def _cupy(self) -> Any:
        return importlib.import_module("cupy")

    @property
    def is_host(self) -> bool:
        return False

    @classmethod
    def is_plain(cls, kind: type) -> bool:
        return kind is importlib.import_module("cupy").ndarray

    @classmethod
    def is_sole_array(cls, array: Array) -> bool:
        # Views refer to the array that they are made of, and share its block of memory. An array of foreign memory has
        # a block of another class.
        views = 1
        while array.base is not None:
            if sys.getrefcount(array.base) != ONE_REFERENCE or is_weakly_held(array):
                return False
            array, views = array.base, views + 1
        block = type(array.data.mem).__name__
        return (
            block in ("PooledMemory", "Memory")
            and not is_weakly_held(array)
            and sys.getrefcount(array.data) == ONE_REFERENCE
            and sys.getrefcount(array.data.mem) == ONE_REFERENCE - 1 + views
        )

    def owns(self, array: Any) -> bool:
        return type(array) is self._cupy.ndarray and bool(array.device == self.device)

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        # CuPy copies an array that is in neither C nor Fortran order into C order.
        axes = axes_in_memory(host.strides)
        return self._cupy.array(host.transpose(axes)).transpose(inverse(axes))

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        with self.context():
            axes = axes_in_memory(array.strides)
            return np.asarray(self._cupy.asnumpy(array.transpose(axes))).transpose(inverse(axes))

    def _widened(self, array: Array) -> Array:
        if not cuda.used():
            return super()._widened(array)
        return elementwise.apply("widened", array, like=array, dtype="float64")

    def _narrowed(self, array: Array) -> Array:
        if not cuda.used():
            return super()._narrowed(array)
        return elementwise.apply("narrowed", array, like=array, dtype="float32")

    def context(self) -> AbstractContextManager[None]:
        """This device as the current one, and the previous one afterwards; cheap if it is current already."""
        if self._cupy.cuda.runtime.getDevice() == self.device.id:
            return NO_CONTEXT
        entered: AbstractContextManager[None] = self._on_device()
        return entered

    def _on_device(self) -> Any:
        """A new device object: each remembers the device to return to, so two threads must not share one."""
        return self._cupy.cuda.Device(self.device.id)

    def synchronize(self) -> None:
        # A wait for the whole device would break a recording of another thread.
        with RECORDING:
            self._on_device().synchronize()

    def compile(self, step: Callable[P, R], *owners: Any) -> Callable[P, R]:
        """A `CompiledStep`: a CUDA graph for each form of its arguments and settings, from the third call of a form on.

        The first call of a training step makes gradients and the optimizer's state, and is a form of its own. See
        `xpnn.backends.recording.compiled_step` for the rules, and for what raises a `CaptureError`. Array arguments
        must be of this backend; results are copies. In mixed precision it is the step itself.
        """
        if self.narrow is not None:
            return step
        return CompiledStep(step, owners, self._recorder)

    @cached_property
    def _recorder(self) -> Any:
        """The recorder of this backend; all compiled steps share its stream."""
        from .cuda.graph import GraphRecorder

        return GraphRecorder(self, self._cupy)

    def uploader(self) -> Uploader:
        return self._uploader

    @cached_property
    def _uploader(self) -> Uploader:
        """The uploader of this backend; all loaders share its stream and buffers."""
        from .cuda.pinned import PinnedUploader

        return PinnedUploader(self, self._cupy)

    def memory(self, limit: int | None = None) -> dict[str, int]:
        """Bytes of CuPy's pool on this device; CuPy records no peak, so ``peak`` is the size of the pool."""
        with self._on_device():
            pool = self._cupy.get_default_memory_pool()
            if limit is not None:
                pool.set_limit(size=checks.integer("limit", limit, 0))
            return {"in_use": pool.used_bytes(), "peak": pool.total_bytes(), "pool": pool.total_bytes()}

    def reset_peak(self) -> bool:
        """Return the pool's unused memory to the driver, so that its size from now on is the peak.

        The next steps allocate from the driver again, which takes milliseconds.
        """
        self.free_memory()
        return True

    def capacity(self) -> tuple[int, int]:
        """Bytes of memory of the device, or the pool's limit if that is less, and bytes in use by all processes."""
        with self._on_device():
            free, total = self._cupy.cuda.runtime.memGetInfo()
            pool = self._cupy.get_default_memory_pool()
            limit = pool.get_limit()
            return (limit, pool.used_bytes()) if 0 < limit < total else (total, total - free)

    def free_memory(self) -> None:
        with self._on_device():
            self._cupy.get_default_memory_pool().free_all_blocks()

    def is_out_of_memory(self, error: BaseException) -> bool:
        if super().is_out_of_memory(error):
            return True
        # Allocations outside of the pool (contexts, modules, cuBLAS's workspace) raise the runtime's own errors.
        words = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")
        return isinstance(error, RuntimeError) and any(word in str(error) for word in words)

    def notes(self) -> str:
        name = self._cupy.cuda.runtime.getDeviceProperties(self.device.id)["name"].decode()
        rounding, kernels = "on" if self.precision == "tf32" else "off", "" if cuda.used() else "; kernels off"
        mixed = "" if self.narrow is None else f"; products of {self.precision}"
        return f"{name}; TF32 {rounding}{mixed}{kernels}"


def _import_cupy(spec: str) -> Any:
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise BackendUnavailable(spec, "no package cupy", INSTALL) from None
        raise BackendUnavailable(spec, f"the package cupy does not import ({first_line(error)})", INSTALL) from error
    if int(cupy.__version__.partition(".")[0]) < OLDEST:
        raise BackendUnavailable(spec, f"CuPy {cupy.__version__} is too old, {OLDEST} is needed", INSTALL)
    return cupy


def _find_device(runtime: Any, spec: str, index: int) -> int:
    """The device's index if the driver has it; raises `BackendUnavailable` with the cause otherwise.

    Without a driver CUDA reports an *insufficient* one, of version 0.
    """
    try:
        driver = runtime.driverGetVersion()
    except runtime.CUDARuntimeError:
        driver = 0
    if driver == 0:
        raise BackendUnavailable(
            spec, "no NVIDIA driver/device", "install the NVIDIA driver and check nvidia-smi, or use another backend"
        )
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error):
            raise BackendUnavailable(
                spec,
                f"the NVIDIA driver is too old: it supports CUDA {_cuda_version(driver)}, "
                f"this CuPy was built for CUDA {_cuda_version(runtime.runtimeGetVersion())}",
                'update the driver, or pip install "cupy-cuda12x[ctk]>=14"',
            ) from None
        if "NoDevice" not in str(error):
            raise BackendUnavailable(spec, f"CUDA reports {first_line(error)}", "check nvidia-smi") from None
        count = 0
    if count == 0:
        raise BackendUnavailable(
            spec, "no NVIDIA device (the driver is installed)", "check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    if index >= count:
        raise BackendUnavailable(spec, f"no device {index}; this machine has {count}", 'write "cupy:0"')
    return index


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
