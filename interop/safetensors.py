"""Weights in safetensors files, which contain only data and no code.

A file holds the arrays of a ``state_dict`` by name, little-endian and in row-major order, and one string of metadata.
The same weights are written as the same bytes on every backend, so ``sha256sum`` compares two runs. An array that is in
several places of a model, tied weights, is stored under its first name; the metadata has the others.

Models compute in float32 or float64. Files in float16 and bfloat16 can be read, each number as the equal float32, and
`save` can write them. NumPy has no bfloat16, so it is handled as the upper half of a float32.

References
----------
The format: https://github.com/huggingface/safetensors#format.
"""

import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..common.checks import choice, flag, instance, mapping
from ..common.checks import path as checked_path
from ..common.files import file_size, read_bytes, write_whole
from ..common.types import DType, dtype_name
from ..layers.core.layer import Layer
from ..layers.core.state_dict import LoadedKeys, host_state
from . import torch_file
from .narrow_floats import rounded

_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
_KEY = "xpnn"
#: The format's limit for the header, in bytes.
_LARGEST_HEADER = 100_000_000
#: The format's dtypes that NumPy has, and bfloat16 as integers with the same bits.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
_FLOATS = ("float32", "float64", "float16", "bfloat16")


class Loaded(dict[str, Any]):
    """The metadata ``about`` of a file that was loaded, and the names in which file and model differ.

    Attributes
    ----------
    missing_keys : list of str
        Names of the model that the file does not have; their arrays are unchanged.
    unexpected_keys : list of str
        Names in the file that the model does not have.
    """

    def __init__(self, about: Mapping[str, Any], keys: LoadedKeys) -> None:
        super().__init__(about)
        self.missing_keys, self.unexpected_keys = keys


def save(
    model: Layer,
    path: str | os.PathLike[str],
    about: Mapping[str, Any] | None = None,
    *,
    dtype: DType | str | None = None,
) -> None:
    """Write a model's parameters and buffers by name, atomically.

    Parameters
    ----------
    model : Layer
    path : path
        First written to a temporary file in the same folder, flushed to the disk, and renamed when complete. If its
        name ends in ``.pt``, ``.pth``, ``.bin`` or ``.ckpt``, it becomes a file of PyTorch, which must be installed:
        ``module.load_state_dict(torch.load(path))`` reads it. Any other name is that of a safetensors file.
    about : mapping, optional
        Metadata that JSON can hold, stored in the file; `read` returns it. Only safetensors have it.
    dtype : {"float32", "float64", "float16", "bfloat16"} or dtype, optional
        The dtype of floats in the file; by default the model's. Numbers are rounded to nearest, ties to even, as in
        PyTorch. Integers and the model itself are unchanged.

    Raises
    ------
    ValueError
        For another dtype, for a finite number beyond its range: float16 ends at 65504, and for metadata of a file of
        PyTorch. Nothing is written then.
    TypeError
        If JSON can't hold ``about``.
    ModuleNotFoundError
        For a file of PyTorch where that is not installed.
    """
    if dtype is not None:
        name = dtype_name(dtype) if isinstance(dtype, Hashable) and not isinstance(dtype, str) else dtype
        dtype = choice("dtype", name if name in _FLOATS else dtype, _FLOATS)
    instance("model", model, Layer, "the model comes before the path")
    checked_path("path", path)
    about = {} if about is None else mapping("about", about)
    arrays = host_state(model)
    if Path(path).suffix.lower() in torch_file.SUFFIXES:
        if about:
            raise ValueError(
                f"{os.fspath(path)} would be a file of PyTorch, which has no metadata; save as .safetensors"
            )
        torch_file.write(arrays, path, dtype)
    else:
        write_whole(path, to_bytes(arrays, about, dtype))


def to_bytes(arrays: Mapping[str, np.ndarray[Any, Any]], about: Mapping[str, Any], dtype: str | None = None) -> bytes:
    """The content of a file with these arrays, floats converted to ``dtype``, and the metadata ``about``.

    An array under several names is stored once, under the first.
    """
    first = {id(array): name for name, array in reversed(list(arrays.items()))}
    others = {name: first[id(array)] for name, array in arrays.items() if first[id(array)] != name}
    arrays = {name: array for name, array in arrays.items() if name not in others}
    # Only one key, because safetensors does not guarantee an order among several.
    metadata = {_KEY: json.dumps(about, sort_keys=True)}
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    if dtype is None:
        return _with_names(safetensors.numpy.save(ordered, metadata), others)
    changed = {name for name, array in ordered.items() if array.dtype.kind == "f"}
    ordered |= {name: rounded(ordered[name], dtype, name) for name in changed}
    content = safetensors.numpy.save(ordered, metadata)
    return _with_names(_relabelled(content, changed) if dtype == "bfloat16" else content, others)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """A file's arrays by name, and its metadata ``about``; float16 and bfloat16 are returned as float32.

    The header is checked against the size of the file before the arrays are read.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is not a complete safetensors file, has a dtype that NumPy does not have, or exceeds the memory.
    """
    checked_path("path", path)
    size = file_size(path)
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise _incomplete(path, f"its header should have {length} bytes, of {size} in all")
        end = 8 + length + _ends(_header(file.read(length), path), path)
    if end != size:
        raise _incomplete(path, f"it has {size} bytes, and {end} by its header")
    return from_bytes(read_bytes(path), os.fspath(path))


