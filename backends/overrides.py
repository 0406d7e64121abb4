"""Overrides of the choice of how an operation is computed, to compare the algorithms with each other.

Convolutions have several algorithms, pools and norms have compiled kernels and array functions, and a batch is cut into
blocks. The choice depends on sizes, so a fault in one algorithm shows only at sizes at which it is chosen. Tests and
``xpnn parity --modes`` override the choice, so that each algorithm computes the same small arrays.

An override holds for the whole process, worker threads included. It changes which code computes, never what is
accepted: where an algorithm does not support a shape, the usual choice is used.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Choices:
    """Choices in place of the usual ones.

    Attributes
    ----------
    kernels : bool or None
        Whether compiled kernels, of Numba or CUDA, are used; None for the setting of the environment.
    large : bool
        Whether every size counts as large, so that kernels, and array functions for large arrays, are used wherever
        they can be.
    convolution : str
        Algorithm of convolutions, by its name in `xpnn.layers.convolution.algorithms`, wherever it can be used; ``""``
        for the usual choice.
    block_bytes : int
        Bytes of temporaries of a block of the batch; 0 for the backend's setting.
    """

    kernels: bool | None = None
    large: bool = False
    convolution: str = ""
    block_bytes: int = 0


_usual = Choices()
_chosen = _usual
#: Whether something is overridden or collected.
active = False
_applicable: set[str] | None = None


def chosen() -> Choices:
    """The current overrides."""
    return _chosen


@contextmanager
def using(choices: Choices) -> Iterator[set[str]]:
    """Override choices within the ``with`` block.

    Yields the set of names passed to `add_applicable` there: ``"kernels"``, and the algorithms that can compute a
    convolution.
    """
    global _chosen, _applicable, active
    before = _chosen, _applicable, active
    found: set[str] = set()
    _chosen, _applicable, active = choices, found, True
    try:
        yield found
    finally:
        _chosen, _applicable, active = before


def add_applicable(names: Iterable[str]) -> None:
    """Record that these algorithms could compute the current operation."""
    if _applicable is not None:
        _applicable.update(names)


def is_collecting() -> bool:
    """Whether the names passed to `add_applicable` are collected."""
    return _applicable is not None


def is_small(size: int, least: int) -> bool:
    """Whether a size is below ``least``, from which an algorithm is worth its cost."""
    return size < least and not _chosen.large
