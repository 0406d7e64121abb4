"""Large arrays are shared among workers; results do not depend on the number of workers."""

import numpy as np
import pytest

import xpnn as nn

LAYERS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(48),
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "MaxPool2d(2)": lambda: nn.MaxPool2d(2),
    "MaxPool2d(3)": lambda: nn.MaxPool2d(3, 2, 1),
    "AvgPool2d(2)": lambda: nn.AvgPool2d(2),
    "AvgPool2d(3)": lambda: nn.AvgPool2d(3, 2, 1),
}


def run(layer, x):
    """Output and gradients, as bytes."""
    y = layer(x)
    dx = layer.backward(np.ascontiguousarray(y.transpose(0, 2, 3, 1)[::-1]).transpose(0, 3, 1, 2))
    state = [parameter.grad for parameter in layer.parameters.values()] + list(layer.buffers.values())
    return [array.tobytes() for array in (y, dx, *state)]


@pytest.mark.parametrize("name", LAYERS)
def test_result_does_not_depend_on_the_number_of_threads(name, monkeypatch, rng):
    x = rng.standard_normal((5, 43, 45, 48)).astype(np.float32).transpose(0, 3, 1, 2)
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        results.append(run(LAYERS[name](), x))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", LAYERS)
def test_memory_order_changes_nothing_but_rounding(name, rng):
    """Arrays with channels first in memory are computed by other code."""
    x = rng.standard_normal((3, 48, 43, 45)).astype(np.float32)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    first, second = (LAYERS[name]() for _ in range(2))
    y, z = first(x), second(last)
    nn.testing.assert_match(y, z, level="network", terms=64)
    dy = np.ascontiguousarray(y[::-1])
    nn.testing.assert_match(first.backward(dy), second.backward(dy), level="network", terms=64)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_statistics_of_a_large_batch_are_those_in_float64(offset, rng):
    """Half of each channel is constant, the other half is not, so that no sample of the rows is like the others."""
    host = rng.standard_normal((16, 32, 32, 48)).astype(np.float32) + np.float32(offset)
    host[:8] = offset - 3.0
    x = host.transpose(0, 3, 1, 2)
    layer = nn.BatchNorm2d(48, momentum=1.0, affine=False)
    y = layer(x)
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    desired = (wide - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    assert np.abs(y - desired).max() < 4e-6
    assert np.abs(layer.buffers["running_var"] / (var * x.size / (x.size - 48)) - 1).max() < 2e-6
