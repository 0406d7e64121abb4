"""All losses alike: values and gradients, reductions, upstream gradients, errors."""

import inspect
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers import losses
from xpnn.layers.losses import (
    L1,
    L2,
    MAE,
    MAPE,
    MSE,
    MSLE,
    NLL,
    BinaryCrossEntropy,
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    Huber,
    KLDivergence,
    SmoothL1,
)
from xpnn.testing import assert_match, gradcheck

RNG = np.random.default_rng(7)


def single(a):
    """Numbers that float32 holds too, in float64."""
    return np.asarray(a).astype(np.float32).astype(np.float64)


NUMBERS = single(RNG.standard_normal((2, 3, 4))), single(RNG.standard_normal((2, 3, 4)))
SIZES = tuple(single(np.abs(a) + 0.25) for a in NUMBERS)
PROBABILITIES = tuple(single(RNG.uniform(0.05, 0.95, (2, 3, 4))) for _ in range(2))
LOGITS = single(2 * RNG.standard_normal((2, 3, 4))), PROBABILITIES[1]
LOG_P = single(np.log(PROBABILITIES[0])), PROBABILITIES[1]
CLASSES = NUMBERS[0], RNG.integers(0, 3, (2, 4))
WEIGHT = [0.5, 2.0, 1.25]
ENTRY_WEIGHT = single(RNG.uniform(0.5, 2, (3, 1))).tolist()


def reduced(each, reduction):
    return {"mean": each.mean, "sum": each.sum, "none": lambda: each}[reduction]()


def torch_percentage(f, p, t, reduction):
    return reduced(100 * (p - t).abs() / t.abs().clamp(min=1e-7), reduction)


def torch_log_error(f, p, t, reduction):
    return reduced((p.log1p() - t.log1p()) ** 2, reduction)


def torch_binary_logits(f, p, t, reduction):
    weights = {"weight": p.new_tensor(ENTRY_WEIGHT), "pos_weight": p.new_tensor([0.5, 1.0, 2.0, 4.0])}
    return f.binary_cross_entropy_with_logits(p, t, reduction=reduction, **weights)


# the loss without its reduction, prediction and target, the same in PyTorch
TABLE = {
    "MSE": (MSE, {}, NUMBERS, lambda f, p, t, r: f.mse_loss(p, t, reduction=r)),
    "L1": (L1, {}, NUMBERS, lambda f, p, t, r: f.l1_loss(p, t, reduction=r)),
    "L2": (L2, {}, NUMBERS, lambda f, p, t, r: f.mse_loss(p, t, reduction=r)),
    "MAE": (MAE, {}, NUMBERS, lambda f, p, t, r: f.l1_loss(p, t, reduction=r)),
    "MSLE": (MSLE, {}, SIZES, torch_log_error),
    "MAPE": (MAPE, {}, NUMBERS, torch_percentage),
    "Huber": (Huber, {"delta": 0.5}, NUMBERS, lambda f, p, t, r: f.huber_loss(p, t, delta=0.5, reduction=r)),
    "SmoothL1": (SmoothL1, {"beta": 0.5}, NUMBERS, lambda f, p, t, r: f.smooth_l1_loss(p, t, beta=0.5, reduction=r)),
    "SmoothL1 sharp": (SmoothL1, {"beta": 0}, NUMBERS, lambda f, p, t, r: f.smooth_l1_loss(p, t, beta=0, reduction=r)),
    "CrossEntropy": (
        CrossEntropy,
        {"weight": WEIGHT, "label_smoothing": 0.1},
        CLASSES,
        lambda f, p, t, r: f.cross_entropy(p, t, p.new_tensor(WEIGHT), label_smoothing=0.1, reduction=r),
    ),
    "NLL": (
        NLL,
        {"weight": WEIGHT, "ignore_index": 1},
        CLASSES,
        lambda f, p, t, r: f.nll_loss(p, t, p.new_tensor(WEIGHT), ignore_index=1, reduction=r),
    ),
    "BinaryCrossEntropy": (
        BinaryCrossEntropy,
        {"weight": ENTRY_WEIGHT},
        PROBABILITIES,
        lambda f, p, t, r: f.binary_cross_entropy(p, t, p.new_tensor(ENTRY_WEIGHT), reduction=r),
    ),
    "BinaryCrossEntropyWithLogits": (
        BinaryCrossEntropyWithLogits,
        {"weight": ENTRY_WEIGHT, "pos_weight": [0.5, 1.0, 2.0, 4.0]},
        LOGITS,
        torch_binary_logits,
    ),
    "KLDivergence": (KLDivergence, {}, LOG_P, lambda f, p, t, r: f.kl_div(p, t, reduction=r)),
    "KLDivergence of logs": (
        KLDivergence,
        {"log_target": True},
        (LOG_P[0], single(np.log(LOG_P[1]))),
        lambda f, p, t, r: f.kl_div(p, t, reduction=r, log_target=True),
    ),
}
SUMS = (L1, L2)  # by definition, so they have no reduction
every_loss = pytest.mark.parametrize("case", TABLE)
every_loss_with_reduction = pytest.mark.parametrize("case", [case for case, row in TABLE.items() if row[0] not in SUMS])
every_reduction = pytest.mark.parametrize(
    ("case", "reduction"),
    [(case, r) for case, row in TABLE.items() for r in (["sum"] if row[0] in SUMS else ["mean", "sum", "none"])],
)


