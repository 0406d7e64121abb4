"""`first_difference` names the first layer and array in which two copies of a model differ."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import first_difference


def net(backend="numpy", **options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Dense(4 * 25, 3),
        backend=backend,
        seed=3,
        **options,
    )


@pytest.fixture
def data(rng):
    return rng.standard_normal((4, 2, 5, 5)).astype("float32"), rng.standard_normal((4, 3)).astype("float32")


def test_two_copies_on_one_backend_do_not_differ(at, data):
    assert first_difference(net(at.backend), net(at.backend), *data) is None


def test_copies_on_two_backends_differ_by_a_few_ulps(at, data):
    assert first_difference(net(at.backend), net("numpy"), *data, ulps=64) is None


@pytest.mark.parametrize(
    ("layer", "parameter", "what"),
    [
        ("0", "weight", "output"),
        ("3.body.0", "bias", "output"),
        ("6", "weight", "output"),
        ("1", "weight", "output"),
    ],
)
def test_another_weight_is_found_where_it_is_first_used(at, data, layer, parameter, what):
    one, other = net(at.backend), net("numpy")
    held = dict(other.named_parameters())[f"{layer}.{parameter}"]
    held.value = held.value + np.float32(0.01)
    found = first_difference(one, other, *data, ulps=64)
    assert (found.layer, found.what) == (layer, what)
    assert found.ulps > 64 and found.a != found.b and f"layer {layer}, " in str(found)
    assert found.call == repr(dict(one.named_layers())[layer])


def test_a_wrong_gradient_is_distinguished_from_a_wrong_output(data):
    class Forgetful(nn.Dense):
        def _backward(self, dy, input_grad):
            dx = super()._backward(dy, input_grad)
            self.parameters["bias"].grad = self.parameters["bias"].grad * np.float32(0.5)
            return dx

        def __repr__(self):
            return super().__repr__().replace("Forgetful", "Dense")

    def build(last):
        return nn.Sequential(nn.Dense(7, 5), nn.Tanh(), last(5, 3), seed=1)

    x, dy = np.ones((2, 7), np.float32), np.ones((2, 3), np.float32)
    found = first_difference(build(nn.Dense), build(Forgetful), x, dy)
    assert (found.layer, found.what, found.index) == ("2", "gradient of bias", (0,))


def test_one_ulp_is_a_difference_unless_it_is_allowed():
    one, other = nn.Dense(1, 1), nn.Dense(1, 1)
    value = other.parameters["weight"].value
    other.parameters["weight"].value = np.nextafter(value, np.float32(9))
    assert first_difference(one, other, [[1.0]]).ulps == 1.0
    assert first_difference(one, other, [[1.0]], ulps=1) is None


def test_another_dtype_or_nan_is_infinitely_far():
    one, other = nn.Dense(2, 2, dtype="float32"), nn.Dense(2, 2, dtype="float64")
    found = first_difference(one, other, np.ones((1, 2)))
    assert found.ulps == float("inf") and (found.a, found.b) == ("float32 (1, 2)", "float64 (1, 2)")
    broken = nn.Dense(2, 2)
    broken.parameters["bias"].value = np.float32([0.0, np.nan])
    assert first_difference(one, broken, np.ones((1, 2))).ulps == float("inf")


def test_models_are_unchanged(at, data):
    one, other = net(at.backend), net(at.backend)
    for model in (one, other):
        model(at.put(data[0]))
        model.backward(at.put(data[1]))
    before = {name: at.get(array).copy() for name, array in one.state_dict().items()}
    gradients = {name: at.get(parameter.grad).copy() for name, parameter in one.named_parameters()}
    position = one[4].stream.position
    first_difference(one, other, *data)
    assert all(np.array_equal(at.get(array), before[name]) for name, array in one.state_dict().items())
    assert all(np.array_equal(at.get(p.grad), gradients[name]) for name, p in one.named_parameters())
    assert one[4].stream.position == position and one.training
    assert not any({"forward", "backward"} & vars(layer).keys() for _, layer in one.named_layers())


def test_models_are_unchanged_after_an_error(data):
    one = net()
    with pytest.raises(ValueError, match="3 channels, expected 2"):
        first_difference(one, net(), np.ones((4, 3, 5, 5)))
    assert not any("forward" in vars(layer) for _, layer in one.named_layers())


def test_evaluation_compares_only_outputs(data):
    one, other = net().eval(), net().eval()
    assert first_difference(one, other, *data) is None


def test_other_models_are_refused():
    with pytest.raises(ValueError, match=r"must have the same layers, got .*ReLU.*Tanh"):
        first_difference(nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh()), [[1.0]])
    with pytest.raises(ValueError, match="must have the same layers"):
        first_difference(nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.Tanh()), [[1.0]])
