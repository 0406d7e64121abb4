"""Max and average pooling, forward and backward, against loops in float64, PyTorch and finite differences."""

import re
from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import xpnn as nn
from xpnn.testing import assert_match, gradcheck

F = nn.functional
INF = float("inf")
DTYPES = ["float32", "float64"]


class Case(NamedTuple):
    """One configuration; ``pads`` is what ``padding`` means, worked out by hand."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil_mode: bool = False
    dilation: tuple[int, ...] | None = None
    padding: object = None

    @property
    def options(self):
        """Keywords of both poolings."""
        padding = self.pads if self.padding is None else self.padding
        return {"stride": self.stride, "padding": padding, "ceil_mode": self.ceil_mode}

    @property
    def spacing(self):
        return self.dilation or (1,) * len(self.kernel)

    @property
    def overlaps(self):
        """An upper bound of the windows that share a cell."""
        return prod(self.kernel)


NO, ONE = (0, 0), (1, 1)
CASES = {
    "1d": Case((2, 3, 8), (2,), (2,), (NO,)),
    "2d": Case((2, 2, 6, 5), (2, 2), (2, 2), (NO, NO)),
    "3d": Case((2, 2, 4, 3, 5), (2, 1, 3), (2, 1, 2), (NO, NO, ONE)),
    "overlapping": Case((2, 2, 5, 6), (3, 3), (1, 2), (ONE, ONE)),
    "asymmetric pairs": Case((2, 2, 5, 6), (3, 2), (2, 1), ((0, 1), (1, 0))),
    "same, even kernel": Case((2, 2, 5, 5), (2, 2), (1, 1), ((0, 1), (0, 1)), padding="same"),
    "stride beyond the kernel": Case((2, 2, 9, 8), (2, 1), (4, 3), (NO, NO)),
    "ceil mode": Case((2, 2, 5, 6), (2, 3), (2, 2), (NO, NO), ceil_mode=True),
    "ceil mode, padded": Case((2, 2, 6, 4), (3, 2), (2, 3), (ONE, ONE), ceil_mode=True),
    "ceil mode, a window dropped": Case((2, 1, 4), (2,), (3,), (ONE,), ceil_mode=True),
    "global": Case((2, 3, 4, 3), (4, 3), (4, 3), (NO, NO)),
    "single cells": Case((2, 3, 3, 4), (1, 1), (1, 2), (NO, NO)),
    "axes of size one": Case((1, 1, 1, 1), (1, 1), (1, 1), (NO, NO)),
    "empty batch": Case((0, 2, 5, 4), (2, 2), (2, 2), (ONE, ONE)),
    "no channels": Case((2, 0, 5), (2,), (2,), (NO,)),
    "dilated": Case((2, 2, 7, 6), (3, 2), (1, 2), (NO, ONE), dilation=(2, 3)),
    "dilated, padded, ceil mode": Case((2, 1, 8), (3,), (2,), ((2, 2),), ceil_mode=True, dilation=(2,)),
    "more cells than an int8 counts": Case((1, 1, 13, 12), (12, 12), (1, 1), (NO, NO)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
UNDILATED = {name: case for name, case in CASES.items() if case.dilation is None}
every_average = pytest.mark.parametrize("case", UNDILATED.values(), ids=UNDILATED)


@cache
def maximum(case, kind="floats"):
    """(x, y, indices, dy, dx) of max-pooling by the oracle; of kind "ties" with few values, "nan" some NaN."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal(case.x).astype(np.float32).astype(np.float64)
    if kind != "floats":
        x = np.round(x)
    if kind == "nan":
        x[rng.random(x.shape) < 0.2] = np.nan
    where = (case.kernel, case.stride, case.pads, case.spacing)
    y, indices = oracles.max_pool_forward(x, *where, case.ceil_mode)
    dy = rng.standard_normal(y.shape).astype(np.float32).astype(np.float64)
    return x, y, indices, dy, oracles.max_pool_backward(dy, x, *where)


@cache
def average(case, **counting):
    """(x, y, dy, dx) of average pooling by the oracle."""
    rng = np.random.default_rng(12)
    x = rng.standard_normal(case.x).astype(np.float32).astype(np.float64)
    y = oracles.avg_pool_forward(x, case.kernel, case.stride, case.pads, case.ceil_mode, **counting)
    dy = rng.standard_normal(y.shape).astype(np.float32).astype(np.float64)
    return x, y, dy, oracles.avg_pool_backward(dy, case.x, case.kernel, case.stride, case.pads, **counting)


