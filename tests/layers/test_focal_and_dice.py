"""Focal and Dice loss against formulas in float64, PyTorch's gradients, and cross-entropy; corners of both."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers import functional as F
from xpnn.testing import assert_match

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5, 2)) * 3.0
CLASSES = RNG.integers(0, 4, (3, 5, 2))
MASKS = RNG.integers(0, 2, LOGITS.shape).astype(np.float64)


def wide(at, *arrays):
    b = nn.get_backend(at.backend, "float64") if at.wide_enough else at.backend
    return b, [b.asarray(a, b.dtype if a.dtype.kind == "f" else None) for a in arrays]


def close(at, actual, desired):
    near = 1e-12 if at.wide_enough else 1e-5
    np.testing.assert_allclose(at.get(actual), desired, rtol=near, atol=near)


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_focal_loss_without_gamma_is_cross_entropy(at):
    _, (logits, classes, masks) = wide(at, LOGITS, CLASSES, MASKS)
    for target, other in ((classes, nn.CrossEntropy()), (masks, nn.BinaryCrossEntropyWithLogits())):
        loss = nn.Focal(gamma=0.0)
        close(at, loss(logits, target), at.get(other(logits, target)))
        close(at, loss.backward(), at.get(other.backward()))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
def test_focal_loss_of_classes_is_the_papers(at, gamma):
    _, (logits, classes) = wide(at, LOGITS, CLASSES)
    alpha = np.array([0.5, 2.0, 0.0, 1.0])
    p = np.take_along_axis(softmax(LOGITS), CLASSES[:, None], axis=1)[:, 0]
    desired = -alpha[CLASSES] * (1 - p) ** gamma * np.log(p)
    close(at, nn.Focal("none", alpha=alpha, gamma=gamma)(logits, classes), desired)
    close(at, nn.Focal(alpha=alpha, gamma=gamma)(logits, classes), desired.mean())
    close(at, nn.Focal("sum", alpha=0.25, gamma=gamma)(logits, classes), (-0.25 * (1 - p) ** gamma * np.log(p)).sum())


@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_entries_is_torchvisions(torch, alpha, gamma):
    """Its formula, for targets between 0 and 1 too, and PyTorch's gradient of it."""
    targets = RNG.uniform(0.0, 1.0, LOGITS.shape)
    targets[0] = MASKS[0]
    x, t = torch.from_numpy(LOGITS).requires_grad_(), torch.from_numpy(targets)
    p = torch.sigmoid(x)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
    desired = entropy * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
    if alpha is not None:
        desired = (alpha * t + (1 - alpha) * (1 - t)) * desired
    desired.mean().backward()
    loss = nn.Focal(alpha=alpha, gamma=gamma)
    np.testing.assert_allclose(loss(LOGITS, targets), desired.mean().item(), rtol=1e-12)
    np.testing.assert_allclose(loss.backward(), x.grad.numpy(), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(F.focal(LOGITS, targets, alpha=alpha, gamma=gamma, reduction="none"), desired.detach())


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0, 4.0])
def test_gradients_of_the_focal_loss_of_classes_are_pytorchs(torch, gamma):
    x, y = torch.from_numpy(LOGITS).requires_grad_(), torch.from_numpy(CLASSES)
    log_p = torch.nn.functional.log_softmax(x, dim=1).gather(1, y[:, None])
    (-((1 - log_p.exp()) ** gamma) * log_p).mean().backward()
    loss = nn.Focal(gamma=gamma)
    loss(LOGITS, CLASSES)
    np.testing.assert_allclose(loss.backward(), x.grad.numpy(), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("size", [20.0, 90.0, 1e4, np.inf])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_extreme_logits_is_stable(at, gamma, size):
    """A target that is predicted with certainty costs nothing; one that is excluded costs its logit, slope 1."""
    x = at.put(np.array([[size, -size]], np.float32))
    y = np.array([[1.0, 1.0]], np.float32)
    loss = nn.Focal("none", gamma=gamma)
    right, wrong = at.get(loss(x, at.put(y)))[0]
    dx = at.get(loss.backward(at.put(np.ones((1, 2), np.float32))))[0]
    assert 0.0 <= right < 1e-6 and wrong == pytest.approx(size)
    assert abs(dx[0]) < 1e-6 and dx[1] == pytest.approx(-1.0)
    if np.isfinite(size):
        classes = at.put(np.array([0, 1]))
        rows = at.put(np.array([[size, 0.0], [size, 0.0]], np.float32))
        right, wrong = at.get(loss(rows, classes))
        dx = at.get(loss.backward(at.put(np.ones(2, np.float32))))
        assert 0.0 <= right < 1e-6 and wrong == pytest.approx(size)
        assert np.abs(dx[0]).max() < 1e-6 and dx[1].tolist() == pytest.approx([1.0, -1.0])


def test_small_losses_of_certain_targets_keep_their_digits(at):
    """``1 - p`` is computed from the logarithm: p itself is 1 in float32."""
    x = at.put(np.array([[20.0, 0.0]], np.float32))
    found = float(at.get(nn.Focal("sum", gamma=1.0)(x, at.put(np.array([0])))))
    assert found == pytest.approx(np.exp(-20.0) * np.log1p(np.exp(-20.0)), rel=1e-4)


def dice_of(p, t, smooth):
    axes = tuple(range(2, p.ndim))
    return 1 - (2 * (p * t).sum(axes) + smooth) / (p.sum(axes) + t.sum(axes) + smooth)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 5.0])
