"""Arrays in ONNX files, whose sizes are checked before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..unsupported import Unsupported

#: Types that are read, by ONNX's number: the dtype in the file, and the field that holds values without raw data.
_TYPES = {
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    5: ("int16", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
    16: ("bfloat16", "int32_data"),
}
_EXTERNAL = 1


def array_of(onnx: Any, tensor: Any, folder: Path) -> Any:
    """The values of a tensor: floats as float32 or float64, whole numbers as int64.

    Raises
    ------
    Unsupported
        For types that no layer has.
    ValueError
        If the data has another size than the shape says, or is outside of the folder.
    """
    name = tensor.name or "a constant"
    if tensor.data_type not in _TYPES:
        raise Unsupported(f"{name} has the type {_type_name(onnx, tensor.data_type)}")
    kind, field = _TYPES[tensor.data_type]
    shape = tuple(tensor.dims)
    if any(n < 0 for n in shape):
        raise ValueError(f"{name} has the shape {shape}")
    count = 1
    for n in shape:
        count *= n
    if tensor.data_location == _EXTERNAL or tensor.HasField("raw_data"):
        width = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
        size = count * width
        raw = _external(tensor, folder, size) if tensor.data_location == _EXTERNAL else tensor.raw_data
        if len(raw) != size:
            raise ValueError(f"{name} of shape {shape} should have {size:,} bytes of data, and has {len(raw):,}")
        stored = np.frombuffer(raw, np.dtype("uint16" if kind == "bfloat16" else kind).newbyteorder("<"))
    else:
        values = getattr(tensor, field)
        if len(values) != count:
            raise ValueError(f"{name} of shape {shape} should have {count:,} values, and has {len(values):,}")
        stored = np.asarray(values, {"float_data": "f4", "double_data": "f8"}.get(field, "i8"))
        if kind in ("float16", "bfloat16"):
            stored = stored.astype(np.uint16)
    return _widened(stored, kind).reshape(shape)


def _widened(stored: Any, kind: str) -> Any:
    """The numbers in a dtype that layers have."""
    if kind == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if kind == "float16":
        return (stored.astype(np.uint16).view(np.float16) if stored.dtype.kind != "f" else stored).astype(np.float32)
    if kind in ("float32", "float64"):
        return stored.astype(kind)
    return stored.astype(np.bool_ if kind == "bool" else np.int64)


def _external(tensor: Any, folder: Path, size: int) -> bytes:
    """The data of a tensor in a file beside the model's, which must be within its folder."""
    name = tensor.name
    where = {entry.key: entry.value for entry in tensor.external_data}
    location = where.get("location", "")
    if not location or "\0" in location:
        raise ValueError(f"{name} has its data in another file, but no name of one")
    path: Path = (folder / location).resolve()
    if Path(location).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name} has its data in {location!r}, outside of the folder of the file")
    if not path.is_file():
        raise ValueError(f"{name} has its data in {location!r}, which is not there")
    offset: int = int(where.get("offset", 0))
    length: int = int(where.get("length", size))
    if offset < 0 or length != size or offset + length > path.stat().st_size:
        raise ValueError(
            f"{name} should have {size:,} bytes of data from {offset:,} on in {location!r}, a file of "
            f"{path.stat().st_size:,}"
        )
    with path.open("rb") as file:
        file.seek(offset)
        return bytes(file.read(length))


def _type_name(onnx: Any, number: int) -> str:
    try:
        return str(onnx.TensorProto.DataType.Name(number))
    except ValueError:
        return str(number)
