"""Frozen parameters: no gradient is computed or kept for them, and nothing that trains changes them."""

import copy
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.contractions.contractions import Contractions
from xpnn.layers import convolution
from xpnn.testing import assert_match, gradcheck
from xpnn.testing.compare import same_bits

F32 = np.float32
LAYERS = {
    "Dense": (lambda: nn.Dense(4, 3), (5, 4)),
    "Dense of sequences": (lambda: nn.Dense(4, 3), (2, 5, 4)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 5)),
    "Conv2d depthwise": (lambda: nn.Conv2d(3, 3, 3, groups=3), (2, 3, 5, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), (2, 2, 5, 5)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 5)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (4, 3, 5, 5)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5, 5)),
    "LayerNorm": (lambda: nn.LayerNorm(6), (4, 6)),
    "PReLU": (lambda: nn.PReLU(3), (4, 3, 5)),
}


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def gradients(model, dy, **options):
    get = model.backend.to_numpy
    model.zero_grad()
    dx = model.backward(dy, **options)
    found = {name: p.grad if p.grad is None else np.array(get(p.grad)) for name, p in model.named_parameters()}
    return found | {"dx": dx if dx is None else np.array(get(dx))}


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("name", LAYERS)
def test_only_the_gradients_of_others_are_computed_with_the_same_bits(at, rng, name, numerics):
    build, shape = LAYERS[name]
    check_choices(build().to(at.computing(numerics)), shape, rng)


@pytest.mark.parametrize("name", LAYERS)
def test_with_compiled_kernels_too(compiled_engine, rng, name):
    build, shape = LAYERS[name]
    check_choices(build().to("numpy"), shape, rng)


def check_choices(layer, shape, rng):
    b = layer.backend
    x = b.asarray(rng.standard_normal(shape).astype(F32))
    for mode in (True, False):
        layer.train(mode)
        layer.unfreeze()
        with nn.enable_grad():
            y = layer(x)
        dy = y * 0.5 + 1.0
        whole = gradients(layer, dy)
        names = list(layer.parameters)
        for frozen in ([], names, *([name] for name in names)):
            for name, parameter in layer.parameters.items():
                parameter.requires_grad = name not in frozen
            for options in ({}, {"input_grad": False}):
                found = gradients(layer, dy, **options)
                for name in names:
                    assert (found[name] is None) == (name in frozen)
                    assert name in frozen or same_bits(found[name], whole[name])
                # With constant statistics and nothing else to compute, the product of two numbers is computed alone.
                if not options and not mode and frozen:
                    assert_match(found["dx"], whole["dx"], level="network", terms=4)
                elif not options:
                    assert same_bits(found["dx"], whole["dx"])


@pytest.fixture
def products(monkeypatch):
    """Names of the products that are computed."""
    seen = []

    def count(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: seen.append(name) or original(*a, **k))

    for name in ("weight_gradient", "input_gradient", "forward"):
        count(convolution, name)
    for name in ("contract_rows", "product"):
        for owner in {Contractions, type(nn.backends.operations_of(np))}:
            if name in vars(owner) or owner is not Contractions:
                count(owner, name)
    return seen


@pytest.mark.usefixtures("array_functions")
def test_products_for_gradients_of_frozen_weights_are_not_computed(products, rng):
    def counted(layer, shape):
        y = layer(rng.standard_normal(shape).astype(F32))
        products.clear()
        layer.backward(y)
        return sorted(products)

    conv, transposed = nn.Conv2d(2, 3, 3, backend="numpy"), nn.ConvTranspose2d(2, 3, 3, backend="numpy")
    assert {"weight_gradient", "input_gradient"} <= set(counted(conv, (2, 2, 5, 5)))
    assert {"weight_gradient", "forward"} <= set(counted(transposed, (2, 2, 5, 5)))
    assert "weight_gradient" not in counted(conv.freeze(), (2, 2, 5, 5))
    assert "weight_gradient" not in counted(transposed.freeze(), (2, 2, 5, 5))
    dense = nn.Dense(4, 3, backend="numpy")
    assert "contract_rows" in counted(dense, (5, 4))
    assert counted(dense.freeze(), (5, 4)) == ["product"]


