"""Norms and pools of infinite, NaN, huge and tiny numbers: which results they change, and which they do not."""

import numpy as np
import pytest

import xpnn as nn

INF, NAN = float("inf"), float("nan")
F = nn.functional
SPECIALS = [INF, -INF, NAN]
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# A norm, the shape of its input, and which of its values share a mean with the first.
NORMS = {
    "batch": (lambda b: nn.BatchNorm2d(3, backend=b), (4, 3, 2, 5), (slice(None), 0)),
    "batch, large": (lambda b: nn.BatchNorm2d(8, backend=b), (32, 8, 32, 32), (slice(None), 0)),
    "instance": (lambda b: nn.InstanceNorm1d(3, affine=True, backend=b), (2, 3, 7), (0, 0)),
    "group": (lambda b: nn.GroupNorm(2, 4, backend=b), (2, 4, 3), (0, slice(2))),
    "layer": (lambda b: nn.LayerNorm(6, backend=b), (3, 6), (0,)),
}
norms = pytest.mark.parametrize(("make", "shape", "group"), NORMS.values(), ids=NORMS.keys())


def channels_last(host):
    """The same numbers with the channels last in memory, for images."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(host, 1, -1)), -1, 1) if host.ndim == 4 else host


def passes(layer, host):
    """Output and gradient on the host."""
    b = layer.backend
    x = b.asarray(channels_last(host))
    y = layer(x)
    dy = b.asarray(channels_last(np.linspace(-1, 1, host.size, dtype=host.dtype).reshape(host.shape)))
    return b.to_numpy(y), b.to_numpy(layer.backward(dy))


def require_group_is_nan(make, shape, group, value, backend):
    host = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    clean = passes(make(backend), host)
    host[(0,) * host.ndim] = value
    inside = np.zeros(shape, bool)
    inside[group] = True
    for found, before in zip(passes(make(backend), host), clean, strict=True):
        np.testing.assert_array_equal(np.isnan(found), inside)
        np.testing.assert_array_equal(found[~inside], before[~inside])


@norms
@pytest.mark.parametrize("value", SPECIALS)
def test_nan_or_infinity_makes_only_its_group_nan(at, make, shape, group, value):
    require_group_is_nan(make, shape, group, value, at.backend)


@norms
@pytest.mark.parametrize("value", SPECIALS)
def test_compiled_norms_have_the_same_limits(compiled_kernels, make, shape, group, value):
    require_group_is_nan(make, shape, group, value, nn.get_backend("numpy"))


@norms
def test_a_variance_that_overflows_is_nan_and_not_the_bias(at, make, shape, group):
    for value in (1e30, -3e38):
        require_group_is_nan(make, shape, group, value, at.backend)


@norms
def test_a_variance_that_overflows_is_nan_in_compiled_norms(compiled_kernels, make, shape, group):
    require_group_is_nan(make, shape, group, 1e30, nn.get_backend("numpy"))


@norms
def test_exact_numerics_have_the_range_for_huge_numbers(exact, make, shape, group):
    host = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    wanted = passes(make(nn.get_backend("numpy", "float64")), host.astype(np.float64) * 1e30)
    for found, want in zip(passes(make(exact), host * np.float32(1e30)), wanted, strict=True):
        np.testing.assert_allclose(found, want, rtol=2e-5, atol=1e-6 * np.abs(want).max())


@norms
def test_tiny_numbers_are_normalised_as_equal_ones(at, make, shape, group):
    for value in (1e-30, 1e-42):
        y, dx = passes(make(at.backend), np.full(shape, value, np.float32))
        assert np.abs(y).max() <= 1e-20
        assert np.isfinite(dx).all()


def test_output_of_a_given_infinite_variance_is_the_bias(at):
    """As in PyTorch."""
    x, ones = at.put(np.ones((3, 2, 4), np.float32)), at.put(np.ones(2, np.float32))
    y = F.batch_norm(x, ones, 3.0 * ones, mean=0.0 * ones, var=INF * ones)
    np.testing.assert_array_equal(at.get(y), np.full((3, 2, 4), 3.0, np.float32))


# A pool, and its output over windows of 2 of [value, 1, 3, 2, 5, 4] and its gradient for ones: first window, others.
POOLS = {
    "max": (lambda b: nn.MaxPool1d(2, backend=b), {INF: (INF, [1, 0]), -INF: (1, [0, 1]), NAN: (NAN, [1, 0])}),
    "adaptive max": (
        lambda b: nn.AdaptiveMaxPool1d(3, backend=b),
        {INF: (INF, [1, 0]), -INF: (1, [0, 1]), NAN: (NAN, [1, 0])},
    ),
    "average": (lambda b: nn.AvgPool1d(2, backend=b), {v: (v, [0.5, 0.5]) for v in SPECIALS}),
    "adaptive average": (lambda b: nn.AdaptiveAvgPool1d(3, backend=b), {v: (v, [0.5, 0.5]) for v in SPECIALS}),
    "Lp, 1": (lambda b: nn.LpPool1d(1, 2, backend=b), {INF: (INF, [1, 1]), -INF: (INF, [-1, 1]), NAN: (NAN, [NAN, 1])}),
    "Lp, 2": (
        lambda b: nn.LpPool1d(2, 2, backend=b),
        {INF: (INF, [1, 0]), -INF: (INF, [-1, 0]), NAN: (NAN, [NAN] * 2)},
    ),
    "Lp, 3": (
        lambda b: nn.LpPool1d(3, 2, backend=b),
        {INF: (INF, [1, 0]), -INF: (INF, [-1, 0]), NAN: (NAN, [NAN] * 2)},
    ),
}
CLEAN = np.array([2.0, 1.0, 3.0, 2.0, 5.0, 4.0], np.float32)
pools = pytest.mark.parametrize(("make", "table"), POOLS.values(), ids=POOLS.keys())


def pooled(layer, first, channels=1, samples=1):
    b = layer.backend
    host = CLEAN.copy()
    host[0] = first
    x = b.asarray(np.ascontiguousarray(np.broadcast_to(host, (samples, channels, 6))))
    y = layer(x)
    return b.to_numpy(y), b.to_numpy(layer.backward(b.xp.ones_like(y)))


def require_pool(make, table, backend, **sizes):
    clean = pooled(make(backend), 2.0, **sizes)
    for value, (first, slopes) in table.items():
        y, dx = pooled(make(backend), value, **sizes)
        if backend.numerics == "exact" and isinstance(make(backend), nn.AdaptiveAvgPool1d):
            first = NAN  # like every sum with an infinity in exact numerics
        np.testing.assert_array_equal(y[..., 0], np.full(y.shape[:2], first, np.float32))
        np.testing.assert_array_equal(y[..., 1:], clean[0][..., 1:])
        np.testing.assert_array_equal(dx[..., 2:], clean[1][..., 2:])
        np.testing.assert_array_equal(dx[..., :2], np.broadcast_to(np.array(slopes, np.float32), (*y.shape[:2], 2)))


@pools
def test_a_window_has_the_limit_and_others_are_unchanged(at, make, table):
    require_pool(make, table, at.backend)


@pools
def test_a_window_has_the_limit_and_others_are_unchanged_in_exact_numerics(exact, make, table):
    require_pool(make, table, exact)


@pools
def test_compiled_pools_have_the_same_limits(compiled_kernels, make, table):
    require_pool(make, table, nn.get_backend("numpy"), channels=32, samples=4096)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_global_norm_of_an_infinite_cell(at, p):
    layer = nn.GlobalLpPool(p, backend=at.backend)
    x = at.put(np.array([[[-INF, 1.0, 2.0]]], np.float32))
    y = layer(x)
    assert at.get(y).item() == INF
    rest = 1.0 if p == 1.0 else 0.0
    assert at.get(layer.backward(at.xp.ones_like(y))).reshape(-1).tolist() == [-1.0, rest, rest]
