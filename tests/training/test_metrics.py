"""Metrics of `fit` and `evaluate` are those of all samples at once, added up on the device and read once."""

import functools

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.checkpoints import Checkpoints

N, C = 67, 5
rng = np.random.default_rng(0)
LOGITS = rng.standard_normal((N, C)).astype(np.float32)
LOGITS[::7] = np.round(LOGITS[::7])  # ties
CLASSES = rng.integers(0, C - 1, N)  # the last class occurs in predictions only
IGNORED = np.where(rng.random(N) < 0.3, -100, CLASSES)
IMAGES = rng.standard_normal((N, C, 3, 4)).astype(np.float32)
MASKS = np.where(rng.random((N, 3, 4)) < 0.4, 3, rng.integers(0, C, (N, 3, 4)))
NUMBERS = (1e4 + rng.standard_normal((N, 3))).astype(np.float32)
TARGETS = (NUMBERS + 0.3 * rng.standard_normal((N, 3))).astype(np.float32)
SIZES = (1, 8, 33, N)


def identity(backend="numpy"):
    return nn.Sequential(nn.Identity(), backend=backend)


def evaluate(metric, x, y, size, backend="numpy", loss=None):
    return nn.evaluate(identity(backend), (x, y), loss=loss, batch_size=size, metrics=[metric])[metric.name]


def top_by_sorting(logits, y, top, ignored=None):
    """Scores in falling order, NaN first, the smaller class first among equal ones."""
    logits, y = np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1]), y.reshape(-1)
    order = np.argsort(np.where(np.isnan(logits), -np.inf, -logits), axis=1, kind="stable")[:, :top]
    return (order == y[:, None]).any(1)[y != ignored].mean()


def matrix_by_loop(logits, y, ignored=None):
    found = np.zeros((C, C), int)
    for true, predicted in zip(y.reshape(-1), np.argmax(logits, axis=1).reshape(-1), strict=True):
        if true != ignored and 0 <= true < C:
            found[true, predicted] += 1
    return found


@pytest.mark.parametrize("top", [1, 2, 4, 9])
def test_accuracy_is_the_share_among_the_highest_scores(at, top):
    metric = nn.metrics.Accuracy(top=top, name="top")
    for x, y, ignored in ((LOGITS, CLASSES, None), (LOGITS, IGNORED, -100), (IMAGES, MASKS, None)):
        wanted = top_by_sorting(x, y, top, ignored)
        for size in SIZES:
            assert evaluate(metric, x, y, size, at.backend) == pytest.approx(wanted, abs=1e-12), size


@pytest.mark.parametrize("top", [1, 2])
def test_nan_scores_count_as_the_highest_as_for_argmax(top):
    x = np.array([[np.nan, 1, 2], [3, np.nan, 2], [1, 2, np.nan], [np.nan, np.nan, 5], [np.inf, 1, -np.inf]], "f4")
    y = np.array([0, 0, 1, 1, 0])
    assert nn.metrics.Accuracy(top=top)(x, y) == top_by_sorting(x, y, top)


def test_a_target_that_is_no_class_is_never_right():
    y = np.array([0, 7, -3])
    x = np.eye(3, dtype=np.float32)
    assert nn.metrics.Accuracy(top=3)(x, y) == nn.metrics.Accuracy()(x, y) == 1 / 3
    assert nn.metrics.ConfusionMatrix(3)(x, y).sum() == 1


def test_confusion_matrix_and_iou_count_pairs_of_classes(at):
    for x, y, ignored in ((LOGITS, CLASSES, None), (LOGITS, IGNORED, -100), (IMAGES, MASKS, 3)):
        wanted = matrix_by_loop(x, y, ignored)
        hits = np.diag(wanted)
        union = wanted.sum(0) + wanted.sum(1) - hits
        iou = np.mean(hits[union > 0] / union[union > 0])
        for size in SIZES:
            found = evaluate(nn.metrics.ConfusionMatrix(C, ignore_index=ignored), x, y, size, at.backend)
            assert found.dtype == np.int64 and np.array_equal(found, wanted)
            found = evaluate(nn.metrics.IoU(C, ignore_index=ignored), x, y, size, at.backend)
            assert found == pytest.approx(iou, abs=1e-12)


