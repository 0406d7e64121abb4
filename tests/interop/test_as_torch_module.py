"""Models as modules of PyTorch: `as_torch_module`."""

import copy
import pickle

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


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_memory_and_names_are_shared(torch, backend):
    model = net(backend=backend)
    module = nn.as_torch_module(model)
    assert list(module.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        dict(module.named_parameters())["4.bias"][1] = 5.0
    assert float(model[4].parameters["bias"].value[1]) == 5.0


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_it_trains_as_the_net_of_pytorchs_own_modules(torch, backend):
    model = net(backend=backend)
    ours, theirs = nn.as_torch_module(model), nn.to_torch(net())
    before, after = torch.nn.Linear(16, 16), torch.nn.Linear(3, 3)
    nets = []
    for inner in (ours, theirs):
        parts = [before, torch.nn.Unflatten(1, (1, 4, 4)), inner, after]
        parts = [parts[0] if inner is ours else copy.deepcopy(before), *parts[1:]]
        nets.append(torch.nn.Sequential(*parts[:3], copy.deepcopy(after)))
    optimizers = [torch.optim.SGD(each.parameters(), 0.1, momentum=0.9) for each in nets]
    for step in range(4):
        torch.manual_seed(step)
        x, t = torch.randn(8, 16), torch.randint(0, 3, (8,))
        losses = []
        for each, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(each(x), t)
            loss.backward()
            optimizer.step()
            losses.append(loss)
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    for (name, a), (_, b) in zip(nets[0].state_dict().items(), nets[1].state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3, msg=name)
    x = torch.randn(5, 1, 4, 4)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-2, atol=1e-2)
    assert not model.training


def test_gradcheck(torch):
    model = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Dense(12, 2), dtype="float64", backend="numpy", seed=0
    )
    module = nn.as_torch_module(model)
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *p: module(x), (x, *module.parameters()))


def test_gradients_accumulate_and_the_models_own_stay(torch):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    module = nn.as_torch_module(model)
    x = torch.randn(4, 3)
    module(x).sum().backward()
    first = module.weight.grad.clone()
    module(x).sum().backward()
    torch.testing.assert_close(module.weight.grad, 2 * first)
    assert model.parameters["weight"].grad is None


def test_frozen_parameters_and_inputs_without_gradient(torch):
    module = nn.as_torch_module(nn.Dense(3, 2, backend="numpy", seed=0))
    module.weight.requires_grad_(False)
    x = torch.randn(4, 3, requires_grad=True)
    module(x).sum().backward()
    assert module.weight.grad is None and module.bias.grad.shape == (2,) and x.grad.shape == (4, 3)
    with torch.no_grad():
        assert not module(x).requires_grad
    module.requires_grad_(False)
    assert not module(torch.randn(4, 3)).requires_grad


def test_evaluation_with_gradients(torch):
    model = net().eval()
    module = nn.as_torch_module(model)
    assert not module.training
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    module(x).sum().backward()
    reference = nn.to_torch(model)
    y = x.detach().clone().requires_grad_()
    reference(y).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_calls_before_backward_keep_what_they_saved(torch, training):
    inner = [nn.Dense(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Residual(nn.Dense(8, 8)), nn.Dense(8, 4), nn.Tanh()]
    model = nn.Sequential(*inner, backend="numpy", seed=0).train(training)
    module, reference = nn.as_torch_module(model), nn.to_torch(model)
    x = torch.randn(6, 4)
    results = []
    for each in (module, reference):
        y = x.clone().requires_grad_()
        first = each(y)
        (each(each(first)).sum() + 3.0 * first.square().sum()).backward()
        results.append({"x": y.grad} | {name: parameter.grad for name, parameter in each.named_parameters()})
    for name, gradient in results[1].items():
        torch.testing.assert_close(results[0][name], gradient, rtol=1e-3, atol=1e-4)


def test_a_second_call_of_a_layer_in_several_places_is_refused(torch):
    shared = nn.Dense(3, 3)
    module = nn.as_torch_module(nn.Sequential(shared, nn.Tanh(), shared, backend="numpy"))
    y = module(module(torch.randn(2, 3)))
    with pytest.raises(RuntimeError, match="called again before this backward"):
        y.sum().backward()


def test_a_second_derivative_is_refused(torch):
    module = nn.as_torch_module(nn.Sequential(nn.Dense(3, 3), nn.Tanh(), backend="numpy"))
    x = torch.randn(2, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        dx.sum().backward()


def test_buffers_are_those_of_the_model(torch):
    model = net()
    module = nn.as_torch_module(model)
    module(torch.randn(8, 1, 4, 4))
    found = module.state_dict()["1.running_mean"]
    assert np.array_equal(found.numpy(), model[1].buffers["running_mean"]) and float(abs(found).sum()) > 0
    assert int(module.state_dict()["1.num_batches_tracked"]) == 1


def test_loading_a_state(torch):
    module, other = nn.as_torch_module(net()), nn.to_torch(net(seed=1))
    other(torch.randn(8, 1, 4, 4))
    x = torch.randn(2, 1, 4, 4)
    module.eval()(x)
    module.load_state_dict(other.state_dict())
    torch.testing.assert_close(module(x), other.eval()(x), rtol=1e-4, atol=1e-5)
    assert np.array_equal(module.model[1].buffers["running_mean"], other.state_dict()["1.running_mean"].numpy())
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})


