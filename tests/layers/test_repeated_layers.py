"""One layer in several places of a model: each call has its backward, and all else sees the layer once."""

import copy
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.layer_outputs import watched
from xpnn.testing import assert_match, first_difference, gradcheck
from xpnn.testing.compare import same_bits

F32 = np.float32


def shared(wrap=lambda layer: layer, **placement):
    """A net in which a dense layer, a norm, activations, dropout and whole containers are in several places."""
    dense, norm, tanh, drop = nn.Dense(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.25)
    block = nn.Residual(nn.Sequential(dense, norm, tanh), activation=tanh)
    return nn.Sequential(
        dense,
        tanh,
        drop,
        block,
        nn.Parallel(nn.Sequential(dense, tanh), nn.Sequential(tanh, drop), block),
        nn.Dense(12, 4),
        wrap(block),
        drop,
        wrap(nn.Sequential(dense, tanh, dense)),
        tanh,
        **placement,
    )


def apart(model):
    """A copy of a shared net with a layer of its own in each place, of the same weights."""

    def clone(layer):
        twin = copy.copy(layer)
        twin.buffers = copy.deepcopy(layer.buffers)
        twin.buffers._owner = twin
        twin._calls, twin.parameters = None, {}
        for name, parameter in layer.parameters.items():
            twin.parameters[name] = nn.Parameter(parameter.value)
        if isinstance(layer, nn.Container):
            twin.children = {name: clone(child) for name, child in layer.children.items()}
            twin._repeated = []
        return twin

    return clone(model)


def batch(rng, n=6):
    return rng.standard_normal((n, 4)).astype(F32)


def without_noise(model):
    """Dropout and statistics of batches differ between places: evaluation makes them the same."""
    for _, layer in model.named_layers():
        if isinstance(layer, nn.BatchNorm1d | nn.Dropout):
            layer.eval()
    return model


def gradients(model, dy, **options):
    model.zero_grad()
    dx = model.backward(dy, **options)
    get = model.backend.to_numpy
    found = {name: np.array(get(p.grad)) for name, p in model.named_parameters() if p.grad is not None}
    return found | ({} if dx is None else {"dx": np.array(get(dx))})


@pytest.mark.parametrize("wrap", [lambda layer: layer, nn.Checkpointed], ids=["plain", "checkpointed"])
def test_gradients_are_those_of_finite_differences(wrap, rng):
    model = without_noise(shared(wrap, dtype="float64", seed=1))
    gradcheck(model, rng.standard_normal((3, 4)), tolerance=1e-5)


