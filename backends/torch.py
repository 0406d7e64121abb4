"""PyTorch tensors on a CPU or a CUDA device as plain arrays: without autograd and without `torch.nn`."""

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, cached_property, partial
from typing import Any

import numpy as np

from ..common import checks
from ..common.types import Array, Device, Namespace
from . import overrides
from .backend import Backend
from .contractions.windows import Windows
from .errors import BackendUnavailable, first_line
from .execution.execution import GPU_BLOCK
from .library import NO_CONTEXT
from .narrow import NarrowFormat
from .operations import Operations
from .precision import Rounding, RoundingContext
from .without_autograd import outside_graph


class TorchOperations(Operations):
    """Windows are strided views, as for NumPy; blocks on a GPU are as large as CuPy's."""

    views = True

    def bytes_of_block(self, like: Array) -> int:
        return (
            super().bytes_of_block(like) if like.device.type == "cpu" else overrides.chosen().block_bytes or GPU_BLOCK
        )

    def windows(self, x: Array, windows: Windows) -> Array:
        strides = x.stride()
        apart = (s * n for s, n in zip(strides[1:-1], windows.stride, strict=True))
        within = (s * n for s, n in zip(strides[1:-1], windows.dilation, strict=True))
        return x.as_strided(
            (x.shape[0], *windows.count, *windows.kernel, x.shape[-1]),
            (strides[0], *apart, *within, strides[-1]),
            x.storage_offset(),
        )


