"""On CuPy a step only queues work: from its second call on it copies nothing to or from the host, and never waits.

Counted on real CuPy, on an emulated device. The first call may compile kernels and make constants.
"""

import numpy as np
import pytest
from device_counts import device_counts, hidden, require_emulator

import xpnn as nn
from xpnn.backends.engines import cuda
from xpnn.testing.cases import LayerCase, cases
from xpnn.training.optimizers import OPTIMIZERS

SINGLE = [case for case in cases() if case.single and case.dtype == "float32"]


@pytest.fixture
def cupy_backend(gpu):
    require_emulator("counts are those of an emulated CUDA device")
    return gpu


@pytest.fixture(params=["fast", "exact"])
def b(cupy_backend, request):
    return nn.get_backend(cupy_backend, numerics=request.param)


def waits_and_copies(step):
    """The waits and copies of the second call of a step."""
    step()
    with device_counts() as counts:
        step()
    return hidden(counts)


def prepared(case, b):
    """One forward and backward of a case, whose arrays are on the device."""
    subject, x, target = case.prepare(b, "float32")
    given = (x,) if isinstance(case, LayerCase) else (x, target)
    y = subject(*given)
    y = y[0] if isinstance(y, tuple) else y
    backward = getattr(case, "training", True)
    upstream = case.generator.fold_in("upstream").uniform(tuple(y.shape), -1.0, 1.0, "float32", "numpy")
    dy = b.asarray(upstream) if y.ndim else None

    def step():
        subject(*given)
        if backward:
            subject.backward() if dy is None else subject.backward(dy)

    return step


def families():
    """The cases of the catalogue by subject: one test for each subject."""
    found = {}
    for case in SINGLE:
        found.setdefault(case.subject, []).append(case)
    return found


FAMILIES = families()


@pytest.mark.parametrize("subject", FAMILIES)
def test_forward_and_backward_neither_wait_nor_copy(b, subject):
    found = {case.name: waits_and_copies(prepared(case, b)) for case in FAMILIES[subject]}
    assert {name: counts for name, counts in found.items() if counts} == {}


@pytest.mark.parametrize("subject", ["Conv2d", "BatchNorm2d", "MaxPool2d", "AvgPool2d", "CrossEntropy"])
def test_array_functions_in_place_of_kernels_neither_wait_nor_copy(cupy_backend, subject, monkeypatch):
    monkeypatch.setattr(cuda, "enabled", False)
    found = {case.name: waits_and_copies(prepared(case, cupy_backend)) for case in FAMILIES[subject]}
    assert {name: counts for name, counts in found.items() if counts} == {}


def net(b):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Dense(8, 3), backend=b)
    x, y = b.asarray(np.ones((4, 1, 4, 4), "float32")), b.asarray(np.arange(4) % 3)
    loss = nn.CrossEntropy(backend=b)

    def gradients():
        model.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)

    return model, gradients


SETTINGS = {
    "sgd": [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}],
    "adam": [{}, {"weight_decay": 0.01}, {"capturable": True}, {"amsgrad": True}, {"maximize": True}],
    "adamw": [{}, {"capturable": True}],
    "rmsprop": [{}, {"centered": True, "momentum": 0.9}],
    "adagrad": [{"lr_decay": 0.1}, {"lr_decay": 0.1, "capturable": True}],
    "adadelta": [{}, {"maximize": True}],
    "adamax": [{}, {"capturable": True}],
    "nadam": [{}, {"capturable": True}],
    "radam": [{}, {"betas": (0.9, 0.75)}, {"capturable": True}],
    "lion": [{"weight_decay": 0.01}],
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_steps_neither_wait_nor_copy(b, name):
    for settings in SETTINGS[name]:
        model, gradients = net(b)
        optimizer = OPTIMIZERS[name](model, **settings)

        def step(gradients=gradients, optimizer=optimizer):
            gradients()
            optimizer.step()

        assert waits_and_copies(step) == {}, settings


@pytest.mark.parametrize("norm_type", [1, 2, 2.5, float("inf")])
def test_clipping_by_norm_neither_waits_nor_copies(b, norm_type):
    model = nn.Sequential(*(nn.Dense(3, 3) for _ in range(6)), backend=b)
    x = b.asarray(np.ones((2, 3), "float32"))

    def step():
        model.backward(model(x))
        nn.clip_grad_norm(model, 0.1, norm_type)

    assert waits_and_copies(step) == {}


def test_clipping_by_value_neither_waits_nor_copies(b):
    model, gradients = net(b)

    def step():
        gradients()
        nn.clip_grad_value(model, 0.1)

    assert waits_and_copies(step) == {}


def test_many_branches_are_joined_without_a_copy(b):
    model = nn.Parallel(*(nn.Dense(3, 2) for _ in range(9)), backend=b)
    x = b.asarray(np.ones((2, 3), "float32"))
    assert waits_and_copies(lambda: model(x)) == {}


def test_fit_copies_each_batch_in_and_reads_at_the_end_of_an_epoch(b):
    def counted(batches):
        model, _ = net(b)
        x, y = np.ones((4 * batches, 1, 4, 4), "float32"), np.arange(4 * batches) % 3
        with device_counts() as counts:
            nn.fit(model, (x, y), epochs=1, batch_size=4, clip_norm=1.0, progress=False)
        return hidden(counts)

    counted(2)
    few, many = counted(3), counted(7)
    assert many == {**few, "to_device": few["to_device"] + 4}


@pytest.mark.parametrize("loss", [{}, {"weight": [1.0, 2.0, 3.0]}], ids=["plain", "weights"])
def test_targets_that_are_ignored_are_counted_on_the_device(b, loss):
    def counted(batches):
        model, _ = net(b)
        x, y = np.ones((4 * batches, 1, 4, 4), "float32"), np.arange(4 * batches) % 3
        y[::5] = -100
        with device_counts() as counts:
            options = {"epochs": 1, "batch_size": 4, "progress": False, "validation": (x, y)}
            nn.fit(model, (x, y), loss=nn.CrossEntropy(**loss), **options)
        return hidden(counts)

    counted(2)
    few, many = counted(3), counted(7)
    assert many == {**few, "to_device": few["to_device"] + 8}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_neither_wait_nor_copy(cupy_backend, dtype):
    stream = nn.random.Generator(3)
    draws = (
        lambda: stream.uniform((3, 5), -2.0, 3.0, dtype, cupy_backend),
        lambda: stream.normal((3, 5), 1.0, 2.0, dtype, cupy_backend),
        lambda: stream.bits((3, 5), cupy_backend),
    )
    assert [waits_and_copies(draw) for draw in draws] == [{}, {}, {}]
