"""Nets as estimators of scikit-learn: its own checks, weights, labels, repetition, early stopping, pickles, models."""

import io
import subprocess
import sys
from functools import partial

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import xpnn as nn
from xpnn.interop.sklearn import NetClassifier, NetRegressor
from xpnn.interop.sklearn.weighted_mse import WeightedMSE
from xpnn.layers.losses import MSE


def linear(shape, outputs):
    return nn.Dense(*shape, outputs)


def small(shape, outputs):
    return nn.Sequential(nn.Dense(*shape, 16), nn.ReLU(), nn.Dense(16, outputs))


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True)
    return scale(x), y


@pytest.fixture(scope="module")
def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return scale(x), y


@parametrize_with_checks([NetClassifier(backend="numpy"), NetRegressor(backend="numpy")])
def test_estimators_pass_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_importing_xpnn_does_not_import_the_estimators():
    code = "import sys, xpnn; print('xpnn.interop.sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_without_scikit_learn_one_line_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import xpnn.interop.sklearn"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 1
    assert "ModuleNotFoundError: xpnn.interop.sklearn needs scikit-learn: pip install" in found.stderr


def test_pipelines_searches_and_cross_validation_work(iris):
    x, y = iris
    pipeline = make_pipeline(StandardScaler(), NetClassifier(epochs=15, lr=1e-2, random_state=0))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.9
    search = GridSearchCV(pipeline, {"netclassifier__lr": [1e-6, 1e-2]}, cv=2, n_jobs=2).fit(x, y)
    assert search.best_params_ == {"netclassifier__lr": 1e-2}


@pytest.mark.parametrize("net, x", [(None, (60, 5)), (None, (60, 2, 8, 8)), (None, (60, 2, 3, 3)), ("mlp", (60, 5))])
def test_default_and_named_nets_have_the_shape_of_the_data(net, x):
    x = np.random.default_rng(0).normal(size=x)
    y = np.arange(60) % 3
    p = NetClassifier(net, epochs=1, backend="numpy").fit(x, y).predict_proba(x)
    assert p.shape == (60, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)


def test_digits_as_images_are_learned():
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 1, 8, 8).astype("float32") / 16
    classifier = NetClassifier(epochs=4, random_state=0, backend="numpy").fit(x[:1200], y[:1200])
    assert classifier.model_.backend.dtype_name == "float32"
    assert classifier.score(x[1200:], y[1200:]) > 0.85
    with pytest.raises(ValueError, match="samples of shape"):
        classifier.predict(x[:, :, :4, :])


def test_a_layer_is_copied_with_its_weights_and_stays_as_it_was(iris):
    x, y = iris
    layer = nn.Dense(4, 3, seed=5)
    before = {name: np.array(value) for name, value in layer.state_dict().items()}
    classifier = NetClassifier(layer, epochs=1, lr=1e-9, backend="numpy").fit(x, y)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_allclose(classifier.decision_function(x), layer(x.astype("float32")), atol=1e-5)
    assert clone(classifier).get_params()["model"] is not classifier.model_


@pytest.mark.parametrize(
    "model, message",
    [
        (nn.Dense(4, 7), r"model must return 3 numbers .* got \(N, 7\)"),
        (nn.Dense(5, 3), "model does not accept samples of shape"),
        ("lenet", "model 'lenet' is for images"),
        ("nonsense", "model must be"),
        (lambda shape, outputs: 3, "the result of model must be a Layer"),
        (3, "model must be a name, a function"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(model, message, iris):
    with pytest.raises((TypeError, ValueError), match=message):
        NetClassifier(model, backend="numpy").fit(*iris)


@pytest.mark.parametrize("state", [3, np.random.RandomState])
def test_a_seed_gives_the_same_bits(state, iris):
    x, y = iris
    net = nn.Sequential(nn.Dense(4, 8), nn.Dropout(0.5), nn.Dense(8, 3))
    first, second = (
        NetClassifier(net, epochs=2, random_state=state if state == 3 else state(7), backend="numpy").fit(x, y)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.predict_proba(x), second.predict_proba(x))
    other = NetClassifier(net, epochs=2, random_state=4, backend="numpy").fit(x, y)
    assert not np.array_equal(first.predict_proba(x), other.predict_proba(x))


def test_without_a_seed_the_global_state_of_numpy_decides(iris):
    x, y = iris
    found = []
    for _ in range(2):
        np.random.seed(5)
        found.append([NetClassifier(small, epochs=1).fit(x, y).predict_proba(x) for _ in range(2)])
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0][0], found[0][1])


def test_string_labels_and_decisions_agree(iris):
    x, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    many = NetClassifier(small, epochs=20, lr=1e-2, random_state=0).fit(x, names)
    assert many.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert many.score(x, names) > 0.9
    np.testing.assert_array_equal(many.predict(x), many.classes_[many.decision_function(x).argmax(axis=1)])
    np.testing.assert_allclose(many.predict_log_proba(x), np.log(many.predict_proba(x)), rtol=1e-9, atol=1e-12)
    two = NetClassifier(small, epochs=5, random_state=0).fit(x[:100], names[:100])
    assert two.decision_function(x).shape == (150,)
    np.testing.assert_array_equal(two.predict(x) == "versicolor", two.decision_function(x) > 0)


def test_weights_repeat_samples(iris, diabetes):
    """In one batch a weight of 2 is a sample twice, 0 one that is left out."""
    weights = np.random.default_rng(0).integers(0, 3, size=150)
    for make, (x, y) in ((NetClassifier, iris), (NetRegressor, (diabetes[0][:150], diabetes[1][:150]))):
        estimator = make(small, epochs=5, batch_size=500, random_state=0, dtype="float64", backend="numpy")
        weighted = clone(estimator).fit(x, y, sample_weight=weights)
        repeated = clone(estimator).fit(np.repeat(x, weights, axis=0), np.repeat(y, weights))
        np.testing.assert_allclose(weighted.predict(x), repeated.predict(x), rtol=1e-8)
        np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)
        plain = clone(estimator).fit(x, y)
        assert abs(plain.loss_ - weighted.loss_) > 1e-6
        doubled = clone(estimator).fit(x, y, sample_weight=np.full(150, 2.0))
        np.testing.assert_allclose(doubled.loss_curve_, plain.loss_curve_, rtol=1e-9)


