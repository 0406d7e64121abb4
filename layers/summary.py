"""What a model consists of, as a table."""

import io
from dataclasses import dataclass


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
        Console(file=out, width=120).print(f"input {self.input_shape}", table, sep="\n")
        return out.getvalue().rstrip("\n")
