"""Arguments of another kind: named, with what is accepted and what to do, before anything is trained."""

import inspect
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.checkpoints import Checkpoints
from xpnn.training.early_stopping import EarlyStopping
from xpnn.training.options import FitOptions
from xpnn.training.run import Run

X = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
Y = np.arange(20) % 3


def net():
    return nn.Sequential(nn.Dense(4, 3), seed=0)


FIT = {
    "model is a class": ({"model": nn.Dense}, TypeError, "model must be a Layer, got the class Dense"),
    "model is a function": ({"model": net}, TypeError, "model must be a Layer, got"),
    "model is None": ({"model": None}, TypeError, "model must be a Layer, got None"),
    "data is one array": ({"data": X}, ValueError, "data must be a pair (x, y) or a DataLoader, got an array"),
    "data is a generator": (
        {"data": ((x, y) for x, y in [(X, Y)])}, ValueError, "make a loader of arrays: nn.DataLoader(x, y)",
    ),
    "data is three arrays": ({"data": (X, Y, Y)}, ValueError, "got 3 arrays"),
    "data is text": ({"data": "digits"}, ValueError, "got 'digits'"),
    "x is a generator": ({"data": ((x for x in X), Y)}, TypeError, "make an array of it: np.stack(list(x))"),
    "y is names": ({"data": (X, np.array(["cat"] * 20))}, TypeError, "number classes from 0"),
    "optimizer is text": ({"optimizer": "adam"}, TypeError, "optimizer must be an Optimizer, got 'adam'; give one"),
    "optimizer is a class": ({"optimizer": nn.Adam}, TypeError, "optimizer must be an Optimizer, got the class Adam"),
    "loss is text": ({"loss": "mse"}, TypeError, "loss must be a Loss, got 'mse'"),
    "loss is a class": ({"loss": nn.MSE}, TypeError, "make an object of it: MSE()"),
    "loss is a function": ({"loss": nn.functional.cross_entropy}, TypeError, "loss must be a Loss, got <function"),
    "loss without reduction": ({"loss": nn.CrossEntropy("none")}, ValueError, "reduction='mean'"),
    "L1": ({"loss": nn.L1()}, ValueError, "reduction='mean', got L1(), a sum; use its mean, nn.MAE()"),
    "L2": ({"loss": nn.L2()}, ValueError, "reduction='mean', got L2(), a sum; use its mean, nn.MSE()"),
    "validation is one array": ({"validation": X}, ValueError, "validation must be a pair (x, y) or a Data"),
    "validation is a share": ({"validation": 0.2}, ValueError, "pair (x, y) or a DataLoader, got 0.2"),
    "schedule is text": ({"schedule": "cosine"}, TypeError, "schedule must be a Schedule, got 'cosine'; make one"),
    "schedule is a class": ({"schedule": nn.CosineLR}, TypeError, "must be a Schedule, got the class CosineLR"),
    "checkpoints is True": ({"checkpoints": True}, TypeError, "a folder's path or Checkpoints, got True"),
    "checkpoints is a number": ({"checkpoints": 3}, TypeError, "a folder's path or Checkpoints, got 3"),
    "after_epoch is text": ({"after_epoch": "print"}, TypeError, "must be a function of the history, got 'print'"),
    "early_stopping is text": ({"early_stopping": "loss"}, TypeError, "must be an EarlyStopping, got 'loss'"),
    "early_stopping is True": ({"early_stopping": True}, TypeError, "must be an EarlyStopping, got True"),
    "early_stopping is a float": ({"early_stopping": 2.5}, TypeError, "must be an EarlyStopping, got 2.5"),
    "epochs is a float": ({"epochs": 1.5}, ValueError, "epochs must be an integer >= 1, got 1.5"),
    "epochs is text": ({"epochs": "3"}, ValueError, "epochs must be an integer >= 1, got '3'"),
    "batch_size is None": ({"batch_size": None}, ValueError, "batch_size must be an integer >= 1, got None"),
    "seed is text": ({"seed": "a"}, ValueError, "seed must be an integer from 0 to 2**64 - 1, got 'a'"),
    "progress is text": ({"progress": "bar"}, ValueError, "progress must be True or False, got 'bar'"),
    "resume is text": ({"resume": "newest"}, ValueError, "resume must be True or False, got 'newest'"),
    "clip_norm is text": ({"clip_norm": "1"}, ValueError, "clip_norm must be a number > 0, got '1'"),
    "clip_value is NaN": ({"clip_value": float("nan")}, ValueError, "clip_value must be a number > 0, got nan"),
    "on_nan is True": ({"on_nan": True}, ValueError, "on_nan must be 'stop', 'skip' or None, got True"),
    "accumulate is text": ({"accumulate": "2"}, ValueError, "accumulate must be an integer from 1 to 1000000, got '2'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_fit_names_what_is_of_another_kind(name):
    given, kind, message = FIT[name]
    with pytest.raises(kind, match=re.escape(message)):
        nn.fit(**{"model": net(), "data": (X, Y), "progress": False, **given})


@pytest.mark.parametrize("name", ["batch_size", "epochs", "early_stopping", "accumulate", "clip_norm"])
def test_numpy_s_numbers_are_numbers(name):
    nn.fit(
        net(),
        (X, Y),
        **{"epochs": np.int64(1), "progress": False, name: np.float32(1) if "clip" in name else np.int64(1)},
    )


RUN = {
    "model": (net, TypeError, "model must be a Layer"),
    "data": ((X, Y, Y), ValueError, "data must be a pair (x, y) or a DataLoader, got 3 arrays"),
    "loss": (nn.CrossEntropy, TypeError, "loss must be a Loss, got the class CrossEntropy"),
    "optimizer": ("adam", TypeError, "optimizer must be an Optimizer"),
    "epochs": (0, ValueError, "epochs must be an integer >= 1, got 0"),
    "validation": ((X, Y, Y), ValueError, "validation must be a pair (x, y) or a DataLoader"),
    "early_stopping": (3.5, TypeError, "must be an EarlyStopping, got 3.5"),
    "checkpoints": (3, TypeError, "checkpoints must be a folder's path or Checkpoints, got 3"),
}


@pytest.mark.parametrize("name", RUN)
def test_a_run_names_what_is_of_another_kind(name):
    value, kind, message = RUN[name]
    model = net()
    good = {
        "model": model, "data": nn.DataLoader(X, Y, 5), "loss": nn.CrossEntropy(), "optimizer": nn.SGD(model, lr=0.1),
        "epochs": 1,
    }  # fmt: skip
    Run(FitOptions(**good))
    with pytest.raises(kind, match=re.escape(message)):
        Run(FitOptions(**{**good, name: value}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.fit(net(), (X, Y), epoch=3), r"fit\(\) got an unexpected keyword argument 'epoch'"),
        (lambda: nn.fit(net()), r"fit\(\) missing a required argument: 'data'"),
        (lambda: nn.fit(net(), (X, Y), 3), r"fit\(\) too many positional arguments"),
    ],
)
def test_fit_names_itself_where_arguments_are_missing_or_unknown(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_fit_shows_its_parameters():
    parameters = inspect.signature(nn.fit).parameters
    assert list(parameters)[:2] == ["model", "data"] and parameters["epochs"].default == 10
    documented = re.findall(r"^    ([a-z_, ]+) : ", inspect.getdoc(nn.fit).replace("\n", "\n    "), re.M)
    assert ", ".join(documented).split(", ") == list(parameters)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Checkpoints(3), TypeError, "folder must be a path, got 3"),
        (lambda: Checkpoints(None), TypeError, "folder must be a path, got None"),
        (lambda: Checkpoints("a", about="data"), TypeError, "about must be a mapping, got 'data'; name each fact"),
        (lambda: Checkpoints("a").read("newest"), ValueError, "step must be an integer >= 0, got 'newest'"),
        (lambda: nn.History().best(), KeyError, "no column 'validation_loss'; no epoch is finished yet"),
        (lambda: nn.History.from_rows([{"a": 1.0}]).best("b"), KeyError, "no column 'b'; the columns are a"),
        (lambda: nn.History.from_rows([{"a": 1.0}]).best("a", 3), ValueError, "must be 'min', 'max' or None, got 3"),
        (lambda: nn.clip_grad_norm(net(), "1"), ValueError, "max_norm must be a number >= 0, got '1'"),
        (lambda: nn.clip_grad_norm(net(), 1.0, "2"), ValueError, "norm_type must be a number >= 1, got '2'"),
        (lambda: nn.clip_grad_norm("net", 1.0), ValueError, "clip_grad_norm: parameters must be a layer"),
        (lambda: nn.clip_grad_norm(3, 1.0), ValueError, "iterable of them, got 3"),
        (lambda: nn.clip_grad_norm(nn.Dense, 1.0), ValueError, "iterable of them, got the class Dense"),
        (lambda: nn.clip_grad_value(net(), None), ValueError, "limit must be a number >= 0, got None"),
        (lambda: nn.clip_grad_value([X], 1.0), ValueError, "clip_grad_value: parameters must be a layer"),
        (lambda: nn.SGD(3, lr=0.1), ValueError, "SGD: parameters must be a layer"),
        (lambda: nn.CosineLR("adam", 10), TypeError, "optimizer must be an Optimizer, got 'adam'"),
        (lambda: nn.SGD(np.array(1.0), lr=0.1), ValueError, "SGD: parameters must be a layer"),
        (lambda: nn.StepLR(nn.Adam(net()), 1).load_state_dict(None), TypeError, "state must be a mapping, got None"),
        (lambda: nn.DataLoader(X, Y).load_state_dict(3), TypeError, "state must be a mapping, got 3"),
        (lambda: net().load_state_dict("net.safetensors"), TypeError, "state must be a mapping, got 'net.saf"),
        (lambda: nn.save("net", net()), TypeError, "model must be a Layer, got 'net'; the model comes before the path"),
        (lambda: nn.load("net", net()), TypeError, "model must be a Layer, got 'net'; the model comes before the path"),
        (lambda: nn.save(net(), None), TypeError, "path must be a path, got None"),
        (lambda: nn.load(net(), 3), TypeError, "path must be a path, got 3"),
        (lambda: nn.save(net(), "net", X), TypeError, "about must be a mapping, got an array of float32"),
        (lambda: nn.Dense(3, 2, weight_init="he"), TypeError, "Dense: weight_init must be an initialiser, such as"),
        (lambda: nn.Dense(3, 2, weight_init=X), TypeError, "to set known values use parameters['weight'].value"),
        (lambda: nn.Conv2d(1, 2, 3, bias_init=nn.initialisers.constant), TypeError, "bias_init must be an initialiser"),
        (lambda: nn.ConvTranspose2d(1, 2, 3, weight_init=0.1), TypeError, "weight_init must be an initialiser"),
        (lambda: EarlyStopping("3"), ValueError, "patience must be an integer >= 1, got '3'"),
    ],
)  # fmt: skip
def test_others_name_it_too(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


@pytest.mark.parametrize("y", [Y > 0, Y.astype(np.float32), Y.astype(np.float64)], ids=["bool", "float32", "float64"])
@pytest.mark.parametrize("kind", [nn.CrossEntropy, nn.NLL])
def test_the_error_for_classes_that_are_no_integers_says_how_to_convert_them(at, kind, y):
    if y.dtype == np.float64 and at.backend.spec == "strict:no_float64":
        y = y.astype(np.float32)
    with pytest.raises(TypeError, match=r"classes, an array of integers.* convert it with target.astype\('int64'\)"):
        kind()(at.put(X[:, :3]), at.put(y))


def test_the_error_for_binary_targets_names_their_loss():
    with pytest.raises(TypeError, match="BinaryCrossEntropyWithLogits with floats"):
        nn.CrossEntropy()(X, X > 0)
