"""The textbook convolution in NumPy, to measure the gain of the library's algorithms: im2col, ``(N, C, H, W)``.

The columns of the whole batch are one array; backward reuses those of forward; every result is a new array.

Source: K. Chellapilla et al., "High performance convolutional neural networks for document processing", 2006; the
formulation is that of Chainer's functions on a CPU.
"""

import numpy as np

from .host_arrays import HostArray


class TextbookConv2d:
    """A convolution of fixed weights.

    Parameters
    ----------
    weight : array ``(F, C/groups, KH, KW)``
    bias : array ``(F,)``
    stride, padding, groups : int
    """

    def __init__(self, weight: HostArray, bias: HostArray, stride: int, padding: int, groups: int) -> None:
        self.weights, self.bias = np.split(np.ascontiguousarray(weight), groups), bias
        self.stride, self.padding, self.groups = stride, padding, groups
        self.columns: list[HostArray] = []
        self.shape: tuple[int, ...] = ()

    def forward(self, x: HostArray) -> HostArray:
        """``(N, F, OH, OW)`` of ``x (N, C, H, W)``."""
        self.shape = x.shape
        kernel = self.weights[0].shape[2:]
        self.columns = [_columns(part, kernel, self.stride, self.padding) for part in np.split(x, self.groups, axis=1)]
        pairs = zip(self.columns, self.weights, strict=True)
        parts = [np.tensordot(columns, weight, ((1, 2, 3), (1, 2, 3))) for columns, weight in pairs]
        y = parts[0] if self.groups == 1 else np.concatenate(parts, axis=3)
        return np.ascontiguousarray(np.moveaxis(y + self.bias, 3, 1))

    def backward(self, dy: HostArray, input_grad: bool = True) -> tuple[HostArray | None, HostArray, HostArray]:
        """``(dx, dweight, dbias)`` for the last forward; ``dx`` is None without ``input_grad``."""
        parts = np.split(dy, self.groups, axis=1)
        pairs = zip(parts, self.columns, strict=True)
        dweight = [np.tensordot(part, columns, ((0, 2, 3), (0, 4, 5))) for part, columns in pairs]
        dbias = dy.sum(axis=(0, 2, 3))
        if not input_grad:
            return None, np.concatenate(dweight), dbias
        dx = []
        for part, weight in zip(parts, self.weights, strict=True):
            columns = np.moveaxis(np.tensordot(weight, part, ((0,), (1,))), 3, 0)
            dx.append(_image(columns, self.shape[2:], self.stride, self.padding))
        return np.concatenate(dx, axis=1), np.concatenate(dweight), dbias


def _columns(x: HostArray, kernel: tuple[int, ...], stride: int, padding: int) -> HostArray:
    """``(N, C, KH, KW, OH, OW)``: for each cell of the kernel the inputs that it is multiplied with."""
    n, channels, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    out = [(size + 2 * padding - k) // stride + 1 for size, k in zip((height, width), kernel, strict=True)]
    columns = np.empty((n, channels, *kernel, *out), dtype=x.dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows, along = slice(i, i + stride * out[0], stride), slice(j, j + stride * out[1], stride)
            columns[:, :, i, j] = padded[:, :, rows, along]
    return columns


def _image(columns: HostArray, size: tuple[int, ...], stride: int, padding: int) -> HostArray:
    """The adjoint of `_columns`: entries of columns are added at the pixel from which they were copied."""
    n, channels, *kernel = columns.shape[:4]
    out = columns.shape[4:]
    # The last window of a stride may end beyond the padding.
    padded = np.zeros((n, channels, *(s + 2 * padding + stride - 1 for s in size)), dtype=columns.dtype)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows, along = slice(i, i + stride * out[0], stride), slice(j, j + stride * out[1], stride)
            padded[:, :, rows, along] += columns[:, :, i, j]
    return padded[:, :, padding : padding + size[0], padding : padding + size[1]]
