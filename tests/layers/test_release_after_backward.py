"""Within `released`, what forward saved is freed as soon as backward is done."""

import gc
import re
import threading
import timeit
import weakref
from contextlib import nullcontext

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.layer_outputs import watched
from xpnn.layers.core.release_after_backward import is_within_released
from xpnn.testing.cases import LayerCase
from xpnn.testing.compare import same_bits
from xpnn.training.gradients import accumulate, forward_backward

CASES = [c for c in nn.testing.cases() if isinstance(c, LayerCase) and c.name.endswith("/plain")]


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def net(backend="numpy", **options):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Dense(16, 3),
        backend=backend,
        seed=3,
        **options,
    )


@pytest.fixture
def batch(at, rng):
    return at.put(rng.standard_normal((4, 2, 5, 5)), "float32"), at.put(np.arange(4) % 3)


def kept(model):
    return [name for name, layer in model.named_layers() if layer.saved is not None]


def test_gradients_are_the_same_bits(at, batch):
    found = []
    for context in (nn.released, nullcontext):
        model, loss = net(at.backend), nn.CrossEntropy()
        value = loss(model(batch[0]), batch[1])
        with context():
            dx = model.backward(loss.backward())
        found.append([at.get(array) for array in (value, dx, *(p.grad for _, p in model.named_parameters()))])
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))


def test_a_layer_frees_what_it_saved_at_the_end_of_its_backward(at, batch):
    model = net(at.backend)
    y = model(batch[0])
    leaves = [name for name, layer in model.named_layers() if len(list(layer.named_layers())) == 1]
    done, still = [], []

    def look(name, layer, dx):
        if name in leaves:
            done.append(name)
            still.append([n for n in leaves if n in kept(model)])

    with nn.released(), watched(model, backward=look):
        model.backward(y)
    assert done == leaves[::-1]
    for i, holding in enumerate(still):
        assert not set(holding) & set(done[: i + 1])
        assert set(holding) == set(leaves[: len(leaves) - i - 1])


def test_the_memory_of_the_arrays_is_freed(rng):
    model, loss = net(), nn.CrossEntropy()
    outputs = []
    with watched(model, forward=lambda name, layer, y: outputs.append(weakref.ref(y))):
        prediction = model(rng.standard_normal((4, 2, 5, 5)).astype(np.float32))
    loss(prediction, np.arange(4) % 3)
    gc.disable()
    try:
        with nn.released():
            model.backward(loss.backward(), input_grad=False)
        assert all(ref() is None or ref() is prediction for ref in outputs)
        last = weakref.ref(prediction)
        del prediction
        assert last() is None, "the loss holds the prediction"
    finally:
        gc.enable()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.subject)
def test_every_layer_frees_what_it_saved(case):
    layer, x, _ = case.prepare(nn.get_backend("numpy"), "float32")
    y = layer(x)
    with nn.released():
        layer.backward(y)
        assert kept(layer) in ([], [""] if isinstance(layer, nn.Parallel) else [])
        leaf = next(part for _, part in layer.named_layers() if not isinstance(part, nn.Container))
        with raises(RuntimeError, "backward needs a forward before it, in training mode; within released() each"):
            leaf.backward(y)


def in_two_parts(model, loss, x, y):
    return accumulate(model, loss, [1, 1], x, y)


@pytest.mark.parametrize("step", [forward_backward, in_two_parts])
def test_a_training_step_keeps_nothing(at, batch, step):
    model, loss = net(at.backend), nn.CrossEntropy()
    step(model, loss, *batch)
    assert kept(model) == [] and loss._saved is None
    assert not is_within_released()


def test_nothing_is_saved_after_a_training_step_in_shards(rng):
    model = net(nn.get_backend("numpy", numerics="exact"))
    x, y = rng.standard_normal((4, 2, 5, 5)).astype(np.float32), np.arange(4) % 3
    with nn.training.shards.Shards(model, nn.CrossEntropy(), [1, 1]) as shards:
        shards.forward_backward(x, y)
        assert all(kept(twin) == [] and loss._saved is None for twin, loss in shards._workers)


def test_outside_of_released_backward_can_be_repeated(at, batch):
    model, loss = net(at.backend), nn.CrossEntropy()
    loss(model(batch[0]), batch[1])
    model.backward(loss.backward())
    once = [at.get(p.grad).copy() for _, p in model.named_parameters()]
    model.backward(loss.backward())
    for first, (name, p) in zip(once, model.named_parameters(), strict=True):
        assert np.allclose(at.get(p.grad), 2 * first), name


def test_a_loss_has_one_backward_for_each_forward():
    loss = nn.MSE()
    loss(np.ones(3, np.float32), np.zeros(3, np.float32))
    with nn.released():
        loss.backward()
    with raises(RuntimeError, "backward needs a forward before it; within released() each backward needs its own"):
        loss.backward()


def test_it_ends_with_its_block_and_applies_to_its_thread():
    seen = []
    with nn.released():
        with nn.released():
            pass
        assert is_within_released()
        thread = threading.Thread(target=lambda: seen.append(is_within_released()))
        thread.start()
        thread.join()
    with pytest.raises(ZeroDivisionError), nn.released():
        raise ZeroDivisionError
    assert seen == [False] and not is_within_released()


def test_release_frees_what_a_layer_and_a_loss_saved(at, batch):
    model, loss = net(at.backend), nn.CrossEntropy()
    loss(model(batch[0]), batch[1])
    model.release()
    loss.release()
    assert kept(model) == [] and loss._saved is None


def test_is_within_released_takes_less_than_half_a_microsecond():
    assert min(timeit.repeat(is_within_released, number=10_000, repeat=5)) / 10_000 < 0.5e-6
