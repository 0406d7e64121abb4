"""Compiled steps of optimizers: the bits of array functions, and close to float64."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match

CASES = {
    "sgd": ("SGD", {"lr": 0.1}, "sgd_step"),
    "sgd, decay": ("SGD", {"lr": 0.1, "weight_decay": 0.05}, "sgd_step"),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}, "momentum_step"),
    "momentum, dampening, decay": (
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
        "momentum_step",
    ),
    "nesterov, decay": (
        "SGD",
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        "momentum_step",
    ),
    "adam": ("Adam", {"lr": 0.01}, "adam_step"),
    "adam, decay": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}, "adam_step"),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.5}, "adam_step"),
}
every_case = pytest.mark.parametrize("case", CASES)
# More than a MiB, and no multiple of a vector.
SHAPE = (613, 457)


@pytest.fixture
def called(monkeypatch, compiled_kernels):
    """The names of the kernels that were called."""
    found, names = compiled_kernels, set()
    for name in ("sgd_step", "momentum_step", "adam_step"):
        kernel = getattr(found, name)

        def noted(*arguments, name=name, kernel=kernel, **numbers):
            names.add(name)
            kernel(*arguments, **numbers)

        monkeypatch.setattr(found, name, noted)
    return names


def arrays(rng, shape=SHAPE, steps=3):
    value, *gradients = (rng.standard_normal(shape, np.float32) for _ in range(steps + 1))
    return value, gradients


def train(case, value, gradients, **changes):
    """The bytes of the value and of what is remembered, and the value, after a step with each gradient."""
    name, arguments, _ = CASES[case]
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
    assert called == {CASES[case][2]}
    without(monkeypatch)
    assert with_kernels == train(case, value, gradients)[0]


@every_case
def test_kernels_match_float64(called, case, rng):
    value, gradients = arrays(rng)
    _, actual = train(case, value, gradients)
    _, desired = train(case, value.astype(np.float64), [g.astype(np.float64) for g in gradients])
    assert called == {CASES[case][2]}
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


def test_small_arrays_float64_and_exact_numerics_do_without_kernels(called, rng):
    value, gradients = arrays(rng)
    train("adam", value[:9], [g[:9] for g in gradients])
    train("adam", value.astype(np.float64), [g.astype(np.float64) for g in gradients])
    layer = nn.Dense(600, 500, backend="numpy", numerics="exact")
    layer.backward(layer(np.ones((1, 600), np.float32)))
    nn.SGD(layer, momentum=0.9).step()
    assert not called


@pytest.mark.parametrize("method", ["_step", "_apply"])
def test_a_rule_derived_from_one_with_a_kernel_does_without(called, method, rng):
    class Still(nn.SGD):
        pass

    setattr(Still, method, lambda self, value, *others: None if method == "_apply" else value * 0.0)
    value, gradients = arrays(rng)
    parameter = nn.Parameter(value, gradients[0])
    Still([parameter], momentum=0.9).step()
    assert not called and np.array_equal(parameter.value, value)
