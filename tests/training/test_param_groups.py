"""Groups of parameters with settings of their own: in steps, schedules, saved states and compiled steps."""

import copy
import math
import pickle

import numpy as np
import pytest
from optimizer_loops import LOOPS

import xpnn as nn
from xpnn.training.schedules import CosineLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

X = np.random.default_rng(0).uniform(-1.0, 1.0, (8, 4)).astype(np.float32)
Y = np.arange(8) % 3
# Settings of a second group that differ from the optimizer's own.
OTHERS = {
    "SGD": {"momentum": 0.0, "nesterov": False},
    "Adam": {"betas": (0.5, 0.9), "amsgrad": False},
    "RMSprop": {"alpha": 0.5, "momentum": 0.0, "centered": True},
    "NAdam": {"momentum_decay": 0.5, "decoupled_weight_decay": True},
    "RAdam": {"betas": (0.5, 0.8)},
}


def net(b="numpy", **placement):
    return nn.Sequential(nn.Dense(4, 5), nn.Tanh(), nn.Dense(5, 3), backend=b, seed=1, **placement)


def two_groups(model, **second):
    return [{"params": model[0].named_parameters()}, {"params": model[2], **second}]


def train(model, optimizers, steps=4, between=lambda: None):
    b, loss = model.backend, nn.CrossEntropy(backend=model.backend)
    for _ in range(steps):
        model.zero_grad()
        loss(model(b.asarray(X)), b.asarray(Y))
        model.backward(loss.backward(), input_grad=False)
        for optimizer in optimizers:
            optimizer.step()
        between()
    return {name: b.to_numpy(p.value).tobytes() for name, p in model.named_parameters()}


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("name", LOOPS)
def test_groups_are_trained_as_by_an_optimizer_each(at, name, numerics):
    b = nn.get_backend(at.backend, numerics=numerics) if at.wide_enough else at.backend
    kind, _, options = LOOPS[name]
    given = options[-1]
    second = {"lr": 0.03, "weight_decay": 0.2, **OTHERS.get(kind, {})}
    make = getattr(nn, kind)
    model, apart = net(b), net(b)
    together = make(two_groups(model, **second), **given)
    ones = [make(apart[0], **given), make(apart[2], **{**given, **second})]
    assert train(model, [together]) == train(apart, ones)
    assert [group["lr"] for group in together.param_groups] == [ones[0].lr, 0.03]


def test_groups_are_dicts_as_pytorchs():
    model = net()
    optimizer = nn.Adam(two_groups(model, lr=1e-3, name="head"), lr=1e-4)
    first, second = optimizer.param_groups
    assert isinstance(first, dict) and first["params"] == [p for _, p in model[0].named_parameters()]
    assert set(first) == {"params", "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"}
    assert (first["lr"], second["lr"], second["name"]) == (1e-4, 1e-3, "head")
    first["lr"] = np.float64(0.5)
    second.update(lr=0.25, eps=1e-4)
    assert type(first["lr"]) is float and optimizer.lr == 0.5
    assert (second["lr"], second["eps"]) == (0.25, 1e-4)
    optimizer.lr = 0.125
    assert (first["lr"], second["lr"]) == (0.125, 0.125)
    assert repr(optimizer).startswith("Adam(group 0: lr=0.125, betas=") and "; group 1: lr=0.125" in repr(optimizer)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_setting_of_a_group_may_change_between_steps(steps):
    model, apart = net(), net()
    optimizer = nn.SGD(two_groups(model, lr=0.5), lr=0.1, momentum=0.9)
    ones = [nn.SGD(apart[0], lr=0.1, momentum=0.9), nn.SGD(apart[2], lr=0.5, momentum=0.9)]
    train(model, [optimizer], steps)
    train(apart, ones, steps)
    optimizer.param_groups[1]["lr"] = ones[1].lr = 0.01
    optimizer.param_groups[0]["momentum"] = ones[0].momentum = 0.5
    assert train(model, [optimizer]) == train(apart, ones)