def transfer(b="numpy"):
    """A frozen part, a middle, of which nothing is frozen, a frozen part again, and a head."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1)),
        nn.ReLU(),
        nn.Conv2d(3, 3, 1),
        nn.Residual(nn.Conv2d(3, 3, 1), activation=nn.ReLU()),
        nn.Flatten(),
        nn.Dense(12, 2),
        backend=b,
        seed=1,
    )


def frozen(model):
    model[0].freeze()
    model[3].freeze()
    return model


def test_the_input_gradient_is_computed_only_where_an_earlier_layer_needs_it(monkeypatch, rng):
    model, seen = frozen(transfer()), []
    original = nn.Conv2d._backward
    monkeypatch.setattr(
        nn.Conv2d, "_backward", lambda self, dy, grad: seen.append((self, grad)) or original(self, dy, grad)
    )
    y = model(rng.standard_normal((2, 1, 4, 4)).astype(F32))
    whole = gradients(model, y)
    seen.clear()
    found = gradients(model, y, input_grad=False)
    assert seen == [(model[3].children["body"], True), (model[2], False)]
    for name in whole:
        assert (found[name] is None) if name[0] in "03d" else same_bits(found[name], whole[name])
    seen.clear()
    model.freeze()
    assert all(array is None for array in gradients(model, y, input_grad=False).values())
    assert not seen
    assert gradients(model, y)["dx"].shape == (2, 1, 4, 4)


def test_what_the_frozen_part_saved_is_freed_in_training_steps(rng):
    model = frozen(transfer())
    y = model(rng.standard_normal((2, 1, 4, 4)).astype(F32))
    with nn.released():
        model.backward(y, input_grad=False)
    assert all(layer.saved is None for _, layer in model.named_layers() if not isinstance(layer, nn.Container))


def test_gradients_are_those_of_finite_differences(rng):
    model = frozen(transfer()).to("numpy", "float64")
    for _, parameter in model.named_parameters():
        # With biases of 0 a ReLU of zeros is at its kink.
        parameter.value = parameter.value + rng.uniform(0.1, 0.2, parameter.shape)
    gradcheck(model, rng.standard_normal((2, 1, 4, 4)), tolerance=1e-5)


def test_freezing_drops_the_gradient_and_accepts_only_flags():
    layer = nn.Dense(2, 2)
    layer.backward(layer(np.ones((1, 2), F32)))
    weight, bias = layer.parameters.values()
    weight.requires_grad = False
    assert weight.grad is None and bias.grad is not None and not weight.requires_grad
    with raises(ValueError, "requires_grad must be True or False, got 1"):
        weight.requires_grad = 1
    assert nn.Parameter(np.ones(2, F32), requires_grad=False).requires_grad is False
    assert layer.freeze() is layer and not bias.requires_grad
    assert layer.unfreeze() is layer and weight.requires_grad
    model = nn.Sequential(layer, nn.Sequential(nn.Dense(2, 2))).freeze()
    assert not any(parameter.requires_grad for _, parameter in model.named_parameters())


def test_flags_stay_in_copies_pickles_moves_and_loads():
    model = nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2), seed=1)
    model[0].freeze()
    names = list(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("strict").to("numpy")):
        assert [p.requires_grad for _, p in other.named_parameters()] == [False, False, True, True]
        other.load_state_dict(nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2), seed=2).state_dict())
        assert [p.requires_grad for _, p in other.named_parameters()] == [False, False, True, True]
        assert list(other.state_dict()) == names


OPTIMIZERS = {
    "SGD": lambda p: nn.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda p: nn.Adam(p, lr=0.1, weight_decay=0.1),
    "AdamW": lambda p: nn.AdamW(p, lr=0.1, weight_decay=0.1),
    "RMSprop": lambda p: nn.RMSprop(p, lr=0.1, momentum=0.5, weight_decay=0.1),
    "Adagrad": lambda p: nn.Adagrad(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("kernels", ["arrays", "compiled_kernels"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_clipping_leave_a_frozen_parameter_and_its_state_alone(name, kernels, request):
    if kernels != "arrays":
        request.getfixturevalue(kernels)
    a, b = (nn.Parameter(np.float32([1.0, 2.0])) for _ in range(2))
    optimizer = OPTIMIZERS[name]([a, b])

    def step():
        a.grad, b.grad = np.float32([3.0, 4.0]), np.float32([0.5, -1.0])
        norm = float(nn.clip_grad_norm([a, b], 100.0))
        nn.clip_grad_value([a, b], 3.5)
        optimizer.step()
        return norm

    step()
    a.requires_grad = False
    before = a.value.copy(), {key: np.array(value) for key, value in a.states[optimizer].items()}
    for _ in range(2):
        assert step() == pytest.approx(1.25**0.5)
    assert a.grad.tolist() == [3.0, 4.0]
    assert same_bits(a.value, before[0])
    assert all(same_bits(np.array(value), before[1][key]) for key, value in a.states[optimizer].items())
    a.requires_grad = True
    step()
    assert not same_bits(a.value, before[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_and_thawing_are_those_of_pytorch(at, torch, rng, name):
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    ours = nn.Sequential(nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 3), backend=at.backend)
    ours.load_state_dict({key: array.detach().numpy() for key, array in theirs.state_dict().items()})
    kinds = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if name == "SGD" else {})
    optimizer, their_steps = getattr(nn, name)(ours, **kinds), getattr(torch.optim, name)(theirs.parameters(), **kinds)
    for i in range(6):
        requires = i not in (2, 3)
        (ours[0].unfreeze if requires else ours[0].freeze)()
        theirs[0].requires_grad_(requires)
        x = rng.standard_normal((5, 4)).astype(F32)
        optimizer.zero_grad()
        their_steps.zero_grad()
        theirs(torch.from_numpy(x)).square().sum().backward()
        y = ours(at.put(x))
        ours.backward(y * 2.0, input_grad=False)
        optimizer.step()
        their_steps.step()
    for key, array in theirs.state_dict().items():
        assert_match(ours.state_dict()[key], array.numpy(), level="network", terms=400, name=key)


def test_the_summary_says_how_many_are_trained():
    model = nn.Sequential(nn.Dense(4, 4), nn.ReLU(), nn.Dense(4, 2))
    summary = model.summary((1, 4))
    assert (summary.parameters, summary.trained_parameters) == (30, 30) and "frozen" not in str(summary)
    model[0].freeze()
    summary = model.summary((1, 4))
    assert (summary.parameters, summary.trained_parameters) == (30, 10)
    assert "10 of 30 parameters are trained, 20 are frozen" in str(summary)
    assert [row.frozen for row in summary.rows] == [20, 0, 0]


@pytest.mark.usefixtures("compiled_kernels")
def test_compiled_steps_with_kernels_notice_a_change(rng):
    check_compiled(nn.get_backend("numpy"), rng)


def test_compiled_steps_notice_a_change(at, rng):
    check_compiled(at.backend, rng, replays=at.backend.spec.partition(":")[0] in ("numpy", "cupy"))


def check_compiled(b, rng, replays=True):
    """Freeze, thaw, change the mode of a norm, and call within no_grad: each as without compiling."""
    batches, found = [rng.standard_normal((3, 1, 4, 4)).astype(F32) for _ in range(40)], []
    for is_compiled in (False, True):
        model = transfer(b)
        optimizer, loss = nn.SGD(model, lr=0.05, momentum=0.9, weight_decay=0.1), nn.MSE()

        def step(x, model=model, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            y = model(x)
            value = loss(y, y * 0.0)
            if nn.is_grad_enabled():
                model.backward(loss.backward(), input_grad=False)
                optimizer.step()
            return value

        run, values, replayed = b.compile(step, model, optimizer) if is_compiled else step, [], 0
        for i, x in enumerate(batches):
            if i == 8:
                frozen(model)
            if i == 16:
                model[0][1].eval()
            if i == 24:
                model.unfreeze()
            if i == 32:
                with nn.no_grad():
                    values += [b.to_numpy(run(b.asarray(x))).tobytes() for _ in range(5)]
            values.append(b.to_numpy(run(b.asarray(x))).tobytes())
            values += [b.to_numpy(array).tobytes() for array in model.state_dict().values()]
            values += [p.grad if p.grad is None else b.to_numpy(p.grad).tobytes() for _, p in model.named_parameters()]
            if i % 8 == 7 and is_compiled and replays:
                assert run.replayed > replayed, i
                replayed = run.replayed
        found.append(values)
    assert found[0] == found[1]


def test_a_layer_says_how_it_is_frozen():
    model = nn.Sequential(nn.Dense(2, 2))
    for act in (lambda: setattr(model, "requires_grad", False), lambda: model.requires_grad):
        with pytest.raises(AttributeError, match=r"Sequential has no requires_grad.*freeze\(\) and unfreeze\(\)"):
            act()
    assert not hasattr(model[0], "requires_grad")
