"""Weights in files of PyTorch, read and written with PyTorch."""

import importlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import to_host
from ..backends.errors import first_line
from ..common.files import write_whole
from .narrow_floats import rounded

#: The names of files of PyTorch end in one of these.
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
#: Where training programs put the state in a larger dict.
_KEYS = ("state_dict", "model_state_dict", "model")
_CONVERT = "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)"


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Arrays by name, and an empty dict: these files hold no metadata of ours; bfloat16 is returned as float32.

    The file is read as data (``weights_only=True``): it can't run code.

    Raises
    ------
    FileNotFoundError
    ModuleNotFoundError
        If PyTorch is not installed.
    ValueError
        If PyTorch can't read the file as data, or it holds no tensors by name.
    """
    name = os.fspath(path)
    # Before PyTorch, whose import takes a second, and which raises errors of its own for folders.
    with Path(path).open("rb"):
        pass
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{name} is a file of PyTorch, which is not installed: pip install torch, or convert it where it is with "
            f"{_CONVERT}"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{name} can't be read as tensors by PyTorch {torch.__version__} ({first_line(error)}); a whole module is "
            "code: write torch.save(module.state_dict(), path) where it was made"
        ) from error
    return {key: to_host(tensor.detach(), key) for key, tensor in _state(content, torch.Tensor, name).items()}, {}


def write(arrays: Mapping[str, np.ndarray[Any, Any]], path: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Write arrays by name as PyTorch's ``torch.save(module.state_dict(), path)`` does, whole or not at all.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is not installed.
    ValueError
        For a finite number beyond the range of ``dtype``, to which floats are converted.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{os.fspath(path)} would be a file of PyTorch, which is not installed: pip install torch, or write "
            "safetensors, which PyTorch reads with safetensors.torch.load_file"
        ) from error
    # One tensor for an array with several names, which PyTorch then stores once.
    tensors = {}
    for name, array in arrays.items():
        if id(array) in tensors:
            continue
        tensors[id(array)] = torch.tensor(array)
        if dtype is not None and array.dtype.kind == "f":
            rounded(array, dtype, name)
            tensors[id(array)] = tensors[id(array)].to(getattr(torch, dtype))
    content = io.BytesIO()
    torch.save({name: tensors[id(array)] for name, array in arrays.items()}, content)
    write_whole(path, content.getvalue())


def _state(content: Any, tensor: type, name: str) -> Mapping[str, Any]:
    """The tensors by name in what a file holds."""
    found = content
    if isinstance(content, Mapping):
        found = next((content[key] for key in _KEYS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} must hold tensors by name, as state_dict() returns them, got {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, tensor):
            raise ValueError(
                f"{name} must hold tensors by name, or a dict with one of {', '.join(_KEYS)}, got {key!r}: "
                f"{type(value).__name__}"
            )
    return found
