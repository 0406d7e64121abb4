"""Lp pooling, forward and backward, against loops in float64, PyTorch and finite differences."""

import re
import warnings
from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xpnn.layers.pool import LpPool1d, LpPool2d, LpPool3d
from xpnn.layers.pool.adaptive_layers import GlobalLpPool
from xpnn.layers.pool.lp import lp_pool, lp_pool_backward
from xpnn.testing import assert_match, gradcheck

NAN = float("nan")
DTYPES = ["float32", "float64"]
POWERS = [1, 2, 2.5, 3, 7.0]
every_power = pytest.mark.parametrize("p", POWERS)


class Case(NamedTuple):
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.pads, "dilation": self.dilation, "ceil_mode": self.ceil_mode}


NO, ONE = (0, 0), (1, 1)
CASES = {
    "1d": Case((2, 3, 8), (2,), (2,), (NO,), (1,)),
    "2d, overlapping": Case((2, 2, 5, 6), (3, 2), (1, 2), (NO, NO), (1, 1)),
    "3d": Case((1, 2, 4, 3, 5), (2, 1, 3), (2, 1, 2), (NO, NO, NO), (1, 1, 1)),
    "padded": Case((2, 2, 5, 4), (3, 2), (2, 1), (ONE, (0, 1)), (1, 1)),
    "dilated": Case((1, 2, 7, 6), (3, 2), (1, 2), (NO, ONE), (2, 3)),
    "ceil mode": Case((2, 1, 5, 6), (2, 3), (2, 2), (NO, ONE), (1, 1), True),
    "stride beyond the kernel": Case((1, 2, 9), (2,), (4,), (NO,), (1,)),
    "axes of size one": Case((1, 1, 1, 1), (1, 1), (1, 1), (NO, NO), (1, 1)),
    "empty batch": Case((0, 2, 5), (2,), (2,), (ONE,), (1,)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cache
def problem(case, p):
    """(x, y, dy, dx) by the oracle, with positive, negative and zero cells."""
    rng = np.random.default_rng(13)
    x = rng.standard_normal(case.x).astype(np.float32).astype(np.float64)
    x[rng.random(x.shape) < 0.2] = 0.0
    where = (p, case.kernel, case.stride, case.pads, case.dilation, case.ceil_mode)
    y = oracles.lp_pool_forward(x, *where)
    dy = rng.standard_normal(y.shape).astype(np.float32).astype(np.float64)
    return x, y, dy, oracles.lp_pool_backward(dy, x, *where)


def both(case, p, x, dy):
    y = lp_pool(x, p, case.kernel, **case.options)
    return y, lp_pool_backward(dy, x, y, p, case.kernel, **case.options)


def assert_values(at, actual, numbers):
    assert_match(actual, np.asarray(numbers, np.float32), backend=at.backend)


@every_power
@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_lp_pool_matches_loops(at, case, dtype, p):
    x, y, dy, dx = problem(case, p)
    terms = prod(case.kernel)
    actual_y, actual_dx = both(case, p, at.put(x, dtype), at.put(dy, dtype))
    assert_match(actual_y, y, level="reduction", terms=terms, backend=at.backend, dtype=dtype)
    assert_match(actual_dx, dx, level="reduction", terms=terms * terms, backend=at.backend, dtype=dtype)


@every_power
@pytest.mark.parametrize("name", ["1d", "2d, overlapping", "3d", "stride beyond the kernel"])
def test_lp_pool_of_positive_input_matches_pytorch(torch, rng, name, p):
    # PyTorch has neither padding nor dilation, and no absolute value for odd p
    case = CASES[name]
    tx = torch.tensor(rng.uniform(0.5, 2.0, case.x), requires_grad=True)
    axes = len(case.kernel)
    sizes = (case.kernel, case.stride) if axes > 1 else (*case.kernel, *case.stride)
    ty = getattr(torch.nn.functional, f"lp_pool{axes}d")(tx, float(p), *sizes)
    dy = rng.standard_normal(tuple(ty.shape))
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    for a, d in zip(both(case, p, tx.detach().numpy(), dy), (ty.detach(), tdx), strict=True):
        assert_match(a, d, level="reduction", terms=prod(case.kernel))


@st.composite
def configurations(draw):
    axes = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    spatial, kernel, stride, dilation = each(3, 6), each(1, 3), each(1, 3), each(1, 2)
    pads = tuple((draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel)
    axis = zip(spatial, kernel, pads, dilation, strict=True)
    assume(all(d * (k - 1) + 1 <= n + sum(pad) for n, k, pad, d in axis))
    return Case((draw(st.integers(0, 2)), 1, *spatial), kernel, stride, pads, dilation, draw(st.booleans()))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(case=configurations(), p=st.one_of(st.sampled_from(POWERS), st.floats(1, 6)))
def test_any_geometry_and_power_match_loops(case, p):
    x, y, dy, dx = problem(case, p)
    terms = prod(case.kernel) ** 2
    for a, d in zip(both(case, p, x, dy), (y, dx), strict=True):
        assert_match(a, d, level="reduction", terms=terms)


@pytest.mark.parametrize(("p", "norm"), [(1, 7.0), (2, 5.0), (3, 91 ** (1 / 3))])
def test_negative_cells_count_by_their_absolute_value(at, p, norm):
    x = at.put([[[-3.0, 4.0, 3.0, -4.0, -3.0, -4.0]]])
    assert_values(at, lp_pool(x, p, 2), [[[norm, norm, norm]]])


@every_power
def test_gradient_is_zero_where_the_norm_is_zero(at, p):
    x = at.put([[[0.0, -0.0, 0.0, 5.0]]])
    y = lp_pool(x, p, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dx = lp_pool_backward(at.put([[[7.0, 3.0]]]), x, y, p, 2)
    assert_values(at, y, [[[0, 5]]])
    assert_values(at, dx, [[[0, 0, 0, 3]]])


def test_special_upstream_gradient_of_a_zero_norm_is_stopped(at):
    x = at.put([[[0.0, 0.0, 1.0, 0.0]]])
    dx = lp_pool_backward(at.put([[[NAN, 2.0]]]), x, lp_pool(x, 2, 2), 2, 2)
    assert_values(at, dx, [[[0, 0, 2, 0]]])


@every_power
def test_nan_reaches_only_its_windows(at, p):
    x = at.put([[[1.0, NAN, 0.0, 4.0]]])
    y = lp_pool(x, p, 2)
    assert_values(at, y, [[[NAN, 4]]])
    dx = at.get(lp_pool_backward(at.put([[[1.0, 1.0]]]), x, y, p, 2))
    assert np.isnan(dx[0, 0, 1])
    assert not np.isnan(dx[0, 0, 2:]).any()


def test_padding_counts_as_zero(at):
    x = at.put([[[-3.0, 4.0]]])
    assert_values(at, lp_pool(x, 2, 2, stride=1, padding=1), [[[3, 5, 4]]])


def test_inputs_may_be_strided_and_are_not_changed(at, rng):
    host = rng.standard_normal((5, 8, 2)).astype(np.float32)
    wide = at.put(host.copy())
    x = at.xp.permute_dims(wide[:, ::2, :], (2, 0, 1))
    plain = at.put(np.ascontiguousarray(host[:, ::2].transpose(2, 0, 1)))
    y = lp_pool(x, 3, 2)
    assert_match(y, lp_pool(plain, 3, 2), level="exact", backend=at.backend)
    kept_y, dy = at.get(y).copy(), at.put(np.ones(y.shape, np.float32))
    dx = lp_pool_backward(dy, x, y, 3, 2)
    assert_match(dx, lp_pool_backward(dy, plain, y, 3, 2), level="exact", backend=at.backend)
    for array, kept in ((wide, host), (y, kept_y), (dy, np.ones(y.shape, np.float32))):
        assert_match(array, kept, level="exact")


LAYERS = [
    (LpPool1d(1, 3, 2, padding=1), (2, 2, 7)),
    (LpPool2d(2.5, (2, 3), stride=(1, 2), padding="same", dilation=(2, 1)), (1, 2, 4, 5)),
    (LpPool2d(2, 2), (1, 2, 4, 5)),
    (LpPool3d(3, 2, ceil_mode=True), (1, 2, 3, 2, 3)),
    (GlobalLpPool(), (2, 2, 3, 4)),
    (GlobalLpPool(3), (2, 3, 5)),
]
every_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])


@every_layer
def test_backward_of_the_layer_is_the_derivative_of_its_forward(layer, shape, rng):
    x = rng.uniform(0.25, 2.0, shape) * rng.choice([-1, 1], shape)
    gradcheck(layer.to("numpy", "float64"), x)


@every_layer
def test_repr_is_the_call_that_makes_the_layer(layer, shape):
    names = {cls.__name__: cls for cls in (LpPool1d, LpPool2d, LpPool3d, GlobalLpPool)}
    made = eval(repr(layer), names)
    assert type(made) is type(layer)
    assert repr(made) == repr(layer)


@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 1, 3), (1,)])
@every_power
def test_global_lp_pool_is_the_norm_of_each_plane(at, rng, p, spatial):
    x = rng.standard_normal((2, 3, *spatial)).astype(np.float32)
    layer = GlobalLpPool(p, backend=at.backend)
    y = layer(at.put(x))
    desired = np.linalg.norm(x.astype(np.float64).reshape(6, -1), p, axis=1).reshape(2, 3, *(1 for _ in spatial))
    assert_match(y, desired, level="reduction", terms=prod(spatial), backend=at.backend, dtype="float32")
    dy = rng.standard_normal(desired.shape).astype(np.float32)
    wide = oracles.lp_pool_backward(
        dy, x.astype(np.float64), p, spatial, spatial, (NO,) * len(spatial), (1,) * len(spatial)
    )
    dx = layer.backward(at.put(dy))
    assert_match(dx, wide, level="reduction", terms=prod(spatial), backend=at.backend, dtype="float32")