@pytest.mark.parametrize("wrap", [lambda layer: layer, nn.Checkpointed], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("options", [{}, {"input_grad": False}], ids=["", "no-input-grad"])
@pytest.mark.parametrize("release", [False, True], ids=["kept", "released"])
@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_gradients_are_the_sums_over_the_places(at, rng, wrap, options, release, numerics):
    model = without_noise(shared(wrap, backend=at.computing(numerics), seed=1))
    other = apart(model)
    x = at.put(batch(rng))
    y = model(x)
    assert_match(other(x), at.get(y), level="network", terms=8)
    dy = y * 0.0 + 1.0
    if release:
        with nn.released():
            found = gradients(model, dy, **options)
        assert all(layer.saved is None and not any(layer._calls.states) for layer in model._repeated)
    else:
        found = gradients(model, dy, **options)
    if not options:
        other.backward(dy)
        wanted = {}
        for (path, layer), (same, twin) in zip(model.named_places(), other.named_layers(), strict=True):
            assert path == same
            for name, parameter in layer.parameters.items():
                wanted[parameter] = wanted.get(parameter, 0.0) + at.get(twin.parameters[name].grad).astype(np.float64)
        for name, parameter in model.named_parameters():
            assert_match(found[name], wanted[parameter].astype(F32), level="network", terms=60, name=name)
    else:
        y = model(x)
        every = gradients(model, dy)
        assert all(same_bits(found[name], every[name]) for name in found)
        assert found.keys() == every.keys() - {"dx"}


def test_gradients_and_steps_are_those_of_pytorch(at, torch, rng):
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.norm, self.tanh = torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh()

        def forward(self, x):
            for _ in range(2):
                x = self.norm(self.tanh(self.dense(x)))
            return self.tanh(self.dense(x) + x)

    torch.manual_seed(1)
    theirs = Theirs()
    dense, norm, tanh = nn.Dense(4, 4), nn.BatchNorm1d(4), nn.Tanh()
    ours = nn.Sequential(dense, tanh, norm, dense, tanh, norm, nn.Residual(dense, activation=tanh), backend=at.backend)
    state = {name: array.detach().numpy() for name, array in theirs.state_dict().items()}
    names = {"0.": "dense.", "2.": "norm."}
    ours.load_state_dict(
        {ours_ + n.removeprefix(t): a for n, a in state.items() for ours_, t in names.items() if n.startswith(t)}
    )
    steps, their_steps = nn.SGD(ours, lr=0.1, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        x = batch(rng)
        their_steps.zero_grad()
        value = theirs(torch.from_numpy(x))
        value.sum().backward()
        their_steps.step()
        steps.zero_grad()
        y = ours(at.put(x))
        assert_match(y, value.detach().numpy(), level="network", terms=60)
        ours.backward(y * 0.0 + 1.0)
        steps.step()
    for mine, yours in names.items():
        for name, array in theirs.state_dict().items():
            if name.startswith(yours):
                found = ours.state_dict()[mine + name.removeprefix(yours)]
                assert_match(found, array.numpy(), level="network", terms=400, name=name)


def test_one_relu_after_each_convolution_is_fused_and_has_the_bits_of_several(at, rng):
    relu = nn.ReLU()

    def build(make):
        return nn.Sequential(
            nn.Conv2d(2, 3, 3), make(), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), make(),
            nn.Residual(nn.Sequential(nn.Conv2d(3, 3, 1), make()), activation=make()), backend=at.backend, seed=3,
        )  # fmt: skip

    x, found = at.put(rng.standard_normal((2, 2, 6, 6)).astype(F32)), []
    for model in (build(lambda: relu), build(nn.ReLU)):
        y = model(x)
        found.append([at.get(y), *gradients(model, y).values(), at.get(model.eval()(x))])
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


def test_the_first_convolution_still_skips_its_input_gradient(monkeypatch):
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Conv2d(1, 2, 3), relu, nn.Parallel(nn.Sequential(relu, nn.Conv2d(2, 2, 1)), relu))
    x = np.random.default_rng(0).standard_normal((2, 1, 5, 5)).astype(F32)
    y = model(x)
    wanted = gradients(model, y)
    seen = []
    original = nn.Conv2d._backward
    monkeypatch.setattr(nn.Conv2d, "_backward", lambda self, dy, grad: seen.append(grad) or original(self, dy, grad))
    for _ in range(2):
        found = gradients(model, y, input_grad=False)
        assert all(same_bits(found[name], wanted[name]) for name in found)
    assert seen == [True, False] * 2


def test_backward_can_be_repeated_and_after_an_error_too(at, rng):
    model = shared(backend=at.backend, seed=1)
    y = model(at.put(batch(rng)))
    first = gradients(model, y)
    with pytest.raises(ValueError):
        model.backward(y[:2, ...])

    class Stop(Exception):
        pass

    def stop(name, layer, dx):
        if name == "3":
            raise Stop

    with pytest.raises(Stop), watched(model, backward=stop):
        model.backward(y)
    again = gradients(model, y)
    assert all(same_bits(first[name], again[name]) for name in first)


def test_within_released_backward_needs_a_forward(at, rng):
    model = shared(backend=at.backend, seed=1)
    y = model(at.put(batch(rng)))
    with nn.released():
        model.backward(y)
    with pytest.raises(RuntimeError, match="backward needs a forward before it"):
        model.backward(y)


def test_layers_one_by_one_in_reverse_are_the_whole_backward(rng):
    dense, tanh = nn.Dense(4, 4), nn.Tanh()
    model = nn.Sequential(dense, tanh, dense, tanh, seed=1)
    y = model(batch(rng))
    whole = gradients(model, y)
    model(batch(np.random.default_rng(20240607)))
    model.zero_grad()
    dy = y
    for layer in reversed(list(model)):
        dy = layer.backward(dy)
    assert same_bits(dy, whole["dx"]) and same_bits(dense.parameters["weight"].grad, whole["0.weight"])
    with pytest.raises(RuntimeError, match=re.escape("Dense(4, 4) is in several places, and each of its calls")):
        dense.backward(dy)
    by_itself = dense(batch(rng))
    dense.backward(by_itself)
    dense.backward(by_itself)


