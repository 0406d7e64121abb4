"""Optimizers step by step against loops over Python's numbers, and against PyTorch's."""

import numpy as np
import pytest
from optimizer_loops import LOOPS

import xpnn as nn
from xpnn.training.optimizers import OPTIMIZERS

STEPS = 50
START = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
# An entry whose gradient is always 0, one that is 0 at first, and others.
SHIFTS = np.array([[0.0, 0.3, 1.1], [2.0, 3.5, 5.0]])
EACH = [(name, i) for name, (_, _, options) in LOOPS.items() for i in range(len(options))]


def gradient(value, t, shift):
    """It depends on the value, so that an error of one step reaches the next."""
    return (2.0 * value + np.cos(t + shift)) * (shift != 0.0)


def looped(name, i):
    _, loop, options = LOOPS[name]
    found = [
        loop(lambda value, t, shift=shift: float(gradient(value, t, shift)), float(value), STEPS, **options[i])
        for value, shift in zip(START.ravel(), SHIFTS.ravel(), strict=True)
    ]
    return np.array(found).T.reshape(STEPS, *START.shape)


def trajectory(b, name, i, dtype, steps=STEPS, **changes):
    kind, _, options = LOOPS[name]
    parameter = nn.Parameter(b.asarray(START, dtype))
    optimizer = getattr(nn, kind)([parameter], **{**options[i], **changes})
    found = []
    with nn.use_backend(b):
        for t in range(1, steps + 1):
            host = b.to_numpy(parameter.value).astype("float64")
            parameter.grad = b.asarray(gradient(host, t, SHIFTS), dtype)
            optimizer.step()
            found.append(b.to_numpy(parameter.value).copy())
    return np.array(found)


def test_every_optimizer_has_a_loop():
    assert list(LOOPS) == list(OPTIMIZERS)


@pytest.mark.parametrize(("name", "i"), EACH)
def test_each_step_is_that_of_a_loop(at, name, i):
    dtype = "float64" if at.wide_enough else "float32"
    found = trajectory(nn.get_backend(at.backend, dtype), name, i, dtype)
    near = 1e-11 if dtype == "float64" else 2e-3
    np.testing.assert_allclose(found, looped(name, i), rtol=near, atol=near)


@pytest.mark.parametrize(("name", "i"), EACH)
def test_each_step_is_that_of_a_loop_in_exact_numerics(exact, name, i):
    found = trajectory(exact, name, i, "float32")
    np.testing.assert_allclose(found, looped(name, i), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("name", "i"), EACH)
def test_exact_steps_have_the_bits_of_numpys(exact, name, i):
    reference = trajectory(nn.get_backend("numpy", numerics="exact"), name, i, "float32")
    assert trajectory(exact, name, i, "float32").tobytes() == reference.tobytes()


@pytest.mark.parametrize(("name", "i"), EACH)
def test_each_step_is_pytorchs(torch, name, i):
    kind, _, options = LOOPS[name]
    if kind == "Lion":
        pytest.skip("PyTorch has no Lion")
    tensor = torch.from_numpy(START.copy()).requires_grad_()
    optimizer = getattr(torch.optim, kind)([tensor], **options[i])
    ours = trajectory(nn.get_backend("numpy", "float64"), name, i, "float64")
    # PyTorch keeps the product of NAdam's momenta in float32.
    near = 1e-7 if kind == "NAdam" else 1e-11
    for t in range(1, STEPS + 1):
        tensor.grad = torch.from_numpy(gradient(tensor.detach().numpy(), t, SHIFTS))
        optimizer.step()
        np.testing.assert_allclose(ours[t - 1], tensor.detach().numpy(), rtol=near, atol=near)


@pytest.mark.parametrize("name", LOOPS)
def test_defaults_are_pytorchs(torch, name):
    kind = LOOPS[name][0]
    if kind == "Lion":
        pytest.skip("PyTorch has no Lion")
    theirs = getattr(torch.optim, kind)([torch.zeros(1)], **({"lr": 0.01} if kind == "SGD" else {})).param_groups[0]
    (ours,) = getattr(nn, kind)([nn.Parameter(np.zeros(1, np.float32))]).param_groups
    assert {key: theirs[key] for key in ours if key != "params"} == {k: v for k, v in ours.items() if k != "params"}


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "adamax", "nadam", "radam"])
def test_counting_on_the_device_gives_the_same_bits(at, name):
    if not at.wide_enough:
        pytest.skip("this device counts in float32")
    for i in range(len(LOOPS[name][2])):
        plain = trajectory(at.backend, name, i, "float32", 20)
        counted = trajectory(at.backend, name, i, "float32", 20, capturable=True)
        if at.name == "cupy" and name in ("nadam", "radam"):
            # A kernel, and array functions.
            np.testing.assert_allclose(counted, plain, rtol=1e-5, atol=1e-6)
        else:
            assert plain.tobytes() == counted.tobytes()
