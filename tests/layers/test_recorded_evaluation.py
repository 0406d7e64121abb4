"""The recorded forward of a net in evaluation: the bits of the plain one, whatever changed since."""

import copy
import threading

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import origins
from xpnn.backends.cpu.recorded_function import RecordedFunction
from xpnn.backends.overrides import Choices, using
from xpnn.layers.containers import recorded_evaluation
from xpnn.layers.containers.recorded_evaluation import CALLS_BEFORE, MOST_BYTES
from xpnn.layers.containers.residual import Residual


@pytest.fixture(params=["arrays", "kernels"])
def by(request):
    if request.param == "kernels":
        request.getfixturevalue("compiled_kernels")


@pytest.fixture
def used(monkeypatch):
    """For each call of a recording, whether it had a result."""
    found, usual = [], RecordedFunction.__call__
    # Another test may have used exact numerics.
    monkeypatch.setattr(origins, "watching", False)

    def noted(self, x):
        y = usual(self, x)
        found.append(y is not None)
        return y

    monkeypatch.setattr(RecordedFunction, "__call__", noted)
    return found


def convolutional(**placement):
    block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.LeakyReLU(0.1), Residual(block, activation=nn.ReLU())),
        *(nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Dense(6 * 16, 5)),
        **placement,
    )


@pytest.fixture
def net():
    """In evaluation, with running statistics of a batch and a bias."""
    model = convolutional(backend="numpy", seed=1)
    model[-1].parameters["bias"].value = np.arange(5, dtype=np.float32)
    model(images(8, seed=2))
    return model.eval()


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def record(model, x):
    """Call it until it is recorded; all outputs have the same bits."""
    outputs = [model(x) for _ in range(CALLS_BEFORE + 3)]
    assert {y.tobytes() for y in outputs} == {outputs[0].tobytes()}
    assert {y.strides for y in outputs} == {outputs[0].strides}
    return outputs[0]


def assert_right(model, x):
    """Its outputs are those of a net with the same layers and weights that has never been called."""
    fresh = copy.deepcopy(model)
    for _ in range(CALLS_BEFORE + 3):
        y, desired = model(x), plain(fresh, x)
        assert y.tobytes() == desired.tobytes() and y.shape == desired.shape


def plain(model, x):
    """The forward without a recording of the net, or of one within."""
    recorded_evaluation._state.inside = True
    try:
        return model._forward_all(x)
    finally:
        recorded_evaluation._state.inside = False


def test_repeated_calls_are_recorded_and_keep_their_bits(by, net, used):
    first = record(net, images(2))
    assert used == [True] * 3
    other = images(2, seed=7)
    assert net(other).tobytes() == plain(net, other).tobytes() != first.tobytes()


@pytest.mark.parametrize("name", ["lenet5", "mlp", "lenet", "resnet18", "mobilenet_v2", "vit"])
def test_models_are_recorded(by, name, used):
    image = (1, 28, 28) if name in ("lenet5", "mlp") else (1, 8, 8)
    model = nn.models.BUILDERS[name](image, 10, backend="numpy", seed=3)
    x = np.random.default_rng(0).standard_normal((3, *image)).astype(np.float32)
    model(x)
    record(model.eval(), x)
    assert used == [True] * 3
    assert_right(model, x)


def test_a_graph_is_recorded(by, used):
    conv, norm = (nn.Conv2d(3, 6, 3, padding=1), "input"), (nn.BatchNorm2d(6), "conv")
    gate, pool = (nn.Sigmoid(), "pool"), (nn.GlobalAvgPool(), "norm")
    ends = {"scale": (nn.Multiply(), ("norm", "gate")), "sum": (nn.Add(), ("scale", "norm")), "act": (nn.ReLU(), "sum")}
    nodes = {"conv": conv, "norm": norm, "pool": pool, "gate": gate, **ends, "both": (nn.Concat(), ("act", "input"))}
    model = nn.Graph(nodes, backend="numpy", seed=1).eval()
    record(model, images(2))
    assert used == [True] * 3
    assert_right(model, images(2))
    model.children["conv"].parameters["weight"].value = np.ones((6, 3, 3, 3), np.float32)
    assert_right(model, images(2))
    model.children["act"] = nn.Tanh(backend="numpy").eval()
    assert_right(model, images(2))


