"""What is kept for backward follows enable_grad and no_grad, and without them the modes of layers."""

import re
import threading
import tracemalloc
from math import prod

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.grad_mode import grad_mode
from xpnn.testing import assert_match, gradcheck
from xpnn.testing.cases import LayerCase, cases
from xpnn.testing.compare import same_bits

F32 = np.float32
# Of layers; nets fold batch norms.
CASES = [case for case in cases() if type(case) is LayerCase and case.layout == "plain" and prod(case.shape) < 3000]
ONE_EACH = list({case.subject: case for case in reversed(CASES)}.values())
# Layers that compute something else in training.
BY_MODE = ("BatchNorm", "InstanceNorm", "Dropout")


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def net(backend="numpy", **placement):
    """A net with all that evaluation does differently: folded and fused layers, dropout, pools, checkpoints."""
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Residual(nn.Sequential(block, nn.BatchNorm2d(4)), activation=nn.ReLU()),
        nn.Parallel(
            nn.AvgPool2d(3, 1, 1), nn.Sequential(nn.Conv2d(4, 2, 1, bias=False), nn.InstanceNorm2d(2, affine=True))
        ),
        nn.Checkpointed(nn.Sequential(nn.Conv2d(6, 3, 1), nn.BatchNorm2d(3), nn.Tanh(), nn.Dropout(0.3))),
        nn.Flatten(),
        nn.Dense(27, 5),
        nn.BatchNorm1d(5),
        backend=backend,
        seed=2,
        **placement,
    )


def used(model, b, rng):
    """The model with running statistics that are not the initial ones."""
    for _, layer in model.named_layers():
        for name in ("running_mean", "running_var"):
            if name in layer.buffers:
                noise = rng.uniform(0.5, 1.5, layer.buffers.shape(name)).astype(F32)
                layer.buffers[name] = b.asarray(noise, b.dtype)
    return model


def images(rng, n=3):
    return rng.standard_normal((n, 2, 6, 6)).astype(F32)


def outcome(model, x, dy):
    """Gradients of input and parameters."""
    model.zero_grad()
    dx = model.backward(dy)
    get = model.backend.to_numpy
    return {"dx": get(dx)} | {name: get(p.grad) for name, p in model.named_parameters()}


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.subject)
def test_every_layer_has_a_backward_in_evaluation(case, at):
    layer, x, _ = case.prepare(at.backend, "float32")
    layer.eval()
    state = {name: at.get(array).copy() for name, array in layer.state_dict().items()}
    plain = layer(x)
    with nn.enable_grad():
        y = layer(x)
        indices = y[1] if isinstance(y, tuple) else None
        y = y if indices is None else y[0]
    assert same_bits(at.get(y), at.get(plain if indices is None else plain[0]))
    dy = at.put(case.upstream(tuple(y.shape)), "float32")
    if case.subject == "Embedding":
        assert layer.backward(dy) is None
        return
    found = outcome(layer, x, dy)
    assert found["dx"].shape == tuple(x.shape)
    assert all(same_bits(at.get(array), state[name]) for name, array in layer.state_dict().items())
    if not case.subject.startswith(BY_MODE):
        layer.train()(x)
        wanted = outcome(layer, x, dy)
        assert all(same_bits(found[name], wanted[name]) for name in wanted)
    elif case.subject.startswith("Dropout"):
        assert same_bits(found["dx"], at.get(dy))


@pytest.mark.parametrize("modes", ["evaluation", "frozen norms"])
def test_gradients_are_those_of_finite_differences(modes, rng):
    b = nn.get_backend("numpy", "float64")
    model = used(net(b), b, rng)
    if modes == "evaluation":
        model.eval()
    else:
        for _, layer in model.named_layers():
            if not isinstance(layer, nn.Container):
                layer.eval()
    gradcheck(model, rng.standard_normal((2, 2, 6, 6)), step=1e-7, tolerance=1e-5)


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_net_in_evaluation_has_the_gradients_of_numpy_in_float64(at, rng, numerics):
    b = at.computing(numerics)
    model, wide = net(b, dtype="float32"), net("numpy", dtype="float64")
    used(model, b, rng)
    wide.load_state_dict(model.state_dict())
    x = images(rng)
    found = []
    for each in (model.eval(), wide.eval()):
        with nn.enable_grad():
            y = each(each.backend.asarray(x, each.backend.dtype))
        found.append(outcome(each, None, y * 0.0 + 1.0))
    for name, array in found[1].items():
        assert_match(found[0][name], array, level="network", terms=200, name=name, dtype="float32")


