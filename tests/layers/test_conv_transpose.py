"""Transposed convolution against loops in float64, PyTorch, the convolution of its adjoint, and finite differences."""

import re
from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnn.layers.convolution import conv_transpose as module
from xpnn.layers.convolution.conv import conv, conv_backward
from xpnn.layers.convolution.conv_transpose import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    conv_transpose,
    conv_transpose_backward,
)
from xpnn.testing import assert_match, gradcheck

DTYPES = ["float32", "float64"]


class Case(NamedTuple):
    """One configuration, with an entry per axis; ``weight`` is (in, out/groups, *kernel)."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    extra: tuple[int, ...]
    groups: int = 1
    bias: bool = True

    @property
    def options(self):
        named = {"stride": self.stride, "padding": self.pads, "dilation": self.dilation}
        return named | {"output_padding": self.extra, "groups": self.groups}

    @property
    def size(self):
        """The output's spatial shape, by the formula."""
        axes = zip(self.x[2:], self.weight[2:], self.stride, self.pads, self.dilation, self.extra, strict=True)
        return tuple((n - 1) * s - sum(pad) + d * (k - 1) + e + 1 for n, k, s, pad, d, e in axes)

    @property
    def terms(self):
        """Length of the longest sum in the computation of the output or of a gradient."""
        return max(self.x[1] * prod(self.weight[2:]), self.x[0] * prod(self.size), prod(self.weight[1:])) + 1


NO, ONE = (0, 0), (1, 1)
CASES = {
    "1d": Case((2, 3, 4), (3, 2, 3), (2,), (NO,), (1,), (0,)),
    "2d": Case((2, 2, 3, 4), (2, 3, 2, 3), (1, 1), (NO, NO), (1, 1), (0, 0)),
    "3d": Case((1, 2, 2, 3, 2), (2, 2, 2, 1, 3), (2, 1, 2), (NO, NO, ONE), (1, 1, 1), (0, 0, 1)),
    "no bias": Case((2, 2, 3, 3), (2, 1, 2, 2), (2, 2), (NO, NO), (1, 1), (0, 0), bias=False),
    "padded": Case((2, 2, 4, 3), (2, 2, 3, 3), (2, 1), (ONE, ONE), (1, 1), (0, 0)),
    "asymmetric pairs": Case((2, 2, 4, 3), (2, 2, 3, 3), (2, 1), ((2, 0), (0, 1)), (1, 1), (0, 0)),
    "output padding": Case((2, 2, 3, 4), (2, 2, 3, 2), (3, 2), (ONE, NO), (1, 1), (2, 1)),
    "output padding within the dilation": Case((1, 2, 3), (2, 2, 2), (1,), (NO,), (3,), (2,)),
    "dilated": Case((1, 2, 3, 3), (2, 2, 3, 2), (1, 2), (NO, ONE), (2, 3), (0, 0)),
    "stride beyond the kernel": Case((2, 1, 3, 3), (1, 2, 2, 1), (4, 3), (NO, NO), (1, 1), (0, 2)),
    "groups": Case((2, 4, 3, 3), (4, 3, 2, 2), (2, 1), (NO, NO), (1, 1), (1, 0), 2),
    "depthwise": Case((2, 3, 3, 4), (3, 1, 3, 3), (1, 2), (ONE, ONE), (1, 1), (0, 1), 3),
    "depthwise with multiplier": Case((1, 2, 5), (2, 3, 3), (2,), (ONE,), (1,), (1,), 2),
    "padding beyond the kernel": Case((1, 2, 6), (2, 1, 2), (1,), ((2, 2),), (1,), (0,)),
    "axes of size one": Case((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (NO, NO), (1, 1), (0, 0)),
    "one cell": Case((2, 2, 1), (2, 2, 3), (5,), (NO,), (1,), (4,)),
    "empty batch": Case((0, 2, 3, 3), (2, 2, 2, 2), (2, 2), (ONE, ONE), (1, 1), (1, 0)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cache
def problem(case):
    """(x, weight, bias, dy) and the results of the loops, (y, dx, dweight, dbias)."""
    rng = np.random.default_rng(15)

    def draw(shape):
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    x, weight = draw(case.x), draw(case.weight)
    bias = draw(case.weight[1] * case.groups) if case.bias else None
    upstream = []

    def dy(shape):
        upstream.append(draw(shape))
        return upstream[0]

    results = oracles.conv_transpose(
        x, weight, bias, dy, case.stride, case.pads, case.dilation, case.extra, case.groups
    )
    return (x, weight, bias, upstream[0]), results


def everything(case, x, weight, bias, dy):
    """(y, dx, dweight, dbias)."""
    y = conv_transpose(x, weight, bias, **case.options)
    return y, *conv_transpose_backward(dy, x, weight, **case.options)


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_output_and_gradients_match_loops(at, case, dtype):
    hosts, desired = problem(case)
    actual = everything(case, *(None if a is None else at.put(a, dtype) for a in hosts))
    assert tuple(actual[0].shape[2:]) == case.size
    for a, d in zip(actual, desired, strict=True):
        assert_match(a, d, level="reduction", terms=case.terms, backend=at.backend, dtype=dtype)


def pytorch_takes(case):
    return case.x[0] and all(before == after for before, after in case.pads)


@pytest.mark.parametrize("case", [c for c in CASES.values() if pytorch_takes(c)], ids=str)
def test_output_and_gradients_match_pytorch(torch, case):
    (x, weight, bias, dy), _ = problem(case)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias) if a is not None]
    options = {**case.options, "padding": tuple(p for p, _ in case.pads)}
    ty = getattr(torch.nn.functional, f"conv_transpose{len(case.stride)}d")(*leaves, **options)
    desired = (ty.detach(), *torch.autograd.grad(ty, leaves, torch.tensor(dy)))
    for a, d in zip(everything(case, x, weight, bias, dy), desired, strict=False):
        assert_match(a, d, level="reduction", terms=case.terms)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if n != "output padding within the dilation"])
