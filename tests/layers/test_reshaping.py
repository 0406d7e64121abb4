"""Flatten, Reshape, Pad, Upsample."""

import pickle
import re

import numpy as np
import pytest

from xpnn.layers.reshaping.flatten import Flatten
from xpnn.layers.reshaping.pad import Pad, pad_constant, pad_constant_backward
from xpnn.layers.reshaping.reshape import Reshape
from xpnn.layers.reshaping.upsample import Upsample, upsample_nearest, upsample_nearest_backward
from xpnn.testing import assert_match, gradcheck

F32 = np.float32
PADS = {
    "one for all": (1, (2, 3, 4, 2), ((1, 1), (1, 1))),
    "one per axis": ((2, 0), (2, 3, 1, 2), ((2, 2), (0, 0))),
    "pairs": (((1, 2), (0, 3)), (2, 1, 2, 2), ((1, 2), (0, 3))),
    "a number and a pair": ((1, (0, 2)), (1, 1, 2, 2), ((1, 1), (0, 2))),
    "one axis": (((0, 1),), (2, 3, 4), ((0, 1),)),
    "three axes": ((1, 0, (2, 1)), (2, 1, 2, 3, 1), ((1, 1), (0, 0), (2, 1))),
    "nothing": (0, (2, 3, 4), ((0, 0),)),
    "no samples": (1, (0, 3, 4), ((1, 1),)),
    "no cells": (1, (2, 3, 0), ((1, 1),)),
}
SCALES = {
    "one for all": (2, (2, 3, 2, 3)),
    "one per axis": ((3, 1), (2, 1, 2, 4)),
    "one axis": (4, (1, 2, 3)),
    "three axes": ((1, 2, 3), (2, 2, 1, 2, 2)),
    "by one": (1, (2, 3, 4)),
    "no samples": (2, (0, 3, 4)),
}
every_pad = pytest.mark.parametrize(("padding", "shape", "pairs"), PADS.values(), ids=PADS)
every_scale = pytest.mark.parametrize(("scale", "shape"), SCALES.values(), ids=SCALES)


def numbers(rng, shape, dtype="float32"):
    return rng.standard_normal(shape).astype(dtype)


