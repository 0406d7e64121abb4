"""Shapes, parameters, multiply-adds and memory from shapes only, compared with forwards."""

import tracemalloc
from math import prod
from typing import ClassVar

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.output_shape import knows_shapes
from xpnn.layers.core.summary import in_units
from xpnn.testing.cases import LayerCase, cases

CASES = [case for case in cases() if isinstance(case, LayerCase)]
HOST = nn.get_backend("numpy")


def subject(case):
    return case.name


def real_shape(layer, shape):
    """By a forward of ones in evaluation, of zeros where the layer needs integers."""
    is_index = isinstance(layer, nn.Embedding)
    y = layer.eval()(np.zeros(shape, np.int64) if is_index else np.ones(shape, layer.backend.dtype_name))
    return (y[0] if isinstance(y, tuple) else y).shape


@pytest.mark.parametrize("case", CASES, ids=subject)
def test_the_shape_is_that_of_a_forward(case):
    layer = case.build(backend=nn.get_backend(HOST, case.dtype))
    assert all(knows_shapes(part) for _, part in layer.named_layers())
    assert layer.output_shape(case.shape) == real_shape(layer, case.shape)
    # One sample, and all others are like it.
    one = layer.output_shape((1, *case.shape[1:]))
    assert layer.output_shape((7, *case.shape[1:])) == (7, *one[1:])


def odd_shapes(shape):
    """Shapes similar to one, of which many do not fit."""
    yield ()
    yield shape[:1]
    yield shape[:-1]
    yield (*shape, 3)
    for axis, n in enumerate(shape):
        for other in (0, 1, n + 1):
            yield (*shape[:axis], other, *shape[axis + 1 :])


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


ONE_EACH = list({case.subject: case for case in reversed(CASES) if prod(case.shape) < 5000}.values())


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.subject)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_errors_are_those_of_a_forward(case):
    layer = case.build(backend=nn.get_backend(HOST, case.dtype))
    for shape in odd_shapes(case.shape):
        assert outcome(layer.output_shape, shape) == outcome(real_shape, layer, shape), shape


def test_every_layer_is_in_the_catalogue():
    layers = {name for name in nn.layers.__all__ if isinstance(getattr(nn.layers, name), type)}
    layers = {name for name in layers if issubclass(getattr(nn.layers, name), nn.Layer)} - {"Layer", "Container"}
    assert layers - {case.subject for case in CASES} == {"Checkpointed", "PerInput"}


def test_checkpointed_has_the_shape_of_its_layer():
    layer = nn.Checkpointed(nn.Sequential(nn.Dense(4, 3), nn.ReLU()))
    assert layer.output_shape((2, 5, 4)) == (2, 5, 3)
    assert [row.name for row in layer.summary((2, 4)).rows] == ["0", "1"]


@pytest.mark.parametrize("name", sorted({*nn.models.BUILDERS, "unet"}))
def test_summary_of_a_net_agrees_with_its_forward(name):
    net = getattr(nn.models, name)((3, 32, 32), 5, backend=HOST)
    x = np.ones((2, 3, 32, 32), np.float32)
    seen = {path: (layer, y.shape) for path, layer, y in nn.layer_outputs(net, x)}
    summary = net.summary(x.shape)
    for row in summary.rows:
        layer, shape = seen[row.name]
        assert (row.layer, row.output_shape, row.output_bytes) == (repr(layer), shape, 4 * prod(shape))
    assert summary.parameters == sum(prod(p.shape) for _, p in net.named_parameters())
    assert summary.parameter_bytes == 4 * summary.parameters


@pytest.mark.parametrize("name", sorted({*nn.models.BUILDERS, "unet"}))
def test_summary_of_a_huge_batch_computes_nothing(name, monkeypatch):
    image = (3, 2048, 2048)
    net = getattr(nn.models, name)(image, 1000)

    def refuse(self, x):
        raise AssertionError("a forward")

    for kind in {type(layer) for _, layer in net.named_layers()}:
        monkeypatch.setattr(kind, "forward", refuse)
    # What is patched is no code of the layers' own.
    monkeypatch.setattr("xpnn.layers.core.layer.knows_shapes", lambda layer: True)
    tracemalloc.start()
    try:
        summary = net.summary((1024, *image))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    assert summary.output_bytes > 1024 * 1000 * 4
    assert summary.rows[-1].output_shape[:2] == (1024, 1000)