def test_is_exactly_the_adjoint_of_the_convolution(at, name):
    # of integers, so that both sides are exact in float32; output padding beyond the stride belongs to no convolution
    case, rng = CASES[name], np.random.default_rng(16)
    options = {name: value for name, value in case.options.items() if name != "output_padding"}
    x, weight = (at.put(rng.integers(-4, 5, shape), "float32") for shape in (case.x, case.weight))
    u = at.put(rng.integers(-4, 5, (case.x[0], case.weight[1] * case.groups, *case.size)), "float32")
    spread = conv_transpose(x, weight, **case.options)
    gathered = conv(u, weight, **options)
    assert gathered.shape == x.shape
    assert float(at.xp.sum(gathered * x)) == float(at.xp.sum(u * spread))
    du, dweight, _ = conv_backward(x, u, weight, **options)
    assert_match(du, spread, level="exact", backend=at.backend)
    dx, same, _ = conv_transpose_backward(u, x, weight, **case.options)
    assert_match(dx, gathered, level="exact", backend=at.backend)
    assert_match(same, dweight, level="exact", backend=at.backend)


@st.composite
def configurations(draw):
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    spatial, kernel, stride, dilation = each(1, 4), each(1, 3), each(1, 3), each(1, 2)
    extra = tuple(draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True))
    full = Case((1, 1, *spatial), (1, 1, *kernel), stride, (NO,) * axes, dilation, extra).size
    pads = []
    for n in full:
        before = draw(st.integers(0, min(3, n - 1)))
        pads.append((before, draw(st.integers(0, min(3, n - 1 - before)))))
    groups, inside, outside = (draw(st.integers(1, 2)) for _ in range(3))
    x, weight = (draw(st.integers(0, 2)), groups * inside, *spatial), (groups * inside, outside, *kernel)
    return Case(x, weight, stride, tuple(pads), dilation, extra, groups, draw(st.booleans()))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(case=configurations())
def test_any_geometry_matches_loops(case):
    hosts, desired = problem(case)
    for a, d in zip(everything(case, *hosts), desired, strict=True):
        assert_match(a, d, level="reduction", terms=case.terms)


def test_each_input_cell_adds_its_multiple_of_the_kernel(at):
    x, weight = at.put([[[1.0, 10.0]]]), at.put([[[1.0, 2.0, 3.0]]])
    assert at.get(conv_transpose(x, weight, stride=2)).tolist() == [[[1, 2, 13, 20, 30]]]
    assert at.get(conv_transpose(x, weight, stride=2, output_padding=1)).tolist() == [[[1, 2, 13, 20, 30, 0]]]
    assert at.get(conv_transpose(x, weight, stride=2, padding=1, output_padding=1)).tolist() == [[[2, 13, 20, 30]]]
    assert at.get(conv_transpose(x, weight, stride=2, padding=((1, 0),))).tolist() == [[[2, 13, 20, 30]]]


def test_cells_that_output_padding_adds_have_the_bias(at):
    y = conv_transpose(at.put(ones(1, 1, 2)), at.put(ones(1, 1, 1)), at.put([7.0]), stride=3, output_padding=2)
    assert at.get(y).tolist() == [[[8, 7, 7, 8, 7, 7]]]


def test_without_input_gradient_the_others_are_the_same(at):
    case = CASES["groups"]
    x, weight, _, dy = (at.put(a, "float32") for a in problem(case)[0])
    dx, *others = conv_transpose_backward(dy, x, weight, input_grad=False, **case.options)
    assert dx is None
    for a, d in zip(others, conv_transpose_backward(dy, x, weight, **case.options)[1:], strict=True):
        assert_match(a, d, level="exact", backend=at.backend)


