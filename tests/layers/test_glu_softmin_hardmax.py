"""GLU, Softmin and Hardmax: values and gradients against PyTorch and the written formulas, ties, NaN, errors."""

import re

import numpy as np
import pytest

import xpnn as nn
import xpnn.layers.activations as module
from xpnn.layers.activations import GLU, Hardmax, Softmin, glu, glu_backward, hardmax, hardmax_backward, softmin
from xpnn.testing import assert_match, gradcheck

INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64"]
X = np.random.default_rng(5).standard_normal((2, 6, 4)) * 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_glu_is_the_formula_along_any_axis(at, rng, axis, dtype):
    x = X.astype(dtype)
    a, b = np.split(x.astype(np.float64), 2, axis=axis)
    dy, s = rng.standard_normal(a.shape).astype(dtype), 1 / (1 + np.exp(-b))
    assert_match(glu(at.put(x), axis=axis), a * s, backend=at.backend, dtype=dtype)
    dx = np.concatenate([dy * s, dy * a * s * (1 - s)], axis=axis)
    assert_match(glu_backward(at.put(dy), at.put(x), axis=axis), dx, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("value", [0.0, NAN, INF, -INF])
def test_glu_matches_pytorch_with_one_special_value(torch, rng, axis, value):
    x = X.copy()
    x[1, 4, 2] = value
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.glu(tx, dim=axis)
    dy = rng.standard_normal(tuple(ty.shape))
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy))
    assert_match(glu(x, axis=axis), ty.detach())
    assert_match(glu_backward(dy, x, axis=axis), tdx)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmin_is_the_softmax_of_the_negative(at, torch, rng, axis, dtype):
    x, dy = X.astype(dtype), rng.standard_normal(X.shape).astype(dtype)
    tx = torch.tensor(x.astype(np.float64), requires_grad=True)
    ty = torch.nn.functional.softmin(tx, dim=axis)
    (tdx,) = torch.autograd.grad(ty, tx, torch.tensor(dy.astype(np.float64)))
    layer = Softmin(axis, backend=at.backend)
    layer.to(at.backend, dtype)
    y = layer(at.put(x))
    assert_match(y, ty.detach(), backend=at.backend, dtype=dtype)
    assert_match(layer.backward(at.put(dy)), tdx, level="reduction", terms=6, backend=at.backend, dtype=dtype)
    assert_match(softmin(at.put(x), axis=axis), y, level="exact", backend=at.backend, dtype=dtype)


def test_softmin_of_infinity_is_zero_and_of_one_minus_infinity_is_one(at):
    y = softmin(at.put([[INF, 0.0, 0.0], [-INF, 0.0, 5.0]]), axis=1)
    assert at.get(y).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_hardmax_is_one_at_the_first_maximum(at, axis):
    x = np.round(X)
    first = np.expand_dims(np.argmax(x, axis=axis), axis)
    desired = np.zeros(x.shape)
    np.put_along_axis(desired, first, 1.0, axis)
    y = hardmax(at.put(x, "float32"), axis=axis)
    assert_match(y, desired, level="exact", backend=at.backend, dtype="float32")


def test_hardmax_of_the_example_of_onnx(at):
    x = at.put([[3.0, 0, 1, 2], [2, 5, 1, 0], [0, 1, 3, 2], [0, 1, 2, 3], [3, 3, 3, 1]])
    assert np.argmax(at.get(hardmax(x)), axis=1).tolist() == [0, 1, 2, 3, 0]
    assert at.get(hardmax(x)).sum(axis=1).tolist() == [1] * 5


def test_hardmax_takes_nan_for_the_maximum(at):
    y = hardmax(at.put([[1.0, NAN, INF, NAN], [-INF, -INF, -INF, -INF]]))
    assert at.get(y).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_the_gradient_of_hardmax_is_zero(at):
    layer, x = Hardmax(1, backend=at.backend), at.put(X, "float32")
    assert not at.get(layer.backward(layer(x))).any()
    assert not at.get(hardmax_backward(x, x, axis=0)).any()


@pytest.mark.parametrize("layer", [Softmin(), Softmin(-1), GLU(), GLU(1), GLU(0)], ids=repr)
def test_backward_is_the_derivative_of_forward(layer, rng):
    gradcheck(layer.to("numpy", "float64"), rng.standard_normal((2, 6, 4)))


CALLS = ["Softmin()", "Softmin(axis=-1)", "Hardmax()", "Hardmax(axis=1)", "GLU()", "GLU(axis=1)"]


@pytest.mark.parametrize("call", CALLS)
def test_repr_is_the_call_that_makes_the_layer(call):
    assert repr(eval(call, vars(module))) == call


@pytest.mark.parametrize("layer", [GLU(1), Hardmax(1), Softmin()], ids=repr)
def test_output_shape_is_that_of_the_output(layer):
    for shape in ((2, 6, 4), (0, 6), (3, 2)):
        assert layer.output_shape(shape) == layer(np.ones(shape, np.float32)).shape


def test_an_axis_of_odd_size_is_an_error_that_names_the_layer():
    message = "GLU(axis=1): input must have an even size along axis 1, got shape (2, 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        GLU(1)(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.Sequential(GLU(1)).output_shape((2, 3))


@pytest.mark.parametrize("kind", [GLU, Hardmax, Softmin])
def test_an_axis_out_of_range_is_an_error(kind):
    with pytest.raises(ValueError, match=re.escape("axis 2 is out of range for an input of shape (2, 4)")):
        kind(2)(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="axis must be an integer"):
        kind(1.0)


def test_hardmax_of_no_values_is_an_error():
    with pytest.raises(ValueError, match=re.escape("input must have a value along axis -1, got shape (2, 0)")):
        hardmax(np.zeros((2, 0), np.float32))


def test_glu_inputs_may_be_strided_and_are_not_changed(at):
    wide = at.put(X, "float32")
    strided = at.xp.permute_dims(wide, (2, 1, 0))[::2, :, :]
    plain = at.put(np.ascontiguousarray(X.transpose(2, 1, 0)[::2]), "float32")
    assert_match(glu(strided, axis=1), glu(plain, axis=1), level="exact", backend=at.backend)
    assert_match(wide, X.astype(np.float32), level="exact")


def test_gradients_of_another_shape_are_errors():
    with pytest.raises(ValueError, match=re.escape("dy has shape (2, 6, 4), expected (2, 6, 2)")):
        glu_backward(X, X)
    with pytest.raises(ValueError, match=re.escape("y has shape (2, 6), expected (2, 6, 4)")):
        hardmax_backward(X, X[..., 0])