def test_classes_that_never_occur_are_left_out_of_the_iou():
    x, y = np.eye(4, dtype=np.float32)[[0, 1, 1, 1]], np.array([0, 1, 1, 0])
    assert nn.metrics.IoU(4)(x, y) == pytest.approx((1 / 2 + 2 / 3) / 2)
    metric = nn.metrics.IoU(4)
    assert np.isnan(metric.by_class(nn.metrics.ConfusionMatrix(4)(x, y))[2:]).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_pairs_are_counted_in_parts(at, compiled, monkeypatch):
    monkeypatch.setattr("xpnn.backends.elementwise.PAIR_ENTRIES", 30)
    y = rng.integers(-1, 7, (50, 2))
    predicted = rng.integers(0, 6, (50, 2))
    wanted = np.zeros((6, 6), int)
    inside = (y >= 0) & (y < 6)
    np.add.at(wanted, (y[inside], predicted[inside]), 1)
    from xpnn.backends.elementwise import Elementwise

    ops = nn.backends.operations_of(at.xp)
    found = ops.count_pairs(at.put(y), at.put(predicted), 6) if compiled else None
    reference = Elementwise.count_pairs(ops, at.put(y), at.put(predicted), 6)
    for each in (found, reference):
        assert each is None or np.array_equal(at.get(each), wanted)


def test_mean_absolute_error_and_r2_are_those_of_all_samples(at):
    at.wide()
    x, y = NUMBERS.astype(np.float64), TARGETS.astype(np.float64)
    shares = 1 - ((x - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    for size in SIZES:
        found = nn.evaluate(
            identity(at.backend), (NUMBERS, TARGETS), loss=nn.MSE(), batch_size=size,
            metrics=[nn.metrics.MeanAbsoluteError(), nn.metrics.R2()],
        )  # fmt: skip
        assert found.keys() == {"loss", "mean_absolute_error", "r2"}
        assert found["mean_absolute_error"] == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
        assert found["r2"] == pytest.approx(shares.mean(), rel=1e-9), size


def test_r2_is_scikit_learns():
    score = pytest.importorskip("sklearn.metrics").r2_score
    for x, y in (
        (NUMBERS, TARGETS),
        (NUMBERS[:, 0], TARGETS[:, 0]),
        (NUMBERS, np.full_like(TARGETS, 0.1)),
        (np.full_like(TARGETS, 0.1), np.full_like(TARGETS, 0.1)),
    ):
        metric = nn.metrics.R2()
        found = functools.reduce(
            metric.merge, [metric.sums(x[i : i + 10], y[i : i + 10], nn.get_backend("numpy")) for i in range(0, N, 10)]
        )
        assert metric.result(*found) == pytest.approx(score(y.astype(float), x.astype(float)), rel=1e-6)
    assert np.isnan(nn.metrics.R2()(NUMBERS[:1], TARGETS[:1]))


def test_a_function_is_averaged_over_samples_not_over_batches(at):
    def largest(prediction, target):
        return at.xp.max(prediction)

    calls = []

    def count(prediction, target):
        calls.append(len(target.shape))
        return float(prediction.shape[0])

    found = nn.evaluate(identity(at.backend), (LOGITS, CLASSES), batch_size=33, metrics=[largest, count])
    parts = [LOGITS[i : i + 33] for i in (0, 33, 66)]
    assert found["largest"] == pytest.approx(sum(part.max() * len(part) for part in parts) / N, rel=1e-6)
    assert found["count"] == pytest.approx((33 * 33 * 2 + 1) / N) and len(calls) == 3


def dense(backend="numpy", **options):
    return nn.Sequential(nn.Dense(C, C), backend=backend, seed=0, **options)


EVERY = [nn.metrics.Accuracy(top=2, name="top2"), nn.metrics.IoU(C), nn.metrics.ConfusionMatrix(C)]


def rows(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]


@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"accumulate": 2}, {"on_nan": "skip"}], ids=str)
def test_the_device_is_read_once_for_each_part_of_an_epoch(at, options):
    if not at.wide_enough:
        pytest.skip("without float64 integers and floats are read separately")
    model = dense(at.backend)

    def first(prediction, target):
        return at.xp.sum(prediction)

    nn.fit(model, (LOGITS, CLASSES), epochs=1, progress=False)
    before = at.backend.transfers["to_host"][0]
    nn.fit(
        model, (LOGITS, IGNORED), validation=(LOGITS, IGNORED), epochs=3, batch_size=8, progress=False,
        metrics=[*EVERY, first], **options,
    )  # fmt: skip
    steps = 9 * (options.get("on_nan") is not None)
    assert at.backend.transfers["to_host"][0] - before == 3 * (2 + steps)


