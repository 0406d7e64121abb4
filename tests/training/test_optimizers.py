"""Optimizers against PyTorch's trajectories, and what they do with their state."""

import copy

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match
from xpnn.training.optimizers import OPTIMIZERS

STEPS = 20

# the class, ours and PyTorch's, and its arguments
CASES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd-momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd-dampening": ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd-nesterov-decay": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.05}),
    "adam-decay": ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"lr": 0.05}),
    "adamw-decay": ("AdamW", {"lr": 0.05, "weight_decay": 0.5}),
    "rmsprop": ("RMSprop", {"lr": 0.05}),
    "rmsprop-momentum": ("RMSprop", {"lr": 0.02, "alpha": 0.9, "momentum": 0.7, "eps": 1e-6}),
    "rmsprop-centered": ("RMSprop", {"lr": 0.02, "centered": True}),
    "rmsprop-centered-momentum": (
        "RMSprop",
        {"lr": 0.02, "alpha": 0.9, "momentum": 0.7, "centered": True, "weight_decay": 0.1},
    ),
    "adagrad": ("Adagrad", {"lr": 0.1}),
    "adagrad-decays": (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-6},
    ),
    "amsgrad": ("AdamW", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    "adadelta": ("Adadelta", {"weight_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    "nadam": ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": ("RAdam", {"lr": 0.05, "weight_decay": 0.1}),
    "lion": ("Lion", {"lr": 0.05, "weight_decay": 0.1}),
}


def create(case, parameters, **changes):
    name, arguments = CASES[case]
    return getattr(nn, name)(parameters, **(arguments | changes))


def gradients(value, step):
    """A gradient that depends on the value, so that an error of one step reaches the next."""
    return 2.0 * value + np.cos(step + np.arange(value.size).reshape(value.shape))


def trajectory(at, case, steps=STEPS, dtype="float64"):
    backend = nn.get_backend(at.backend, dtype)
    parameter = nn.Parameter(backend.asarray(np.linspace(-1, 1, 6).reshape(2, 3).astype(dtype)))
    optimizer = create(case, [parameter])
    for step in range(steps):
        host = backend.to_numpy(parameter.value)
        parameter.grad = backend.asarray(gradients(host, step).astype(dtype))
        optimizer.step()
    return parameter, optimizer


@pytest.mark.parametrize("case", CASES)
def test_trajectory_is_pytorchs(at, torch, case):
    parameter, _ = trajectory(at, case)
    name, arguments = CASES[case]
    if name == "Lion":
        pytest.skip("PyTorch has no Lion")
    tensor = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    optimizer = getattr(torch.optim, name)([tensor], **arguments)
    for step in range(STEPS):
        tensor.grad = torch.from_numpy(gradients(tensor.detach().numpy(), step))
        optimizer.step()
    np.testing.assert_allclose(at.get(parameter.value), tensor.detach().numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_values_keep_their_dtype_and_backend(at, case):
    parameter, optimizer = trajectory(at, case, steps=2, dtype="float32")
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
def test_a_step_after_loading_a_state_dict_is_the_next_step(at, case):
    whole, _ = trajectory(at, case, steps=6)
    half, optimizer = trajectory(at, case, steps=3)
    saved = optimizer.state_dict()
    resumed = create(case, [half], lr=9.0)
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


@pytest.mark.parametrize("case", CASES)
def test_state_moves_with_the_model(case):
    model = nn.Sequential(nn.Dense(3, 2), backend="numpy")
    optimizer = create(case, model)
    x = np.ones((2, 3), np.float32)
    model.backward(model(x))
    optimizer.step()
    model.to("strict:device1")
    b = model.backend
    model.backward(model(b.asarray(x)))
    optimizer.step()
    arrays = [v for state in optimizer.state_dict()["state"].values() for v in state.values() if hasattr(v, "dtype")]
    assert all(b.owns(array) for array in arrays)
    assert arrays or case == "sgd"


@pytest.mark.parametrize("case", CASES)
def test_step_copies_nothing_between_host_and_device(at, case):
    parameter, optimizer = trajectory(at, case, steps=1)
    backend = parameter.backend
    before = backend.transfers
    optimizer.step()
    assert backend.transfers == before


def test_decay_of_adamw_is_decoupled_from_the_gradient(at):
    parameter = nn.Parameter(at.put(np.ones(2, np.float32)), at.put(np.zeros(2, np.float32)))
    nn.AdamW([parameter], lr=0.5, weight_decay=0.5).step()
    assert at.get(parameter.value).tolist() == [0.75, 0.75]


def test_names_are_those_of_the_command():
    first = ["sgd", "adam", "adamw", "rmsprop", "adagrad"]
    assert list(OPTIMIZERS) == [*first, "adadelta", "adamax", "nadam", "radam", "lion"]


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
        lambda p: nn.SGD(p, momentum=0.9, dampening=0.1, nesterov=True),
        lambda p: nn.SGD(p, dampening=-0.1),
        lambda p: nn.SGD(p, weight_decay=-0.1),
        lambda p: nn.AdamW(p, weight_decay=-0.1),
        lambda p: nn.RMSprop(p, alpha=1.0),
        lambda p: nn.RMSprop(p, momentum=-0.1),
        lambda p: nn.Adagrad(p, lr_decay=-1.0),
        lambda p: nn.Adagrad(p, initial_accumulator_value=-1.0),
        lambda p: nn.Adam(p, betas=(1.0, 0.9)),
        lambda p: nn.Adam(p, eps=0.0),
        lambda p: nn.Adam(p, amsgrad=1),
        lambda p: nn.SGD(p, maximize="yes"),
        lambda p: nn.Adadelta(p, rho=1.0),
        lambda p: nn.Adamax(p, betas=(0.9, 1.0)),
        lambda p: nn.NAdam(p, momentum_decay=-1.0),
        lambda p: nn.RAdam(p, decoupled_weight_decay=1),
        lambda p: nn.Lion(p, betas=(0.9,)),
        lambda p: nn.Adam([]),
        lambda p: nn.Adam([1.0]),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make([nn.Parameter(np.ones(2, np.float32))])


@pytest.mark.parametrize("case", CASES)
def test_steps_after_the_first_change_the_arrays_in_place(at, case):
    parameter, optimizer = trajectory(at, case, steps=1, dtype="float32")
    arrays = [parameter.value, *held(parameter, optimizer)]
    before = at.get(parameter.value).tolist()
    parameter.grad = at.put(np.ones((2, 3), np.float32))
    optimizer.step()
    assert all(a is b for a, b in zip(arrays, [parameter.value, *held(parameter, optimizer)], strict=True))
    assert at.get(arrays[0]).tolist() != before


def held(parameter, optimizer):
    return [value for value in parameter.states[optimizer].values() if hasattr(value, "dtype")]


def test_state_dict_of_a_model_shows_later_steps():
    model = nn.Dense(2, 1)
    optimizer = nn.SGD(model, lr=1.0)
    one_step(model, optimizer)
    state = model.state_dict()
    before = state["weight"].copy()
    one_step(model, optimizer)
    assert state["weight"] is model.parameters["weight"].value
    assert (state["weight"] != before).all()


def one_step(model, optimizer):
    optimizer.zero_grad()
    model.backward(model(np.ones((3, 2), np.float32)))
    optimizer.step()


@pytest.mark.parametrize("way", ["set", "load_state_dict"])
def test_arrays_handed_to_a_trained_model_stay(way):
    model = nn.Dense(2, 1, bias=False)
    optimizer = nn.SGD(model, lr=1.0, momentum=0.5)
    one_step(model, optimizer)
    mine = np.ones((1, 2), np.float32)
    if way == "set":
        model.parameters["weight"].value = mine
    else:
        model.load_state_dict({"weight": mine})
    for _ in range(2):
        one_step(model, optimizer)
    assert mine.tolist() == [[1.0, 1.0]]
    assert model.parameters["weight"].value.tolist() != [[1.0, 1.0]]


def test_read_only_value_is_trained_as_a_copy():
    value = np.ones(2, np.float32)
    value.flags.writeable = False
    parameter = nn.Parameter(value, np.ones(2, np.float32))
    nn.SGD([parameter], lr=0.5).step()
    assert parameter.value.tolist() == [0.5, 0.5]


def test_loaded_state_is_not_shared_with_the_optimizer_it_came_from():
    parameter = nn.Parameter(np.zeros(1, np.float32), np.ones(1, np.float32))
    first = nn.SGD([parameter], lr=1.0, momentum=0.5)
    first.step()
    second = nn.SGD([parameter], lr=1.0, momentum=0.5)
    second.load_state_dict(first.state_dict())
    second.step()
    assert first.state_dict()["state"]["0"]["velocity"].tolist() == [1.0]


@pytest.mark.parametrize("copy_of", [copy.copy, copy.deepcopy])
def test_copy_of_a_trained_parameter_is_not_trained_along(copy_of):
    parameter = nn.Parameter(np.zeros(1, np.float32), np.ones(1, np.float32))
    optimizer = nn.SGD([parameter], lr=1.0)
    optimizer.step()
    other = copy_of(parameter)
    nn.SGD([other], lr=1.0).step()
    assert (parameter.value.tolist(), other.value.tolist()) == ([-1.0], [-2.0])


def test_accumulating_changes_neither_term(at):
    parameter = nn.Parameter(at.put(np.zeros(2, np.float32)))
    terms = [at.put(np.full(2, value, np.float32)) for value in (1.0, 2.0, 4.0)]
    for term in terms:
        parameter.accumulate(term)
    assert at.get(parameter.grad).tolist() == [7.0, 7.0]
    assert [at.get(term).tolist() for term in terms] == [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]


def test_gradient_of_another_shape_is_refused():
    parameter = nn.Parameter(np.zeros(2, np.float32), np.ones((), np.float32))
    with pytest.raises(ValueError, match=r"gradient must have the shape of its parameter, \(2,\), got \(\)"):
        nn.SGD([parameter]).step()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["one order in memory", "two"])
@pytest.mark.parametrize("case", ["sgd-nesterov-decay", "adamw-decay"])
def test_large_update_has_the_bits_of_the_whole_for_any_number_of_threads(monkeypatch, case, order):
    """With two memory layouts the arrays are not cut as vectors."""
    shape = (5, 700, 300)
    rng = np.random.default_rng(0)
    value = rng.standard_normal(shape, np.float32)
    gradient = np.ascontiguousarray(rng.standard_normal(shape, np.float32).transpose(order)).transpose(
        np.argsort(order)
    )
    results = []
    for threads in ("1", "2", "3", None):
        if threads is None:
            monkeypatch.setattr("xpnn.backends.cpu.elementwise.UPDATE_CHUNK_BYTES", 1 << 40)
        else:
            monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        parameter = nn.Parameter(value, value)
        optimizer = create(case, [parameter])
        for _ in range(2):
            optimizer.step()
            parameter.grad = gradient
        results.append(parameter.value)
    assert all((result == results[-1]).all() for result in results[:-1])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_steps_by_a_steady_gradient_stay_numbers_where_the_variance_is_0(at, alpha, momentum):
    """The variance of equal gradients is only rounding error, which may be below 0."""
    require_steps(at.backend, alpha, momentum)


@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_steps_by_a_steady_gradient_stay_numbers_in_exact_numerics(exact, alpha):
    require_steps(exact, alpha, 0.0)


def require_steps(backend, alpha, momentum):
    gradient = backend.asarray(np.geomspace(1e-3, 1e3, 97).astype(np.float32))
    parameter = nn.Parameter(backend.asarray(np.zeros(97, np.float32)))
    optimizer = nn.RMSprop([parameter], lr=1e-9, alpha=alpha, momentum=momentum, centered=True)
    with nn.use_backend(backend):
        for _ in range(200):
            parameter.grad = gradient
            before = backend.to_numpy(parameter.value).copy()
            optimizer.step()
            step = before - backend.to_numpy(parameter.value)
            assert (step >= 0).all(), step
    # If the variance is 0, only eps is left to divide by.
    rate = 1e-9 / 1e-8 / (1 - momentum)
    assert step.max() <= 1.001 * rate * 1e3
