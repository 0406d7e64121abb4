"""Cross-entropy and NLL: classes and probabilities, weights, smoothing, ignored targets."""

import re

import numpy as np
import pytest
from device_counts import run_late

import xpnn as nn
from xpnn.layers.losses import NLL, CrossEntropy
from xpnn.layers.losses.cross_entropy import cross_entropy, cross_entropy_backward
from xpnn.testing import assert_match

REDUCTIONS = ["mean", "sum", "none"]
DTYPES = ["float32", "float64"]
SHAPES = [(4, 3), (2, 5, 3), (2, 3, 2, 4), (1, 1)]
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def cross_entropy_problem(shape, kind, seed=3):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(shape).astype(np.float32).astype(np.float64) * 2
    if kind == "classes":
        return logits, rng.integers(0, shape[1], (shape[0], *shape[2:]))
    weights = rng.integers(0, 5, shape) + (np.arange(shape[1]) == 0).reshape(1, -1, *(1,) * (len(shape) - 2))
    return logits, weights / 8  # zeros among them, and sums that are not 1


def cross_entropy_loops(logits, target, reduction):
    """Losses and their gradient for an upstream of ones, one target at a time."""
    classes = logits.shape[1]
    losses, gradient = np.zeros((logits.shape[0], *logits.shape[2:])), np.zeros(logits.shape)
    for n, *rest in np.ndindex(*losses.shape):
        where = (n, slice(None), *rest)
        row = logits[where]
        p = np.exp(row) / np.sum(np.exp(row))
        wanted = np.eye(classes)[target[(n, *rest)]] if target.ndim < logits.ndim else target[where]
        losses[(n, *rest)] = -sum(wanted[c] * np.log(p[c]) for c in range(classes))
        gradient[where] = p * sum(wanted) - wanted
    if reduction == "mean":
        return losses.mean(), gradient / losses.size
    return (losses.sum() if reduction == "sum" else losses), gradient


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("dtype", DTYPES)
@every_reduction
@every_shape
def test_cross_entropy_and_its_gradient_match_loops(at, shape, reduction, dtype, kind):
    logits, target = cross_entropy_problem(shape, kind)
    value, gradient = cross_entropy_loops(logits, target, reduction)
    loss = CrossEntropy(reduction=reduction)
    on_backend = at.put(target) if kind == "classes" else at.put(target, dtype)
    terms = logits.size
    actual = loss(at.put(logits, dtype), on_backend)
    assert_match(actual, value, level="reduction", terms=terms, backend=at.backend, dtype=dtype)
    assert_match(loss.backward(), gradient, level="reduction", terms=terms, backend=at.backend, dtype=dtype)


WEIGHT = [0.0, 0.5, 1.0]
OPTIONS = {
    "plain": {},
    "weight": {"weight": WEIGHT},
    "smoothing": {"label_smoothing": 0.1},
    "weight and smoothing": {"weight": WEIGHT, "label_smoothing": 0.3},
    "all smooth": {"label_smoothing": 1.0},
    "ignore": {"ignore_index": -1},
    "ignore a class": {"ignore_index": 1},
    "everything": {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.2},
}


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("name", OPTIONS)
@every_reduction
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)], ids=str)
def test_cross_entropy_with_every_option_matches_pytorch(at, torch, shape, reduction, name, kind):
    logits, target = cross_entropy_problem(shape, kind)
    options = dict(OPTIONS[name])
    if kind == "probabilities":
        options.pop("ignore_index", None)
    elif "ignore_index" in options:
        target[(-1,) * target.ndim] = options["ignore_index"]
    weight = torch.tensor(options["weight"], dtype=torch.float64) if "weight" in options else None
    tx = torch.tensor(logits, requires_grad=True)
    oracle = torch.nn.functional.cross_entropy
    tl = oracle(tx, torch.tensor(target), **(options | {"weight": weight}), reduction=reduction)
    dy = np.random.default_rng(4).standard_normal(tuple(tl.shape))
    (tdx,) = torch.autograd.grad(tl, tx, torch.tensor(dy))
    loss = CrossEntropy(reduction, **options)
    placed = at.put(target)
    assert_match(loss(at.put(logits), placed), tl.detach(), level="reduction", terms=logits.size, backend=at.backend)
    assert_match(loss.backward(at.put(np.asarray(dy))), tdx, level="reduction", terms=logits.size)


def test_upstream_array_scales_each_target(at):
    logits, target = cross_entropy_problem((2, 3, 2), "classes")
    loss = CrossEntropy(reduction="none")
    loss(at.put(logits, "float32"), at.put(target))
    plain, weights = at.get(loss.backward()), np.array([[1.0, 2.0], [0.0, 4.0]], np.float32)
    assert_match(loss.backward(at.put(weights)), plain * weights[:, None], level="exact", backend=at.backend)


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8"])
def test_classes_of_every_integer_type_are_accepted(at, kind):
    logits, target = cross_entropy_problem((4, 3), "classes")
    value, gradient = cross_entropy_loops(logits, target, "mean")
    loss = CrossEntropy()
    actual = loss(at.put(logits, "float32"), at.put(target, kind))
    assert_match(actual, value, level="reduction", terms=12, backend=at.backend, dtype="float32")
    assert_match(loss.backward(), gradient, level="reduction", terms=12, backend=at.backend, dtype="float32")


