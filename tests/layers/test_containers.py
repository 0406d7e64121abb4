"""Sequential, and the state of models by name."""

import re
from contextlib import suppress

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match, gradcheck


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def build(**placement):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same", stride=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Sequential(nn.Dense(16, 5), nn.Tanh()),
        nn.Dense(5, 3, bias=False),
        **placement,
    )


NAMES = ["0.weight", "0.bias", "4.0.weight", "4.0.bias", "5.weight"]


def images(rng):
    return rng.standard_normal((3, 2, 4, 5)).astype(np.float32)


def test_sequential_is_its_layers_one_after_the_other(at, rng):
    model = build(backend=at.backend, seed=1)
    x = y = at.put(images(rng))
    for layer in model:
        y = layer(y)
    assert_match(model(x), y, level="exact", backend=at.backend)
    dx = dy = y * 0.0 + 1.0
    for layer in reversed(list(model)):
        dx = layer.backward(dx)
    assert_match(model.backward(dy), dx, level="exact", backend=at.backend)


def test_backward_of_a_net_is_the_derivative_of_its_forward(rng):
    gradcheck(build(dtype="float64", seed=4), rng.standard_normal((1, 2, 4, 5)))


def test_sequential_matches_pytorch_with_the_weights_of_its_state_dict(torch, at, rng):
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, groups=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Sequential(torch.nn.Linear(16, 5), torch.nn.Tanh()),
        torch.nn.Linear(5, 3, bias=False),
    )
    ours = build(backend=at.backend)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x, dy = images(rng), rng.standard_normal((3, 3)).astype(np.float32)
    tx = torch.tensor(x, requires_grad=True)
    ty = theirs(tx)
    ty.backward(torch.tensor(dy))
    assert_match(ours(at.put(x)), ty.detach().numpy(), level="network", terms=18, backend=at.backend)
    assert_match(ours.backward(at.put(dy)), tx.grad.numpy(), level="network", terms=36, backend=at.backend)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        desired = gradients[name].grad.numpy()
        assert_match(parameter.grad, desired, level="network", terms=60, backend=at.backend, name=name)


def test_without_input_gradient_the_parameters_get_the_same_gradients(at, rng):
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), build()[-1], nn.Tanh(), backend=at.backend, seed=1)
    x = at.put(rng.standard_normal((2, 5)), "float32")
    dy = model(x) * 0.0 + 1.0
    model.backward(dy)
    whole = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    assert model.backward(dy, input_grad=False) is None
    for name, parameter in model.named_parameters():
        assert_match(parameter.grad, whole[name], level="exact", backend=at.backend)


def test_without_input_gradient_layers_before_the_first_trained_one_compute_nothing(monkeypatch):
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Dense(2, 2), nn.Tanh())
    dy = model(np.ones((1, 2), np.float32))
    calls = []
    monkeypatch.setattr(nn.ReLU, "backward", lambda self, dy, **_: calls.append(self) or dy)
    model.backward(dy, input_grad=False)
    assert not calls
    model.backward(dy)
    assert len(calls) == 1


def test_without_input_gradient_a_nested_first_layer_skips_it_too(rng):
    model = nn.Sequential(nn.Sequential(nn.ReLU(), nn.Dense(2, 2)), nn.Tanh())
    dy = model(np.ones((1, 2), np.float32))
    assert model.backward(dy, input_grad=False) is None
    assert model[0][1].parameters["weight"].grad is not None


def test_sequential_without_parameters_or_without_layers():
    x = np.ones((1, 2), np.float32)
    for model in (nn.Sequential(nn.ReLU()), nn.Sequential()):
        assert_match(model(x), x, level="exact")
        assert_match(model.backward(x), x, level="exact")
        assert model.backward(x, input_grad=False) is None


def test_sequential_is_a_sequence_of_its_layers():
    layers = [nn.Dense(2, 2), nn.ReLU(), nn.Dense(2, 1)]
    model = nn.Sequential(*layers)
    assert len(model) == 3
    assert list(model) == model.layers == layers
    assert model[1] is layers[1]
    assert model[-1] is layers[2]
    assert model[:2].layers == layers[:2]


def test_mode_and_zero_grad_apply_to_every_layer(rng):
    model = build()
    x = images(rng)
    model.backward(model(x))
    model.zero_grad()
    assert all(p.grad is None for _, p in model.named_parameters())
    assert model.eval() is model
    assert not any(layer.training for _, layer in model.named_layers())
    y = model(x)
    with raises(RuntimeError, "backward needs a forward before it, in training mode"):
        model.backward(y)
    model.train()
    assert all(layer.training for _, layer in model.named_layers())


