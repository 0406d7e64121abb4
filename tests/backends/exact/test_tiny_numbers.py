"""Numbers below 2**-125 and -0 in arrays that `asarray` did not make: all backends read +0 in exact numerics.

A GPU's kernels read subnormal numbers as zeros and a CPU does not, so comparisons and divisions would have other
results.
"""

import numpy as np
import pytest

import xpnn as nn

# From subnormal ones to the last that counts as zero; the next two are the first that don't.
TINY = [1e-45, -1e-40, 2.0**-127, -(2.0**-126), float(np.nextafter(np.float32(2.0**-125), np.float32(0))), -0.0]
KEPT = [2.0**-125, -(2.0**-125)]


@pytest.fixture
def pair(at, exact):
    """Makes an array as another library would, and what `asarray` makes of it."""

    def make(shape, *numbers):
        host = np.resize(np.array(numbers or [*TINY, *KEPT, 0.0, 1.0], "float32"), shape)
        return at.backend.asarray(host), exact.asarray(host)

    return make


def same(exact, one, two):
    hosts = [exact.to_numpy(array) for array in (one, two)]
    assert hosts[0].tobytes() == hosts[1].tobytes(), hosts
    assert not np.any(np.signbit(hosts[0]) & (hosts[0] == 0))


def test_asarray_makes_zeros_of_them_and_of_nothing_else(exact):
    host = exact.to_numpy(exact.asarray(np.array([*TINY, *KEPT, np.inf, -np.inf], "float32")))
    assert host.tolist() == [0.0] * len(TINY) + [*KEPT, np.inf, -np.inf] and not np.signbit(host[: len(TINY)]).any()


LAYERS = {
    "ReLU": lambda b: nn.ReLU(backend=b),
    "LeakyReLU": lambda b: nn.LeakyReLU(0.5, backend=b),
    "Softsign": lambda b: nn.Softsign(backend=b),
    "MaxPool1d": lambda b: nn.MaxPool1d(2, backend=b),
    "LpPool1d": lambda b: nn.LpPool1d(1, 2, backend=b),
    "Dense": lambda b: nn.Sequential(nn.Flatten(), nn.Dense(10, 3), backend=b),
    "Identity": lambda b: nn.Identity(backend=b),
    "Residual": lambda b: nn.Residual(nn.Identity(), activation=nn.ReLU(), backend=b),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_reads_them_as_zeros_in_inputs_and_gradients(exact, pair, name):
    results = []
    for x, dy in zip(pair((1, 1, 10)), pair((1, 30)), strict=True):
        layer = LAYERS[name](exact)
        y = layer(x)
        dx = layer.backward(exact.xp.reshape(dy[:, : int(np.prod(y.shape))], y.shape))
        results.append((y, dx, *(p.grad for _, p in layer.named_parameters())))
    for one, two in zip(*results, strict=True):
        same(exact, one, two)


@pytest.mark.parametrize("loss", [nn.MAE, nn.MSE, nn.SmoothL1])
def test_a_loss_reads_them_as_zeros(exact, pair, loss):
    results = []
    for prediction, target, dy in zip(pair(10), pair(10, 0.0, -0.0), pair(10, 1.0, 1e-40), strict=True):
        subject = loss("none", backend=exact)
        results.append((subject(prediction, target), subject.backward(dy)))
    for one, two in zip(*results, strict=True):
        same(exact, one, two)


OPTIMIZERS = {
    "SGD": lambda model: nn.SGD(model, 1.0, momentum=0.9),
    "Adam": lambda model: nn.Adam(model, 1.0, eps=1e-30),
    "RMSprop": lambda model: nn.RMSprop(model, 1.0, eps=1e-30),
    "Adagrad": lambda model: nn.Adagrad(model, 1.0, eps=1e-30),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_reads_them_as_zeros_in_values_and_gradients_that_were_set(exact, pair, name):
    results = []
    for value, gradient in zip(pair((1, 10)), pair((1, 10), 0.0, *TINY), strict=True):
        layer = nn.Dense(10, 1, bias=False, backend=exact)
        weight = layer.parameters["weight"]
        weight.value, weight.grad = value, gradient
        optimizer = OPTIMIZERS[name](layer)
        x = exact.asarray(np.ones((2, 10), "float32"))
        y = layer(x)
        optimizer.step()
        nn.clip_grad_norm(layer, 1e-36)
        nn.clip_grad_value(layer, 1e-36)
        results.append((y, weight.value, weight.grad))
    for one, two in zip(*results, strict=True):
        same(exact, one, two)
