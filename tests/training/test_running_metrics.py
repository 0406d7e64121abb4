"""The metrics of an epoch are those of all samples in one batch, whatever the batches."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers import losses
from xpnn.training.checkpoints import Checkpoints
from xpnn.training.early_stopping import EarlyStopping

N, C = 67, 5
SIZES = (1, 8, 33, N)
rng = np.random.default_rng(0)
LOGITS = rng.standard_normal((N, C)).astype(np.float32)
CLASSES = rng.integers(0, C, N)
SOME_IGNORED = np.where(np.arange(N) % 3 == 0, -100, CLASSES)
# In batches of 8, all targets of the second and third are ignored.
RUNS_IGNORED = np.where((np.arange(N) >= 8) & (np.arange(N) < 24), -100, CLASSES)
PROBABILITIES = (lambda p: (p / p.sum(1, keepdims=True)).astype(np.float32))(rng.random((N, C)))
LOG_P = np.log(PROBABILITIES)
YES = (rng.random((N, C)) < 0.5).astype(np.float32)
INSIDE = (0.05 + 0.9 * rng.random((N, C))).astype(np.float32)
NUMBERS = rng.standard_normal((N, C)).astype(np.float32)
POSITIVE = (0.5 + rng.random((N, C))).astype(np.float32)
WEIGHTS = [0.2, 1.0, 3.0, 0.5, 2.0]
IMAGES = rng.standard_normal((N, C, 2, 3)).astype(np.float32)
MASKS = np.where(rng.random((N, 2, 3)) < 0.4, 3, rng.integers(0, C, (N, 2, 3)))

CASES = {
    "CrossEntropy": (losses.CrossEntropy(), LOGITS, CLASSES),
    "CrossEntropy of bytes": (losses.CrossEntropy(), LOGITS, CLASSES.astype(np.uint8)),
    "CrossEntropy, weights": (losses.CrossEntropy(weight=WEIGHTS), LOGITS, CLASSES),
    "CrossEntropy, a weight of 0": (losses.CrossEntropy(weight=[0.0, 1.0, 0.0, 2.0, 0.0]), LOGITS, CLASSES),
    "CrossEntropy, ignored": (losses.CrossEntropy(), LOGITS, SOME_IGNORED),
    "CrossEntropy, whole batches ignored": (losses.CrossEntropy(), LOGITS, RUNS_IGNORED),
    "CrossEntropy, a class ignored": (losses.CrossEntropy(ignore_index=2), LOGITS, CLASSES),
    "CrossEntropy, weights, ignored": (losses.CrossEntropy(weight=WEIGHTS), LOGITS, RUNS_IGNORED),
    "CrossEntropy, smoothed": (losses.CrossEntropy(label_smoothing=0.1, weight=WEIGHTS), LOGITS, SOME_IGNORED),
    "CrossEntropy of probabilities": (losses.CrossEntropy(weight=WEIGHTS), LOGITS, PROBABILITIES),
    "CrossEntropy of masks": (losses.CrossEntropy(ignore_index=3), IMAGES, MASKS),
    "NLL": (losses.NLL(), LOG_P, CLASSES),
    "NLL, weights, ignored": (losses.NLL(weight=WEIGHTS), LOG_P, RUNS_IGNORED),
    "BinaryCrossEntropy": (losses.BinaryCrossEntropy(weight=WEIGHTS), INSIDE, YES),
    "BinaryCrossEntropyWithLogits": (losses.BinaryCrossEntropyWithLogits(pos_weight=WEIGHTS), LOGITS, YES),
    "KLDivergence": (losses.KLDivergence(), LOG_P, PROBABILITIES),
    "KLDivergence, batchmean": (losses.KLDivergence("batchmean"), LOG_P, PROBABILITIES),
    "MSE": (losses.MSE(), NUMBERS, LOGITS),
    "MAE": (losses.MAE(), NUMBERS, LOGITS),
    "MAPE": (losses.MAPE(), NUMBERS, POSITIVE),
    "MSLE": (losses.MSLE(), POSITIVE, INSIDE),
    "L1": (losses.L1(), NUMBERS, LOGITS),
    "L2": (losses.L2(), NUMBERS, LOGITS),
    "Huber": (losses.Huber(), NUMBERS, LOGITS),
    "SmoothL1": (losses.SmoothL1(), NUMBERS, LOGITS),
    "CrossEntropy, sum": (losses.CrossEntropy("sum", weight=WEIGHTS), LOGITS, SOME_IGNORED),
    "Focal": (losses.Focal(), LOGITS, CLASSES),
    "Focal, weights, ignored": (losses.Focal(alpha=WEIGHTS, gamma=1.5), LOGITS, RUNS_IGNORED),
    "Dice": (losses.Dice(), IMAGES, MASKS),
    "MSE, sum": (losses.MSE("sum"), NUMBERS, LOGITS),
}  # fmt: skip


def identity(backend="numpy"):
    return nn.Sequential(nn.Identity(), backend=backend)


def test_every_loss_is_among_the_cases():
    kinds = {getattr(losses, name) for name in losses.__all__} - {losses.Loss}
    assert {type(loss) for loss, _, _ in CASES.values()} == kinds


@pytest.mark.parametrize("name", CASES)
def test_evaluate_gives_the_loss_of_all_samples_at_once(at, name):
    loss, x, y = CASES[name]
    whole = float(at.get(loss.forward(at.put(x), at.put(y))))
    for size in SIZES:
        found = nn.evaluate(identity(at.backend), (x, y), loss=loss, batch_size=size)["loss"]
        assert found == pytest.approx(whole, rel=2e-6), size


@pytest.mark.parametrize("name", [name for name, (loss, _, _) in CASES.items() if loss.reduction != "sum"])
def test_the_history_gives_the_loss_of_all_samples_at_once(name):
    """With a learning rate too small to change the weights."""
    loss, x, y = CASES[name]
    whole = float(loss.forward(x, y))
    for options in ({}, {"shards": 3}, {"accumulate": 2}, {"on_nan": "stop"}, {"on_nan": "skip"}):
        for size in (7, 8, 33):
            model = nn.Sequential(nn.Identity(), Shift())
            optimizer = nn.SGD(model, lr=1e-30)
            row = nn.fit(
                model, (x, y), loss=loss, optimizer=optimizer, epochs=1, batch_size=size, progress=False, **options,
                validation=nn.DataLoader(x, y, 5),
            ).rows[0]  # fmt: skip
            assert row["train_loss"] == pytest.approx(whole, rel=2e-6), (size, options)
            assert row["validation_loss"] == pytest.approx(whole, rel=2e-6)


class Shift(nn.layers.Layer):
    """Adds a number, which is 0."""

    def __init__(self):
        super().__init__()
        self.add_parameter("shift", (1,), nn.layers.initialisers.constant(0.0))

    def _forward(self, x):
        self.save_for_backward()
        return x + self.parameter_value("shift")[0]

    def _backward(self, dy, input_grad):
        self.accumulate_grad("shift", dy.sum()[None])
        return dy


def by_hand(logits, y, weight=None, ignored=-100):
    """Cross-entropy and accuracy, from their definitions."""
    kept = y != ignored
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    w = np.ones(C) if weight is None else np.asarray(weight)
    share = w[y[kept]]
    loss = -(share * log_p[kept, y[kept]]).sum() / share.sum()
    return loss, (logits.argmax(1) == y)[kept].mean()


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("targets", [CLASSES, SOME_IGNORED, RUNS_IGNORED], ids=["all", "some", "runs"])
def test_ignored_targets_count_neither_in_the_loss_nor_in_the_accuracy(at, targets, weight):
    loss, accuracy = by_hand(LOGITS, targets, weight)
    for size in SIZES:
        found = nn.evaluate(
            identity(at.backend), (LOGITS, targets), loss=nn.CrossEntropy(weight=weight), batch_size=size
        )
        assert found["loss"] == pytest.approx(loss, rel=2e-6)
        assert found["accuracy"] == pytest.approx(accuracy, rel=1e-12)


def test_a_class_that_is_ignored_is_never_right():
    predicted_right = np.eye(C, dtype=np.float32)[CLASSES]
    found = nn.evaluate(identity(), (predicted_right, CLASSES), loss=nn.CrossEntropy(ignore_index=2))
    assert found["accuracy"] == 1.0
    wrong = np.eye(C, dtype=np.float32)[np.where(CLASSES == 2, 2, (CLASSES + 1) % C)]
    assert nn.evaluate(identity(), (wrong, CLASSES), loss=nn.CrossEntropy(ignore_index=2))["accuracy"] == 0.0


def test_a_mean_over_nothing_is_nan():
    found = nn.evaluate(identity(), (LOGITS, np.full(N, -100)), batch_size=8)
    assert np.isnan(found["loss"]) and np.isnan(found["accuracy"])


def test_losses_without_reduction_are_refused():
    with pytest.raises(ValueError, match="loss must be one with reduction='mean' or 'sum'"):
        nn.evaluate(identity(), (LOGITS, CLASSES), loss=nn.CrossEntropy("none"))


def test_many_small_losses_are_added_up_without_losing_digits():
    x = np.full((4000, 1), 0.1, np.float32)
    x[0] = 3000.0
    found = nn.evaluate(identity(), (x, np.zeros_like(x)), loss=nn.MSE(), batch_size=1)["loss"]
    assert found == pytest.approx(float((x.astype(np.float64) ** 2).mean()), rel=1e-9)


@pytest.mark.parametrize("name", ["CrossEntropy, weights, ignored", "CrossEntropy of masks", "MSE"])
def test_in_exact_numerics_the_figures_are_the_same_bits_on_every_backend(at, name):
    loss, x, y = CASES[name]
    if at.backend.spec == "strict:no_float64":
        pytest.skip("exact numerics needs float64")
    found = [
        nn.evaluate(identity(nn.get_backend(where, numerics="exact")), (x, y), loss=loss, batch_size=8)
        for where in (at.backend.spec, "numpy")
    ]
    assert found[0] == found[1]


def dense(seed=0):
    return nn.Sequential(nn.Dense(C, C), seed=seed)


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["CrossEntropy, weights, ignored", "CrossEntropy, ignored", "KLDivergence, batchmean"])
@pytest.mark.parametrize("on_nan", [None, "stop"])
def test_an_epoch_that_is_resumed_has_the_same_figures(tmp_path, name, on_nan):
    loss, x, y = CASES[name]

    def run(resume=False, stop=None):
        model = dense()
        checkpoints = Checkpoints(tmp_path / ("a" if resume or stop else "whole"), every=2)
        if stop:
            write = checkpoints.write

            def writing(step, *rest):
                write(step, *rest)
                if step == stop:
                    raise Stop

            checkpoints.write = writing
        history = nn.fit(
            model, (x, y), loss=loss, optimizer=nn.SGD(model, lr=0.1), epochs=2, batch_size=8, progress=False,
            checkpoints=checkpoints, resume=resume, on_nan=on_nan, validation=(x, y),
        )  # fmt: skip
        return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]

    with pytest.raises(Stop):
        run(stop=4)
    assert run(resume=True) == run()


@pytest.mark.parametrize("on_nan", [None, "stop", "skip"])
def test_a_batch_of_ignored_targets_changes_no_weight_and_stops_nothing(on_nan):
    options = {"epochs": 1, "progress": False, "loss": nn.CrossEntropy()}
    trained, reference = dense(), dense()
    for model, (x, y) in ((trained, (LOGITS, RUNS_IGNORED)), (reference, (LOGITS[:8], CLASSES[:8]))):
        loader = nn.DataLoader(x[:16], y[:16], 8, shuffle=False)
        history = nn.fit(model, loader, optimizer=nn.SGD(model, lr=0.1), on_nan=on_nan, **options)
        assert np.isfinite(history["train_loss"]).all() and history.rows[0].get("skipped", 0) == 0
    for name, array in trained.state_dict().items():
        assert np.array_equal(array, reference.state_dict()[name])


def test_plateau_and_early_stopping_look_at_the_mean_that_counts(monkeypatch):
    """A batch of ignored targets in validation must not make the loss NaN, which is never an improvement."""
    seen = []
    monkeypatch.setattr(nn.ReduceLROnPlateau, "step", lambda self, metric: seen.append(metric))
    model = dense()
    optimizer = nn.SGD(model, lr=0.1)
    history = nn.fit(
        model, (LOGITS, CLASSES), validation=nn.DataLoader(LOGITS, RUNS_IGNORED, 8, shuffle=False), optimizer=optimizer,
        schedule=nn.ReduceLROnPlateau(optimizer), early_stopping=EarlyStopping(3), epochs=5, progress=False,
    )  # fmt: skip
    assert seen == history["validation_loss"] and len(seen) == 5
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(by_hand(nn.predict(model, LOGITS), RUNS_IGNORED)[0], rel=1e-5)
