"""Compiled steps of optimizers: the bits of array functions, and close to float64."""

import importlib

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

CASES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd, decay": ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "momentum, dampening, decay": ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01}),
    "nesterov, decay": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam, decay": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    "adam, counted in arrays": ("Adam", {"lr": 0.01, "capturable": True}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.5}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop, momentum, decay": ("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "rmsprop, centered": ("RMSprop", {"lr": 0.01, "centered": True}),
    "rmsprop, centered, momentum": ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5}),
    "adagrad": ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.2}),
    "adagrad, decay": ("Adagrad", {"lr": 0.1, "lr_decay": 0.3, "weight_decay": 0.1}),
    "adagrad, counted in arrays": ("Adagrad", {"lr": 0.1, "lr_decay": 0.3, "capturable": True}),
    "amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.6), "weight_decay": 0.1}),
    "amsgrad, counted in arrays": ("AdamW", {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.6), "capturable": True}),
    "maximize": ("Adam", {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    "adadelta": ("Adadelta", {"eps": 1e-3, "weight_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.01, "betas": (0.8, 0.6), "weight_decay": 0.1}),
    "adamax, counted in arrays": ("Adamax", {"lr": 0.01, "betas": (0.8, 0.6), "capturable": True}),
    "nadam": ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "momentum_decay": 0.1}),
    "radam": ("RAdam", {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    "radam, long": ("RAdam", {"lr": 0.01, "betas": (0.8, 0.75), "weight_decay": 0.1}),
    "radam, decoupled": ("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "lion": ("Lion", {"lr": 0.01, "weight_decay": 0.1}),
}
every_case = pytest.mark.parametrize("case", CASES)
# More than one item, and no multiple of a vector.
SHAPE = (313, 257)


@pytest.fixture
def called(monkeypatch, compiled_kernels):
    """For each call of the kernels, the number of parameters that it updated."""
    steps = importlib.import_module("xpnn.backends.engines.numba.optimizer_steps")
    counts, usual = [], steps.OptimizerSteps.__call__

    def noted(self, rows):
        counts.append(len(rows))
        usual(self, rows)

    monkeypatch.setattr(steps.OptimizerSteps, "__call__", noted)
    return counts


def arrays(rng, shape=SHAPE, steps=3):
    value, *gradients = (rng.standard_normal(shape, np.float32) for _ in range(steps + 1))
    return value, gradients


def train(case, value, gradients, **changes):
    """The bytes of the value and of what is remembered, and the value, after a step with each gradient."""
    name, arguments = CASES[case]
    parameter = nn.Parameter(value)
    optimizer = getattr(nn, name)([parameter], **(arguments | changes))
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    kept = optimizer.state_dict()["state"]["0"]
    return [np.asarray(a).tobytes() for a in (parameter.value, *kept.values())], parameter.value


def without(monkeypatch):
    monkeypatch.setenv("XPNN_NUMBA", "0")


@every_case
def test_kernels_give_the_bits_of_array_functions(called, case, rng, monkeypatch):
    value, gradients = arrays(rng)
    with_kernels, _ = train(case, value, gradients)
    assert called == [1, 1, 1]
    without(monkeypatch)
    assert with_kernels == train(case, value, gradients)[0]


@every_case
def test_kernels_match_float64(called, case, rng, monkeypatch):
    value, gradients = arrays(rng)
    _, actual = train(case, value, gradients)
    assert called == [1, 1, 1]
    without(monkeypatch)
    _, desired = train(case, value.astype(np.float64), [g.astype(np.float64) for g in gradients])
    assert_match(actual, desired, level="reduction", terms=len(gradients), dtype="float32")


@every_case
def test_nan_infinity_and_signed_zeros_are_those_of_array_functions(called, case, rng, monkeypatch):
    value, gradients = arrays(rng)
    for a in (value, *gradients):
        for number in (np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e38):
            a[rng.random(a.shape) < 0.05] = number
    gradients[1][rng.random(SHAPE) < 0.05] = np.nan
    with np.errstate(all="ignore"):
        _, ours = train(case, value, gradients)
        without(monkeypatch)
        _, theirs = train(case, value, gradients)
    assert called and np.array_equal(ours, theirs, equal_nan=True)
    signed = ~np.isnan(ours)
    assert np.array_equal(np.signbit(ours[signed]), np.signbit(theirs[signed]))


@every_case
def test_bits_do_not_depend_on_threads(called, case, rng, monkeypatch):
    value, gradients = arrays(rng, (1013, 1013))
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        found.append(train(case, value, gradients)[0])
    assert called and found[0] == found[1] == found[2]


@pytest.mark.parametrize("case", ["momentum", "adam, decay"])
@pytest.mark.parametrize("order", ["transposed", "gaps", "one value"])
def test_gradients_may_have_any_strides_and_are_not_written_to(called, case, order, rng, monkeypatch):
    value, gradients = arrays(rng)

    def awkward(a):
        if order == "one value":
            return np.broadcast_to(np.float32(0.5), a.shape)
        if order == "transposed":
            a = np.asfortranarray(a)
        else:
            wide = np.zeros((a.shape[0], 2 * a.shape[1]), np.float32)
            wide[:, ::2] = a
            a = wide[:, ::2]
        a.flags.writeable = False
        return a

    gradients = [awkward(g) for g in gradients]
    before = [g.copy() for g in gradients]
    ours = train(case, value, gradients)[0]
    assert all(np.array_equal(*pair) for pair in zip(before, gradients, strict=True))
    without(monkeypatch)
    assert ours == train(case, value, gradients)[0]


@every_case
def test_float64_has_the_bits_of_array_functions(called, case, rng, monkeypatch):
    value, gradients = arrays(rng)
    value, gradients = value.astype(np.float64), [g.astype(np.float64) for g in gradients]
    ours = train(case, value, gradients)[0]
    assert called == [1, 1, 1]
    without(monkeypatch)
    assert ours == train(case, value, gradients)[0]


def test_one_call_updates_all_parameters(called, rng, monkeypatch):
    shapes = [(3,), (70_000,), (0,), (), (5, 4), (40_000,), (2, 33_000)]
    values = [rng.standard_normal(shape, np.float32) for shape in shapes]
    gradients = [rng.standard_normal(shape, np.float32) for shape in shapes]

    def updated():
        parameters = [nn.Parameter(np.asarray(value)) for value in values]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = np.asarray(gradient)
        optimizer = nn.Adam(parameters, capturable=True)
        for _ in range(2):
            optimizer.step()
        return [parameter.value.tobytes() for parameter in parameters]

    ours = updated()
    assert called == [len(shapes)] * 2
    without(monkeypatch)
    assert ours == updated()


def test_a_rate_in_an_array_does_without_kernels(called, rng):
    parameter = nn.Parameter(np.ones(3, np.float32), np.ones(3, np.float32))
    optimizer = nn.SGD([parameter])
    optimizer.lr = np.full(3, 0.5, np.float32)
    optimizer.step()
    assert not called and parameter.value.tolist() == [0.5] * 3


@pytest.mark.parametrize("method", ["_step", "_apply"])
def test_a_rule_derived_from_one_with_a_kernel_does_without(called, method, rng):
    class Still(nn.SGD):
        pass

    setattr(Still, method, lambda self, value, *others: None if method == "_apply" else value * 0.0)
    value, gradients = arrays(rng)
    parameter = nn.Parameter(value, gradients[0])
    Still([parameter], momentum=0.9).step()
    assert not called and np.array_equal(parameter.value, value)
