"""The outputs of each layer of a model, and restoring what a step changes."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.layer_outputs import preserved, watched
from xpnn.layers.core.snapshot import Snapshot
from xpnn.testing import assert_match
from xpnn.testing.compare import same_bits


def net(backend="numpy", **options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Dense(4 * 25, 3),
        backend=backend,
        seed=3,
        **options,
    )


ORDER = ["0", "1", "2.body.0", "2.body.1", "2.body", "2", "3", "4", "5", "6", ""]


@pytest.fixture
def x(at, rng):
    return at.put(rng.standard_normal((4, 2, 5, 5)), "float32")


def state(at, model):
    """Everything that a step changes, on the host."""
    arrays = [model.state_dict()[name] for name in sorted(model.state_dict())]
    arrays += [p.grad for _, p in model.named_parameters() if p.grad is not None]
    layers = [layer for _, layer in model.named_layers()]
    numbers = [layer.training for layer in layers] + [
        layer.stream.position for layer in layers if isinstance(layer, nn.Dropout)
    ]
    return [at.get(array).copy() for array in arrays], numbers


def same(one, other):
    return one[1] == other[1] and all(same_bits(a, b) for a, b in zip(one[0], other[0], strict=True))


def step(model, x):
    y = model(x)
    return model.backward(y * 0.0 + 1.0)


def test_outputs_and_gradients_are_reported_in_the_order_of_computation(at, x):
    model = net(at.backend)
    forward, backward = [], []
    with watched(
        model,
        forward=lambda name, layer, y: forward.append((name, layer, tuple(y.shape))),
        backward=lambda name, layer, dx: backward.append((name, layer, tuple(dx.shape))),
    ):
        y = model(x)
        dx = model.backward(y)
    layers = dict(model.named_layers())
    assert [name for name, _, _ in forward] == ORDER
    reverse = ["6", "5", "4", "3", "2.body.1", "2.body.0", "2.body", "2", "1", "0", ""]
    assert [name for name, _, _ in backward] == reverse
    assert all(layer is layers[name] for name, layer, _ in forward + backward)
    assert (forward[0][2], forward[-1][2]) == ((4, 4, 5, 5), (4, 3)) == ((4, 4, 5, 5), tuple(y.shape))
    assert backward[-1][2] == tuple(dx.shape)
    assert not any({"forward", "backward"} & vars(layer).keys() for layer in layers.values())


def test_gradients_of_parameters_are_accumulated_before_backward_is_reported(x, at):
    model = net(at.backend)
    missing = []

    def look(name, layer, dx):
        missing.extend(parameter.grad is None for parameter in layer.parameters.values())

    with watched(model, backward=look):
        step(model, x)
    assert missing and not any(missing)


def test_an_exception_in_a_callback_ends_the_pass_and_the_watch(x, at):
    model, seen = net(at.backend), []

    def stop(name, layer, y):
        seen.append(name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watched(model, forward=stop):
        model(x)
    assert seen == ["0"]
    assert not any("forward" in vars(layer) for _, layer in model.named_layers())


def test_two_watchers_of_one_model_both_get_its_outputs():
    model, one, other = nn.ReLU(), [], []
    x = np.ones((1, 2), np.float32)
    with watched(model, forward=lambda *call: one.append(call)):
        with watched(model, forward=lambda *call: other.append(call)):
            model(x)
        model(x)
    assert (len(one), len(other)) == (2, 1)
    model(x)
    assert len(one) == 2


def test_outputs_of_several_arrays_are_reported_as_tuples():
    model, seen = nn.MaxPool2d(2, return_indices=True), []
    with watched(model, forward=lambda name, layer, y: seen.append(y)):
        y, indices = model(np.ones((1, 1, 2, 2), np.float32))
    assert seen[0][0] is y and seen[0][1] is indices


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_within_preserved_changes_nothing(at, x, fails):
    model = net(at.backend)
    step(model, x)
    before = state(at, model)
    gradient = model[0].parameters["weight"].grad
    y = model(x)
    kept = [(layer.saved, layer._output) for _, layer in model.named_layers()]
    before = state(at, model)
    try:
        with preserved(model):
            assert all(p.grad is None for _, p in model.named_parameters())
            step(model, x)
            assert not all(same_bits(a, b) for a, b in zip(state(at, model)[0], before[0], strict=True))
            model.eval()
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert same(state(at, model), before)
    assert model[0].parameters["weight"].grad is gradient
    for (_, layer), (saved, output) in zip(model.named_layers(), kept, strict=True):
        assert layer.saved is saved and layer._output is output
    model.backward(y)


def test_layer_outputs_are_those_of_evaluation_and_change_nothing(at, x):
    model = net(at.backend)
    step(model, x)
    before = state(at, model)
    seen = nn.layer_outputs(model, x)
    assert same(state(at, model), before)
    assert [name for name, _, _ in seen] == ORDER
    model.eval()
    outputs = [x]
    for layer in model:
        outputs.append(layer(outputs[-1]))
    assert_match(seen[-1][2], outputs[-1], level="exact", backend=at.backend)
    assert_match(seen[6][2], outputs[4], level="exact", backend=at.backend)
    # The model itself may fold the batch norm into the convolution.
    assert_match(seen[-1][2], model(x), level="net", terms=100, backend=at.backend)
    assert seen[0][1] is model[0]


def test_a_snapshot_restores_buffers_and_streams_repeatedly(at, x):
    model = net(at.backend)
    step(model, x)
    model.zero_grad()
    before, snapshot = state(at, model), Snapshot(model)
    outputs = []
    for _ in range(2):
        outputs.append(at.get(model(x)))
        model(x)
        assert not same(state(at, model), before)
        snapshot.restore()
        assert same(state(at, model), before)
    assert same_bits(*outputs), "the masks are drawn again"


def test_a_snapshot_before_the_first_step_creates_no_array(at, x):
    model = net(at.backend)
    snapshot = Snapshot(model)
    assert snapshot.arrays() == []
    model(x)
    snapshot.restore()
    assert not at.get(model.state_dict()["1.running_mean"]).any()
    assert not at.get(model.state_dict()["1.num_batches_tracked"]).any()


def require_that_steps_write_into_no_buffer_of_a_snapshot(b, x):
    model = net(b)
    optimizer, loss = nn.SGD(model, lr=0.1), nn.CrossEntropy()
    target = b.asarray(np.arange(4) % 3)
    for _ in range(2):
        snapshot = Snapshot(model)
        held = snapshot.arrays()
        values = [b.to_numpy(array).copy() for array in held]
        loss(model(x), target)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        assert all(same_bits(b.to_numpy(array), value) for array, value in zip(held, values, strict=True))
        now = Snapshot(model).arrays()
        assert not held or not any(a is b for a, b in zip(now, held, strict=True))
    assert len(held) == 6


def test_a_step_writes_into_no_buffer_of_a_snapshot(at, x):
    require_that_steps_write_into_no_buffer_of_a_snapshot(at.backend, x)


def test_a_step_with_compiled_kernels_writes_into_no_buffer_of_a_snapshot(compiled_kernels, rng):
    require_that_steps_write_into_no_buffer_of_a_snapshot(
        nn.get_backend("numpy"), rng.standard_normal((4, 2, 5, 5)).astype(np.float32)
    )


def test_copies_are_not_changed_by_a_step_that_writes_into_buffers(at):
    model = nn.BatchNorm1d(2, backend=at.backend)
    model.state_dict()
    snapshot = Snapshot(model, copies=True)
    old = model.buffers["running_mean"]
    old[...] = 7.0
    snapshot.restore()
    assert not at.get(model.buffers["running_mean"]).any()
