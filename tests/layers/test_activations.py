"""Activation functions: values, gradients, and the ends of the number line."""

import re
import warnings

import numpy as np
import pytest
import scipy.special

import xpnn as nn
from xpnn.testing import assert_match, gradcheck

F = nn.functional
INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64"]
VALUES = np.array([-30.0, -5.5, -1.0, -0.25, -1e-3, 0.0, 1e-3, 0.5, 1.0, 3.75, 8.0, 30.0]).reshape(3, 4)

# name -> (forward, by SciPy; derivative in terms of the output)
ELEMENTWISE = {
    "relu": (F.relu, F.relu_backward, lambda x: np.maximum(x, 0), lambda y: (y > 0) * 1.0, nn.ReLU),
    "sigmoid": (F.sigmoid, F.sigmoid_backward, scipy.special.expit, lambda y: y * (1 - y), nn.Sigmoid),
    "tanh": (F.tanh, F.tanh_backward, np.tanh, lambda y: 1 - y * y, nn.Tanh),
}
each = pytest.mark.parametrize(
    ("forward", "backward", "desired", "slope", "layer"), ELEMENTWISE.values(), ids=ELEMENTWISE
)


@pytest.mark.parametrize("dtype", DTYPES)
@each
def test_values_match_scipy(at, forward, backward, desired, slope, layer, dtype):
    host = VALUES.astype(dtype)
    assert_match(forward(at.put(host)), desired(host.astype(np.float64)), backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@each
def test_gradients_match_the_slope(at, rng, forward, backward, desired, slope, layer, dtype):
    y = desired(VALUES).astype(dtype)
    dy = rng.standard_normal(VALUES.shape).astype(dtype)
    wide = dy.astype(np.float64) * slope(y.astype(np.float64))
    assert_match(backward(at.put(dy), at.put(y)), wide, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_and_gradients_match_pytorch(torch, rng, name):
    forward, backward, *_ = ELEMENTWISE[name]
    tx, dy = torch.tensor(VALUES, requires_grad=True), rng.standard_normal(VALUES.shape)
    ty = getattr(torch, name)(tx)
    assert_match(forward(VALUES), ty.detach())
    assert_match(backward(dy, forward(VALUES)), torch.autograd.grad(ty, tx, torch.tensor(dy))[0])


@each
def test_layer_gives_what_the_functions_give(at, rng, forward, backward, desired, slope, layer):
    x, dy = at.put(VALUES, "float32"), at.put(rng.standard_normal(VALUES.shape), "float32")
    made = layer(backend=at.backend)
    y = made(x)
    assert_match(y, forward(x), level="exact", backend=at.backend)
    assert_match(made.backward(dy), backward(dy, y), level="exact", backend=at.backend)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(), nn.Softmax(-1), nn.Softmax(0)])
def test_backward_is_the_derivative_of_forward(layer, rng):
    x = rng.uniform(0.1, 2.0, (3, 4, 2)) * rng.choice([-1, 1], (3, 4, 2))
    gradcheck(layer.to("numpy", "float64"), x)


@each
def test_any_shape_is_taken(at, forward, backward, desired, slope, layer):
    for shape in ((), (3,), (0, 4), (2, 1, 3, 1)):
        x = at.put(np.full(shape, 0.5, np.float32))
        y = forward(x)
        assert_match(y, desired(np.full(shape, 0.5)), backend=at.backend, dtype="float32")
        assert backward(x, y).shape == shape


def test_slope_of_relu_at_zero_is_zero(at):
    layer = nn.ReLU(backend=at.backend)
    layer(at.put([[-1.0, -0.0, 0.0, 1e-30]]))
    assert at.get(layer.backward(at.put([[5.0, 5.0, 5.0, 5.0]]))).tolist() == [[0, 0, 0, 5]]


def test_relu_keeps_nan_and_infinity(at):
    y = F.relu(at.put([NAN, INF, -INF]))
    assert_match(y, np.array([NAN, INF, 0], np.float32), level="exact", backend=at.backend)


def test_relu_gives_no_negative_zero(at):
    assert not np.signbit(at.get(F.relu(at.put([-0.0, -1.0, -1e-40])))).any()


