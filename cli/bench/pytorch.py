"""PyTorch, with which the benchmarks compare: its device, memory formats and settings."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backends import Backend

FORMATS = ("contiguous_format", "channels_last")


@dataclass(frozen=True)
class PyTorch:
    """The module ``torch`` and the device on which it computes."""

    torch: Any
    device: str

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a CUDA device."""
        return self.device.startswith("cuda")

    def formats(self, rank: int = 4) -> tuple[str, ...]:
        """The memory formats of tensors of that rank: two for images, else one."""
        return FORMATS if rank == 4 else FORMATS[:1]

    def tensor(self, array: np.ndarray[Any, Any], memory_format: str = FORMATS[0]) -> Any:
        """A copy of a host array on the device, in that format if it has four axes."""
        tensor = self.torch.from_numpy(np.array(array)).to(self.device)
        return tensor.to(memory_format=getattr(self.torch, memory_format)) if tensor.ndim == 4 else tensor

    def module(self, module: Any, memory_format: str = FORMATS[0]) -> Any:
        """The module, moved to the device, its weights in that format."""
        return module.to(self.device).to(memory_format=getattr(self.torch, memory_format))

    def host(self, tensor: Any) -> np.ndarray[Any, Any]:
        """A tensor on the host."""
        return np.asarray(tensor.detach().cpu().numpy())

    def wait(self) -> None:
        """Wait until the device is idle."""
        if self.on_gpu:
            self.torch.cuda.synchronize()

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Within the ``with`` block: no TF32, and the fastest algorithm that cuDNN finds. Only on a GPU."""
        if not self.on_gpu:
            yield
            return
        backends = self.torch.backends
        wanted = [(backends.cuda.matmul, "allow_tf32", False), (backends.cudnn, "allow_tf32", False)]
        wanted.append((backends.cudnn, "benchmark", True))
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
        for owner, name, value in wanted:
            setattr(owner, name, value)
        try:
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


def find_pytorch(backend: Backend) -> tuple[PyTorch | None, str]:
    """PyTorch on the same kind of device as the backend, or None and the reason."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return None, f"no usable PyTorch, so no ratios: {error}"
    if backend.is_host:
        return PyTorch(torch, "cpu"), ""
    if not torch.cuda.is_available():
        return None, "this PyTorch has no CUDA device, so no ratios"
    index = getattr(backend.device, "id", None)
    return PyTorch(torch, str(backend.device) if index is None else f"cuda:{index}"), ""
