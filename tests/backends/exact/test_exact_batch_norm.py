"""Compiled batch norm in exact numerics: the bits of array functions."""

import numpy as np
import pytest
from exact_arrays import both_ways, hostile, ordinary, same_bits

import xpnn as nn
from xpnn.backends.overrides import Choices, using

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
F = nn.functional
EXACT = nn.get_backend("numpy", numerics="exact")
#: ``(N, C, *S)``: several blocks, long rows, more rows than a slice sums up, few numbers.
SHAPES = [(8, 64, 16, 17), (3, 700, 2, 2), (70_000, 2), (2, 1), (5, 3, 7), (2, 4, 3, 2, 3)]
KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def of_layer(x, dy, relu=False, steps=2, **options):
    """Outputs, gradients and running statistics of some steps, and the output in evaluation."""
    with nn.use_backend(EXACT):
        norm = KINDS[x.ndim](x.shape[1], **options)
        layer = nn.Sequential(norm, nn.ReLU()) if relu else norm
    if "weight" in norm.parameters:
        norm.parameters["weight"].value = EXACT.asarray(ordinary(x.shape[1], 3))
        norm.parameters["bias"].value = EXACT.asarray(ordinary(x.shape[1], 4))
    found = []
    for _ in range(steps):
        found.append(layer(x))
        found.append(layer.backward(dy))
        found += [parameter.grad for parameter in norm.parameters.values()]
    layer.eval()
    return [*found, *norm.buffers.values(), layer(x)]


@pytest.mark.parametrize("relu", [False, True], ids=["alone", "with ReLU"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layers_have_the_bits_of_array_functions(shape, relu):
    assert same_bits(*both_ways(of_layer, ordinary(shape), ordinary(shape, 1), relu))


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (40, 9), (4, 70, 3)], ids=str)
def test_hostile_numbers(shape):
    x, dy = (np.moveaxis(hostile((shape[0], *shape[2:], shape[1]), seed=seed), -1, 1) for seed in (0, 1))
    compiled, by_arrays = both_ways(of_layer, EXACT.asarray(x), dy)
    assert same_bits(compiled, by_arrays)
    assert np.isnan(compiled[0]).any() and np.isfinite(compiled[0]).any()


@pytest.mark.parametrize(
    "options",
    [{"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.0}, {"eps": 1e3}],
    ids=str,
)
def test_options(options):
    x, dy = ordinary((9, 6, 5, 4)), ordinary((9, 6, 5, 4), 1)
    assert same_bits(*both_ways(lambda: of_layer(x, dy, **options)))


@pytest.mark.parametrize("value", [1000.1, 1e-38, 3e38, 0.0])
def test_equal_numbers(value):
    x = np.full((50, 3, 4, 4), value, np.float32)
    assert same_bits(*both_ways(of_layer, x, ordinary(x.shape)))


def test_numbers_far_from_zero():
    x = ordinary((50, 8, 6, 6)) * np.float32(1e-3) + np.float32(1e4)
    assert same_bits(*both_ways(of_layer, x, ordinary(x.shape, 1)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions(dtype):
    x, dy = (hostile((12, 6, 9), dtype, seed) for seed in (0, 1))
    weight, bias, mean = (ordinary(6, seed).astype(dtype) for seed in (2, 3, 4))
    var = np.abs(ordinary(6, 5)).astype(dtype)

    def compute():
        xp = {"xp": EXACT.xp}
        given = {"mean": mean.astype(np.float64), "var": var.astype(np.float64)}
        x_, dy_, weight_, bias_ = (each.astype(np.float64) for each in (x, dy, weight, bias))
        found = [F.batch_norm(x_, weight_, bias_, **xp), F.batch_norm(x_, weight_, None, **given, **xp)]
        for options in ({}, given):
            found += F.batch_norm_backward(dy_, x_, weight_, **options, **xp)
            found += F.batch_norm_backward(dy_, x_, None, input_grad=False, **options, **xp)[1:]
        return found

    assert same_bits(*both_ways(compute))


def test_arrays_with_gaps_and_in_other_orders():
    x, dy = ordinary((6, 10, 8, 8)), ordinary((6, 10, 8, 8), 1)
    layouts = [x[::-1], np.ascontiguousarray(x.T).T, np.repeat(x, 2, axis=1)[:, ::2]]
    for each in layouts:
        assert same_bits(*both_ways(of_layer, each, dy))


def test_the_number_of_threads_has_no_effect(monkeypatch):
    x, dy = ordinary((8, 64, 16, 17)), ordinary((8, 64, 16, 17), 1)
    with using(Choices(kernels=True)):
        expected = of_layer(x, dy)
        for threads in (1, 3):
            monkeypatch.setenv("XPNN_NUM_THREADS", str(threads))
            assert same_bits(of_layer(x, dy), expected)


def test_float32_is_kept_for_backward(compiled_engine):
    layer = nn.BatchNorm2d(8, backend=EXACT)
    x = ordinary((4, 8, 5, 5))
    layer(x)
    assert layer.saved[0].state.rows.dtype == np.float32
