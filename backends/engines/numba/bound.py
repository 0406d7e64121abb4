"""Jobs with their arguments, as numbers that compiled code reads."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ....common.types import Array
from .compiler import njit


@njit(cache=True)
def _address(x: Any) -> Any:
    return x.ctypes.data


def address_of(x: Array) -> int:
    """Address of the first entry of an array."""
    return int(_address(x)) if type(x) is np.ndarray else int(x.ctypes.data)


class Arguments(NamedTuple):
    """The arguments of a job, or of several that have the same.

    Attributes
    ----------
    memory : array of int64
        Where compiled code reads them; a row for each part if they are those of parts (`Job.bind_parts`).
    values : sequence of arrays and numbers
        For parts without the last, the number of the part.
    addressed : sequence of array
        Arrays whose addresses are in others.
    """

    memory: Array
    values: Sequence[Any]
    addressed: Sequence[Array] = ()


class Bound:
    """Jobs with their arguments, which run one after another.

    Attributes
    ----------
    rows : list of (int, int, int)
        For each job the address of its function, the number of items, and the address of the arguments.
    keep : list of Arguments
        What the addresses are of.
    uses_blas : bool
        Whether jobs call the matrix library, which must then be on one thread.
    signature : object
        In a recording, what must be the same whenever the step is run: sizes, numbers, and where arrays come from.
    """

    __slots__ = ("_address", "is_shared", "keep", "program", "rows", "signature", "uses_blas")

    def __init__(
        self, rows: list[tuple[int, int, int]], keep: list[Arguments], uses_blas: bool = False, signature: Any = None
    ) -> None:
        self.rows, self.keep, self.uses_blas, self.signature = rows, keep, uses_blas, signature
        self.is_shared = False
        # In few calls, as this runs for each operation of a step.
        for _, items, _ in rows:
            if items > 1:
                self.is_shared = True
        self.program = np.array(rows or np.empty((0, 3)), np.int64)
        self._address = 0

    @property
    def address(self) -> int:
        """Address of the program, which takes as long to find as a small job to run."""
        if not self._address:
            self._address = address_of(self.program)
        return self._address

    @classmethod
    def join(cls, parts: "Iterable[Bound]") -> "Bound":
        """One that runs all jobs of the parts, in order."""
        parts = list(parts)
        rows, keep = [row for part in parts for row in part.rows], [each for part in parts for each in part.keep]
        return cls(rows, keep, any(part.uses_blas for part in parts), [part.signature for part in parts])

    @classmethod
    def interleave(cls, phases: "Iterable[Bound]") -> "Bound":
        """One that runs the first jobs of all phases, in order, then the second ones, and so on."""
        phases = list(phases)
        rows = [row for part in zip(*(phase.rows for phase in phases), strict=True) for row in part]
        signature, keep = [phase.signature for phase in phases], [each for phase in phases for each in phase.keep]
        return cls(rows, keep, any(phase.uses_blas for phase in phases), signature)
