"""Max pools in exact numerics, of float32 as it is stored or of float64: they select numbers."""

from typing import Any

from ....common.types import Array
from . import exact_elementwise, pools
from .pools import PoolWindows


class ExactMaxPool:
    """Maxima over windows without common cells, and their gradient; arrays are ``(N, *S, C)``."""

    def __init__(self, pool: Any, is_stored: bool) -> None:
        self.pool, self.is_stored = pool, is_stored

    def forward(self, x: Array) -> tuple[Array, Array]:
        """The maxima, and the row-major index in its window of the first one."""
        found: tuple[Array, Array] = self.pool.forward(self._stored(x))
        return found

    def backward(self, dy: Array, cell: Array) -> Array:
        """``dx`` for an upstream gradient ``dy``."""
        dx: Array = self.pool.backward(self._stored(dy), cell)
        return dx

    def _stored(self, x: Array) -> Array:
        return exact_elementwise.OPERATIONS["store"](x) if self.is_stored else x


def prepare_max(problem: tuple[PoolWindows, tuple[int, ...]], dtype: str) -> ExactMaxPool | None:
    """A max pool of an input ``(N, *S, C)`` of that shape; None where gradients of several windows would be added."""
    windows = problem[0].windows
    spans = [(k - 1) * d + 1 for k, d in zip(windows.kernel, windows.dilation, strict=True)]
    if any(span > s for span, s in zip(spans, windows.stride, strict=True)):
        return None
    pool = pools.prepare_max(problem, dtype)
    return None if pool is None else ExactMaxPool(pool, dtype == "float32")
