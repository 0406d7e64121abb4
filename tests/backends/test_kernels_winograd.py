"""Winograd's convolution by compiled jobs, against sums of products in float64 and against array functions.

Inside, channels come last: ``x (N, *S, C)``, ``y (N, *O, F)``.
"""

from dataclasses import replace
from functools import cache
from math import prod

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import operations_of, overrides
from xpnn.backends.contractions.windows import Windows
from xpnn.backends.engines import numba
from xpnn.layers.convolution import Problem, Winograd, algorithm
from xpnn.layers.convolution import winograd_tiles as tiles
from xpnn.testing.tolerances import tolerance

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
from xpnn.backends.engines.numba import jobs, pool, winograd
from xpnn.backends.engines.numba.bound import Bound

SIZES = [2, 4, 5]
every_size = pytest.mark.parametrize("m", SIZES)


def describe(spatial, channels, features, padding=((1, 1), (1, 1)), samples=2, rotated=False):
    count = tuple(n + sum(pair) - 2 for n, pair in zip(spatial, padding, strict=True))
    windows = Windows((3, 3), (1, 1), (1, 1), count)
    return Problem(samples, spatial, channels, features, 1, windows, padding, "float32", rotated)


PROBLEMS = {
    "tiles fit": describe((8, 20), 16, 16),
    "one channel": describe((7, 6), 1, 1),
    "fewer channels than a vector": describe((7, 11), 3, 5),
    "more channels than vectors": describe((7, 11), 17, 37),
    "few channels": describe((5, 6), 3, 40),
    "few features": describe((5, 6), 40, 3),
    "no padding": describe((7, 6), 16, 18, ((0, 0), (0, 0))),
    "asymmetric padding": describe((5, 6), 8, 9, ((2, 0), (0, 3))),
    "one output": describe((3, 3), 9, 8, ((0, 0), (0, 0))),
    "one cell": describe((1, 1), 16, 17, samples=5),
    "one sample": describe((8, 5), 9, 17, samples=1),
    "rotated": describe((6, 7), 19, 34, ((1, 1), (2, 0)), rotated=True),
    "rotated, few channels": describe((6, 7), 5, 3, rotated=True),
}
every_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@cache
def solved(problem):
    """Operands, channels last, and results in float64: ``x, weight, bias, dy, y, dweight``."""
    rng = np.random.default_rng(11)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    x, dy, bias = draw(*problem.x_shape), draw(*problem.y_shape), draw(problem.features)
    weight = draw(problem.features, problem.channels, 3, 3)
    padded = np.pad(x.astype(float), ((0, 0), *problem.padding, (0, 0)))
    cells = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    y = np.einsum("nhwcij,fcij->nhwf", cells, weight.astype(float), optimize=True) + bias
    dweight = np.einsum("nhwcij,nhwf->fcij", cells, dy.astype(float), optimize=True)
    if problem.rotated:
        weight = np.ascontiguousarray(np.flip(weight, axis=(2, 3)).swapaxes(0, 1))
    return x, weight, bias, dy, y, dweight


def prepared(problem, m, shares_filters=False):
    """The operation, made anew so that it has the current limits."""
    return winograd.prepare(tiles.Tiling(problem, m, shares_filters), "float32")


def check(problem, m, op, lay=lambda a: a):
    x, weight, bias, dy, y, dweight = solved(problem)
    x, weight, bias, dy = (lay(a) for a in (x, weight, bias, dy))
    packed = op.pack(weight)
    assert (packed is None) == (len(op.feature_parts) > 1)
    terms = 9 * problem.channels
    compare(op.forward(x, weight, bias), y, m, "forward", terms)
    compare(op.forward(x, weight, None), y - solved(problem)[2], m, "forward", terms)
    compare(op.forward(x, weight, bias, packed, relu=True), np.maximum(y, 0.0), m, "forward", terms, y)
    if not problem.rotated:
        terms = problem.samples * prod(tiles.Tiling(problem, m).grid) * (m + 2) ** 2
        compare(op.weight_gradient(x, dy), dweight, m, "parameter", terms)


