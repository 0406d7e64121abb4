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
from safetensors import SafetensorError, safe_open

from ..backends import to_host
from ..layers.base import Layer

_KEY = "xpnn"


def save(model: Layer, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
    """Write a model's parameters and buffers, by name, whole or not at all.

    Parameters
    ----------
    model : Layer
    path : path
        Written beside itself first and renamed when complete.
    about : mapping, optional
        Anything JSON can hold, kept in the file; `read` gives it back.
    """
    arrays = {name: np.asarray(to_host(array), order="C") for name, array in model.state_dict().items()}
    # One key only: safetensors does not promise an order among several.
    metadata = {_KEY: json.dumps(about or {}, sort_keys=True)}
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(safetensors.numpy.save(arrays, metadata))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(metadata.get(_KEY, "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from error
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