def test_a_slice_that_lost_the_calls_of_another_is_an_error(rng):
    dense = nn.Dense(4, 4)
    model = nn.Sequential(dense, nn.Tanh(), dense, seed=1)
    y = model[1:](model[:1](batch(rng)))
    dy = model[1:].backward(y)
    with pytest.raises(RuntimeError, match="is in several places"):
        model[:1].backward(dy)


def test_names_seeds_and_counts_are_those_of_the_first_place():
    model = shared(seed=1)
    assert [name for name, _ in model.named_layers()][:6] == ["", "0", "1", "2", "3", "3.body"]
    assert [name for name, _ in model.named_parameters()] == [
        "0.weight", "0.bias", "3.body.1.weight", "3.body.1.bias", "5.weight", "5.bias"
    ]  # fmt: skip
    assert {"0.weight", "3.body.0.weight", "8.2.bias", "6.body.1.running_mean"} <= model.state_dict().keys()
    assert len(nn.SGD(model, lr=0.1).parameters) == 6
    assert model.summary((6, 4)).parameters == 4 * 4 + 4 + 8 + 12 * 4 + 4
    once = nn.Sequential(nn.Dense(4, 4), nn.Tanh(), seed=1)
    assert same_bits(model.state_dict()["8.0.weight"], once.state_dict()["0.weight"])
    assert "8.0" in [name for name, _ in model.named_places()]


def test_a_layer_twice_in_the_summary_counts_its_parameters_once():
    dense = nn.Dense(4, 4)
    summary = nn.Sequential(dense, nn.Tanh(), dense).summary((2, 4))
    assert (summary.parameters, summary.multiply_adds) == (20, 64)
    assert "total" in str(summary)


def test_layers_are_watched_once_each_call(rng):
    dense = nn.Dense(4, 4)
    model, seen = nn.Sequential(dense, nn.Tanh(), dense), []
    with watched(model, forward=lambda name, layer, y: seen.append(name)):
        model(batch(rng))
    assert seen == ["0", "1", "0", ""]
    assert len(nn.layer_outputs(model, batch(rng))) == 4
    assert first_difference(model, copy.deepcopy(model), batch(rng), batch(rng)) is None


def test_observing_a_model_between_forward_and_backward_changes_nothing(rng):
    model = shared(seed=1)
    x = batch(rng)
    y = model(x)
    wanted = gradients(model, y)
    model.zero_grad()
    nn.layer_outputs(model, x)
    model.summary((2, 4))
    found = gradients(model, y)
    assert all(same_bits(found[name], wanted[name]) for name in wanted)


def test_it_stays_shared_in_copies_pickles_and_moves(rng):
    model = shared(seed=1)
    y = model(batch(rng))
    wanted = gradients(model, y)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(list(other.named_parameters())) == 6 and other[0] is other[3].children["body"][0]
        found = gradients(other, y)
        assert all(same_bits(found[name], wanted[name]) for name in wanted)
    model.to("strict")
    assert nn.get_backend("strict").owns(model[0].parameters["weight"].value)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_it_is_saved_once_and_loads_back_shared_or_apart(tmp_path, rng, dtype):
    import safetensors.numpy

    model, other = shared(seed=1), shared(seed=2)
    path = tmp_path / "shared.safetensors"
    nn.save(model, path, {"note": 1}, dtype=dtype)
    nn.save(model, tmp_path / "again.safetensors", {"note": 1}, dtype=dtype)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    if dtype is None:
        stored = safetensors.numpy.load_file(path)
        assert [name for name in stored if name.endswith("weight")] == ["0.weight", "3.body.1.weight", "5.weight"]
    assert nn.load(other, path) == {"note": 1}
    assert other[0] is other[8].children["0"] if dtype is None else True
    x = batch(rng)
    if dtype is None:
        assert same_bits(other.eval()(x), model.eval()(x))
    alone = apart(shared(seed=3))
    nn.load(alone, path)
    assert same_bits(alone.eval()(x), other.eval()(x))


