"""Rectifiers and hard activations at their kinks, and PReLU, which is trained."""

import re
from functools import cache
from math import prod

import numpy as np
import pytest

import xpnn.layers.activations as module
from xpnn.layers.activations import (
    CELU,
    ELU,
    SELU,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    PReLU,
    ReLU,
    Softplus,
    prelu,
    prelu_backward,
    relu,
    relu_backward,
)
from xpnn.testing import assert_match, gradcheck

INF, NAN = float("inf"), float("nan")
DTYPES = ["float32", "float64"]
LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772


def slopes(at, layer, x):
    """The slopes of a layer at these points."""
    layer.to(at.backend)
    y = layer(at.put(x, "float32"))
    return layer.backward(at.put(np.ones(y.shape, np.float32)))


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize(
    ("layer", "slope"),
    [
        (ReLU(), 0.0),
        (LeakyReLU(), 0.01),
        (LeakyReLU(0.3), 0.3),
        (LeakyReLU(0.0), 0.0),
        (LeakyReLU(-0.5), -0.5),
        (PReLU(), 0.25),
        (PReLU(init=-0.75), -0.75),
        (ELU(), 1.0),
        (ELU(2.5), 2.5),
        (CELU(), 1.0),
        (CELU(2.5), 1.0),
        (SELU(), LAMBDA * ALPHA),
    ],
    ids=repr,
)
def test_slope_at_zero(at, layer, slope, zero):
    assert_match(slopes(at, layer, [[zero]]), np.array([[slope]], np.float32), backend=at.backend)


@pytest.mark.parametrize(
    ("layer", "slopes_at_kinks"),
    [(HardSwish(), (0, 1)), (HardSigmoid(), (0, 0))],
    ids=["HardSwish", "HardSigmoid"],
)
def test_slopes_at_the_ends_of_the_clipped_line(at, layer, slopes_at_kinks):
    found = slopes(at, layer, [-3.0, 3.0])
    assert_match(found, np.array(slopes_at_kinks, np.float32), level="exact", backend=at.backend)


def test_slopes_just_inside_the_clipped_line(at):
    x = [float(np.nextafter(np.float32(end), np.float32(0))) for end in (-3, 3)]
    assert_match(slopes(at, HardSwish(), x), np.array([-0.5, 1.5], np.float32), backend=at.backend)
    assert_match(slopes(at, HardSigmoid(), x), np.array([1 / 6, 1 / 6], np.float32), backend=at.backend)


def test_softplus_is_the_identity_past_its_threshold_only(at):
    layer, x = Softplus(beta=2.0, threshold=1.0, backend=at.backend), at.put([0.5, 0.5 + 2.0**-20, 4.0])
    y = at.get(layer(x))
    assert y[1:].tolist() == at.get(x)[1:].tolist()
    smooth = np.log1p(np.exp(1.0)) / 2
    assert_match(y[:1], np.array([smooth], np.float32))
    dx = layer.backward(at.put(np.ones(3, np.float32)))
    assert_match(dx, np.array([1 / (1 + np.exp(-1.0)), 1, 1], np.float32), backend=at.backend)


def test_relu_keeps_nan_and_infinity_and_has_no_negative_zero(at):
    y = at.get(relu(at.put([NAN, INF, -INF, -0.0, -1.0, -1e-40])))
    assert_match(y, np.array([NAN, INF, 0, 0, 0, 0], np.float32), level="exact")
    assert not np.signbit(y[2:]).any()


def test_infinite_gradient_is_0_where_relu_is_flat(at):
    dx = relu_backward(at.put([INF, NAN, INF]), at.put([0.0, 0.0, 1.0]))
    assert_match(dx, np.array([0, 0, INF], np.float32), level="exact", backend=at.backend)


def test_special_gradients_are_0_where_a_hard_activation_is_flat(at):
    for layer in (HardSigmoid(backend=at.backend), HardSwish(backend=at.backend)):
        layer(at.put([-4.0, -3.0]))
        assert at.get(layer.backward(at.put([INF, NAN]))).tolist() == [0, 0]


SHAPES = {
    "one for all": ((4, 3), 1),
    "one for each": ((4, 3), 3),
    "images": ((2, 3, 4, 2), 3),
    "images, one for all": ((2, 3, 4, 2), 1),
    "one channel": ((2, 1, 5), 1),
    "volumes": ((2, 2, 2, 1, 3), 2),
    "line of numbers": ((5,), 1),
    "empty batch": ((0, 3, 2), 3),
    "empty batch, one for all": ((0, 3), 1),
}
every_shape = pytest.mark.parametrize("name", SHAPES)