def test_infinite_gradient_is_stopped_where_relu_is_flat(at):
    dx = F.relu_backward(at.put([INF, NAN, INF]), at.put([0.0, 0.0, 1.0]))
    assert_match(dx, np.array([0, 0, INF], np.float32), level="exact", backend=at.backend)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_overflows_nowhere(at, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = F.sigmoid(at.put([-INF, -1e4, -800.0, 0.0, 800.0, 1e4, INF], dtype))
    assert at.get(y).tolist() == [0, 0, 0, 0.5, 1, 1, 1]


def test_sigmoid_keeps_the_digits_of_its_lower_tail(at):
    x = np.array([-80.0, -60.0, -40.0], np.float32)
    for i in range(3):
        # one at a time: a tolerance relative to the largest would not see the smaller
        desired = scipy.special.expit(x[i : i + 1].astype(np.float64))
        assert_match(F.sigmoid(at.put(x[i : i + 1])), desired, backend=at.backend, dtype="float32")


@pytest.mark.parametrize("forward", [F.sigmoid, F.tanh])
def test_nan_in_is_nan_out(at, forward):
    y = at.get(forward(at.put([NAN, 0.0])))
    assert np.isnan(y).tolist() == [True, False]


LOGITS = np.random.default_rng(5).standard_normal((2, 3, 4)) * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax_and_its_logarithm_match_scipy_along_any_axis(at, axis, dtype):
    x = LOGITS.astype(dtype)
    wide = x.astype(np.float64)
    desired = scipy.special.softmax(wide, axis=axis)
    assert_match(F.softmax(at.put(x), axis=axis), desired, backend=at.backend, dtype=dtype)
    desired = scipy.special.log_softmax(wide, axis=axis)
    assert_match(F.log_softmax(at.put(x), axis=axis), desired, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_gradient_matches_pytorch_and_its_jacobian(torch, rng, axis):
    dy = rng.standard_normal(LOGITS.shape)
    tx = torch.tensor(LOGITS, requires_grad=True)
    y = F.softmax(LOGITS, axis=axis)
    (tdx,) = torch.autograd.grad(torch.softmax(tx, axis), tx, torch.tensor(dy))
    assert_match(F.softmax_backward(dy, y, axis=axis), tdx)
    rows, upstream = np.moveaxis(y, axis, -1), np.moveaxis(dy, axis, -1)
    jacobian = rows[..., :, None] * (np.eye(rows.shape[-1]) - rows[..., None, :])
    desired = np.moveaxis(np.einsum("...i,...ij->...j", upstream, jacobian), -1, axis)
    assert_match(F.softmax_backward(dy, y, axis=axis), desired)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_gradient_on_every_backend(at, rng, dtype):
    dy, y = rng.standard_normal((2, 3, 4)).astype(dtype), scipy.special.softmax(LOGITS, axis=1).astype(dtype)
    desired = F.softmax_backward(dy.astype(np.float64), y.astype(np.float64), axis=1)
    assert_match(F.softmax_backward(at.put(dy), at.put(y), axis=1), desired, backend=at.backend, dtype=dtype)


def test_softmax_does_not_change_with_a_shift(at):
    x = np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 8
    shifted = F.softmax(at.put(x + np.float32(1024)), axis=1)
    assert_match(shifted, F.softmax(at.put(x), axis=1), level="exact", backend=at.backend)


def test_softmax_of_large_values_is_finite(at):
    x = at.put([[1e4, 0.0, -1e4], [1e38, 1e38, -1e38]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, log_y = F.softmax(x, axis=1), F.log_softmax(at.put([[1e4, 0.0, -1e4]]), axis=1)
    assert at.get(y).tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert at.get(log_y).tolist() == [[0, -1e4, -2e4]]


def test_softmax_of_minus_infinity_is_zero(at):
    assert at.get(F.softmax(at.put([[-INF, 0.0, 0.0]]))).tolist() == [[0, 0.5, 0.5]]


def test_softmax_layer_takes_the_channels_unless_told(at):
    x = at.put(LOGITS, "float32")
    assert_match(nn.Softmax(backend=at.backend)(x), F.softmax(x, axis=1), level="exact", backend=at.backend)
    assert_match(nn.Softmax(axis=-1, backend=at.backend)(x), F.softmax(x), level="exact", backend=at.backend)


def test_softmax_of_an_empty_batch_is_empty(at):
    assert F.softmax(at.put(np.zeros((0, 3), np.float32))).shape == (0, 3)


@pytest.mark.parametrize("axis", [2, -3])
def test_softmax_axis_out_of_range_is_an_error_that_names_the_layer(axis):
    message = f"Softmax(axis={axis}): axis {axis} is out of range for an input of shape (2, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.Softmax(axis)(np.zeros((2, 3), np.float32))


def test_softmax_of_no_classes_is_an_error():
    with pytest.raises(ValueError, match=re.escape("axis 1 of an input of shape (2, 0) is empty")):
        F.softmax(np.zeros((2, 0), np.float32), axis=1)


@pytest.mark.parametrize("axis", ["1", 1.0, None, True])
def test_softmax_axis_that_is_no_integer_is_an_error_at_once(axis):
    with pytest.raises(ValueError, match="axis takes an integer"):
        nn.Softmax(axis)


@pytest.mark.parametrize("function", [F.relu, F.sigmoid, F.tanh, F.softmax, F.log_softmax])
def test_integers_are_an_error(function):
    with pytest.raises(TypeError, match="takes a float32 or float64 array, got int64 array of numpy"):
        function(np.zeros((2, 3), np.int64))
