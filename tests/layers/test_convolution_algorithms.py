"""Winograd's tiles and band matrices at small shapes, against loops; and which algorithm is chosen for a shape.

Inside, channels come last: ``x (N, *S, C)``, ``y (N, *O, F)``.
"""

from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from math import prod

import numpy as np
import oracles
import pytest

import xpnn as nn
from xpnn.backends import operations_of
from xpnn.backends.contractions.windows import Windows
from xpnn.layers.convolution import Banded, Problem, Winograd, algorithm, banded, columns, winograd
from xpnn.layers.convolution import winograd_tiles as tiles
from xpnn.layers.convolution import winograd_transforms as transforms
from xpnn.testing import assert_match
from xpnn.testing.tolerances import tolerance

SIZES = [2, 4, 5]


def describe(spatial, channels, features, kernel, pads=None, stride=None, dilation=None, samples=2, rotated=False):
    """A problem in float32 from the sizes of its input."""
    ones = (1,) * len(spatial)
    pads, stride, dilation = pads or ((0, 0),) * len(spatial), stride or ones, dilation or ones
    count = oracles.window_counts(spatial, kernel, stride, pads, dilation)
    windows = Windows(tuple(kernel), stride, dilation, count)
    return Problem(samples, spatial, channels, features, 1, windows, pads, "float32", rotated)


@cache
def solved(problem):
    """Operands, channels last, and the results of loops: ``x, weight, bias, dy, y, dweight``.

    A rotated weight belongs to a convolution from features to channels; the loops take it turned.
    """
    rng = np.random.default_rng(11)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    x, dy, bias = draw(*problem.x_shape), draw(*problem.y_shape), draw(problem.features)
    weight = draw(problem.features, problem.channels, *problem.windows.kernel)
    w = problem.windows
    given = (w.stride, problem.padding, w.dilation)
    first = (np.moveaxis(x, -1, 1), weight)
    y = oracles.conv_forward(*first, bias, *given)
    _, dweight, _ = oracles.conv_backward(np.moveaxis(dy, -1, 1), *first, *given)
    if problem.rotated:
        weight = np.ascontiguousarray(np.flip(weight, axis=tuple(range(2, weight.ndim))).swapaxes(0, 1))
    return x, weight, bias, dy, np.moveaxis(y, 1, -1), dweight


def check(at, chosen, problem, row, lay=lambda at, host: at.put(host)):
    """Forward and, unless rotated, the gradient of the weight, on a backend."""
    ops = operations_of(at.xp)
    x, weight, bias, dy, y, dweight = solved(problem)
    ax, aw, ab, ady = (lay(at, a) for a in (x, weight, bias, dy))
    for b, desired in ((ab, y), (None, y - bias)):
        found = chosen.forward(ax, aw, b, problem, ops)
        assert tuple(found.shape) == problem.y_shape
        compare(at, found, desired, row, "forward", problem.windows.cells * problem.channels)
    if not problem.rotated:
        found = chosen.weight_gradient(ax, ady, problem, ops)
        # A tile at the edge sums over all its points, also those outside the output.
        terms = prod(problem.windows.count)
        if isinstance(chosen, Winograd):
            terms = prod(tiles.Tiling(problem, chosen.m).grid) * (chosen.m + 2) ** 2 or terms
        compare(at, found, dweight, row, "parameter", problem.samples * terms)


def compare(at, found, desired, row, part, terms):
    host = at.get(found)
    assert host.dtype == np.float32 and host.shape == desired.shape
    limit = tolerance(row, "float32", terms, part) * np.abs(desired).max(initial=0.0)
    assert np.abs(host - desired).max(initial=0.0) <= limit


@pytest.fixture(autouse=True)
def only_with_views(request):
    if "at" in request.fixturenames:
        at = request.getfixturevalue("at")
        if not operations_of(at.xp).views:
            pytest.skip("slices of this backend's arrays are copies, and the chooser picks columns")


