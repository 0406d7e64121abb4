"""Initial weights: their distribution, and the same bits everywhere."""

import re
from math import prod, sqrt

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import Generator
from xpnn.layers.initialisers import fans
from xpnn.testing import assert_match

init = nn.initialisers
NUMPY = nn.get_backend("numpy")
# name -> (variance by fan_in and fan_out)
SCALED = {
    "he": lambda fan_in, fan_out: 2 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
}
WEIGHT = (64, 24, 3, 5)
FAN_IN, FAN_OUT = 24 * 15, 64 * 15


def drawn(initialiser, shape=WEIGHT, seed=5, backend=NUMPY):
    return initialiser(shape, Generator(seed), backend)


def assert_moments(values, variance, kurtosis):
    """Mean and variance within five of their standard errors."""
    count = values.size
    values = values.astype(np.float64)
    assert abs(values.mean()) < 5 * sqrt(variance / count)
    assert abs(values.var() / variance - 1) < 5 * sqrt((kurtosis - 1) / count)


@pytest.mark.parametrize("name", SCALED)
def test_uniform_weights_have_the_variance_and_bounds_of_their_formula(name):
    values = drawn(getattr(init, f"{name}_uniform")())
    variance = SCALED[name](FAN_IN, FAN_OUT)
    assert_moments(values, variance, kurtosis=1.8)
    bound = np.float32(sqrt(3 * variance))
    assert np.abs(values).max() <= bound
    assert values.min() < -0.99 * bound
    assert values.max() > 0.99 * bound


@pytest.mark.parametrize("name", SCALED)
def test_normal_weights_have_the_variance_and_tails_of_their_formula(name):
    values = drawn(getattr(init, f"{name}_normal")())
    variance = SCALED[name](FAN_IN, FAN_OUT)
    assert_moments(values, variance, kurtosis=3)
    beyond = np.mean(np.abs(values) > 2 * sqrt(variance))
    assert abs(beyond - 0.0455) < 5 * sqrt(0.0455 / values.size)


def test_plain_uniform_and_normal_have_the_given_scale():
    assert_moments(drawn(init.uniform(0.5)), 0.25 / 3, kurtosis=1.8)
    assert_moments(drawn(init.normal(0.5)), 0.25, kurtosis=3)
    assert_moments(drawn(init.normal(0.5, mean=2.0)) - 2, 0.25, kurtosis=3)


def test_constant_is_constant(at):
    values = drawn(init.constant(2.5), (2, 3), backend=at.backend)
    assert_match(values, np.full((2, 3), 2.5, np.float32), level="exact", backend=at.backend)


ALL = {
    "he_uniform": init.he_uniform(),
    "he_normal": init.he_normal(),
    "glorot_uniform": init.glorot_uniform(),
    "glorot_normal": init.glorot_normal(),
    "lecun_uniform": init.lecun_uniform(),
    "lecun_normal": init.lecun_normal(),
    "orthogonal": init.orthogonal(),
    "uniform": init.uniform(0.3),
    "normal": init.normal(0.3),
}
each = pytest.mark.parametrize("initialiser", ALL.values(), ids=ALL)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each
def test_same_seed_gives_the_same_bits_on_every_backend(at, initialiser, dtype):
    there = nn.get_backend(at.backend, dtype)
    desired = drawn(initialiser, (6, 4, 3), backend=nn.get_backend("numpy", dtype))
    actual = drawn(initialiser, (6, 4, 3), backend=there)
    assert_match(actual, desired, level="exact", backend=there, dtype=dtype)


@each
def test_another_seed_gives_other_weights(initialiser):
    assert not np.array_equal(drawn(initialiser, (6, 4), seed=1), drawn(initialiser, (6, 4), seed=2))


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (5, 2, 3, 3), (40, 2, 3), (1, 5), (5, 1)], ids=str)
def test_orthogonal_weights_are_orthonormal_along_the_shorter_side(shape):
    matrix = drawn(init.orthogonal(), shape, backend=nn.get_backend("numpy", "float64"))
    matrix = matrix.reshape(shape[0], prod(shape[1:]))
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert_match(product, np.eye(min(matrix.shape)), level="reduction", terms=max(matrix.shape))


def test_orthogonal_weights_are_scaled_by_their_gain():
    assert_match(drawn(init.orthogonal(3.0), (4, 6)), 3 * drawn(init.orthogonal(), (4, 6)))


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 3), (3, 4)), ((8, 3, 5), (15, 40)), ((8, 2, 3, 5), (30, 120)), ((1, 1), (1, 1))]
)
def test_fans_count_inputs_and_outputs_times_the_kernel(shape, expected):
    assert fans(shape) == expected


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("name", [n for n in ALL if n not in ("uniform", "normal")])
def test_fans_of_less_than_a_matrix_are_an_error(shape, name):
    with pytest.raises(
        ValueError, match=re.escape(f"weight must have shape (out, in, *kernel) for its fans, got {shape}")
    ):
        drawn(ALL[name], shape)


def test_layers_start_with_he_uniform_weights_and_no_bias():
    layer = nn.Conv2d(16, 32, 3, groups=2)
    weight = layer.parameters["weight"].value
    assert_moments(weight, 2 / (8 * 9), kurtosis=1.8)
    assert not np.any(layer.parameters["bias"].value)


def test_layers_accept_other_initialisers():
    options = {"weight_init": init.constant(2.0), "bias_init": init.constant(3.0)}
    for layer in (nn.Dense(2, 3, **options), nn.Conv1d(2, 3, 3, **options)):
        assert np.all(layer.parameters["weight"].value == 2)
        assert np.all(layer.parameters["bias"].value == 3)