@pytest.mark.parametrize("kernels", ["arrays", "compiled_kernels"])
def test_evaluations_before_and_between_change_no_gradient(kernels, request, rng):
    if kernels == "compiled_kernels":
        request.getfixturevalue(kernels)
    b = nn.get_backend("numpy")
    model, wide = used(net(b), b, rng).eval(), net("numpy", dtype="float64").eval()
    wide.load_state_dict(model.state_dict())
    x = images(rng, 8)
    for _ in range(12):
        # Evaluation without gradients in between is recorded; that must not serve a forward with them.
        y = model(b.asarray(x))
        with nn.enable_grad():
            kept = model(b.asarray(x))
            wide(x.astype(np.float64))
        assert_match(kept, b.to_numpy(y), level="network", terms=200)
    found, wanted = (outcome(each, None, np.ones((8, 5), each.backend.dtype_name)) for each in (model, wide))
    for name, array in wanted.items():
        assert_match(found[name], array, level="network", terms=500, name=name, dtype="float32")


def theirs_of(torch):
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(48, 2)
    )


@pytest.mark.parametrize("modes", ["evaluation", "frozen norm"])
def test_gradients_are_those_of_pytorch(at, torch, rng, modes):
    theirs = theirs_of(torch)
    ours = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dense(48, 2), backend=at.backend
    )
    theirs[1].running_mean += 0.3
    theirs[1].running_var *= 1.7
    ours.load_state_dict({name: array.detach().numpy() for name, array in theirs.state_dict().items()})
    (theirs if modes == "evaluation" else theirs[1]).eval()
    (ours if modes == "evaluation" else ours[1]).eval()
    x = images(rng)
    given = torch.tensor(x, requires_grad=True)
    theirs(given).sum().backward()
    if modes == "evaluation":
        with nn.enable_grad():
            y = ours(at.put(x))
    else:
        y = ours(at.put(x))
    found = outcome(ours, None, y * 0.0 + 1.0)
    assert_match(found["dx"], given.grad.numpy(), level="network", terms=60)
    for name, parameter in theirs.named_parameters():
        assert_match(found[name], parameter.grad.numpy(), level="network", terms=60, name=name)
    for name, array in theirs.state_dict().items():
        assert_match(ours.state_dict()[name], array.numpy(), backend=at.backend, name=name)


def test_without_gradients_training_keeps_nothing_and_tracks_statistics_as_pytorch_does(at, torch, rng):
    theirs = theirs_of(torch)
    ours = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dense(48, 2), backend=at.backend
    )
    ours.load_state_dict({name: array.detach().numpy() for name, array in theirs.state_dict().items()})
    x = images(rng)
    with torch.no_grad(), nn.no_grad():
        assert_match(ours(at.put(x)), theirs(torch.from_numpy(x)).numpy(), level="network", terms=60)
    for name, array in theirs.state_dict().items():
        assert_match(ours.state_dict()[name], array.numpy(), level="network", terms=60, name=name)


def test_without_gradients_nothing_is_kept_and_backward_names_what_to_do(at, rng):
    model = net(at.backend)
    x = at.put(images(rng))
    model(x)
    with nn.no_grad():
        y = model(x)
    assert all(layer.saved is None and layer._output is None for _, layer in model.named_layers())
    with raises(RuntimeError, "within released() each backward needs its own; in evaluation call it within nn.enable"):
        model.backward(y)
    loss = nn.MSE()
    with nn.no_grad():
        loss(y, y)
    with raises(RuntimeError, "backward needs a forward before it"):
        loss.backward()


def test_without_gradients_dropout_drops_and_buffers_change_as_in_training(rng):
    model, other = net(), net()
    x = images(rng)
    with nn.no_grad():
        y = model(x)
    assert same_bits(y, other(x))
    assert all(same_bits(array, other.state_dict()[name]) for name, array in model.state_dict().items())


def peak(work):
    work()
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_without_gradients_training_needs_the_memory_of_evaluation(rng):
    layers = [layer for _ in range(8) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())]
    model, x = nn.Sequential(*layers, backend="numpy"), rng.standard_normal((8, 4, 32, 32)).astype(F32)

    def without():
        with nn.no_grad():
            model(x)

    def kept():
        model.release()
        model(x)

    in_training, freely = peak(kept), peak(without)
    model.eval()
    assert freely < 1.2 * peak(lambda: model(x)) < 0.5 * in_training


def test_by_default_layers_keep_by_the_mode_of_the_outermost_container():
    model = nn.Sequential(nn.Dense(2, 2), nn.Residual(nn.Sequential(nn.BatchNorm1d(2), nn.Tanh())), backend="numpy")
    x = np.ones((3, 2), F32)
    model[1].eval()
    model(x)
    assert all(layer.saved is not None for layer in (model[0], *model[1].children["body"]))
    model.eval()(x)
    assert all(layer.saved is None for _, layer in model.named_layers())
    model[1].train()(x)
    assert model[1].children["body"][0].saved is not None
    model.eval()
    model[0].train()
    model(x)
    assert model[0].saved is not None, "as before: a layer in training keeps, whatever is around it"
    assert grad_mode() is None


