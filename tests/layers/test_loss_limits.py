"""Losses at infinite, NaN, largest and smallest numbers: the limits, written by hand, by every path and reduction."""

import warnings

import numpy as np
import pytest

import xpnn as nn

INF, NAN, BIG, TINY = float("inf"), float("nan"), float(np.finfo(np.float32).max), 2.0**-120
F = nn.functional

# Loss, its options, and rows of prediction, target, loss and slope.
ROWS = [
    (
        nn.BinaryCrossEntropyWithLogits,
        {},
        [
            (INF, 1.0, 0.0, 0.0),
            (-INF, 0.0, 0.0, 0.0),
            (INF, 0.0, INF, 1.0),
            (-INF, 1.0, INF, -1.0),
            (INF, 0.25, INF, 0.75),
            (-INF, 0.25, INF, -0.25),
            (BIG, 1.0, 0.0, 0.0),
            (BIG, 0.0, BIG, 1.0),
            (-BIG, 1.0, BIG, -1.0),
            (TINY, 1.0, np.log(2), -0.5),
            (NAN, 1.0, NAN, NAN),
            (NAN, 0.0, NAN, NAN),
            (0.5, NAN, NAN, NAN),
        ],
    ),
    (
        nn.BinaryCrossEntropy,
        {},
        [
            (1.0, 1.0, 0.0, 0.0),
            (0.0, 0.0, 0.0, 0.0),
            (0.0, 1.0, 100.0, -1e12),
            (1.0, 0.0, 100.0, 1e12),
            (TINY, 1.0, -np.log(TINY), -1e12),
            (NAN, 1.0, NAN, NAN),
            (NAN, 0.0, NAN, NAN),
            (INF, 1.0, NAN, NAN),
            (-INF, 0.0, NAN, NAN),
            (1.5, 1.0, NAN, NAN),
            (-0.5, 1.0, NAN, NAN),
            (0.5, NAN, NAN, NAN),
        ],
    ),
    (
        nn.MSE,
        {},
        [(INF, 1.0, INF, INF), (1.0, INF, INF, -INF), (BIG, 1.0, INF, INF), (NAN, 1.0, NAN, NAN), (1.0, NAN, NAN, NAN)],
    ),
    (nn.L2, {}, [(-INF, 1.0, INF, -INF), (NAN, 1.0, NAN, NAN)]),
    (
        nn.MAE,
        {},
        [(INF, 1.0, INF, 1.0), (1.0, INF, INF, -1.0), (BIG, 0.0, BIG, 1.0), (NAN, 1.0, NAN, NAN), (1.0, NAN, NAN, NAN)],
    ),
    (nn.L1, {}, [(-INF, 1.0, INF, -1.0), (NAN, 1.0, NAN, NAN)]),
    (
        nn.MSLE,
        {},
        [
            (INF, 1.0, INF, 0.0),
            (1.0, INF, INF, -INF),
            (BIG, 0.0, np.log(BIG) ** 2, 0.0),
            (-1.0, 1.0, INF, -INF),
            (NAN, 1.0, NAN, NAN),
            (1.0, NAN, NAN, NAN),
            (-2.0, 1.0, NAN, NAN),
        ],
    ),
    (
        nn.MAPE,
        {},
        [
            (INF, 1.0, INF, 100.0),
            (1.0, INF, 100.0, 0.0),
            (1.0, -INF, 100.0, 0.0),
            (0.0, BIG, 100.0, 0.0),
            (BIG, BIG / 2, 100.0, 0.0),
            (NAN, 1.0, NAN, NAN),
            (NAN, INF, NAN, NAN),
            (1.0, NAN, NAN, NAN),
        ],
    ),
    (
        nn.Huber,
        {"delta": 0.5},
        [
            (INF, 1.0, INF, 0.5),
            (1.0, INF, INF, -0.5),
            (BIG, 0.0, BIG / 2, 0.5),
            (NAN, 1.0, NAN, NAN),
            (1.0, NAN, NAN, NAN),
        ],
    ),
    (nn.Huber, {"delta": INF}, [(INF, 1.0, INF, INF), (3.0, 1.0, 2.0, 2.0), (NAN, 1.0, NAN, NAN)]),
    (
        nn.SmoothL1,
        {"beta": 0.5},
        [(INF, 1.0, INF, 1.0), (1.0, INF, INF, -1.0), (BIG, 0.0, BIG, 1.0), (NAN, 1.0, NAN, NAN), (1.0, NAN, NAN, NAN)],
    ),
    (nn.SmoothL1, {"beta": 0.0}, [(-INF, 1.0, INF, -1.0), (NAN, 1.0, NAN, NAN)]),
    (nn.SmoothL1, {"beta": 1e-300}, [(3.0, 1.0, 2.0, 1.0), (1.0, 1.0, 0.0, 0.0), (NAN, 1.0, NAN, NAN)]),
    # Slopes of the divergence do not depend on the prediction.
    (
        nn.KLDivergence,
        {},
        [
            (-INF, 0.0, 0.0, 0.0),
            (-INF, 0.5, INF, -0.5),
            (-1.0, 0.0, 0.0, 0.0),
            (NAN, 0.0, NAN, 0.0),
            (NAN, 0.5, NAN, -0.5),
            (-1.0, NAN, NAN, NAN),
        ],
    ),
    (
        nn.KLDivergence,
        {"log_target": True},
        [
            (-INF, -INF, 0.0, 0.0),
            (-INF, 0.0, INF, -1.0),
            (-1.0, -INF, 0.0, 0.0),
            (NAN, -INF, NAN, 0.0),
            (-1.0, NAN, NAN, NAN),
        ],
    ),
]
SUMS = (nn.L1, nn.L2)  # losses without reduction
rows = pytest.mark.parametrize(
    ("make", "options", "table"), [pytest.param(*row, id=f"{row[0].__name__} {row[1] or ''}") for row in ROWS]
)


