"""Weights of torchvision's nets load by name, and give the logits and gradients of these nets."""

from math import prod

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

# As published with the weights.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg16_bn": 138_365_992,
    "mobilenet_v2": 3_504_872,
}


def build(name, classes=1000, **placement):
    return getattr(nn.models.torchvision, name)(classes, **placement)


@pytest.fixture
def nets(torch):
    torchvision_nets = pytest.importorskip("torchvision_nets")
    return torchvision_nets.BUILDERS


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name):
    parameters = [parameter for _, parameter in build(name).named_parameters()]
    assert sum(prod(parameter.shape) for parameter in parameters) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_and_shapes_are_torchvisions(torch, nets, name):
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in nets[name](1000).state_dict().items()}
    ours = {}
    for path, layer in build(name).named_layers():
        ours |= {f"{path}.{key}": parameter.shape for key, parameter in layer.parameters.items()}
        ours |= {f"{path}.{key}": layer.buffers.shape(key) for key in layer.buffers}
    assert ours == theirs


COMPUTED = ("resnet18", "resnet50", "mobilenet_v2")


@pytest.mark.parametrize("name", COMPUTED)
def test_logits_and_gradients_of_loaded_weights(torch, nets, rng, name, tmp_path):
    torch.manual_seed(0)
    theirs = nets[name](7)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = build(name, 7, backend="numpy", dtype="float64", seed=1)
    assert nn.load(ours, tmp_path / "weights.pth").missing_keys == []
    theirs = theirs.double()
    x = rng.standard_normal((2, 3, 33, 32))
    tx = torch.from_numpy(x).requires_grad_()
    y, wanted = ours.eval()(x), theirs.eval()(tx).detach().numpy()
    assert np.linalg.norm(y - wanted) <= 1e-8 * np.linalg.norm(wanted)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for _, layer in ours.named_layers():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    logits, wanted = ours.train()(x), theirs.train()(tx)
    assert np.linalg.norm(logits - wanted.detach().numpy()) <= 1e-8 * np.linalg.norm(wanted.detach().numpy())
    dy = rng.standard_normal(logits.shape)
    wanted.backward(torch.from_numpy(dy))
    found = {"dx": ours.backward(dy), **{key: parameter.grad for key, parameter in ours.named_parameters()}}
    expected = {"dx": tx.grad, **{key: parameter.grad for key, parameter in theirs.named_parameters()}}
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        wanted = expected[key].numpy()
        # Far above rounding, which batch norms of few values magnify, and far below a mistake. The gradient of a bias
        # before a norm is 0 up to rounding.
        assert np.linalg.norm(gradient - wanted) <= 1e-8 * (np.linalg.norm(wanted) + 0.1), key


def test_vgg_16_is_built_in_torchvisions_order(torch, nets, rng):
    ours = build("vgg16_bn", 7, backend="numpy", dtype="float32", seed=1)
    assert list(ours.children) == ["features", "avgpool", "flatten", "classifier"]
    kinds = [type(layer).__name__ for layer in ours["classifier"]]
    assert kinds == ["Dense", "ReLU", "Dropout", "Dense", "ReLU", "Dropout", "Dense"]
    assert ours.output_shape((3, 3, 32, 47)) == (3, 7)
    theirs = nets["vgg16_bn"](1).features.eval()
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    ours["features"].load_state_dict(state)
    x = rng.standard_normal((1, 3, 33, 40)).astype(np.float32)
    wanted = theirs(torch.from_numpy(x)).detach()
    assert_match(ours["features"].eval()(x), wanted, level="network", terms=4608 * 13, name="features")
    with pytest.raises(ValueError, match="MaxPool2d"):
        ours.output_shape((3, 3, 31, 31))


def test_backends_reach_every_layer(at):
    model = build("resnet18", 3, backend=at.backend)
    assert {layer.backend for _, layer in model.named_layers()} == {at.backend}


def test_seeds_reach_every_layer():
    first, again, other = (dict(build("resnet18", 3, seed=seed).named_parameters()) for seed in (4, 4, 5))
    for name, parameter in first.items():
        assert np.array_equal(parameter.value, again[name].value)
        if parameter.value.ndim > 1:
            assert not np.array_equal(parameter.value, other[name].value), name
    one, two = (first[f"layer1.{i}.conv1.weight"].value for i in range(2))
    assert not np.array_equal(one, two)


def test_number_of_classes_is_checked():
    with pytest.raises(ValueError, match="num_classes must be an integer >= 1, got 0"):
        build("resnet18", 0)
