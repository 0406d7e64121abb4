"""What a model consists of, as a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from ..backends import Backend, checks
from ..backends.types import Array


@dataclass(frozen=True)
class Row:
    """One layer of a summary: full name, the call that makes it, output shape, parameters, multiply-adds."""

    name: str
    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """The layers that an input passed, in order; `str` gives a table with totals.

    Attributes
    ----------
    input_shape : tuple of int
    rows : list of Row
    """

    input_shape: tuple[int, ...]
    rows: list[Row]

    @property
    def parameters(self) -> int:
        """Number of trained numbers; a layer that was passed twice counts once."""
        return sum({row.name: row.parameters for row in self.rows}.values())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward."""
        return sum(row.multiply_adds for row in self.rows)

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("name", "layer", "output shape", show_footer=True)
        table.add_column("parameters", f"{self.parameters:,}", justify="right")
        table.add_column("multiply-adds", f"{self.multiply_adds:,}", justify="right")
        table.columns[0].footer = "total"
        for row in self.rows:
            cells = (row.name, row.layer, str(row.output_shape), f"{row.parameters:,}", f"{row.multiply_adds:,}")
            table.add_row(*map(Text, cells))
        out = io.StringIO()
        # Without colours: a caller's FORCE_COLOR would put escape codes into the text.
        Console(file=out, width=120, color_system=None).print(f"input {self.input_shape}", table, sep="\n")
        return out.getvalue().rstrip("\n")


def summarise(layer: Any, input_shape: Sequence[int]) -> Summary:
    """The summary of a layer and all within, by a forward of zeros that records what each layer gives.

    Raises
    ------
    ValueError
        For what is no shape, or one that the layers do not take.
    """
    what = "the shape of an input with its batch axis, such as (1, 3, 32, 32)"
    shape = checks.shape("input_shape", input_shape, accepted=what)
    rows: list[Row] = []
    with _unchanged(layer):
        layer.eval()
        for name, part in layer.named_layers():
            if len(list(part.named_layers())) == 1:
                vars(part)["forward"] = partial(_record, rows, name, part)
            for parameter in part.parameters.values():
                if parameter._value is None:
                    # Shapes need no drawn weights, nor may their seed be settled here.
                    parameter.value = _zeros(parameter.backend, parameter.shape)
        first = next((parameter for _, parameter in layer.named_parameters()), layer)
        layer.forward(_zeros(first.backend, shape))
    return Summary(shape, rows)


def _record(rows: list[Row], name: str, layer: Any, x: Array) -> Any:
    y = type(layer).forward(layer, x)
    shape = tuple((y[0] if isinstance(y, tuple) else y).shape)
    parameters = sum(prod(parameter.shape) for parameter in layer.parameters.values())
    rows.append(Row(name, repr(layer), shape, parameters, layer.multiply_adds(tuple(x.shape), shape)))
    return y


def _zeros(b: Backend, shape: tuple[int, ...]) -> Array:
    with b.context():
        return b.xp.zeros(shape, dtype=b.dtype, device=b.device)


@contextmanager
def _unchanged(layer: Any) -> Iterator[None]:
    """Put back at the end all attributes of the layers within, of their parameters and buffers."""
    layers = [part for _, part in layer.named_layers()]
    parameters = [parameter for part in layers for parameter in part.parameters.values()]
    held: list[Any] = [*layers, *parameters, *(part.buffers for part in layers)]
    before = [(each, dict(vars(each))) for each in held]
    for part in layers:
        part.buffers._arrays = dict(part.buffers._arrays)
    try:
        yield
    finally:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)