def test_global_lp_pool_of_a_plane_of_zeros_has_gradient_zero(at):
    layer = GlobalLpPool(backend=at.backend)
    layer(at.put(np.zeros((2, 1, 3), np.float32)))
    assert_values(at, layer.backward(at.put(np.ones((2, 1, 1), np.float32))), np.zeros((2, 1, 3)))


@pytest.mark.parametrize("p", [0.5, 0, -1, float("inf"), NAN, "2", None, True], ids=str)
@pytest.mark.parametrize("make", [lambda p: LpPool2d(p, 2), GlobalLpPool], ids=["LpPool2d", "GlobalLpPool"])
def test_power_out_of_range_is_an_error_at_once(make, p):
    with pytest.raises(ValueError, match=re.escape(f"norm_type must be a number >= 1, got {p!r}")):
        make(p)


def test_layer_of_another_rank_is_an_error_that_names_it():
    message = "LpPool2d(2, 3): the input must have 4 axes (N, C, *spatial), got shape (3, 8, 8)"
    with pytest.raises(ValueError, match=re.escape(message)):
        LpPool2d(2, 3)(np.zeros((3, 8, 8), np.float32))


def test_gradient_of_another_shape_is_an_error():
    x = np.ones((1, 1, 4), np.float32)
    with pytest.raises(ValueError, match=re.escape("dy has shape (1, 1, 3), expected (1, 1, 2)")):
        lp_pool_backward(x[..., :3], x, lp_pool(x, 2, 2), 2, 2)


def test_integers_are_an_error():
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64"):
        lp_pool(np.ones((1, 1, 4), np.int64), 2, 2)
