"""Direct convolution with a weight in panels: the bits of a weight that is not, and sums in float64."""

import gc
import importlib

import numpy as np
import pytest

from xpnn.backends.contractions.windows import Windows
from xpnn.backends.engines import numba
from xpnn.layers.convolution import Problem
from xpnn.testing import assert_match

#: Height and width of the output, channels, features, kernel: tiles of every number of rows and width, fewer terms than
#: a block, some blocks, and a last block of a few terms.
CASES = [
    *((1, n, 40, 33, 3) for n in (1, 2, 3, 4, 5, 7, 8, 9, 16, 17)),
    *((2, 3, 30, f, 3) for f in (1, 7, 8, 15, 16, 17, 31, 32, 48, 49, 64, 100)),
    *((3, 3, c, 64, 1) for c in (1, 127, 128, 255, 256, 257, 400)),
    (4, 4, 129, 96, 3),
]


@pytest.fixture
def direct(compiled_kernels):
    """The module, after an engine was made."""
    return importlib.import_module(f"{numba.__name__}.direct")


def draw(rng, case, samples=1, stride=1):
    """A problem of padded input, with its input, weight, bias and output in float64."""
    height, width, channels, features, side = case
    pad = side // 2
    spatial = tuple((n - 1) * stride + 1 + 2 * (side // 2) - 2 * pad for n in (height, width))
    windows = Windows((side, side), (stride, stride), (1, 1), (height, width))
    problem = Problem(samples, spatial, channels, features, 1, windows, ((pad, pad),) * 2, "float32")
    x = rng.standard_normal((samples, *spatial, channels)).astype(np.float32)
    weight = rng.standard_normal((features, channels, side, side)).astype(np.float32)
    bias = rng.standard_normal(features).astype(np.float32)
    wide = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cells = np.lib.stride_tricks.sliding_window_view(wide, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    return problem, x, weight, bias, np.einsum("nhwcij,fcij->nhwf", cells, weight.astype(np.float64)) + bias


def assert_right(direct, given, relu):
    problem, x, weight, bias, desired = given
    engine = direct.prepare(problem, "float32")
    packed = engine.pack(weight)
    y = engine.forward(x, weight, bias, packed=packed, relu=relu)
    terms = weight[0].size + 1
    assert_match(y, np.maximum(desired, 0) if relu else desired, level="reduction", terms=terms, dtype="float32")
    assert y.tobytes() == engine.forward(x, weight, bias, relu=relu).tobytes()
    return engine


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_panels_have_the_bits_of_a_matrix(direct, case, relu, rng, monkeypatch):
    monkeypatch.setattr(importlib.import_module(f"{numba.__name__}.neighbours"), "MIN_MULTIPLY_ADDS", 1 << 60)
    assert_right(direct, draw(rng, case), relu)


@pytest.mark.parametrize("stride", [1, 2])
def test_items_that_share_features_read_one_padded_copy(direct, stride, rng, monkeypatch):
    monkeypatch.setattr(direct, "BLOCK_MULTIPLY_ADDS", 1 << 10)
    monkeypatch.setattr(direct, "ENTRIES", 300)
    given = draw(rng, (5, 4, 20, 200, 3), samples=2, stride=stride)
    engine = assert_right(direct, given, relu=True)
    assert engine._forward_part < 200
    _, x, weight, bias, _ = given
    packed, padded = engine.pack(weight), engine._padded
    calls = []
    monkeypatch.setattr(engine, "_padded", lambda *arguments: calls.append(1) or padded(*arguments))
    found = [engine.forward(a, weight, bias, packed) for a in (x, np.asfortranarray(x), x[:, ::-1][:, ::-1])]
    assert calls == [1] * 3 and len({y.tobytes() for y in found}) == 1


def test_weights_in_any_memory_layout(direct, rng):
    problem, _, weight, _, _ = draw(rng, (3, 3, 40, 70, 3))
    engine, found = direct.prepare(problem, "float32"), set()
    for order in ((0, 1, 2, 3), (2, 3, 1, 0), (0, 2, 3, 1), (1, 0, 3, 2)):
        laid = np.ascontiguousarray(weight.transpose(order)).transpose(np.argsort(order))
        packed = engine.pack(laid)
        assert not np.shares_memory(packed, laid)
        found.add(packed.tobytes())
    assert len(found) == 1
    # Panel after panel.
    matrix = weight.transpose(2, 3, 1, 0).reshape(360, 70)
    panels = [matrix[:, first : first + 32].reshape(-1) for first in (0, 32, 64)]
    assert packed.tobytes() == np.concatenate(panels).tobytes()


def test_a_matrix_of_one_panel_is_not_copied(direct, rng):
    """It would be kept, and must not refer to the weight."""
    problem, x, weight, bias, _ = draw(rng, (3, 3, 40, 32, 3))
    laid = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    engine = direct.prepare(problem, "float32")
    assert engine.pack(laid) is None
    assert engine.forward(x, laid, bias, None).tobytes() == engine.forward(x, weight, bias).tobytes()


def test_bits_of_panels_do_not_depend_on_threads(direct, rng, monkeypatch):
    problem, x, weight, bias, _ = draw(rng, (4, 4, 512, 160, 3))
    found = set()
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        engine = direct.prepare(problem, "float32")
        found.add(engine.forward(x, weight, bias, engine.pack(weight)).tobytes())
    assert len(found) == 1


def test_what_an_item_allocates_lives_as_long_as_its_products(direct, rng):
    """Sums of blocks once had the memory of the padded copy of the input, which was freed too early."""
    given = draw(rng, (3, 3, 33, 64, 3))
    for _ in range(5):
        gc.collect()
        assert_right(direct, given, relu=False)


def test_nan_and_infinity_of_input_and_weight(direct, rng):
    problem, x, weight, bias, _ = draw(rng, (4, 4, 40, 64, 3))
    x[0, 0, 0, 39], weight[5, 3, 1, 1] = np.nan, np.inf
    engine = direct.prepare(problem, "float32")
    y = engine.forward(x, weight, bias, engine.pack(weight), relu=True)
    assert np.isnan(y[0, :2, :2]).all() and np.isfinite(np.delete(y, 5, axis=-1)[0, 2:]).all()
    assert not np.isfinite(y[0, 2:, :, 5]).any() or (y[0, 2:, :, 5] == 0).any()
    assert y.tobytes() == engine.forward(x, weight, bias, relu=True).tobytes()