PLANES = {
    "tiles fit": describe((6, 10), 3, 2, (3, 3), ((1, 1), (1, 1))),
    "one cell over": describe((7, 11), 2, 3, (3, 3), ((1, 1), (1, 1))),
    "no padding": describe((7, 6), 2, 2, (3, 3)),
    "asymmetric padding": describe((5, 6), 2, 2, (3, 3), ((2, 0), (0, 3))),
    "one output": describe((3, 3), 3, 2, (3, 3)),
    "one sample": describe((8, 5), 2, 2, (3, 3), ((1, 1), (1, 1)), samples=1),
    "rotated": describe((6, 7), 3, 2, (3, 3), ((1, 1), (2, 0)), rotated=True),
    "empty batch": describe((6, 6), 2, 3, (3, 3), ((1, 1), (1, 1)), samples=0),
}
every_plane = pytest.mark.parametrize("problem", PLANES.values(), ids=PLANES)
every_size = pytest.mark.parametrize("m", SIZES)


@every_size
@every_plane
def test_tiles_match_loops(at, problem, m):
    assert not tiles.Tiling(problem, m).is_large
    check(at, Winograd(m), problem, f"Winograd F{m}")


@every_size
@every_plane
def test_tiles_match_loops_where_workers_share_the_filters(at, problem, m, monkeypatch):
    """One sample is in memory at a time, so that the results of several parts are joined."""
    monkeypatch.setattr(tiles, "SHARE_FILTERS_BYTES", 0)
    monkeypatch.setattr(tiles, "INPUT_TILES_BYTES", 1)
    tiling = tiles.Tiling(problem, m)
    assert tiling.is_large and len(tiling.sample_groups()) == max(1, problem.samples)
    check(at, Winograd(m), problem, f"Winograd F{m}")


@pytest.mark.parametrize("spatial", [(1, 0), (0, 1), (0, 0)])
def test_tiles_do_not_serve_an_empty_output(spatial):
    """The gradient of the input of a convolution without cells, with padding of 2, has an output without cells."""
    problem = describe(spatial, 1, 1, (3, 3), ((2, 2), (2, 2)), samples=1)
    assert winograd.serves(problem) and problem.adjoint is not None
    assert not winograd.serves(problem.adjoint)


@every_size
def test_tiles_match_loops_where_each_worker_computes_few_filters(at, m, monkeypatch):
    problem = describe((5, 6), 2, 37, (3, 3), ((1, 1), (1, 1)))
    monkeypatch.setattr(tiles, "SHARE_FILTERS_BYTES", 0)
    monkeypatch.setattr(tiles, "UNPACKED_PRODUCT", 2 * 16 * tiles.Tiling(problem, m).tiles(whole(problem, m)) + 1)
    assert len(tiles.Tiling(problem, m).filters(tiles.Tiling(problem, m).tiles(whole(problem, m)))) > 1
    check(at, Winograd(m), problem, f"Winograd F{m}")


def whole(problem, m):
    """All tiles as one block."""
    return tiles.Block(slice(0, problem.samples), slice(0, tiles.Tiling(problem, m).grid[0]))


@every_size
@pytest.mark.parametrize("name", ["one cell over", "asymmetric padding", "rotated"])
def test_tiles_match_loops_in_blocks_of_one_row(at, name, m, monkeypatch):
    problem = PLANES[name]
    monkeypatch.setattr(tiles, "BLOCK_BYTES", 1)
    monkeypatch.setattr(tiles, "UNPACKED_PRODUCT", 0)
    blocks = tiles.Tiling(problem, m).blocks(0, problem.samples)
    assert len(blocks) == problem.samples * tiles.Tiling(problem, m).grid[0]
    check(at, Winograd(m), problem, f"Winograd F{m}")


def test_more_blocks_than_lanes_add_up_to_the_weight_s_gradient(at, monkeypatch):
    problem = describe((4, 4), 2, 2, (3, 3), ((1, 1), (1, 1)), samples=11)
    monkeypatch.setattr(tiles, "BLOCK_BYTES", 1)
    monkeypatch.setattr(tiles, "UNPACKED_PRODUCT", 0)
    assert len(tiles.Tiling(problem, 2).blocks(0, 11)) > winograd.PARTIAL_SUMS
    check(at, Winograd(2), problem, "Winograd F2")


def permuted(at, host):
    """The same values, axes in another order in memory."""
    order = tuple(reversed(range(host.ndim)))
    return at.xp.permute_dims(at.put(np.ascontiguousarray(host.transpose(order))), order)