@pytest.mark.parametrize("options", [{}, {"shards": 3}, {"accumulate": 2}, {"compile": False}], ids=str)
def test_the_history_has_the_metrics_of_both_parts(options):
    model = dense()
    optimizer = nn.SGD(model, lr=1e-30)
    options = {"epochs": 12, "batch_size": 8, "progress": False, **options}
    history = nn.fit(
        model, (LOGITS, IGNORED), validation=(LOGITS, CLASSES), optimizer=optimizer, metrics=EVERY, **options
    )
    predicted = nn.predict(model, LOGITS)
    row = history.rows[-1]
    for part, y in (("train", IGNORED), ("validation", CLASSES)):
        assert row[f"{part}_top2"] == pytest.approx(top_by_sorting(predicted, y, 2, -100))
        assert row[f"{part}_confusion_matrix"] == matrix_by_loop(predicted, y, -100).tolist()
        assert row[f"{part}_iou"] == pytest.approx(nn.metrics.IoU(C, ignore_index=-100)(predicted, y))
    assert "confusion" not in history.csv() and "validation_iou" in history.csv()


def test_in_exact_numerics_metrics_have_the_same_bits_for_any_parts(exact):
    metrics = [nn.metrics.R2(), nn.metrics.MeanAbsoluteError()]
    found = []
    for where, options in ((exact, {}), (exact, {"shards": 3}), (nn.get_backend("numpy", numerics="exact"), {})):
        model = nn.Sequential(nn.Dense(3, 3), backend=where, seed=0)
        found.append(
            rows(nn.fit(model, (NUMBERS, TARGETS), validation=(NUMBERS, TARGETS), loss=nn.MSE(), epochs=2,
                        batch_size=20, progress=False, metrics=metrics, **options))
        )  # fmt: skip
    assert found[0] == found[1] == found[2]


def test_an_epoch_that_is_resumed_has_the_same_metrics(tmp_path, at):
    class Stop(Exception):
        pass

    def first(prediction, target):
        return prediction[0, 0]

    def run(folder, resume=False, stop=None, metrics=(*EVERY, first)):
        checkpoints = Checkpoints(tmp_path / folder, every=2)
        if stop:
            write = checkpoints.write

            def writing(step, *rest):
                write(step, *rest)
                if step == stop:
                    raise Stop

            checkpoints.write = writing
        model = dense(at.backend)
        return nn.fit(
            model, (LOGITS, IGNORED), epochs=2, batch_size=8, progress=False, checkpoints=checkpoints, resume=resume,
            metrics=metrics, validation=(LOGITS, CLASSES), monitor="validation_iou",
        )  # fmt: skip

    with pytest.raises(Stop):
        run("a", stop=4)
    with pytest.raises(nn.CheckpointError, match="its metrics was"):
        run("a", resume=True, metrics=EVERY[1:2])
    again, whole = run("a", resume=True), run("whole")
    assert rows(again) == rows(whole) and again.modes == whole.modes
    assert rows(run("a", resume=True)) == rows(whole)