def test_error_names_the_layer_in_which_it_arose():
    model = nn.Sequential(nn.Sequential(nn.Dense(4, 3)), nn.Dense(4, 2))
    with raises(ValueError, "Dense(4, 2): input must have shape (N, ..., 4), got (1, 3)"):
        model(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("child", [nn.ReLU, np.tanh, None, "ReLU"])
def test_a_child_that_is_not_a_layer_is_an_error_that_names_it(child):
    with raises(TypeError, "Sequential: '1' must be a Layer, got "):
        nn.Sequential(nn.ReLU(), child)


def test_names_of_parameters_are_those_of_pytorch():
    model = build()
    assert [name for name, _ in model.named_parameters()] == list(model.state_dict()) == NAMES
    assert [name for name, _ in model.named_layers()] == ["", "0", "1", "2", "3", "4", "4.0", "4.1", "5"]


def test_state_of_one_model_loads_into_another_on_another_backend(at):
    source, target = build(seed=1), build(seed=2, backend=at.backend)
    target.load_state_dict(source.state_dict())
    for name, value in target.state_dict().items():
        assert_match(value, source.state_dict()[name], level="exact", backend=at.backend, name=name)
    back = build(seed=3)
    back.load_state_dict(target.state_dict())
    assert_match(back.state_dict()["5.weight"], source.state_dict()["5.weight"], level="exact", backend="numpy")


def test_loaded_arrays_are_copies_in_the_dtype_of_the_model(at):
    state = {"weight": at.put([[1.0, 2.0]], "float64"), "bias": at.put([3.0], "float64")}
    layer = nn.Dense(2, 1, backend=at.backend)
    layer.load_state_dict(state)
    assert_match(layer.parameters["weight"].value, [[1, 2]], level="exact", backend=at.backend, dtype="float32")
    wide = nn.Dense(2, 1, backend=at.backend, dtype="float64")
    wide.load_state_dict(state)
    wide.parameters["weight"].value[...] = -1.0
    assert at.get(state["weight"]).tolist() == [[1, 2]]


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_loading_integers_converts_or_refuses_them_but_changes_no_dtype(at, dtype):
    layer = nn.Dense(2, 1, backend=at.backend)
    with suppress(TypeError, ValueError):
        layer.load_state_dict({"weight": np.ones((1, 2), dtype), "bias": np.ones(1, dtype)})
    for name, parameter in layer.named_parameters():
        assert_match(parameter.value, at.get(parameter.value), backend=at.backend, dtype="float32", name=name)


def test_loading_lists_every_problem_and_replaces_nothing():
    model = nn.Sequential(nn.Dense(2, 3), nn.Dense(3, 1), seed=1)
    before = {name: value.copy() for name, value in model.state_dict().items()}
    state = {name: np.zeros_like(value) for name, value in before.items()}
    del state["0.bias"]
    state["1.weight"] = np.zeros((3, 1), np.float32)
    state["2.weight"] = np.zeros(1, np.float32)
    message = "Sequential.load_state_dict: missing 0.bias; unknown 2.weight; 1.weight has shape (3, 1), expected (1, 3)"
    with raises(ValueError, message):
        model.load_state_dict(state)
    for name, value in model.state_dict().items():
        assert_match(value, before[name], level="exact")


def test_loading_before_first_use_draws_no_weights(monkeypatch):
    layer = nn.Dense(2, 1)
    monkeypatch.setattr(type(layer), "generator", property(lambda self: pytest.fail("weights were drawn")))
    layer.load_state_dict({"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)})
    assert layer(np.ones((1, 2), np.float32)).tolist() == [[2]]


def test_a_slice_keeps_names_weights_and_modes_as_in_pytorch(torch):
    model, theirs = (
        m.Sequential(linear(4, 3), m.ReLU(), linear(3, 2))
        for m, linear in ((nn, nn.Dense), (torch.nn, torch.nn.Linear))
    )
    for which in (slice(1, None), slice(-1, None), slice(None, None, 2), slice(5, None), slice(None, None, -1)):
        part = model[which]
        assert list(part.state_dict()) == list(theirs[which].state_dict()), which
        assert part.layers == model.layers[which]
        assert eval(repr(part), vars(nn)).state_dict().keys() == part.state_dict().keys()
    assert [name for name, _ in model.named_layers()] == ["", "0", "1", "2"]
    assert model[1:].state_dict()["2.weight"] is model.state_dict()["2.weight"]
    model[1:].eval()
    assert [layer.training for layer in model] == [True, False, False]


def test_backward_through_a_slice_is_that_of_its_layers(rng):
    model, x = nn.Sequential(nn.Dense(4, 3), nn.Tanh(), nn.Dense(3, 2), seed=1), rng.standard_normal((2, 4))
    x = x.astype(np.float32)
    y = model[1:](model[:1](x))
    dx = model[:1].backward(model[1:].backward(y))
    model.zero_grad()
    assert_match(y, model(x), level="exact")
    assert_match(dx, model.backward(y), level="exact")


def test_an_unknown_layer_is_an_error_that_lists_the_layers():
    model = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    with pytest.raises(KeyError, match="Sequential has no layer 'c', only a, b"):
        model["c"]
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"index {index} is out of range for a Sequential of 2 layers"):
            model[index]
