"""Softmax and its logarithm: values, gradients, and large logits."""

import re
import warnings

import numpy as np
import pytest
import scipy.special

import xpnn.layers.activations as module
from xpnn.layers.activations import (
    LogSoftmax,
    Softmax,
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)
from xpnn.testing import assert_match, gradcheck

INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64"]
LOGITS = np.random.default_rng(5).standard_normal((2, 3, 4)) * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax_and_its_logarithm_match_scipy_along_any_axis(at, axis, dtype):
    x = LOGITS.astype(dtype)
    wide = x.astype(np.float64)
    desired = scipy.special.softmax(wide, axis=axis)
    assert_match(softmax(at.put(x), axis=axis), desired, backend=at.backend, dtype=dtype)
    desired = scipy.special.log_softmax(wide, axis=axis)
    assert_match(log_softmax(at.put(x), axis=axis), desired, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_gradient_matches_pytorch_and_its_jacobian(torch, rng, axis):
    dy = rng.standard_normal(LOGITS.shape)
    tx = torch.tensor(LOGITS, requires_grad=True)
    y = softmax(LOGITS, axis=axis)
    (tdx,) = torch.autograd.grad(torch.softmax(tx, axis), tx, torch.tensor(dy))
    assert_match(softmax_backward(dy, y, axis=axis), tdx)
    rows, upstream = np.moveaxis(y, axis, -1), np.moveaxis(dy, axis, -1)
    jacobian = rows[..., :, None] * (np.eye(rows.shape[-1]) - rows[..., None, :])
    desired = np.moveaxis(np.einsum("...i,...ij->...j", upstream, jacobian), -1, axis)
    assert_match(softmax_backward(dy, y, axis=axis), desired)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_log_softmax_gradient_matches_pytorch(torch, rng, axis):
    dy = rng.standard_normal(LOGITS.shape)
    tx = torch.tensor(LOGITS, requires_grad=True)
    (tdx,) = torch.autograd.grad(torch.log_softmax(tx, axis), tx, torch.tensor(dy))
    assert_match(log_softmax_backward(dy, log_softmax(LOGITS, axis=axis), axis=axis), tdx)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_gradients_on_every_backend(at, rng, dtype, axis):
    x, dy = LOGITS.astype(dtype), rng.standard_normal(LOGITS.shape).astype(dtype)
    wide, upstream = x.astype(np.float64), dy.astype(np.float64)
    y, total = scipy.special.softmax(wide, axis=axis), upstream.sum(axis=axis, keepdims=True)
    form = {"level": "reduction", "terms": 4, "backend": at.backend, "dtype": dtype}
    found = softmax_backward(at.put(dy), at.put(y, dtype), axis=axis)
    assert_match(found, y * (upstream - (upstream * y).sum(axis=axis, keepdims=True)), **form)
    found = log_softmax_backward(at.put(dy), at.put(np.log(y), dtype), axis=axis)
    assert_match(found, upstream - y * total, **form)


@pytest.mark.parametrize("layer", [*map(Softmax, (1, -1, 0)), *map(LogSoftmax, (1, -1, 0))], ids=repr)
def test_backward_is_the_derivative_of_forward(layer, rng):
    gradcheck(layer.to("numpy", "float64"), rng.standard_normal((3, 4, 2)))


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_nan_spreads_along_its_axis_only(at, function):
    y = at.get(function(at.put([[0.0, NAN, 1.0], [0.0, 2.0, 1.0]]), axis=1))
    assert np.isnan(y).tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("layer", [Softmax(), Softmax(-1), LogSoftmax(), LogSoftmax(axis=0)], ids=repr)
def test_repr_is_the_call_that_makes_the_layer(layer):
    made = eval(repr(layer), vars(module))
    assert (type(made), made.axis) == (type(layer), layer.axis)


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_integers_are_an_error(function):
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64 array of numpy"):
        function(np.zeros((2, 3), np.int64))


def test_softmax_does_not_change_with_a_shift(at):
    x = np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 8
    shifted = softmax(at.put(x + np.float32(1024)), axis=1)
    assert_match(shifted, softmax(at.put(x), axis=1), level="exact", backend=at.backend)


def test_softmax_of_large_values_is_finite(at):
    x = at.put([[1e4, 0.0, -1e4], [1e38, 1e38, -1e38]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, log_y = softmax(x, axis=1), log_softmax(at.put([[1e4, 0.0, -1e4]]), axis=1)
    assert at.get(y).tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert at.get(log_y).tolist() == [[0, -1e4, -2e4]]


def test_softmax_of_minus_infinity_is_zero(at):
    assert at.get(softmax(at.put([[-INF, 0.0, 0.0]]))).tolist() == [[0, 0.5, 0.5]]


def test_softmax_layer_is_over_the_channels_by_default(at):
    x = at.put(LOGITS, "float32")
    assert_match(Softmax(backend=at.backend)(x), softmax(x, axis=1), level="exact", backend=at.backend)
    assert_match(Softmax(axis=-1, backend=at.backend)(x), softmax(x), level="exact", backend=at.backend)


def test_softmax_of_an_empty_batch_is_empty(at):
    assert softmax(at.put(np.zeros((0, 3), np.float32))).shape == (0, 3)


@pytest.mark.parametrize("axis", [2, -3])
def test_softmax_axis_out_of_range_is_an_error_that_names_the_layer(axis):
    message = f"Softmax(axis={axis}): axis {axis} is out of range for an input of shape (2, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        Softmax(axis)(np.zeros((2, 3), np.float32))


def test_softmax_of_no_classes_is_an_error():
    with pytest.raises(ValueError, match=re.escape("input must have a value along axis 1, got shape (2, 0)")):
        softmax(np.zeros((2, 0), np.float32), axis=1)


@pytest.mark.parametrize("axis", ["1", 1.0, None, True])
@pytest.mark.parametrize("layer", [Softmax, LogSoftmax])
def test_axis_that_is_not_an_integer_is_an_error_at_once(layer, axis):
    with pytest.raises(ValueError, match="axis must be an integer"):
        layer(axis)
