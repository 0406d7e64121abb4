"""Convolution, forward and backward, against loops in float64, PyTorch and finite differences."""

from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import xpnn as nn
from xpnn.backends.engines import cuda
from xpnn.testing import assert_match, gradcheck

F = nn.functional
DTYPES = ["float32", "float64"]


class Case(NamedTuple):
    """One configuration; ``pads`` is what ``padding`` means, worked out by hand."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    padding: object = None
    stride: object = 1
    dilation: object = 1
    groups: int = 1

    @property
    def options(self):
        """Keywords for the package."""
        padding = self.pads if self.padding is None else self.padding
        return {"stride": self.stride, "padding": padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def explicit(self):
        """Arguments for the oracle."""
        axes = len(self.pads)
        stride, dilation = ((v,) * axes if isinstance(v, int) else v for v in (self.stride, self.dilation))
        return stride, self.pads, dilation, self.groups


NO = (0, 0)
CASES = {
    "1d": Case((2, 3, 7), (4, 3, 3), (NO,)),
    "2d": Case((2, 3, 5, 6), (4, 3, 3, 2), (NO, NO)),
    "3d": Case((2, 2, 3, 4, 3), (3, 2, 2, 3, 2), (NO, NO, NO)),
    "pointwise": Case((2, 3, 3, 4), (5, 3, 1, 1), (NO, NO)),
    "asymmetric pairs": Case((2, 2, 4, 5), (3, 2, 3, 2), ((0, 2), (3, 1))),
    "padding wider than the kernel": Case((1, 2, 3), (2, 2, 2), ((3, 4),)),
    "same, even kernel": Case((2, 2, 5, 4), (3, 2, 2, 4), ((0, 1), (1, 2)), padding="same"),
    "same, strided": Case((2, 2, 5, 6), (3, 2, 3, 3), ((1, 1), (0, 1)), padding="same", stride=2),
    "same, dilated": Case((1, 2, 6), (3, 2, 3), ((2, 2),), padding="same", dilation=2),
    "stride beyond the kernel": Case((2, 2, 8, 7), (3, 2, 2, 1), (NO, (1, 1)), stride=(3, 4)),
    "per axis": Case((2, 2, 9, 6), (3, 2, 3, 2), ((2, 2), (1, 1)), padding=(2, 1), stride=(2, 1), dilation=(1, 3)),
    "groups": Case((2, 4, 5, 5), (6, 2, 3, 2), ((1, 1), (0, 1)), groups=2, stride=(1, 2)),
    "depthwise with multiplier": Case((2, 3, 5, 4), (6, 1, 2, 3), (NO, NO), groups=3),
    "grouped 3d": Case((1, 4, 3, 3, 2), (2, 2, 2, 2, 2), (NO, (1, 0), NO), groups=2, dilation=(2, 1, 1)),
    "grouped 1d": Case((2, 4, 6), (4, 1, 3), ((1, 1),), groups=4, dilation=2),
    "kernel as large as the input": Case((2, 3, 3, 4), (2, 3, 3, 4), (NO, NO)),
    "axes of size one": Case((1, 1, 1, 1), (1, 1, 1, 1), (NO, NO)),
    "empty batch": Case((0, 2, 5, 4), (3, 2, 3, 2), (NO, NO), stride=2),
    "empty grouped batch": Case((0, 2, 5), (4, 1, 3), ((1, 1),), groups=2),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cache
def problem(case):
    """Host inputs whose values float32 holds exactly, and the oracle's answers."""
    rng = np.random.default_rng(7)

    def draw(shape):
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    x, weight, bias = draw(case.x), draw(case.weight), draw(case.weight[:1])
    y = oracles.conv_forward(x, weight, bias, *case.explicit)
    dy = draw(y.shape)
    return x, weight, bias, y, dy, *oracles.conv_backward(dy, x, weight, *case.explicit)


