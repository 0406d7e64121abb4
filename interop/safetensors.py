"""Weights in safetensors files: data only, nothing in them can run.

A file holds the arrays of a ``state_dict`` by name, little-endian and in row-major order, and one string of metadata.
The same weights give the same bytes on every backend, so ``sha256sum`` compares two runs.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..backends import to_host
from ..layers.base import Layer
from .files import write_whole

_KEY = "xpnn"


def save(model: Layer, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
    """Write a model's parameters and buffers, by name, whole or not at all.

    Parameters
    ----------
    model : Layer
    path : path
        Written beside itself first, forced to the disk, and renamed when complete.
    about : mapping, optional
        Anything JSON can hold, kept in the file; `read` gives it back.
    """
    arrays = {name: to_host(array) for name, array in model.state_dict().items()}
    write_whole(path, packed(arrays, about or {}))


def packed(arrays: Mapping[str, np.ndarray[Any, Any]], about: Mapping[str, Any]) -> bytes:
    """The bytes of a file that holds these arrays, and what is said ``about`` them."""
    # One key only: safetensors does not promise an order among several.
    metadata = {_KEY: json.dumps(about, sort_keys=True)}
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """A file's arrays by name, and what was written ``about`` them.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is not a complete safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return unpacked(path.read_bytes(), str(path))


def unpacked(content: bytes, name: str) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Arrays by name, and what was said about them, from the bytes of a file of that name; `ValueError` if damaged."""
    try:
        arrays = safetensors.numpy.load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
        about = json.loads(metadata.get(_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{name} is not a complete safetensors file ({error})") from error
    return arrays, about


def load(model: Layer, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Fill a model, on whichever backend, from a file; returns what was written ``about`` it.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is damaged, or its names or shapes are not the model's; the model is left as it was.
    """
    arrays, about = read(path)
    model.load_state_dict(arrays)
    return about
