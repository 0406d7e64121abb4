"""The layer in the docstring of `Layer` does on every backend, and in exact numerics, what the docstring says."""

import doctest
import re

import numpy as np
import pytest

import xpnn as nn


@pytest.fixture(scope="module")
def scale():
    """The class in the docstring."""
    (found,) = [each for each in doctest.DocTestParser().get_examples(nn.Layer.__doc__) if "class " in each.source]
    names = {"nn": nn}
    exec(found.source, names)
    return names["Scale"]


def values(rng):
    return rng.standard_normal((5, 3)).astype(np.float32)


def test_it_computes_on_every_backend(at, rng, scale):
    layer, x = scale(3, backend=at.backend), values(rng)
    layer.parameters["weight"].value = at.put([2.0, 0.5, -1.0], "float32")
    weight = np.asarray([2.0, 0.5, -1.0], np.float32)
    assert np.array_equal(at.get(layer(at.put(x))), x * weight)
    assert np.array_equal(at.get(layer.buffers["largest"]), np.abs(x).max(axis=0))
    dx = layer.backward(at.put(x))
    assert np.array_equal(at.get(dx), x * weight)
    np.testing.assert_allclose(at.get(layer.parameters["weight"].grad), (x * x).sum(axis=0), rtol=1e-6)
    limited = layer.eval()(at.put(3.0 * x))
    largest = np.abs(x).max(axis=0)
    assert np.array_equal(at.get(limited), np.clip(3.0 * x, -largest, largest) * weight)
    assert layer.saved is None


def test_its_gradients_are_those_of_finite_differences(at, rng, scale):
    nn.testing.gradcheck(scale(3, backend=at.wide()), values(rng))


def test_in_exact_numerics_it_computes_in_float64_and_stores_float32(exact, rng, scale):
    layer, x = scale(3, backend=exact), values(rng)
    y = layer(exact.asarray(x))
    layer.backward(y)
    arrays = (y, layer.buffers["largest"], layer.parameters["weight"].grad)
    assert {exact.to_numpy(array).dtype.name for array in arrays} == {"float32"}
    assert {exact.to_numpy(array).dtype.name for array in layer.saved} == {"float64"}
    assert exact.to_numpy(layer.buffer_value("largest")).dtype == exact.to_numpy(layer.parameter_value("weight")).dtype
    wide = np.asarray(x, np.float64)
    assert np.array_equal(exact.to_numpy(arrays[2]), (wide * wide).sum(axis=0).astype(np.float32))


def test_its_errors_have_its_name_and_its_state_its_buffer(scale):
    layer = scale(3)
    for call in (layer.output_shape, lambda shape: layer(np.ones(shape, np.float32))):
        with pytest.raises(ValueError, match=re.escape("Scale(3): input must have shape (N, 3), got (2, 4)")):
            call((2, 4))
    assert layer.output_shape((2, 3)) == (2, 3)
    layer(np.asarray([[1.0, -2.0, 3.0]], np.float32))
    other = scale(3)
    other.load_state_dict(layer.state_dict())
    assert list(other.buffers["largest"]) == [1.0, 2.0, 3.0]


def test_a_parameter_that_does_not_exist_has_no_value_and_no_gradient(scale):
    layer = scale(3)
    assert layer.parameter_value("bias") is None
    layer.accumulate_grad("bias", np.ones(3, np.float32))
    assert list(layer.parameters) == ["weight"]
