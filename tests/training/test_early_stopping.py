"""Early stopping, the best epoch and its weights, all by one metric."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.checkpoint_file import CheckpointError
from xpnn.training.checkpoints import Checkpoints
from xpnn.training.early_stopping import EarlyStopping

X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
Y = np.arange(40) % 3
# The more a net learns, the worse it gets at these.
WRONG = (Y + 1) % 3
RESTORE = EarlyStopping(2, restore_best=True)


def net():
    return nn.Sequential(nn.Dense(4, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.1), nn.Dense(16, 3), seed=0)


def run(model=None, validation=(X, WRONG), **options):
    """Weights after each epoch, the model, its history."""
    model, after = model or net(), []
    options = {"epochs": 9, "batch_size": 10, "progress": False, **options}
    then = options.pop("then", None)

    def note(history):
        after.append({name: np.array(array) for name, array in model.state_dict().items()})
        if then is not None:
            then(history)

    optimizer = nn.SGD(model, lr=0.05, momentum=0.5)
    history = nn.fit(model, (X, Y), validation=validation, optimizer=optimizer, after_epoch=note, **options)
    return after, model, history


def holds(model, weights):
    return all(np.array_equal(array, weights[name]) for name, array in model.state_dict().items())


@pytest.mark.parametrize("on_disk", [False, True])
def test_weights_of_the_best_epoch_are_restored(tmp_path, on_disk):
    checkpoints = tmp_path if on_disk else None
    after, model, history = run(early_stopping=RESTORE, checkpoints=checkpoints)
    best = int(np.argmin(history["validation_loss"]))
    assert best == 1 and len(after) == 4
    assert holds(model, after[1]) and not holds(model, after[3])
    measured = nn.evaluate(model, (X, WRONG), batch_size=10)["loss"]
    assert measured == history["validation_loss"][best]
    if on_disk:
        assert Checkpoints(tmp_path).best().step == 8
        assert holds(model, Checkpoints(tmp_path).best().weights)


def test_without_restore_best_the_last_weights_stay():
    after, model, _ = run(early_stopping=2)
    assert holds(model, after[-1]) and EarlyStopping(2).restore_best is False


def test_a_run_that_was_not_stopped_early_gets_its_best_weights_too():
    after, model, history = run(early_stopping=EarlyStopping(20, restore_best=True), epochs=4)
    assert len(after) == 4 and holds(model, after[int(np.argmin(history["validation_loss"]))])


def test_the_best_epoch_may_be_the_last():
    after, model, history = run(validation=(X, Y), early_stopping=RESTORE, epochs=3)
    assert int(np.argmin(history["validation_loss"])) == 2 and holds(model, after[2])


class Stop(Exception):
    pass


@pytest.mark.parametrize("at_epoch", [1, 2, 3])
def test_after_a_resume_the_best_weights_are_those_of_before(tmp_path, at_epoch):
    def stop(history):
        if len(history.rows) == at_epoch:
            raise Stop

    options = {"early_stopping": RESTORE, "checkpoints": Checkpoints(tmp_path, keep=1)}
    with pytest.raises(Stop):
        run(then=stop, **options)
    _, model, history = run(resume=True, **options)
    whole, _, _ = run(early_stopping=RESTORE)
    assert len(history.rows) == 4 and holds(model, whole[1])
    # Resuming a run that ended restores them again.
    _, model, _ = run(resume=True, **options)
    assert holds(model, whole[1])


def test_best_weights_that_are_in_no_checkpoint_any_more_are_an_error(tmp_path):
    def stop(history):
        if len(history.rows) == 3:
            raise Stop

    options = {"early_stopping": RESTORE, "checkpoints": Checkpoints(tmp_path)}
    with pytest.raises(Stop):
        run(then=stop, **options)
    for path in tmp_path.glob("step-00000008*"):
        path.unlink()
    with pytest.raises(
        CheckpointError, match="the weights of epoch 2, the best by validation loss, are in no checkpoint"
    ):
        run(resume=True, **options)


def test_random_streams_go_on_where_they_are():
    model = net()
    run(model, early_stopping=EarlyStopping(1, restore_best=True), epochs=4)
    assert model[3].stream.position == run(early_stopping=1, epochs=4)[1][3].stream.position > 0


def test_where_the_metric_is_nan_in_all_epochs_the_last_weights_stay():
    after, model, _ = run(validation=(X * np.nan, Y), early_stopping=RESTORE)
    assert len(after) == 3 and holds(model, after[-1])


def test_the_epoch_of_the_weights_is_reported(capsys):
    history = run(early_stopping=RESTORE, progress=True)[2]
    error = capsys.readouterr().err
    assert "stopped early: validation loss has not improved for 2 epochs; best was epoch 2" in error
    loss = history["validation_loss"][1]
    assert f"the weights are those of epoch 2, the best by validation loss ({loss:.6g})" in error


@pytest.mark.parametrize(
    ("metric", "mode", "wanted"),
    [
        ("validation_loss", None, np.argmin),
        ("validation_accuracy", None, np.argmax),
        ("train_loss", None, np.argmin),
        ("train_loss", "max", np.argmax),
    ],
)
def test_the_best_checkpoint_is_chosen_by_the_metric_of_early_stopping(tmp_path, metric, mode, wanted):
    stopping = EarlyStopping(20, metric, mode, restore_best=True)
    after, model, history = run(early_stopping=stopping, checkpoints=Checkpoints(tmp_path, keep=1), epochs=6)
    best = int(wanted(history[metric]))
    assert Checkpoints(tmp_path).best().step == 4 * (best + 1)
    assert stopping.best(history) == best and holds(model, after[best])


@pytest.mark.parametrize("validation", [None, (X, WRONG)])
def test_without_early_stopping_the_best_checkpoint_is_that_of_the_lowest_loss(tmp_path, validation):
    _, _, history = run(validation=validation, checkpoints=Checkpoints(tmp_path, keep=1), epochs=4)
    column = "train_loss" if validation is None else "validation_loss"
    best = int(np.argmin(history[column]))
    assert best == (3 if validation is None else 1)
    assert Checkpoints(tmp_path).best().step == 4 * (best + 1)


@pytest.mark.parametrize(
    ("stopping", "validation", "message"),
    [
        (
            EarlyStopping(2, "val_loss"),
            (X, Y),
            "a column of this run, epoch, train_loss, .* got 'val_loss'",
        ),
        (EarlyStopping(2, "validation_los"), (X, Y), "did you mean 'validation_loss'?"),
        (
            EarlyStopping(2),
            None,
            "a column of this run, .*; got 'validation_loss'; give validation data, or name one of these",
        ),
        (
            EarlyStopping(2, "lr"),
            (X, Y),
            "epoch, train_loss, train_accuracy, validation_loss, validation_accuracy, sec",
        ),
    ],
)
def test_a_metric_that_will_not_be_measured_is_refused_before_the_first_epoch(stopping, validation, message):
    model = net()
    before = {name: np.array(array) for name, array in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        run(model, validation=validation, early_stopping=stopping)
    assert holds(model, before)


def test_an_accuracy_of_targets_that_are_no_classes_is_an_error():
    masks = np.zeros((40, 5), np.int64)

    class Loose(nn.MSE):
        def forward(self, prediction, target):
            return super().forward(prediction, target.astype(np.float32))

    model = nn.Sequential(nn.Dense(4, 5), seed=0)
    stopping = EarlyStopping(2, "train_accuracy")
    with pytest.raises(
        ValueError,
        match="run, epoch, train_loss, seconds; got 'train_accuracy': an accuracy needs targets that are classes",
    ):
        nn.fit(model, (X, masks), loss=Loose(), early_stopping=stopping, progress=False)


def table(*values):
    return nn.History.from_rows({"validation_loss": value, "epoch": i} for i, value in enumerate(values, 1))


def test_a_small_improvement_is_the_best_and_does_not_lengthen_the_wait():
    stopping = EarlyStopping(2, threshold=0.5)
    assert stopping.best(table(3.0, 2.9, 2.8)) == 2
    assert stopping.reached(table(3.0, 2.9, 2.8))
    assert not stopping.reached(table(3.0, 2.4, 2.3))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((0,), ValueError, "patience must be an integer >= 1, got 0"),
        ((2, 3), TypeError, "metric must be a str, got 3"),
        ((2, "train_loss", "least"), ValueError, "mode must be 'min', 'max' or None, got 'least'"),
        ((2, "train_loss", "min", -1.0), ValueError, "threshold"),
        ((2, "train_loss", "min", 0.0, "yes"), ValueError, "restore_best must be True or False, got 'yes'"),
    ],
)
def test_bad_settings_are_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        EarlyStopping(*arguments)
