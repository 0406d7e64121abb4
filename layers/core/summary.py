"""A table of a model's layers: output shapes, parameters, multiply-adds and memory, from shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...common.terminal import columns, table, wrapped
from .output_shape import Shape, backend_of_parameters, checked_shape, observed_shapes, unchanged

# Width in characters of a table that is not printed to a terminal.
_WIDEST = 120
BYTES = {"float32": 4, "float64": 8}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Row:
    """One layer of a summary: full name, ``repr``, output shape, number of parameters, multiply-adds.

    ``frozen`` is the number of parameters that require no gradient. ``output_bytes`` is the memory of the output, even
    if it is a view of the input, as for `Flatten`.
    """

    name: str
    layer: str
    output_shape: Shape
    parameters: int
    multiply_adds: int
    output_bytes: int
    frozen: int = 0


@dataclass(frozen=True)
class Summary:
    """The layers through which an input passes, in order; `str` returns a table with totals.

    Attributes
    ----------
    input_shape : tuple of int
        Of several inputs, a tuple of these.
    rows : list of Row
    dtype : str
        Of parameters and outputs.
    """

    input_shape: Shape | tuple[Shape, ...]
    rows: list[Row]
    dtype: str = "float32"

    @property
    def parameters(self) -> int:
        """Number of values in parameters; a layer that is passed twice, or a parameter of two layers, counts once."""
        return sum({row.name: row.parameters for row in self.rows}.values())

    @property
    def trained_parameters(self) -> int:
        """The number of those that are not frozen."""
        return self.parameters - sum({row.name: row.frozen for row in self.rows}.values())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def parameter_bytes(self) -> int:
        """Memory of the parameters; gradients need as much again, and an optimizer's state once or twice as much."""
        return self.parameters * BYTES[self.dtype]

    @property
    def output_bytes(self) -> int:
        """Memory of the outputs of all layers for this batch, about what training saves for backward."""
        return sum(row.output_bytes for row in self.rows)

    def __str__(self) -> str:
        heads = ("name", "layer", "output shape", "parameters", "multiply-adds", "output memory")
        rows = [
            (
                row.name,
                row.layer,
                str(row.output_shape),
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
                in_units(row.output_bytes),
            )
            for row in self.rows
        ]
        total = ("total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", in_units(self.output_bytes))
        # A long repr of a layer is wrapped in a file too.
        width = columns() or _WIDEST
        body = table(heads, rows, width, title=2, numbers=(3, 4, 5), words=(1,), footer=total)
        memory = (
            f"memory in {self.dtype}: parameters {in_units(self.parameter_bytes)}, outputs of all layers for this "
            f"batch {in_units(self.output_bytes)}"
        )
        lines = [wrapped(f"input {self.input_shape}", width), body, wrapped(memory, width)]
        if frozen := self.parameters - self.trained_parameters:
            counts = f"{self.trained_parameters:,} of {self.parameters:,} parameters are trained, {frozen:,} are frozen"
            lines.append(wrapped(counts, width))
        return "\n".join(lines)


def in_units(size: int) -> str:
    """A number of bytes with a decimal unit (1 kB = 1000 B) and three significant digits."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value * 1e-3, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


def summarise(layer: Any, input_shape: Sequence[int] | Sequence[Sequence[int]]) -> Summary:
    """The summary of a layer and all layers within.

    Raises
    ------
    ValueError
        Unless ``input_shape`` is a shape that the layers accept.
    """
    what = "the shape of an input with its batch axis, such as (1, 3, 32, 32)"
    shape = checked_shape(layer, input_shape, accepted=what)
    parts = list(layer.named_layers())
    names = {id(part): name for name, part in parts}
    single = {id(part) for _, part in parts if len(list(part.named_layers())) == 1}
    rows: list[Row] = []
    counted: dict[int, int] = {}
    # Reading `Layer.backend` determines it; the layer must be left without one if it had none.
    with unchanged(layer):
        dtype = backend_of_parameters(layer).dtype_name

        def record(part: Any, x_shape: Shape, y_shape: Shape) -> None:
            if id(part) in single:
                # A parameter of several layers counts for the first of them.
                own = [each for each in part.parameters.values() if counted.setdefault(id(each), id(part)) == id(part)]
                own = list({id(each): each for each in own}.values())
                parameters = sum(prod(each.shape) for each in own)
                frozen = sum(prod(each.shape) for each in own if not each.requires_grad)
                adds, size = part.multiply_adds(x_shape, y_shape), prod(y_shape) * BYTES[dtype]
                rows.append(Row(names[id(part)], repr(part), y_shape, parameters, adds, size, frozen))

        with observed_shapes(record):
            layer.output_shape(shape)
    return Summary(shape, rows, dtype)
