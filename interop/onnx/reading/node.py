"""A node of an ONNX graph as its conversion sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...unsupported import Unsupported

# Types of attributes by ONNX's number.
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7
# Attributes that do not change the result of evaluation with one output.
_WITHOUT_EFFECT = frozenset({"storage_order", "seed", "consumed_inputs", "is_test", "saturate", "stash_type"})


class Node:
    """An operator with its inputs.

    Attributes
    ----------
    operator, name : str
    opset : int
    inputs : list
        The name of an array, a constant as a NumPy array, or None for one that is left out.
    shapes : list
        The shapes of these; None if unknown.
    output_shape : tuple of int, or None
    sources : list of str
        The names of the inputs in the file.
    """

    def __init__(
        self,
        proto: Any,
        opset: int,
        inputs: Sequence[Any],
        shapes: Sequence[tuple[int, ...] | None],
        output_shape: tuple[int, ...] | None,
    ) -> None:
        self.operator, self.opset, self.inputs, self.shapes = str(proto.op_type), opset, list(inputs), list(shapes)
        self.output_shape, self.sources = output_shape, [str(each) for each in proto.input]
        self.outputs = [str(each) for each in proto.output]
        self.name = str(proto.name)
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}
        self._unread = {*self._attributes} - _WITHOUT_EFFECT

    @property
    def arrays(self) -> list[str]:
        """The names of the inputs that are arrays."""
        return [each for each in self.inputs if isinstance(each, str)]

    def constant(self, index: int, what: str) -> Any:
        """An input that must be a constant; None if it is left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, str):
            raise Unsupported(f"{what} is computed, where only constants are read")
        return value

    def weight(self, index: int, what: str) -> Any:
        """A constant of floats that must be given."""
        value = self.constant(index, what)
        if value is None or value.dtype.kind != "f":
            raise Unsupported(f"{what} is missing, or not of floats")
        return value

    def sizes(self, index: int, what: str) -> list[int] | None:
        """A constant of integers; None if it is left out."""
        value = self.constant(index, what)
        if value is None:
            return None
        if value.dtype.kind != "i" or value.ndim > 1:
            raise Unsupported(f"{what} is no list of integers")
        return [int(n) for n in np.atleast_1d(value)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first array, which must be known."""
        for value, shape in zip(self.inputs, self.shapes, strict=True):
            if isinstance(value, str):
                if shape is None:
                    raise Unsupported("the size of its input is not known; give input_shape with all sizes")
                return shape
        raise Unsupported("has no array as input")

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of the output, which must be known."""
        if self.output_shape is None:
            raise Unsupported("the size of its output is not known; give input_shape with all sizes")
        return self.output_shape

    def integer(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        return int(self._attribute(name, _INT, "i", default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number, as the nearest short decimal of its float32."""
        found = self._attribute(name, _FLOAT, "f", None)
        return default if found is None else float(str(np.float32(found)))

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        found = self._attribute(name, _STRING, "s", None)
        return default if found is None else bytes(found).decode("utf-8", "replace")

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers; None if it is left out."""
        found = self._attribute(name, _INTS, "ints", None)
        return None if found is None else [int(n) for n in found]

    def numbers(self, name: str) -> list[float] | None:
        """An attribute that is a list of numbers; None if it is left out."""
        found = self._attribute(name, _FLOATS, "floats", None)
        return None if found is None else [float(n) for n in found]

    def tensor(self, name: str) -> Any:
        """An attribute that is a tensor; None if it is left out."""
        return self._attribute(name, _TENSOR, "t", None)

    def require_all_read(self) -> None:
        """Raise `Unsupported` if an attribute was given that the conversion did not ask for."""
        if self._unread:
            raise Unsupported(f"the attribute {', '.join(sorted(self._unread))}")

    def ignore_attributes(self) -> None:
        """Let attributes be whatever they are."""
        self._unread.clear()

    def has(self, name: str) -> bool:
        """Whether an attribute is given."""
        return name in self._attributes

    def _attribute(self, name: str, kind: int, field: str, default: Any) -> Any:
        attribute = self._attributes.get(name)
        self._unread.discard(name)
        if attribute is None:
            return default
        if attribute.type != kind:
            raise Unsupported(f"the attribute {name} is of another type than ONNX defines")
        return getattr(attribute, field)

    def require(self, **wanted: int) -> None:
        """Raise `Unsupported` unless integer attributes have these values, or are left out."""
        for name, value in wanted.items():
            if (found := self.integer(name, value)) != value:
                raise Unsupported(f"{name}={found}")


def short(value: Any) -> float:
    """A number as the shortest decimal that its dtype rounds to it."""
    if value.size != 1:
        raise Unsupported(f"a limit of shape {value.shape}")
    return float(str(value.reshape(-1)[0]))
