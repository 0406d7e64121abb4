"""`GradScaler` by itself: PyTorch's rules, and what it does to gradients."""

import math

import numpy as np
import pytest

import xpnn as nn


def trained(backend="numpy", gradient=None):
    """A layer and its optimizer, with a gradient in place."""
    layer = nn.Dense(3, 2, bias=False, backend=backend, seed=0)
    optimizer = nn.SGD(layer, lr=1.0)
    if gradient is not None:
        layer.parameters["weight"].grad = layer.backend.asarray(np.full((2, 3), gradient, np.float32))
    return layer, optimizer


def test_a_step_has_the_bits_of_one_without_scaling(at):
    plain, scaled = trained(at.backend), trained(at.backend)
    b, scaler = at.backend, nn.GradScaler()
    x = b.asarray(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    dy = b.asarray(np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32))
    for layer, optimizer in (plain, scaled):
        layer(x)
        if optimizer is plain[1]:
            layer.backward(dy)
            optimizer.step()
        else:
            layer.backward(scaler.scale(dy))
            assert scaler.step(optimizer) is True
            scaler.update()
    # A power of two changes no bit.
    one, other = (b.to_numpy(layer.parameters["weight"].value) for layer, _ in (plain, scaled))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_with_an_infinite_gradient_is_left_out_and_the_scale_halved(at, bad):
    layer, optimizer = trained(at.backend, 1.0)
    gradient = np.ones((2, 3), np.float32)
    gradient[1, 2] = bad
    layer.parameters["weight"].grad = layer.backend.asarray(gradient)
    before, scaler = layer.backend.to_numpy(layer.parameters["weight"].value).copy(), nn.GradScaler()
    assert scaler.step(optimizer) is False
    np.testing.assert_array_equal(layer.backend.to_numpy(layer.parameters["weight"].value), before)
    assert scaler.get_scale() == 2.0**16, "the scale changes in update()"
    scaler.update()
    assert scaler.get_scale() == 2.0**15 and scaler.skipped_in_a_row == 1


def test_the_scale_doubles_after_so_many_good_steps_in_a_row():
    _, optimizer = trained(gradient=0.0)
    scaler, scales = nn.GradScaler(4.0, growth_interval=3), []
    for bad in (0, 0, 0, 0, 1, 0, 0, 0, 1, 1):
        for parameter in optimizer.parameters.values():
            parameter.grad = np.full((2, 3), math.inf if bad else 0.0, np.float32)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [4, 4, 8, 8, 4, 4, 4, 8, 4, 2]


def test_scales_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    settings = {"init_scale": 1024.0, "growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 2}
    _, optimizer = trained()
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    own, theirs = nn.GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    other = torch.optim.SGD([weight], lr=1.0)
    for _ in range(40):
        gradient = np.full((2, 3), math.inf if rng.random() < 0.3 else 0.5, np.float32)
        for parameter in optimizer.parameters.values():
            parameter.grad = gradient
        weight.grad = torch.from_numpy(gradient.copy())
        theirs.scale(torch.ones(()))
        theirs.step(other)
        theirs.update()
        own.step(optimizer)
        own.update()
        assert own.get_scale() == theirs.get_scale()
        known = theirs.state_dict()
        assert {name: value for name, value in own.state_dict().items() if name in known} == known


def test_clipping_comes_after_unscaling():
    layer, optimizer = trained(gradient=2.0**16 * 3.0)
    scaler, before = nn.GradScaler(), trained()[0].parameters["weight"].value.copy()
    scaler.unscale_(optimizer)
    np.testing.assert_array_equal(layer.parameters["weight"].grad, np.full((2, 3), 3.0))
    nn.clip_grad_value(layer, 2.0)
    scaler.step(optimizer)
    np.testing.assert_array_equal(layer.parameters["weight"].value, before - np.float32(2.0))
    with pytest.raises(RuntimeError, match="unscaled already; call update"):
        scaler.unscale_(optimizer)
    scaler.update()
    with pytest.raises(RuntimeError, match="no gradients were unscaled"):
        scaler.update()


def test_two_optimizers_have_one_scale():
    (_, one), (layer, other) = trained(gradient=1.0), trained(gradient=math.nan)
    scaler, before = nn.GradScaler(), layer.parameters["weight"].value.copy()
    assert [scaler.step(each) for each in (one, other)] == [True, False]
    scaler.update()
    assert scaler.get_scale() == 2.0**15
    np.testing.assert_array_equal(layer.parameters["weight"].value, before)


def test_disabled_it_does_nothing():
    layer, optimizer = trained(gradient=1.0)
    scaler, dy = nn.GradScaler(enabled=False), np.ones((2, 3), np.float32)
    assert scaler.scale(dy) is dy and scaler.get_scale() == 1.0
    before = layer.parameters["weight"].value.copy()
    assert scaler.step(optimizer) is True
    scaler.update()
    np.testing.assert_array_equal(layer.parameters["weight"].value, before - np.float32(1.0))


def test_state_goes_on_where_it_was():
    _, optimizer = trained(gradient=1.0)
    scaler = nn.GradScaler(8.0, growth_interval=5)
    for _ in range(3):
        scaler.step(optimizer)
        scaler.update()
    other = nn.GradScaler()
    other.load_state_dict(scaler.state_dict())
    for _ in range(2):
        assert other.get_scale() == 8.0
        other.step(optimizer)
        other.update()
    assert other.get_scale() == 16.0
    state = scaler.state_dict()
    for wrong in ({**state, "scale": -1.0}, {**state, "_growth_tracker": -1}, {}, {**state, "growth_factor": 1.0}):
        with pytest.raises(ValueError):
            scaler.load_state_dict(wrong)
    assert scaler.state_dict() == state


@pytest.mark.parametrize(
    "wrong",
    [
        {"init_scale": 0.0},
        {"init_scale": math.inf},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"backoff_factor": 0.0},
        {"growth_interval": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        nn.GradScaler(**wrong)