@pytest.mark.parametrize(
    "form",
    [
        lambda layer: layer,
        lambda layer: layer.named_parameters(),
        lambda layer: list(layer.named_parameters()),
        lambda layer: dict(layer.named_parameters()),
        lambda layer: [p for _, p in layer.named_parameters()],
        lambda layer: (p for _, p in layer.named_parameters()),
    ],
)
def test_parameters_of_a_group_may_have_any_form(form):
    layer = nn.Dense(3, 2)
    own = [p for _, p in layer.named_parameters()]
    assert nn.SGD(form(layer)).param_groups[0]["params"] == own
    grouped = nn.SGD([{"params": own[0], "lr": 0.5}, {"params": form(nn.Dense(2, 2))}])
    assert [len(group["params"]) for group in grouped.param_groups] == [1, 2]


def test_names_are_kept_and_distinct():
    one, other, third = nn.Dense(3, 2), nn.Dense(3, 2), nn.Dense(2, 2)
    bare = [p for _, p in third.named_parameters()]
    optimizer = nn.SGD([{"params": one}, {"params": other.named_parameters()}, {"params": bare}])
    assert list(optimizer.parameters) == ["weight", "bias", "weight (2)", "bias (2)", "4", "5"]
    pairs = nn.SGD([*one.named_parameters(), *other.named_parameters()])
    assert list(pairs.parameters) == ["weight", "bias", "weight (2)", "bias (2)"]


def test_a_parameter_twice_in_a_group_is_trained_once():
    parameter = nn.Parameter(np.zeros(1, np.float32), np.ones(1, np.float32))
    optimizer = nn.SGD([{"params": [parameter, parameter], "lr": 0.5}], lr=1.0)
    optimizer.step()
    assert parameter.value.tolist() == [-0.5] and len(optimizer.param_groups[0]["params"]) == 1


LAYER = nn.Dense(2, 1)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"params": LAYER}, {"params": LAYER}], "SGD: parameter weight of group 1 is in group 0 too; name it once"),
        (
            [{"params": LAYER}, {"params": {"w": LAYER.parameters["weight"]}}],
            r"parameter w of group 1 is in group 0 too \(there weight\)",
        ),
        ([{"params": LAYER, "rate": 0.1}], "group 0: 'rate' is no setting, these are: dampening, lr, maximize, "),
        ([{"params": LAYER, "weight_deacy": 0.1}], "did you mean 'weight_decay'"),
        ([{"params": LAYER, "lr": -0.1}], r"lr of group 0 must be a number > 0, got -0.1"),
        ([{"params": LAYER, "momentum": 2.0}], r"momentum of group 0 must be a number from 0 to 1"),
        ([{"params": LAYER, "nesterov": True}], "nesterov needs a momentum above 0"),
        ([{"lr": 0.1}], "group 0 must be a dict with parameters under 'params'"),
        ([{"params": LAYER}, LAYER.parameters["weight"]], "group 1 must be a dict with parameters under 'params'"),
        ([{"params": [1.0]}], "group 0: params must be a layer, names with Parameters or an iterable of Parameters"),
        ([{"params": []}, {"params": nn.ReLU()}], "there is nothing to train, the groups have no parameters"),
    ],
)
def test_groups_that_can_not_be_meant_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        nn.SGD(groups)


def test_a_typing_error_in_a_group_is_refused():
    group = nn.SGD([{"params": nn.Dense(2, 1)}, {"params": []}]).param_groups[0]
    with pytest.raises(ValueError, match=r"'lrr' is no setting.*did you mean 'lr'"):
        group["lrr"] = 0.1
    with pytest.raises(ValueError, match="add_param_group"):
        group["params"] = []


