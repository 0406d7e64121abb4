"""Convolutions of exact numerics by compiled code: the same bits as array functions, in every corner."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.exact.splitting import budget
from xpnn.backends.execution import team
from xpnn.backends.overrides import Choices, using
from xpnn.layers.convolution import prepared
from xpnn.layers.convolution.conv import conv, conv_backward

pytest.importorskip("numba")
from xpnn.backends.engines.numba import _prepared, exact_products, exact_tiles
from xpnn.backends.engines.numba.exact_slices import scale_of

# Infinities and NaN are meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

ARRAYS, KERNELS = Choices(kernels=False), Choices(kernels=True, large=True)
BAD = [np.nan, np.inf, -np.inf, 2.0**601]


def exact(slice_products=2):
    return nn.get_backend("numpy", numerics="exact", slice_products=slice_products)


def images(shape, seed=0):
    """Channels last in memory, float32 values."""
    n, c, *spatial = shape
    x = np.random.default_rng(seed).standard_normal((n, *spatial, c)).astype(np.float32)
    return np.moveaxis(x.astype(np.float64), -1, 1)


def kernels(features, channels, *size, seed=9):
    return np.random.default_rng(seed).standard_normal((features, channels, *size)).astype("f4").astype("f8")


def convolved(b, x, w, bias=None, dy=None, **options):
    y = conv(x, w, bias, xp=b.xp, **options)
    dy = images(y.shape, 2) if dy is None else dy
    return (y, *conv_backward(dy, x, w, xp=b.xp, **options))


def both(compute):
    with using(ARRAYS):
        expected = compute()
    with using(KERNELS):
        return compute(), expected


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
        assert not np.signbit(a[a == 0]).any()


@pytest.fixture
def products(monkeypatch):
    """Chooses from which product of norms on products are cut in two, in place of 2**53."""

    def choose(bits):
        for job in (exact_products.judge_tiles, exact_products.judge_channels):
            monkeypatch.setattr(job, "_addresses", {})
        monkeypatch.setattr(exact_products, "MOST_SQUARE", 2.0 ** (2 * bits))

    return choose


TILED = [
    ((2, 16, 8, 8), 32, 1),
    ((3, 64, 16, 12), 48, 1),
    ((1, 32, 7, 10), 16, 0),
    ((2, 48, 9, 9), 16, ((2, 1), (0, 3))),
    ((5, 128, 4, 4), 160, 1),
    ((1, 272, 4, 4), 272, 1),
    ((0, 16, 8, 8), 16, 1),
]


@pytest.mark.parametrize("slice_products", [1, 2, 3])
@pytest.mark.parametrize(("shape", "features", "padding"), TILED)
def test_tiles_have_the_bits_of_sums_over_windows(slice_products, shape, features, padding):
    b, w = exact(slice_products), kernels(features, shape[1], 3, 3)
    bias = np.linspace(-1, 1, features)
    same(*both(lambda: convolved(b, images(shape), w, bias, padding=padding)))


COLUMNS = [
    ((2, 3, 9, 8), 8, 3, {"padding": 1}),
    ((2, 16, 9, 8), 32, 3, {"stride": 2, "padding": 1}),
    ((3, 20, 8, 12), 7, 1, {"stride": 2}),
    ((3, 70, 8, 12), 7, 1, {"stride": 3}),
    ((2, 5, 11, 10), 6, (3, 2), {"stride": (1, 2), "padding": ((2, 1), (0, 3)), "dilation": (2, 1)}),
    ((2, 512, 4, 4), 64, 3, {"stride": 2, "padding": 1}),
    ((4, 1, 28, 28), 6, 5, {"padding": 2}),
    ((2, 16, 2, 2), 16, 3, {"padding": 1}),
    ((2, 16, 8, 8), 16, 3, {"padding": ((3, 4), (0, 0))}),
    ((1, 1, 1, 1), 1, 1, {}),
    ((100, 24, 7, 7), 16, 3, {"stride": 2}),
    ((0, 3, 5, 5), 4, 3, {}),
    ((2, 6, 5, 5), 4, 3, {"groups": 2}),
]


@pytest.mark.parametrize("slice_products", [1, 2, 3])
@pytest.mark.parametrize(("shape", "features", "size", "options"), COLUMNS)
def test_columns_have_the_bits_of_array_functions(slice_products, shape, features, size, options):
    sizes = size if isinstance(size, tuple) else (size, size)
    b, w = exact(slice_products), kernels(features, shape[1] // options.get("groups", 1), *sizes)
    same(*both(lambda: convolved(b, images(shape), w, np.linspace(-1, 1, features), **options)))


def test_more_terms_than_a_float64_product_has():
    # One slice of 4096 terms and more, forward and in the gradients.
    assert budget(600 * 9, 1).wide and budget(4200, 1).wide
    b = exact(1)
    same(*both(lambda: convolved(b, images((1, 600, 5, 5)), kernels(4200, 600, 1, 1))))
    same(*both(lambda: convolved(b, images((2, 608, 5, 5)), kernels(16, 608, 3, 3), padding=1)))
    same(*both(lambda: convolved(b, images((90, 16, 8, 8)), kernels(16, 16, 3, 3), padding=1)))
    same(*both(lambda: convolved(b, images((90, 5, 8, 8)), kernels(4, 5, 3, 3), padding=1)))


def test_gradients_of_several_groups_of_tiles(monkeypatch):
    monkeypatch.setattr("xpnn.backends.engines.numba.exact_winograd_gradient.GROUP_TERMS", 1 << 8)
    _prepared.cache_clear()
    same(*both(lambda: convolved(exact(1), images((9, 16, 16, 16)), kernels(16, 16, 3, 3), padding=1)))
    _prepared.cache_clear()


@pytest.mark.parametrize("slice_products", [1, 2])
def test_the_largest_slices_are_exact(slice_products):
    # All numbers just below a power of two, with signs that add up in one point of the tiles: the worst case.
    b, shape = exact(slice_products), (2, 64, 8, 8)
    largest = np.float64(np.float32(1.0 - 2.0**-24))
    signs = np.where(np.indices(shape)[2:].sum(axis=0) % 2, 1.0, -1.0)
    x = np.moveaxis(np.ascontiguousarray(np.moveaxis(signs * largest, 1, -1)), -1, 1)
    w = np.where(np.indices((64, 64, 3, 3))[2:].sum(axis=0) % 2, largest, -largest)
    # Somewhat less, with all bits in use: sums of equal powers of two would be exact beyond 2**53.
    odd = np.random.default_rng(0).uniform(0.98, 1.0, x.shape).astype(np.float32)
    some = [x * odd, w * odd[0, :1, :3, :3]]
    same(*both(lambda: convolved(b, *some, dy=x * odd[::-1], padding=1)))
    found, expected = both(lambda: convolved(b, x, w, dy=x, padding=1))
    same(found, expected)
    # The sum of 576 equal products, in the middle of an image.
    assert abs(abs(found[0][0, 0, 4, 4]) / (576 * largest**2) - 1) <= 2.0**-18


@pytest.mark.parametrize("slice_products", [1, 2])
@pytest.mark.parametrize("bits", [0, 48])
def test_products_cut_in_two_have_the_same_bits(slice_products, bits, products):
    b = exact(slice_products)
    for shape, features in (((2, 64, 8, 8), 32), ((9, 16, 16, 16), 16), ((1, 272, 4, 4), 272)):
        x, w = images(shape), kernels(features, shape[1], 3, 3)
        with using(ARRAYS):
            expected = convolved(b, x, w, padding=1)
        products(bits)
        with using(KERNELS):
            same(convolved(b, x, w, padding=1), expected)


def test_a_norm_above_the_limit_is_noticed():
    # Equal numbers in a point of the tiles: the product of norms is the sum itself, beyond 2**53.
    b, shape = exact(), (1, 64, 8, 8)
    x, w = images(shape) * 0 + 0.99, np.full((16, 64, 3, 3), 0.99)
    seen = []
    outputs = exact_products.judge_tiles.bind_parts

    def watched(items, *arguments):
        seen.append(arguments[2])
        return outputs(items, *arguments)

    with pytest.MonkeyPatch.context() as patch, using(KERNELS):
        patch.setattr(exact_products.judge_tiles, "bind_parts", watched)
        conv(x, w, padding=1, xp=b.xp)
        x = images(shape) * 1e-3
        x[0, 0, 0, 0] = 1.0
        conv(x, kernels(16, 64, 3, 3), padding=1, xp=b.xp)
    assert [bool(flags[:, exact_products.POINTS].any()) for flags in seen] == [True, False]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}, {"stride": 2}, {"dilation": 2}])
@pytest.mark.parametrize("channels", [16, 5])
def test_a_number_that_is_not_finite_is_where_windows_put_it(bad, options, channels):
    b, clean = exact(), images((3, channels, 8, 8))
    w, dy = kernels(16, channels, 3, 3), None
    for place in ((1, 3, 2, 5), (1, 3, 7, 7), (2, 0, 1, 0)):
        x = clean.copy()
        x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        x[place] = bad
        same(*both(lambda x=x: convolved(b, x, w, **options)))
    y = conv(clean, w, xp=b.xp, **options)
    dy = images(y.shape, 4)
    dy[1, 2, 1, 1] = bad
    same(*both(lambda: convolved(b, clean, w, dy=dy, **options)))
    w[4, 2, 1, 1] = bad
    same(*both(lambda: convolved(b, clean, w, **options)))


@pytest.mark.parametrize("scale", [2.0**-460, 2.0**-420, 2.0**-130, 2.0**100, 2.0**598])
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}])
def test_numbers_of_very_different_magnitudes(scale, options):
    b, x = exact(), images((2, 16, 8, 8))
    x[:, ::3] *= scale
    x[1] *= 2.0**-30
    w = kernels(16, 16, 3, 3)
    w[::2] *= 2.0**-100
    same(*both(lambda: convolved(b, x, w, **options)))


def test_scales_are_those_of_array_functions():
    scale = exact().xp.contractions.elementary.contraction_scale
    powers = 2.0 ** np.array([-1074, -1001, -1000, -999, -401, -400, -399, -1, 0, 1, 599, 600, 601, 1023])
    for m in (*powers, *np.nextafter(powers, 0), *np.nextafter(powers, np.inf), 0.0, np.inf, np.nan):
        np.testing.assert_array_equal(scale_of(np.array([0.0, -m])), scale(np.array(m)))


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "stride": 2}])
def test_strided_inputs(options):
    b, w = exact(), kernels(16, 32, 3, 3)[:, ::2]
    x = images((4, 32, 9, 9))[::2, ::2, ::-1]
    same(*both(lambda: convolved(b, x, w, **options)))


def test_bits_do_not_depend_on_parts(monkeypatch):
    b, x, w = exact(), images((3, 32, 20, 12)), kernels(64, 32, 3, 3)
    with using(KERNELS):
        expected = convolved(b, x, w, padding=1)
        for part, large in ((1 << 16, 6 << 20), (1 << 18, 1), (1 << 24, 1)):
            monkeypatch.setattr(exact_tiles, "PART_BYTES", part)
            monkeypatch.setattr(exact_tiles, "LARGE_BYTES", large)
            _prepared.cache_clear()
            same(convolved(b, x, w, padding=1), expected)
    _prepared.cache_clear()


class Pair:
    """A team of two threads, of which each has some rows."""

    def __init__(self, rows):
        self._rows, self._barrier, self._given = rows, threading.Barrier(2), {}

    def _join(self, array, function):
        self._given[threading.get_ident()] = array
        self._barrier.wait(20)
        first, second = self._given.values()
        assert first.shape == second.shape and first.dtype == second.dtype
        result = function(first, second)
        self._barrier.wait(20)
        return result

    def max(self, array):
        return self._join(array, np.maximum)

    def sum(self, array):
        return self._join(array, np.add)

    def rows(self, n):
        return self._rows

    def slice(self, n):
        return 0, n


@pytest.mark.parametrize("slice_products", [1, 2])
@pytest.mark.parametrize(("channels", "options"), [(16, {"padding": 1}), (16, {"padding": 1, "stride": 2}), (5, {})])
@pytest.mark.parametrize("samples", [0.0, 2.5])
@pytest.mark.parametrize("first", [0, 2])
def test_workers_with_and_without_kernels_have_one_gradient(
    monkeypatch, slice_products, channels, options, samples, first
):
    """Kernels compute parts of more than some samples."""
    b, x, w = exact(slice_products), images((5, channels, 8, 8)), kernels(16, channels, 3, 3)
    dy = images(conv(x, w, xp=b.xp, **options).shape, 4)
    pair = Pair(dy.shape[0] * dy.shape[2] * dy.shape[3])
    with using(ARRAYS):
        expected = conv_backward(dy, x, w, xp=b.xp, input_grad=False, **options)[1]
    monkeypatch.setattr(prepared, "MIN_MULTIPLY_ADDS", int(samples * dy[0].size * channels * 9))

    def work(part):
        with team.joined(pair):
            return conv_backward(dy[part], x[part], w, xp=b.xp, input_grad=False, **options)[1]

    # The choice is that of the process.
    with using(replace(KERNELS, large=False)), ThreadPoolExecutor(2) as threads:
        found = list(threads.map(work, (slice(0, first), slice(first, 5))))
    for gradient in found:
        np.testing.assert_array_equal(gradient, expected)


def test_a_net_trains_with_the_same_bits_with_and_without_kernels():
    def trained(slice_products):
        net = nn.Sequential(
            *(
                nn.Conv2d(3, 16, 3, padding=1),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
            ),
            *(nn.Conv2d(32, 32, 3, stride=2), nn.ReLU(), nn.GlobalAvgPool(), nn.Flatten(), nn.Dense(32, 4)),
            backend=exact(slice_products),
            seed=0,
        )
        b = net.backend
        optimizer, loss = nn.Adam(net), nn.CrossEntropy(backend=b)
        x, y = b.asarray(np.random.default_rng(0).random((4, 3, 16, 16), np.float32)), b.asarray(np.arange(4))
        for _ in range(2):
            optimizer.zero_grad()
            loss(net(x), y)
            net.backward(loss.backward())
            optimizer.step()
        return list(net.state_dict().values())

    for slice_products in (1, 2, 3):
        for a, b in zip(*both(lambda k=slice_products: trained(k)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_threads(threads, monkeypatch):
    b, x = exact(), images((3, 32, 12, 12))
    same(*both(lambda: convolved(b, x, kernels(32, 32, 3, 3), padding=1)))
    monkeypatch.setattr("xpnn.backends.engines.numba.pool.thread_count", lambda: threads)
    same(*both(lambda: convolved(b, x, kernels(32, 32, 3, 3), padding=1)))
    same(*both(lambda: convolved(b, x, kernels(32, 32, 3, 3), padding=1, stride=2)))
