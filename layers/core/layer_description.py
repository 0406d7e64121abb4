"""How a layer is shown: its constructor call, and the summary of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from .summary import Summary, summarise


class Described:
    """Base of `Layer`, whose docstring says what a subclass defines."""

    signature: ClassVar[tuple[tuple[str, Any], ...]] = ()

    def multiply_adds(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Number of multiply-adds in the products of a forward; elementwise work is not counted."""
        return 0

    def summary(self, input_shape: Sequence[int] | Sequence[Sequence[int]]) -> Summary:
        """Layers, output shapes, parameters and multiply-adds for an input of that shape; print it for a table.

        It uses `output_shape` and leaves the model unchanged. It includes the memory of the parameters, and of the
        outputs of all layers for that batch, which training saves.

        Parameters
        ----------
        input_shape : sequence of int
            With the batch axis, as in ``(1, 3, 32, 32)``; of several inputs a tuple of shapes.
        """
        return summarise(self, input_shape)

    def _flow(self, flow: Any, path: str, inputs: tuple[str, ...]) -> str:
        """Add this layer, or what is within it, to a `Flow` with that full name, and return the name of its output.

        ``inputs`` are the names of its inputs. A container defines it beside its ``forward``.
        """
        name: str = flow.add(path, self, inputs)
        return name

    def _input_names(self) -> tuple[str, ...]:
        """Names of its inputs, if its ``forward`` gets one array or a tuple of a fixed number of arrays; else none."""
        return ("input",)

    def __repr__(self) -> str:
        parts = []
        for name, default in self.signature:
            value = getattr(self, name)
            if default is ...:
                parts.append(repr(value))
            elif value != default:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"