def from_bytes(content: bytes, name: str) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Arrays by name and the metadata, from the content of the file ``name``; `ValueError` if it is damaged."""
    header = _header(content[8 : 8 + int.from_bytes(content[:8], "little")], name)
    _ends(header, name)
    try:
        # In the order of the file, which the reader shuffles.
        entries = dict(_deserialize(content))
        arrays = {each: _array(entries[each]) for each in header if each != "__metadata__"}
        metadata = header.get("__metadata__") or {}
        about = json.loads(metadata.get(_KEY, "{}"))
        arrays |= {other: arrays[name] for other, name in metadata.items() if other not in arrays and name in arrays}
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise _incomplete(name, error) from error
    if not isinstance(about, dict):
        raise _incomplete(name, f"its metadata is no mapping: {str(about)[:60]}")
    return arrays, about


def load(model: Layer, path: str | os.PathLike[str], *, strict: bool = True, prefix: str = "") -> Loaded:
    """Load the parameters and buffers of a model, on any backend, from a file.

    Floats are rounded to the model's dtype; files in float16 and bfloat16 are accepted. NaN and infinity are loaded
    unchanged; ``xpnn predict`` and ``xpnn explain`` refuse a net that has any.

    Parameters
    ----------
    model : Layer
    path : path
        A safetensors file, or a file of ``torch.save(module.state_dict(), path)``, if its name ends in ``.pt``,
        ``.pth``, ``.bin`` or ``.ckpt`` and PyTorch is installed, which reads tensors only and runs no code of the file.
        A dict of the file that holds the state under ``state_dict``, ``model_state_dict`` or ``model`` is accepted.
    strict : bool
        With False, names that are missing or unexpected are returned and are no error. Shapes must fit.
    prefix : str
        What names in the file have in front of the model's, such as ``"module."``. Names without it are not read: they
        belong to other parts of a larger model.

    Returns
    -------
    Loaded
        A dict: the metadata ``about`` that `save` wrote, empty for other files. Its attributes ``missing_keys`` and
        ``unexpected_keys`` are lists of names.

    Raises
    ------
    FileNotFoundError
    ModuleNotFoundError
        For a file of PyTorch where that is not installed.
    ValueError
        If the file is damaged, no name in it begins with ``prefix``, or its names, shapes or dtypes are not the
        model's; the model is then unchanged.

    Examples
    --------
    Weights of a net with another last layer, which keeps its own:

    >>> import os, tempfile
    >>> import xpnn as nn
    >>> net = nn.Sequential(nn.Dense(4, 8), nn.ReLU(), nn.Dense(8, 10), seed=0)
    >>> other = nn.Sequential(nn.Dense(4, 8), nn.ReLU(), seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save(other, os.path.join(folder, "other.safetensors"))
    ...     loaded = nn.load(net, os.path.join(folder, "other.safetensors"), strict=False)
    >>> loaded.missing_keys, loaded.unexpected_keys
    (['2.weight', '2.bias'], [])
    """
    instance("model", model, Layer, "the model comes before the path")
    checked_path("path", path)
    flag("strict", strict)
    instance("prefix", prefix, str)
    of_torch = Path(path).suffix.lower() in torch_file.SUFFIXES
    arrays, about = torch_file.read(path) if of_torch else read(path)
    part = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if arrays and not part:
        raise ValueError(
            f"{os.fspath(path)}: no name begins with prefix {prefix!r}; the first is {next(iter(arrays))!r}"
        )
    return Loaded(about, model.load_state_dict(part, strict))


def _header(content: bytes, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _incomplete(path, error) from None
    if not isinstance(header, dict):
        raise _incomplete(path, "its header is no JSON object")
    return header


def _ends(header: dict[str, Any], path: str | os.PathLike[str]) -> int:
    """The end of the last array in bytes, counted from the end of the header; raises for other dtypes."""
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, (_, after) = entry["dtype"], entry["data_offsets"]
            end = max(end, after)
        except (KeyError, TypeError, ValueError):
            raise _incomplete(path, f"{name} has no dtype or no offsets") from None
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ValueError(
                f"{os.fspath(path)}: {name} is {dtype}, which is not read; convert it to one of "
                f"{', '.join(_DTYPES)} where the file was made"
            )
    return end


def _array(entry: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """A NumPy array: float16 and bfloat16 as float32."""
    array = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return np.asarray(array.astype(np.uint32) << 16, np.uint32).view(np.float32)
    return array.astype(np.float32) if entry["dtype"] == "F16" else array


def _relabelled(content: bytes, names: set[str]) -> bytes:
    """The content of a file, with the dtype of these arrays of uint16 changed to bfloat16."""
    header, data = _split(content)
    for name in names:
        header[name]["dtype"] = "BF16"
    return _joined(header, data)


def _with_names(content: bytes, others: Mapping[str, str]) -> bytes:
    """The content of a file, with other names of its arrays as metadata, as the Python package of the format writes."""
    if not others:
        return content
    header, data = _split(content)
    header["__metadata__"] |= others
    return _joined(header, data)


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _joined(header: Mapping[str, Any], data: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _incomplete(path: str | os.PathLike[str], why: object) -> ValueError:
    return ValueError(f"{os.fspath(path)} is not a complete safetensors file ({why})")