def test_every_loss_is_in_the_table():
    # Those of classes and regions have limits of their own.
    listed = {make for make, _, _ in ROWS} | {nn.CrossEntropy, nn.NLL, nn.Focal, nn.Dice}
    losses = [each for each in map(nn.__dict__.get, nn.__all__) if isinstance(each, type) and issubclass(each, nn.Loss)]
    assert listed == {*losses} - {nn.Loss}


def require(found, wanted):
    np.testing.assert_allclose(found, np.asarray(wanted, found.dtype), rtol=1e-5, atol=1e-30)


def check(make, options, table, backend, dtype):
    """All rows at once without reduction, and three times the same row by the others; L1 and L2 by their sum only."""
    columns = [np.array(column, dtype) for column in zip(*table, strict=True)]
    is_sum = make in SUMS
    if not is_sum:
        found = run(make("none", **options), *columns[:2], backend, np.ones(len(table), dtype))
        for each, wanted in zip(found, columns[2:], strict=True):
            require(each, wanted)
    for p, t, value, slope in zip(*columns, strict=True):
        three = (np.full(3, p), np.full(3, t))
        total, gradient = run(make() if is_sum else make("sum", **options), *three, backend)
        if backend.numerics == "exact" and np.isinf(value):
            # A sum of exact numerics is NaN where a term is infinite, and does not overflow within.
            assert not np.isfinite(total)
            continue
        require(total, value + value + value)
        require(gradient, np.full(3, slope))
        if is_sum:
            continue
        mean, gradient = run(make("mean", **options), *three, backend)
        # Infinite where the sum is, which in exact numerics has the range of float64.
        require(mean, value if backend.numerics == "exact" else (value + value + value) / 3)
        require(gradient, np.full(3, slope / 3))


def run(loss, prediction, target, backend, dy=None):
    """Loss and gradient on the host."""
    loss = loss.to(backend)
    value = loss(backend.asarray(prediction), backend.asarray(target))
    gradient = loss.backward(1.0 if dy is None else backend.asarray(dy))
    return backend.to_numpy(value), backend.to_numpy(gradient)


@rows
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_limits(at, make, options, table):
    check(make, options, table, at.backend, np.float32)