def test_a_group_that_is_added_has_the_settings_of_the_constructor():
    model = net()
    optimizer = nn.SGD(model[0], lr=0.1, momentum=0.9)
    optimizer.lr = 0.05
    optimizer.add_param_group({"params": model[2].named_parameters(), "weight_decay": 0.5})
    assert [(g["lr"], g["momentum"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.05, 0.9, 0.0),
        (0.1, 0.9, 0.5),
    ]
    before = {name: p.value.copy() for name, p in model.named_parameters()}
    train(model, [optimizer], 1)
    assert all((p.value != before[name]).any() for name, p in model.named_parameters())


@pytest.mark.parametrize("wrong", [{"params": net()[0], "lr": 0.0}, {"params": net()[0], "dampening": 0.5}, {}])
def test_a_group_that_is_refused_is_not_added(wrong):
    optimizer = nn.SGD(net()[2], momentum=0.9, nesterov=True)
    with pytest.raises(ValueError):
        optimizer.add_param_group(wrong)
    assert len(optimizer.param_groups) == 1 and list(optimizer.parameters) == ["weight", "bias"]
    optimizer.add_param_group({"params": []})
    assert len(optimizer.param_groups) == 2


def test_an_optimizer_of_ones_own_has_groups_too():
    class Signs(nn.Optimizer):
        settings = ("lr", "size", "bound")
        bound = 2.0

        def __init__(self, parameters, lr=0.1, size=1.0):
            super().__init__(parameters, lr)
            self.size = size

        def _step(self, gradient, state, xp):
            return xp.where(gradient > 0.0, xp.ones_like(gradient), -xp.ones_like(gradient)) * self.lr * self.size

    a, c = (nn.Parameter(np.zeros(1, np.float32), np.ones(1, np.float32)) for _ in range(2))
    optimizer = Signs([{"params": a}, {"params": [c], "size": 3.0, "maximize": True}], size=2.0)
    optimizer.step()
    assert np.allclose((a.value[0], c.value[0]), (-0.2, 0.3))
    assert optimizer.bound == 2.0
    assert optimizer.state_dict()["settings"] == {"lr": 0.1, "size": 2.0, "bound": 2.0}


# Schedules


SCHEDULES = {
    "step": lambda o: StepLR(o, 2, 0.5),
    "exponential": lambda o: ExponentialLR(o, 0.8),
    "cosine": lambda o: CosineLR(o, 6, warmup=2),
    "one-cycle": lambda o: OneCycleLR(o, [0.2, 0.4], 8) if len(o.param_groups) == 2 else OneCycleLR(o, 2 * o.lr, 8),
    "plateau": lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0),
}


def rates_after_each_step(optimizer, schedule, steps=5):
    found = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(steps):
        schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))
        found.append([group["lr"] for group in optimizer.param_groups])
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_scales_each_group_from_its_own_rate(name):
    model = net()
    optimizer = nn.SGD(two_groups(model, lr=0.2, momentum=0.5), lr=0.1, momentum=0.9)
    together = rates_after_each_step(optimizer, SCHEDULES[name](optimizer))
    apart = []
    for lr in (0.1, 0.2):
        one = nn.SGD(model, lr=lr, momentum=0.9)
        apart.append([rate for (rate,) in rates_after_each_step(one, SCHEDULES[name](one))])
    assert together == [list(pair) for pair in zip(*apart, strict=True)]
    assert len({first for first, _ in together}) > 1


def test_one_highest_rate_of_a_cycle_is_that_of_all_groups_as_in_pytorch():
    optimizer = nn.Adam(two_groups(net(), lr=0.2, betas=(0.5, 0.7)), lr=0.1)
    nn.OneCycleLR(optimizer, 1.0, 10)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.04, 0.04])
    assert [g["betas"] for g in optimizer.param_groups] == [(0.95, 0.999), (0.95, 0.7)]
    with pytest.raises(ValueError, match="max_lr must be a sequence of 2 numbers"):
        nn.OneCycleLR(optimizer, [1.0, 1.0, 1.0], 10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_of_groups_goes_on_from_its_state(name):
    optimizer = nn.SGD(two_groups(net(), lr=0.2), lr=0.1, momentum=0.9)
    schedule = SCHEDULES[name](optimizer)
    rates_after_each_step(optimizer, schedule, 2)
    state, saved = schedule.state_dict(), optimizer.state_dict()
    expected = rates_after_each_step(optimizer, schedule, 3)
    other = nn.SGD(two_groups(net(), lr=0.9), lr=0.8, momentum=0.9)
    resumed = SCHEDULES[name](other)
    other.load_state_dict(saved)
    resumed.load_state_dict(state)
    assert rates_after_each_step(other, resumed, 3) == expected
    alone = SCHEDULES[name](nn.SGD(net(), momentum=0.9))
    with pytest.raises(ValueError, match="rates of 2 groups of parameters, the optimizer has 1"):
        alone.load_state_dict(state)


def test_a_group_that_is_added_follows_the_schedule():
    model = net()
    optimizer = nn.SGD(model[0], lr=0.1)
    schedule = nn.ExponentialLR(optimizer, 0.5)
    schedule.step()
    optimizer.add_param_group({"params": model[2], "lr": 0.8})
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1 * 0.25, 0.8 * 0.25]


