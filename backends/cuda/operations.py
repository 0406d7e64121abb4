"""`Operations` for CuPy: few launches, large blocks, and arrays in the order of memory."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from ...common.types import Array, dtype_name
from ..contractions.windows import Windows
from ..engines import cuda
from ..engines.cuda import elementwise
from ..execution.execution import GPU_BLOCK
from ..memory_order import axes_in_memory, inverse
from ..operations import Operations


class CupyOperations(Operations):
    """Own CUDA kernels if they are on; windows as a strided view; blocks that fill a GPU with each launch."""

    block_bytes = GPU_BLOCK
    views = True
    few_launches = True

    def prepare(self, operation: str, problem: Any, dtype: str) -> Any:
        return cuda.prepare(operation, problem, dtype, self)

    def find_kernels(self) -> str:
        return "cuda" if cuda.used() else ""

    def synchronize(self) -> None:
        importlib.import_module("cupy").cuda.get_current_stream().synchronize()

    def sum_rows(self, x: Array) -> Array:
        prepared = self.prepare("sum of rows", None, dtype_name(x.dtype))
        return super().sum_rows(x) if prepared is None else prepared(x)

    def sum_rows_at(self, x: Array, index: Array, count: int) -> Array:
        prepared = self.prepare("sum of rows by index", None, dtype_name(x.dtype))
        # Without the kernel rows are sorted, which makes the host wait.
        return super().sum_rows_at(x, index, count) if prepared is None else prepared(x, index, count)

    def elementwise(self, function: Callable[..., Array], x: Array, *others: Array) -> Array:
        # CuPy allocates results in C order for any strides of its arguments.
        order = axes_in_memory(x.strides)
        if order == tuple(range(x.ndim)):
            return function(x, *others)
        y = function(*(each.transpose(order) for each in (x, *others)))
        return y.transpose(inverse(order))

    def update(self, function: Callable[..., None], *arrays: Array) -> None:
        # Arrays of the same memory layout are read and written in the order of memory.
        order = axes_in_memory(arrays[0].strides)
        function(*(each.transpose(order) for each in arrays))

    def relu(self, x: Array) -> Array:
        if not cuda.used():
            return self.elementwise(super().relu, x)
        return elementwise.apply("relu", x, like=x)

    def select(self, mask: Array, x: Array) -> Array:
        if not cuda.used():
            return super().select(mask, x)
        return elementwise.apply("select", mask, x, like=x)

    def relu_backward(self, dy: Array, y: Array) -> Array:
        if not cuda.used():
            return self.elementwise(super().relu_backward, dy, y)
        return elementwise.apply("relu_backward", dy, y, like=y)

    def memory_order(self, x: Array) -> tuple[int, ...] | None:
        order = axes_in_memory(x.strides)
        return order if x.transpose(order).flags.c_contiguous else None

    def concat(self, arrays: Sequence[Array], axis: int) -> Array:
        order = axes_in_memory(arrays[0].strides)
        joined = super().concat([each.transpose(order) for each in arrays], order.index(axis))
        return joined.transpose(inverse(order))

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Directly into ``out`` if cuBLAS can write to it; see `xpnn.backends.cuda.matmul.CublasMatmul`."""
        return self.xp.matmul(a, b, out=out)

    def matmul_into(self, target: Array, index: tuple[slice | int, ...], a: Array, b: Array) -> None:
        self.xp.matmul(a, b, out=target[index])

    def windows(self, x: Array, windows: Windows) -> Array:
        as_strided = importlib.import_module("cupy.lib.stride_tricks").as_strided
        spatial = x.strides[1:-1]
        apart = (s * n for s, n in zip(spatial, windows.stride, strict=True))
        within = (s * n for s, n in zip(spatial, windows.dilation, strict=True))
        return as_strided(
            x,
            shape=(x.shape[0], *windows.count, *windows.kernel, x.shape[-1]),
            strides=(x.strides[0], *apart, *within, x.strides[-1]),
        )