def test_the_table_has_the_memory_of_parameters_and_outputs():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dense(8 * 64, 10), dtype="float64")
    summary = model.summary((2, 3, 8, 8))
    assert summary.dtype == "float64"
    assert [row.output_bytes for row in summary.rows] == [8 * 2 * 512] * 3 + [8 * 20]
    assert summary.parameter_bytes == 8 * (3 * 9 * 8 + 8 + 5120 + 10)
    text = str(summary)
    assert "memory in float64: parameters 42.8 kB, outputs of all layers for this batch 24.7 kB" in text
    assert "output memory" in text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (48_300_000_000, "48.3 GB")])
def test_memory_in_units(size, text):
    assert in_units(size) == text


class Crop(nn.Layer):
    """A custom layer without ``_output_shape``."""

    calls: ClassVar[list] = []

    def _forward(self, x):
        Crop.calls.append(x.shape)
        return x[..., 1:-1]


class PairsOfSamples(nn.Layer):
    """Computes one sample from two."""

    def _forward(self, x):
        if x.shape[0] % 2:
            raise ValueError("samples come in pairs")
        return self.backend.xp.reshape(x, (x.shape[0] // 2, 2 * x.shape[1]))


class Wider(nn.Conv2d):
    """A layer of the library with another forward."""

    def _forward(self, x):
        y = super()._forward(x)
        return self.backend.xp.concat((y, y), axis=1)


class Twice(nn.Container):
    """A custom container."""

    def __init__(self, layer, **placement):
        super().__init__({"layer": layer}, **placement)

    def forward(self, x):
        y = self.children["layer"].forward(x)
        return y + self.children["layer"].forward(x)


def test_a_layer_without_output_shape_runs_with_one_sample():
    Crop.calls.clear()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Crop(), nn.ReLU())
    summary = model.summary((1024, 3, 50, 50))
    assert [row.output_shape for row in summary.rows] == [(1024, 4, 48, 48)] + [(1024, 4, 48, 46)] * 2
    assert Crop.calls == [(1, 4, 48, 48)]
    assert summary.rows[1].multiply_adds == 0
    with pytest.raises(ValueError, match=r"^Dense\(5, 2\): input must have shape"):
        nn.Sequential(Crop(), nn.Dense(5, 2)).summary((2, 4))


def test_a_layer_that_mixes_samples_runs_with_all():
    assert PairsOfSamples().output_shape((6, 5)) == (3, 10)
    with pytest.raises(ValueError, match=r"^PairsOfSamples\(\): samples come in pairs$"):
        PairsOfSamples().output_shape((5, 5))


def test_a_subclass_with_another_forward_is_run():
    layer = Wider(3, 4, 3)
    assert not knows_shapes(layer)
    assert layer.output_shape((8, 3, 6, 6)) == (8, 8, 4, 4)
    assert layer.parameters["weight"]._value is None


def test_layers_within_a_custom_container_compute_nothing(monkeypatch):
    net = Twice(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    monkeypatch.setattr(nn.Conv2d, "_forward", lambda self, x: pytest.fail("a forward"))
    monkeypatch.setattr("xpnn.layers.core.layer.knows_shapes", lambda layer: not isinstance(layer, Twice))
    summary = net.summary((512, 3, 10, 10))
    names = ["layer.0", "layer.1"] * 2
    assert [row.name for row in summary.rows] == names
    assert {row.output_shape for row in summary.rows} == {(512, 4, 8, 8)}
    assert summary.rows[0].multiply_adds == 512 * 4 * 64 * 27
    assert summary.parameters == 3 * 4 * 9 + 4 + 8
    assert all(layer.training and "forward" not in vars(layer) for _, layer in net.named_layers())


@pytest.mark.parametrize("shape", ["12", 5, (1, -2), (1, 2.5), None], ids=repr)
def test_output_shape_accepts_only_shapes(shape):
    with pytest.raises(ValueError, match="input_shape must be a sequence of integers >= 0"):
        nn.ReLU().output_shape(shape)
