"""Optimizers against PyTorch's trajectories, and what they do with their state."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

STEPS = 20

# our class and arguments, PyTorch's class and arguments
CASES = {
    "sgd": (nn.SGD, {"lr": 0.1}, "SGD", {"lr": 0.1}),
    "sgd-momentum": (nn.SGD, {"lr": 0.1, "momentum": 0.9}, "SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd-nesterov-decay": (
        nn.SGD,
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (nn.Adam, {"lr": 0.05}, "Adam", {"lr": 0.05}),
    "sgd-dampening": (
        nn.SGD,
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    ),
    "adamw": (nn.AdamW, {"lr": 0.05}, "AdamW", {"lr": 0.05}),
    "adamw-decay": (nn.AdamW, {"lr": 0.05, "weight_decay": 0.5}, "AdamW", {"lr": 0.05, "weight_decay": 0.5}),
    "rmsprop": (nn.RMSprop, {"lr": 0.05}, "RMSprop", {"lr": 0.05}),
    "rmsprop-centered-momentum": (
        nn.RMSprop,
        {"lr": 0.02, "alpha": 0.9, "momentum": 0.7, "centered": True, "weight_decay": 0.1},
        "RMSprop",
        {"lr": 0.02, "alpha": 0.9, "momentum": 0.7, "centered": True, "weight_decay": 0.1},
    ),
    "adagrad": (nn.Adagrad, {"lr": 0.1}, "Adagrad", {"lr": 0.1}),
    "adagrad-decays": (
        nn.Adagrad,
        {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-6},
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-6},
    ),
    "adam-decay": (
        nn.Adam,
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
        "Adam",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1},
    ),
}


def gradients(value, step):
    """A gradient that depends on the value, so that an error of one step reaches the next."""
    return 2.0 * value + np.cos(step + np.arange(value.size).reshape(value.shape))


def trajectory(at, make, steps=STEPS, dtype="float64"):
    backend = nn.get_backend(at.backend, dtype)
    parameter = nn.Parameter(backend.asarray(np.linspace(-1, 1, 6).reshape(2, 3).astype(dtype)))
    optimizer = make([parameter])
    for step in range(steps):
        host = backend.to_numpy(parameter.value)
        parameter.grad = backend.asarray(gradients(host, step).astype(dtype))
        optimizer.step()
    return parameter, optimizer


@pytest.mark.parametrize("case", CASES)
def test_trajectory_is_pytorchs(at, torch, case):
    ours, arguments, theirs, their_arguments = CASES[case]
    parameter, _ = trajectory(at, lambda p: ours(p, **arguments))
    tensor = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    optimizer = getattr(torch.optim, theirs)([tensor], **their_arguments)
    for step in range(STEPS):
        tensor.grad = torch.from_numpy(gradients(tensor.detach().numpy(), step))
        optimizer.step()
    np.testing.assert_allclose(at.get(parameter.value), tensor.detach().numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_values_keep_their_dtype_and_backend(at, case):
    ours, arguments, _, _ = CASES[case]
    parameter, optimizer = trajectory(at, lambda p: ours(p, **arguments), steps=2, dtype="float32")
    assert_match(parameter.value, at.get(parameter.value), backend=at.backend, dtype="float32")
    for state in optimizer.state_dict()["state"].values():
        for value in state.values():
            assert not hasattr(value, "dtype") or at.backend.owns(value)


def test_first_step_of_adam_is_lr_times_the_sign(at):
    """m / sqrt(v) is the sign of the first gradient once both biases are corrected."""
    parameter = nn.Parameter(at.put(np.zeros(3, np.float32)))
    parameter.grad = at.put(np.array([0.5, -3.0, 1e-3], np.float32))
    nn.Adam([parameter], lr=0.1).step()
    np.testing.assert_allclose(at.get(parameter.value), [-0.1, 0.1, -0.1], rtol=1e-4)


def test_parameter_without_gradient_stays(at):
    parameter = nn.Parameter(at.put(np.ones(2, np.float32)))
    nn.SGD([parameter], lr=1.0, weight_decay=0.5).step()
    assert at.get(parameter.value).tolist() == [1.0, 1.0]


def test_step_mutates_neither_value_nor_gradient(at):
    value, gradient = at.put(np.ones(2, np.float32)), at.put(np.full(2, 3.0, np.float32))
    parameter = nn.Parameter(value)
    optimizer = nn.SGD([parameter], lr=0.1, momentum=0.9)
    for _ in range(2):
        parameter.grad = gradient
        optimizer.step()
    assert at.get(value).tolist() == [1.0, 1.0]
    assert at.get(gradient).tolist() == [3.0, 3.0]


@pytest.mark.parametrize("case", CASES)
def test_going_on_from_state_dict_is_going_on(at, case):
    ours, arguments, _, _ = CASES[case]
    whole, _ = trajectory(at, lambda p: ours(p, **arguments), steps=6)
    half, optimizer = trajectory(at, lambda p: ours(p, **arguments), steps=3)
    saved = optimizer.state_dict()
    resumed = ours([half], **(arguments | {"lr": 9.0}))
    resumed.load_state_dict(saved)
    for step in range(3, 6):
        host = at.get(half.value)
        half.grad = nn.get_backend(at.backend, "float64").asarray(gradients(host, step))
        resumed.step()
    assert_match(half.value, whole.value, level="exact")


def test_state_dict_of_another_optimizer_is_refused():
    parameter = nn.Parameter(np.ones(2, np.float32))
    with pytest.raises(ValueError, match="not those of this optimizer"):
        nn.SGD([parameter]).load_state_dict(nn.Adam([parameter]).state_dict())


def test_state_moves_with_the_model():
    model = nn.Sequential(nn.Dense(3, 2), backend="numpy")
    optimizer = nn.SGD(model, lr=0.1, momentum=0.9)
    x = np.ones((2, 3), np.float32)
    model.backward(model(x))
    optimizer.step()
    model.to("strict:device1")
    b = model.backend
    model.backward(model(b.asarray(x)))
    optimizer.step()
    assert all(b.owns(state["velocity"]) for state in optimizer.state_dict()["state"].values())


def test_second_optimizer_starts_afresh():
    parameter = nn.Parameter(np.zeros(1, np.float32))
    first, second = nn.SGD([parameter], lr=1.0, momentum=0.5), nn.SGD([parameter], lr=1.0, momentum=0.5)
    for optimizer in (first, second):
        parameter.grad = np.ones(1, np.float32)
        optimizer.step()
    assert parameter.value.tolist() == [-2.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: nn.SGD(p, lr=0.0),
        lambda p: nn.SGD(p, lr=-1.0),
        lambda p: nn.SGD(p, lr=float("nan")),
        lambda p: nn.SGD(p, lr="fast"),
        lambda p: nn.SGD(p, momentum=1.5),
        lambda p: nn.SGD(p, nesterov=True),
        lambda p: nn.SGD(p, weight_decay=-0.1),
        lambda p: nn.Adam(p, betas=(1.0, 0.9)),
        lambda p: nn.Adam(p, eps=0.0),
        lambda p: nn.Adam([]),
        lambda p: nn.Adam([1.0]),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make([nn.Parameter(np.ones(2, np.float32))])
