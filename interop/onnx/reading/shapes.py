"""The sizes of all values of a graph, for inputs of known sizes.

ONNX's own inference finds them, on a copy without large weights, in which the batch axis has a size.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any, NamedTuple

from ...input_shapes import OpenShape

# Samples, if the batch axis has no size: a number that few models have as another size.
_SAMPLES = 3
# Weights with more values are left out: only lists of sizes matter.
_SMALL = 1024
# Types of inputs by ONNX's number.
_FLOATS, _INTEGERS = (1, 10, 11, 16), (2, 3, 5, 6, 7)
# Entries of a value for one batch.
_LARGEST = 1 << 33


class Sized(NamedTuple):
    """Names of the inputs, and shapes of values by name where they are known."""

    inputs: list[str]
    shapes: dict[str, tuple[int, ...]]


def with_shapes(onnx: Any, proto: Any, given: list[OpenShape] | None) -> Sized:
    """The inputs of a graph, and the shapes of its values; ``given`` has those of inputs that the caller named."""
    graph = proto.graph
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len({each.name for each in inputs}) < len(inputs) or not all(each.name for each in inputs):
        raise ValueError("its inputs have no distinct names")
    indices = {node.input[1] for node in graph.node if node.op_type == "Gather" and len(node.input) > 1}
    others = {name for node in graph.node for i, name in enumerate(node.input) if node.op_type != "Gather" or i != 1}
    for each in inputs:
        kind = each.type.tensor_type.elem_type
        if kind not in _FLOATS and (kind not in _INTEGERS or each.name not in indices - others):
            raise ValueError(f"the input {each.name} is no array of floats, nor the indices of an embedding")
    if given is not None and len(given) != len(inputs):
        names = ", ".join(each.name for each in inputs)
        raise ValueError(f"it has the inputs {names}, and input_shape {len(given)} shapes")
    light = onnx.ModelProto()
    light.ir_version = proto.ir_version
    light.opset_import.extend(proto.opset_import)
    light.graph.name = "sizes"
    light.graph.node.extend(graph.node)
    known: dict[str, tuple[int, ...]] = {}
    for each, shape in zip(inputs, given or repeat(None, len(inputs)), strict=True):
        copied = light.graph.input.add()
        copied.CopyFrom(each)
        found = _sized(each, shape)
        if found is not None:
            known[each.name] = found
            del copied.type.tensor_type.shape.dim[:]
            for n in found:
                copied.type.tensor_type.shape.dim.add().dim_value = n
    for tensor in graph.initializer:
        count = 1
        for n in tensor.dims:
            count *= max(1, n)
        if count <= _SMALL and not tensor.external_data:
            light.graph.initializer.add().CopyFrom(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, [max(0, n) for n in tensor.dims])
            )
    for each in graph.output:
        light.graph.output.add().name = each.name
    try:
        inferred = onnx.shape_inference.infer_shapes(light, check_type=False, strict_mode=False, data_prop=True)
    except Exception as error:
        raise ValueError(f"its sizes do not fit: {error}") from error
    for each in (*inferred.graph.value_info, *inferred.graph.output):
        dims = each.type.tensor_type.shape.dim
        if each.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known.setdefault(each.name, tuple(dim.dim_value for dim in dims))
    for name, shape in known.items():
        size = 1
        for n in shape:
            size *= n
        if min(shape, default=1) < 0 or size > _LARGEST:
            raise ValueError(f"the value {name} would have the shape {shape}")
    return Sized([each.name for each in inputs], known)


def _sized(info: Any, given: OpenShape | None) -> tuple[int, ...] | None:
    """The sizes of an input: those of the file, then those given; None if some are unknown."""
    if not info.type.HasField("tensor_type"):
        raise ValueError(f"the input {info.name} is no array")
    tensor = info.type.tensor_type
    dims = [int(dim.dim_value) if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if not tensor.HasField("shape"):
        dims = list(given) if given is not None else []
    if given is not None and len(given) != len(dims):
        raise ValueError(f"the input {info.name} has {len(dims)} axes, and input_shape {len(given)}")
    wanted = list(given) if given is not None else [None] * len(dims)
    found = []
    for axis, (ours, theirs) in enumerate(zip(wanted, dims, strict=True)):
        if ours is not None and theirs is not None and ours != theirs and axis:
            raise ValueError(f"the input {info.name} has {theirs} cells along axis {axis}, and input_shape {ours}")
        n = theirs if theirs is not None else ours
        found.append(_SAMPLES if n is None and axis == 0 else n)
    if any(n is not None and n < 1 for n in found):
        raise ValueError(f"the input {info.name} has the shape {tuple(found)}")
    return None if not found or None in found else tuple(n for n in found if n is not None)