def test_dice_loss_is_one_minus_the_overlap(at, smooth):
    _, (logits, classes, masks) = wide(at, LOGITS, CLASSES, MASKS)
    hot = np.moveaxis(np.eye(4)[CLASSES], -1, 1)
    desired = dice_of(softmax(LOGITS), hot, smooth)
    close(at, nn.Dice("none", smooth=smooth)(logits, classes), desired)
    close(at, nn.Dice(smooth=smooth)(logits, classes), desired.mean())
    close(at, nn.Dice("sum", smooth=smooth)(logits, masks), dice_of(1 / (1 + np.exp(-LOGITS)), MASKS, smooth).sum())


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_gradients_of_the_dice_loss_are_pytorchs(torch, kind, from_logits):
    given = LOGITS if from_logits else 1 / (1 + np.exp(-LOGITS))
    x = torch.from_numpy(given).requires_grad_()
    if kind == "classes":
        t = torch.nn.functional.one_hot(torch.from_numpy(CLASSES), 4).movedim(-1, 1).double()
        p = torch.softmax(x, dim=1) if from_logits else x
    else:
        t, p = torch.from_numpy(MASKS), torch.sigmoid(x) if from_logits else x
    dims = (2, 3)
    desired = (1 - (2 * (p * t).sum(dims) + 0.5) / (p.sum(dims) + t.sum(dims) + 0.5)).mean()
    desired.backward()
    loss = nn.Dice(smooth=0.5, from_logits=from_logits)
    np.testing.assert_allclose(loss(given, CLASSES if kind == "classes" else MASKS), desired.item(), rtol=1e-12)
    np.testing.assert_allclose(loss.backward(), x.grad.numpy(), rtol=1e-9, atol=1e-15)


def test_perfect_and_opposite_masks(at):
    mask = np.zeros((2, 1, 3, 3), np.float32)
    mask[0, 0, 1] = 1.0
    loss = nn.Dice("none", from_logits=False, smooth=0.0)
    # The second sample is empty, and predicted to be.
    assert at.get(loss(at.put(mask), at.put(mask))).tolist() == [[0.0], [0.0]]
    assert at.get(loss.backward(at.put(np.ones((2, 1), np.float32))))[1].tolist() == np.ones((1, 3, 3)).tolist()
    assert at.get(loss(at.put(1 - mask), at.put(mask))).tolist() == [[1.0], [1.0]]


