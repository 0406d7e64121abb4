"""Schedules against PyTorch's rates, and going on from a saved one."""

import math

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.schedules import (
    CosineLR,
    ExponentialLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
    cosine_pi,
)

STEPS = 20


def optimizer(lr=0.3, kind=nn.SGD, **options):
    return kind([nn.Parameter(np.ones(2, np.float32))], lr=lr, **options)


def rates(schedule, steps=STEPS):
    found = [schedule.optimizer.lr]
    for _ in range(steps):
        schedule.step()
        found.append(schedule.optimizer.lr)
    return found


def torch_rates(torch, make, steps=STEPS, lr=0.3, momentum=0.9):
    opt = torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=lr, momentum=momentum)
    schedule = make(opt)
    found = [opt.param_groups[0]["lr"]]
    for _ in range(steps):
        opt.step()
        schedule.step()
        found.append(opt.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda o: StepLR(o, 3, 0.5), lambda lr, o: lr.StepLR(o, 3, 0.5)),
        (lambda o: ExponentialLR(o, 0.9), lambda lr, o: lr.ExponentialLR(o, 0.9)),
        (lambda o: CosineLR(o, STEPS), lambda lr, o: lr.CosineAnnealingLR(o, STEPS)),
        (lambda o: CosineLR(o, STEPS, minimum=0.05), lambda lr, o: lr.CosineAnnealingLR(o, STEPS, 0.05)),
        (lambda o: OneCycleLR(o, 1.0, STEPS + 1), lambda lr, o: lr.OneCycleLR(o, 1.0, STEPS + 1)),
        (
            lambda o: OneCycleLR(o, 0.5, STEPS + 1, 0.4, "linear", div_factor=10.0, final_div_factor=100.0),
            lambda lr, o: lr.OneCycleLR(o, 0.5, STEPS + 1, None, None, 0.4, "linear", True, 0.85, 0.95, 10.0, 100.0),
        ),
    ],
)
def test_rates_are_pytorchs(torch, ours, theirs):
    wanted = torch_rates(torch, lambda o: theirs(torch.optim.lr_scheduler, o))
    assert rates(ours(optimizer(momentum=0.9))) == pytest.approx(wanted, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_one_cycle_moves_the_momentum_as_pytorch(torch, kind):
    options = {"momentum": 0.9} if kind == "SGD" else {}
    mine = optimizer(kind=getattr(nn, kind), **options)
    schedule = OneCycleLR(mine, 1.0, 10)
    opt = getattr(torch.optim, kind)([torch.ones(1, requires_grad=True)], lr=0.3, **options)
    theirs = torch.optim.lr_scheduler.OneCycleLR(opt, 1.0, 10)
    for _ in range(9):
        group = opt.param_groups[0]
        if kind == "SGD":
            assert mine.momentum == pytest.approx(group["momentum"], rel=1e-12)
        else:
            assert mine.betas == pytest.approx(group["betas"], rel=1e-12)
        opt.step()
        theirs.step()
        schedule.step()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "patience": 1},
        {"factor": 0.5, "patience": 2, "cooldown": 2, "min_lr": 0.05},
        {"threshold": 0.1, "threshold_mode": "abs", "patience": 0},
        {"mode": "max", "threshold": 0.2, "patience": 0, "factor": 0.7},
    ],
)
def test_plateau_reduces_when_pytorch_does(torch, options):
    metrics = np.abs(np.sin(np.arange(40) * 0.7)) * np.exp(-np.arange(40) * 0.05) + 0.1
    mine = optimizer()
    schedule = ReduceLROnPlateau(mine, **options)
    opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, **options)
    for metric in metrics:
        schedule.step(metric)
        theirs.step(float(metric))
        assert mine.lr == pytest.approx(opt.param_groups[0]["lr"], rel=1e-12)


def test_cosine_warms_up_along_a_line_and_then_falls():
    found = rates(CosineLR(optimizer(1.0), 12, warmup=4), 14)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0
    assert found[8] == pytest.approx(0.5)
    assert found[12:] == [0.0, 0.0, 0.0]


def test_cosine_is_that_of_math():
    for x in np.linspace(0, 1, 10001):
        assert abs(cosine_pi(float(x)) - math.cos(math.pi * x)) < 1e-15
    assert [cosine_pi(x) for x in (0.0, 0.5, 1.0)] == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 3),
        lambda o: ExponentialLR(o, 0.9),
        lambda o: CosineLR(o, 10, warmup=2),
        lambda o: OneCycleLR(o, 1.0, 30),
    ],
)
def test_schedule_goes_on_from_its_state(make):
    whole = make(optimizer(momentum=0.9))
    wanted = rates(whole, 9)
    first = make(optimizer(momentum=0.9))
    rates(first, 4)
    second = make(optimizer(lr=7.0, momentum=0.9))
    second.load_state_dict(first.state_dict())
    assert rates(second, 5) == wanted[4:]


def test_plateau_goes_on_from_its_state():
    first, whole = (ReduceLROnPlateau(optimizer(), patience=2) for _ in range(2))
    for _ in range(3):
        first.step(1.0)
    second = ReduceLROnPlateau(optimizer())
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        whole.step(1.0)
    second.step(1.0)
    assert second.optimizer.lr == whole.optimizer.lr < 0.3


def test_state_of_another_schedule_is_refused():
    with pytest.raises(ValueError, match=r"StepLR\.load_state_dict takes step_size"):
        StepLR(optimizer(), 2).load_state_dict(ExponentialLR(optimizer(), 0.5).state_dict())
    with pytest.raises(ValueError, match="ReduceLROnPlateau"):
        ReduceLROnPlateau(optimizer()).load_state_dict({})


def test_step_beyond_the_cycle_is_an_error():
    schedule = OneCycleLR(optimizer(momentum=0.5), 1.0, 3)
    rates(schedule, 3)
    with pytest.raises(ValueError, match="3 steps"):
        schedule.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 0),
        lambda o: StepLR(o, 2, 0.0),
        lambda o: ExponentialLR(o, -1.0),
        lambda o: CosineLR(o, 5, warmup=5),
        lambda o: CosineLR(o, 0),
        lambda o: CosineLR(o, 5, minimum=-0.1),
        lambda o: OneCycleLR(o, 1.0, 10),  # plain SGD has no momentum to cycle
        lambda o: OneCycleLR(o, 1.0, 10, anneal_strategy="steps", cycle_momentum=False),
        lambda o: OneCycleLR(o, 1.0, 10, pct_start=1.5, cycle_momentum=False),
        lambda o: ReduceLROnPlateau(o, mode="least"),
        lambda o: ReduceLROnPlateau(o, factor=1.0),
        lambda o: ReduceLROnPlateau(o, patience=-1),
        lambda o: ReduceLROnPlateau(o, threshold_mode="some"),
    ],
)
def test_arguments_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make(optimizer())


def test_schedules_take_optimizers_only():
    for make in (lambda o: StepLR(o, 2), ReduceLROnPlateau):
        with pytest.raises(TypeError, match="optimizer"):
            make(3.0)