def test_inputs_may_be_strided_and_are_not_changed(at, rng):
    shapes = ((5, 4, 2), (2, 3, 4), (10, 3, 2))
    hosts = [rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes]
    x, weight, dy = views = [at.xp.permute_dims(at.put(host.copy()), (2, 1, 0)) for host in hosts]
    plain = [at.put(np.ascontiguousarray(host.transpose())) for host in hosts]
    assert_match(conv_transpose(x, weight, stride=2), conv_transpose(*plain[:2], stride=2), level="exact")
    desired = conv_transpose_backward(plain[2], *plain[:2], stride=2)
    for a, d in zip(conv_transpose_backward(dy, x, weight, stride=2), desired, strict=True):
        assert_match(a, d, level="exact", backend=at.backend)
    for array, host in zip(views, hosts, strict=True):
        assert_match(array, host.transpose(), level="exact")


LAYERS = [
    (ConvTranspose1d(2, 3, 3, 2, 1, 1), (2, 2, 4)),
    (ConvTranspose2d(4, 2, (2, 3), stride=(1, 2), padding=((0, 1), (1, 0)), groups=2, bias=False), (1, 4, 3, 2)),
    (ConvTranspose2d(2, 4, 2, output_padding=(1, 0), dilation=(2, 1)), (1, 2, 2, 3)),
    (ConvTranspose3d(1, 2, (2, 1, 2), 2, output_padding=1), (1, 1, 2, 1, 2)),
]
every_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])


@every_layer
def test_backward_of_the_layer_is_the_derivative_of_its_forward(layer, shape, rng):
    gradcheck(layer.to("numpy", "float64"), rng.standard_normal(shape))


@every_layer
def test_repr_is_the_call_that_makes_the_layer(layer, shape):
    made = eval(repr(layer), vars(module))
    assert type(made) is type(layer)
    assert repr(made) == repr(layer)


def test_weights_of_pytorch_load_by_name(torch, at, rng):
    theirs = torch.nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 0), 2)
    ours = ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 0), 2, backend=at.backend)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight", "bias"]
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    x = rng.standard_normal((2, 4, 3, 5)).astype(np.float32)
    desired = theirs(torch.tensor(x)).detach()
    assert_match(ours(at.put(x)), desired.numpy(), level="reduction", terms=12, backend=at.backend)


def test_layer_without_bias_has_no_bias():
    assert list(ConvTranspose1d(2, 3, 3, bias=False).parameters) == ["weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be an integer >= 1"),
        ({"out_channels": 2.0}, "out_channels must be an integer >= 1"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be"),
        ({"stride": 0}, "stride must be"),
        ({"dilation": (1, 0)}, "dilation must be"),
        ({"output_padding": -1}, "output_padding must be an integer >= 0"),
        ({"padding": "reflect"}, "padding must be"),
        ({"groups": 0}, "groups must be an integer >= 1"),
        ({"groups": 3}, "got 4 and 6 channels in 3 groups"),
    ],
    ids=str,
)
def test_layer_argument_out_of_range_is_an_error_at_once(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ConvTranspose2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3} | arguments)


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        ((1, 3, 4), (2, 2, 3), {}, "input has 3 channels, expected 2"),
        ((1, 3, 4), (3, 2, 3), {"groups": 2}, "in 2 equal groups (shape (1, 3, 4))"),
        ((1, 3, 4), (3, 2, 3, 3), {}, "must have the same number of axes"),
        ((1, 3, 0), (3, 2, 3), {}, "input must have a cell along each spatial axis, got shape (1, 3, 0)"),
        ((1, 3, 2), (3, 2, 2), {"padding": 2}, "padding ((2, 2),) cuts off all of the output, which spans (3,) cells"),
        ((1, 3, 2), (3, 2, 2), {"output_padding": 1}, "output_padding 1 must be below the stride (1,)"),
        ((1, 3, 2), (3, 2, 2), {"padding": "same"}, "padding must be a number of cells or 'valid', got 'same'"),
        ((1, 3, 2), (3, 2, 2), {"padding": "same_lower"}, "cells or 'valid', got 'same_lower'"),
        ((1, 3, 2), (3, 2, 2), {"bias": ones(3)}, "bias has shape (3,), expected (2,)"),
    ],
)
def test_shapes_and_arguments_that_do_not_fit_are_an_error(x, weight, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        conv_transpose(ones(*x), ones(*weight), **options)


def test_gradient_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=re.escape("dy has shape (1, 2, 5), expected (1, 2, 4)")):
        conv_transpose_backward(ones(1, 2, 5), ones(1, 3, 3), ones(3, 2, 2))


def test_mixed_dtypes_and_integers_are_an_error():
    with pytest.raises(TypeError, match=re.escape("mixed dtypes (input float32, weight float64)")):
        conv_transpose(ones(1, 1, 3), np.ones((1, 1, 2)))
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64"):
        conv_transpose(np.ones((1, 1, 3), np.int64), ones(1, 1, 2))
