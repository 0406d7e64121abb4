"""A run that ends in NaN reports it once, with place and cause; NumPy warns only of the user's own code."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import xpnn as nn
from xpnn.training.optimizers import OPTIMIZERS

X = np.random.default_rng(0).standard_normal((24, 1, 6, 6)).astype(np.float32)
Y = np.arange(24) % 3


def net(*more):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), *more, nn.Dense(16, 3), seed=0
    )


def warned(model, on_nan="stop", optimizer=None, **options):
    """The warnings of a run that ends in NaN."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        optimizer = optimizer or nn.SGD(model, lr=1e30)
        options = {"epochs": 3, "batch_size": 8, "progress": False, **options}
        if on_nan == "stop":
            with pytest.raises(nn.NonFiniteError):
                nn.fit(model, (X, Y), optimizer=optimizer, on_nan=on_nan, **options)
        else:
            nn.fit(model, (X, Y), optimizer=optimizer, on_nan=on_nan, **options)
    return [str(each.message) for each in found if issubclass(each.category, RuntimeWarning)]


@pytest.mark.parametrize("options", [{}, {"validation": (X, Y)}, {"shards": 2}, {"accumulate": 2}, {"clip_norm": 1e30}])
def test_a_run_that_stops_warns_of_nothing_else(options):
    assert warned(net(), **options) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_warns(name):
    model = net()
    assert warned(model, optimizer=OPTIMIZERS[name](model, lr=1e38), epochs=20) == []


@pytest.mark.usefixtures("array_functions")
def test_with_on_nan_none_numpy_warns():
    assert warned(net(), on_nan=None)


class Logarithm(nn.layers.Layer):
    """A user's own layer, with a mistake."""

    def _forward(self, x):
        self.save_for_backward()
        return x + 0.0 * np.log(np.zeros(1, np.float32))

    def _backward(self, dy, input_grad):
        return dy


def test_a_user_s_own_layer_warns():
    assert "divide by zero encountered in log" in warned(net(Logarithm()))


def test_a_user_s_own_loss_and_optimizer_warn():
    class Mine(nn.CrossEntropy):
        def _forward(self, *arguments, **options):
            np.log(np.zeros(1))
            return super()._forward(*arguments, **options)

    class Stepping(nn.SGD):
        def step(self):
            np.log(np.zeros(1))
            super().step()

    assert "divide by zero encountered in log" in warned(net(), loss=Mine())
    model = net()
    assert "divide by zero encountered in log" in warned(model, optimizer=Stepping(model, lr=1e30))


def test_a_net_that_only_arranges_the_library_s_layers_does_not_warn():
    class Mine(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Dense(36, 3), seed=0)

    model = Mine()
    assert warned(model, optimizer=nn.SGD(model, lr=1e38), epochs=20) == []


def test_a_user_s_own_functions_beside_the_step_warn():
    def transform(x, generator):
        np.log(np.zeros(1))
        return x

    loader = nn.DataLoader(X, Y, 8, transform=transform, prefetch=0)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        nn.fit(net(), loader, epochs=1, on_nan="stop", progress=False)


def test_the_command_shows_only_the_message(tmp_path):
    command = [sys.executable, "-m", "xpnn", "train", "--lr=1e30", "--optimizer=sgd", "--epochs=2", "--no-pictures"]
    ran = subprocess.run([*command, f"--out={tmp_path}/run", "--backend=numpy"], capture_output=True, text=True)
    assert ran.returncode == 1 and "xpnn train: step" in ran.stderr
    assert "RuntimeWarning" not in ran.stderr