def spread_out(at, host):
    """The same values with NaN between them."""
    wide = np.full(tuple(2 * n for n in host.shape), np.nan, np.float32)
    wide[(slice(None, None, 2),) * host.ndim] = host
    return at.put(wide)[(slice(None, None, 2),) * host.ndim]


@pytest.mark.parametrize("lay", [permuted, spread_out])
@pytest.mark.parametrize("large", [0, tiles.SHARE_FILTERS_BYTES], ids=["filters are shared", "tiles are shared"])
def test_tiles_accept_any_memory_layout(at, lay, large, monkeypatch):
    monkeypatch.setattr(tiles, "SHARE_FILTERS_BYTES", large)
    check(at, Winograd(4), PLANES["one cell over"], "Winograd F4", lay)
    check(at, Winograd(4), PLANES["no padding"], "Winograd F4", lay)


ROWS = {
    "line": (describe((12,), 2, 3, (3,), ((1, 1),)), (2, 3, 12)),
    "line, stride 2": (describe((9,), 2, 3, (3,), ((1, 0),), stride=(2,)), (2, 4)),
    "line, kernel 1": (describe((6,), 3, 2, (1,)), (2, 6)),
    "line, stride as the kernel": (describe((12,), 2, 3, (2,), stride=(2,)), (3,)),
    "line, rotated": (describe((6,), 2, 3, (3,), ((2, 1),), rotated=True), (7,)),
    "plane": (describe((5, 6), 2, 3, (3, 3), ((1, 1), (1, 1))), (2, 3, 6)),
    "plane, asymmetric padding": (describe((4, 6), 1, 2, (2, 3), ((0, 2), (3, 1))), (2, 4, 8)),
    "plane, strides": (describe((7, 8), 2, 2, (3, 3), ((1, 1), (1, 0)), stride=(3, 2)), (2, 4)),
    "plane, dilated rows": (describe((7, 6), 2, 2, (3, 2), ((1, 1), (0, 1)), dilation=(2, 1)), (2, 3)),
    "plane, one sample": (describe((5, 6), 2, 3, (3, 3), ((1, 1), (1, 1)), samples=1), (3,)),
    "plane, rotated": (describe((5, 6), 3, 2, (3, 2), ((1, 1), (1, 0)), rotated=True), (2, 3)),
    "space": (describe((3, 4, 4), 2, 2, (2, 3, 3), ((1, 0), (0, 0), (1, 1)), stride=(1, 2, 1)), (2, 4)),
    "empty batch": (describe((5, 6), 2, 3, (3, 3), ((1, 1), (1, 1)), samples=0), (3,)),
}
BANDS = [pytest.param(problem, t, id=f"{name}, t={t}") for name, (problem, sizes) in ROWS.items() for t in sizes]


@pytest.mark.parametrize(("problem", "t"), BANDS)
def test_bands_match_loops(at, problem, t):
    check(at, Banded(t), problem, "banded convolution")


@pytest.mark.parametrize("lay", [permuted, spread_out])
def test_bands_accept_any_memory_layout(at, lay):
    check(at, Banded(2), ROWS["plane"][0], "banded convolution", lay)


