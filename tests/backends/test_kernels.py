"""Compiled convolutions against loops in float64 and against array functions, and how they are switched off."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import oracles
import pytest

import xpnn as nn
from xpnn.backends import overrides
from xpnn.backends.contractions.windows import Windows
from xpnn.backends.engines import numba
from xpnn.layers.convolution import Problem, prepared
from xpnn.testing import assert_match

F = nn.functional
#: x, weight, padding, stride, dilation, groups
CASES = {
    "one channel": ((3, 1, 7, 9), (6, 1, 5, 5), ((2, 2), (2, 2)), (1, 1), (1, 1), 1),
    "a vector of features": ((2, 3, 6, 5), (16, 3, 3, 3), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
    "a vector and some": ((2, 3, 6, 5), (21, 3, 3, 2), ((0, 2), (1, 0)), (1, 1), (1, 1), 1),
    "some features": ((2, 2, 6, 5), (11, 2, 3, 2), ((0, 2), (1, 0)), (1, 1), (1, 1), 1),
    "strided and dilated": ((2, 5, 11, 12), (18, 5, 3, 3), ((2, 1), (0, 3)), (2, 3), (2, 1), 1),
    "1d": ((3, 4, 30), (9, 4, 3), ((1, 1),), (2,), (1,), 1),
    "3d": ((2, 2, 4, 5, 6), (16, 2, 2, 3, 2), ((0, 0), (1, 1), (1, 0)), (1, 2, 2), (1, 1, 2), 1),
    "fewer windows than a tile": ((1, 2, 3, 3), (17, 2, 3, 3), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
    "padding wider than the kernel": ((1, 2, 3, 4), (4, 2, 2, 2), ((3, 4), (2, 3)), (1, 1), (1, 1), 1),
    "empty batch": ((0, 3, 5, 4), (4, 3, 3, 2), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
    "one cell": ((3, 20, 5, 6), (33, 20, 1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
    "one cell, strided": ((3, 20, 5, 6), (33, 20, 1, 1), ((0, 0), (0, 0)), (2, 2), (1, 1), 1),
    "groups": ((2, 6, 7, 5), (10, 3, 3, 2), ((1, 2), (0, 1)), (2, 1), (1, 2), 2),
    "groups, one cell": ((2, 6, 7, 5), (10, 3, 1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 2),
    "depthwise": ((2, 16, 6, 7), (16, 1, 3, 3), ((1, 1), (1, 1)), (1, 1), (1, 1), 16),
    "depthwise, odd": ((2, 19, 6, 7), (19, 1, 5, 2), ((2, 2), (0, 1)), (1, 1), (1, 2), 19),
    "depthwise, strided": ((2, 17, 9, 8), (17, 1, 3, 3), ((1, 1), (1, 1)), (2, 2), (1, 1), 17),
    "depthwise, strided over cells": ((2, 18, 11, 9), (18, 1, 2, 3), ((0, 1), (2, 0)), (3, 2), (2, 1), 18),
    "depthwise, 1d": ((3, 16, 30), (16, 1, 3), ((1, 1),), (2,), (1,), 16),
    "depthwise, 3d": ((2, 16, 4, 5, 6), (16, 1, 2, 3, 2), ((0, 0), (1, 1), (1, 0)), (1, 2, 2), (1, 1, 2), 16),
    "depthwise, padding wider than the kernel": ((1, 16, 3, 4), (16, 1, 2, 2), ((3, 4), (2, 3)), (1, 1), (1, 1), 16),
    "depthwise, two kernels a channel": ((2, 9, 6, 5), (18, 1, 3, 2), ((1, 0), (1, 1)), (1, 2), (1, 1), 9),
    "depthwise, one window": ((1, 16, 2, 2), (16, 1, 2, 2), ((0, 0), (0, 0)), (1, 1), (1, 1), 16),
    "depthwise, empty batch": ((0, 16, 5, 4), (16, 1, 3, 2), ((0, 0), (0, 0)), (1, 1), (1, 1), 16),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def compiled(monkeypatch, compiled_kernels):
    """Compiled code for problems of any size; the list of the operations that it computed."""
    monkeypatch.setattr(prepared, "MIN_MULTIPLY_ADDS", 0)
    columns, depthwise, direct, pool = (
        importlib.import_module(f"{numba.__name__}.{name}") for name in ("columns", "depthwise", "direct", "pool")
    )
    called, usual = [], pool.perform

    def counted(bound):
        called.append(bound)
        usual(bound)

    for module in (columns, depthwise, direct):
        monkeypatch.setattr(module, "perform", counted)
    return called


def problem(case, rng):
    x_shape, w_shape, padding, stride, dilation, groups = case
    explicit = (stride, padding, dilation, groups)
    shapes = (x_shape, w_shape, w_shape[:1])
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    y = oracles.conv_forward(*(a.astype(np.float64) for a in (x, weight, bias)), *explicit)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    gradients = oracles.conv_backward(dy.astype(np.float64), x.astype(np.float64), weight.astype(np.float64), *explicit)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (x, weight, bias, dy), (y, *gradients), options


def compute(x, weight, bias, dy, options):
    return [F.conv(x, weight, bias, **options), *F.conv_backward(dy, x, weight, **options)]


def match(actual, desired, case):
    for a, d in zip(actual, desired, strict=True):
        terms = max(1, int(np.prod(case[1])), d.shape[0] * int(np.prod(desired[0].shape[2:])))
        assert_match(a, d, level="reduction", terms=terms, dtype="float32")


FULL = {name: case for name, case in CASES.items() if case[0][0]}
every_full_case = pytest.mark.parametrize("case", FULL.values(), ids=FULL)
every_algorithm = pytest.mark.parametrize("algorithm", ["", "columns"])


@every_algorithm
@every_case
def test_compiled_code_matches_loops(compiled, case, algorithm, rng):
    host, desired, options = problem(case, rng)
    with overrides.using(overrides.Choices(convolution=algorithm)):
        match(compute(*host, options), desired, case)
    assert len(compiled) == 3 or not case[0][0]


@every_algorithm
@every_case
def test_compiled_code_in_small_blocks_matches_loops(compiled, case, algorithm, rng, monkeypatch):
    host, desired, options = problem(case, rng)
    with overrides.using(overrides.Choices(convolution=algorithm, block_bytes=1)):
        match(compute(*host, options), desired, case)


@every_full_case
@pytest.mark.parametrize("operation", ["columns", "depthwise", "direct"])
def test_a_prepared_object_packs_a_weight_and_computes_the_relu(compiled, operation, case, rng):
    host, desired, _ = problem(case, rng)
    x, weight, bias, _ = host
    spatial = tuple(range(2, x.ndim))
    engine = numba.prepare(operation, describe(case), "float32")
    groups = case[5]
    serves = {"columns": True, "direct": groups == 1, "depthwise": groups == case[0][1]}
    assert (engine is not None) == serves[operation]
    if engine is None:
        return
    for packed in (None, engine.pack(weight)):
        y = engine.forward(x.transpose(0, *spatial, 1), weight, bias, packed=packed, relu=True)
        match([np.moveaxis(y, -1, 1)], [np.maximum(desired[0], 0)], case)


def describe(case):
    x_shape, w_shape, padding, stride, dilation, groups = case
    windows = Windows(
        w_shape[2:], stride, dilation, oracles.window_counts(x_shape[2:], w_shape[2:], stride, padding, dilation)
    )
    return Problem(x_shape[0], x_shape[2:], x_shape[1], w_shape[0], groups, windows, padding, "float32")


#: Constants of the module `columns` with which small problems take the ways of large ones.
WAYS = {
    "blocks of their own": {"FEW_BLOCKS": 1, "ROWS": 8, "UNPACKED": 1, "FOLD_BYTES": 1},
    "parts of the weight": {"LANES_SIZE": 1, "PART_DEPTH": 2, "PART_FEATURES": 3, "ROWS": 8, "UNPACKED": 1},
}


@every_full_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_columns_of_large_problems_match_loops(compiled_kernels, way, dtype, case, rng, monkeypatch):
    module = importlib.import_module(f"{numba.__name__}.columns")
    for name, value in way.items():
        monkeypatch.setattr(module, name, value)
    host, desired, _ = problem(case, rng)
    x, weight, bias, dy = (a.astype(dtype) for a in host)
    spatial = tuple(range(2, x.ndim))
    x, dy = (a.transpose(0, *spatial, 1) for a in (x, dy))
    engine = module.prepare(describe(case), dtype)
    found = [engine.forward(x, weight, bias), engine.input_gradient(dy, weight)]
    found = [*(np.moveaxis(a, -1, 1) for a in found), engine.weight_gradient(x, dy)]
    for a, d in zip(found, desired[:3], strict=True):
        terms = max(1, int(np.prod(case[1])), d.shape[0] * int(np.prod(desired[0].shape[2:])))
        assert_match(a, d, level="reduction", terms=terms, dtype=dtype)


@pytest.mark.parametrize(
    ("case", "joined"),
    [
        (((3, 1, 7, 12), (6, 1, 5, 5), ((2, 2), (2, 2)), (1, 1), (1, 1), 1), 2),
        (((2, 3, 9, 17), (1, 3, 3, 3), ((0, 1), (1, 2)), (2, 1), (2, 1), 1), 6),
        (((2, 2, 3, 30), (3, 2, 2, 3), ((0, 0), (1, 1)), (1, 2), (1, 1), 1), 5),
        (((2, 2, 4, 5, 6), (8, 2, 2, 3, 4), ((0, 0), (1, 1), (1, 2)), (1, 2, 1), (1, 1, 1), 1), 2),
    ],
)
def test_neighbouring_outputs_computed_together_match_loops(compiled_kernels, case, joined, rng, monkeypatch):
    monkeypatch.setattr(importlib.import_module(f"{numba.__name__}.neighbours"), "MIN_MULTIPLY_ADDS", 0)
    module = importlib.import_module(f"{numba.__name__}.direct")
    (x, weight, bias, dy), desired, _ = problem(case, rng)
    spatial = tuple(range(2, x.ndim))
    x, dy = (a.transpose(0, *spatial, 1) for a in (x, dy))
    engine = module.prepare(describe(case), "float32")
    assert engine.neighbours == joined
    for b, y in ((bias, desired[0]), (None, desired[0] - bias.reshape(-1, *(1,) * len(spatial)))):
        match([np.moveaxis(engine.forward(x, weight, b), -1, 1)], [y], case)
        relu = engine.forward(x, weight, b, packed=engine.pack(weight), relu=True)
        match([np.moveaxis(relu, -1, 1)], [np.maximum(y, 0)], case)
    match([engine.weight_gradient(x, dy)], [desired[2]], case)
    plain = module.prepare(replace(describe(case), algorithms="direct"), "float32")
    assert plain.neighbours == 1


def test_items_that_share_features_match_loops(compiled_kernels, rng, monkeypatch):
    module = importlib.import_module(f"{numba.__name__}.direct")
    monkeypatch.setattr(module, "BLOCK_MULTIPLY_ADDS", 100)
    case = ((1, 3, 4, 5), (83, 3, 3, 3), ((1, 1), (1, 1)), (1, 1), (1, 1), 1)
    (x, weight, bias, dy), desired, _ = problem(case, rng)
    x, dy = (a.transpose(0, 2, 3, 1) for a in (x, dy))
    engine = module.prepare(describe(case), "float32")
    assert engine._forward_part == engine._backward_part == 64
    found = [np.moveaxis(engine.forward(x, weight, bias), -1, 1), engine.weight_gradient(x, dy)]
    match(found, [desired[0], desired[2]], case)


def test_the_relu_of_nan_is_nan(compiled):
    case = CASES["a vector of features"]
    x, weight = np.full((2, 6, 5, 3), np.nan, np.float32), np.ones(case[1], np.float32)
    for operation in ("columns", "direct"):
        assert np.isnan(numba.prepare(operation, describe(case), "float32").forward(x, weight, None, relu=True)).all()


@every_algorithm
@pytest.mark.parametrize("name", ["a vector and some", "some features", "depthwise", "depthwise, odd"])
@pytest.mark.parametrize("order", ["channels last", "transposed", "gaps"])
def test_compiled_code_accepts_arrays_in_any_order_and_read_only(compiled, name, order, algorithm, rng):
    host, desired, options = problem(CASES[name], rng)

    def awkward(a):
        if order == "channels last" and a.ndim == 4:
            a = np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        elif order == "transposed":
            a = np.ascontiguousarray(a.T).T
        elif order == "gaps":
            wide = np.full(tuple(2 * n for n in a.shape), np.nan, np.float32)
            wide[(slice(1, None, 2),) * a.ndim] = a
            a = wide[(slice(1, None, 2),) * a.ndim]
        a.flags.writeable = False
        return a

    with overrides.using(overrides.Choices(convolution=algorithm)):
        match(compute(*map(awkward, host), options), desired, CASES[name])


@every_algorithm
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 24])
def test_bits_do_not_depend_on_threads(compiled, groups, stride, algorithm, rng, monkeypatch):
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((3, 24, 45, 43), (24, 24 // groups, 3, 3)))
    options = {"padding": 1, "stride": stride, "groups": groups}
    dy = rng.standard_normal(F.conv(x, weight, **options).shape).astype(np.float32)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        with overrides.using(overrides.Choices(convolution=algorithm)):
            found.append([a.tobytes() for a in compute(x, weight, None, dy, options)])
    assert compiled and found[0] == found[1] == found[2]


@pytest.mark.parametrize("groups", [1, 16])
def test_nan_and_infinity_reach_what_they_reach_by_array_functions(compiled, groups, rng, monkeypatch):
    x, dy = (rng.standard_normal((2, 16, 6, 6)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal((16, 16 // groups, 3, 3)).astype(np.float32)
    # Away from the padding, where array functions multiply zeros by infinity and the depthwise kernel does not.
    x[0, 3, 0, 0], x[1, 5, 4, 2], dy[0, 2, 4, 4], weight[7, 0, 1, 1] = np.nan, np.inf, -np.inf, np.inf
    options = {"padding": 1, "groups": groups}
    with np.errstate(invalid="ignore"):
        with_kernels = compute(x, weight, None, dy, options)
        assert compiled
        monkeypatch.setenv("XPNN_NUMBA", "0")
        without = compute(x, weight, None, dy, options)
    for a, d in zip(with_kernels, without, strict=True):
        assert np.array_equal(np.isnan(a), np.isnan(d))
        assert np.array_equal(np.isposinf(a), np.isposinf(d)) and np.array_equal(np.isneginf(a), np.isneginf(d))


def test_depthwise_convolution_multiplies_nothing_by_padding(compiled):
    x, weight = np.ones((1, 16, 3, 3), np.float32), np.zeros((16, 1, 3, 3), np.float32)
    weight[:, 0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        y = F.conv(x, weight, padding=1, groups=16)
    assert compiled and not np.any(y[..., 0, :]) and not np.any(y[..., 0]) and np.all(np.isposinf(y[..., 1:, 1:]))


def test_depthwise_in_float64_and_exact_numerics_do_without_compiled_code(compiled, rng):
    x, weight = rng.standard_normal((2, 16, 6, 6)), rng.standard_normal((16, 1, 3, 3))
    F.conv(x, weight, groups=16)
    assert not compiled
    exact = nn.get_backend("numpy", numerics="exact")
    F.conv(x.astype(np.float32), weight.astype(np.float32), groups=16, xp=exact.xp)
    assert not compiled


LAZY = """
import sys, numpy as np, xpnn as nn
def conv(*shape):
    return nn.functional.conv(np.ones(shape, np.float32), np.ones((8, shape[1], 3, 3), np.float32))