def max_pool_both(case, x, dy):
    options = {**case.options, "dilation": case.spacing}
    y, indices = F.max_pool(x, case.kernel, return_indices=True, **options)
    return y, indices, F.max_pool_backward(dy, x, case.kernel, **options)


def avg_pool_both(case, x, dy, count_include_pad=True, override=None):
    options = {**case.options, "count_include_pad": count_include_pad, "divisor_override": override}
    return F.avg_pool(x, case.kernel, **options), F.avg_pool_backward(dy, case.x, case.kernel, **options)


COUNTING = [{}, {"count_include_pad": False}, {"override": 3}]


@pytest.mark.parametrize("kind", ["floats", "ties", "nan"])
@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_max_pool_matches_loops(at, case, dtype, kind):
    x, y, indices, dy, dx = maximum(case, kind)
    actual_y, actual_indices, actual_dx = max_pool_both(case, at.put(x, dtype), at.put(dy, dtype))
    assert_match(actual_y, y, level="exact", backend=at.backend, dtype=dtype)
    assert_match(actual_indices, indices, level="exact", backend=at.backend, dtype="int64")
    assert_match(actual_dx, dx, level="reduction", terms=case.overlaps, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("counting", COUNTING, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@every_average
def test_average_pool_matches_loops(at, case, dtype, counting):
    x, y, dy, dx = average(case, **counting)
    actual_y, actual_dx = avg_pool_both(case, at.put(x, dtype), at.put(dy, dtype), **counting)
    assert_match(actual_y, y, level="reduction", terms=case.overlaps, backend=at.backend, dtype=dtype)
    assert_match(actual_dx, dx, level="reduction", terms=case.overlaps, backend=at.backend, dtype=dtype)


def pytorch_takes(case):
    pads = zip(case.pads, case.kernel, strict=True)
    return all(case.x) and all(before == after <= k // 2 for (before, after), k in pads)


@pytest.mark.parametrize("kind", ["floats", "ties", "nan"])
@pytest.mark.parametrize("case", [c for c in CASES.values() if pytorch_takes(c)], ids=str)
def test_max_pool_and_its_indices_match_pytorch(torch, case, kind):
    x, _, _, dy, _ = maximum(case, kind)
    tx = torch.tensor(x, requires_grad=True)
    pool = getattr(torch.nn.functional, f"max_pool{len(case.kernel)}d")
    pads = [p for p, _ in case.pads]
    ty, tindices = pool(tx, case.kernel, case.stride, pads, case.spacing, case.ceil_mode, return_indices=True)
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    y, indices, dx = max_pool_both(case, x, dy)
    assert_match(y, ty.detach(), level="exact")
    if kind != "nan":  # of several NaN PyTorch chooses the last
        assert_match(indices, tindices, level="exact")
        assert_match(dx, tdx, level="reduction", terms=case.overlaps)


@pytest.mark.parametrize("counting", COUNTING, ids=str)
@pytest.mark.parametrize("case", [c for c in UNDILATED.values() if pytorch_takes(c)], ids=str)
def test_average_pool_matches_pytorch(torch, case, counting):
    x, _, dy, _ = average(case, **counting)
    tx, axes = torch.tensor(x, requires_grad=True), len(case.kernel)
    if axes == 1 and "override" in counting:
        pytest.skip("PyTorch's avg_pool1d has no divisor_override")
    named = {"divisor_override" if name == "override" else name: value for name, value in counting.items()}
    pool = getattr(torch.nn.functional, f"avg_pool{axes}d")
    ty = pool(tx, case.kernel, case.stride, [p for p, _ in case.pads], case.ceil_mode, **named)
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    for a, d in zip(avg_pool_both(case, x, dy, **counting), (ty.detach(), tdx), strict=True):
        assert_match(a, d, level="reduction", terms=case.overlaps)


@st.composite
def configurations(draw):
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    spatial, kernel, stride = each(1, 6), each(1, 4), each(1, 4)
    pads = tuple((draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel)
    assume(all(k <= n + sum(pad) for n, k, pad in zip(spatial, kernel, pads, strict=True)))
    return Case((draw(st.integers(0, 2)), 2, *spatial), kernel, stride, pads, draw(st.booleans()))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(case=configurations(), counting=st.sampled_from(COUNTING), kind=st.sampled_from(["ties", "nan"]))
def test_any_geometry_matches_loops(case, counting, kind):
    x, y, indices, dy, dx = maximum(case, kind)
    actual_y, actual_indices, actual_dx = max_pool_both(case, x, dy)
    assert_match(actual_y, y, level="exact")
    assert np.array_equal(actual_indices, indices)
    assert_match(actual_dx, dx, level="reduction", terms=case.overlaps)
    x, y, dy, dx = average(case, **counting)
    for a, d in zip(avg_pool_both(case, x, dy, **counting), (y, dx), strict=True):
        assert_match(a, d, level="reduction", terms=case.overlaps)


@pytest.mark.parametrize("channels", [1, 3, 40])
@pytest.mark.parametrize("kind", ["floats", "ties", "nan"])
@pytest.mark.parametrize("options", [(2,), (3, 2), (3, 2, 1), ((1, 2), (3, 1)), (2, 2, 0, 2, False, True)], ids=str)
def test_max_pool_evaluates_to_the_values_that_it_trains_on(channels, kind, options):
    values, _, _, _, _ = maximum(Case((2, channels, 7, 8), (1, 1), (1, 1), (NO, NO)), kind)
    x, layer = values.astype(np.float32), nn.MaxPool2d(*options)
    trained = layer(x)
    assert np.array_equal(layer.eval()(x), trained, equal_nan=True)
    assert np.array_equal(F.max_pool(values, *options[:1], **named(options)), trained, equal_nan=True)


def named(options):
    return dict(zip(("stride", "padding", "dilation", "return_indices", "ceil_mode"), options[1:], strict=False))


def test_stride_is_the_kernel_size_unless_given(at):
    x = at.put([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]])
    assert at.get(F.max_pool(x, 3)).tolist() == [[[3, 6]]]
    assert at.get(F.avg_pool(x, 3)).tolist() == [[[2, 5]]]


LAYERS = [
    (nn.MaxPool1d(3, 2, padding=1), (2, 2, 7)),
    (nn.MaxPool2d((2, 3), stride=(1, 2), padding="same", dilation=(2, 1)), (1, 2, 4, 5)),
    (nn.MaxPool3d(2, ceil_mode=True), (1, 2, 3, 2, 3)),
    (nn.AvgPool1d(3, 2, padding=1, count_include_pad=False), (2, 2, 7)),
    (nn.AvgPool2d((2, 3), stride=(1, 2), padding=((0, 1), (1, 1))), (1, 2, 4, 5)),
    (nn.AvgPool3d(2, ceil_mode=True), (1, 2, 3, 2, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])
def test_backward_of_the_layer_is_the_derivative_of_its_forward(layer, shape, rng):
    apart = rng.permutation(prod(shape)).reshape(shape) / 8  # no two values so near that a step would swap them
    gradcheck(layer.to("numpy", "float64"), apart)


@pytest.mark.parametrize("layer", [nn.MaxPool2d, nn.AvgPool2d])
def test_layer_of_another_rank_is_an_error_that_names_it(layer):
    message = f"{layer.__name__}(2): the input must have 4 axes (N, C, *spatial), got shape (3, 8, 8)"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(2)(np.zeros((3, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be an integer >= 1, or one for each of 2 axes, got 0"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size must be"),
        ({"kernel_size": 2, "stride": 0}, "stride must be"),
        ({"kernel_size": 2, "stride": (1, 2, 3)}, "stride must be"),
        ({"kernel_size": 2, "dilation": 0}, "dilation must be"),
        ({"kernel_size": 2, "padding": "reflect"}, "padding must be"),
    ],
    ids=str,
)
def test_layer_argument_out_of_range_is_an_error_at_once(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.MaxPool2d(**arguments)


def test_padding_of_more_than_half_a_window_is_an_error():
    x = np.zeros((1, 1, 4, 4), np.float32)
    message = "padding 2 is more than half of the window's (3, 3) cells"
    with pytest.raises(ValueError, match=re.escape(message)):
        F.max_pool(x, 3, padding=2)
    with pytest.raises(ValueError, match=re.escape(message)):
        F.avg_pool(x, 3, padding=2)


@pytest.mark.parametrize("dtype", ["int32", "bool", "float16"])
def test_other_dtypes_are_an_error(dtype):
    with pytest.raises(TypeError, match=f"input must be a float32 or float64 array, got {dtype} array of numpy"):
        F.max_pool(np.zeros((1, 1, 4), dtype), 2)
