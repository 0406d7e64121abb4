"""The namespace of the CuPy backend: CuPy's standard one, with products and joins that a CUDA graph can record.

CuPy refuses products while a stream captures, and it joins more than eight small arrays by a table of addresses that it
copies from the host. A graph would read the table's host buffer at every launch, after CuPy has reused it. This
namespace avoids both, so that ``b.xp.matmul`` and ``b.xp.concat`` in a user's step can be recorded. CuPy itself is not
changed.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ...common.types import Array, Namespace
from ..contractions.tensordot import tensordot
from ..execution.blocks import MOST_JOINED
from ..recording.guards import in_recording
from .matmul import CublasMatmul


class CupyNamespace:
    """``array_api_compat.cupy`` with products of floats by `CublasMatmul`.

    Made by `cupy_namespace`, one for each precision.

    Parameters
    ----------
    compat : module
        ``array_api_compat.cupy``.
    matmul : CublasMatmul
    """

    def __init__(self, compat: Any, matmul: CublasMatmul) -> None:
        # By this name `xpnn.backends.registry.name_of` finds the backend of a namespace.
        self.__name__: str = compat.__name__
        self._compat, self._matmul = compat, matmul

    @property
    def compat(self) -> Any:
        """The module of CuPy's standard functions."""
        return self._compat

    def __getattr__(self, name: str) -> Any:
        if name == "_compat":  # not set yet in a copy that is being made
            raise AttributeError(name)
        found = getattr(self._compat, name)
        # Stored, because layers look up a function for each operation.
        self.__dict__[name] = found
        return found

    def __dir__(self) -> list[str]:
        return dir(self._compat)

    def __repr__(self) -> str:
        rounded = "TF32" if self._matmul.tf32 else self._matmul.narrow
        return f"<namespace {self.__name__}{f' with {rounded}' * bool(rounded)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.__name__, self._matmul.tf32, self._matmul.narrow)

    def matmul(self, x1: Array, x2: Array, /, *, out: Array | None = None) -> Array:
        """Matrix product, into ``out`` where that is given."""
        if self._matmul.accepts(x1, x2):
            return self._matmul.matmul(x1, x2, out)
        if out is None:
            return self._compat.matmul(x1, x2)
        out[...] = self._compat.matmul(x1, x2)
        return out

    def tensordot(self, x1: Array, x2: Array, /, *, axes: int | tuple[Any, Any] = 2) -> Array:
        """Contraction over several axes, as one matrix product."""
        return tensordot(x1, x2, axes, self)

    def vecdot(self, x1: Array, x2: Array, /, *, axis: int = -1) -> Array:
        """Sum of the products of entries along an axis."""
        if not self._matmul.accepts(x1, x2):
            return self._compat.vecdot(x1, x2, axis=axis)
        if x1.shape[axis] != x2.shape[axis]:
            raise ValueError(f"vecdot: shapes {x1.shape} and {x2.shape} differ in size along axis {axis}")
        rows, columns = self.moveaxis(x1, axis, -1)[..., None, :], self.moveaxis(x2, axis, -1)[..., None]
        return self.matmul(rows, columns)[..., 0, 0]

    def concat(self, arrays: Sequence[Array], /, *, axis: int | None = 0) -> Array:
        """Arrays joined along an axis."""
        return self._join(self._compat.concat, self._compat.concat, arrays, axis)

    def stack(self, arrays: Sequence[Array], /, *, axis: int = 0) -> Array:
        """Arrays joined along a new axis."""
        return self._join(self._compat.stack, self._compat.concat, arrays, axis)

    def _join(
        self, join: Callable[..., Array], rejoin: Callable[..., Array], arrays: Sequence[Array], axis: int | None
    ) -> Array:
        """Arrays joined by ``join``, in a recording a few at a time without a table; ``rejoin`` joins the results."""
        parts = list(arrays)
        if len(parts) <= MOST_JOINED or not in_recording():
            return join(parts, axis=axis)
        parts = [join(parts[i : i + MOST_JOINED], axis=axis) for i in range(0, len(parts), MOST_JOINED)]
        return self._join(rejoin, rejoin, parts, 0 if axis is None else axis)

    @property
    def linalg(self) -> Any:
        """The extension of that name, with the same products."""
        return _Linalg(self)


class _Linalg:
    def __init__(self, xp: CupyNamespace) -> None:
        self.matmul, self.tensordot, self.vecdot = xp.matmul, xp.tensordot, xp.vecdot
        self._compat = xp._compat.linalg

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compat, name)


def cupy_namespace(compat: Any, cupy: Any, tf32: bool = False, narrow: str = "") -> CupyNamespace:
    """The namespace over these modules with this precision, made once."""
    return _made(compat, cupy, tf32, narrow)


@cache
def _made(compat: Any, cupy: Any, tf32: bool, narrow: str) -> CupyNamespace:
    return CupyNamespace(compat, CublasMatmul(cupy, tf32, narrow=narrow))


def _unpickled(name: str, tf32: bool, narrow: str) -> Namespace:
    from importlib import import_module

    return cupy_namespace(import_module(name), import_module("cupy"), tf32, narrow)