@pytest.mark.parametrize(("kind", "classes"), [("int8", 200), ("uint8", 300)])
def test_there_may_be_more_classes_than_the_integer_type_can_hold(at, kind, classes):
    logits = np.zeros((1, classes), np.float32)
    loss = CrossEntropy(reduction="sum")
    loss(at.put(logits), at.put([5], kind))
    desired = np.full((1, classes), 1 / classes) - np.eye(classes)[5:6]
    assert_match(loss.backward(), desired, backend=at.backend, dtype="float32")


@pytest.mark.parametrize(("target", "low", "high"), [([0, 3], 0, 3), ([-1, 2], -1, 2)])
def test_class_out_of_range_is_an_error_on_the_host_and_nan_elsewhere(at, target, low, high):
    loss = CrossEntropy(reduction="none")
    logits = at.put(np.zeros((2, 3), np.float32))
    if at.backend.is_host:
        message = f"CrossEntropy(reduction='none'): targets run from {low} to {high}, classes from 0 to 2"
        with pytest.raises(ValueError, match=re.escape(message)):
            loss(logits, at.put(target))
    value = at.get(cross_entropy(logits, at.put(target), reduction="none"))
    assert np.isnan(value).tolist() == [not 0 <= t <= 2 for t in target]
    gradient = at.get(cross_entropy_backward(1.0, logits, at.put(target), reduction="none"))
    assert np.isnan(gradient).all(axis=1).tolist() == [not 0 <= t <= 2 for t in target]


def test_large_logits_give_finite_losses(at):
    loss = CrossEntropy(reduction="none")
    value = loss(at.put([[1e4, 0.0], [1e4, 0.0]]), at.put([0, 1]))
    assert at.get(value).tolist() == [0, 1e4]
    assert at.get(loss.backward()).tolist() == [[0, 0], [1, -1]]


def test_probability_zero_of_an_impossible_class_adds_nothing(at):
    value = cross_entropy(at.put([[0.0, -np.inf]]), at.put([[1.0, 0.0]]))
    assert float(at.get(value)) == 0


def test_weighted_mean_divides_by_the_weights_of_the_targets_and_not_for_probabilities(at):
    """By hand: even logits of two classes cost log 2 each."""
    logits, weight = at.put(np.zeros((3, 2))), [1.0, 4.0]
    each = np.log(2) * np.array([1.0, 4.0, 4.0])
    loss = CrossEntropy(weight=weight)
    assert_match(loss(logits, at.put([0, 1, 1])), each.sum() / 9, backend=at.backend)
    assert_match(loss(logits, at.put([[1.0, 0], [0, 1], [0, 1]], "float64")), each.sum() / 3, backend=at.backend)


def test_smoothing_by_hand(at):
    """With s = 0.5 and two classes the target is (3/4, 1/4)."""
    logits = at.put(np.log([[0.9, 0.1]]))
    loss = CrossEntropy(label_smoothing=0.5)
    assert_match(loss(logits, at.put([0])), -(0.75 * np.log(0.9) + 0.25 * np.log(0.1)), backend=at.backend)
    assert_match(loss.backward(), [[0.15, -0.15]], backend=at.backend)


@pytest.mark.parametrize("make", [NLL, CrossEntropy])
@pytest.mark.parametrize(("ignore_index", "kind"), [(-100, "int64"), (255, "uint8"), (-1, "int8"), (1, "int32")])
@pytest.mark.filterwarnings("error")
def test_ignored_targets_have_loss_and_gradient_0_whatever_the_logits(at, make, ignore_index, kind):
    logits = at.put(np.array([[[0.0, np.nan], [1.0, np.nan], [2.0, np.inf]]], np.float32))
    loss = make("none", ignore_index=ignore_index)
    with np.errstate(invalid="ignore"):
        value = at.get(loss(logits, at.put([[0, ignore_index]], kind)))
        gradient = at.get(loss.backward())
    assert value[0, 1] == 0
    assert gradient[0, :, 1].tolist() == [0, 0, 0]
    assert np.isfinite(value).all()
    assert gradient[0, 0, 0] < 0