@cache
def problem(name):
    """(x, weight, dy) with some zeros in ``x``."""
    shape, slopes = SHAPES[name]
    rng = np.random.default_rng(17)
    hosts = [rng.standard_normal(s).astype(np.float32).astype(np.float64) for s in (shape, (slopes,), shape)]
    hosts[0][rng.random(shape) < 0.2] = 0.0
    return hosts


def loops(x, weight, dy):
    """(y, dx, dweight), one number at a time."""
    y, dx, dweight = np.zeros(x.shape), np.zeros(x.shape), np.zeros(weight.shape)
    for index in np.ndindex(*x.shape):
        c = index[1] if len(weight) > 1 else 0
        above = x[index] > 0
        y[index] = x[index] if above else weight[c] * x[index]
        dx[index] = dy[index] if above else weight[c] * dy[index]
        dweight[c] += 0 if above else dy[index] * x[index]
    return y, dx, dweight


@pytest.mark.parametrize("dtype", DTYPES)
@every_shape
def test_prelu_and_its_gradients_match_loops(at, name, dtype):
    hosts = problem(name)
    x, weight, dy = (at.put(a, dtype) for a in hosts)
    terms = max(1, prod(SHAPES[name][0]))
    for a, d in zip((prelu(x, weight), *prelu_backward(dy, x, weight)), loops(*hosts), strict=True):
        assert_match(a, d, level="reduction", terms=terms, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("name", [name for name in SHAPES if "empty" not in name])
def test_prelu_and_its_gradients_match_pytorch(torch, name):
    x, weight, dy = problem(name)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, weight)]
    ty = torch.nn.functional.prelu(*leaves)
    desired = (ty.detach(), *torch.autograd.grad(ty, leaves, torch.tensor(dy)))
    for a, d in zip((prelu(x, weight), *prelu_backward(dy, x, weight)), desired, strict=True):
        assert_match(a, d, level="reduction", terms=x.size)


@every_shape
def test_prelu_layer_matches_the_functions(at, name):
    _, slopes = SHAPES[name]
    x, _, dy = (at.put(a, "float32") for a in problem(name))
    layer = PReLU(slopes, init=0.125, backend=at.backend)
    weight = at.put(np.full(slopes, 0.125, np.float32))
    assert_match(layer.parameters["weight"].value, np.full(slopes, 0.125, np.float32), level="exact")
    assert_match(layer(x), prelu(x, weight), level="exact", backend=at.backend)
    dx, dweight = prelu_backward(dy, x, weight)
    assert_match(layer.backward(dy), dx, level="exact", backend=at.backend)
    assert_match(layer.parameters["weight"].grad, dweight, level="exact", backend=at.backend)


@pytest.mark.parametrize("slopes", [1, 3])
def test_backward_of_prelu_is_the_derivative_of_its_forward(rng, slopes):
    x = rng.uniform(0.1, 2.5, (2, 3, 4)) * rng.choice([-1, 1], (2, 3, 4))
    gradcheck(PReLU(slopes, dtype="float64"), x)


def test_prelu_of_pytorch_loads_by_name(torch):
    theirs, ours = torch.nn.PReLU(3, 0.5), PReLU(3)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    assert ours.parameters["weight"].value.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("shape", [(4, 2), (3,), (), (4, 1, 3)])
def test_prelu_for_another_number_of_channels_is_an_error_that_names_the_layer(shape):
    message = (
        f"PReLU(num_parameters=3): weight must have shape (1,) or (channels,), got (3,) for an input of shape {shape}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        PReLU(3)(np.zeros(shape, np.float32))


@pytest.mark.parametrize("arguments", [(0,), (2.0,), (True,), (1, "a"), (1, NAN), (1, None)], ids=str)
def test_prelu_argument_out_of_range_is_an_error_at_once(arguments):
    with pytest.raises(ValueError, match=r"(num_parameters must be an integer >= 1|init must be a finite number)"):
        PReLU(*arguments)


def test_prelu_names_arrays_that_do_not_fit():
    x, weight = np.zeros((2, 3), np.float32), np.zeros(3, np.float32)
    with pytest.raises(TypeError, match=re.escape("mixed dtypes (input float32, weight float64)")):
        prelu(x, weight.astype(np.float64))
    with pytest.raises(ValueError, match=re.escape("dy has shape (2, 1), expected (2, 3)")):
        prelu_backward(x[:, :1], x, weight)


@pytest.mark.parametrize("layer", [PReLU(), PReLU(3), PReLU(3, 0.5), PReLU(init=0.5)], ids=repr)
def test_repr_of_prelu_is_the_call_that_makes_it(layer):
    made = eval(repr(layer), vars(module))
    assert (made.num_parameters, made.init) == (layer.num_parameters, layer.init)