def test_both_sides_may_change_the_weights(torch):
    model = nn.Dense(3, 2, backend="numpy", seed=0)
    module = nn.as_torch_module(model)
    x = torch.randn(4, 3)
    model.parameters["weight"].value = np.ones((2, 3), np.float32)
    torch.testing.assert_close(module(x), x.sum(1, keepdim=True).repeat(1, 2))
    torch.testing.assert_close(module.weight.detach(), torch.ones(2, 3))
    model(x.numpy())
    model.backward(np.ones((4, 2), np.float32))
    nn.SGD(model, lr=0.5).step()
    torch.testing.assert_close(module(x), torch.from_numpy(model(x.numpy())))
    module.eval()
    with torch.no_grad():
        module.weight.mul_(2.0)
        torch.testing.assert_close(module(x), x @ module.weight.T + module.bias)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_have_a_model_of_their_own(torch, how):
    module = nn.as_torch_module(net()).eval()
    other = how(module)
    assert not other.training
    with torch.no_grad():
        next(iter(other.parameters())).zero_()
    assert float(abs(module.model[0].parameters["weight"].value).sum()) > 0.0
    assert float(abs(other.model[0].parameters["weight"].value).sum()) == 0.0


def test_tied_weights_are_one_parameter(torch):
    shared = nn.Dense(3, 3)
    module = nn.as_torch_module(nn.Sequential(shared, nn.Tanh(), shared, backend="numpy"))
    assert len(list(module.parameters())) == 2
    x = torch.randn(2, 3, requires_grad=True)
    module(x).sum().backward()
    assert module.get_parameter("0.weight") is module.get_parameter("2.weight")


def test_several_inputs(torch):
    model = nn.Graph({"sum": (nn.Add(), ("a", "b"))}, inputs=("a", "b"), backend="numpy")
    a, b = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    module = nn.as_torch_module(model)
    module(a, b).sum().backward()
    assert a.grad.tolist() == b.grad.tolist() == torch.ones(2, 3).tolist()


def test_exact_numerics_have_the_same_bits(torch):
    model = net(numerics="exact")
    x = torch.randn(4, 1, 4, 4)
    y = nn.as_torch_module(copy.deepcopy(model))(x)
    y.sum().backward()
    assert np.array_equal(y.detach().numpy(), model(model.backend.asarray(x.numpy())))


@pytest.mark.parametrize("move", ["double", "half", lambda module: module.to("meta")])
def test_a_move_is_refused(torch, move):
    module = nn.as_torch_module(net())
    with pytest.raises(RuntimeError, match="move the model before"):
        getattr(module, move)() if isinstance(move, str) else move(module)
    module.float().cpu().to("cpu", torch.float32)
    assert module(torch.randn(2, 1, 4, 4)).shape == (2, 3)


def test_wrong_inputs_are_named(torch):
    module = nn.as_torch_module(nn.Dense(3, 2, backend="numpy"))
    with pytest.raises(TypeError, match="input 1 must be a tensor, got list"):
        module([1.0])
    with pytest.raises(TypeError, match="float64"):
        module(torch.randn(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="Dense"):
        module(torch.randn(2, 4))
    with pytest.raises(TypeError, match="model must be a Layer"):
        nn.as_torch_module(torch.nn.Linear(2, 2))
