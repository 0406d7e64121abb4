"""A model for an ONNX file: `from_onnx`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from ...backends import Backend
from ...backends.errors import first_line
from ...common import checks
from ...common.files import file_size, read_bytes
from ...layers.core.layer import Layer
from ...layers.core.placement import Placement
from ..input_shapes import OpenShape, input_shapes
from ..packages import onnx_for
from .reading.graph import Reading
from .reading.shapes import with_shapes

#: The oldest opset that is read.
FIRST_OPSET = 7


def from_onnx(
    path: str | os.PathLike[str], input_shape: Sequence[Any] | None = None, **placement: Unpack[Placement]
) -> Layer:
    """A model that computes what an ONNX file computes, with copies of its weights, to evaluate or to train on.

    Parameters are named as in the file where it names weights ``layer.weight`` and ``layer.bias``, as files of
    `to_onnx` and of PyTorch do. What normalises has the statistics of the file. The model is in evaluation; weights in
    float16 and bfloat16 become the equal numbers in float32.

    Parameters
    ----------
    path : path
        Data of weights may be in other files of the same folder.
    input_shape : sequence of int, optional
        With the batch axis, which may be None; for several inputs, a sequence of shapes. Needed only if sizes other
        than that of the batch are not in the file, and a layer depends on them.
    **placement
        See `xpnn.layers.core.placement.Placement`. The dtype is that of the file's weights unless given.

    Returns
    -------
    Layer
        A `Sequential` if layers follow each other, else a `Graph`.

    Raises
    ------
    ModuleNotFoundError
        If the package ``onnx`` is not installed.
    FileNotFoundError
    TypeError, ValueError
        For an ``input_shape`` that is no shape, or not that of the file's inputs; if the file is damaged, refers to
        files outside of its folder, or uses operators, or values of their attributes, that have no layer: the message
        has all of these.

    Examples
    --------
    >>> import os, tempfile
    >>> import xpnn as nn
    >>> model = nn.models.lenet((1, 28, 28), 10, backend="numpy", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "lenet.onnx")
    ...     nn.to_onnx(model, path, (None, 1, 28, 28))
    ...     again = nn.from_onnx(path, backend="numpy")
    >>> list(again.state_dict()) == list(model.state_dict())
    True
    """
    onnx = onnx_for("from_onnx")
    checks.path("path", path)
    shapes = None if input_shape is None else input_shapes("from_onnx", input_shape, any_open=True)
    name = os.fspath(path)
    file_size(path)
    content = read_bytes(path)
    try:
        proto = onnx.ModelProto.FromString(content)
    except Exception as error:
        raise ValueError(f"{name} is no complete ONNX file: {first_line(error)}") from error
    try:
        return _model(onnx, proto, Path(path).parent, shapes, placement)
    except ValueError as error:
        raise ValueError(f"{name}: {first_line(error)}") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, RuntimeError) as error:
        # What a damaged file leads to before a check of its own.
        raise ValueError(f"{name} is no valid ONNX file: {type(error).__name__}: {first_line(error)}") from error


def is_onnx(name: str | os.PathLike[str]) -> bool:
    """Whether a name is that of an ONNX file, by its end."""
    return os.fspath(name).lower().endswith(".onnx")


def contained(path: str | os.PathLike[str]) -> bytes:
    """The content of an ONNX file that `from_onnx` accepts, with the data of weights in other files within it."""
    onnx = onnx_for("from_onnx")
    return bytes(onnx.load(os.fspath(path)).SerializeToString())


def _model(onnx: Any, proto: Any, folder: Path, shapes: list[OpenShape] | None, placement: Placement) -> Layer:
    """The model of a file that was parsed."""
    opset = _opset(onnx, proto)
    sized = with_shapes(onnx, proto, shapes)
    reading = Reading(onnx, proto.graph, opset, folder, sized)
    if "dtype" not in placement and not isinstance(placement.get("backend"), Backend) and reading.dtype == "float64":
        placement = {**placement, "dtype": "float64"}
    return reading.model(placement)


def _opset(onnx: Any, proto: Any) -> int:
    """The version of ONNX's own operators."""
    if not proto.HasField("graph") or not proto.graph.node:
        raise ValueError("it has no graph with operators")
    versions = [each.version for each in proto.opset_import if each.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not FIRST_OPSET <= versions[0] <= newest:
        raise ValueError(
            f"it uses opset {', '.join(map(str, versions)) or 'none'}; those from {FIRST_OPSET} to {newest} are read"
        )
    return int(versions[0])