# Saved states


def test_a_saved_state_holds_the_groups_and_goes_on():
    model, other = net(), net()
    optimizer = nn.Adam(two_groups(model, lr=0.05), lr=0.01)
    train(model, [optimizer], 3)
    state = copy.deepcopy(optimizer.state_dict())
    assert [group["lr"] for group in state["param_groups"]] == [0.01, 0.05]
    assert [group["params"] for group in state["param_groups"]] == [["weight", "bias"], ["weight (2)", "bias (2)"]]
    other.load_state_dict(model.state_dict())
    resumed = nn.Adam(two_groups(other, lr=0.5), lr=0.5)
    resumed.load_state_dict(state)
    assert train(model, [optimizer]) == train(other, [resumed])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: [{"params": model}], "the state has 2 groups of parameters, this optimizer 1 group"),
        (
            lambda model: [{"params": model[0].parameters["weight"]}, {"params": []}],
            "settings .* and parameters .* are not those of this optimizer",
        ),
        (
            lambda model: [
                {"params": {"weight": model[0].parameters["weight"]}},
                {
                    "params": {
                        "bias": model[0].parameters["bias"],
                        "weight (2)": model[2].parameters["weight"],
                        "bias (2)": model[2].parameters["bias"],
                    }
                },
            ],
            "has in group 0 the parameters weight, bias, this optimizer weight",
        ),
    ],
)
def test_a_state_of_other_groups_is_refused_and_nothing_is_replaced(make, message):
    model, other = net(), net()
    state = nn.SGD(two_groups(model, lr=0.5), lr=0.1, momentum=0.9).state_dict()
    names = {"weight": 0, "bias": 0, "weight (2)": 2, "bias (2)": 2}
    groups = make(other)
    if groups[0]["params"] is other:
        groups = [{"params": {name: other[i].parameters[name.split()[0]] for name, i in names.items()}}]
    optimizer = nn.SGD(groups, lr=0.3, momentum=0.9)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.lr == 0.3


def test_a_state_of_an_earlier_version_is_loaded():
    model = net()
    optimizer = nn.Adam(model, lr=0.5)
    train(model, [optimizer], 1)
    state = optimizer.state_dict()
    del state["param_groups"], state["settings"]["amsgrad"], state["settings"]["maximize"]
    resumed = nn.Adam(model, lr=0.1, maximize=True)
    resumed.load_state_dict(state)
    assert (resumed.lr, resumed.maximize, resumed.amsgrad) == (0.5, False, False)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_has_groups_of_its_own(way):
    model = net()
    optimizer = nn.SGD(two_groups(model, lr=0.5), lr=0.1, momentum=0.9)
    train(model, [optimizer], 2)
    other, copied = way((model, optimizer))
    copied.param_groups[0]["lr"] = 0.7
    assert (optimizer.lr, copied.lr, copied.param_groups[1]["lr"]) == (0.1, 0.7, 0.5)
    copied.param_groups[0]["lr"] = 0.1
    assert train(model, [optimizer]) == train(other, [copied])


def fit(folder, epochs, resume=False, second=0.05, momentum=0.9, **more):
    model = net()
    optimizer = nn.SGD(two_groups(model, lr=second), lr=0.1, momentum=momentum)
    schedule = nn.ExponentialLR(optimizer, 0.9)
    data = (X, Y)
    nn.fit(
        model,
        data,
        optimizer=optimizer,
        schedule=schedule,
        epochs=epochs,
        batch_size=4,
        progress=False,
        checkpoints=folder,
        resume=resume,
        **more,
    )
    return {name: p.value.tobytes() for name, p in model.named_parameters()}, [g["lr"] for g in optimizer.param_groups]


def test_a_resumed_run_ends_as_one_without_interruption(tmp_path):
    whole = fit(tmp_path / "whole", 4)
    fit(tmp_path / "parts", 2)
    assert fit(tmp_path / "parts", 4, resume=True) == whole