def test_regression_has_no_accuracy_and_counts_samples(capsys):
    model = nn.Sequential(nn.Dense(3, 3), seed=0)
    history = nn.fit(
        model, (NUMBERS, TARGETS), loss=nn.MSE(), validation=(NUMBERS, TARGETS), epochs=2, metrics=[nn.metrics.R2()]
    )
    assert [*history] == ["epoch", "train_loss", "train_r2", "validation_loss", "validation_r2", "seconds"]
    text = capsys.readouterr().err
    assert "samples/s" in text and "images" not in text and "accuracy" not in text
    single = nn.Sequential(nn.Dense(3, 1), seed=0)
    found = nn.evaluate(single, (NUMBERS, np.zeros(N, int)), loss=Count())
    assert found.keys() == {"loss"}


class Count(nn.layers.losses.Loss):
    """A loss of numbers of a count, integers."""

    def _forward(self, prediction, target, xp, **options):
        return xp.mean(xp.abs(prediction[:, 0] - xp.astype(target, prediction.dtype)))


def test_the_best_epoch_may_follow_any_metric(tmp_path):
    def score(prediction, target):
        return next(values)

    def run(**options):
        return nn.fit(
            dense(), (LOGITS, CLASSES), validation=nn.DataLoader(LOGITS, CLASSES, N), batch_size=N, progress=False,
            metrics=[score], epochs=4, **options,
        )  # fmt: skip

    # One batch of training and one of validation in each epoch.
    values = iter([0.0, 0.3, 0.0, 0.9, 0.0, 0.5, 0.0, 0.7])
    history = run(checkpoints=tmp_path / "max", monitor="validation_score", mode="max")
    assert history["validation_score"] == [0.3, 0.9, 0.5, 0.7]
    assert Checkpoints(tmp_path / "max").best().facts["history"][-1]["epoch"] == 2
    values = iter([0.0, 0.3, 0.0, 0.9, 0.0, 0.5, 0.0, 0.7])
    history = run(checkpoints=tmp_path / "min", monitor="validation_score", mode="min", early_stopping=2)
    assert len(history.rows) == 3
    assert Checkpoints(tmp_path / "min").best().facts["history"][-1]["epoch"] == 1
    with pytest.raises(ValueError, match="not known whether small or large values of validation_score are good"):
        run(monitor="validation_score")
    with pytest.raises(ValueError, match="not known"):
        history.best("validation_score")


@pytest.mark.parametrize(
    "metric, mode",
    [
        (nn.metrics.Accuracy(name="top"), "max"),
        (nn.metrics.IoU(C), "max"),
        (nn.metrics.R2(), "max"),
        (nn.metrics.MeanAbsoluteError(), "min"),
        (nn.metrics.Mean(max, name="some_error"), "min"),
        (nn.metrics.Mean(max, name="my_accuracy"), "max"),
        (nn.metrics.Mean(max, mode="max"), "max"),
        (nn.metrics.Mean(max), None),
        (nn.metrics.ConfusionMatrix(C), None),
    ],
)
def test_metrics_know_what_is_good(metric, mode):
    assert metric.mode == mode


def test_early_stopping_uses_the_mode_of_the_metric():
    history = nn.fit(
        dense(), (LOGITS, CLASSES), validation=(LOGITS, CLASSES), metrics=[nn.metrics.IoU(C)], epochs=3, progress=False,
        early_stopping=nn.EarlyStopping(3, monitor="validation_iou", restore_best=True),
    )  # fmt: skip
    assert history.modes["validation_iou"] == "max"
    assert history.best("validation_iou")["validation_iou"] == max(history["validation_iou"])
    assert nn.EarlyStopping(3, "validation_iou").best(history) == int(np.argmax(history["validation_iou"]))


def test_an_accuracy_of_the_user_takes_the_place_of_that_of_the_classes():
    found = nn.evaluate(identity(), (LOGITS, IGNORED), metrics=[nn.metrics.Accuracy(ignore_index=1)])
    kept = IGNORED != 1
    assert [*found] == ["loss", "accuracy"]
    assert found["accuracy"] == pytest.approx((LOGITS.argmax(1) == IGNORED)[kept].mean())