def made(case, reduction, **options):
    """The loss of a case with this reduction, which losses that are sums by definition do not have."""
    make, own, _, _ = TABLE[case]
    return make(**own | options) if make in SUMS else make(reduction, **own | options)


def problem(at, case, dtype="float32"):
    """Prediction and target on a backend, and a loss's class with its options."""
    make, options, (prediction, target), _ = TABLE[case]
    placed = at.put(target) if target.dtype.kind == "i" else at.put(target, dtype)
    return make, options, at.put(prediction, dtype), placed


class Against(nn.Layer):
    """A loss against a fixed target, as a layer."""

    def __init__(self, loss, target):
        super().__init__(dtype="float64")
        self.loss, self.target = loss, target

    def _forward(self, x):
        return self.loss(x, self.target)

    def _backward(self, dy, input_grad):
        return self.loss.backward(dy)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_reduction
def test_value_and_gradient_match_pytorch(at, torch, case, reduction, dtype):
    _, _, prediction, target = problem(at, case, dtype)
    _, _, (hp, ht), oracle = TABLE[case]
    tp = torch.tensor(hp, requires_grad=True)
    tl = oracle(torch.nn.functional, tp, torch.tensor(ht), reduction)
    dy = single(np.random.default_rng(4).standard_normal(tuple(tl.shape)))
    (dp,) = torch.autograd.grad(tl, tp, torch.tensor(dy))
    loss = made(case, reduction)
    expected = {"level": "reduction", "terms": hp.size, "backend": at.backend, "dtype": dtype}
    assert_match(loss(prediction, target), tl.detach(), **expected)
    assert_match(loss.backward(at.put(dy, dtype)), dp, **expected)


@every_reduction
def test_backward_is_the_derivative_of_forward(case, reduction):
    _, _, (prediction, target), _ = TABLE[case]
    gradcheck(Against(made(case, reduction), target), prediction)


@every_loss
def test_upstream_number_scales_the_gradient(at, case):
    _, _, prediction, target = problem(at, case)
    loss = made(case, "sum")
    loss(prediction, target)
    plain = at.get(loss.backward())
    for four in (4, 4.0, np.float64(4.0), at.put(np.float32(4.0))):
        assert_match(loss.backward(four), 4 * plain, level="exact", backend=at.backend, dtype="float32")


@pytest.mark.filterwarnings("ignore:invalid value encountered in log")
@every_loss
def test_function_and_its_gradient_have_the_keywords_of_the_class(case):
    make, _, arrays, _ = TABLE[case]
    names = [name for name, _ in make.signature]
    for function in (make.function, make.gradient):
        taken = inspect.signature(function).parameters
        assert {n for n, p in taken.items() if p.kind is p.KEYWORD_ONLY} == {*names, "xp"}
    defaults = dict(make.signature)
    assert defaults == {n: p.default for n, p in inspect.signature(make.function).parameters.items() if n in names}
    plain = make()
    assert_match(make.function(*arrays), plain(*arrays), level="exact")
    assert_match(make.gradient(1.0, *arrays), plain.backward(), level="exact")


@every_loss
def test_inputs_and_upstream_are_not_changed(at, case):
    _, _, (hp, ht), _ = TABLE[case]
    hosts = [hp.astype(np.float32), ht if ht.dtype.kind == "i" else ht.astype(np.float32)]
    prediction, target = (at.put(h.copy()) for h in hosts)
    loss = made(case, "none")
    hosts.append(np.array(at.get(loss(prediction, target))))
    dy = at.put(hosts[-1].copy())
    loss.backward(dy)
    for a, h in zip((prediction, target, dy), hosts, strict=True):
        assert_match(a, h, level="exact", backend=at.backend)


@every_loss
def test_arrays_that_are_not_contiguous_are_accepted(at, case):
    make, options, prediction, target = problem(at, case)
    turned = [at.xp.permute_dims(a, tuple(reversed(range(a.ndim)))) for a in (prediction, target)]
    copies = [at.put(np.ascontiguousarray(at.get(a))) for a in turned]
    back = [at.xp.permute_dims(a, tuple(reversed(range(a.ndim)))) for a in copies]
    loss = make(**options)
    value, gradient = loss(prediction, target), loss.backward()
    assert_match(loss(*back), at.get(value), level="reduction", terms=24, backend=at.backend)
    assert_match(loss.backward(), at.get(gradient), level="reduction", terms=24, backend=at.backend)