# A focal loss of masks ignores none.
@pytest.mark.parametrize(("name", "kind"), [("Focal", "classes"), ("Dice", "classes"), ("Dice", "masks")])
def test_ignored_targets_change_neither_loss_nor_gradient(at, name, kind):
    b, (_, target) = wide(at, LOGITS, CLASSES if kind == "classes" else MASKS)
    target, logits = np.array(at.get(target)), LOGITS.copy()
    target[:, ..., 0] = -100
    target[2] = -100
    cut = (slice(0, 2), ..., slice(1, 2))
    loss, part = getattr(nn, name)(), getattr(nn, name)()
    logits[..., 0] = np.nan if name == "Dice" else 5.0
    x, y = b.asarray(logits, b.dtype), b.asarray(target)
    close(at, loss(x, y), at.get(part(b.asarray(logits[cut], b.dtype), b.asarray(target[cut]))))
    if name == "Focal":
        found = at.get(loss.backward())
        close(at, b.asarray(found[cut]), at.get(part.backward()))
        assert not found[2].any() and not found[..., 0].any()
    nothing = b.asarray(np.full_like(target, -100))
    clean = b.asarray(LOGITS, b.dtype)
    assert np.isnan(at.get(loss(clean, nothing))) and not at.get(loss.backward()).any()
    assert float(at.get(loss.terms(clean, nothing))) == 0.0


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (nn.Focal(alpha=[1.0, 2.0, 0.5, 1.0]), CLASSES),
        *((loss, target) for loss in (nn.Dice(), nn.Focal(gamma=0.7)) for target in (CLASSES, MASKS)),
    ],
)
def test_gradients_are_those_of_differences(loss, target):
    along = RNG.normal(size=LOGITS.shape)
    ends = [loss(LOGITS + step * along, target) for step in (1e-6, -1e-6)]
    loss(LOGITS, target)
    assert float((loss.backward() * along).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Focal(gamma=-1.0), "gamma must be a number >= 0"),
        (lambda: nn.Focal(alpha=-0.5), "alpha must be a number >= 0"),
        (lambda: nn.Focal(alpha=[1.0, 2.0])(LOGITS, CLASSES), "alpha|weight of classes"),
        (lambda: nn.Focal(alpha=2.0)(LOGITS, MASKS), "alpha must be a number from 0 to 1"),
        (lambda: nn.Focal(alpha=[1.0] * 4)(LOGITS, MASKS), "alpha must be a number from 0 to 1, the weight of yes"),
        (lambda: nn.Focal()(LOGITS, CLASSES + 1), "targets run from 1 to 4, classes from 0 to 3"),
        (lambda: nn.Dice()(LOGITS, CLASSES - 1), "targets run from -1 to 2, classes from 0 to 3"),
        (lambda: nn.Dice(smooth=-1.0), "smooth must be a number >= 0"),
        (lambda: nn.Dice(from_logits=1), "from_logits must be True or False"),
        (lambda: nn.Dice()(LOGITS[:, :1], CLASSES % 1), "has one channel: give a mask of its shape and dtype"),
        (lambda: nn.Dice()(LOGITS, MASKS[:, :1]), "target"),
        (lambda: nn.Dice()(LOGITS[0, 0, 0], MASKS[0, 0, 0]), r"prediction must have shape \(N, C, ...\)"),
        (lambda: nn.Dice()(LOGITS, CLASSES[:, 0]), "target of classes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("loss", [nn.Focal(), nn.Focal(alpha=[1.0, 2.0, 1.0, 1.0]), nn.Dice()])
def test_a_step_in_parts_is_the_step_on_the_whole(loss):
    """Batches whose gradients are added up, in exact numerics: the same bits; with samples that do not count."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 2, 4, 4)).astype(np.float32), rng.integers(0, 4, (8, 4, 4))
    y[3], y[5, :2] = -100, -100
    found = []
    for options in ({}, {"shards": 2}, {"accumulate": 2, "batch_size": 4}):
        model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), backend="numpy", numerics="exact", seed=1)
        data = {"batch_size": 8, "epochs": 2, "progress": False, **options}
        history = nn.fit(model, (x, y), loss=loss, optimizer=nn.SGD(model, lr=0.5), **data)
        found.append((history["train_loss"], model[0].parameters["weight"].value))
    assert found[0][0] == found[1][0] and (found[0][1] == found[1][1]).all()
    np.testing.assert_allclose(found[2][0], found[0][0], rtol=1e-5)
    np.testing.assert_allclose(found[2][1], found[0][1], rtol=1e-4, atol=1e-6)


def test_a_net_learns_a_mask_with_the_dice_loss():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(32, 1, 6, 6)).astype(np.float32)
    y = (x > 0.5).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1), seed=0)
    options = {"epochs": 40, "batch_size": 4, "progress": False}
    history = nn.fit(model, (x, y), loss=nn.Dice(), optimizer=nn.Adam(model, lr=0.05), **options)
    assert history["train_loss"][0] > 0.3 and history["train_loss"][-1] < 0.1


def test_results_have_the_dtype_and_backend_of_the_prediction(at):
    x, y = at.put(LOGITS.astype(np.float32)), at.put(CLASSES)
    for loss in (nn.Focal(), nn.Dice()):
        assert_match(loss(x, y), at.get(loss(x, y)), backend=at.backend, dtype="float32")
        assert_match(loss.backward(), at.get(loss.backward()), backend=at.backend, dtype="float32")
