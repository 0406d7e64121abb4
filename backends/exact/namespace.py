"""The Array API namespace of exact numerics: float64 results with the same bits on every library.

It wraps a library's namespace. Functions whose results IEEE-754 or integer arithmetic defines are the library's. Sums,
products and elementary functions, whose results the standard leaves open, are replaced by those of this package. Other
functions that it leaves open raise `AttributeError`. Arrays are the library's own, and so are their operators: the
results of ``+ - * /`` on float64 arrays are defined.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from array_api_compat import device

from ...common.types import Array, DType, Namespace, dtype_name
from ..contractions.tensordot import tensordot
from ..execution.team import Team, current_team, rows_of_all
from .contractions import ExactContractions
from .elementary import Elementary

#: Functions whose results the standard leaves open and that this package does not replace.
REFUSED = frozenset(
    [
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cos",
        "cumulative_prod",
        "cumulative_sum",
        "fft",
        "hypot",
        "linalg",
        "log10",
        "log2",
        "logaddexp",
        "sin",
        "tan",
    ]
)
# Elements that elementary functions and contractions process at a time on a CPU, so that temporaries stay in the cache.
ELEMENTARY_CHUNK, CONTRACTION_CHUNK = 1 << 14, 1 << 17


class ExactNamespace:
    """An Array API namespace whose float64 results are the same bits on every library.

    Parameters
    ----------
    raw : namespace
        The library's own namespace.
    slice_products : {1, 2, 3}
        See `xpnn.backends.exact.splitting.budget`.
    on_host : bool
        Whether the device is a CPU, which processes arrays in blocks. The bits are the same.
    """

    def __init__(self, raw: Namespace, slice_products: int = 2, on_host: bool = True) -> None:
        self.raw = raw
        # Shared with the contractions, so that the matrix product that tests a new backend makes the tables.
        self._functions = Elementary(raw, ELEMENTARY_CHUNK if on_host else 0)
        self.contractions = ExactContractions(raw, slice_products, CONTRACTION_CHUNK if on_host else 0, self._functions)

    def __getattr__(self, name: str) -> Any:
        if name == "raw":  # not yet set while an instance is copied
            raise AttributeError(name)
        if name in REFUSED:
            raise AttributeError(f"{name} has no exact form: numerics='exact' does not support it")
        return getattr(self.raw, name)

    def __repr__(self) -> str:
        return f"ExactNamespace({self.raw!r})"

    def matmul(self, x1: Array, x2: Array) -> Array:
        """Matrix product, independent of the order of additions; see `ExactContractions.matmul`."""
        if not self._is_float(x1):
            return self.raw.matmul(x1, x2)
        return self._narrow(self.contractions.matmul(self._wide(x1), self._wide(x2)), x1)

    def vecdot(self, x1: Array, x2: Array, *, axis: int = -1) -> Array:
        """Sum of the elementwise product over an axis."""
        return self.sum(x1 * x2, axis=axis)

    def tensordot(self, x1: Array, x2: Array, *, axes: int | tuple[Any, Any] = 2) -> Array:
        """Contraction over several axes, as one matrix product."""
        return tensordot(x1, x2, axes, self)

    def sum(
        self,
        x: Array,
        *,
        axis: int | tuple[int, ...] | None = None,
        dtype: DType | None = None,
        keepdims: bool = False,
    ) -> Array:
        """Sum, independent of the order of additions; over axis 0, also over the workers of a team."""
        if not self._is_float(x):
            return self.raw.sum(x, axis=axis, dtype=dtype, keepdims=keepdims)
        total = self.contractions.sum(self._wide(x), axis, keepdims, self._team(x, axis))
        return self._narrow(total, x) if dtype is None else self.raw.astype(total, dtype)

    def max(self, x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Maximum; over axis 0, also over the workers of a team."""
        team = self._team(x, axis)
        if team is None:
            return self.raw.max(x, axis=axis, keepdims=keepdims)
        if not x.shape[0]:
            # Other workers have rows; -inf is never larger than theirs.
            x = self.raw.full((1, *x.shape[1:]), float("-inf"), dtype=x.dtype, device=device(x))
        return team.max(self.raw.max(x, axis=axis, keepdims=keepdims))

    def min(self, x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Minimum; over axis 0, also over the workers of a team."""
        if self._team(x, axis) is None:
            return self.raw.min(x, axis=axis, keepdims=keepdims)
        return -self.max(-x, axis=axis, keepdims=keepdims)

    def mean(self, x: Array, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        """Sum divided by the number of terms."""
        return self.sum(x, axis=axis, keepdims=keepdims) / self._count(x, axis)

    def var(
        self, x: Array, *, axis: int | tuple[int, ...] | None = None, correction: float = 0.0, keepdims: bool = False
    ) -> Array:
        """Mean squared difference from the mean."""
        centred = x - self.mean(x, axis=axis, keepdims=True)
        return self.sum(centred * centred, axis=axis, keepdims=keepdims) / self._count(x, axis, correction)

    def std(
        self, x: Array, *, axis: int | tuple[int, ...] | None = None, correction: float = 0.0, keepdims: bool = False
    ) -> Array:
        """Square root of the variance."""
        return self.sqrt(self.var(x, axis=axis, correction=correction, keepdims=keepdims))

    def prod(
        self,
        x: Array,
        *,
        axis: int | tuple[int, ...] | None = None,
        dtype: DType | None = None,
        keepdims: bool = False,
    ) -> Array:
        """Product by halving: factors ``i`` and ``i + n/2`` are multiplied first. Not over the samples of a team."""
        if not self._is_float(x):
            return self.raw.prod(x, axis=axis, dtype=dtype, keepdims=keepdims)
        if self._team(x, axis) is not None:
            raise NotImplementedError("a product over the samples of several workers has no exact form here")
        raw = self.raw
        axes = range(x.ndim) if axis is None else ((axis,) if isinstance(axis, int) else axis)
        reduced = sorted({a % x.ndim for a in axes})
        kept = [a for a in range(x.ndim) if a not in reduced]
        lead = tuple(x.shape[a] for a in kept)
        y = raw.reshape(raw.permute_dims(self._wide(x), (*kept, *reduced)), (*lead, prod(x.shape[a] for a in reduced)))
        if not y.shape[-1]:
            y = raw.ones((*lead, 1), dtype=y.dtype, device=device(x))
        while y.shape[-1] > 1:
            half = y.shape[-1] // 2
            odd = y[..., 2 * half :]
            y = y[..., :half] * y[..., half : 2 * half]
            y = raw.concat([y, odd], axis=-1) if odd.shape[-1] else y
        shape = tuple(1 if a in reduced else n for a, n in enumerate(x.shape) if keepdims or a not in reduced)
        y = raw.reshape(y, shape)
        return self._narrow(y, x) if dtype is None else raw.astype(y, dtype)

    def exp(self, x: Array) -> Array:
        """``e**x``."""
        return self._apply(self._functions.exp, x)

    def expm1(self, x: Array) -> Array:
        """``e**x - 1``."""
        return self._apply(self._functions.expm1, x)

    def log(self, x: Array) -> Array:
        """Natural logarithm."""
        return self._apply(self._functions.log, x)

    def log1p(self, x: Array) -> Array:
        """``log(1 + x)``."""
        return self._apply(self._functions.log1p, x)

    def tanh(self, x: Array) -> Array:
        """Hyperbolic tangent."""
        return self._apply(self._functions.tanh, x)

    def sinh(self, x: Array) -> Array:
        """Hyperbolic sine."""
        return self._apply(self._functions.sinh, x)

    def cosh(self, x: Array) -> Array:
        """Hyperbolic cosine."""
        return self._apply(self._functions.cosh, x)

    def sqrt(self, x: Array) -> Array:
        """Square root, which not every library rounds correctly."""
        return self._apply(self._functions.sqrt, x)

    def reciprocal(self, x: Array) -> Array:
        """``1 / x`` by a division of arrays."""
        return self.raw.ones_like(x) / x

    def pow(self, x1: Array, x2: float) -> Array:
        """``x1**x2`` for one number ``x2``."""
        if not isinstance(x2, int | float):
            raise TypeError(f"exact pow: the exponent must be a number of Python, got {type(x2).__name__}")
        return self._apply(lambda x: self._functions.pow(x, x2), x1)

    def _apply(self, function: Callable[[Array], Array], x: Array) -> Array:
        if not self._is_float(x):
            raise TypeError(
                f"exact elementary functions: the array must be float32 or float64, got {dtype_name(x.dtype)}"
            )
        return self._narrow(function(self._wide(x)), x)

    def _team(self, x: Array, axis: int | tuple[int, ...] | None) -> Team | None:
        """The workers whose samples a reduction over these axes includes: the team if axis 0 is reduced, else None."""
        axes = (axis,) if isinstance(axis, int) else axis
        over_batch = x.ndim and (axes is None or 0 in {a % x.ndim for a in axes})
        return current_team() if over_batch and self._is_float(x) else None

    def _is_float(self, x: Array) -> bool:
        return dtype_name(x.dtype).startswith("float")

    def _wide(self, x: Array) -> Array:
        return x if dtype_name(x.dtype) == "float64" else self.raw.astype(x, self.raw.float64)

    def _narrow(self, y: Array, like: Array) -> Array:
        return y if dtype_name(like.dtype) == "float64" else self.raw.astype(y, like.dtype)

    def _count(self, x: Array, axis: int | tuple[int, ...] | None, correction: float = 0.0) -> Array:
        axes = range(x.ndim) if axis is None else ((axis,) if isinstance(axis, int) else axis)
        terms = prod(x.shape[a] for a in axes)
        n = (terms if self._team(x, axis) is None else rows_of_all(terms)) - correction
        return self.raw.full((), n if n > 0 else float("nan"), dtype=x.dtype, device=device(x))