def test_a_run_with_other_groups_is_not_resumed(tmp_path):
    fit(tmp_path / "run", 2)
    with pytest.raises(nn.CheckpointError, match=r"base_lr was .*0\.05"):
        fit(tmp_path / "run", 3, resume=True, second=0.2)
    with pytest.raises(nn.CheckpointError, match=r"optimizer's momentum of group 0 was 0\.9, this run's is 0\.5"):
        fit(tmp_path / "run", 3, resume=True, momentum=0.5)
    model = net()
    with pytest.raises(nn.CheckpointError, match="groups"):
        options = {"epochs": 3, "batch_size": 4, "progress": False, "checkpoints": tmp_path / "run", "resume": True}
        optimizer = nn.SGD(model, lr=0.1, momentum=0.9)
        nn.fit(model, (X, Y), optimizer=optimizer, schedule=nn.ExponentialLR(optimizer, 0.9), **options)


# Compiled steps


@pytest.mark.parametrize("kind", ["SGD", "Adam", "RAdam"])
def test_compiled_steps_follow_the_rate_of_each_group(kind):
    found = []
    for compiled in (False, True):
        model = net()
        b, loss = model.backend, nn.CrossEntropy()
        optimizer = getattr(nn, kind)(two_groups(model, lr=0.05, weight_decay=0.1), lr=0.01)

        def step(x, y, model=model, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            return value

        run = b.compile(step, model, optimizer) if compiled else step
        losses = []
        for i in range(8):
            losses.append(float(run(X, Y)))
            optimizer.param_groups[1]["lr"] = 0.05 / (i + 2)
        found.append((losses, {name: p.value.tobytes() for name, p in model.named_parameters()}))
        if compiled:
            assert (run.recorded, run.replayed) == (1, 5)
    assert found[0] == found[1]


def test_kernels_update_each_group(compiled_kernels, monkeypatch):
    found = []
    for numba in ("1", "0"):
        monkeypatch.setenv("XPNN_NUMBA", numba)
        model = net()
        optimizer = nn.AdamW(two_groups(model, lr=0.05, betas=(0.5, 0.9)), lr=0.01)
        host = np.random.default_rng(3)
        for _ in range(3):
            for _, parameter in model.named_parameters():
                parameter.grad = host.standard_normal(parameter.shape, np.float32)
            optimizer.step()
        found.append({name: p.value.tobytes() for name, p in model.named_parameters()})
    assert found[0] == found[1]


# Weight decay, clipping


def test_biases_and_norms_do_not_decay():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Flatten(), nn.LayerNorm(2), nn.Dense(2, 3)
    )
    groups = nn.decay_groups(model, weight_decay=0.5)
    assert [(list(group["params"]), group["weight_decay"]) for group in groups] == [
        (["0.weight", "2.weight", "5.weight"], 0.5),
        (["0.bias", "1.weight", "1.bias", "4.weight", "4.bias", "5.bias"], 0.0),
    ]
    optimizer = nn.AdamW(groups, lr=0.1, weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    for _, parameter in model.named_parameters():
        parameter.grad = np.zeros_like(parameter.value)
    before = {name: p.value.copy() for name, p in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * np.float32(0.95) if name in groups[0]["params"] else before[name]
        np.testing.assert_array_equal(parameter.value, expected)
    assert [len(group["params"]) for group in nn.decay_groups(nn.Dense(2, 2, bias=False))] == [1, 0]
    scaled = nn.Sequential(nn.Dense(2, 2, bias=False), nn.RMSNorm(2))
    assert [len(group["params"]) for group in nn.decay_groups(scaled)] == [1, 1]


def test_gradients_are_clipped_by_group(at):
    model = net(at.backend)
    optimizer = nn.SGD(two_groups(model, lr=0.5))
    for _, parameter in model.named_parameters():
        parameter.grad = at.put(np.ones(parameter.shape, np.float32))
    first, second = optimizer.param_groups
    assert float(at.get(nn.clip_grad_norm(first, 0.5))) == pytest.approx(5.0)
    assert float(at.get(nn.clip_grad_norm(second["params"], 100.0))) == pytest.approx(math.sqrt(18))
    nn.clip_grad_value(second, 0.25)
    entries = [float(at.get(group["params"][0].grad)[0, 0]) for group in (first, second)]
    assert entries == pytest.approx([0.1, 0.25])