@rows
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_limits_in_float64(at, make, options, table):
    check(make, options, [row for row in table if BIG not in np.abs(row)], at.wide(), np.float64)


@rows
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_limits_in_exact_numerics(exact, make, options, table):
    check(make, options, table, exact, np.float32)


@rows
def test_an_infinite_input_does_not_warn(make, options, table):
    numpy = nn.get_backend("numpy")
    # MSLE has the logarithm of 0 for a prediction of -1.
    wanted = [row for row in table if not np.isnan(row).any() and BIG not in np.abs(row) and row[0] != -1.0]
    columns = [np.array(column, np.float32) for column in zip(*wanted, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if make in SUMS:
            run(make(), *columns[:2], numpy)
        else:
            run(make("none", **options), *columns[:2], numpy, np.ones(len(wanted), np.float32))


@pytest.mark.parametrize("weights", ["weight", "pos_weight"])
def test_a_weight_of_0_removes_an_infinite_loss(at, weights):
    logits, target = at.put([-INF, -INF, 0.0], "float32"), at.put([1.0, 1.0, 1.0], "float32")
    loss = nn.BinaryCrossEntropyWithLogits("none", **{weights: [0.0, 1.0, 1.0]}).to(at.backend)
    require(at.get(loss(logits, target)), [0.0, INF, np.log(2)])
    require(at.get(loss.backward(at.xp.ones_like(logits))), [0.0, -1.0, -0.5])


# Logits of four samples and three classes, and their softmax.
LOGITS = np.array(
    [[INF, 0.0, -INF], [INF, INF, 1.0], [-INF, 0.0, 0.0], [BIG, 0.0, 1.0], [NAN, 0.0, INF], [-INF, -INF, -INF]]
)
SOFTMAX = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0], [NAN] * 3, [NAN] * 3])
with np.errstate(divide="ignore"):
    LOG_SOFTMAX = np.where(LOGITS[:, :1] == BIG, [0, -BIG, -BIG], np.log(SOFTMAX))
TARGETS = {
    "plain": ({}, np.array([0, 1, 2, 0, 0, 0])),
    "wrong": ({}, np.array([1, 2, 0, 2, 2, 1])),
    "weights": ({"weight": [1.0, 2.0, 0.5]}, np.array([0, 2, 1, 1, 0, 0])),
    "ignored": ({"ignore_index": 2}, np.array([0, 2, 1, 1, 0, 2])),
}


def logits(dtype):
    """Of the dtype's own largest number."""
    return np.where(np.abs(LOGITS) == BIG, np.sign(LOGITS) * np.finfo(dtype).max, LOGITS).astype(dtype)


def wanted_cross_entropy(options, target):
    """Losses and slopes of the rows, by the table of softmaxes."""
    weight = np.asarray(options.get("weight", [1.0, 1.0, 1.0]))[target]
    weight = np.where(target == options.get("ignore_index", -100), 0.0, weight)
    hot = np.eye(3)[target]
    at_target = LOG_SOFTMAX[np.arange(len(target)), target]
    losses = np.where(weight == 0, 0.0, -np.where(weight == 0, 0.0, at_target) * weight)
    slopes = np.where(weight[:, None] == 0, 0.0, np.where(weight[:, None] == 0, 0.0, SOFTMAX - hot) * weight[:, None])
    return losses, slopes


