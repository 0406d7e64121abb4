"""Losses of regression, binary losses and divergences: by hand, at kinks and at the ends of their range."""

import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers import functional as F
from xpnn.layers import losses
from xpnn.layers.losses import (
    L1,
    L2,
    MAE,
    MAPE,
    MSE,
    MSLE,
    BinaryCrossEntropy,
    BinaryCrossEntropyWithLogits,
    Huber,
    KLDivergence,
    SmoothL1,
)
from xpnn.testing import assert_match

silent = pytest.mark.filterwarnings("error")  # NumPy warns of intermediate infinities and NaN


def values(at, loss, prediction, target, dtype="float32"):
    """Losses and their gradient, without reduction, as lists."""
    value = at.get(loss(at.put(prediction, dtype), at.put(target, dtype))).tolist()
    return value, at.get(loss.backward()).tolist()


def test_no_loss_has_two_names():
    kinds = [getattr(losses, name) for name in losses.__all__]
    assert [kind.__name__ for kind in kinds] == losses.__all__
    names = [name for name, kind in vars(nn).items() if isinstance(kind, type) and issubclass(kind, losses.Loss)]
    assert sorted(names) == sorted(losses.__all__)
    functions = [kind.function for kind in kinds if kind is not losses.Loss]
    assert len(set(functions)) == len(functions)
    assert len({getattr(F, name) for name in F.__all__}) == len(F.__all__)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_and_its_gradient(at, rng, reduction, dtype):
    prediction, target = (rng.integers(-8, 8, (4, 3)).astype(np.float64) for _ in range(2))
    squares = (prediction - target) ** 2
    value = {"mean": squares.sum() / 12, "sum": squares.sum(), "none": squares}[reduction]
    loss = MSE(reduction=reduction)
    actual = loss(at.put(prediction, dtype), at.put(target, dtype))
    assert_match(actual, value, backend=at.backend, dtype=dtype)
    gradient = 2 * (prediction - target) / (12 if reduction == "mean" else 1)
    assert_match(loss.backward(), gradient, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_l1_and_l2_are_sums_of_absolute_and_of_squared_differences(at, rng, dtype):
    x, y = (rng.integers(-8, 8, (4, 3)).astype(np.float64) for _ in range(2))
    expected = {"backend": at.backend, "dtype": dtype}
    for make, value, gradient in (
        (L1, np.abs(x - y).sum(), np.sign(x - y)),
        (L2, ((x - y) ** 2).sum(), 2 * (x - y)),
    ):
        loss = make()
        assert loss.reduction == "sum"
        assert_match(loss(at.put(x, dtype), at.put(y, dtype)), value, **expected)
        assert_match(loss.backward(), gradient, **expected)
        assert_match(loss.backward(0.5), 0.5 * gradient, **expected)
        assert_match(make.function(at.put(x, dtype), at.put(y, dtype)), value, **expected)
        assert_match(make.gradient(1.0, at.put(x, dtype), at.put(y, dtype)), gradient, **expected)


@pytest.mark.parametrize(("make", "mean"), [(L1, MAE), (L2, MSE)])
def test_l1_and_l2_have_no_reduction(make, mean):
    name = make.__name__
    message = f"{name} is a sum and has no reduction; use {mean.__name__}(reduction=...) instead"
    with pytest.raises(TypeError, match=re.escape(message)):
        make(reduction="mean")
    with pytest.raises(TypeError, match=re.escape(message)):
        make("mean")
    assert repr(make()) == f"{name}()"


def test_l2_by_hand_and_its_mean_by_mse(at):
    assert values(at, L2(), [3.0, 0.0], [0.0, 4.0]) == (25, [6, -8])
    assert values(at, MSE(), [3.0, 0.0], [0.0, 4.0]) == (12.5, [3, -4])


def test_absolute_error_has_slope_0_where_there_is_none(at):
    assert values(at, MAE("none"), [3.0, 1.0, -2.0], [1.0, 1.0, 1.0]) == ([2, 0, 3], [1, 0, -1])
    assert values(at, L1(), [3.0, 1.0, -2.0], [1.0, 1.0, 1.0]) == (5, [1, 0, -1])


def test_squared_log_error_by_hand(at):
    loss = MSLE("none")
    value, gradient = values(at, loss, [np.e - 1, 0.0, 1.0], [0.0, 0.0, 3.0], "float64")
    assert_match(np.array(value), [1, 0, np.log(2) ** 2])
    assert_match(np.array(gradient), [2 / np.e, 0, -np.log(2)])


def test_squared_log_error_below_minus_1_is_nan(at):
    with np.errstate(invalid="ignore"):
        value, gradient = values(at, MSLE("none"), [-1.5, 0.0], [0.0, -2.0])
    assert np.isnan(value).all()
    assert np.isnan(gradient).all()


@silent
def test_percentage_error_by_hand_and_at_a_target_of_0(at):
    loss = MAPE("none")
    value, gradient = values(at, loss, [3.0, 1.0, 4.0], [4.0, -2.0, 4.0])
    assert (value, gradient) == ([25, 150, 0], [-25, 50, 0])
    value, gradient = values(at, loss, [1.0, 0.0], [0.0, 0.0], "float64")
    assert_match(np.array(value), [1e9, 0])
    assert_match(np.array(gradient), [1e9, 0])


def test_huber_by_hand_on_both_sides_of_delta(at):
    loss = Huber("none", delta=2.0)
    value, gradient = values(at, loss, [0.0, 1.0, 2.0, 3.0, -5.0], [0.0] * 5)
    assert (value, gradient) == ([0, 0.5, 2, 4, 8], [0, 1, 2, 2, -2])


def test_smooth_l1_by_hand_on_both_sides_of_beta(at):
    value, gradient = values(at, SmoothL1("none", beta=2.0), [0.0, 1.0, 2.0, 3.0, -5.0], [0.0] * 5)
    assert (value, gradient) == ([0, 0.25, 1, 2, 4], [0, 0.5, 1, 1, -1])
    assert values(at, SmoothL1("none", beta=0), [0.0, 1.0, -2.0], [0.0] * 3) == ([0, 1, 2], [0, 1, -1])


@silent
@pytest.mark.parametrize("loss", [Huber("none"), SmoothL1("none"), SmoothL1("none", beta=0)], ids=repr)
def test_far_outliers_do_not_overflow(at, loss):
    value, gradient = values(at, loss, [1e30, -1e30], [0.0, 0.0])
    assert_match(np.array(value, np.float32), np.float32([1e30, 1e30]))
    assert gradient == [1, -1]


@silent
def test_loss_of_certain_probabilities_is_at_most_100(at):
    loss = BinaryCrossEntropy("none")
    value, gradient = values(at, loss, [0.0, 0.0, 1.0, 1.0, 1e-45], [0.0, 1.0, 0.0, 1.0, 1.0])
    assert value == [0, 100, 100, 0, 100]
    assert_match(np.array(gradient, np.float32), np.float32([0, -1e12, 1e12, 0, -1e12]))


def test_probability_out_of_range_is_nan(at):
    with np.errstate(invalid="ignore"):
        value, _ = values(at, BinaryCrossEntropy("none"), [1.5, 1.5, -0.5, -0.5], [0.0, 1.0, 0.0, 1.0])
    assert np.isnan(value).all()


@silent
def test_loss_of_large_logits_is_their_error(at):
    loss = BinaryCrossEntropyWithLogits("none", pos_weight=2.0)
    value, gradient = values(at, loss, [1e4, 1e4, -1e4, -1e4, 0.0], [0.0, 1.0, 0.0, 1.0, 0.5])
    assert value[:4] == [1e4, 0, 0, 2e4]
    assert gradient == [1, 0, 0, -2, -0.25]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_losses_of_certain_logits_keep_their_digits(at, dtype):
    """exp(-40) is far below the spacing of floats around 40."""
    value, gradient = values(at, BinaryCrossEntropyWithLogits("none"), [40.0, -40.0], [1.0, 0.0], dtype)
    assert_match(np.array(value, dtype), np.exp([-40.0, -40.0]).astype(dtype))
    assert_match(np.array(gradient, dtype), np.array([-np.exp(-40.0), np.exp(-40.0)], dtype))


def test_divergence_reductions_by_hand(at):
    log_p, target = at.put(np.log([[0.5, 0.5], [0.25, 0.75]])), at.put(np.array([[1.0, 0.0], [0.5, 0.5]]))
    each = np.array([np.log(2), 0, 0.5 * np.log(2), 0.5 * np.log(2 / 3)])
    for reduction, divisor in (("mean", 4), ("batchmean", 2), ("sum", 1)):
        loss = KLDivergence(reduction)
        assert_match(loss(log_p, target), each.sum() / divisor, level="reduction", terms=4, backend=at.backend)
        assert_match(loss.backward(2.0), -2 * at.get(target) / divisor, backend=at.backend)


@silent
@pytest.mark.parametrize("log_target", [False, True])
def test_divergence_of_probability_0_is_0(at, log_target):
    loss = KLDivergence("none", log_target=log_target)
    target = [-np.inf, -np.inf, 0.0, 0.0] if log_target else [0.0, 0.0, 1.0, 1.0]
    value, gradient = values(at, loss, [-np.inf, -1.0, 0.0, -np.inf], target)
    assert (value, gradient) == ([0, 0, 0, np.inf], [0, 0, -1, -1])


@silent
@pytest.mark.parametrize(("shape", "value"), [((0, 3), np.nan), ((), 0.0)], ids=str)
def test_batchmean_of_no_sample_and_of_a_number(at, shape, value):
    loss = KLDivergence("batchmean")
    assert_match(loss(at.put(np.zeros(shape)), at.put(np.ones(shape))), value, level="exact", backend=at.backend)
    assert loss.backward().shape == shape