@pytest.mark.parametrize("options", [{}, {"weight": [1.0, 2.0, 3.0]}, {"label_smoothing": 0.1}], ids=str)
@pytest.mark.filterwarnings("error")
def test_all_ignored_is_nan_with_gradient_0_as_in_pytorch(at, torch, options):
    target = np.full((2, 4), -100)
    tx = torch.zeros((2, 3, 4), requires_grad=True)
    weight = torch.tensor(options["weight"]) if "weight" in options else None
    tl = torch.nn.functional.cross_entropy(tx, torch.tensor(target), **(options | {"weight": weight}))
    (tdx,) = torch.autograd.grad(tl, tx)
    loss = CrossEntropy(**options)
    value = loss(at.put(np.zeros((2, 3, 4), np.float32)), at.put(target))
    assert_match(value, tl.detach(), level="exact", backend=at.backend)
    assert_match(loss.backward(), tdx, level="exact", backend=at.backend)
    assert np.isnan(at.get(value))


def test_probabilities_ignore_no_class(at):
    logits, target = (at.put(a, "float64") for a in cross_entropy_problem((4, 3), "probabilities"))
    assert_match(CrossEntropy(ignore_index=1)(logits, target), CrossEntropy()(logits, target), level="exact")


@pytest.mark.parametrize("make", [NLL, CrossEntropy])
def test_range_of_the_classes_in_the_message_leaves_out_those_ignored(make):
    loss = make(ignore_index=9)
    message = f"{loss!r}: targets run from 2 to 5, classes from 0 to 2 (ignore_index is 9)"
    with pytest.raises(ValueError, match=re.escape(message)):
        loss(np.zeros((4, 3), np.float32), np.array([9, 5, 2, 9]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_class_out_of_range_is_nan_in_the_function_with_every_option(at, reduction):
    logits, target, weight = at.put(np.zeros((2, 3))), at.put([0, 3]), at.put(np.ones(3))
    for options in ({"weight": weight}, {"label_smoothing": 0.1}):
        value = at.get(cross_entropy(logits, target, reduction=reduction, xp=at.xp, **options))
        assert np.isnan(value).tolist() == (True if reduction == "mean" else [False, True])


@pytest.mark.parametrize("make", [NLL, CrossEntropy])
@pytest.mark.parametrize("given", ["list", "host", "same backend", "other backend"])
def test_weights_are_copied_to_the_device_once_and_nothing_is_copied_to_the_host(at, make, given):
    numbers = np.array([1.0, 2.0, 0.5])
    origins = {"same backend": at.put, "other backend": nn.get_backend("strict").asarray}
    weight = numbers.tolist() if given == "list" else origins.get(given, np.asarray)(numbers)
    loss = make("sum", weight=weight)
    logits, target = at.put(np.full((2, 3), -1, np.float32)), at.put([0, 1])
    loss(logits, target)
    before = at.backend.transfers
    for _ in range(3):
        loss(logits, target)
        loss.backward()
    assert at.backend.transfers == before
    numbers[:] = 7
    assert_match(loss(logits, target), 3 * (np.log(3) if make is CrossEntropy else 1), dtype="float32")


def test_weights_follow_the_prediction_to_another_backend_and_dtype(at):
    loss = CrossEntropy(weight=[1.0, 3.0])
    for place, dtype in ((nn.get_backend("numpy"), "float64"), (at.backend, "float32"), (at.backend, "float64")):
        logits = place.asarray(np.zeros((2, 2), dtype))
        assert_match(loss(logits, place.asarray([0, 1])), np.log(2), backend=place, dtype=dtype)


@pytest.mark.filterwarnings("error")
def test_large_and_infinite_logits_with_weights_and_smoothing(at):
    loss = CrossEntropy("none", weight=[1.0, 2.0], label_smoothing=0.5)
    value = at.get(loss(at.put([[1e4, 0.0], [-1e4, 0.0]]), at.put([0, 0])))
    assert value.tolist() == [5000.0, 7500.0]
    assert at.get(loss.backward()).tolist() == [[0.5, -0.5], [-0.75, 0.75]]
    plain = CrossEntropy("none")
    logits = at.put([[0.0, -np.inf], [-np.inf, 0.0]])
    assert at.get(plain(logits, at.put([0, 0]))).tolist() == [0, np.inf]
    assert at.get(plain.backward()).tolist() == [[0, 0], [-1, 1]]


STREAMS = """
import cupy, numpy as np, xpnn as nn
loss = nn.CrossEntropy(weight=np.linspace(0.5, 2.0, 5), backend="cupy")
b = loss.backend
first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
with second:
    prediction, target = b.asarray(np.eye(5, dtype="float32")), b.asarray(np.arange(5)[::-1].copy())
    second.synchronize()
with first:
    loss(cupy.ones((2, 5), "float32"), cupy.zeros(2, "int64"))
with second:
    found = float(loss(prediction, target))
host = nn.CrossEntropy(weight=np.linspace(0.5, 2.0, 5), backend="numpy")
assert abs(found - host(np.eye(5, dtype="float32"), np.arange(5)[::-1].copy())) < 1e-5, found
"""


def test_weights_copied_on_one_stream_can_be_read_on_all():
    run_late(STREAMS)
