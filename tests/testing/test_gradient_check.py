"""`gradcheck` passes right layers, reports wrong ones by name and index, and does not change the layer."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import gradcheck


def away_from_kinks(rng, shape):
    """All entries distinct and none near 0."""
    x = np.arange(1.0, np.prod(shape) + 1) / 7.0
    return (rng.permutation(x) * rng.choice([-1.0, 1.0], x.size)).reshape(shape)


RIGHT = [
    (lambda **p: nn.Dense(4, 3, **p), (2, 4)),
    (lambda **p: nn.Dense(4, 3, bias=False, **p), (2, 2, 4)),
    (lambda **p: nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2, **p), (2, 2, 6)),
    (lambda **p: nn.Conv2d(2, 3, 2, dilation=2, **p), (1, 2, 4, 5)),
    (lambda **p: nn.MaxPool2d(2, **p), (1, 2, 4, 4)),
    (lambda **p: nn.AvgPool1d(2, **p), (2, 1, 6)),
    (lambda **p: nn.ReLU(**p), (3, 4)),
    (lambda **p: nn.Sigmoid(**p), (3, 4)),
    (lambda **p: nn.Sequential(nn.Dense(4, 3), nn.Tanh(), nn.Dense(3, 2), nn.Softmax(), **p), (2, 4)),
]


@pytest.mark.parametrize(("make", "shape"), RIGHT, ids=lambda v: repr(v()) if callable(v) else "x".join(map(str, v)))
def test_right_layers_pass(at, rng, make, shape):
    gradcheck(make(backend=at.wide(), seed=3), away_from_kinks(rng, shape) * 0.1)


def test_input_may_be_a_list_or_float32():
    layer = nn.Dense(2, 2, dtype="float64")
    gradcheck(layer, [[1.0, 2.0]])
    gradcheck(layer, np.ones((1, 2), np.float32))


def test_an_empty_batch_passes():
    gradcheck(nn.Dense(2, 2, dtype="float64"), np.zeros((0, 2)))


def test_float32_is_refused_with_the_call_that_converts():
    with pytest.raises(TypeError, match=r"in float64, got float32; convert it with layer.to\('numpy', 'float64'\)"):
        gradcheck(nn.Dense(2, 2), np.ones((1, 2)))


class WrongSign(nn.Tanh):
    def _backward(self, dy, input_grad):
        return -super()._backward(dy, input_grad)


class SlightlyOff(nn.Tanh):
    def _backward(self, dy, input_grad):
        return super()._backward(dy, input_grad) * (1 + 1e-4)


class OneEntryOff(nn.Dense):
    def _backward(self, dy, input_grad):
        dx = super()._backward(dy, input_grad)
        dx[1, 2] += 0.5
        return dx


class NoBiasSum(nn.Dense):
    """The gradient of the bias is that of one sample instead of all."""

    def accumulate_grad(self, name, gradient):
        super().accumulate_grad(name, gradient / 3 if name == "bias" else gradient)


class ForgottenBias(nn.Dense):
    """Backward leaves the bias without any gradient."""

    def accumulate_grad(self, name, gradient):
        if name != "bias":
            super().accumulate_grad(name, gradient)


class BiasOfAnotherShape(nn.Dense):
    """The bias gradient keeps the axis that it was summed over."""

    def accumulate_grad(self, name, gradient):
        super().accumulate_grad(name, gradient[None, :] if name == "bias" else gradient)


class TransposedWeight(nn.Dense):
    def accumulate_grad(self, name, gradient):
        super().accumulate_grad(name, gradient.T if name == "weight" else gradient)


class DoubleWeight(nn.Dense):
    """Accumulates twice."""

    def accumulate_grad(self, name, gradient):
        super().accumulate_grad(name, gradient)
        if name == "weight":
            super().accumulate_grad(name, gradient)


class NotANumber(nn.Tanh):
    def _backward(self, dy, input_grad):
        return super()._backward(dy, input_grad) * np.nan


class ExtraAxis(nn.Tanh):
    """Right values in a shape that only broadcasts to that of the input."""

    def _backward(self, dy, input_grad):
        return super()._backward(dy, input_grad)[None]


DENSE = {"in_features": 4, "out_features": 4}


@pytest.mark.parametrize(
    ("wrong", "arguments", "where"),
    [
        (WrongSign, {}, "input"),
        (SlightlyOff, {}, "input"),
        (NotANumber, {}, "input"),
        (ExtraAxis, {}, "input"),
        (OneEntryOff, DENSE, r"input at \(1, 2\)"),
        (NoBiasSum, DENSE, "bias"),
        (ForgottenBias, DENSE, "bias"),
        (BiasOfAnotherShape, DENSE, "bias"),
        (TransposedWeight, DENSE, "weight"),
        (DoubleWeight, DENSE, "weight"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_wrong_backwards_are_caught_by_name(rng, wrong, arguments, where):
    layer = wrong(**arguments, dtype="float64", seed=1)
    with pytest.raises(AssertionError, match=f"gradient of {where}"):
        gradcheck(layer, away_from_kinks(rng, (3, 4)) * 0.1)


def test_the_message_has_both_values():
    with pytest.raises(
        AssertionError, match=r"at \(0, 0\): backward returns (-?[0-9.]+), differences (-?[0-9.]+)$"
    ) as caught:
        gradcheck(WrongSign(dtype="float64"), np.zeros((1, 1)))
    backward, differences = str(caught.value).partition("returns ")[2].split(", differences ")
    assert float(backward) == pytest.approx(-float(differences))


def test_a_wrong_layer_within_a_model_is_named_in_full(rng):
    model = nn.Sequential(nn.Dense(4, 3), NoBiasSum(3, 2), dtype="float64", seed=2)
    with pytest.raises(AssertionError, match=r"gradient of 1\.bias"):
        gradcheck(model, away_from_kinks(rng, (3, 4)))


def test_parameters_and_gradients_are_unchanged(at, rng):
    layer = nn.Dense(4, 3, backend=at.wide(), seed=1)
    x = rng.standard_normal((3, 4))
    values = {name: p.value for name, p in layer.named_parameters()}
    gradcheck(layer, x)
    for name, p in layer.named_parameters():
        assert p.value is values[name] and p.grad is None
    grads = {name: p.value * 2 for name, p in layer.named_parameters()}
    for name, p in layer.named_parameters():
        p.grad = grads[name]
    gradcheck(layer, x)
    for name, p in layer.named_parameters():
        assert p.value is values[name] and p.grad is grads[name]


@pytest.mark.parametrize("wrong", [OneEntryOff, NoBiasSum, TransposedWeight])
def test_a_failed_check_leaves_the_layer_as_it_was_too(rng, wrong):
    layer = wrong(4, 4, dtype="float64", seed=1)
    grads = {name: p.value * 2 for name, p in layer.named_parameters()}
    for name, p in layer.named_parameters():
        p.grad = grads[name]
    values = {name: np.array(p.value) for name, p in layer.named_parameters()}
    with pytest.raises(AssertionError):
        gradcheck(layer, rng.standard_normal((3, 4)))
    for name, p in layer.named_parameters():
        assert np.array_equal(p.value, values[name])
        assert p.grad is grads[name], f"the gradient of {name}"


def test_the_input_is_not_written_to(rng):
    x = rng.standard_normal((2, 4))
    before = x.copy()
    x.flags.writeable = False
    gradcheck(nn.Dense(4, 3, dtype="float64"), x)
    assert np.array_equal(x, before)