def test_one_of_the_names_is_enough_and_both_must_agree():
    model = nn.Sequential(*[nn.Dense(2, 2)] * 2, nn.BatchNorm1d(2))
    names = ("0.weight", "0.bias", "1.weight", "1.bias")
    state = {name: np.full((2, 2) if "weight" in name else 2, 3.0, F32) for name in names}
    norm = {name: array for name, array in model.state_dict().items() if name.startswith("2")}
    for given in (names, names[:2], names[2:], (names[0], names[3])):
        model.load_state_dict({name: state[name] for name in given} | norm)
        assert float(model.state_dict()["1.weight"][0, 0]) == 3.0
        model[0].parameters["weight"].value = np.zeros((2, 2), F32)
    with pytest.raises(ValueError, match=r"0\.bias and 1\.bias are one parameter, but differ"):
        model.load_state_dict(state | norm | {"1.bias": np.zeros(2, F32)})
    with pytest.raises(ValueError, match=r"missing 0\.weight; missing 1\.weight$"):
        model.load_state_dict({"0.bias": state["0.bias"]} | norm)


@pytest.mark.parametrize("kernels", [False, True])
def test_compiled_steps_have_the_bits_of_uncompiled_ones(kernels, request, rng):
    if kernels:
        request.getfixturevalue("compiled_kernels")
    check_compiled(nn.get_backend("numpy"), rng)


def test_cuda_graphs_have_the_bits_of_uncompiled_steps(gpu, rng):
    check_compiled(gpu, rng)


def check_compiled(b, rng):
    models = [shared(wrap, backend=b, seed=1) for wrap in (lambda layer: layer, nn.Checkpointed) for _ in range(2)]
    batches, found = [batch(rng) for _ in range(7)], []
    for i, model in enumerate(models):
        optimizer, loss = nn.SGD(model, lr=0.1, momentum=0.9), nn.MSE()

        def step(x, model=model, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            value = loss(model(x), x)
            with nn.released():
                model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            return value

        run = b.compile(step, model, optimizer) if i % 2 else step
        values = [b.to_numpy(run(b.asarray(x))).tobytes() for x in batches]
        found.append((values, [b.to_numpy(array).tobytes() for array in model.state_dict().values()]))
        assert not i % 2 or run.replayed >= 4
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("shards", [1, 3])
def test_training_in_parts_in_exact_numerics_has_the_same_bits(shards, rng):
    def train(shards):
        model = shared(numerics="exact", seed=1)
        nn.fit(model, (batch(np.random.default_rng(3), 12), np.arange(12) % 4), epochs=2, batch_size=6, shards=shards,
               progress=False)  # fmt: skip
        return [array.tobytes() for array in model.state_dict().values()]

    assert train(shards) == train(1)


def test_a_run_resumes_with_the_same_bits_and_its_checkpoints_hold_each_array_once(tmp_path, rng):
    data = batch(rng, 12), np.arange(12) % 4

    def run(epochs, folder):
        model = shared(seed=1)
        nn.fit(model, data, epochs=epochs, batch_size=6, progress=False, checkpoints=folder, resume=True)
        return model

    whole = run(3, tmp_path / "whole")
    run(2, tmp_path / "parts")
    resumed = run(3, tmp_path / "parts")
    assert [a.tobytes() for a in resumed.state_dict().values()] == [a.tobytes() for a in whole.state_dict().values()]
    found = nn.Checkpoints(tmp_path / "parts").newest()
    assert found.weights.keys() == whole.state_dict().keys()
    assert found.weights["0.weight"] is found.weights["8.2.weight"]
    fresh = shared(seed=5)
    fresh.load_state_dict(found.weights)
    assert same_bits(fresh.state_dict()["8.2.weight"], resumed.state_dict()["0.weight"])


def test_a_container_of_ones_own_gives_a_child_a_name_for_each_call(rng):
    class Loop(nn.Container):
        def __init__(self, layer, times):
            super().__init__({str(i): layer for i in range(times)})

        def forward(self, x):
            for layer in self.children.values():
                x = layer(x)
            return x

        def backward(self, dy, *, input_grad=True):
            for layer in reversed(self.children.values()):
                dy = layer.backward(dy)
            return dy

    layer = nn.Sequential(nn.Dense(4, 4), nn.Tanh())
    for model in (nn.Sequential(Loop(layer, 3), layer, Loop(layer, 2)), Loop(layer, 3)):
        gradcheck(model.to("numpy", "float64"), rng.standard_normal((2, 4)))


def test_gradients_flow_in_evaluation_too(rng):
    model = shared(dtype="float64", seed=1).eval()
    gradcheck(model, rng.standard_normal((3, 4)), tolerance=1e-5)
    model = shared(seed=1).eval()
    with nn.enable_grad():
        y = model(batch(rng))
    assert model.backward(y).shape == (6, 4)
    model(batch(rng))
    with pytest.raises(RuntimeError):
        model.backward(y)
