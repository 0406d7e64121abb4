"""Checkpointed: the same bits as the layer within, which is computed again and saves nothing."""

import copy
import gc
import pickle
import re
import weakref

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match, gradcheck
from xpnn.testing.compare import same_bits


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def stage(channels, out):
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.Tanh(), nn.Dropout(0.25))


def build(wrap, backend="numpy"):
    inner = nn.Residual(wrap(nn.Sequential(stage(4, 4), wrap(stage(4, 4)))), activation=nn.ReLU())
    return nn.Sequential(wrap(stage(2, 4)), wrap(inner), nn.Flatten(), wrap(nn.Dense(100, 3)), backend=backend, seed=5)


def plain(layer):
    return layer


def batches(rng, count=3):
    return [rng.standard_normal((4, 2, 5, 5)).astype(np.float32) for _ in range(count)]


def train(model, b, hosts, **options):
    """Outputs, input's gradients, parameters' gradients and state after some steps, on the host."""
    loss, found = nn.CrossEntropy(), []
    with nn.use_backend(b):
        for host in hosts:
            y = model(b.asarray(host))
            loss(y, b.asarray(np.arange(4) % 3))
            dx = model.backward(loss.backward(), **options)
            found += [y, *([] if dx is None else [dx])]
    found += [p.grad for _, p in model.named_parameters()] + list(model.state_dict().values())
    positions = [layer.stream.position for _, layer in model.named_layers() if isinstance(layer, nn.Dropout)]
    return [b.to_numpy(array) for array in found], positions


def assert_same(one, other):
    assert one[1] == other[1]
    assert len(one[0]) == len(other[0])
    assert all(same_bits(a, b) for a, b in zip(one[0], other[0], strict=True))


@pytest.mark.parametrize("options", [{}, {"input_grad": False}], ids=["", "no-input-grad"])
def test_training_has_the_same_bits_as_without(at, rng, options):
    hosts = batches(rng)
    wanted = train(build(plain, at.backend), at.backend, hosts, **options)
    assert_same(train(build(nn.Checkpointed, at.backend), at.backend, hosts, **options), wanted)


def test_training_in_exact_numerics_has_the_same_bits_as_without(exact, rng):
    hosts = batches(rng, 2)
    assert_same(train(build(nn.Checkpointed, exact), exact, hosts), train(build(plain, exact), exact, hosts))


def test_training_with_compiled_kernels_has_the_same_bits_as_without(compiled_kernels, rng):
    hosts = batches(rng)
    b = nn.get_backend("numpy")
    assert_same(train(build(nn.Checkpointed, b), b, hosts), train(build(plain, b), b, hosts))


def test_within_released_the_bits_are_the_same_and_nothing_is_saved(at, rng):
    hosts = batches(rng)
    wanted = train(build(plain, at.backend), at.backend, hosts)
    model = build(nn.Checkpointed, at.backend)
    with nn.released():
        assert_same(train(model, at.backend, hosts), wanted)
    assert all(layer.saved is None for _, layer in model.named_layers())


def test_backward_can_be_repeated(at, rng):
    one, other = build(plain, at.backend), build(nn.Checkpointed, at.backend)
    x = at.put(batches(rng, 1)[0])
    found = []
    for model in (one, other):
        dy = model(x) * 0.0 + 1.0
        model.backward(dy)
        found.append((model.backward(dy), model.state_dict(), [p.grad for _, p in model.named_parameters()]))
    assert_match(found[1][0], found[0][0], level="exact", backend=at.backend)
    for name, array in found[0][1].items():
        assert same_bits(at.get(found[1][1][name]), at.get(array)), name
    assert all(same_bits(at.get(a), at.get(b)) for a, b in zip(found[0][2], found[1][2], strict=True))


@pytest.mark.parametrize("shards", [[1, 1], [3, 1]])
def test_shards_in_exact_numerics_give_the_bits_of_the_whole_batch(rng, shards):
    x, y = np.concatenate(batches(rng, 2)), np.arange(8) % 3
    states = []
    for wrap, sizes in ((plain, 1), (nn.Checkpointed, shards)):
        model = build(wrap, nn.get_backend("numpy", numerics="exact"))
        nn.fit(model, (x, y), epochs=1, batch_size=4, shards=sizes, progress=False)
        states.append(model.state_dict())
    for name, array in states[0].items():
        assert same_bits(array, states[1][name]), name


def test_names_weights_and_seeds_are_those_of_the_layer_within(at):
    one, other = build(plain, at.backend), build(nn.Checkpointed, at.backend)
    assert list(other.state_dict()) == list(one.state_dict())
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in one.named_parameters()]
    for name, array in one.state_dict().items():
        assert_match(other.state_dict()[name], array, level="exact", backend=at.backend, name=name)


