"""Depthwise convolution by its own algorithm, against loops, and whoever computes it."""

import os
import subprocess
import sys

import numpy as np
import oracles
import pytest

import xpnn as nn
from xpnn.layers import convolution
from xpnn.testing import assert_match

F = nn.functional
NO = (0, 0)
#: x, weight, padding, stride, dilation
CASES = {
    "3x3": ((2, 5, 6, 7), (5, 1, 3, 3), ((1, 1), (1, 1)), (1, 1), (1, 1)),
    "strided": ((2, 4, 9, 8), (4, 1, 3, 3), ((1, 1), (1, 1)), (2, 2), (1, 1)),
    "strided beyond the kernel": ((2, 3, 8, 9), (3, 1, 2, 2), (NO, (1, 0)), (3, 4), (1, 1)),
    "dilated and strided": ((1, 3, 9, 11), (3, 1, 3, 3), ((2, 1), (0, 3)), (2, 3), (2, 2)),
    "no padding": ((2, 3, 6, 5), (3, 1, 3, 2), (NO, NO), (1, 1), (1, 1)),
    "two kernels a channel": ((2, 3, 6, 5), (6, 1, 3, 2), ((1, 0), (1, 1)), (1, 2), (1, 1)),
    "1d": ((3, 4, 9), (8, 1, 3), ((1, 1),), (2,), (1,)),
    "3d": ((2, 2, 4, 5, 6), (2, 1, 2, 3, 2), (NO, (1, 1), (1, 0)), (1, 2, 2), (1, 1, 2)),
    "padding wider than the kernel": ((1, 2, 3, 4), (2, 1, 2, 2), ((3, 4), (2, 3)), (1, 1), (1, 1)),
    "empty batch": ((0, 3, 5, 4), (3, 1, 3, 2), (NO, NO), (1, 1), (1, 1)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def problem(case, rng):
    x_shape, w_shape, padding, stride, dilation = case
    explicit = (stride, padding, dilation, x_shape[1])
    x, weight, bias = rng.standard_normal(x_shape), rng.standard_normal(w_shape), rng.standard_normal(w_shape[0])
    y = oracles.conv_forward(x, weight, bias, *explicit)
    dy = rng.standard_normal(y.shape)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": x_shape[1]}
    return (x, weight, bias, dy), (y, *oracles.conv_backward(dy, x, weight, *explicit)), options


def compute(x, weight, bias, dy, options):
    return [F.conv(x, weight, bias, **options), *F.conv_backward(dy, x, weight, **options)]


@every_case
def test_depthwise_convolution_matches_loops(at, case, rng):
    host, desired, options = problem(case, rng)
    actual = compute(*(at.put(a, "float64") for a in host), options)
    for a, d in zip(actual, desired, strict=True):
        assert_match(a, d, level="reduction", terms=max(1, d.size), backend=at.backend, dtype="float64")


@every_case
def test_strips_of_one_row_give_what_one_strip_gives(case, rng, monkeypatch):
    host, desired, options = problem(case, rng)
    monkeypatch.setattr(nn.backends.operations_of(nn.get_backend("numpy").xp).__class__, "block_bytes", 1)
    for a, d in zip(compute(*host, options), desired, strict=True):
        assert_match(a, d, level="reduction", terms=max(1, d.size), dtype="float64")


def test_one_channel_is_no_depthwise_convolution(rng, monkeypatch):
    monkeypatch.setattr(convolution.depthwise, "forward", None)
    x, weight = rng.standard_normal((2, 1, 5, 5)), rng.standard_normal((3, 1, 3, 3))
    assert_match(F.conv(x, weight), oracles.conv_forward(x, weight, np.zeros(3), (1, 1), (NO, NO), (1, 1), 1), terms=9)


def test_nan_and_infinity_stay_in_their_channel_and_windows():
    x = np.ones((1, 3, 5, 5))
    x[0, 0, 0, 0], x[0, 1, 4, 4] = np.nan, np.inf
    y = F.conv(x, np.ones((3, 1, 3, 3)), groups=3)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 0, 0]]
    assert np.argwhere(np.isinf(y)).tolist() == [[0, 1, 2, 2]]


SAME_BITS = """
import hashlib, numpy as np, xpnn as nn
rng = np.random.default_rng(1)
x, w = (rng.standard_normal(s).astype(np.float32) for s in ((5, 24, 30, 31), (24, 1, 3, 3)))
d, v = (rng.standard_normal(s).astype(np.float32) for s in ((5, 6, 30, 31), (20, 6, 3, 3)))
said = hashlib.sha256()
for options, x, w in (
    ({"padding": 1, "groups": 24}, x, w), ({"padding": 1, "groups": 24, "stride": 2}, x, w), ({"padding": 2}, d, v)
):
    y = nn.functional.conv(x, w, **options)
    for a in (y, *nn.functional.conv_backward(y, x, w, **options)):
        said.update(np.ascontiguousarray(a).tobytes())
print(said.hexdigest())
"""


@pytest.mark.parametrize("kernels", ["0", "1"])
def test_bits_do_not_depend_on_the_number_of_threads(kernels):
    if kernels == "1":
        pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SAME_BITS],
            env={**os.environ, "XPNN_NUM_THREADS": threads, "XPNN_NUMBA": kernels},
            stdout=subprocess.PIPE,
        )
        for threads in ("1", "2", "3")
    ]
    said = {run.communicate(timeout=120)[0] for run in runs}
    assert len(said) == 1 and all(run.returncode == 0 for run in runs)
