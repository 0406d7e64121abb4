"""Memory that a model and its module of PyTorch share, when either side changes it: `as_torch_module`."""

import copy

import numpy as np
import pytest

import xpnn as nn


def net(**placement):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dense(64, 3),
        **{"backend": "numpy", "seed": 0, **placement},
    )


@pytest.mark.parametrize(("last", "keeps"), [(nn.Tanh, True), (nn.ReLU, True), (None, False), (nn.BatchNorm1d, False)])
def test_a_change_of_the_output_in_place_is_refused_where_a_layer_keeps_it(torch, last, keeps):
    layers = [nn.Dense(3, 4), *([] if last is None else [last(4) if last is nn.BatchNorm1d else last()])]
    module = nn.as_torch_module(nn.Sequential(*layers, backend="numpy", seed=0))
    x, gradients = torch.randn(6, 3), []
    for inplace in (False, True):
        module.zero_grad()
        y = module(x)
        loss = (y.mul_(0.5) if inplace else y * 0.5).square().sum()
        if inplace and keeps:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
            return
        loss.backward()
        gradients.append(module.get_parameter("0.weight").grad.clone())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("which", ["input", "weight"])
def test_a_change_in_place_before_backward_is_refused(torch, which):
    module = nn.as_torch_module(nn.Dense(3, 2, backend="numpy", seed=0))
    x = torch.randn(4, 3)
    y = module(x)
    with torch.no_grad():
        (x if which == "input" else module.weight).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_weights_that_the_model_replaces_before_backward_are_refused(torch):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    module = nn.as_torch_module(model)
    y = module(torch.randn(4, 3, requires_grad=True))
    model.parameters["weight"].value = np.zeros((2, 3), np.float32)
    with pytest.raises(RuntimeError, match="weight was set to another array since the forward"):
        y.sum().backward()


@pytest.mark.parametrize("other", ["the model itself", "a second module"])
def test_calls_of_the_model_elsewhere_leave_backward_right(torch, other):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    module, second = nn.as_torch_module(model), nn.as_torch_module(model)
    x = torch.randn(4, 3)
    y = module(x)
    _ = second(torch.zeros(4, 3)) if other == "a second module" else model(np.zeros((4, 3), np.float32))
    y.sum().backward()
    torch.testing.assert_close(module.weight.grad, x.sum(0).repeat(2, 1))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_tensors_that_pytorch_sets_reach_the_model(torch, numerics):
    model = nn.Dense(3, 2, backend="numpy", seed=0, numerics=numerics)
    module = nn.as_torch_module(model)
    x = torch.randn(4, 3)
    torch.nn.utils.vector_to_parameters(torch.ones(8), module.parameters())
    torch.testing.assert_close(module(x), x.sum(1, keepdim=True).repeat(1, 2) + 1.0)
    with torch.no_grad():
        module.bias.zero_()
    torch.testing.assert_close(module(x), x.sum(1, keepdim=True).repeat(1, 2))
    assert not model.parameters["bias"].value.any()
    module.weight.data = torch.ones(5, 3)
    with pytest.raises(RuntimeError, match=r"weight was set to a tensor of shape \(5, 3\).*has shape \(2, 3\)"):
        module(x)


def test_arrays_that_both_sides_set_are_refused(torch):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    module = nn.as_torch_module(model)
    module.weight.data = torch.ones(2, 3)
    model.parameters["weight"].value = np.zeros((2, 3), np.float32)
    with pytest.raises(RuntimeError, match="both set weight"):
        module(torch.randn(4, 3))


def test_a_replaced_parameter_is_refused_and_left_alone(torch):
    module = nn.as_torch_module(nn.Dense(3, 2, backend="numpy", seed=0))
    given = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    with pytest.raises(RuntimeError, match="weight was replaced by another tensor"):
        torch.func.functional_call(module, given, (torch.randn(4, 3),))
    assert torch.equal(given["weight"], torch.ones(2, 3))
    module(torch.randn(4, 3))
    module.weight = torch.nn.Parameter(torch.ones(2, 3))
    with pytest.raises(RuntimeError, match="weight was replaced by another tensor"):
        module(torch.randn(4, 3))


def test_values_that_can_not_be_written_to_are_trained(torch):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    value = np.ones((2, 3), np.float32)
    value.flags.writeable = False
    model.parameters["weight"].value = value
    module = nn.as_torch_module(model)
    module(torch.ones(4, 3)).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()
    module(torch.ones(4, 3))
    assert np.allclose(model.parameters["weight"].value, 0.6) and value.all()


def test_the_state_is_the_models_before_the_next_call(torch):
    model, other = net(), net(seed=1)
    other(np.random.default_rng(0).standard_normal((8, 1, 4, 4)).astype(np.float32))
    parent = torch.nn.Sequential(nn.as_torch_module(model))
    model.load_state_dict(other.state_dict())
    for name, value in parent.state_dict().items():
        assert np.array_equal(value.numpy(), other.state_dict()[name.removeprefix("0.")])
    model[4].parameters["bias"].value = np.zeros(3, np.float32)
    parent.load_state_dict({name: torch.ones_like(value) for name, value in parent.state_dict().items()})
    assert model[4].parameters["bias"].value.tolist() == parent[0].get_parameter("4.bias").tolist() == [1.0] * 3


def test_a_copy_stays_frozen_and_no_grad_saves_nothing(torch):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    module = nn.as_torch_module(model)
    module.weight.requires_grad_(False)
    assert not copy.deepcopy(module).weight.requires_grad
    with torch.no_grad():
        module(torch.randn(4, 3))
    assert model.saved is None
