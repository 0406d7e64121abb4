"""Losses: values and gradients, against PyTorch, loops and finite differences."""

import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match, gradcheck

F = nn.functional
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
    loss = nn.CrossEntropy(reduction=reduction)
    on_backend = at.put(target) if kind == "classes" else at.put(target, dtype)
    terms = logits.size
    actual = loss(at.put(logits, dtype), on_backend)
    assert_match(actual, value, level="reduction", terms=terms, backend=at.backend, dtype=dtype)
    assert_match(loss.backward(), gradient, level="reduction", terms=terms, backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@every_reduction
@every_shape
def test_cross_entropy_matches_pytorch(torch, shape, reduction, kind):
    logits, target = cross_entropy_problem(shape, kind)
    tx = torch.tensor(logits, requires_grad=True)
    tl = torch.nn.functional.cross_entropy(tx, torch.tensor(target), reduction=reduction)
    loss = nn.CrossEntropy(reduction=reduction)
    value = np.asarray(loss(logits, target))
    dy = np.random.default_rng(4).standard_normal(value.shape)
    (tdx,) = torch.autograd.grad(tl, tx, torch.tensor(dy))
    assert_match(value, tl.detach(), level="reduction", terms=logits.size)
    assert_match(loss.backward(np.asarray(dy)), tdx, level="reduction", terms=logits.size)


@pytest.mark.parametrize("dtype", DTYPES)
@every_reduction
def test_mean_squared_error_and_its_gradient(at, rng, reduction, dtype):
    prediction, target = (rng.integers(-8, 8, (4, 3)).astype(np.float64) for _ in range(2))
    squares = (prediction - target) ** 2
    value = {"mean": squares.sum() / 12, "sum": squares.sum(), "none": squares}[reduction]
    loss = nn.MeanSquaredError(reduction=reduction)
    actual = loss(at.put(prediction, dtype), at.put(target, dtype))
    assert_match(actual, value, backend=at.backend, dtype=dtype)
    gradient = 2 * (prediction - target) / (12 if reduction == "mean" else 1)
    assert_match(loss.backward(), gradient, backend=at.backend, dtype=dtype)


@every_reduction
def test_mean_squared_error_matches_pytorch(torch, rng, reduction):
    prediction, target = rng.standard_normal((2, 3, 2, 2))
    tx = torch.tensor(prediction, requires_grad=True)
    tl = torch.nn.functional.mse_loss(tx, torch.tensor(target), reduction=reduction)
    loss = nn.MeanSquaredError(reduction=reduction)
    value = loss(prediction, target)
    dy = rng.standard_normal(np.shape(value))
    assert_match(np.asarray(value), tl.detach(), level="reduction", terms=12)
    (tdx,) = torch.autograd.grad(tl, tx, torch.tensor(dy))
    assert_match(loss.backward(np.asarray(dy)), tdx)


class Against(nn.Layer):
    """A loss against a fixed target, as a layer."""

    def __init__(self, loss, target):
        super().__init__(dtype="float64")
        self.loss, self.target = loss, target

    def _forward(self, x):
        return self.loss(x, self.target)

    def _backward(self, dy, input_grad):
        return self.loss.backward(dy)


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@every_reduction
def test_backward_of_cross_entropy_is_the_derivative_of_forward(reduction, kind):
    logits, target = cross_entropy_problem((3, 4, 2), kind)
    gradcheck(Against(nn.CrossEntropy(reduction), target), logits)


@every_reduction
def test_backward_of_mean_squared_error_is_the_derivative_of_forward(rng, reduction):
    gradcheck(Against(nn.MeanSquaredError(reduction), rng.standard_normal((3, 4))), rng.standard_normal((3, 4)))


@pytest.mark.parametrize("make", [nn.CrossEntropy, nn.MeanSquaredError])
def test_upstream_number_scales_the_gradient(at, make):
    loss = make(reduction="sum")
    loss(at.put([[1.0, 2.0]]), at.put([[0.0, 1.0]]))
    plain = at.get(loss.backward())
    assert_match(loss.backward(4.0), 4 * plain, level="exact", backend=at.backend)
    assert_match(loss.backward(at.put(np.float32(4.0))), 4 * plain, level="exact", backend=at.backend)


def test_upstream_array_weighs_each_target(at):
    logits, target = cross_entropy_problem((2, 3, 2), "classes")
    loss = nn.CrossEntropy(reduction="none")
    loss(at.put(logits, "float32"), at.put(target))
    plain, weights = at.get(loss.backward()), np.array([[1.0, 2.0], [0.0, 4.0]], np.float32)
    assert_match(loss.backward(at.put(weights)), plain * weights[:, None], level="exact", backend=at.backend)


@pytest.mark.parametrize("make", [nn.CrossEntropy, nn.MeanSquaredError])
def test_upstream_gradient_of_another_dtype_is_an_error(at, make):
    loss = make()
    loss(at.put([[1.0, 2.0]]), at.put([[0.0, 1.0]]))
    with pytest.raises(TypeError, match=rf"{make.__name__}\(\): "):
        loss.backward(at.put(np.asarray(1.0), "float64"))


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8"])
def test_classes_of_every_integer_type_are_taken(at, kind):
    logits, target = cross_entropy_problem((4, 3), "classes")
    value, gradient = cross_entropy_loops(logits, target, "mean")
    loss = nn.CrossEntropy()
    actual = loss(at.put(logits, "float32"), at.put(target, kind))
    assert_match(actual, value, level="reduction", terms=12, backend=at.backend, dtype="float32")
    assert_match(loss.backward(), gradient, level="reduction", terms=12, backend=at.backend, dtype="float32")


@pytest.mark.parametrize(("kind", "classes"), [("int8", 200), ("uint8", 300)])
def test_classes_may_be_more_than_their_integer_type_counts(at, kind, classes):
    logits = np.zeros((1, classes), np.float32)
    loss = nn.CrossEntropy(reduction="sum")
    loss(at.put(logits), at.put([5], kind))
    desired = np.full((1, classes), 1 / classes) - np.eye(classes)[5:6]
    assert_match(loss.backward(), desired, backend=at.backend, dtype="float32")


@pytest.mark.parametrize(("target", "low", "high"), [([0, 3], 0, 3), ([-1, 2], -1, 2)])
def test_class_out_of_range_is_an_error_where_looking_is_free_and_nan_elsewhere(at, target, low, high):
    loss = nn.CrossEntropy(reduction="none")
    logits = at.put(np.zeros((2, 3), np.float32))
    if at.backend.is_host:
        message = f"CrossEntropy(reduction='none'): targets run from {low} to {high}, classes from 0 to 2"
        with pytest.raises(ValueError, match=re.escape(message)):
            loss(logits, at.put(target))
    value = at.get(F.cross_entropy(logits, at.put(target), reduction="none"))
    assert np.isnan(value).tolist() == [not 0 <= t <= 2 for t in target]
    gradient = at.get(F.cross_entropy_backward(1.0, logits, at.put(target), reduction="none"))
    assert np.isnan(gradient).all(axis=1).tolist() == [not 0 <= t <= 2 for t in target]


def test_large_logits_give_finite_losses(at):
    loss = nn.CrossEntropy(reduction="none")
    value = loss(at.put([[1e4, 0.0], [1e4, 0.0]]), at.put([0, 1]))
    assert at.get(value).tolist() == [0, 1e4]
    assert at.get(loss.backward()).tolist() == [[0, 0], [1, -1]]


def test_probability_zero_of_an_impossible_class_costs_nothing(at):
    value = F.cross_entropy(at.put([[0.0, -np.inf]]), at.put([[1.0, 0.0]]))
    assert float(at.get(value)) == 0


def test_inputs_are_not_changed(at):
    logits, target = cross_entropy_problem((2, 3), "probabilities")
    hosts = logits.astype(np.float32), target.astype(np.float32)
    arrays = [at.put(h.copy()) for h in hosts]
    for loss in (nn.CrossEntropy(), nn.MeanSquaredError()):
        loss(*arrays)
        loss.backward()
    for a, d in zip(arrays, hosts, strict=True):
        assert_match(a, d, level="exact", backend=at.backend)


@pytest.mark.parametrize(
    ("loss", "shapes", "error", "message"),
    [
        (nn.MeanSquaredError(), ((2, 3), (3,)), ValueError, "target has shape (3,), expected (2, 3)"),
        (nn.CrossEntropy(), ((2, 3), (2, 4)), ValueError, "target of probabilities has shape (2, 4), expected (2, 3)"),
        (nn.CrossEntropy(), ((3,), (3,)), ValueError, "logits need shape (N, C, ...), got (3,)"),
        (nn.CrossEntropy(), ((2, 0), (2, 0)), ValueError, "is empty"),
    ],
    ids=["mse", "probabilities", "rank", "no classes"],
)
def test_shapes_that_do_not_fit_are_an_error_that_names_the_loss(loss, shapes, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        loss(*(np.zeros(s, np.float32) for s in shapes))
    assert str(caught.value).startswith(f"{loss!r}: ")


def test_classes_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match=re.escape("target of classes has shape (3,), expected (2,)")):
        nn.CrossEntropy()(np.zeros((2, 3), np.float32), np.zeros(3, np.int64))


def test_mixed_dtypes_are_an_error_that_names_the_loss():
    message = "MeanSquaredError(): mixed dtypes (prediction float32, target float64)"
    with pytest.raises(TypeError, match=re.escape(message)):
        nn.MeanSquaredError()(np.zeros(2, np.float32), np.zeros(2))


def test_upstream_of_another_shape_is_an_error():
    loss = nn.MeanSquaredError(reduction="none")
    loss(np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=re.escape("upstream gradient has shape (3,), expected (2, 3)")):
        loss.backward(np.zeros(3, np.float32))


def test_target_on_another_backend_is_an_error_that_names_both_and_the_move():
    strict = nn.get_backend("strict")
    with pytest.raises(TypeError, match="the target is on numpy, this is on strict; move the array with"):
        nn.CrossEntropy()(strict.asarray([[0.0, 1.0]]), np.array([0]))


def test_backward_before_forward_is_an_error():
    with pytest.raises(RuntimeError, match=re.escape("CrossEntropy(): backward needs a forward before it")):
        nn.CrossEntropy().backward()


def test_unknown_reduction_is_an_error_that_lists_those_taken():
    with pytest.raises(ValueError, match="reduction takes one of mean, sum, none, got 'average'"):
        nn.CrossEntropy(reduction="average")
