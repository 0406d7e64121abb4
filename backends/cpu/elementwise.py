"""Element-wise operations for NumPy on worker threads: parts of large arrays that fit into a cache, in memory order."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...common.types import Array
from .. import overrides
from ..elementwise import Elementwise
from ..execution.blocks import even_slices
from ..recording.opaque import one_call, opaque_writer
from .execution import CHUNK_BYTES

# Bytes of each array in a part of an update. With smaller parts, threads lose more time waiting for the interpreter
# lock than they gain from the cache.
UPDATE_CHUNK_BYTES = 1 << 19
# Entries below which `clip`, a Python function of 3 microseconds, takes longer than `maximum`.
SMALL = 1 << 12


class NumpyElementwise(Elementwise):
    """By compiled jobs if there are any; else large arrays are cut into parts for worker threads."""

    def elementwise(self, function: Callable[..., Array], x: Array, *others: Array) -> Array:
        if overrides.is_small(x.nbytes, 2 * CHUNK_BYTES):
            return function(x, *others)
        y = np.empty_like(x, subok=False)
        arrays = _flat_views((x, *others, y))
        blocks = even_slices(len(arrays[0]), min(len(arrays[0]), x.nbytes // CHUNK_BYTES))

        def work(i: int) -> None:
            *given, result = (array[blocks[i]] for array in arrays)
            result[...] = function(*given)

        self.parallel(len(blocks), work)
        return y

    def update(self, function: Callable[..., None], *arrays: Array) -> None:
        if overrides.is_small(arrays[0].nbytes, 2 * UPDATE_CHUNK_BYTES):
            function(*arrays)
            return
        flat = _flat_views(arrays)
        blocks = even_slices(len(flat[0]), min(len(flat[0]), flat[0].nbytes // UPDATE_CHUNK_BYTES))

        def work(i: int) -> None:
            function(*(array[blocks[i]] for array in flat))

        self.parallel(len(blocks), work)

    def relu(self, x: Array) -> Array:
        compiled = self.prepare("elementwise", "relu", x.dtype.name)
        return self._relu(x, np.empty_like(x, subok=False)) if compiled is None else compiled(x)

    def relu_in_place(self, x: Array) -> Array:
        return self._relu(x, x)

    def _relu(self, x: Array, y: Array) -> Array:
        """The ReLU of ``x`` in ``y``, which has its memory layout or is ``x``."""
        if overrides.is_small(x.nbytes, 2 * CHUNK_BYTES):
            return _clip(x, y)
        source, result = _flat_views((x, y))
        blocks = even_slices(len(source), min(len(source), x.nbytes // CHUNK_BYTES))
        self.parallel(len(blocks), lambda i: _clip(source[blocks[i]], result[blocks[i]]))
        return y

    def relu_backward(self, dy: Array, y: Array) -> Array:
        compiled = self.prepare("elementwise", "relu_backward", y.dtype.name)
        if compiled is not None and dy.dtype == y.dtype:
            return compiled(dy, y)
        dx = np.empty_like(y, subok=False)
        if overrides.is_small(y.nbytes, 2 * CHUNK_BYTES):
            return _relu_backward(dy, y, dx)
        given, passed, result = _flat_views((dy, y, dx))
        blocks = even_slices(len(result), min(len(result), y.nbytes // CHUNK_BYTES))
        self.parallel(len(blocks), lambda i: _relu_backward(given[blocks[i]], passed[blocks[i]], result[blocks[i]]))
        return dx

    def add(self, x: Array, y: Array, relu: bool = False) -> Array:
        compiled = self.prepare("elementwise", "add_relu" if relu else "add", x.dtype.name)
        if compiled is not None and x.dtype == y.dtype and x.shape == y.shape:
            return compiled(x, y)
        return super().add(x, y, relu)

    def select(self, mask: Array, x: Array) -> Array:
        return _select(mask, x, np.empty_like(x, subok=False))

    def clamp(self, x: Array, low: Any = None, high: Any = None) -> Array:
        # Both bounds at once take a quarter of the time of a minimum or maximum with one bound.
        return x.clip(-np.inf if low is None else low, np.inf if high is None else high)

    def multiply_unless_zero(self, factor: Array, x: Array) -> Array:
        return one_call(self._multiply_unless_zero, factor, x)

    def _multiply_unless_zero(self, factor: Array, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            product = factor * x
        # The maximum is NaN if any entry is: a tenth of the time of a test of each entry.
        return super().multiply_unless_zero(factor, x) if product.size and np.isnan(np.max(product)) else product

    def subtract_largest(self, x: Array, largest: Array) -> Array:
        return one_call(self._subtract_largest, x, largest)

    def _subtract_largest(self, x: Array, largest: Array) -> Array:
        return super().subtract_largest(x, largest) if np.any(largest == np.inf) else x - largest

    def pick(self, x: Array, index: Array) -> Array:
        if x.ndim > 2:
            return np.take_along_axis(x, index, axis=1)
        return x[np.arange(len(x)), index[:, 0]][:, np.newaxis]

    def add_at(self, x: Array, index: Array, value: Array | float) -> Array:
        if x.ndim > 2:
            np.put_along_axis(x, index, np.take_along_axis(x, index, axis=1) + value, axis=1)
        else:
            x[np.arange(len(x)), index[:, 0]] += value[:, 0] if isinstance(value, np.ndarray) and value.ndim else value
        return x

    def count_pairs(self, rows: Array, columns: Array, n: int) -> Array:
        inside = (rows >= 0) & (rows < n) & (columns >= 0) & (columns < n)
        # Pairs outside are counted in one more bin, which is dropped.
        bins = np.where(inside, rows * n + columns, n * n)
        return np.bincount(bins.reshape(-1), minlength=n * n + 1)[: n * n].reshape(n, n)


def _clip(x: Array, out: Array) -> Array:
    """``max(x, 0)`` by `clip`, for large arrays twice as fast as `maximum`; both may keep -0, so 0 is added."""
    if x.size < SMALL:
        np.maximum(x, 0.0, out=out)
    else:
        np.clip(x, 0.0, np.inf, out=out)
    out += 0.0
    return out


@opaque_writer
def _relu_backward(dy: Array, y: Array, out: Array) -> Array:
    """``dy`` where ``y > 0``, 0 where ``y <= 0``, and NaN where ``y`` is NaN."""
    _select(np.greater(y, 0.0), dy, out)
    # The maximum is NaN if any entry is: a twentieth of the time of a test of each entry.
    if y.size and np.isnan(np.max(y)):
        np.copyto(out, y, where=np.isnan(y))
    return out


def _select(mask: Array, x: Array, out: Array) -> Array:
    """``x`` where the mask is true, else 0."""
    # Bits as integers times 0 or 1: `where` branches, and takes ten times as long for a random mask.
    whole = np.int32 if x.dtype.itemsize == 4 else np.int64
    np.multiply(x.view(whole), mask, out=out.view(whole))
    return out


def _flat_views(arrays: tuple[Array, ...]) -> list[Array]:
    """Arrays of one shape as vectors if all have one memory order and no gaps, else with the first's order of axes."""
    order = np.argsort([-step for step in arrays[0].strides], kind="stable")
    views = [array.transpose(order) for array in arrays]
    return [view.reshape(-1) for view in views] if all(view.flags.c_contiguous for view in views) else views