def terms(case, y_shape):
    """Lengths of the sums behind an entry of y, dx, dweight and dbias."""
    cells, windows = prod(case.weight[2:]), case.x[0] * prod(y_shape[2:])
    return case.weight[1] * cells + 1, case.weight[0] // case.groups * cells, windows, windows


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_convolution_matches_loops(at, case, dtype):
    x, weight, bias, y, *_ = problem(case)
    actual = F.conv(at.put(x, dtype), at.put(weight, dtype), at.put(bias, dtype), **case.options)
    assert_match(actual, y, level="reduction", terms=terms(case, y.shape)[0], backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_gradients_match_loops(at, case, dtype):
    x, weight, _, y, dy, *desired = problem(case)
    actual = F.conv_backward(at.put(dy, dtype), at.put(x, dtype), at.put(weight, dtype), **case.options)
    names = ("dx", "dweight", "dbias")
    for name, a, d, length in zip(names, actual, desired, terms(case, y.shape)[1:], strict=True):
        assert_match(a, d, level="reduction", terms=length, backend=at.backend, dtype=dtype, name=name)


@every_case
def test_convolution_and_gradients_match_pytorch(torch, case):
    x, weight, bias, y, dy, *_ = problem(case)
    if not case.x[0]:
        pytest.skip("PyTorch computes no gradients of empty grouped batches on every version")
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, weight, bias))
    stride, pads, dilation, groups = case.explicit
    padded = torch.nn.functional.pad(tx, [p for pair in reversed(pads) for p in pair])
    conv = getattr(torch.nn.functional, f"conv{len(pads)}d")
    ty = conv(padded, tw, tb, stride=stride, dilation=dilation, groups=groups)
    desired = [ty.detach(), *(g.numpy() for g in torch.autograd.grad(ty, (tx, tw, tb), torch.tensor(dy)))]
    actual = [F.conv(x, weight, bias, **case.options), *F.conv_backward(dy, x, weight, **case.options)]
    for a, d, length in zip(actual, desired, terms(case, y.shape), strict=True):
        assert_match(a, d, level="reduction", terms=length)