conv(1, 3, 8, 8)
nn.get_backend("numpy").notes()
assert "numba" not in sys.modules, "imported for a small layer"
conv(8, 3, 64, 64)
print("numba" in sys.modules, nn.get_backend("numpy").notes())
"""


@pytest.mark.parametrize("switch", ["0", "1"])
def test_numba_is_imported_for_a_large_layer_unless_switched_off(switch):
    if switch == "1":
        pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
    run = subprocess.run(
        [sys.executable, "-c", LAZY], env={**os.environ, "XPNN_NUMBA": switch}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    expected = "kernels by Numba" if switch == "1" else "no compiled kernels (XPNN_NUMBA=0)"
    assert run.stdout.startswith(str(switch == "1")) and expected in run.stdout


def test_where_numba_is_missing_array_functions_compute(monkeypatch):
    monkeypatch.delenv("XPNN_NUMBA", raising=False)
    monkeypatch.setattr(numba, "installed", lambda: False)
    assert not numba.used() and numba.prepare("columns", describe(CASES["1d"]), "float32") is None
    assert numba.note() == 'no compiled kernels (pip install "numba>=0.60")'


def test_a_switch_that_is_neither_0_nor_1_is_an_error(monkeypatch):
    monkeypatch.setenv("XPNN_NUMBA", "off")
    with pytest.raises(ValueError, match=r"XPNN_NUMBA must be 0 .* or 1, got 'off'"):
        numba.used()
