"""A parameter in several places of a model, or several times in a list, is one parameter."""

import copy
import pickle

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.snapshot import Snapshot

X = np.random.default_rng(0).uniform(-1.0, 1.0, (6, 4)).astype(np.float32)
Y = np.arange(6) % 4
OPTIMIZERS = {
    "SGD": lambda p: nn.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda p: nn.Adam(p, lr=0.1),
    "AdamW": lambda p: nn.AdamW(p, lr=0.1),
    "RMSprop": lambda p: nn.RMSprop(p, lr=0.1, momentum=0.5),
    "Adagrad": lambda p: nn.Adagrad(p, lr=0.1),
    "Adadelta": lambda p: nn.Adadelta(p),
    "Adamax": lambda p: nn.Adamax(p, lr=0.1),
    "NAdam": lambda p: nn.NAdam(p, lr=0.1),
    "RAdam": lambda p: nn.RAdam(p, lr=0.1),
    "Lion": lambda p: nn.Lion(p, lr=0.1),
}


def tied(**placement):
    """Two layers of one weight."""
    model = nn.Sequential(nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 4), seed=3, **placement)
    model[2].parameters["weight"] = model[0].parameters["weight"]
    return model


def gradient(model, loss=None):
    b, loss = model.backend, loss or nn.CrossEntropy()
    loss(model(b.asarray(X)), b.asarray(Y))
    return model.backward(loss.backward())


def is_tied(model):
    return model[0].parameters["weight"] is model[2].parameters["weight"]


def test_it_is_named_once_and_saved_under_both_names():
    model = tied()
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "2.bias"]
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert state["0.weight"] is state["2.weight"]


def test_its_gradient_is_the_sum_over_its_places(at):
    model, apart = (
        tied(backend=at.backend),
        nn.Sequential(nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 4), backend=at.backend),
    )
    apart.load_state_dict(model.state_dict())
    gradient(model), gradient(apart)
    parts = [at.get(apart[i].parameters["weight"].grad) for i in (0, 2)]
    np.testing.assert_allclose(at.get(model[0].parameters["weight"].grad), sum(parts), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_steps_it_once_however_it_was_given(optimizer, kernels, monkeypatch):
    if kernels:
        pytest.importorskip("numba")
        monkeypatch.setenv("XPNN_NUMBA", "1")

    def after(given):
        parameter = nn.Parameter(np.float32([1.0, 2.0]))
        steps = OPTIMIZERS[optimizer](given(parameter))
        for slope in (0.5, -0.25):
            parameter.grad = np.float32([slope, 1.0])
            steps.step()
        return parameter.value.tolist(), len(steps.parameters), steps.state_dict()["state"].keys()

    once = after(lambda p: [p])
    assert after(lambda p: [p, p]) == once
    assert after(lambda p: (p for _ in range(3)))[0] == once[0]
    assert after(lambda p: {"0": p, "again": p}) == once


def test_a_list_with_others_between_steps_each_once():
    a, b = nn.Parameter(np.float32([1.0])), nn.Parameter(np.float32([1.0]))
    optimizer = nn.SGD([a, b, a, b, b], lr=1.0)
    a.grad, b.grad = np.float32([1.0]), np.float32([2.0])
    optimizer.step()
    assert (a.value.tolist(), b.value.tolist()) == ([0.0], [-1.0])
    assert list(optimizer.parameters) == ["0", "1"]


def test_an_optimizer_steps_a_tied_parameter_once(at):
    model = tied(backend=at.backend)
    before = at.get(model[0].parameters["weight"].value)
    gradient(model)
    slope = at.get(model[0].parameters["weight"].grad)
    nn.SGD(model, lr=1.0).step()
    np.testing.assert_array_equal(at.get(model[0].parameters["weight"].value), before - slope)


def test_it_counts_once_in_the_norm_and_is_clipped_once():
    parameter = nn.Parameter(np.float32([3.0, 4.0]))
    for given in ([parameter, parameter], {"a": parameter, "b": parameter}):
        parameter.grad = np.float32([3.0, 4.0])
        assert float(nn.clip_grad_norm(given, 1.0)) == 5.0
        np.testing.assert_allclose(parameter.grad, [0.6, 0.8], rtol=1e-5)
    model = tied()
    gradient(model)
    three = (model[0].parameters["weight"], model[0].parameters["bias"], model[2].parameters["bias"])
    norm = sum(float((parameter.grad**2).sum()) for parameter in three) ** 0.5
    assert float(nn.clip_grad_norm(model, 1e9)) == pytest.approx(norm, rel=1e-6)


def test_it_counts_once_in_the_summary():
    summary = tied().summary((1, 4))
    assert summary.parameters == 4 * 4 + 4 + 4
    assert [row.parameters for row in summary.rows] == [20, 0, 4]
    assert nn.Sequential(nn.Dense(4, 4), nn.Dense(4, 4)).summary((1, 4)).parameters == 40


def test_it_stays_shared_in_copies_pickles_and_moves():
    model = tied()
    gradient(model)
    nn.SGD(model, lr=0.1, momentum=0.9).step()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("strict")):
        assert is_tied(other)
        assert len(list(other.named_parameters())) == 3
    nn.SGD(model, lr=0.1).step()


