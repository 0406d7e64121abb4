"""Overruling the choice of how an operation is computed, to compare the ways with each other.

Convolutions have several algorithms, pools and norms have compiled kernels and array functions, a batch is cut into
blocks; what computes is chosen by size. So a fault in one of them shows only at sizes at which it is chosen. Tests and
``xpnn parity --modes`` overrule the choice: each way then computes the same small arrays.

An override holds for the whole process, worker threads among it. It changes which code computes, never what is
accepted: a way that does not serve a shape is left out, and the usual choice computes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Ways:
    """What is asked for instead of the usual choice.

    Attributes
    ----------
    kernels : bool or None
        Whether compiled kernels, of Numba or CUDA, are used; None for what the environment says.
    large : bool
        Every size counts as large: kernels, and array functions that are meant for large arrays, are used wherever
        they serve.
    convolution : str
        Algorithm of convolutions, by its name in `xpnn.layers.convolution.algorithms`, wherever it serves; ``""`` for
        the usual choice.
    block_bytes : int
        Bytes of temporaries of a block of the batch; 0 for the backend's own.
    """

    kernels: bool | None = None
    large: bool = False
    convolution: str = ""
    block_bytes: int = 0


_usual = Ways()
_now = _usual
_met: set[str] | None = None


def now() -> Ways:
    """What is asked for at present."""
    return _now


@contextmanager
def using(ways: Ways) -> Iterator[set[str]]:
    """Ask for these ways inside the block.

    Gives the set of names that are `met` there: ``"kernels"``, and the algorithms that serve a convolution.
    """
    global _now, _met
    before = _now, _met
    found: set[str] = set()
    _now, _met = ways, found
    try:
        yield found
    finally:
        _now, _met = before


def met(names: Iterable[str]) -> None:
    """Note that these ways could compute what is computed."""
    if _met is not None:
        _met.update(names)


def watched() -> bool:
    """Whether anybody asks what is `met`."""
    return _met is not None


def small(size: int, least: int) -> bool:
    """Whether a size is below the least from which a way is worth its cost."""
    return size < least and not _now.large
