"""`locate` names the first array that is not finite, in the order of computation."""

import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.snapshot import Snapshot
from xpnn.testing.compare import same_bits
from xpnn.training.nan_check import Finding, is_finite, locate

HUGE = 3e38


class Planted(nn.Identity):
    """The identity, except for a given value in its output or its gradient."""

    def __init__(self, output=None, gradient=None, **placement):
        super().__init__(**placement)
        self._planted = output, gradient

    def _put(self, array, value):
        if value is None:
            return array
        xp = self.backend.xp
        first = xp.reshape(xp.arange(array.shape[0], device=self.backend.device) == 0, (-1,) + (1,) * (array.ndim - 1))
        return xp.where(first, xp.full_like(array, value), array)

    def _forward(self, x):
        return self._put(x, self._planted[0])

    def _backward(self, dy, input_grad):
        return self._put(dy, self._planted[1])


def net(backend, middle=None, last=None):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Residual(nn.Sequential(nn.Conv2d(4, 4, 1), middle or nn.Tanh())),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Dense(100, 3),
        *([last] if last else []),
        backend=backend,
        seed=3,
    )


@pytest.fixture
def host(rng):
    return rng.standard_normal((4, 2, 5, 5)).astype(np.float32)


@pytest.fixture
def target(at):
    return at.put(np.arange(4) % 3)


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_data_is_found_with_its_sample(at, host, target, value):
    host[2, 1, 0, 3] = value
    found = locate(net(at.backend), nn.CrossEntropy(), at.put(host), target)
    kind = "NaN" if np.isnan(value) else "infinite"
    assert str(found).startswith(f"the input of sample 2 of 4 is {kind} in 1 of 200 values\n")
    assert 'on_nan="skip"' in found.advice


def test_many_bad_samples_are_counted():
    x = np.full((9, 2), np.nan, np.float32)
    found = locate(nn.Dense(2, 1), nn.MSE(), x, np.zeros((9, 1), np.float32))
    assert "the input of samples 0, 1, 2 and 6 more of 9 is NaN in 18 of 18 values" in str(found)


def test_a_bad_target_is_found(at):
    target = np.zeros((4, 1), np.float32)
    target[3] = np.inf
    found = locate(nn.Dense(2, 1, backend=at.backend), nn.MSE(), at.put(np.ones((4, 2), np.float32)), at.put(target))
    assert found.what == "the target of sample 3 of 4 is infinite in 1 of 4 values"


def test_a_bad_parameter_is_found_before_what_it_breaks(at, host, target):
    model = net(at.backend)
    parameter = dict(model.named_parameters())["2.body.0.weight"]
    broken = at.get(parameter.value).copy()
    broken[1, 0] = np.nan
    parameter.value = at.put(broken)
    found = locate(model, nn.CrossEntropy(), at.put(host), target)
    assert (found.layer, found.what) == ("2.body.0", "parameter 2.body.0.weight is NaN in 1 of 16 values")
    assert "checkpoint" in found.advice


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_output_that_is_not_finite_is_found(at, host, target, value):
    model = net(at.backend, Planted(value), Planted(np.nan))
    found = locate(model, nn.CrossEntropy(), at.put(host), target)
    kind = "NaN" if np.isnan(value) else "infinite"
    assert found.layer == "2.body.1"
    assert found.what == f"the output of layer 2.body.1, Planted() is {kind} in 25 of 400 values".replace("25", "100")
    assert "learning rate" in found.advice and "normalised" in found.advice


def test_a_sum_that_overflows_is_the_containers(at):
    x = at.put(np.full((2, 3), HUGE, np.float32))
    found = locate(nn.Residual(nn.Identity(), backend=at.backend), nn.MSE(), x, x)
    assert found.what == "the output of Residual(Identity()) is infinite in 6 of 6 values"


def test_a_loss_that_overflows_is_found(at):
    x = at.put(np.full((2, 3), HUGE, np.float32))
    found = locate(nn.Sequential(nn.Identity(), backend=at.backend), nn.MSE(), x, -x)
    assert re.match(r"the loss MSE\(\), of finite predictions, is infinite in 1 of 1 values", found.what)
    assert "what this loss accepts" in found.advice


def test_a_mean_over_nothing_is_named(at, host):
    nothing = at.put(np.full(4, -100))
    found = locate(net(at.backend), nn.CrossEntropy(), at.put(host), nothing)
    assert found.what.startswith("the loss CrossEntropy()") and "no target of this batch counts" in found.advice


def test_the_first_gradient_that_is_not_finite_is_found(at, host, target):
    model = net(at.backend, Planted(gradient=np.inf))
    found = locate(model, nn.CrossEntropy(), at.put(host), target)
    assert found.layer == "2.body.1"
    assert found.what == "the input's gradient of layer 2.body.1, Planted() is infinite in 100 of 400 values"
    assert "clip gradients" in found.advice