@every_loss
@pytest.mark.filterwarnings("error")
def test_empty_batch_has_the_mean_nan_and_the_sum_0(at, case):
    make, _, prediction, target = problem(at, case)
    prediction, target = prediction[:0, ...], target[:0, ...]
    for reduction, value in (("sum", 0.0),) if make in SUMS else (("mean", np.nan), ("sum", 0.0)):
        loss = made(case, reduction)
        assert_match(loss(prediction, target), value, backend=at.backend, dtype="float32")
        assert loss.backward().shape == (0, 3, 4)


@every_loss
def test_loss_of_nan_is_nan(at, case):
    make, _, prediction, target = problem(at, case)
    host = np.full(prediction.shape, np.nan, np.float32)
    loss = made(case, "none", **({"ignore_index": -100} if make is NLL else {}))
    assert np.isnan(at.get(loss(at.put(host), target))).all()


@every_loss
def test_repr_is_the_call_that_makes_the_loss(case):
    make, _, arrays, _ = TABLE[case]
    loss = made(case, "none")
    again = eval(repr(loss), vars(losses))
    assert repr(again) == repr(loss)
    assert_match(again(*arrays), loss(*arrays), level="exact")
    assert repr(make()) == f"{make.__name__}()"
    assert_match(pickle.loads(pickle.dumps(loss))(*arrays), loss(*arrays), level="exact")


def test_default_arguments_are_not_in_the_repr():
    assert repr(Huber("sum", delta=2)) == "Huber(reduction='sum', delta=2.0)"
    assert repr(MSE("sum")) == "MSE(reduction='sum')"
    assert repr(CrossEntropy(weight=(1, 2), ignore_index=0)) == "CrossEntropy(weight=[1.0, 2.0], ignore_index=0)"
    assert repr(NLL(weight=np.ones(1000))) == "NLL(weight=<1000 numbers>)"


@every_loss
def test_prediction_of_integers_is_an_error_that_names_the_loss(at, case):
    make, options, prediction, target = problem(at, case)
    loss = make(**options)
    message = f"{loss!r}: prediction must be a float32 or float64 array, got int64 array"
    with pytest.raises(TypeError, match=re.escape(message)):
        loss(at.put(np.ones(prediction.shape, np.int64)), target)


@every_loss
def test_shapes_are_not_broadcast(case):
    make, options, (prediction, target), _ = TABLE[case]
    loss = make(**options)
    for wrong in (target[:1], target[..., :1], target[0]):
        with pytest.raises(ValueError, match=r"target( of classes)? has shape .*, expected") as caught:
            loss(prediction, wrong)
        assert str(caught.value).startswith(f"{loss!r}: ")


@every_loss
def test_target_on_another_backend_is_an_error_that_names_both_and_the_move(case):
    make, options, (prediction, target), _ = TABLE[case]
    loss = make(**options)
    with pytest.raises(TypeError, match="the target is on numpy, this is on strict; move the array with") as caught:
        loss(nn.get_backend("strict").asarray(prediction), target)
    assert str(caught.value).startswith(f"{loss!r}: ")


@every_loss
def test_upstream_gradient_that_does_not_fit_is_an_error_of_class_and_function(at, case):
    make, options, prediction, target = problem(at, case)
    loss = make(**options)
    loss(prediction, target)
    scalar, row = at.put(np.asarray(1.0), "float64"), at.put(np.ones(3, np.float32))
    with pytest.raises(TypeError, match=re.escape(f"{loss!r}: mixed dtypes (prediction float32, upstream gradient")):
        loss.backward(scalar)
    with pytest.raises(ValueError, match=re.escape("upstream gradient has shape (3,), expected ()")):
        loss.backward(row)
    with pytest.raises(TypeError, match=r"the upstream gradient must be an array of .*, got list"):
        loss.backward([1.0])
    with pytest.raises(TypeError, match=re.escape("mixed dtypes (prediction float32, upstream gradient")):
        make.gradient(scalar, prediction, target)
    for options in ({},) if make in SUMS else ({"reduction": "mean"}, {"reduction": "none"}):
        with pytest.raises(ValueError, match=re.escape("upstream gradient has shape (3,), expected (")):
            make.gradient(row, prediction, target, **options)


@every_loss_with_reduction
def test_unknown_reduction_is_an_error_that_lists_the_accepted(case):
    make, _, arrays, _ = TABLE[case]
    for call in (make, lambda r: make.function(*arrays, reduction=r)):
        with pytest.raises(ValueError, match=r"reduction must be 'mean', .*'sum'.*, got 'average'"):
            call("average")


@every_loss
def test_backward_before_forward_is_an_error(case):
    loss = TABLE[case][0]()
    with pytest.raises(RuntimeError, match=re.escape(f"{loss!r}: backward needs a forward before it")):
        loss.backward()