def compare(found, desired, m, part, terms, like=None):
    assert found.dtype == np.float32 and found.shape == desired.shape and found.flags.c_contiguous
    limit = tolerance(f"Winograd F{m}", "float32", terms, part)
    assert np.abs(found - desired).max() <= limit * np.abs(desired if like is None else like).max()


@every_size
@every_problem
def test_tiles_match_sums_of_products(problem, m):
    op = prepared(problem, m)
    assert len(op.tile_parts) == len(op.feature_parts) == 1
    check(problem, m, op)


@every_size
@pytest.mark.parametrize("name", ["more channels than vectors", "few channels", "asymmetric padding", "rotated"])
@pytest.mark.parametrize("shares_filters", [False, True], ids=["parts of tiles", "parts of features"])
def test_parts_and_pieces_of_one_vector_or_tile_match_sums_of_products(name, m, shares_filters, monkeypatch):
    for limit in ("PART_BYTES", "ITEM_CHANNELS", "MOST_PRODUCTS"):
        monkeypatch.setattr(winograd, limit, 1)
    monkeypatch.setattr(winograd, "LEAST_SIDE", 2)
    problem = PROBLEMS[name]
    op = prepared(problem, m, shares_filters)
    if shares_filters:
        assert len(op.tile_parts) == 1 and len(op.feature_parts) == -(-problem.features // winograd.vector_lanes())
    else:
        assert set(op.tile_parts) == {1} and len(op.feature_parts) == 1
    check(problem, m, op)


def test_a_large_weight_with_few_tiles_comes_in_parts_of_features():
    problem = describe((4, 4), 200, 250, samples=3)
    op = prepared(problem, 4)
    assert len(op.feature_parts) > 1
    check(problem, 4, op)
    assert len(prepared(replace(problem, samples=251), 4).tile_parts) > 1


def permuted(a):
    return np.ascontiguousarray(a.transpose()).transpose()


def spread_out(a):
    wide = np.full(tuple(2 * n for n in a.shape), np.nan, np.float32)
    part = (slice(None, None, 2),) * a.ndim
    wide[part] = a
    return wide[part]


@pytest.mark.parametrize("lay", [permuted, spread_out])
def test_tiles_accept_any_memory_layout(lay):
    check(PROBLEMS["more channels than vectors"], 4, prepared(PROBLEMS["more channels than vectors"], 4), lay)


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(winograd, "PART_BYTES", 1 << 16)
    monkeypatch.setattr(winograd, "MOST_PRODUCTS", 1 << 10)
    monkeypatch.setattr(winograd, "LEAST_SIDE", 2)
    problem = describe((9, 11), 33, 40, samples=4)
    x, weight, bias, dy, _, _ = solved(problem)
    for shares_filters in (False, True):
        op, results = prepared(problem, 4, shares_filters), []
        for threads in ("1", "2", "3"):
            monkeypatch.setenv("XPNN_NUM_THREADS", threads)
            found = op.forward(x, weight, bias), op.weight_gradient(x, dy)
            results.append([array.tobytes() for array in found])
        assert results[0] == results[1] == results[2]


@every_size
def test_errors_are_no_larger_than_those_of_array_functions(m):
    problem = describe((20, 20), 64, 64, samples=1)
    x, weight, bias, dy, y, dweight = solved(problem)
    op, arrays, ops = prepared(problem, m), Winograd(m), operations_of(nn.get_backend("numpy").xp)
    with overrides.using(overrides.Choices(kernels=False)):
        usual = arrays.forward(x, weight, bias, problem, ops), arrays.weight_gradient(x, dy, problem, ops)
    found = op.forward(x, weight, bias), op.weight_gradient(x, dy)
    for a, b, exact in zip(found, usual, (y, dweight), strict=True):
        assert np.sqrt(np.mean((a - exact) ** 2)) <= 1.1 * np.sqrt(np.mean((b - exact) ** 2))


def test_relu_keeps_nan_and_only_relu_removes_negative_numbers():
    problem = describe((4, 4), 16, 32, samples=1)
    x, weight, _, _, _, _ = solved(problem)
    bias = np.zeros(32, np.float32)
    bias[:4] = -np.inf, np.inf, np.nan, -1e9
    plain, clipped = (prepared(problem, 4).forward(x, weight, bias, relu=relu) for relu in (False, True))
    assert (plain[..., 0] == -np.inf).all() and (plain[..., 3] < -1e8).all()
    assert (clipped[..., (0, 3)] == 0).all()
    for y in (plain, clipped):
        assert (y[..., 1] == np.inf).all() and np.isnan(y[..., 2]).all() and np.isfinite(y[..., 4:]).all()


def test_what_has_no_compiled_tiles_is_left_to_array_functions(compiled_kernels, monkeypatch):
    tiling = tiles.Tiling(PROBLEMS["tiles fit"], 4)
    assert isinstance(numba.prepare("winograd", tiling, "float32"), winograd.Winograd)
    assert numba.prepare("winograd", tiling, "float64") is None
    assert numba.prepare("winograd", replace(tiling, problem=replace(tiling.problem, samples=0)), "float32") is None
    monkeypatch.setattr(winograd, "gemm_address", lambda dtype: 0)
    assert winograd.prepare(tiling, "float32") is None
    monkeypatch.setenv("XPNN_NUMBA", "0")
    assert numba.prepare("winograd", tiling, "float32") is None


def square(channels, size, samples=32, **changes):
    return replace(describe((size, size), channels, channels, samples=samples), **changes)


@pytest.mark.parametrize(
    ("problem", "m"),
    [
        (square(64, 32), 4),
        (square(32, 8), 4),
        (square(512, 4), 4),
        (square(512, 2), 2),
        (square(64, 5), 5),
        (square(512, 4, samples=1), None),
        (square(64, 4, samples=1), None),
        (square(31, 32), None),
        (square(64, 32, algorithms="direct"), None),
        (square(64, 32, dtype="float64"), None),
    ],
)
def test_shapes_choose_compiled_tiles(compiled_kernels, problem, m):
    found = algorithm(problem, operations_of(nn.get_backend("numpy").xp))
    assert found.m == m if m else not isinstance(found, Winograd)


def test_a_layer_computes_by_compiled_tiles(compiled_kernels, monkeypatch):
    called = []
    for name in ("forward", "weight_gradient"):
        usual = getattr(winograd.Winograd, name)
        monkeypatch.setattr(
            winograd.Winograd, name, lambda *given, usual=usual, name=name: called.append(name) or usual(*given)
        )
    layer = nn.Conv2d(40, 33, 3, padding=1, backend="numpy", seed=3)
    x = np.random.default_rng(5).standard_normal((4, 40, 12, 15)).astype(np.float32)
    y = layer(x)
    layer.backward(y)
    assert sorted(called) == ["forward", "forward", "weight_gradient"]


@jobs.job(jobs.read(1), jobs.write(1), jobs.INT, jobs.INT)
def append(item, x, out, count, part):
    """Write ``x[part]`` at the end of the ``count`` numbers that are written in ``out``, whose number is its first."""
    out[0] += 1
    out[int(out[0])] = x[part] + count


def test_parts_of_a_job_have_their_number_as_last_argument():
    x, out = np.arange(3.0), np.zeros(10)
    bound = append.bind_parts([1, 0, 2], x, out, 10)
    assert [items for _, items, _ in bound.rows] == [1, 0, 2]
    pool.pool._busy.acquire()
    try:
        pool.perform(bound)
    finally:
        pool.pool._busy.release()
    assert out.tolist() == [3, 10, 12, 12, *[0] * 6]


def test_interleaved_phases_run_part_by_part():
    x, out = np.arange(2.0), np.zeros(10)
    pool.perform(Bound.interleave([append.bind_parts([1, 1], x, out, 10), append.bind_parts([1, 1], x, out, 20)]))
    assert out.tolist() == [4, 10, 20, 11, 21, *[0] * 5]
