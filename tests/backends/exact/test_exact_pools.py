"""Compiled max pools in exact numerics: the bits of array functions."""

import numpy as np
import pytest
from exact_arrays import both_ways, hostile, same_bits

import xpnn as nn
from xpnn.backends.overrides import Choices, using

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
EXACT = nn.get_backend("numpy", numerics="exact")
CASES = {
    "2x2": ((3, 16, 8, 6), {"kernel_size": 2}),
    "cells left over": ((3, 5, 9, 7), {"kernel_size": 2}),
    "padded": ((2, 5, 9, 7), {"kernel_size": 3, "stride": 3, "padding": 1}),
    "dilated": ((2, 4, 12, 11), {"kernel_size": 2, "stride": 4, "dilation": 3}),
    "gaps": ((2, 17, 11, 12), {"kernel_size": (2, 3), "stride": (3, 5)}),
    "an empty batch": ((0, 4, 6, 6), {"kernel_size": 2}),
}


def pooled(shape, options, seed=0):
    """Maxima, indices and the gradient; few different numbers, so that many are equal."""
    x = np.moveaxis(hostile((shape[0], *shape[2:], shape[1]), seed=seed), -1, 1)
    x[np.abs(x) > 1.0] = 1.0
    layer = nn.MaxPool2d(**options, return_indices=True, backend=EXACT)
    y, indices = layer(x)
    dy = hostile(y.shape, seed=seed + 1)
    return [y, indices, layer.backward(dy)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_max_pools_have_the_bits_of_array_functions(case):
    assert same_bits(*both_ways(pooled, *case))


def test_gradients_of_overlapping_windows_are_added_by_array_functions():
    case = (2, 6, 9, 9), {"kernel_size": 3, "stride": 1, "padding": 1}
    with using(Choices(kernels=True)), np.errstate(invalid="ignore"):
        found = pooled(*case)
    with using(Choices(kernels=False)), np.errstate(invalid="ignore"):
        assert same_bits(found, pooled(*case))