def some(prediction, target):
    return 0.0


@pytest.mark.parametrize(
    "metrics, kind, message",
    [
        (["accuracy"], TypeError, "'accuracy' is no metric; give objects of nn.metrics"),
        ("accuracy", TypeError, "is no metric"),
        ([nn.metrics.IoU], TypeError, r"IoU is a class; make an object of it: nn.metrics.IoU\(...\)"),
        ([nn.MSE()], TypeError, "got the loss MSE"),
        ([lambda x: x], TypeError, "is no metric"),
        ([some, some], ValueError, "two of them are called 'some'"),
        ([nn.metrics.Mean(some, name="loss")], ValueError, "the loss itself is called 'loss'"),
        ([nn.metrics.IoU(4)], ValueError, "metric iou: the model predicts 5 classes, num_classes is 4"),
        ([nn.metrics.R2()], ValueError, r"metric r2 needs predictions and targets of one shape, got \(67, 5\)"),
        ([lambda p, t: p], ValueError, "must return one number"),
        ([lambda p, t: "0"], ValueError, "must return one number"),
    ],
)
def test_metrics_that_can_not_be_used_are_refused(metrics, kind, message):
    with pytest.raises(kind, match=message):
        nn.evaluate(identity(), (LOGITS, CLASSES), metrics=metrics)


def test_a_metric_of_other_shapes_is_refused_before_the_first_update():
    model = dense()
    before = {name: np.array(value) for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="num_classes is 3"):
        nn.fit(model, (LOGITS, CLASSES), metrics=[nn.metrics.IoU(3)], epochs=1, progress=False)
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="needs predictions and targets of one shape"):
        nn.metrics.MeanAbsoluteError()(np.zeros((4, 1)), np.zeros(4))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"monitor": "validation_confusion_matrix"}, "must be a number, got 'validation_confusion_matrix'"),
        ({"monitor": "validation_io"}, "did you mean 'validation_iou'"),
        ({"mode": "max"}, "mode belongs to monitor"),
        ({"monitor": "train_loss", "mode": "most"}, "mode must be 'min', 'max' or None"),
        ({"monitor": "train_loss", "early_stopping": nn.EarlyStopping(2)}, "both name a metric"),
    ],
)
def test_what_can_not_be_monitored_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nn.fit(dense(), (LOGITS, CLASSES), validation=(LOGITS, CLASSES), metrics=EVERY, progress=False, **options)
    with pytest.raises(ValueError, match="are the same setting"):
        nn.EarlyStopping(2, "train_loss", monitor="train_accuracy")


def test_names_and_text_of_metrics():
    named = {metric.name for metric in (*EVERY, nn.metrics.Accuracy(), nn.metrics.MeanAbsoluteError(), nn.metrics.R2())}
    assert named == {"top2", "iou", "confusion_matrix", "accuracy", "mean_absolute_error", "r2"}
    assert nn.metrics.Mean(functools.partial(some)).name == "some"
    assert repr(nn.metrics.Accuracy(top=2, name="top2")) == "Accuracy(top=2, name='top2')"
    assert repr(nn.metrics.IoU(3, ignore_index=0)) == "IoU(num_classes=3, ignore_index=0)"


def test_metrics_of_a_compiled_run_are_those_of_a_plain_one():
    found = [
        rows(nn.fit(dense(), (LOGITS, IGNORED), epochs=13, batch_size=8, progress=False, metrics=EVERY, compile=choice))
        for choice in (True, False)
    ]
    assert found[0] == found[1]


def test_nothing_to_measure_is_nan():
    found = nn.evaluate(identity(), (LOGITS, np.full(N, -100)), metrics=EVERY, batch_size=8)
    assert np.isnan(found["top2"]) and np.isnan(found["iou"]) and found["confusion_matrix"].sum() == 0