def test_weights_in_any_memory_layout_are_recorded(by, net, used):
    """A trained weight may be stored as the matrix that a convolution multiplies by, which must not be kept then."""
    for layer in (net[0], net[3].children["body"][0]):
        weight = np.asarray(layer.parameters["weight"].value)
        layer.parameters["weight"].value = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
        del weight
    record(net, images(2))
    assert used == [True] * 3
    assert_right(net, images(2))


def set_value(net):
    weight = net[0].parameters["weight"]
    weight.value = np.asarray(weight.value) * np.float32(2.0)


def write_in_place(net):
    net[0].parameters["weight"].value[...] *= 2.0


def write_into_view(net):
    net[-1].parameters["bias"].value[1:3][...] = 7.0


def load_weights(net):
    net.load_state_dict(
        {name: array // 2 if array.dtype == "int64" else array / 2 for name, array in net.state_dict().items()}
    )


def take_a_step(net):
    x = images(4, seed=5)
    optimizer, loss = nn.SGD(net, lr=0.1), nn.CrossEntropy(backend="numpy")
    net.train()
    loss(net(x), np.arange(4))
    net.backward(loss.backward(), input_grad=False)
    optimizer.step()
    net.eval()


def set_buffer(net):
    net[1].buffers["running_mean"] = np.full(6, 3.0, np.float32)


def write_into_buffer(net):
    net[3].children["body"][1].buffers["running_var"][...] *= 4.0


def set_attribute(net):
    net[2].negative_slope = 0.5


def set_inner_attribute(net):
    net[3].children["body"][1].eps = 1.0


def replace_layer_without_weights(net):
    net.children["2"] = nn.Sequential(nn.Tanh(), backend="numpy").eval()[0]


def replace_layer(net):
    net.children["7"] = nn.Sequential(nn.Dense(6 * 16, 4), backend="numpy", seed=9).eval()[0]


def replace_parameter(net):
    net[-1].parameters["weight"] = nn.Parameter(np.ones((5, 6 * 16), np.float32))


def share_parameter(net):
    net[3].children["body"][0].parameters["weight"] = nn.Parameter(np.full((6, 6, 3, 3), 0.1, np.float32))


def remove_layer(net):
    del net.children["2"]


def add_inner_layer(net):
    net[3].children["body"].children["more"] = nn.Sequential(nn.Tanh(), backend="numpy").eval()[0]


def replace_inner_children(net):
    body = net[3].children["body"]
    body.children = {"0": body[0]}


def lose_a_parameter(net):
    del net[-1].parameters["bias"]


def declare_a_buffer_again(net):
    net[1].buffers.declare("running_mean", (6,), 2.0)


CHANGES = (
    *(remove_layer, add_inner_layer, replace_inner_children, lose_a_parameter, declare_a_buffer_again),
    *(set_value, write_in_place, write_into_view, load_weights, take_a_step, set_buffer, write_into_buffer),
    *(set_attribute, set_inner_attribute, replace_layer_without_weights, replace_layer, replace_parameter),
    share_parameter,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_nothing_recorded_is_used_after_a_change(by, net, used, change):
    x = images(2)
    before = record(net, x)
    change(net)
    assert net(x).tobytes() != before.tobytes()
    assert_right(net, x)
    assert used.count(True) > 3, "it is recorded again"


def test_array_that_is_held_is_written_to(net, used):
    weight, x = net[0].parameters["weight"].value, images(2)
    record(net, x)
    for factor in (2.0, 3.0):
        weight *= np.float32(factor)
        assert_right(net, x)
    assert used == []


def test_outputs_and_inputs_are_the_caller_s(net, used):
    x = images(2)
    desired = record(net, x).copy()
    kept = net(x)
    kept[...] = np.nan
    other = images(2, seed=4)
    net(other)
    x_before = x.copy()
    assert net(x).tobytes() == desired.tobytes() and x.tobytes() == x_before.tobytes()
    assert all(used)


def test_each_shape_and_layout_has_a_recording(net, used):
    for x in (images(1), images(3), np.asfortranarray(images(3))):
        record(net, x)
        assert_right(net, x)
    assert used.count(True) >= 9


def test_large_inputs_and_training_are_not_recorded(net, used):
    record(net, images(MOST_BYTES // (3 * 64 * 4) + 1))
    net.train()
    for _ in range(CALLS_BEFORE + 3):
        net(images(2))
    assert used == []


@pytest.mark.parametrize("placement", [{"numerics": "exact"}, {"dtype": "float64"}], ids=str)
def test_other_placements(placement, used):
    model = convolutional(backend="numpy", seed=1, **placement).eval()
    x = images(2).astype(placement.get("dtype", "float32"))
    record(model, x)
    assert used == ([] if "numerics" in placement else [True] * 3)


class Counted(nn.Layer):
    """A user's layer, which does more than compute."""

    calls = 0

    def _forward(self, x):
        type(self).calls += 1
        return x


def test_user_s_layer_runs_in_each_call(used):
    model, x = nn.Sequential(nn.Flatten(), Counted(), nn.Dense(192, 2), backend="numpy").eval(), images(1)
    Counted.calls = 0
    record(model, x)
    assert Counted.calls == CALLS_BEFORE + 3 and used == []


def test_who_replaces_a_forward_sees_each_call(net, used):
    x, seen = images(2), []
    record(net, x)
    layer = net[3].children["body"][0]
    usual = layer.forward
    layer.forward = lambda x: seen.append(1) or usual(x)
    for _ in range(3):
        net(x)
    assert seen == [1] * 3
    del layer.forward
    record(net, x)
    assert used.count(True) >= 4 and seen == [1] * 3


def test_threads_evaluate_one_net(net, used):
    x = images(2)
    desired, wrong = record(net, x).tobytes(), []

    def evaluate():
        for _ in range(100):
            if net(x).tobytes() != desired:
                wrong.append(1)

    threads = [threading.Thread(target=evaluate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert wrong == []


def test_error_of_an_input_that_does_not_fit_is_the_plain_one(net):
    record(net, images(2))
    with pytest.raises(ValueError, match="input has 4 channels, expected 3"):
        net(np.zeros((2, 4, 8, 8), np.float32))


def test_training_frees_the_recordings(net, used):
    record(net, images(2))
    assert net._kept._values
    net.train()
    assert not net._kept._values


def test_net_with_several_outputs_is_not_recorded(used):
    model = nn.Sequential(nn.MaxPool2d(2, return_indices=True), backend="numpy").eval()
    x = images(2)
    for _ in range(CALLS_BEFORE + 3):
        y, indices = model(x)
    assert y.shape == indices.shape == (2, 3, 4, 4) and used == []


def test_recording_ends_where_others_compute(compiled_kernels, net, used, monkeypatch):
    x = images(2)
    first = record(net, x)
    fresh, before = copy.deepcopy(net), len(used)
    with using(Choices(kernels=False)):
        desired = plain(fresh, x)
        assert net(x).tobytes() == desired.tobytes()
    assert len(used) == before
    monkeypatch.setenv("XPNN_NUMBA", "0")
    assert net(x).tobytes() == desired.tobytes() and used[before:] == [False]
    monkeypatch.setenv("XPNN_NUMBA", "1")
    assert net(x).tobytes() == first.tobytes() != desired.tobytes() and used[-1]
