"""What a model consists of, as a table, from shapes alone.

Every layer of the library says what its output's shape is by the code that its forward checks an input with. A layer
that does not is asked by a forward of zeros of one sample; the layers within such a container say theirs as ever, and
in the place of what they compute stand zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, TypeAlias

from ..backends import Backend
from ..common import checks
from ..common.terminal import columns, table, wrapped
from ..common.types import Array

# Columns of a table that goes to a file.
_WIDEST = 120
Shape: TypeAlias = tuple[int, ...]
Observer: TypeAlias = Callable[[Any, Shape, Shape], None]

BYTES = {"float32": 4, "float64": 8}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")

_observer: ContextVar[Observer | None] = ContextVar("xpnn_shapes", default=None)


@dataclass(frozen=True)
class Row:
    """One layer of a summary: full name, the call that makes it, output shape, parameters, multiply-adds.

    ``output_bytes`` is the memory of the output, also where it is a view of the input, as of a `Flatten`.
    """

    name: str
    layer: str
    output_shape: Shape
    parameters: int
    multiply_adds: int
    output_bytes: int


@dataclass(frozen=True)
class Summary:
    """The layers that an input passed, in order; `str` gives a table with totals.

    Attributes
    ----------
    input_shape : tuple of int
    rows : list of Row
    dtype : str
        Of parameters and outputs.
    """

    input_shape: Shape
    rows: list[Row]
    dtype: str = "float32"

    @property
    def parameters(self) -> int:
        """Number of trained numbers; a layer that was passed twice, or a parameter of two layers, counts once."""
        return sum({row.name: row.parameters for row in self.rows}.values())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def parameter_bytes(self) -> int:
        """Memory of the parameters; gradients take as much again, and an optimizer's state once or twice."""
        return self.parameters * BYTES[self.dtype]

    @property
    def output_bytes(self) -> int:
        """Memory of the outputs of all layers for that batch, about what training keeps for backward."""
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
        # As it will be printed; a long call of a layer is broken in a file too.
        width = columns() or _WIDEST
        told = table(heads, rows, width, title=2, numbers=(3, 4, 5), words=(1,), footer=total)
        memory = (
            f"memory in {self.dtype}: parameters {in_units(self.parameter_bytes)}, outputs of all layers for this "
            f"batch {in_units(self.output_bytes)}"
        )
        return f"{wrapped(f'input {self.input_shape}', width)}\n{told}\n{wrapped(memory, width)}"


def in_units(size: int) -> str:
    """A number of bytes in units of 1000, with three digits."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value * 1e-3, unit + 1
    return f"{value:.3g} {UNITS[unit]}"


def summarise(layer: Any, input_shape: Sequence[int]) -> Summary:
    """The summary of a layer and all within.

    Raises
    ------
    ValueError
        For what is no shape, or one that the layers do not take.
    """
    what = "the shape of an input with its batch axis, such as (1, 3, 32, 32)"
    shape = checks.shape("input_shape", input_shape, accepted=what)
    parts = list(layer.named_layers())
    names = {id(part): name for name, part in parts}
    single = {id(part) for _, part in parts if len(list(part.named_layers())) == 1}
    rows: list[Row] = []
    counted: dict[int, int] = {}
    # To ask for its backend settles a layer's.
    with _unchanged(layer):
        dtype = _placed(layer).dtype_name

        def record(part: Any, x_shape: Shape, y_shape: Shape) -> None:
            if id(part) in single:
                # A parameter of several layers is counted with the first that is passed.
                own = [each for each in part.parameters.values() if counted.setdefault(id(each), id(part)) == id(part)]
                parameters = sum(prod(each.shape) for each in {id(each): each for each in own}.values())
                adds, size = part.multiply_adds(x_shape, y_shape), prod(y_shape) * BYTES[dtype]
                rows.append(Row(names[id(part)], repr(part), y_shape, parameters, adds, size))

        with _observed(record):
            layer.output_shape(tuple(int(n) for n in shape))
    return Summary(shape, rows, dtype)


def told(layer: Any, x_shape: Shape, y_shape: Shape) -> None:
    """Tell a summary in the making what a layer makes of a shape."""
    observer = _observer.get()
    if observer is not None:
        observer(layer, x_shape, y_shape)


@contextmanager
def _observed(observer: Observer | None) -> Iterator[None]:
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def knows_shapes(layer: Any) -> bool:
    """Whether a layer's own code says what its shapes are: not where a subclass computes something else."""
    kind = type(layer)
    teller = _definer(kind, "_output_shape")
    computing = (_definer(kind, name) for name in ("forward", "_forward"))
    # The base of all layers has one that says nothing.
    return teller is not _definer(kind, "output_shape") and all(issubclass(teller, each) for each in computing)


def _definer(kind: type, name: str) -> type:
    """The class from which a class has that method."""
    return next(each for each in kind.__mro__ if name in vars(each))


def probed(layer: Any, shape: Shape) -> Shape:
    """The shape that a forward of zeros gives: of one sample, or of all where one does not fit or is not one after."""
    observer = _observer.get()
    seen: list[tuple[Any, Shape, Shape]] = []
    with _observed(lambda *each: seen.append(each)):
        try:
            found = _forward(layer, (1, *shape[1:])) if shape else ()
        except (TypeError, ValueError):
            found = ()
        shapes = [found, *(each for _, *both in seen for each in both)]
        alike = all(each[:1] == (1,) for each in shapes)
        if not alike:
            seen.clear()
            found = _forward(layer, shape)

    def of_all(each: Shape) -> Shape:
        return (shape[0], *each[1:]) if alike else each

    if observer is not None:
        for part, x_shape, y_shape in seen:
            observer(part, of_all(x_shape), of_all(y_shape))
    return of_all(found)


def _forward(layer: Any, shape: Shape) -> Shape:
    """The shape of the output for zeros, in evaluation; all is left as it was."""
    with _unchanged(layer):
        layer.eval()
        for _, part in layer.named_layers():
            if part is not layer:
                vars(part)["forward"] = partial(_stand_in, part)
            for parameter in part.parameters.values():
                if parameter._value is None:
                    # Shapes need no drawn weights, nor may their seed be settled here.
                    parameter.value = _zeros(parameter.backend, parameter.shape)
        y = layer.forward(_zeros(_placed(layer), shape))
        return tuple((y[0] if isinstance(y, tuple) else y).shape)


def _stand_in(part: Any, x: Array) -> Array:
    """Zeros of the shape that a layer within gives."""
    # What is in its place computes nothing, so that what it says counts.
    del vars(part)["forward"]
    try:
        return _zeros(_placed(part), part.output_shape(tuple(x.shape)))
    finally:
        vars(part)["forward"] = partial(_stand_in, part)


def _placed(layer: Any) -> Backend:
    """Where a layer's parameters are, else where it computes."""
    backend: Backend = next((parameter for _, parameter in layer.named_parameters()), layer).backend
    return backend


def _zeros(b: Backend, shape: Shape) -> Array:
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
