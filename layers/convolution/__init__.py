"""Convolution, transposed convolution and the algorithms that compute them.

`conv` and `conv_transpose` hold the formulas, the functions and the layers. They describe a call by a `Problem` (sizes,
windows, dtype) and pass it to `forward`, `input_gradient` or `weight_gradient`, for which `chooser` picks an algorithm.
In the order in which it tries them, for ``C`` input channels and ``F`` filters:

`depthwise`
    For a group of its own for each channel: without a sum over channels a matrix product gains nothing.
`direct`
    For small weights in float32, or fewer outputs than filters, where an engine has it: no columns are written.
`large_weight`
    For a large weight and fewer outputs than filters: to copy the weight would take longer than the product.
`winograd`
    For 3x3 kernels of stride 1 in float32 with ``C, F >= 32``: fewer multiplications. Before `large_weight` where it is
    compiled, which is faster with fewer tiles; before `direct` from 64 on.
`banded`
    For ``C <= 16`` by array functions: several outputs in one row of a product, because short runs are slow to copy
    into columns.
`banded_rows`
    For the gradient of the input by array functions with ``C <= 8`` and short rows, because short runs are slow to add
    up.
`columns`
    For all else, and for everything in exact numerics: im2col and one matrix product, for any shape.

At stride 1 the gradient of the input is the forward of another problem, `Problem.adjoint`, and goes through the same
choice. `algorithms` lists by name all that can compute a problem; `trim_padding` first leaves out what meets only
padding.
"""

from .banded import Banded
from .chooser import algorithm, forward, input_gradient, weight_gradient
from .problem import Problem
from .winograd import Winograd

__all__ = ["Banded", "Problem", "Winograd", "algorithm", "forward", "input_gradient", "weight_gradient"]
