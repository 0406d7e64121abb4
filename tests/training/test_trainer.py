"""The training loop: resuming, stopping, skipping batches, accumulating gradients."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match
from xpnn.training.checkpoint_file import CheckpointError
from xpnn.training.checkpoints import Checkpoints
from xpnn.training.early_stopping import EarlyStopping
from xpnn.training.history import History


def rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.standard_normal((n, 2, 6, 6)).astype(np.float32)
    x[np.arange(n), 0, y] += 2.0
    return x, y


def net(backend="numpy", seed=1):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Dense(64, 3),
        backend=backend,
        seed=seed,
    )


OPTIMIZERS = {
    "sgd": lambda model: nn.SGD(model, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda model: nn.Adam(model, lr=0.01),
    "rmsprop": lambda model: nn.RMSprop(model, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda model: nn.Adagrad(model, lr=0.05),
}
SCHEDULES = {
    "none": lambda optimizer: None,
    "one-cycle": lambda optimizer: nn.OneCycleLR(optimizer, 0.1, 24),
    "cosine": lambda optimizer: nn.CosineLR(optimizer, 24, warmup=5),
    "plateau": lambda optimizer: nn.ReduceLROnPlateau(optimizer, patience=0),
}


class Stop(Exception):
    """Raised by a test to stop a run."""


def stop_after(checkpoints, step):
    """Stop a run after it has written the checkpoint of a step."""
    write = checkpoints.write

    def writing(at, *arguments):
        path = write(at, *arguments)
        if at >= step:
            raise Stop
        return path

    checkpoints.write = writing
    return checkpoints


def run(backend, folder=None, stop=None, resume=False, optimizer="sgd", schedule="none", data=None, **options):
    model = net(backend)
    stepping = OPTIMIZERS[optimizer](model)
    options = {"epochs": 4, "batch_size": 10, "clip_norm": 1.0, "progress": False, "seed": 3, **options}
    if folder is not None:
        options["checkpoints"] = Checkpoints(folder, every=options.pop("every", 4))
        if stop:
            stop_after(options["checkpoints"], stop)
    history = nn.fit(
        model,
        data or rows(),
        validation=rows(seed=1),
        optimizer=stepping,
        schedule=SCHEDULES[schedule](stepping),
        resume=resume,
        **options,
    )
    return model, [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


def same(one, other):
    states = [{n: nn.backend_of(a).to_numpy(a) for n, a in model.state_dict().items()} for model, _ in (one, other)]
    return all(np.array_equal(states[0][n], states[1][n]) for n in states[0]) and one[1] == other[1]


@pytest.mark.parametrize("stop", [4, 6, 8, 20])
def test_a_resumed_run_ends_with_the_same_bits(at, tmp_path, stop):
    whole = run(at.backend)
    with pytest.raises(Stop):
        run(at.backend, tmp_path, stop)
    assert same(run(at.backend, tmp_path, resume=True), whole)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_that_optimizers_and_schedules_remember_is_kept(tmp_path, optimizer, schedule):
    if (optimizer, schedule) == ("adagrad", "one-cycle"):
        pytest.skip("one-cycle moves a momentum, and Adagrad has none")
    whole = run("numpy", optimizer=optimizer, schedule=schedule)
    with pytest.raises(Stop):
        run("numpy", tmp_path, 8, optimizer=optimizer, schedule=schedule)
    assert same(run("numpy", tmp_path, resume=True, optimizer=optimizer, schedule=schedule), whole)


@pytest.mark.parametrize("parts", [{"shards": 2}, {"accumulate": 2}, {"on_nan": "skip"}])
def test_a_run_part_by_part_goes_on_too(tmp_path, parts):
    whole = run("numpy", **parts)
    with pytest.raises(Stop):
        run("numpy", tmp_path, 4, every=2, **parts)
    assert same(run("numpy", tmp_path, resume=True, **parts), whole)


def test_weights_keep_their_memory_layout(tmp_path):
    """Products of the same numbers in another memory layout may have other bits."""
    model = run("numpy", tmp_path)[0]
    again = run("numpy", tmp_path, resume=True)[0]
    for name, parameter in model.named_parameters():
        assert dict(again.named_parameters())[name].value.strides == parameter.value.strides, name


def test_a_run_that_ended_is_not_gone_on_with(tmp_path):
    done = run("numpy", tmp_path)
    assert same(run("numpy", tmp_path, resume=True), done)


def test_resume_in_an_empty_folder_starts_at_the_beginning(tmp_path):
    assert same(run("numpy", tmp_path / "none", resume=True), run("numpy"))


def test_a_folder_of_an_earlier_run_is_refused_without_resume(tmp_path):
    """Otherwise the newest checkpoint there could be that of the earlier run."""
    run("numpy", tmp_path)
    with pytest.raises(CheckpointError, match="of an earlier run; go on with it"):
        run("numpy", tmp_path)
    Checkpoints(tmp_path).clear()
    run("numpy", tmp_path, epochs=1)
    assert max(Checkpoints(tmp_path).steps()) == 6


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"optimizer": "adam"}, "its optimizer was SGD, this run's is Adam"),
        ({"schedule": "cosine"}, "its schedule was None, this run's is CosineLR"),
        ({"batch_size": 12}, "this loader has batch_size 12"),
        ({"seed": 4}, "this loader has seed 4"),
        ({"data": rows(48)}, "this loader has samples 48"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, other, message):
    with pytest.raises(Stop):
        run("numpy", tmp_path, 4)
    with pytest.raises(CheckpointError, match=message):
        run("numpy", tmp_path, resume=True, **other)


def test_a_checkpoint_of_another_model_leaves_this_one_as_it_was(tmp_path):
    with pytest.raises(Stop):
        run("numpy", tmp_path, 4)
    model = nn.Sequential(nn.Flatten(), nn.Dense(72, 3), seed=0)
    before = np.array(model[1].parameters["weight"].value)
    options = {"optimizer": nn.SGD(model, lr=0.1), "batch_size": 10, "seed": 3, "progress": False}
    with pytest.raises(CheckpointError, match=r"unknown 0\.weight"):
        nn.fit(model, rows(), checkpoints=tmp_path, resume=True, **options)
    assert np.array_equal(model[1].parameters["weight"].value, before)


def poisoned(at_sample):
    x, y = rows()
    x[at_sample, 1, 2, 3] = np.nan
    return x, y


def test_a_nan_stops_with_the_step_the_place_and_what_to_try(at):
    model = net(at.backend)
    with pytest.raises(nn.NonFiniteError) as caught:
        nn.fit(model, poisoned(47), epochs=3, batch_size=10, seed=3, on_nan="stop", progress=False)
    error_text = str(caught.value)
    assert "epoch 1" in error_text and "the input" in error_text and "on_nan" in error_text
    # It stopped before the update.
    assert all(np.isfinite(at.get(array)).all() for array in model.state_dict().values())


def test_the_layer_where_an_overflow_begins_is_named():
    model = net()
    model[5].parameters["weight"].value = model[5].parameters["weight"].value * np.float32(3e38)
    with pytest.raises(nn.NonFiniteError, match="Dense"):
        nn.fit(model, rows(), epochs=1, batch_size=10, on_nan="stop", progress=False)


def test_a_batch_that_is_skipped_leaves_no_trace(at):
    """The run has the bits of one over the other batches only."""
    order = nn.DataLoader(np.arange(60), np.arange(60), 10, seed=3)
    bad = [int(i) for x, _ in list(order)[2:3] for i in x][:1]
    model, history = net(at.backend), None
    history = nn.fit(
        model, poisoned(bad), optimizer=nn.SGD(model, lr=0.05, momentum=0.9), epochs=1, batch_size=10, seed=3,
        on_nan="skip", progress=False,
    )  # fmt: skip
    assert history["skipped"] == [1.0]

    other, loss = net(at.backend).train(), nn.CrossEntropy()
    optimizer = nn.SGD(other, lr=0.05, momentum=0.9)
    for i, (x, y) in enumerate(nn.DataLoader(*rows(), 10, seed=3, backend=at.backend)):
        if i == 2:
            continue
        optimizer.zero_grad()
        loss(other(x), y)
        other.backward(loss.backward(), input_grad=False)
        optimizer.step()
    for name, array in other.state_dict().items():
        assert np.array_equal(at.get(model.state_dict()[name]), at.get(array)), name


def test_a_run_of_nothing_but_nan_stops_though_it_may_skip():
    x, y = rows()
    with pytest.raises(nn.NonFiniteError):
        nn.fit(net(), (x * np.nan, y), epochs=9, batch_size=10, on_nan="skip", progress=False)


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    model = net()
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        nn.fit(model, (rows()[0] * np.nan, rows()[1]), epochs=1, checkpoints=tmp_path, progress=False)
    assert Checkpoints(tmp_path).steps() == []


def test_accumulated_batches_give_the_step_of_their_sum(at):
    """Without a batch norm, which sees one batch at a time."""

    def model():
        return nn.Sequential(nn.Flatten(), nn.Dense(72, 8), nn.Tanh(), nn.Dense(8, 3), backend=at.backend, seed=0)

    whole, parts = model(), model()
    options = {"epochs": 2, "seed": 3, "progress": False}
    # 56 samples: the last step of an epoch is on fewer batches, the last of them smaller.
    data = rows(56)
    nn.fit(whole, data, optimizer=nn.SGD(whole, lr=0.1), batch_size=20, **options)
    nn.fit(parts, data, optimizer=nn.SGD(parts, lr=0.1), batch_size=5, accumulate=4, **options)
    for name, array in parts.state_dict().items():
        assert_match(array, at.get(whole.state_dict()[name]), level="network", terms=72, name=name)


def test_training_stops_early_at_the_right_epoch():
    """The validation labels are all wrong, so the loss on them grows while the net learns."""
    model, (x, y) = net(), rows()
    history = nn.fit(
        model, (x, y), validation=(x, (y + 1) % 3), epochs=20, early_stopping=2, batch_size=10, progress=False
    )
    best = int(np.argmin(history["validation_loss"]))
    assert len(history.rows) == best + 3 < 20


def table(values):
    history = History()
    for i, value in enumerate(values, 1):
        history.append({"epoch": i, "validation_loss": value})
    return history


@pytest.mark.parametrize(
    ("values", "patience", "reached"),
    [
        ([3.0, 2.0, 2.5], 1, True),
        ([3.0, 2.0, 2.5], 2, False),
        ([3.0, 2.0, 2.0], 1, True),
        ([3.0, float("nan"), 2.0], 1, False),
        ([float("nan"), float("nan"), float("nan")], 2, True),
        ([3.0], 1, False),
    ],
)
def test_early_stopping_counts_epochs_without_improvement(values, patience, reached):
    assert EarlyStopping(patience).reached(table(values)) is reached


def test_early_stopping_of_accuracy_and_with_a_threshold():
    assert EarlyStopping(1, mode="max").best(table([0.5, 0.7, 0.6])) == 1
    assert EarlyStopping(1, threshold=0.5).best(table([3.0, 2.8, 2.4])) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_nan": "ignore"}, "on_nan must be 'stop', 'skip' or None, got 'ignore'"),
        ({"accumulate": 0}, "accumulate must be an integer from 1"),
        ({"accumulate": 2, "shards": 2}, "shards and accumulate both compute a step part by part"),
        ({"clip_norm": 0.0}, "clip_norm must be a number > 0"),
        ({"clip_value": -1.0}, "clip_value must be a number > 0"),
        ({"early_stopping": 0}, "patience must be an integer >= 1"),
        ({"schedule_each": "hour"}, "schedule_each must be 'step' or 'epoch'"),
        ({"resume": True}, "resume=True needs checkpoints"),
    ],
)
def test_bad_options_are_refused_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        nn.fit(net(), rows(), progress=False, **options)


def test_a_schedule_may_count_epochs():
    model = net()
    optimizer = nn.SGD(model, lr=1.0)
    schedule = nn.StepLR(optimizer, 2, gamma=0.5)
    history = nn.fit(
        model, rows(), optimizer=optimizer, schedule=schedule, schedule_each="epoch", epochs=4, progress=False
    )
    assert optimizer.lr == 0.25
    assert history["lr"] == [1.0, 1.0, 0.5, 0.5]


def test_after_each_epoch_the_caller_sees_the_history():
    seen = []
    nn.fit(net(), rows(), epochs=3, progress=False, after_epoch=lambda history: seen.append(len(history.rows)))
    assert seen == [1, 2, 3]


class Wide(nn.layers.Layer):
    """A layer that raises `MemoryError` for batches over a size."""

    def _forward(self, x):
        if x.shape[0] > 6:
            raise MemoryError("Unable to allocate 9 GiB")
        self.save_for_backward()
        return x

    def _backward(self, dy, input_grad):
        return dy


def test_out_of_memory_names_the_batch_that_fits():
    model = nn.Sequential(Wide(), nn.Flatten(), nn.Dense(72, 3))
    with pytest.raises(nn.OutOfMemory, match=r"batch of 20 does not fit.*a batch of 5 does: --batch 5"):
        nn.fit(model, rows(), batch_size=20, progress=False)


def forget(facts, *path):
    for name in path[:-1]:
        facts = facts[name]
    del facts[path[-1]]


def put(facts, value, *path):
    for name in path[:-1]:
        facts = facts[name]
    facts[path[-1]] = value


FORGOTTEN = [
    *(
        (name,)
        for name in ("about", "numerics", "model", "optimizer", "loader", "first_pass", "epoch", "batch", "steps")
    ),
    *((name,) for name in ("seconds", "skipped", "tally", "history")),
    *(("model", name) for name in ("dtype", "order", "streams")),
    *(("optimizer", name) for name in ("kind", "settings", "numbers")),
    ("loader", "epoch"),
    ("optimizer", "settings", "lr"),
    ("optimizer", "numbers", "0.weight"),
    ("schedule", "kind"),
    ("schedule", "state"),
]
WRONG = [
    (3, "model"),
    ([], "model", "streams"),
    ({"stream": -3}, "model", "streams"),
    ({"0.weight": 3}, "optimizer", "numbers"),
    ("x", "epoch"),
    (0, "epoch"),
    (True, "epoch"),
    (-1, "steps"),
    (1.5, "batch"),
    ("later", "seconds"),
    ([1], "skipped"),
    (["a", 0], "skipped"),
    ([3], "history"),
    ([{"epoch": "x"}], "history"),
    (None, "tally"),
    (7, "schedule"),
]


@pytest.mark.parametrize("change", [*FORGOTTEN, *WRONG], ids=str)
def test_a_checkpoint_with_damaged_facts_is_one_line_and_nothing_is_replaced(tmp_path, change):
    """Its checksum is right, because it was written with these facts."""

    def run(epochs, **options):
        model = nn.Sequential(nn.Dense(3, 4), nn.Dropout(0.5), nn.Dense(4, 2), seed=3)
        optimizer = nn.Adam(model, lr=0.01)
        schedule = nn.ExponentialLR(optimizer, 0.9)
        options = {"optimizer": optimizer, "schedule": schedule, "progress": False, "batch_size": 4, **options}
        x, y = np.random.default_rng(0).random((12, 3)).astype(np.float32), np.arange(12) % 2
        return model, lambda: nn.fit(model, (x, y), epochs=epochs, checkpoints=tmp_path, **options)

    run(1)[1]()
    with nn.Checkpoints(tmp_path) as checkpoints:
        (step,) = checkpoints.steps()
        found = checkpoints.read(step)
        if change in FORGOTTEN:
            forget(found.facts, *change)
        else:
            put(found.facts, *change)
        checkpoints.write(step, found.arrays, found.facts)
    model, go_on = run(2, resume=True)
    before = {name: np.array(array) for name, array in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        go_on()
    assert len(str(error.value).splitlines()) == 1 and "step-" in str(error.value)
    assert all(np.array_equal(array, before[name]) for name, array in model.state_dict().items())
