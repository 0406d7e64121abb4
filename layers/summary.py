"""What a model consists of, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from ..backends import Backend, checks
from ..backends.terminal import columns, table, wrapped
from ..backends.types import Array

# Columns of a table that goes to a file.
_WIDEST = 120


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
        """Number of trained numbers; a layer that was passed twice, or a parameter of two layers, counts once."""
        return sum({row.name: row.parameters for row in self.rows}.values())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward."""
        return sum(row.multiply_adds for row in self.rows)

    def __str__(self) -> str:
        heads = ("name", "layer", "output shape", "parameters", "multiply-adds")
        rows = [
            (row.name, row.layer, str(row.output_shape), f"{row.parameters:,}", f"{row.multiply_adds:,}")
            for row in self.rows
        ]
        total = ("total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}")
        # As it will be printed; a long call of a layer is broken in a file too.
        width = columns() or _WIDEST
        told = table(heads, rows, width, title=2, numbers=(3, 4), words=(1,), footer=total)
        return f"{wrapped(f'input {self.input_shape}', width)}\n{told}"


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
    counted: dict[int, str] = {}
    with _unchanged(layer):
        layer.eval()
        for name, part in layer.named_layers():
            if len(list(part.named_layers())) == 1:
                vars(part)["forward"] = partial(_record, rows, counted, name, part)
            for parameter in part.parameters.values():
                if parameter._value is None:
                    # Shapes need no drawn weights, nor may their seed be settled here.
                    parameter.value = _zeros(parameter.backend, parameter.shape)
        first = next((parameter for _, parameter in layer.named_parameters()), layer)
        layer.forward(_zeros(first.backend, shape))
    return Summary(shape, rows)


def _record(rows: list[Row], counted: dict[int, str], name: str, layer: Any, x: Array) -> Any:
    y = type(layer).forward(layer, x)
    shape = tuple((y[0] if isinstance(y, tuple) else y).shape)
    # A parameter of several layers is counted with the first that is passed.
    own = [each for each in layer.parameters.values() if counted.setdefault(id(each), name) == name]
    parameters = sum(prod(parameter.shape) for parameter in {id(each): each for each in own}.values())
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