def test_it_is_moved_once():
    model = tied()
    gradient(model)
    optimizer = nn.SGD(model, lr=0.1, momentum=0.9)
    optimizer.step()
    b = nn.get_backend("strict")
    before = b.transfers["to_device"][0]
    model.to("strict")
    # Three values with their gradients, and the optimizer's state for each.
    assert b.transfers["to_device"][0] - before == 9
    model.to("numpy").to("strict")
    assert b.owns(model[2].parameters["weight"].value)


def test_a_state_dict_of_both_names_loads(tmp_path):
    model, other = tied(), tied()
    gradient(model)
    nn.SGD(model, lr=0.1).step()
    nn.save(model, tmp_path / "tied.safetensors")
    nn.load(other, tmp_path / "tied.safetensors")
    assert is_tied(other)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    untied = nn.Sequential(nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 4))
    nn.load(untied, tmp_path / "tied.safetensors")
    np.testing.assert_array_equal(untied(X), model(X))


def test_two_different_arrays_for_one_parameter_are_refused():
    model = tied()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    state = nn.Sequential(nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 4)).state_dict()
    with pytest.raises(ValueError, match=r"0\.weight and 2\.weight are one parameter, but differ"):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("shards", [1, 3])
def test_training_in_parts_and_on_other_backends_gives_the_same_bits(shards):
    found = set()
    for spec in ("numpy", "strict"):
        model = tied(backend=spec, numerics="exact")
        nn.fit(model, (X, Y), epochs=3, batch_size=4, progress=False, shards=shards, clip_norm=0.5)
        assert is_tied(model)
        found.add(b"".join(model.backend.to_numpy(array).tobytes() for array in model.state_dict().values()))
    whole = tied(numerics="exact")
    nn.fit(whole, (X, Y), epochs=3, batch_size=4, progress=False, clip_norm=0.5)
    found.add(b"".join(array.tobytes() for array in whole.state_dict().values()))
    assert len(found) == 1


def test_a_tied_model_resumes_from_its_checkpoint(tmp_path):
    def run(epochs, folder):
        model = tied()
        nn.fit(model, (X, Y), epochs=epochs, batch_size=4, progress=False, checkpoints=folder, resume=True)
        assert is_tied(model)
        return [array.tobytes() for array in model.state_dict().values()]

    whole = run(3, tmp_path / "whole")
    run(2, tmp_path / "parts")
    assert run(3, tmp_path / "parts") == whole


def test_buffers_and_streams_of_a_tied_model_are_restored():
    model = tied()
    before = Snapshot(model)
    gradient(model)
    before.restore()
    model.zero_grad()
    assert all(parameter.grad is None for _, parameter in model.named_parameters())


@pytest.mark.parametrize("given", [nn.Dense(4, 3), nn.Dense(3, 4, bias=False)], ids=["transposed", "of another size"])
def test_a_parameter_of_another_shape_does_not_take_the_place_of_one(given):
    """Compiled code computes with the sizes that a layer was made with."""
    model = nn.Sequential(nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 5), seed=3)
    weight = given.parameters["weight"]
    with pytest.raises(ValueError, match=r"parameters\['weight'\] has shape \(5, 4\), got a parameter of shape "):
        model[2].parameters["weight"] = weight
    with pytest.raises(
        TypeError, match=r"parameters\['weight'\] must be a Parameter, .* set known values by parameters"
    ):
        model[2].parameters["weight"] = np.ones((5, 4), np.float32)
    assert model[2].parameters["weight"].shape == (5, 4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match="has shape"):
            twin[2].parameters["weight"] = weight
        assert twin(X[:, :3]).shape == (6, 5)