def test_weights_load_with_and_without(tmp_path):
    one, other = build(plain), build(nn.Checkpointed)
    for _, parameter in one.named_parameters():
        parameter.value = parameter.value + np.float32(1)
    nn.save(one, tmp_path / "weights.safetensors")
    nn.load(other, tmp_path / "weights.safetensors")
    assert all(same_bits(array, other.state_dict()[name]) for name, array in one.state_dict().items())
    build(plain).load_state_dict(other.state_dict())


def test_only_the_input_is_saved_after_forward(rng):
    model = nn.Checkpointed(stage(2, 4), seed=1)
    seen = []
    with nn.layers.core.layer_outputs.watched(model, forward=lambda _, layer, y: seen.append((layer, weakref.ref(y)))):
        y = model(batches(rng, 1)[0])
    gc.collect()
    assert [layer for layer, ref in seen if ref() is not None and ref() is not y] == []
    assert all(layer.saved is None for _, layer in model.layer.named_layers())
    model.backward(y)
    assert all(layer.saved is None for _, layer in model.layer.named_layers())


def test_evaluation_saves_nothing_and_has_no_backward(rng):
    model = nn.Checkpointed(stage(2, 4), seed=1).eval()
    y = model(batches(rng, 1)[0])
    assert all(layer.saved is None for _, layer in model.named_layers())
    for refused in (model, model.train()):
        with raises(RuntimeError, "backward needs a forward before it, in training mode"):
            refused.backward(y)


def test_running_statistics_are_updated_once_a_step(rng):
    model = nn.Checkpointed(nn.BatchNorm2d(2))
    model.backward(model(batches(rng, 1)[0]))
    assert int(model.state_dict()["num_batches_tracked"]) == 1


def test_buffers_are_restored_if_the_second_forward_fails(rng):
    model = nn.Checkpointed(nn.Sequential(nn.BatchNorm2d(2), nn.Tanh()))
    y = model(batches(rng, 1)[0])
    before = {name: np.array(array) for name, array in model.state_dict().items()}

    def fail(x):
        raise MemoryError

    model.layer[0].forward = fail
    with pytest.raises(MemoryError):
        model.backward(y)
    assert all(same_bits(array, before[name]) for name, array in model.state_dict().items())


def test_gradients_are_those_of_the_forward(rng):
    gradcheck(nn.Checkpointed(nn.Sequential(nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 2)), dtype="float64"), np.eye(4))


def test_moving_pickling_and_copying_include_the_layer_within(rng):
    model = build(nn.Checkpointed)
    x = batches(rng, 1)[0]
    model(x)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert same_bits(twin.eval()(x), model.eval()(x))
    moved = twin.train().to("strict")
    assert all(layer.backend.spec == "strict" for _, layer in moved.named_layers())
    with raises(RuntimeError, "backward needs a forward before it"):
        moved.backward(moved.backend.asarray(x))


def test_placement_applies_to_the_layer_within():
    model = nn.Checkpointed(nn.Dense(2, 2), backend="strict", dtype="float64", seed=3)
    assert model.layer.backend.spec == "strict" and model.backend.dtype_name == "float64"
    assert same_bits(
        np.asarray(model.state_dict()["weight"]),
        np.asarray(nn.Dense(2, 2, backend="strict", dtype="float64", seed=3).state_dict()["weight"]),
    )


def test_summary_counts_the_layer_within_once():
    one, other = (build(wrap).summary((1, 2, 5, 5)) for wrap in (plain, nn.Checkpointed))
    assert [row.name for row in other.rows] == [row.name for row in one.rows]
    assert (other.parameters, other.multiply_adds) == (one.parameters, one.multiply_adds)


def test_every_array_of_the_state_has_a_slot():
    slots = list(build(nn.Checkpointed).slots())
    assert len({slot.place for slot in slots}) == len(slots)


def test_repr_is_the_constructor_call():
    model = nn.Checkpointed(nn.Sequential(nn.Dense(2, 3), nn.ReLU()))
    assert repr(model) == "Checkpointed(Sequential(Dense(2, 3), ReLU()))"
    assert repr(eval(repr(model), vars(nn))) == repr(model)


def test_errors_name_the_layer_within_and_an_argument_that_is_not_a_layer():
    with raises(ValueError, "Dense(4, 3): input must have shape (N, ..., 4), got (1, 3)"):
        nn.Checkpointed(nn.Dense(4, 3))(np.zeros((1, 3), np.float32))
    with raises(TypeError, "layer must be a Layer, got [Dense(2, 2)]; for several, Checkpointed(Sequential("):
        nn.Checkpointed([nn.Dense(2, 2)])
