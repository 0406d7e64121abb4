"""Elementwise functions that layers share, and joining any number of arrays."""

import numpy as np
import pytest

from xpnn.backends.execution.blocks import concat_all
from xpnn.layers.core.elementwise import clamp, sign

HARD = [-np.inf, -2.0, -0.5, -0.0, 0.0, 0.5, 2.0, np.inf, np.nan]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clamp_keeps_nan_and_the_sign_of_zero(at, dtype):
    y = at.get(clamp(at.put(HARD, dtype), -0.5, 1.0, at.xp))
    assert y.dtype == dtype
    assert y.tobytes() == np.clip(np.array(HARD, dtype), -0.5, 1.0).tobytes()


def test_clamp_accepts_integers(at):
    assert at.get(clamp(at.put([-3, 0, 7], "int32"), -1, 5, at.xp)).tolist() == [-1, 0, 5]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sign_is_zero_of_zeros_and_nan_of_nan(at, dtype):
    y = at.get(sign(at.put(HARD, dtype), at.xp))
    assert y.dtype == dtype
    assert np.array_equal(y, [-1, -1, -1, 0, 0, 1, 1, 1, np.nan], equal_nan=True)
    assert not np.signbit(y[3]) and not np.signbit(y[4])


@pytest.mark.parametrize("count", [1, 2, 8, 9, 17, 70])
def test_any_number_of_arrays_are_joined_in_their_order(at, count):
    hosts = [np.arange(2 * (1 + i % 3), dtype="float32").reshape(2, -1) + 10 * i for i in range(count)]
    y = concat_all([at.put(host) for host in hosts], -1, at.xp)
    assert np.array_equal(at.get(y), np.concat(hosts, axis=-1))