def require_softmax(backend, dtype):
    x = backend.asarray(logits(dtype))
    for function, table in ((F.softmax, SOFTMAX), (F.log_softmax, LOG_SOFTMAX)):
        y = backend.to_numpy(function(x, axis=1, xp=backend.xp))
        finite = np.where(np.abs(table) == BIG, np.sign(table) * np.finfo(dtype).max, table)
        np.testing.assert_allclose(y, finite.astype(y.dtype), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_softmax_of_infinite_logits_is_the_limit(at):
    require_softmax(at.backend, np.float32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_softmax_of_infinite_logits_is_the_limit_in_float64(at):
    require_softmax(at.wide(), np.float64)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_softmax_of_infinite_logits_is_the_limit_in_exact_numerics(exact):
    # As float64 within; the logits are float32's.
    x = exact.up(exact.asarray(logits(np.float32)))
    with np.errstate(over="ignore"):
        for function, table in ((F.softmax, SOFTMAX), (F.log_softmax, LOG_SOFTMAX)):
            y = exact.to_numpy(exact.down(function(x, axis=1, xp=exact.xp)))
            np.testing.assert_allclose(y, np.where(table == -INF, -INF, table).astype(np.float32), rtol=1e-6)


def require_cross_entropy(backend, dtype, options, target):
    losses, slopes = wanted_cross_entropy(options, target)
    finite = np.where(np.abs(losses) > 1e30, np.sign(losses) * INF, losses)
    x, t = logits(dtype), backend.asarray(target)
    loss = nn.CrossEntropy("none", **options).to(backend)
    value = backend.to_numpy(loss(backend.asarray(x), t))
    np.testing.assert_allclose(np.where(np.abs(value) > 1e30, np.sign(value) * INF, value), finite, rtol=1e-6)
    gradient = backend.to_numpy(loss.backward(backend.asarray(np.ones(len(target), dtype))))
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6)
    for row in range(len(target)):
        # A row twice: the mean is its own, and each slope half of it (of what counts).
        loss = nn.CrossEntropy(**options).to(backend)
        value = backend.to_numpy(loss(backend.asarray(x[[row, row]]), backend.asarray(target[[row, row]])))
        weight = np.asarray(options.get("weight", [1.0] * 3))[target[row]]
        if target[row] == options.get("ignore_index", -100):
            assert np.isnan(value)
        else:
            one = value if abs(value) < 1e30 or np.isnan(value) else np.sign(value) * INF
            infinite = np.isinf(x[row]).any() and np.isinf(finite[row]) and backend.numerics == "exact"
            np.testing.assert_allclose(one, NAN if infinite else finite[row] / weight, rtol=1e-6)
        np.testing.assert_allclose(backend.to_numpy(loss.backward())[0], slopes[row] / (2 * weight), rtol=1e-6)


targets = pytest.mark.parametrize(("options", "target"), TARGETS.values(), ids=TARGETS.keys())


@targets
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_of_infinite_logits_is_the_limit(at, options, target):
    require_cross_entropy(at.backend, np.float32, options, target)


@targets
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_of_infinite_logits_is_the_limit_in_float64(at, options, target):
    require_cross_entropy(at.wide(), np.float64, options, target)


@targets
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_of_infinite_logits_is_the_limit_in_exact_numerics(exact, options, target):
    require_cross_entropy(exact, np.float32, options, target)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cross_entropy_with_probabilities_of_infinite_logits_is_the_limit(at, smoothing):
    x = at.put(np.array([[INF, 0.0], [INF, 0.0], [-INF, 0.0]], np.float32))
    q = at.put(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32))
    loss = nn.CrossEntropy("none", label_smoothing=smoothing).to(at.backend)
    classes = nn.CrossEntropy("none", label_smoothing=smoothing).to(at.backend)
    labels = at.put(np.array([0, 1, 1]))
    wanted = [INF] * 3 if smoothing else [0.0, INF, 0.0]
    half = smoothing / 2
    slopes = np.array([[0, 0], [1, -1], [0, 0]]) + half * np.array([[1, -1], [-1, 1], [-1, 1]])
    for each, target in ((loss, q), (classes, labels)):
        require(at.get(each(x, target)), wanted)
        require(at.get(each.backward(at.put(np.ones(3, np.float32)))), slopes)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nll_of_infinite_logarithms(at):
    log_p = at.put(np.array([[-INF, 0.0], [-INF, 0.0], [NAN, 0.0]], np.float32))
    loss = nn.NLL("none").to(at.backend)
    require(at.get(loss(log_p, at.put(np.array([0, 1, 0])))), [INF, 0.0, NAN])
    require(at.get(loss.backward(at.put(np.ones(3, np.float32)))), [[-1, 0], [0, -1], [-1, 0]])