class TorchBackend(Backend):
    """PyTorch on the CPU or on a CUDA device."""

    operations = TorchOperations
    cure = "pip install torch"

    @classmethod
    def connect(cls, device: str | None) -> tuple[str, Namespace, Device]:
        try:
            torch = importlib.import_module("torch")
        except (ImportError, OSError) as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
            cause = "no package torch" if missing else f"the package torch does not import ({first_line(error)})"
            raise BackendUnavailable("torch", cause, cls.cure) from error
        name = device or "cpu"
        try:
            handle = torch.device(name)
        except RuntimeError:
            raise BackendUnavailable(
                f"torch:{name}", f"PyTorch has no device {name!r}", 'write "torch" or "torch:cuda:0"'
            ) from None
        if handle.type == "cuda":
            handle = cls._cuda_device(torch, handle)
        elif handle.type == "cpu":
            handle = torch.device("cpu")
        else:
            raise BackendUnavailable(
                f"torch:{name}", f"device {name!r} is not supported", 'write "torch" or "torch:cuda:0"'
            )
        namespace = importlib.import_module("array_api_compat.torch")
        return cls._spec(handle), namespace, handle

    @staticmethod
    def _cuda_device(torch: Any, handle: Any) -> Any:
        spec = f"torch:{handle}"
        if torch.version.cuda is None:
            raise BackendUnavailable(
                spec, "this PyTorch is a build for the CPU only", 'install a CUDA build, or write "torch"'
            )
        count = torch.cuda.device_count()
        index = handle.index or 0
        if count == 0:
            raise BackendUnavailable(
                spec, "no NVIDIA driver/device", 'install the NVIDIA driver and check nvidia-smi, or write "torch"'
            )
        if index >= count:
            raise BackendUnavailable(spec, f"no device {index}; this machine has {count}", 'write "torch:cuda:0"')
        return torch.device("cuda", index)

    @staticmethod
    def _spec(handle: Any) -> str:
        return "torch" if handle.type == "cpu" else f"torch:{handle}"

    @classmethod
    def narrow_format(cls, name: str) -> NarrowFormat | None:
        return NarrowFormat(name, partial(_to, name), partial(_to, "float32"))

    @classmethod
    def spec_of(cls, array: Array) -> str:
        return cls._spec(array.device)

    @classmethod
    def version(cls) -> str:
        return str(importlib.import_module("torch").__version__)

    @cached_property
    def _torch(self) -> Any:
        return importlib.import_module("torch")

    @property
    def is_host(self) -> bool:
        return self._is_cpu

    @cached_property
    def _is_cpu(self) -> bool:
        return bool(self.device.type == "cpu")

    @classmethod
    def is_plain(cls, kind: type) -> bool:
        torch = importlib.import_module("torch")
        return kind is torch.Tensor or kind is torch.nn.Parameter

    @classmethod
    def is_dense(cls, array: Array) -> bool:
        return bool(array.layout is importlib.import_module("torch").strided)

    @classmethod
    def memory_of(cls, array: Array) -> Any:
        return array.untyped_storage()

    def owns(self, array: Any) -> bool:
        torch, kind = self._torch, type(array)
        plain = kind is torch.Tensor or kind is torch.nn.Parameter
        return plain and array.device == self.device and array.layout is torch.strided

    def _put(self, host: np.ndarray[Any, Any]) -> Array:
        tensor = self._torch.from_numpy(np.array(host, copy=True, order="K"))
        return tensor if self.is_host else tensor.to(self.device)

    def _get(self, array: Array) -> np.ndarray[Any, Any]:
        host = array.detach().cpu()
        # NumPy has no bfloat16, and float32 has all its numbers.
        return np.array((host.float() if host.dtype == self._torch.bfloat16 else host).numpy())

    def _strides(self, array: Array) -> tuple[int, ...]:
        return tuple(array.stride())

    @cached_property
    def _float_products(self) -> RoundingContext:
        rounding = _rounding(self._torch)
        # In mixed precision factors have 16 bits, which TF32 holds as they are, and tensor cores multiply.
        return rounding.floats if self.precision == "float32" else rounding.rounded

    def context(self) -> AbstractContextManager[None]:
        """No autograd, and on a GPU its device and TF32 setting, restored afterwards.

        Cheap if all this holds already, as within `torch.no_grad`.
        """
        torch = self._torch
        graded = torch.is_grad_enabled()
        if self._is_cpu:
            return torch.no_grad() if graded else NO_CONTEXT
        if graded or torch.cuda.current_device() != self.device.index:
            return self._full_context()
        return self._float_products

    @contextmanager
    def _full_context(self) -> Iterator[None]:
        torch = self._torch
        with torch.no_grad(), torch.cuda.device(self.device), self._float_products:
            yield

    def up(self, array: Array) -> Array:
        """As `Backend.up`, of an array outside of any autograd graph."""
        return super().up(self.plain(array))

    def plain(self, array: Array) -> Array:
        return outside_graph(array)

    def synchronize(self) -> None:
        if not self.is_host:
            self._torch.cuda.synchronize(self.device)

    def memory(self, limit: int | None = None) -> dict[str, int]:
        if self.is_host:
            return super().memory(limit)
        cuda = self._torch.cuda
        if limit is not None:
            limit, total = checks.integer("limit", limit, 0), cuda.get_device_properties(self.device).total_memory
            cuda.set_per_process_memory_fraction(min(1.0, limit * (1.0 / total)), self.device)
        return {
            "in_use": cuda.memory_allocated(self.device),
            "peak": cuda.max_memory_allocated(self.device),
            "pool": cuda.memory_reserved(self.device),
        }

    def reset_peak(self) -> bool:
        if self.is_host:
            return super().reset_peak()
        self._torch.cuda.reset_peak_memory_stats(self.device)
        return True

    def capacity(self) -> tuple[int, int]:
        if self.is_host:
            return super().capacity()
        free, total = self._torch.cuda.mem_get_info(self.device)
        return total, total - free

    def free_memory(self) -> None:
        if not self.is_host:
            self._torch.cuda.empty_cache()

    def is_out_of_memory(self, error: BaseException) -> bool:
        if super().is_out_of_memory(error):
            return True
        # The CPU's allocator has no exception class for it; cuBLAS fails with a status.
        words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
        return isinstance(error, RuntimeError) and any(word in str(error) for word in words)

    def notes(self) -> str:
        if self.is_host:
            return f"{self._torch.get_num_threads()} threads"
        return f"{self._torch.cuda.get_device_name(self.device)}; TF32 {'off' if self.precision == 'float32' else 'on'}"


@cache
def _rounding(torch: Any) -> Rounding:
    """The setting for CUDA's products, one for a process."""
    matmul = torch.backends.cuda.matmul
    return Rounding(partial(getattr, matmul, "allow_tf32"), partial(setattr, matmul, "allow_tf32"), False, True)


def _to(name: str, x: Array) -> Array:
    """The array in the dtype of that name."""
    return x.to(getattr(importlib.import_module("torch"), name))