@pytest.mark.parametrize("points", [*transforms.POINTS.values(), (0.0, 0.5, 2.0), (0.25, -0.25, 1.0, -3.0, 2.0)])
def test_transforms_are_a_correlation_in_exact_fractions(points):
    """Products of polynomials at ``n - 1`` points and infinity, interpolated, are sums of products."""
    m = len(points) - 1
    points = tuple(Fraction(point).limit_denominator(1000) for point in points)
    inputs, kernels, outputs = transforms.transforms.__wrapped__(points, m)
    rng = np.random.default_rng(5)
    data = [Fraction(int(v), 7) for v in rng.integers(-9, 9, m + 2)]
    kernel = [Fraction(int(v), 5) for v in rng.integers(-9, 9, 3)]

    def times(matrix, vector):
        return [sum(Fraction(a) * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    products = [a * b for a, b in zip(times(inputs, data), times(kernels, kernel), strict=True)]
    assert times(outputs, products) == [sum(kernel[j] * data[i + j] for j in range(3)) for i in range(m)]


@every_size
def test_transforms_have_the_polynomials_of_their_points(m):
    points = transforms.POINTS[m]
    inputs, kernels, outputs = (np.asarray(a) for a in transforms.transforms(points, m))
    n = m + 2
    assert inputs.shape == (n, n) and kernels.shape == (n, 3) and outputs.shape == (m, n)
    for j, row in enumerate(inputs):
        others = [point for k, point in enumerate(points) if k != j]
        np.testing.assert_allclose(np.trim_zeros(row, "b"), np.poly(others)[::-1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(outputs[:, :-1], np.vander(points, m, increasing=True).T, rtol=1e-14)
    assert outputs[:, -1].tolist() == [0.0] * (m - 1) + [1.0] and kernels[-1].tolist() == [0.0, 0.0, 1.0]


@every_size
def test_kronecker_product_transforms_both_sides(m):
    inputs = transforms.transforms(transforms.POINTS[m], m)[0]
    assert np.array_equal(transforms.kronecker(inputs), np.kron(inputs, inputs))


def conv_case(channels, features, size=12, samples=4, **changes):
    problem = describe((size, size), channels, features, (3, 3), ((1, 1), (1, 1)), samples=samples)
    return replace(problem, **changes)


@pytest.mark.usefixtures("array_functions")
@pytest.mark.parametrize(
    ("problem", "chosen"),
    [
        (conv_case(64, 64), "F4"),
        (conv_case(64, 64, size=10, samples=32), "F5"),
        (conv_case(48, 48, size=8), "F2"),
        (conv_case(64, 64, algorithms="direct"), "columns"),
        (conv_case(64, 64, dtype="float64"), "columns"),
        (conv_case(64, 64, groups=2), "columns"),
        (conv_case(31, 64), "columns"),
        (conv_case(64, 31), "columns"),
        (conv_case(64, 64, size=4, samples=1), "columns"),
        (conv_case(64, 64, samples=0), "columns"),
        (conv_case(3, 32, size=32), "banded"),
        (conv_case(3, 32, size=32, dtype="float64"), "banded"),
        (conv_case(3, 32, size=32, algorithms="direct"), "columns"),
        (conv_case(3, 6, size=8), "columns"),
        (conv_case(17, 8, size=32), "columns"),
        (describe((40, 40), 3, 32, (3, 3), dilation=(1, 2)), "columns"),
    ],
)
def test_shape_dtype_and_algorithms_choose_the_algorithm(problem, chosen):
    host = nn.get_backend("numpy")
    assert name_of(algorithm(problem, operations_of(host.xp))) == chosen


def name_of(found):
    if isinstance(found, Winograd):
        return f"F{found.m}"
    return "banded" if isinstance(found, Banded) else found.__name__.rpartition(".")[2]


def test_exact_numerics_uses_columns(exact):
    for problem in (conv_case(64, 64), conv_case(3, 32, size=32)):
        assert algorithm(problem, operations_of(exact.xp)) is columns


def test_neighbours_divide_the_width():
    for width in (1, 2, 7, 12, 30, 97):
        problem = describe((400, width + 2), 3, 16, (3, 3), samples=8)
        assert problem.windows.count[1] == width and width % banded.neighbours(problem) == 0


LAYERS = {
    "Winograd F2": (partial(nn.Conv2d, 48, 40, 3, padding=1), (4, 48, 8, 8)),
    "Winograd F4": (partial(nn.Conv2d, 40, 33, 3, padding=((1, 1), (2, 0))), (4, 40, 12, 15)),
    "Winograd F5": (partial(nn.Conv2d, 64, 64, 3, padding=1), (24, 64, 10, 10)),
    "filters shared": (partial(nn.Conv2d, 152, 150, 3, padding=1), (3, 152, 12, 8)),
    "banded": (partial(nn.Conv2d, 3, 32, 3, padding=1), (4, 3, 30, 32)),
    "columns": (partial(nn.Conv2d, 32, 32, 3, stride=2), (8, 32, 21, 21)),
}
every_layer = pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS)


def step(layer, x, dy):
    """Output and gradients of input, weight and bias."""
    layer.zero_grad()
    y = layer(x)
    return [y, layer.backward(dy), *(p.grad for p in layer.parameters.values())]


def drawn(build, shape):
    """A layer on NumPy, its input and upstream gradient."""
    rng, layer = np.random.default_rng(3), build(backend="numpy", seed=3)
    x = rng.standard_normal(shape).astype(np.float32)
    return layer, x, rng.standard_normal(layer(x).shape).astype(np.float32)


def alike(layer, build, backend, dtype=None):
    """The layer on another backend."""
    other = build(backend=nn.get_backend(backend, dtype))
    other.load_state_dict(layer.state_dict())
    return other


@every_layer
def test_layer_matches_float64_by_columns(at, build, shape):
    layer, x, dy = drawn(build, shape)
    desired = step(alike(layer, build, "numpy", "float64"), x.astype(float), dy.astype(float))
    found = step(alike(layer, build, at.backend), at.put(x), at.put(dy))
    lengths = (9 * shape[1], 9 * layer.out_channels, *(shape[0] * prod(dy.shape[2:]),) * 2)
    for a, d, terms in zip(found, desired, lengths, strict=True):
        host = at.get(a)
        assert np.abs(host - d).max() <= tolerance("Winograd F5", "float32", terms) * np.abs(d).max()


@every_layer
def test_bits_do_not_depend_on_the_number_of_threads(build, shape, monkeypatch):
    layer, x, dy = drawn(build, shape)
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNN_NUM_THREADS", threads)
        results.append([array.tobytes() for array in step(layer, x, dy)])
    assert results[0] == results[1] == results[2]


def test_direct_algorithms_have_the_precision_of_columns():
    build, shape = LAYERS["Winograd F4"]
    layer, x, dy = drawn(build, shape)
    options = {"padding": layer.padding, "algorithms": "direct"}
    weight, bias = (p.value for p in layer.parameters.values())
    y = nn.functional.conv(x, weight, bias, **options)
    desired = alike(layer, build, "numpy", "float64")(x.astype(float))
    assert_match(y, desired, level="convolution", terms=9 * shape[1], dtype="float32")
    assert not np.array_equal(y, layer(x))
    dx, _, _ = nn.functional.conv_backward(dy, x, weight, **options)
    assert not np.array_equal(dx, step(layer, x, dy)[1])


@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("transposed", [False, True])
def test_layers_of_a_backend_with_direct_algorithms_use_no_others(at, precision, transposed):
    build = partial(nn.ConvTranspose2d if transposed else nn.Conv2d, 40, 40, 3, padding=1)
    forward = nn.functional.conv_transpose if transposed else nn.functional.conv
    backward = nn.functional.conv_transpose_backward if transposed else nn.functional.conv_backward
    rng = np.random.default_rng(3)
    x, dy = (rng.standard_normal((4, 40, 12, 12)).astype(np.float32) for _ in range(2))
    results = {}
    for algorithms in ("any", "direct"):
        b = nn.get_backend(at.backend, precision=precision, algorithms=algorithms)
        layer = build(backend=b, seed=3)
        weight, bias = (p.value for p in layer.parameters.values())
        options = {"padding": 1, "algorithms": algorithms, "xp": b.xp}
        y = forward(at.put(x), weight, bias, **options)
        results[algorithms] = [y, *backward(at.put(dy), at.put(x), weight, **options)]
        results[algorithms] = [at.get(each) for each in results[algorithms]]
        found = [at.get(each) for each in step(layer, at.put(x), at.put(dy))]
        assert all(np.array_equal(a, d) for a, d in zip(found, results[algorithms], strict=True))
    # Winograd's tiles serve this shape where slices are views.
    same = np.array_equal(results["any"][0], results["direct"][0])
    assert same != operations_of(at.xp).views


def test_cells_that_no_window_reads_have_no_influence_at_small_sizes(at):
    """Nor does a NaN reach outputs whose windows don't hold it."""
    x = np.ones((1, 1, 5, 6), np.float32)
    x[0, 0, 4], x[0, 0, :, 5] = np.nan, np.nan
    weight = at.put(np.ones((1, 1, 2, 3), np.float32))
    assert at.get(nn.functional.conv(at.put(x), weight, stride=(2, 3)))[0, 0, :, 0].tolist() == [6, 6]
    y = at.get(nn.functional.conv(at.put(x), weight))
    assert np.isfinite(y[0, 0, :3, :3]).all() and np.isnan(y[0, 0, 3]).all() and np.isnan(y[0, 0, :, 3]).all()
