"""A resumed run's settings are compared with the saved ones, and nothing is loaded if they differ."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.checkpoint_file import CheckpointError
from xpnn.training.checkpoints import Checkpoints
from xpnn.training.early_stopping import EarlyStopping

X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
Y = np.arange(40) % 3
MANY = np.arange(1, 41) / 10


class Stop(Exception):
    pass


def halt(history):
    raise Stop


def settled(schedule=None, lr=0.1, momentum=0.9, **schedule_options):
    model = nn.Sequential(nn.Dense(4, 3), seed=0)
    optimizer = nn.SGD(model, lr=lr, momentum=momentum)
    return model, optimizer, None if schedule is None else schedule(optimizer, **schedule_options)


def run(folder, setup=(), resume=False, stop=False, **options):
    model, optimizer, schedule = settled(**dict(setup))
    options = {"epochs": 4, "batch_size": 10, "progress": False, **options}
    nn.fit(
        model, (X, Y), optimizer=optimizer, schedule=schedule, checkpoints=folder, resume=resume,
        after_epoch=halt if stop else None, **options,
    )  # fmt: skip
    return model, optimizer


def same(one, other):
    return all(np.array_equal(array, other.state_dict()[name]) for name, array in one.state_dict().items())


PLATEAU = {"schedule": nn.ReduceLROnPlateau}
COSINE, LONGER = ({"schedule": nn.CosineLR, "total_steps": n} for n in (16, 32))
ONE_CYCLE = {"schedule": nn.OneCycleLR, "max_lr": 0.1, "total_steps": 16}
STEP = {"schedule": nn.StepLR, "step_size": 3}

DIFFERENT = {
    "rate": ({}, {"lr": 0.2}, {}, {}, "its optimizer's lr was 0.1, this run's is 0.2"),
    "momentum": ({}, {"momentum": 0.5}, {}, {}, "its optimizer's momentum was 0.9, this run's is 0.5"),
    "rate under cosine": (COSINE, {**COSINE, "lr": 0.2}, {}, {}, "its schedule's base_lr was 0.1, this run's is 0.2"),
    "rate under plateau": (PLATEAU, {**PLATEAU, "lr": 0.2}, {}, {}, "its schedule's base_lr was 0.1"),
    "momentum under cosine": (COSINE, {**COSINE, "momentum": 0.5}, {}, {}, "optimizer's momentum was 0.9"),
    "steps of a cosine": (COSINE, LONGER, {}, {}, "its schedule's total_steps was 16, this run's is 32"),
    "steps of a cycle": (ONE_CYCLE, {**ONE_CYCLE, "total_steps": 32}, {}, {}, "total_steps was 16, this run's is 32"),
    "highest rate": (ONE_CYCLE, {**ONE_CYCLE, "max_lr": 0.3}, {}, {}, "max_lr was 0.1, this run's is 0.3"),
    "step size": (STEP, {**STEP, "step_size": 4}, {}, {}, "step_size was 3, this run's is 4"),
    "kind of schedule": (STEP, COSINE, {}, {}, "its schedule was StepLR, this run's is CosineLR"),
    "no schedule": (STEP, {}, {}, {}, "its schedule was StepLR, this run's is None"),
    "no schedule, and nothing of the rate": (STEP, {}, {}, {}, "not of this run: its schedule was StepLR"),
    "accumulate, and nothing of shards": (
        {}, {}, {}, {"accumulate": 2, "batch_size": 5}, "not of this run: its accumulate was 1, this run's is 2; go on",
    ),
    "what it counts": (STEP, STEP, {}, {"schedule_each": "epoch"}, "its schedule_each was step, this run's is epoch"),
    "loss": ({}, {}, {}, {"loss": nn.CrossEntropy(label_smoothing=0.1)}, r"its loss was CrossEntropy\(\), this"),
    "many weights": (
        {}, {}, {"loss": nn.BinaryCrossEntropy(weight=MANY)}, {"loss": nn.BinaryCrossEntropy(weight=2 * MANY)},
        "its loss was BinaryCrossEntropy",
    ),
    "clipping": ({}, {}, {"clip_norm": 1.0}, {"clip_norm": 2.0}, "its clip_norm was 1.0, this run's is 2.0"),
    "clipping by value": ({}, {}, {"clip_value": 1.0}, {}, "its clip_value was 1.0, this run's is None"),
    "batches": ({}, {}, {}, {"batch_size": 20}, "this loader has batch_size 20 and the state is of one with 10"),
    "accumulate": ({}, {}, {"accumulate": 2}, {"batch_size": 20}, "its accumulate was 2, this run's is 1"),
    "shards": ({}, {}, {"shards": 2}, {"shards": 4}, r"its shards was \(1, 1\), this run's is \(1, 1, 1, 1\)"),
    "metric": (
        {}, {}, {"early_stopping": EarlyStopping(9, "train_accuracy")}, {},
        r"its metric of the best epoch was train_accuracy \(most\), this run's is train_loss \(least\)",
    ),
    "longer": (COSINE, COSINE, {}, {"epochs": 5}, "has 16 steps and 5 epochs need 20: it can't be made longer"),
    "all at once": ({}, {"lr": 0.3, "momentum": 0.0}, {}, {"clip_norm": 1.0}, "lr was .*momentum was .*clip_norm"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_run_with_other_settings_is_refused_and_nothing_is_loaded(tmp_path, name):
    before, after, options, others, message = DIFFERENT[name]
    if "BinaryCrossEntropy" in message:
        pytest.importorskip("numpy")
        options, others = ({**each, "on_nan": None} for each in (options, others))
        x, y = X, (np.arange(1600).reshape(40, 40) % 2).astype(np.float32)

        def start(folder, given, **more):
            model = nn.Sequential(nn.Dense(4, 40), nn.Sigmoid(), seed=0)
            nn.fit(model, (x, y), epochs=4, batch_size=10, progress=False, checkpoints=folder, **given, **more)

        with pytest.raises(Stop):
            start(tmp_path, options, after_epoch=halt)
        with pytest.raises(CheckpointError, match=message):
            start(tmp_path, others, resume=True)
        return
    with pytest.raises(Stop):
        run(tmp_path, before, stop=True, **options)
    model, optimizer, schedule = settled(**after)
    fresh = {name: np.array(array) for name, array in model.state_dict().items()}
    settings = {name: getattr(optimizer, name) for name in optimizer.settings}
    loader = nn.DataLoader(X, Y, others.pop("batch_size", 10))
    options = {"epochs": 4, "progress": False, **others}
    with pytest.raises(CheckpointError, match=message) as error:
        nn.fit(model, loader, optimizer=optimizer, schedule=schedule, checkpoints=tmp_path, resume=True, **options)
    assert all(np.array_equal(array, model.state_dict()[name]) for name, array in fresh.items())
    assert settings == {name: getattr(optimizer, name) for name in optimizer.settings}
    assert loader.epoch == 0 and (schedule is None or getattr(schedule, "taken", 0) == 0)
    if "this loader" not in message:
        assert "begin a new run in another folder" in str(error.value)


@pytest.mark.parametrize("setup", [{}, STEP, {"schedule": nn.ExponentialLR, "gamma": 0.9}, PLATEAU], ids=str)
def test_without_a_number_of_steps_in_the_schedule_there_may_be_more_epochs(tmp_path, setup):
    run(tmp_path / "run", setup, epochs=2)
    longer, _ = run(tmp_path / "run", setup, epochs=4, resume=True)
    assert same(longer, run(tmp_path / "whole", setup, epochs=4)[0])


def test_a_schedule_with_steps_left_is_continued(tmp_path):
    run(tmp_path / "run", COSINE, epochs=2)
    longer, _ = run(tmp_path / "run", COSINE, epochs=4, resume=True)
    assert same(longer, run(tmp_path / "whole", COSINE)[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MeanSquaredError", "MSE"),
        ("MeanAbsoluteError", "MAE"),
        ("MeanAbsolutePercentageError", "MAPE"),
        ("MeanSquaredLogError", "MSLE"),
    ],
)
def test_a_loss_that_was_renamed_is_the_same_loss(tmp_path, old, new):
    loss = getattr(nn, new)
    old_loss = type(old, (loss,), {})

    def start(folder, loss, **options):
        model = nn.Sequential(nn.Dense(4, 4), nn.Sigmoid(), seed=0)
        nn.fit(model, (X, X[::-1].copy() ** 2), loss=loss, checkpoints=folder, progress=False, **options)
        return model

    start(tmp_path / "run", old_loss(), epochs=1)
    longer = start(tmp_path / "run", loss(), epochs=2, resume=True)
    assert same(longer, start(tmp_path / "whole", loss(), epochs=2))
    start(tmp_path / "own", old_loss(), epochs=1)
    start(tmp_path / "own", old_loss(), epochs=2, resume=True)
    with pytest.raises(CheckpointError, match=rf"its loss was {new}\(\), this run's is Huber\(\)"):
        start(tmp_path / "run", nn.Huber(), epochs=3, resume=True)


def test_what_is_no_state_may_change(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, stop=True, early_stopping=EarlyStopping(2, "train_loss"))
    run(tmp_path, resume=True, on_nan="stop", early_stopping=EarlyStopping(3, "train_loss", restore_best=True))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_parts_that_give_the_bits_of_the_whole_may_be_others(tmp_path, numerics):
    def part(shards, **options):
        model = nn.Sequential(nn.Dense(4, 3), seed=0, backend=nn.get_backend("numpy", numerics=numerics))
        optimizer = nn.SGD(model, lr=0.1)
        nn.fit(
            model, (X, Y), optimizer=optimizer, epochs=2, batch_size=10, progress=False, checkpoints=tmp_path,
            shards=shards, **options,
        )  # fmt: skip

    with pytest.raises(Stop):
        part(2, after_epoch=halt)
    if numerics == "exact":
        part(1, resume=True)
    else:
        with pytest.raises(CheckpointError, match="its shards was"):
            part(1, resume=True)


def test_the_same_objects_go_on(tmp_path):
    """As in a notebook, where only the call of `fit` is repeated; a rate that was set meanwhile stays."""
    model, optimizer, schedule = settled(**STEP)
    options = {"optimizer": optimizer, "schedule": schedule, "batch_size": 10, "progress": False}
    with pytest.raises(Stop):
        nn.fit(model, (X, Y), checkpoints=tmp_path / "a", after_epoch=halt, epochs=4, **options)
    nn.fit(model, (X, Y), checkpoints=tmp_path / "a", resume=True, epochs=4, **options)
    assert same(model, run(tmp_path / "whole", STEP)[0])

    model, optimizer, _ = settled()

    def lower(history):
        optimizer.lr = 0.05
        if len(history.rows) == 2:
            raise Stop

    with pytest.raises(Stop):
        nn.fit(model, (X, Y), optimizer=optimizer, checkpoints=tmp_path / "b", after_epoch=lower, progress=False)
    nn.fit(model, (X, Y), optimizer=optimizer, checkpoints=tmp_path / "b", resume=True, epochs=3, progress=False)
    assert optimizer.lr == 0.05


def test_load_state_dict_refuses_the_state_of_a_longer_schedule_too():
    for before, after in ((COSINE, LONGER), (ONE_CYCLE, {**ONE_CYCLE, "total_steps": 32})):
        state = settled(**before)[2].state_dict()
        schedule = settled(**after)[2]
        mine = schedule.state_dict()
        with pytest.raises(ValueError, match=r"has 32 steps, the state is of one with 16; .* total_steps=16"):
            schedule.load_state_dict(state)
        assert schedule.state_dict() == mine


def test_load_state_dict_replaces_other_settings_as_in_pytorch():
    optimizer = settled(lr=0.5)[1]
    optimizer.load_state_dict(settled(lr=0.1, momentum=0.3)[1].state_dict())
    assert (optimizer.lr, optimizer.momentum) == (0.1, 0.3)
    schedule = settled(**STEP)[2]
    schedule.load_state_dict(settled(**{**STEP, "step_size": 7})[2].state_dict())
    assert schedule.step_size == 7


@pytest.mark.parametrize("state", [3, {}, {"lr": 1.0}])
def test_what_is_no_state_of_an_optimizer_is_refused(state):
    with pytest.raises(ValueError, match=r"SGD.load_state_dict: state must be what state_dict\(\) returned"):
        settled()[1].load_state_dict(state)


@pytest.mark.parametrize("epochs", [5, 40])
def test_a_cosine_that_reaches_0_before_the_run_ends_is_refused(epochs):
    model, optimizer, schedule = settled(**COSINE)
    options = {"optimizer": optimizer, "batch_size": 10, "progress": False}
    with pytest.raises(ValueError, match=f"total_steps={4 * epochs}, or with a minimum above 0: the rate would be 0"):
        nn.fit(model, (X, Y), schedule=schedule, epochs=epochs, **options)
    assert schedule.taken == 0
    nn.fit(model, (X, Y), schedule=schedule, epochs=4, **options)
    with pytest.raises(ValueError, match="has 16 steps, 16 of them done, and this run needs 4"):
        nn.fit(model, (X, Y), schedule=schedule, epochs=1, **options)
    optimizer.lr = 0.1
    lowest = nn.CosineLR(optimizer, 16, minimum=0.01)
    assert nn.fit(model, (X, Y), schedule=lowest, epochs=5, **options)["lr"][-1] == 0.01


@pytest.mark.parametrize("epochs", [5, 40])
def test_a_cycle_that_ends_before_the_run_is_refused_before_the_first_step(epochs):
    model, optimizer, schedule = settled(**ONE_CYCLE)
    before = {name: np.array(array) for name, array in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=f"16 steps, 0 of them done, .* needs {4 * epochs} .* total_steps={4 * epochs}"
    ):
        nn.fit(model, (X, Y), optimizer=optimizer, schedule=schedule, epochs=epochs, batch_size=10, progress=False)
    assert all(np.array_equal(array, model.state_dict()[name]) for name, array in before.items())
    nn.fit(model, (X, Y), optimizer=optimizer, schedule=schedule, epochs=4, batch_size=10, progress=False)
    assert schedule.taken == 16


def test_a_checkpoint_without_a_fact_is_damaged(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, stop=True)
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.newest()
    for name in list(found.facts):
        facts = {key: value for key, value in found.facts.items() if key != name}
        checkpoints.write(found.step, found.arrays, facts)
        if name in ("backend", "numerics"):
            # For readers of the file.
            continue
        with pytest.raises(CheckpointError, match=f"is damaged: it has no {name}"):
            run(tmp_path, resume=True)


def test_fewer_epochs_than_are_done_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="it is in epoch 4, and epochs is 3; give at least 4"):
        run(tmp_path, resume=True, epochs=3)
    run(tmp_path, resume=True, epochs=4)


@pytest.mark.parametrize("name", ["shards", "accumulate"])
def test_more_parts_than_any_step_has_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} must be an integer from 1 to 1000000"):
        run(tmp_path, **{name: 2**70})