def channels_last_view(at, host):
    """The same array with channels last in memory."""
    stored = at.put(np.ascontiguousarray(np.moveaxis(host, 1, -1)))
    return at.xp.permute_dims(stored, (0, host.ndim - 1, *range(1, host.ndim - 1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_pad
def test_pad_surrounds_with_the_value_and_its_gradient_removes_it(at, rng, padding, shape, pairs, dtype):
    host = numbers(rng, shape, dtype)
    desired = np.pad(host, ((0, 0), (0, 0), *pairs), constant_values=1.5)
    form = {"level": "exact", "backend": at.backend, "dtype": dtype}
    for x in (at.put(host), channels_last_view(at, host)):
        assert_match(pad_constant(x, padding, 1.5), desired, **form)
        assert_match(x, host, level="exact")
    upstream = numbers(rng, desired.shape, dtype)
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(shape[2:], pairs, strict=True))
    dx = pad_constant_backward(at.put(upstream), shape, padding)
    assert_match(dx, upstream[(slice(None), slice(None), *inside)], **form)


@every_pad
def test_the_pad_layer_is_the_function(at, rng, padding, shape, pairs):
    layer, x = Pad(padding, -1, backend=at.backend), at.put(numbers(rng, shape))
    y = layer(x)
    assert_match(y, pad_constant(x, padding, -1.0), level="exact", backend=at.backend)
    assert_match(layer.backward(y), x, level="exact", backend=at.backend)


def test_pad_accepts_nan_and_infinity(at):
    y = pad_constant(at.put(np.ones((1, 1, 1), F32)), ((1, 0),), float("-inf"))
    assert at.get(y).tolist() == [[[-np.inf, 1.0]]]


@pytest.mark.parametrize("padding", ["same", "valid", -1, (1, -1), ((1, 2, 3), 1), 1.5, True, ((1, -2), 0)], ids=str)
def test_padding_of_another_form_is_an_error_of_the_constructor(padding):
    with pytest.raises(ValueError, match=re.escape(f"(before, after) pair for each, got {padding!r}")):
        Pad(padding)


def test_padding_of_another_number_of_axes_is_an_error_that_names_the_layer():
    message = "Pad((1, 2)): padding must be an integer >= 0, one for each of 1 spatial axes"
    with pytest.raises(ValueError, match=re.escape(message)):
        Pad((1, 2))(np.zeros((2, 3, 4), F32))


@pytest.mark.parametrize("value", ["0", None, True])
def test_a_value_that_is_not_a_number_is_an_error(value):
    with pytest.raises(ValueError, match=re.escape(f"value must be a number, got {value!r}")):
        Pad(1, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_scale
def test_upsample_repeats_cells_and_its_gradient_sums_the_copies(at, torch, rng, scale, shape, dtype):
    host = numbers(rng, shape, dtype)
    each = scale if isinstance(scale, tuple) else (scale,) * (len(shape) - 2)
    tx = torch.tensor(host, requires_grad=True)
    if shape[0]:
        ty = torch.nn.functional.interpolate(tx, scale_factor=[float(s) for s in each], mode="nearest")
    else:
        ty = torch.zeros((*shape[:2], *(n * s for n, s in zip(shape[2:], each, strict=True))), dtype=tx.dtype)
    for x in (at.put(host), channels_last_view(at, host)):
        y = upsample_nearest(x, scale)
        assert_match(y, ty.detach(), level="exact", backend=at.backend, dtype=dtype)
        assert_match(x, host, level="exact")
    upstream = numbers(rng, tuple(ty.shape), dtype)
    desired = torch.autograd.grad(ty, tx, torch.tensor(upstream))[0] if shape[0] else tx.detach()
    for dy in (at.put(upstream), channels_last_view(at, upstream)):
        dx = upsample_nearest_backward(dy, scale)
        assert_match(dx, desired, level="reduction", terms=int(np.prod(each)), backend=at.backend, dtype=dtype)
        assert_match(dy, upstream, level="exact")


@pytest.mark.parametrize("shape", [(2, 3, 0), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_upsample_accepts_an_axis_of_size_0(at, shape):
    layer = Upsample(3, backend=at.backend)
    y = layer(at.put(np.zeros(shape, F32)))
    assert tuple(y.shape) == (2, 3, *(3 * n for n in shape[2:]))
    assert tuple(layer.backward(y).shape) == shape


@every_scale
def test_the_upsample_layer_is_the_function(at, rng, scale, shape):
    layer, x = Upsample(scale, backend=at.backend), at.put(numbers(rng, shape))
    y = layer(x)
    assert_match(y, upsample_nearest(x, scale), level="exact", backend=at.backend)
    assert_match(layer.backward(y), upsample_nearest_backward(y, scale), level="exact", backend=at.backend)


@pytest.mark.parametrize("scale", [0, -1, (2, 0), "2", True, (), float("nan")], ids=str)
def test_scale_factor_out_of_range_is_an_error_of_the_constructor(scale):
    with pytest.raises(ValueError, match="scale_factor must be an integer >= 1"):
        Upsample(scale)


@pytest.mark.parametrize("layer", [Pad(1), Upsample(2)], ids=str)
def test_input_without_spatial_axes_is_an_error_that_names_the_layer(layer):
    message = f"{layer!r}: input must have shape (N, C, *spatial) with at least one spatial axis, got (2, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(np.zeros((2, 3), F32))


def test_upstream_gradients_of_another_shape_are_errors():
    with pytest.raises(ValueError, match=re.escape("dy has shape (1, 1, 5), expected (1, 1, 4)")):
        pad_constant_backward(np.zeros((1, 1, 5)), (1, 1, 2), 1)
    with pytest.raises(ValueError, match=re.escape("spatial axes of dy must be multiples of")):
        upsample_nearest_backward(np.zeros((1, 1, 5)), 2)


@pytest.mark.parametrize(("start", "end"), [(1, -1), (0, -1), (1, 2), (2, 2), (-2, -1), (0, 0), (2, 3)])
def test_flatten_joins_the_same_axes_as_pytorch(at, torch, rng, start, end):
    host = numbers(rng, (2, 3, 1, 4))
    layer = Flatten(start, end, backend=at.backend)
    y = layer(channels_last_view(at, host))
    assert_match(y, torch.nn.Flatten(start, end)(torch.tensor(host)), level="exact", backend=at.backend)
    assert_match(layer.backward(y), host, level="exact", backend=at.backend)


@pytest.mark.parametrize(("start", "end"), [(2, 1), (4, -1), (1, 4), (-5, -1), (1, -4), (5, 4)])
def test_axes_that_do_not_exist_are_an_error_that_names_the_layer(start, end):
    message = f"an input of shape (2, 3, 1) has no axes from {start} to {end}"
    with pytest.raises(ValueError, match=r"Flatten\(.*" + re.escape(message)):
        Flatten(start, end)(np.zeros((2, 3, 1), F32))


def test_axes_that_are_not_integers_are_an_error_of_the_constructor():
    with pytest.raises(ValueError, match=r"end_dim must be an integer, got 1\.5"):
        Flatten(1, 1.5)


@pytest.mark.parametrize(
    ("sizes", "shape", "reshaped"),
    [
        ((3, 4), (2, 12), (2, 3, 4)),
        ((-1, 4), (2, 3, 2, 2), (2, 3, 4)),
        ((12,), (2, 3, 4), (2, 12)),
        ((-1,), (2, 3, 4), (2, 12)),
        ((1, -1, 1), (2, 5), (2, 1, 5, 1)),
        ((2, -1), (0, 6), (0, 2, 3)),
        ((1,), (3,), (3, 1)),
        ((), (3, 1), (3,)),
    ],
)
def test_reshape_is_in_row_major_order_and_backward_undoes_it(at, rng, sizes, shape, reshaped):
    host, layer = numbers(rng, shape), Reshape(*sizes, backend=at.backend)
    y = layer(at.put(host))
    assert_match(y, host.reshape(reshaped), level="exact", backend=at.backend)
    assert_match(layer.backward(y), host, level="exact", backend=at.backend)


@pytest.mark.parametrize(("sizes", "shape"), [((5,), (2, 6)), ((4, -1), (2, 6)), ((3, 4), (2, 3, 5)), ((), (2, 2))])
def test_a_sample_of_another_size_is_an_error_that_names_the_layer(sizes, shape):
    message = f"a sample of shape {shape[1:]} has {np.prod(shape[1:])} values, which {sizes} does not fit"
    with pytest.raises(ValueError, match=r"Reshape\(.*\): " + re.escape(message)):
        Reshape(*sizes)(np.zeros(shape, F32))


@pytest.mark.parametrize("sizes", [(0,), (-1, -1), (-2,), (2.0,), (True,), ("3",), ((3, 4),)], ids=str)
def test_sizes_out_of_range_are_an_error_of_the_constructor(sizes):
    with pytest.raises(ValueError, match="integers >= 1 and at most one -1"):
        Reshape(*sizes)


CALLS = {
    "Flatten()": (2, 3, 2),
    "Flatten(start_dim=2, end_dim=-2)": (2, 1, 2, 2),
    "Reshape(3, -1)": (2, 6),
    "Pad(1)": (2, 1, 2),
    "Pad(((1, 2), (0, 1)), value=2.0)": (1, 2, 2, 2),
    "Upsample(2)": (2, 2, 2),
    "Upsample((1, 3))": (1, 2, 2, 2),
}


@pytest.mark.parametrize("call", CALLS)
def test_repr_is_the_call_and_backward_the_derivative_of_forward(rng, call):
    kinds = {kind.__name__: kind for kind in (Flatten, Reshape, Pad, Upsample)}
    layer = eval(call, kinds)
    assert repr(layer) == repr(pickle.loads(pickle.dumps(layer))) == call
    gradcheck(layer.to("numpy", "float64"), numbers(rng, CALLS[call], "float64"))


@pytest.mark.parametrize("call", CALLS)
def test_integers_are_an_error(call):
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64"):
        eval(call)(np.zeros(CALLS[call], np.int64))