def test_weights_of_classes_are_weights_of_their_samples(iris):
    x, y = iris
    estimator = NetClassifier(small, epochs=3, random_state=0, backend="numpy")
    by_class = clone(estimator).set_params(class_weight={0: 1.0, 1: 5.0, 2: 2.0}).fit(x, y)
    by_sample = clone(estimator).fit(x, y, sample_weight=np.array([1.0, 5.0, 2.0])[y])
    np.testing.assert_array_equal(by_class.predict_proba(x), by_sample.predict_proba(x))


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones((150, 2)), "Sample weights must be 1D"),
        (np.ones(149), "sample_weight.shape"),
        (-np.ones(150), "Negative values"),
        (np.zeros(150), "non-zero"),
        (np.full(150, np.nan), "sample_weight contains NaN"),
    ],
)
def test_wrong_weights_are_refused(weights, message, iris):
    with pytest.raises(ValueError, match=message):
        NetClassifier().fit(*iris, sample_weight=weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weighted_squared_error_has_the_gradient_of_its_value(at, dtype):
    rng = np.random.default_rng(1)
    p, t, w = rng.normal(size=(5, 2)), rng.normal(size=(5, 2)), rng.uniform(size=(5, 1))
    loss = WeightedMSE()
    value = loss(at.put(p, dtype), at.put(np.concatenate([t, w], axis=1), dtype))
    np.testing.assert_allclose(at.get(value), np.mean(w * (p - t) ** 2), rtol=1e-5)
    np.testing.assert_allclose(at.get(loss.backward()), 2 * w * (p - t) / 10, rtol=1e-5)
    ones = np.concatenate([t, np.ones((5, 1))], axis=1)
    plain = MSE()(at.put(p, dtype), at.put(t, dtype))
    np.testing.assert_allclose(at.get(loss(at.put(p, dtype), at.put(ones, dtype))), at.get(plain), rtol=1e-6)


def test_a_linear_net_finds_the_least_squares(diabetes):
    x, y = diabetes
    net = NetRegressor(linear, epochs=300, lr=1e-2, batch_size=442, random_state=0, backend="numpy").fit(x, y)
    least = LinearRegression().fit(x, y)
    assert net.score(x, y) == pytest.approx(least.score(x, y), abs=2e-3)


def test_several_outputs_have_scales_of_their_own(diabetes):
    x, y = diabetes
    both = np.stack([y, 1e6 + 1e-3 * y, np.full(len(y), 7.0)], axis=1)
    net = NetRegressor(small, epochs=20, lr=1e-2, random_state=0, backend="numpy").fit(x, both)
    found = net.predict(x)
    assert found.shape == (442, 3) and net.n_outputs_ == 3
    for column in (0, 1):
        assert np.corrcoef(found[:, column], y)[0, 1] > 0.6
    np.testing.assert_allclose(found[:, 2], 7.0, atol=0.5)
    plain = NetRegressor(small, epochs=1, scale_y=False, random_state=0, backend="numpy").fit(x, y)
    assert (plain.y_mean_, plain.y_scale_) == (0.0, 1.0)


def test_partial_fit_goes_on_as_fit_does(iris):
    x, y = iris
    estimator = NetClassifier(small, epochs=3, random_state=0, backend="numpy")
    whole = clone(estimator).fit(x, y)
    parts = clone(estimator)
    for _ in range(3):
        parts.partial_fit(x, y, classes=[0, 1, 2])
    np.testing.assert_array_equal(parts.predict_proba(x), whole.predict_proba(x))
    assert parts.n_iter_ == whole.n_iter_ == 3
    np.testing.assert_allclose(parts.loss_curve_, whole.loss_curve_)
    parts.partial_fit(x[:10], y[:10])
    with pytest.raises(ValueError, match="not in `classes`"):
        parts.partial_fit(x, y + 1)
    with pytest.raises(ValueError, match="not the same as on last call"):
        parts.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        clone(estimator).partial_fit(x, y)


def test_warm_start_goes_on_and_a_plain_fit_begins_again(iris):
    x, y = iris
    warm = NetClassifier(small, epochs=2, warm_start=True, random_state=0, backend="numpy").fit(x, y).fit(x, y)
    whole = NetClassifier(small, epochs=4, random_state=0, backend="numpy").fit(x, y)
    np.testing.assert_array_equal(warm.predict_proba(x), whole.predict_proba(x))
    with pytest.raises(ValueError, match="the same classes"):
        warm.fit(x[:100], y[:100])
    again = clone(whole).fit(x, y).fit(x, y)
    np.testing.assert_array_equal(again.predict_proba(x), whole.predict_proba(x))


@pytest.mark.parametrize("weighted", [False, True])
def test_early_stopping_returns_to_the_best_epoch(weighted, iris, diabetes):
    for make, (x, y) in ((NetClassifier, iris), (NetRegressor, diabetes)):
        estimator = make(
            small, epochs=300, lr=5e-2, early_stopping=True, n_iter_no_change=3, random_state=0, backend="numpy"
        )
        weights = np.linspace(0.0, 1.0, len(y)) if weighted else None
        estimator.fit(x, y, sample_weight=weights)
        curve = estimator.validation_loss_curve_
        assert len(curve) == estimator.n_iter_ < 300
        best = int(np.argmin(curve))
        assert best < len(curve) - 1
        until_best = clone(estimator).set_params(epochs=best + 1).fit(x, y, sample_weight=weights)
        np.testing.assert_array_equal(estimator.predict(x), until_best.predict(x))
        with pytest.raises(ValueError, match="early_stopping"):
            estimator.partial_fit(x, y)


def test_the_part_held_out_has_samples_of_each_class(iris):
    x, y = iris
    with pytest.raises(ValueError, match="least populated class"):
        NetClassifier(small, early_stopping=True).fit(x[:51], y[:51])


def test_after_a_fit_that_failed_an_estimator_is_not_fitted(iris):
    x, y = iris
    estimator = NetClassifier(small, optimizer="sdg", epochs=1, backend="numpy")
    for wrong in ({"optimizer": "sdg"}, {"lr": -1.0, "optimizer": "sgd"}, {"model": nn.Dense(4, 7), "lr": 1.0}):
        with pytest.raises(ValueError):
            estimator.set_params(**wrong).partial_fit(x, y, classes=[0, 1, 2])
        with pytest.raises(NotFittedError):
            estimator.predict(x)
    estimator.set_params(model=small, lr=1e-2).partial_fit(x, y, classes=[0, 1, 2]).predict(x)


def test_a_pickle_predicts_and_goes_on(iris, tmp_path):
    x, y = iris
    first = NetClassifier(small, epochs=2, warm_start=True, random_state=0, backend="numpy").fit(x, y)
    file = io.BytesIO()
    joblib.dump(first, file)
    file.seek(0)
    second = joblib.load(file)
    np.testing.assert_array_equal(first.predict_proba(x), second.predict_proba(x))
    np.testing.assert_array_equal(first.fit(x, y).predict_proba(x), second.fit(x, y).predict_proba(x))


def test_optimizers_are_names_or_makers(iris):
    x, y = iris
    by_name = NetClassifier(small, optimizer="sgd", epochs=1, random_state=0).fit(x, y)
    by_maker = NetClassifier(small, optimizer=partial(nn.SGD, momentum=0.9), epochs=1, random_state=0).fit(x, y)
    assert type(by_name._optimizer) is type(by_maker._optimizer) is nn.SGD
    assert not np.array_equal(by_name.predict_proba(x), by_maker.predict_proba(x))
    with pytest.raises(ValueError, match="optimizer must be"):
        NetClassifier(small, optimizer="sdg").fit(x, y)


def test_weights_that_are_not_finite_are_reported(diabetes):
    x, y = diabetes
    with pytest.raises(ValueError, match="not finite"), np.errstate(all="ignore"):
        NetRegressor(linear, optimizer="sgd", lr=1e30, epochs=3, backend="numpy").fit(x, y)


def test_verbose_shows_epochs(iris, capsys):
    NetClassifier(small, epochs=2, verbose=True).fit(*iris)
    assert "epoch 2" in capsys.readouterr().err.lower()
    NetClassifier(small, epochs=2).fit(*iris)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("make", [NetClassifier, NetRegressor])
def test_exact_numerics_have_the_same_bits_on_every_backend(make, at, iris):
    if at.name == "strict-no-float64":
        pytest.skip("exact numerics need float64")
    x, y = iris
    settings = {"epochs": 2, "random_state": 0, "numerics": "exact"}
    weights = np.linspace(1.0, 2.0, 150)
    there = make(small, backend=at.backend.spec, **settings).fit(x, y, sample_weight=weights)
    here = make(small, backend="numpy", **settings).fit(x, y, sample_weight=weights)
    np.testing.assert_array_equal(there.predict(x), here.predict(x))
    for name, value in here.model_.state_dict().items():
        np.testing.assert_array_equal(there.model_.backend.to_numpy(there.model_.state_dict()[name]), value)
