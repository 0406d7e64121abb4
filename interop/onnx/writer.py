"""The graph of an ONNX file while it is written: operators, constants and weights with distinct names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...layers.containers.dataflow import free_name
from ...layers.core.layer import Layer
from ...layers.core.output_shape import Shape


class NeedsOpset(Exception):
    """An operator, or one of its attributes, that later opsets have."""

    def __init__(self, opset: int) -> None:
        super().__init__(opset)
        self.opset = opset


class Writer:
    """Collects nodes and initialisers.

    Parameters
    ----------
    onnx : module
    opset : int
        The version of the operators.
    dtype : str
        Of weights and constants: ``"float32"`` or ``"float64"``.
    names : set of str
        Names that values of the graph have.
    """

    def __init__(self, onnx: Any, opset: int, dtype: str, names: set[str]) -> None:
        self._onnx, self.opset, self.dtype = onnx, opset, np.dtype(dtype)
        self._names, self._path = set(names), ""
        self.nodes: list[Any] = []
        self.initialisers: dict[str, Any] = {}
        self._weights: dict[int, str] = {}

    def begin(self, path: str) -> None:
        """Write the operators of the layer at ``path`` from now on."""
        self._path = path

    def need(self, opset: int) -> None:
        """Raise `NeedsOpset` if the file's is lower."""
        if self.opset < opset:
            raise NeedsOpset(opset)

    def fresh(self, name: str) -> str:
        """A name that no value has."""
        name = free_name(f"{self._path}/{name}" if self._path else name, self._names)
        self._names.add(name)
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add an operator; returns the name of its output, or a list of several."""
        given = {name: value for name, value in attributes.items() if value is not None}
        names = [self.fresh(operator.lower()) for _ in range(outputs)]
        label = self.fresh(operator)
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), names, name=label, **given))
        return names[0] if outputs == 1 else names

    def constant(self, values: Any, name: str = "constant", kind: str | None = None) -> str:
        """An initialiser with these numbers, in the dtype of the weights unless told otherwise."""
        array = np.asarray(values, dtype=self.dtype if kind is None else kind)
        name = self.fresh(name)
        self.initialisers[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def integers(self, values: Sequence[int] | int, name: str = "sizes") -> str:
        """An initialiser of 64-bit integers."""
        return self.constant(values, name, "int64")

    def weight(self, layer: Layer, name: str, array: Any = None) -> str:
        """The initialiser of a parameter or buffer, named as in the model; one that is in several places once.

        With ``array`` it has these values instead of the layer's.
        """
        owner: Any = layer.parameters.get(name) or (id(layer), name)
        known = self._weights.get(hash(owner)) if array is None else None
        if known is not None:
            return known
        full = f"{self._path}.{name}" if self._path else name
        full = free_name(full, self._names)
        self._names.add(full)
        if array is None:
            self._weights[hash(owner)] = full
        host = np.asarray(values_of(layer, name) if array is None else array, dtype=self.dtype)
        self.initialisers[full] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(host), full)
        return full


def values_of(layer: Layer, name: str) -> Any:
    """A parameter or buffer as an array of the host."""
    value = layer.parameters[name].value if name in layer.parameters else layer.buffers[name]
    return layer.backend.to_numpy(value)


def rank(shape: Shape) -> int:
    """The number of spatial axes."""
    return len(shape) - 2
