"""ReLU and its gradient, each in one pass over memory."""

from typing import Any

import numpy as np

from ....common.types import Array
from .compiler import READ1, WRITE1, compiled, contiguous


@compiled(READ1, WRITE1)
def _relu(x: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] = np.float32(0.0) if x[i] <= np.float32(0.0) else x[i]


@compiled(READ1, READ1, WRITE1)
def _relu_backward(dy: Any, y: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        # A NaN in y is neither > 0 nor <= 0, and becomes the result.
        out[i] = dy[i] if y[i] > np.float32(0.0) else np.float32(0.0) if y[i] <= np.float32(0.0) else y[i]


def relu(x: Array, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _relu(contiguous(x), out)


def relu_backward(dy: Array, y: Array, out: Array) -> None:
    """See `xpnn.backends.engines.numba.Kernels`."""
    _relu_backward(contiguous(dy), contiguous(y), out)
