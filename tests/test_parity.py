"""The whole net, forward and backward, gives on every backend what it gives on NumPy, from one seed."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

NETS = {
    "lenet": (nn.models.lenet, (1, 8, 8)),
    "lenet5": (nn.models.lenet5, (3, 28, 28)),
    "mlp": (nn.models.mlp, (1, 8, 8)),
    "averages": (
        lambda image, classes, **placement: nn.Sequential(
            nn.Conv2d(image[0], 6, (3, 2), stride=(1, 2), padding="same"),
            nn.Tanh(),
            nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
            nn.Conv2d(6, 6, 3, padding=((0, 1), (2, 0)), dilation=(1, 2), groups=3),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Dense(6 * 9 * 3, classes),
            nn.Softmax(),
            **placement,
        ),
        (2, 9, 8),
    ),
}
# The longest sum behind a value: the weight gradient of the first convolution, over batch and pixels.
TERMS = 8 * 28 * 28


def run(net, backend, state=None):
    """Loss, logits, input gradient and all parameter gradients of one step; weights from a seed, or as given."""
    build, image = NETS[net]
    model = build(image, 10, backend=backend, seed=11)
    if state is not None:
        model.load_state_dict(state)
    b, loss = model.backend, nn.CrossEntropy()
    generator = nn.random.Generator(5)
    x = b.asarray(generator.uniform((8, *image), -1.0, 1.0, "float32", "numpy"), b.dtype)
    y = b.asarray(generator.permutation(8) % 10)
    logits = model(x)
    value = loss(logits, y)
    dx = model.backward(loss.backward())
    found = {"logits": logits, "loss": value, "dx": dx}
    return found | {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def reference():
    return {net: run(net, "numpy") for net in NETS}


@pytest.fixture(scope="module")
def wide():
    """The same step in float64 from the same float32 weights."""
    backend = nn.get_backend("numpy", "float64")
    states = {net: NETS[net][0](NETS[net][1], 10, backend="numpy", seed=11).state_dict() for net in NETS}
    return {net: run(net, backend, states[net]) for net in NETS}


@pytest.mark.parametrize("net", NETS)
def test_whole_net_matches_numpy(at, reference, net):
    found = run(net, at.backend)
    assert found.keys() == reference[net].keys()
    for name, array in found.items():
        desired = reference[net][name]
        assert_match(array, desired, level="network", terms=TERMS, backend=at.backend, name=f"{net} {name}")


@pytest.mark.parametrize("net", NETS)
def test_whole_net_matches_float64(at, wide, net):
    """Backends that agree could agree on a mistake of rounding; this one they would not share."""
    for name, array in run(net, at.backend).items():
        desired = wide[net][name]
        assert_match(array, desired, level="network", terms=TERMS, dtype="float32", name=f"{net} {name}")


@pytest.mark.parametrize("net", NETS)
def test_same_seed_gives_the_same_initial_bits(at, net):
    build, image = NETS[net]
    here, there = build(image, 10, backend=at.backend, seed=3), build(image, 10, backend="numpy", seed=3)
    for name, array in here.state_dict().items():
        assert_match(array, there.state_dict()[name], level="exact", backend=at.backend, name=name)


@pytest.mark.parametrize("net", NETS)
def test_backward_is_the_derivative(net):
    build, _ = NETS[net]
    image = (2, 9, 8) if net == "averages" else (1, 12, 12) if net == "lenet5" else (1, 4, 4)
    model = build(image, 3, backend=nn.get_backend("numpy", "float64"), seed=2)
    small = {name: p for name, p in model.named_parameters() if p.value.size <= 400}
    x = np.random.default_rng(0).standard_normal((2, *image))
    weights = np.random.default_rng(1).standard_normal((2, 3))
    model(x)
    model.backward(weights)
    for parameter in small.values():
        direction = np.random.default_rng(2).standard_normal(parameter.shape)
        original, step = parameter.value, 1e-6
        values = []
        for sign in (1, -1):
            parameter.value = original + sign * step * direction
            values.append(float(np.sum(weights * model(x))))
        parameter.value = original
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(
            float(np.sum(parameter.grad * direction)), rel=1e-5
        )


def test_models_of_images_too_small_are_refused():
    with pytest.raises(ValueError, match="at least 4 x 4"):
        nn.models.lenet((1, 3, 9), 10)
    with pytest.raises(ValueError, match="at least 12 x 12"):
        nn.models.lenet5((1, 11, 28), 10)