def test_a_container_of_ones_own_passes_its_mode_on(rng):
    class Mine(nn.Container):
        def __init__(self):
            super().__init__({"norm": nn.BatchNorm1d(2), "dense": nn.Dense(2, 2)})

        def forward(self, x):
            return self.children["dense"](self.children["norm"](x))

        def backward(self, dy, *, input_grad=True):
            dy = self.children["dense"].backward(dy)
            return self.children["norm"].backward(dy, input_grad=input_grad)

    class Computing(nn.Container):
        """One that defines the methods of a layer."""

        def __init__(self):
            super().__init__({"norm": nn.BatchNorm1d(2)})

        def _forward(self, x):
            return self.children["norm"](x)

        def _backward(self, dy, input_grad):
            return self.children["norm"].backward(dy)

    x = rng.standard_normal((3, 2)).astype(F32)
    for model in (Mine(), Computing()):
        model.children["norm"].eval()
        assert model.backward(model(x)).shape == (3, 2)


def test_modes_nest_and_end_with_their_block():
    assert nn.is_grad_enabled()
    with nn.no_grad():
        assert not nn.is_grad_enabled()
        with nn.enable_grad():
            assert nn.is_grad_enabled() and grad_mode() is True
            with nn.no_grad():
                assert not nn.is_grad_enabled()
            assert grad_mode() is True
        assert not nn.is_grad_enabled()
        with pytest.raises(KeyError), nn.enable_grad():
            raise KeyError
        assert not nn.is_grad_enabled()
    block = nn.no_grad()
    with block, nn.enable_grad(), block:
        assert not nn.is_grad_enabled()
    assert grad_mode() is None


def test_they_decorate_functions_methods_and_generators():
    @nn.no_grad()
    def off(depth=1):
        """Doc."""
        return [nn.is_grad_enabled(), *(off(depth - 1) if depth else ()), nn.is_grad_enabled()]

    @nn.enable_grad
    def on():
        return grad_mode()

    assert off(2) == [False] * 6
    assert (off.__name__, off.__doc__) == ("off", "Doc.")
    assert on() is True and grad_mode() is None

    @nn.no_grad()
    def steps():
        got = yield nn.is_grad_enabled()
        try:
            yield got, nn.is_grad_enabled()
        except KeyError:
            yield "caught", nn.is_grad_enabled()
        return "done"

    running = steps()
    assert next(running) is False and nn.is_grad_enabled()
    assert running.send(7) == (7, False) and nn.is_grad_enabled()
    assert running.throw(KeyError()) == ("caught", False)
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == "done" and grad_mode() is None
    closed = steps()
    next(closed)
    closed.close()
    assert grad_mode() is None


def test_a_mode_is_that_of_one_thread():
    found = []
    with nn.no_grad():
        thread = threading.Thread(target=lambda: found.append(nn.is_grad_enabled()))
        thread.start()
        thread.join()
    assert found == [True]


def test_checkpoints_in_evaluation_compute_again_with_gradients(rng):
    """Also if backward is outside of the block."""
    inner = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5))
    plain, wrapped = (nn.Sequential(each, seed=4).eval() for each in (inner, nn.Checkpointed(inner)))
    x, found = images(rng), []
    for model in (plain, wrapped):
        with nn.enable_grad():
            y = model(x)
        assert (inner[0].saved is None) == (model is wrapped)
        found.append(model.backward(y))
        with nn.enable_grad():
            model(x)
        with nn.released(), nn.no_grad():
            model.backward(y)
        assert inner[0].saved is None
    assert same_bits(found[0], found[1])
    y = wrapped(x)
    with raises(RuntimeError, "in evaluation call it within nn.enable_grad(), and not within nn.no_grad()"):
        wrapped.backward(y)


def test_recorded_evaluation_is_not_used_with_gradients(rng):
    model = nn.Sequential(nn.Dense(4, 4), nn.ReLU(), nn.Dense(4, 2), backend="numpy").eval()
    x = rng.standard_normal((2, 4)).astype(F32)
    for _ in range(12):
        y = model(x)
    with nn.enable_grad():
        assert same_bits(model(x), y)
    assert model.backward(y).shape == (2, 4)
    model(x)
    with pytest.raises(RuntimeError):
        model.backward(y)


def test_a_second_forward_without_gradients_is_not_mixed_with_the_first(rng):
    """MaxPool saves nothing then; it must not pass a gradient to the cells of the forward before."""
    pool = nn.MaxPool2d(2)
    pool(images(rng))
    with nn.no_grad():
        y = pool(images(rng))
    assert pool.saved is None
    with pytest.raises(RuntimeError):
        pool.backward(y)