def test_a_gradient_of_a_parameter_that_overflows_is_found(at):
    model = nn.Sequential(nn.Dense(1, 1, bias=False), backend=at.backend)
    model[0].parameters["weight"].value = at.put(np.float32([[1e-30]]))
    x = at.put(np.full((2, 1), 1e30, np.float32))
    found = locate(model, nn.MSE(reduction="sum"), x, at.put(np.full((2, 1), -1e10, np.float32)))
    assert found.what.startswith("the gradient of weight in layer 0, Dense(1, 1, bias=False) is infinite")


def test_a_finite_batch_is_reported_as_one(at, host, target):
    found = locate(net(at.backend), nn.CrossEntropy(), at.put(host), target)
    assert found == Finding("", "a second pass of the same batch is finite throughout", found.advice)


def test_overflow_is_found_in_exact_numerics(exact, host):
    model = net(exact, Planted(np.nan))
    found = locate(model, nn.CrossEntropy(), exact.asarray(host), exact.asarray(np.arange(4) % 3))
    assert found.layer == "2.body.1"


@pytest.mark.parametrize("planted", [(None, None), (np.nan, None), (None, np.nan)])
def test_the_model_is_left_as_it_was(at, host, target, planted):
    model, loss, x = net(at.backend, Planted(*planted)), nn.CrossEntropy(), at.put(host)
    loss(model(x), target)
    model.backward(loss.backward())
    before = {name: at.get(array).copy() for name, array in model.state_dict().items()}
    gradients = [p.grad for _, p in model.named_parameters()]
    values = [at.get(gradient).copy() for gradient in gradients]
    position = model[3].stream.position
    locate(model, loss, x, target)
    assert all(same_bits(at.get(array), before[name]) for name, array in model.state_dict().items())
    assert all(p.grad is g for (_, p), g in zip(model.named_parameters(), gradients, strict=True))
    assert all(same_bits(at.get(g), v) for g, v in zip(gradients, values, strict=True))
    assert model[3].stream.position == position and model.training
    assert not any("forward" in vars(layer) for _, layer in model.named_layers())


def test_masks_are_those_of_the_step_once_its_snapshot_is_restored(at):
    class Picky(nn.Identity):
        """NaN for exactly one sum of its input."""

        wanted = None

        def _forward(self, x):
            total = float(self.backend.to_numpy(self.backend.xp.sum(x)))
            return x if total != Picky.wanted else x * float("nan")

    model = nn.Sequential(nn.Dropout(0.5), Picky(), nn.Dense(64, 1), backend=at.backend)
    x, y = at.put(np.arange(256, dtype=np.float32).reshape(4, 64)), at.put(np.zeros((4, 1), np.float32))
    before = Snapshot(model)
    Picky.wanted = float(at.get(at.xp.sum(model[0](x))))
    assert locate(model, nn.MSE(), x, y).what.startswith("a second pass")
    before.restore()
    assert locate(model, nn.MSE(), x, y).layer == "1"


def test_many_arrays_are_checked_together_on_the_device(at):
    fine, bad = at.put(np.ones(3, np.float32)), at.put(np.float32([1, np.nan]))
    count = at.put(np.arange(2))
    before = at.backend.transfers
    found = [is_finite(at.backend, arrays) for arrays in ([], [fine, None, count], [fine, bad])]
    assert at.backend.transfers == before
    assert [bool(at.get(each)) for each in found] == [True, True, False]


def test_the_error_says_step_epoch_layer_and_what_to_try(host):
    model = net("numpy", Planted(np.nan))
    error = nn.NonFiniteError(132, 3, locate(model, nn.CrossEntropy(), host, np.arange(4) % 3))
    assert isinstance(error, ArithmeticError)
    lines = str(error).splitlines()
    assert lines[0] == "step 132, epoch 3: the output of layer 2.body.1, Planted() is NaN in 100 of 400 values"
    assert lines[1].startswith("lower the learning rate") and len(lines) == 2
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert (error.step, error.epoch, error.finding.layer) == (132, 3, "2.body.1")


def test_a_long_call_is_cut_in_the_message():
    model = nn.Sequential(*(nn.Identity() for _ in range(20)), Planted(np.inf))
    x = np.ones((2, 2), np.float32)
    outer = nn.Residual(nn.Sequential(*(nn.ReLU() for _ in range(20))))
    found = locate(nn.Sequential(outer), nn.MSE(), np.full((1, 1), HUGE, np.float32), x[:1, :1])
    assert max(map(len, str(found).splitlines()[:1])) < 160 and "...)" in found.what
    assert locate(model, nn.MSE(), x, x).layer == "20"
