"""What a file computes from constants: the sizes for a reshape, a transposed weight.

Only operators whose results are as large as their inputs say are computed, and none above a limit, so that a small file
can't ask for a large array.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ...unsupported import Unsupported

# Entries of an array that is computed from smaller ones.
_LARGEST = 1 << 24
_ELEMENTWISE = {
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Min",
    "Max",
    "Equal",
    "Greater",
    "Less",
    "Where",
    "Pow",
    "Mod",
    "And",
    "Or",
}
_SAME_SIZE = {"Identity", "Cast", "Neg", "Floor", "Ceil", "Abs", "Sqrt", "Not", "Squeeze", "Unsqueeze", "Reshape"}
_SMALLER = {"Slice", "ReduceProd", "ReduceSum", "ReduceMax", "Shape", "Size", "Transpose", "Concat", "Gather"}
#: Operators that are computed if all inputs are constants.
FOLDED = frozenset(_ELEMENTWISE | _SAME_SIZE | _SMALLER | {"ConstantOfShape", "Range", "Expand", "Tile"})


def computed(onnx: Any, proto: Any, opset: int, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of an operator for constants."""
    given = [each for each in inputs if each is not None]
    _require_small(proto.op_type, given)
    reference = onnx.reference.ReferenceEvaluator(_model(onnx, proto, opset, inputs))
    names = [name for name, each in zip(proto.input, inputs, strict=True) if each is not None]
    found = reference.run(None, dict(zip(names, given, strict=True)))
    return [np.asarray(each) for each in found]


def _model(onnx: Any, proto: Any, opset: int, inputs: Sequence[Any]) -> Any:
    helper = onnx.helper
    known = {name: each for name, each in zip(proto.input, inputs, strict=True) if each is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
        for name, each in known.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = helper.make_graph([proto], "constant", values, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _require_small(operator: str, inputs: Sequence[Any]) -> None:
    """Raise `Unsupported` if the result may be much larger than what the file holds."""
    size = 0
    if operator in _ELEMENTWISE:
        size = prod(np.broadcast_shapes(*(each.shape for each in inputs)))
        size = 0 if size <= max(each.size for each in inputs) else size
    elif operator == "ConstantOfShape":
        size = prod(int(n) for n in inputs[0].reshape(-1))
    elif operator == "Expand":
        size = prod(max(1, int(n)) for n in inputs[1].reshape(-1)) * inputs[0].size
    elif operator == "Tile":
        size = prod(int(n) for n in inputs[1].reshape(-1)) * inputs[0].size
    elif operator == "Range":
        start, limit, delta = (float(each.reshape(-1)[0]) for each in inputs)
        size = int(abs(limit - start) / abs(delta)) + 1 if delta else _LARGEST + 1
    elif operator == "Gather":
        size = inputs[1].size * (inputs[0].size // max(1, inputs[0].shape[0]) if inputs[0].ndim else 1)
        size = 0 if size <= inputs[0].size else size
    if not 0 <= size <= _LARGEST:
        raise Unsupported(f"a constant of {size:,} numbers, computed by {operator}")