@st.composite
def configurations(draw):
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    spatial, kernel, stride, dilation = each(1, 6), each(1, 3), each(1, 4), each(1, 3)
    pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(axes))
    fit = zip(spatial, kernel, dilation, pads, strict=True)
    assume(all(d * (k - 1) + 1 <= n + sum(pad) for n, k, d, pad in fit))
    groups = draw(st.integers(1, 2))
    batch, channels, features = draw(st.integers(0, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x, weight = (batch, groups * channels, *spatial), (groups * features, channels, *kernel)
    return Case(x, weight, pads, stride=stride, dilation=dilation, groups=groups)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(case=configurations())
def test_any_geometry_matches_loops(case):
    x, weight, bias, y, dy, *gradients = problem(case)
    actual = [F.conv(x, weight, bias, **case.options), *F.conv_backward(dy, x, weight, **case.options)]
    for a, d, length in zip(actual, [y, *gradients], terms(case, y.shape), strict=True):
        assert_match(a, d, level="reduction", terms=length, dtype="float64")


@pytest.mark.parametrize("name", ["2d", "asymmetric pairs", "groups"])
def test_several_blocks_of_the_batch_give_what_one_block_gives(at, name, monkeypatch):
    case = CASES[name]._replace(x=(5, *CASES[name].x[1:]))
    x, weight, bias, y, dy, *_ = (at.put(a, "float32") for a in problem(case))

    def compute():
        return [F.conv(x, weight, bias, **case.options), *F.conv_backward(dy, x, weight, **case.options)]

    monkeypatch.setattr(cuda, "enabled", False)
    whole = compute()
    ops = type(nn.backends.operations_of(at.xp))
    batches, cut = [], ops.windows

    def counted(self, x, windows):
        batches.append(x.shape[0])
        return cut(self, x, windows)

    monkeypatch.setattr(ops, "windows", counted)
    one_image = 4 * prod(y.shape[2:]) * prod(case.weight[2:]) * case.x[1]
    for size, most, least in ((1, 1, 10), (2 * one_image, 2, 6)):
        monkeypatch.setattr(ops, "block_bytes", size)
        batches.clear()
        for a, d, length in zip(compute(), whole, terms(case, y.shape), strict=True):
            assert_match(a, d, level="reduction", terms=length, backend=at.backend)
        assert max(batches) == most and len(batches) >= least


def test_non_contiguous_inputs(at):
    case = Case((2, 3, 5, 4), (4, 3, 3, 2), ((1, 0), NO), stride=(2, 1))
    x, weight, bias, y, dy, *gradients = problem(case)

    def awkward(array):
        """The same values, transposed and with gaps between them."""
        order = tuple(reversed(range(array.ndim)))
        spread = np.full(tuple(2 * n for n in reversed(array.shape)), np.nan)
        spread[(slice(1, None, 2),) * array.ndim] = array.transpose(order)
        on_backend = at.put(spread, "float32")[(slice(1, None, 2),) * array.ndim]
        return at.xp.permute_dims(on_backend, order)

    x, weight, dy = awkward(x), awkward(weight), awkward(dy)
    actual = [F.conv(x, weight, at.put(bias, "float32"), **case.options)]
    actual += F.conv_backward(dy, x, weight, **case.options)
    for a, d, length in zip(actual, [y, *gradients], terms(case, y.shape), strict=True):
        assert_match(a, d, level="reduction", terms=length, backend=at.backend, dtype="float32")


def test_cells_that_no_window_reads_get_gradient_zero(at):
    x, weight = at.put(np.ones((1, 1, 7), np.float32)), at.put(np.ones((1, 1, 2), np.float32))
    dx, _, _ = F.conv_backward(at.put(np.ones((1, 1, 2), np.float32)), x, weight, stride=3)
    assert at.get(dx).tolist() == [[[1, 1, 0, 1, 1, 0, 0]]]


def test_values_that_no_window_reads_have_no_influence(at):
    x = at.put([[[1.0, 2.0, np.nan, 3.0, 4.0, np.inf, np.nan]]])
    weight = at.put([[[1.0, 10.0]]])
    assert at.get(F.conv(x, weight, stride=3)).tolist() == [[[21, 43]]]
    _, dweight, _ = F.conv_backward(at.put([[[1.0, 1.0]]]), x, weight, stride=3)
    assert at.get(dweight).tolist() == [[[4, 6]]]


def test_inputs_are_not_changed(at):
    hosts = [a.astype(np.float32) for a in problem(CASES["asymmetric pairs"])[:5]]
    x, weight, bias, _, dy = (at.put(a.copy()) for a in hosts)
    F.conv(x, weight, bias, **CASES["asymmetric pairs"].options)
    F.conv_backward(dy, x, weight, **CASES["asymmetric pairs"].options)
    for actual, desired in zip((x, weight, bias, dy), (*hosts[:3], hosts[4]), strict=True):
        assert_match(actual, desired, level="exact", backend=at.backend)


def test_without_input_gradient_the_others_are_the_same(at):
    case = CASES["groups"]
    x, weight, _, _, dy, *_ = (at.put(a, "float32") for a in problem(case))
    _, dweight, dbias = F.conv_backward(dy, x, weight, **case.options)
    dx, *others = F.conv_backward(dy, x, weight, input_grad=False, **case.options)
    assert dx is None
    assert_match(others[0], dweight, level="exact")
    assert_match(others[1], dbias, level="exact")


LAYERS = [
    (nn.Conv1d(2, 3, 3, stride=2, padding="same"), (2, 2, 5)),
    (nn.Conv2d(2, 4, (2, 3), padding=((0, 1), (2, 0)), dilation=(1, 2), groups=2), (2, 2, 3, 4)),
    (nn.Conv2d(1, 2, 2, stride=3, bias=False), (1, 1, 4, 6)),
    (nn.Conv3d(2, 2, 2, padding=(1, 0, 0)), (1, 2, 2, 2, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])
def test_backward_of_the_layer_is_the_derivative_of_its_forward(layer, shape, rng):
    gradcheck(layer.to("numpy", "float64"), rng.standard_normal(shape))


def test_layer_gives_what_the_function_gives(at, rng):
    layer = nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding="same", groups=2, backend=at.backend, seed=3)
    x, dy = (at.put(rng.standard_normal(s), "float32") for s in ((3, 2, 4, 5), (3, 4, 4, 3)))
    weight, bias = layer.parameters["weight"].value, layer.parameters["bias"].value
    options = {"stride": (1, 2), "padding": "same", "groups": 2}
    assert_match(layer(x), F.conv(x, weight, bias, **options), level="exact", backend=at.backend)
    dx, dweight, dbias = F.conv_backward(dy, x, weight, **options)
    assert_match(layer.backward(dy), dx, level="exact", backend=at.backend)
    assert_match(layer.parameters["weight"].grad, dweight, level="exact", backend=at.backend)
    assert_match(layer.parameters["bias"].grad, dbias, level="exact", backend=at.backend)
