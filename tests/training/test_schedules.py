"""Schedules against PyTorch's rates, and restored from a saved state."""

import math

import numpy as np
import pytest

import xpnn as nn
from xpnn.common.portable_math import cosine_pi, power
from xpnn.training.schedules import CosineLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

STEPS = 20
# cos(pi i / 7), computed by + - * / only, which have the same bits on every machine
COSINES = ["0x1.cd4bca9cb5c71p-1", "0x1.3f3a0e28bedd1p-1", "0x1.c7b90e3024585p-3"]


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
        (lambda o: OneCycleLR(o, 1.0, STEPS), lambda lr, o: lr.OneCycleLR(o, 1.0, STEPS)),
        (lambda o: OneCycleLR(o, 1.0, STEPS, 0.01), lambda lr, o: lr.OneCycleLR(o, 1.0, STEPS, pct_start=0.01)),
        (
            lambda o: OneCycleLR(o, 1.0, STEPS, 0.4, three_phase=True),
            lambda lr, o: lr.OneCycleLR(o, 1.0, STEPS, pct_start=0.4, three_phase=True),
        ),
    ],
)
def test_rates_are_pytorchs(torch, ours, theirs):
    wanted = torch_rates(torch, lambda o: theirs(torch.optim.lr_scheduler, o))
    assert rates(ours(optimizer(momentum=0.9))) == pytest.approx(wanted, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_one_cycle_moves_the_momentum_as_pytorch(torch, kind, three_phase):
    mine = optimizer(kind=getattr(nn, kind))
    schedule = OneCycleLR(mine, 1.0, 10, three_phase=three_phase)
    opt = getattr(torch.optim, kind)([torch.ones(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.OneCycleLR(opt, 1.0, 10, three_phase=three_phase)
    name = "betas" if "Adam" in kind else "momentum"
    for _ in range(10):
        assert getattr(mine, name) == pytest.approx(opt.param_groups[0][name], rel=1e-12)
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
    assert [cosine_pi(x) for x in (0.0, 0.5, 1.0, 1.5, 2.0)] == [1.0, 0.0, -1.0, 0.0, 1.0]


def test_cosine_has_these_bits_on_every_machine():
    found = [cosine_pi(i / 7).hex() for i in range(1, 4)]
    assert found == COSINES


def test_power_is_that_of_python_with_few_multiplications():
    for exponent in (0, 1, 2, 3, 10, 1000):
        assert power(0.97, exponent) == pytest.approx(0.97**exponent, rel=1e-12)
    assert power(0.999, 10**12) == 0.0


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
    metrics = [1.0] * 5 + [0.5] + [0.6] * 5
    for metric in metrics[:6]:
        first.step(metric)
    second = ReduceLROnPlateau(optimizer(lr=7.0))
    second.load_state_dict(first.state_dict())
    assert second.optimizer.lr == first.optimizer.lr == pytest.approx(0.03)
    for metric in metrics[6:]:
        second.step(metric)
    for metric in metrics:
        whole.step(metric)
    assert second.state_dict() == whole.state_dict()
    assert second.optimizer.lr == pytest.approx(0.003)


def test_nan_is_no_improvement_for_plateau():
    schedule = ReduceLROnPlateau(optimizer(), patience=0, factor=0.5)
    schedule.step(float("nan"))
    assert schedule.optimizer.lr == 0.15


def test_repr_is_the_call_that_makes_it():
    sgd = optimizer()
    assert repr(StepLR(sgd, 3)) == f"StepLR({sgd!r}, step_size=3, gamma=0.1)"
    assert repr(ReduceLROnPlateau(sgd, patience=2)).startswith(f"ReduceLROnPlateau({sgd!r}, mode='min', factor=0.1, p")


def test_state_of_another_schedule_is_refused():
    with pytest.raises(ValueError, match=r"StepLR\.load_state_dict: state must hold step_size"):
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
        lambda o: OneCycleLR(nn.Adagrad(o.parameters), 1.0, 10),  # no momentum to cycle
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


def test_schedules_accept_optimizers_only():
    for make in (lambda o: StepLR(o, 2), ReduceLROnPlateau):
        with pytest.raises(TypeError, match="optimizer"):
            make(3.0)
