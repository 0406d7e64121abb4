"""Memory that tensors of PyTorch and arrays of a backend have in common; imported only where PyTorch is."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from ...backends import Backend


def tensor_of(array: Any) -> Any:
    """A tensor in the memory of an array; of one that tensors can't be made of (read-only, reversed), a copy."""
    if isinstance(array, torch.Tensor):
        return array.detach()
    if isinstance(array, np.ndarray | np.generic):
        host = np.asarray(array)
        return torch.from_numpy(host if _is_shareable(host) else host.copy())
    return torch.from_dlpack(array)


def _is_shareable(host: Any) -> bool:
    return host.flags.writeable and all(step >= 0 for step in host.strides)


def own_value(parameter: Any) -> Any:
    """The value of a parameter, after a copy of it took its place if a tensor can't have its memory."""
    if isinstance(parameter.value, np.ndarray) and not _is_shareable(parameter.value):
        parameter.value = parameter.value.copy()
    return parameter.value


def array_of(tensor: Any, b: Backend) -> Any:
    """An array of a backend in the memory of a tensor."""
    plain = tensor.detach()
    return plain if b.owns(plain) else b.from_dlpack(plain)


def memory(tensor: Any) -> tuple[Any, ...]:
    """Where a tensor is, and how its numbers lie there."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def kind(tensor: Any) -> tuple[Any, ...]:
    """What a tensor that takes the place of another must have in common with it."""
    return tensor.shape, tensor.dtype, tensor.device


def words(shape: Any, dtype: Any, device: Any) -> str:
    """`kind` in words."""
    return f"shape {tuple(shape)} in {dtype} on {device}"


def _ends(tensor: Any) -> tuple[int, int]:
    """Where the memory of a tensor begins, and where it ends."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def holds(saved: Any, y: Any) -> bool:
    """Whether what a layer saved has memory of an output, or is of a kind that does not show it."""
    if saved is None or isinstance(saved, str | int | float | np.dtype | torch.dtype):
        return False
    if _is_record(saved):
        # What else it has, such as its kernels, is not of one call.
        names = getattr(saved, "_fields", None) or [field.name for field in fields(saved)]
        within = [getattr(saved, name) for name in names]
        return any(holds(each, y) for each in within if isinstance(each, tuple) or _is_record(each) or _is_array(each))
    if isinstance(saved, tuple | list):
        return any(holds(each, y) for each in saved)
    if not _is_array(saved):
        return True
    (start, end), (first, last) = _ends(tensor_of(saved)), _ends(y)
    return start < last and first < end


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor) or hasattr(value, "__dlpack__")


def _is_record(value: Any) -> bool:
    return is_dataclass(value) or hasattr(value, "_fields")
