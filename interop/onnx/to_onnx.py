"""A model as an ONNX file: `to_onnx`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from ...common import checks
from ...common.files import write_whole
from ...layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Dense,
    Embedding,
)
from ...layers.containers.dataflow import Dataflow, Node, dataflow_of, free_name
from ...layers.containers.folding import fold
from ...layers.core.layer import Layer
from ...layers.core.output_shape import Shape
from ..input_shapes import OpenShape, input_shapes
from ..packages import onnx_for
from ..unsupported import Unsupported
from .operators import WRITERS
from .writer import NeedsOpset, Writer

#: The opset of a file unless a layer needs a later one, or another is asked for.
OPSET = 18
#: The first whose operators are written.
FIRST_OPSET = 17
# Two numbers of samples for shapes whose batch axis has any size.
_SAMPLES = (2, 3)
# Protocol buffers end here.
_LARGEST = 2**31 - 1
_AFFINE = (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Dense)
_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def to_onnx(
    model: Layer,
    path: str | os.PathLike[str],
    input_shape: Sequence[Any],
    opset: int | None = None,
    fold_batch_norm: bool = False,
) -> None:
    """Write what a model computes in evaluation as an ONNX file, whole or not at all.

    Weights are named as in the model's ``state_dict``. The input is named ``input``, or as in a `Graph`, and the output
    ``output``. Computed elsewhere, results differ in rounding.

    Parameters
    ----------
    model : Layer
        It stays as it is, in its mode.
    path : path
    input_shape : sequence of int
        With the batch axis, which may be None for any size: ``(None, 3, 224, 224)``. The others are fixed in the file.
        For several inputs, a sequence of shapes.
    opset : int, optional
        The version of ONNX's operators: 18, or a later one that a layer needs, unless given.
    fold_batch_norm : bool
        Whether a batch norm is computed by the convolution or dense layer before it. The weights in the file are then
        not the model's.

    Raises
    ------
    ModuleNotFoundError
        If the package ``onnx`` is not installed.
    TypeError, ValueError
        For a shape that the model does not accept, layers without operators or with arguments that these lack: the
        message has all of these with their full names; for an opset below 17, unknown to the package, or lower than a
        layer needs; and for a file above 2 GB.

    Examples
    --------
    >>> import os, tempfile
    >>> import xpnn as nn
    >>> model = nn.models.lenet((1, 28, 28), 10, backend="numpy", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.to_onnx(model, os.path.join(folder, "lenet.onnx"), (None, 1, 28, 28))
    ...     os.listdir(folder)
    ['lenet.onnx']
    """
    checks.path("path", path)
    write_whole(path, encoded(model, input_shape, opset, fold_batch_norm))


def encoded(
    model: Layer,
    input_shape: Sequence[Any],
    opset: int | None = None,
    fold_batch_norm: bool = False,
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """The content of the file that `to_onnx` writes, with ``facts`` as its metadata."""
    onnx = onnx_for("to_onnx")
    checks.instance("model", model, Layer, "the model comes before the path")
    fold_batch_norm = checks.flag("fold_batch_norm", fold_batch_norm)
    flow, shapes = dataflow_of(model), input_shapes("to_onnx", input_shape)
    if len(shapes) != len(flow.inputs):
        raise ValueError(
            f"to_onnx: the model has inputs {', '.join(flow.inputs)}; input_shape must have a shape for each, got "
            f"{len(shapes)}"
        )
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not FIRST_OPSET <= checks.integer("opset", opset) <= newest:
        raise ValueError(f"to_onnx: opset must be from {FIRST_OPSET} to {newest}, which onnx {onnx.__version__} knows")
    _require_size(_bytes_of(model))
    known, other = (flow.shapes(*_sized(shapes, samples)) for samples in _SAMPLES)
    writer = _Export(onnx, model, flow, known, fold_batch_norm, opset).written()
    # Of a batch of any size, the output has as many samples, or a number that depends on it.
    samples = [each[flow.output][0] for each in (known, other)]
    batch: Any = samples[0] if samples[0] == samples[1] else "batch" if samples == [*_SAMPLES] else None
    output = [batch, *known[flow.output][1:]]
    file = _file(onnx, writer, flow, shapes, output)
    onnx.helper.set_model_props(file, dict(facts or {}))
    _require_size(file.ByteSize())
    return bytes(file.SerializeToString())


def _sized(shapes: list[OpenShape], samples: int) -> list[Shape]:
    return [tuple([samples if n is None else n for n in shape]) for shape in shapes]


def _bytes_of(model: Layer) -> int:
    """Of the weights, each once."""
    each = {id(parameter): parameter for _, parameter in model.named_parameters()}.values()
    return sum(prod(parameter.shape) for parameter in each) * (8 if model.backend.dtype_name == "float64" else 4)


def _require_size(count: int) -> None:
    if count > _LARGEST:
        raise ValueError(
            f"to_onnx: the file would have {count:,} bytes, more than the {_LARGEST:,} that ONNX's format holds; "
            "export in float32, or in parts"
        )


class _Export:
    """The operators of a model in one opset, or in the first that has all of them."""

    def __init__(
        self, onnx: Any, model: Layer, flow: Dataflow, shapes: dict[str, Shape], folds: bool, opset: int | None
    ) -> None:
        self._onnx, self._model, self._flow, self._shapes = onnx, model, flow, shapes
        self._opset, self._folds = opset, self._foldable() if folds else {}

    def written(self) -> Writer:
        """A writer with all operators."""
        opset = OPSET if self._opset is None else self._opset
        newest = self._onnx.defs.onnx_opset_version()
        while True:
            names = {*self._flow.inputs, *(node.name for node in self._flow.nodes), output_name(self._flow)}
            writer = Writer(self._onnx, opset, self._model.backend.dtype_name, names)
            complaints, needed = self._write(writer)
            if complaints:
                raise ValueError(f"to_onnx: {'; '.join(complaints)}")
            if not needed:
                return writer
            last = max(needed.values())
            if self._opset is not None or last > newest:
                layers = ", ".join(f"{name or 'the model'} needs {n}" for name, n in needed.items())
                raise ValueError(f"to_onnx: opset {opset} lacks what layers need: {layers}; give opset={last}")
            opset = last

    def _write(self, writer: Writer) -> tuple[list[str], dict[str, int]]:
        """Write all layers; returns complaints, and the opsets that layers need by their names."""
        values = {name: name for name in self._flow.inputs}
        complaints: list[str] = []
        needed: dict[str, int] = {}
        absorbed = {norm.name: conv.name for conv, norm in self._folds.values()}
        for node in self._flow.nodes:
            if node.name in absorbed:
                values[node.name] = values.get(absorbed[node.name], "")
                continue
            inputs = [values.get(name, name) for name in node.inputs]
            writer.begin(node.name)
            try:
                values[node.name] = self._write_node(writer, node, inputs)
            except Unsupported as error:
                complaints.append(f"{node.name or 'the model'}: {type(node.layer).__name__}: {error}")
            except NeedsOpset as error:
                needed[node.name] = error.opset
        if not (complaints or needed):
            self._finish(writer, values[self._flow.output])
        return complaints, needed

    def _write_node(self, writer: Writer, node: Node, inputs: list[str]) -> str:
        write = WRITERS.get(type(node.layer))
        if write is None:
            raise Unsupported("has no operator")
        shapes = [self._shapes[name] for name in node.inputs]
        if (pair := self._folds.get(node.name)) is not None:
            layer: Any = node.layer
            norm: Any = pair[1].layer
            folded = fold(layer, norm, layer.backend.xp)
            if folded is None:
                raise Unsupported("its batch norm can't be folded: a weight or statistic is not finite")
            arrays = tuple(map(layer.backend.to_numpy, folded))
            return write(writer, layer, inputs, shapes, arrays)
        return write(writer, node.layer, inputs, shapes)

    def _foldable(self) -> dict[str, tuple[Node, Node]]:
        """Layers followed only by a batch norm with running statistics, by name, with it."""
        consumers: dict[str, list[Node]] = {}
        for node in self._flow.nodes:
            for name in node.inputs:
                consumers.setdefault(name, []).append(node)
        found = {}
        for node in self._flow.nodes:
            after = consumers.get(node.name, [])
            if type(node.layer) not in _AFFINE or node.name == self._flow.output:
                continue
            # A dense layer has its features in the last axis, a batch norm in the second.
            fits = len(self._shapes[node.name]) == 2 or not isinstance(node.layer, Dense)
            is_norm = len(after) == 1 and type(after[0].layer) in _NORMS and "running_mean" in after[0].layer.buffers
            if fits and is_norm:
                found[node.name] = (node, after[0])
        return found

    def _finish(self, writer: Writer, value: str) -> None:
        """Name the output."""
        name = output_name(self._flow)
        writer.nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))


def output_name(flow: Dataflow) -> str:
    """``output``, unless an input is named so."""
    return free_name("output", flow.inputs)


def _file(onnx: Any, writer: Writer, flow: Dataflow, shapes: list[OpenShape], output: list[Any]) -> Any:
    """The file as a message."""
    helper, proto = onnx.helper, onnx.TensorProto
    kind = proto.DOUBLE if writer.dtype == "float64" else proto.FLOAT
    indices = {node.inputs[0] for node in flow.nodes if isinstance(node.layer, Embedding)}
    inputs = [
        helper.make_tensor_value_info(
            name, proto.INT64 if name in indices else kind, ["batch" if n is None else n for n in shape]
        )
        for name, shape in zip(flow.inputs, shapes, strict=True)
    ]
    outputs = [helper.make_tensor_value_info(output_name(flow), kind, output)]
    graph = helper.make_graph(writer.nodes, "xpnn", inputs, outputs, list(writer.initialisers.values()))
    opsets = [helper.make_opsetid("", writer.opset)]
    version: int = helper.find_min_ir_version_for(opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="xpnn")
