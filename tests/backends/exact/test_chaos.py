"""The chaos namespace varies all that the standard leaves open, and nothing else.

Each kind of freedom is tested with all others fixed: its results must differ between seeds, and with all kinds fixed
they must not. So a kind that stops varying fails here even if others still vary.
"""

import copy
import operator
import pickle

import array_api_compat
import numpy as np
import pytest
from chaos import RULE_OF, ChaosBackend, chaos, chaos_backend, register
from chaos_array import ChaosArray
from chaos_sums import KINDS

import xpnn as nn
from xpnn.backends import backend_of, operations_of, registry
from xpnn.backends.operations import Operations
from xpnn.testing import ulp_distance

SEEDS = range(12)
NUMBERS = np.random.default_rng(7).standard_normal((6, 40))
POSITIVE = np.abs(NUMBERS) + 0.5
INSIDE = np.tanh(NUMBERS)
# Sums and products of a row stay of a size, and lose bits at every step.
ROUGH = np.exp(0.3 * np.random.default_rng(8).standard_normal((8, 120)))
# Sums of few terms of either sign show how their products were rounded.
SHORT = NUMBERS[:, :7]
ZEROS = np.array([0.0, -0.0, 0.0, -0.0] * 3)
NANS = np.full(12, np.nan)
EQUAL = np.asarray([1.0, 0.0] * 8)
SQUARE = np.eye(4) * 3 + NUMBERS[:4, :4] / 4
ELEMENTARY = {
    **dict.fromkeys("asin acos atan atanh cos cosh exp expm1 log1p sin sinh tan tanh".split(), INSIDE),  # noqa: SIM905
    **dict.fromkeys("acosh asinh log log10 log2 reciprocal".split(), POSITIVE + 1),  # noqa: SIM905
}
SUMS = {
    "sum": lambda xp, x: xp.sum(x, axis=1),
    "sum of all": lambda xp, x: xp.sum(x),
    "prod": lambda xp, x: xp.prod(x, axis=-1),
    "mean": lambda xp, x: xp.mean(x, axis=(1,), keepdims=True),
    "var": lambda xp, x: xp.var(x, axis=1),
    "std": lambda xp, x: xp.std(x, axis=1, correction=1),
    "cumulative_sum": lambda xp, x: xp.cumulative_sum(x, axis=1),
    "cumulative_prod": lambda xp, x: xp.cumulative_prod(x, axis=1, include_initial=True),
    "trace": lambda xp, x: xp.linalg.trace(xp.reshape(x, (-1, 8, 5))),
    "matmul": lambda xp, x: xp.matmul(x, x.T),
    "matmul of a stack": lambda xp, x: xp.matmul(xp.stack([x, x + 1]), x.T),
    "matmul of vectors": lambda xp, x: xp.stack([xp.matmul(x[i, :], x[i + 1, :]) for i in range(5)]),
    "@": lambda xp, x: x @ x.T,
    "tensordot": lambda xp, x: xp.tensordot(x, x, axes=((1,), (1,))),
    "vecdot": lambda xp, x: xp.vecdot(x, x),
    "linalg.matmul": lambda xp, x: xp.linalg.matmul(x, x.T),
    "linalg.tensordot": lambda xp, x: xp.linalg.tensordot(x, x.T, axes=1),
    "linalg.vecdot": lambda xp, x: xp.linalg.vecdot(x, x, axis=0),
}
CONTRACTIONS = {name: f for name, f in SUMS.items() if "mat" in name or "dot" in name or name == "@"}


def divided_in_place(xp, x):
    x /= 3
    return x


def through_a_view(xp, x):
    y = x[:, 1:]
    y[...] = 5.0
    return x


def through(function):
    def write(xp, x):
        y = function(xp, x)
        x[...] = 5.0
        return y

    return write


# kind -> name -> (what is computed, of what, in which dtypes)
BOTH = ("float32", "float64")
OPEN = {
    "order": {name: (f, ROUGH, BOTH) for name, f in SUMS.items()},
    "width": {name: (f, ROUGH, BOTH) for name, f in SUMS.items()},
    "fma": {name: (f, SHORT, BOTH) for name, f in CONTRACTIONS.items()},
    "ulp": {
        **{name: (lambda xp, x, name=name: getattr(xp, name)(x), x, BOTH) for name, x in ELEMENTARY.items()},
        "exp(0)": (lambda xp, x: xp.exp(x), np.zeros(20), BOTH),
        "pow": (lambda xp, x: xp.pow(x, 3.0), POSITIVE, BOTH),
        "**": (lambda xp, x: x**2, POSITIVE, BOTH),
        "** reflected": (lambda xp, x: 2.0**x, POSITIVE, BOTH),
        "hypot": (lambda xp, x: xp.hypot(x, x), POSITIVE, BOTH),
        "atan2": (lambda xp, x: xp.atan2(x, x), POSITIVE, BOTH),
        "logaddexp": (lambda xp, x: xp.logaddexp(x, x), POSITIVE, BOTH),
        "linspace": (lambda xp, x: xp.linspace(0.0, 1.0, 9, dtype=x.dtype), POSITIVE, BOTH),
        "arange": (lambda xp, x: xp.arange(0.0, 1.0, 0.1, dtype=x.dtype), POSITIVE, BOTH),
        "linalg.inv": (lambda xp, x: xp.linalg.inv(x), SQUARE, BOTH),
        "linalg.qr": (lambda xp, x: xp.linalg.qr(x).R, SQUARE, BOTH),
        "linalg.solve": (lambda xp, x: xp.linalg.solve(x, x), SQUARE, BOTH),
        "linalg.vector_norm": (lambda xp, x: xp.linalg.vector_norm(x, axis=0), SQUARE, BOTH),
    },
    "sqrt": {
        "sqrt": (lambda xp, x: xp.sqrt(x), POSITIVE, BOTH),
        "std": (lambda xp, x: xp.std(x, axis=1), POSITIVE, BOTH),
    },
    "reciprocal": {
        "/": (lambda xp, x: x / 3, NUMBERS, BOTH),
        "divide": (lambda xp, x: xp.divide(x, 7.0), NUMBERS, BOTH),
        "/=": (divided_in_place, NUMBERS, BOTH),
        "/ reflected": (lambda xp, x: 3.0 / x, NUMBERS, BOTH),
        "mean": (lambda xp, x: xp.mean(x[:, :3], axis=1), NUMBERS, BOTH),
        # A whole multiple of 49 may end below itself: 49 * (1 / 49) < 1 in float64, and 41 in float32.
        "//": (lambda xp, x: x // 49.0, 49.0 * np.arange(60.0), ("float64",)),
        "// in float32": (lambda xp, x: x // 41.0, 41.0 * np.arange(60.0), ("float32",)),
    },
    "subnormal": {
        "reads of 1e-40": (lambda xp, x: (x * 1e-20 * 1e-20) * 1e10, POSITIVE, ("float32",)),
        "reads of 1e-310": (lambda xp, x: (x * 1e-155 * 1e-155) * 1e10, POSITIVE, ("float64",)),
        "comparison": (lambda xp, x: x > 0, np.full(3, 5e-310), ("float64",)),
        "cast": (lambda xp, x: xp.astype(x, xp.float32), np.full(3, 1e-40), ("float64",)),
        "cast of a subnormal": (lambda xp, x: xp.astype(x, xp.float64), np.full(3, 1e-40), ("float32",)),
        "sum": (lambda xp, x: xp.sum(x * 1e-20), np.full(3, 1e-20), ("float32",)),
        "maximum": (lambda xp, x: xp.maximum(x, 0.0), np.full(3, 1e-40), ("float32",)),
        "argmax": (lambda xp, x: xp.argmax(x), np.array([0.0, 1e-40]), ("float32",)),
        "exp": (lambda xp, x: xp.exp(x), np.full(3, -95.0), ("float32",)),
        "sqrt": (lambda xp, x: xp.sqrt(x), np.full(3, 1e-40), ("float32",)),
        "matmul": (lambda xp, x: xp.matmul(x, x), np.full((3, 3), 1e-20), ("float32",)),
        "products within a matmul": (lambda xp, x: xp.matmul(x, x), np.full((40, 40), 3e-20), ("float32",)),
        "/": (lambda xp, x: x / (x + 1e38), np.full(3, 1e-2), ("float32",)),
    },
    "zero": {
        "sum": (lambda xp, x: xp.sum(xp.stack([x, -x]), axis=0), ZEROS, BOTH),
        "matmul": (lambda xp, x: xp.matmul(x[:, None], x[None, :]), ZEROS, BOTH),
        "max": (lambda xp, x: xp.max(xp.reshape(x, (4, 3)), axis=1), ZEROS, BOTH),
        "min": (lambda xp, x: xp.min(x), ZEROS, BOTH),
        "maximum": (lambda xp, x: xp.maximum(x, 0.0), ZEROS - 1, BOTH),
        "minimum": (lambda xp, x: xp.minimum(x, 0), ZEROS + 1, BOTH),
        "clip": (lambda xp, x: xp.clip(x, min=0.0), ZEROS - 1, BOTH),
        "round": (lambda xp, x: xp.round(x), ZEROS - 0.25, BOTH),
        "cumulative_sum": (lambda xp, x: xp.cumulative_sum(x), ZEROS, BOTH),
    },
    "nan": {
        "+": (lambda xp, x: x + x, NANS, BOTH),
        "inf - inf": (lambda xp, x: (x + xp.inf) - (x + xp.inf), ZEROS, BOTH),
        "log": (lambda xp, x: xp.log(x), ZEROS - 1, BOTH),
        "max": (lambda xp, x: xp.max(x), NANS, BOTH),
        "sum": (lambda xp, x: xp.sum(x), NANS, BOTH),
        "matmul": (lambda xp, x: xp.matmul(x[:, None], x[None, :]), NANS, BOTH),
    },
    "garbage": {
        "empty": (lambda xp, x: xp.empty((3, 4), dtype=xp.float32), ZEROS, BOTH),
        "empty_like": (lambda xp, x: xp.empty_like(x), ZEROS, BOTH),
        "empty of booleans": (lambda xp, x: xp.empty(9, dtype=xp.bool), ZEROS, BOTH),
    },
    "ties": {
        "argsort": (lambda xp, x: xp.argsort(x, stable=False), EQUAL, BOTH),
        "argsort, descending": (lambda xp, x: xp.argsort(x, stable=False, descending=True), EQUAL, BOTH),
        "unique_values": (lambda xp, x: xp.unique_values(x), NUMBERS, BOTH),
        "unique_all": (lambda xp, x: xp.unique_all(x).indices, NUMBERS, BOTH),
        "unique_inverse": (lambda xp, x: xp.unique_inverse(x).inverse_indices, NUMBERS, BOTH),
        "unique_counts": (lambda xp, x: xp.unique_counts(x).counts, np.array([1.0, 2.0, 2.0, 3.0, 3.0, 3.0]), BOTH),
    },
    "alias": {
        "slice": (through(lambda xp, x: x[1:, :]), NUMBERS, BOTH),
        "writes to a slice": (through_a_view, NUMBERS, BOTH),
        "reshape": (through(lambda xp, x: xp.reshape(x, (-1,))), NUMBERS, BOTH),
        "T": (through(lambda xp, x: x.T), NUMBERS, BOTH),
        "unstack": (through(lambda xp, x: xp.unstack(x)[0]), NUMBERS, BOTH),
        "broadcast_to": (through(lambda xp, x: xp.broadcast_to(x, (2, 6, 40))), NUMBERS, BOTH),
        "asarray": (through(lambda xp, x: xp.asarray(x)), NUMBERS, BOTH),
    },
}
EXPERIMENTS = [
    pytest.param(kind, function, data, dtype, id=f"{kind}-{name}-{dtype}")
    for kind, experiments in OPEN.items()
    for name, (function, data, dtypes) in experiments.items()
    for dtype in dtypes
]


def host(x):
    assert isinstance(x, ChaosArray)
    return x._data


def bits(x):
    return x.dtype.name, x.shape, x.tobytes()


def outcomes(function, data, dtype, fixed=(), seeds=SEEDS):
    """The different results, to the bit, that seeds give."""
    data = np.asarray(data).astype(dtype)
    spaces = (chaos(seed, fixed) for seed in seeds)
    return {bits(host(function(xp, xp.asarray(data, copy=True)))) for xp in spaces}


@pytest.mark.parametrize("kind, function, data, dtype", EXPERIMENTS)
def test_one_open_kind_varies_and_nothing_varies_when_all_are_fixed(kind, function, data, dtype):
    if kind == "width" and dtype == "float64" and np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("no float here is wider than float64")
    assert len(outcomes(function, data, dtype, KINDS.keys() - {kind})) > 1
    assert len(outcomes(function, data, dtype, KINDS, range(4))) == 1


def test_every_kind_is_tried():
    assert OPEN.keys() == KINDS.keys()


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="unknown kinds"):
        chaos(0, {"luck"})


def test_one_seed_gives_one_sequence_and_every_call_its_own_choices():
    def twice(xp):
        return [bits(host(xp.exp(xp.asarray(NUMBERS)))) for _ in range(2)]

    assert twice(chaos(5)) == twice(chaos(5))
    assert len(set(twice(chaos(5)))) == 2


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions_move_by_two_ulp_and_reach_them(name, dtype):
    x = ELEMENTARY[name].astype(dtype)
    distances = [
        ulp_distance(host(getattr(xp, name)(xp.asarray(x))), getattr(np, name.replace("pow", "power"))(x))
        for xp in map(chaos, range(4))
    ]
    assert np.max(distances) == 2


@pytest.mark.parametrize("dtype", BOTH)
def test_square_roots_move_by_one_ulp_in_some_elements(dtype):
    x = POSITIVE.astype(dtype)
    moved = np.asarray([ulp_distance(host(xp.sqrt(xp.asarray(x))), np.sqrt(x)) for xp in map(chaos, range(4))])
    assert moved.max() == 1
    assert 0.05 < np.mean(moved != 0) < 0.5


def test_special_values_of_elementary_functions_stay():
    for xp in map(chaos, range(8)):
        special = xp.asarray([np.inf, -np.inf, np.nan, 0.0])
        assert host(xp.exp(special))[:2].tolist() == [np.inf, 0.0]
        assert host(xp.log(special))[[0, 3]].tolist() == [np.inf, -np.inf]
        assert host(xp.tanh(special))[3] == 0
        assert np.isnan(host(xp.exp(special))[2])
        assert host(xp.sqrt(special))[[0, 3]].tolist() == [np.inf, 0.0]
        largest = xp.asarray(np.full(20, np.finfo(np.float64).max))
        assert np.isfinite(host(xp.pow(largest, 1.0))).all()


@pytest.mark.parametrize("name", ["sum of all", "matmul", "tensordot", "vecdot"])
def test_terms_apart_may_meet_first(name):
    # Neighbours only ever give 0: the 1 is lost in either large number. It is left if those two meet before.
    terms = np.array([[2.0**54, 1.0, -(2.0**54)]])
    computed = {
        "sum of all": lambda xp, x: xp.sum(x),
        "matmul": lambda xp, x: xp.matmul(x, xp.ones((3, 1)))[0, 0],
        "tensordot": lambda xp, x: xp.tensordot(x, xp.ones((3, 1)), axes=1)[0, 0],
        "vecdot": lambda xp, x: xp.vecdot(x, xp.ones((1, 3)))[0],
    }
    found = outcomes(computed[name], terms, "float64", KINDS.keys() - {"order"}, range(40))
    assert found == {bits(np.array(0.0)), bits(np.array(1.0))}


def test_subnormal_partial_sums_may_vanish():
    smallest = np.finfo(np.float32).smallest_normal
    terms = smallest * np.array([1.5] * 4 + [-1.25] * 4)
    in_order, also_flushed = KINDS.keys() - {"order"}, KINDS.keys() - {"order", "subnormal"}
    assert outcomes(SUMS["sum of all"], terms, "float32", in_order) == {bits(np.array(smallest))}
    assert len(outcomes(SUMS["sum of all"], terms, "float32", also_flushed, range(40))) > 1


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_right_whatever_their_order(name, dtype):
    x = (POSITIVE / 1.2).astype(dtype)
    wide = chaos(0, KINDS)
    exact = host(SUMS[name](wide, wide.asarray(x.astype(np.longdouble) if dtype == "float64" else x.astype("float64"))))
    for xp in map(chaos, range(6)):
        found = host(SUMS[name](xp, xp.asarray(x)))
        assert found.dtype == dtype and found.shape == exact.shape
        np.testing.assert_allclose(found, exact, rtol=200 * np.finfo(dtype).eps)


def test_shapes_and_axes_of_sums_are_those_of_numpy():
    x = np.arange(24.0).reshape(2, 3, 4)
    for xp in map(chaos, range(4)):
        a = xp.asarray(x)
        for axis in (None, 0, -1, (0, 2), ()):
            for keepdims in (False, True):
                expected = np.sum(x, axis=axis, keepdims=keepdims)
                assert np.array_equal(host(xp.sum(a, axis=axis, keepdims=keepdims)), expected)
                assert host(xp.mean(a, axis=axis, keepdims=keepdims)).shape == expected.shape
        assert np.array_equal(host(xp.cumulative_sum(a, axis=1)), np.cumsum(x, axis=1))
        assert np.array_equal(
            host(xp.tensordot(a, a, axes=((2, 0), (2, 0)))), np.tensordot(x, x, axes=((2, 0), (2, 0)))
        )
        assert host(xp.sum(xp.zeros((0, 3)), axis=0)).tolist() == [0, 0, 0]
        assert host(xp.matmul(xp.zeros((2, 0)), xp.zeros((0, 3)))).tolist() == [[0] * 3] * 2
        with pytest.raises(ValueError, match="matmul of shapes"):
            xp.matmul(a, a)


# --- what is fixed -------------------------------------------------------------------------------------------------

FIXED = {
    "+": lambda xp, x, y: x + y,
    "-": lambda xp, x, y: x - y,
    "*": lambda xp, x, y: x * y,
    "/": lambda xp, x, y: x / y,
    "+ number": lambda xp, x, y: x + 0.1,
    "- number, reflected": lambda xp, x, y: 0.1 - x,
    "* number": lambda xp, x, y: 0.1 * x,
    "/ 0-d array": lambda xp, x, y: x / y[2],
    "comparisons": lambda xp, x, y: xp.stack([x < y, x <= y, x > y, x >= y, x == y, x != y]),
    "floor": lambda xp, x, y: xp.floor(x),
    "ceil": lambda xp, x, y: xp.ceil(x),
    "trunc": lambda xp, x, y: xp.trunc(x),
    "abs": lambda xp, x, y: abs(x),
    "negative": lambda xp, x, y: -x,
    "square": lambda xp, x, y: xp.square(x),
    "where": lambda xp, x, y: xp.where(x > 0, x, 0.0),
    "to float32": lambda xp, x, y: xp.astype(x, xp.float32),
    "to float64": lambda xp, x, y: xp.astype(x, xp.float64),
    "to int64 and back": lambda xp, x, y: xp.astype(xp.astype(xp.where(abs(x) < 1e9, x, 7.0), xp.int64), xp.float32),
    "take": lambda xp, x, y: xp.take(x, xp.asarray([3, 1, 1]), axis=0),
    "index": lambda xp, x, y: x[xp.asarray([3, 1, 1])],
    "mask": lambda xp, x, y: x[x > y],
    "sort": lambda xp, x, y: xp.sort(x),
    "stable argsort": lambda xp, x, y: xp.argsort(x),
    "searchsorted": lambda xp, x, y: xp.searchsorted(xp.sort(x), y),
    "argmax": lambda xp, x, y: xp.argmax(xp.concat([x, x])),
    "argmin": lambda xp, x, y: xp.argmin(xp.concat([x, x])),
    "concat": lambda xp, x, y: xp.concat([x, y, x]),
    "pad by slices": lambda xp, x, y: add_in_slices(xp.zeros(len_of(x) + 2, dtype=x.dtype), x),
    "outer": lambda xp, x, y: x[:, None] * y[None, :],
}
# Zeros of these have no sign to compare: -0.0 == 0.0.
FIXED_BUT_FOR_ZERO = {
    "round": lambda xp, x, y: xp.round(x * 2.5),
    "maximum": lambda xp, x, y: xp.maximum(x, y),
    "minimum": lambda xp, x, y: xp.minimum(x, y),
    "clip": lambda xp, x, y: xp.clip(x, min=-0.5, max=0.5),
    "max": lambda xp, x, y: xp.max(x),
    "min": lambda xp, x, y: xp.min(x),
}


def len_of(x):
    return x.shape[0]


def add_in_slices(x, y):
    x[1:-1] += y
    x[2:] += y
    x *= 2.0
    return x


def unpleasant(dtype):
    """Operands of all sizes, zeros, infinities and halves, without subnormal results and NaN."""
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.standard_normal(50) * 10.0 ** rng.integers(-8, 9, 50), [0.0, -0.0, 0.5, 1.5, 2.5, -0.5]])
    y = np.concatenate([rng.standard_normal(50), [1.0, 2.0, -0.75, 3.0, 7.0, -9.0]])
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", FIXED)
def test_what_ieee_and_the_standard_fix_is_numpys_to_the_bit(name, dtype):
    x, y = unpleasant(dtype)
    expected = FIXED[name](array_api_compat.numpy, x.copy(), y)
    for xp in map(chaos, range(8)):
        found = host(FIXED[name](xp, xp.asarray(x), xp.asarray(y)))
        assert bits(found) == bits(expected)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", FIXED_BUT_FOR_ZERO)
def test_rounding_and_extremes_are_numpys_but_for_the_sign_of_zero(name, dtype):
    x, y = unpleasant(dtype)
    expected = np.asarray(FIXED_BUT_FOR_ZERO[name](array_api_compat.numpy, x, y))
    for xp in map(chaos, range(8)):
        found = host(FIXED_BUT_FOR_ZERO[name](xp, xp.asarray(x), xp.asarray(y)))
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_a_nan_goes_through_extremes():
    for xp in map(chaos, range(8)):
        x = xp.asarray([1.0, np.nan, 3.0])
        assert np.isnan(host(xp.max(x))) and np.isnan(host(xp.min(x)))
        assert np.isnan(host(xp.maximum(x, 2.0))).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
def test_integers_are_exact_and_wrap_as_numpys(dtype):
    x = np.arange(-40, 40).reshape(8, 10).astype(dtype)
    functions = (
        lambda xp, x: x * x + x - 3,
        lambda xp, x: xp.sum(x, axis=1),
        lambda xp, x: xp.cumulative_sum(x, axis=0),
        lambda xp, x: xp.matmul(x, xp.matrix_transpose(x)),
        lambda xp, x: x // 7,
        lambda xp, x: (x & 12) ^ (x << 1) | (x >> 1),
        lambda xp, x: xp.max(x, axis=0),
        lambda xp, x: x**2,
    )
    for function in functions:
        expected = function(array_api_compat.numpy, x)
        assert {bits(host(function(xp, xp.asarray(x)))) for xp in map(chaos, range(6))} == {bits(expected)}


# Sums of this many terms of one sign, of so many bits each, stay below 2**53 (float32: 2**24), just.
EXACT = [("float64", 64, 23, 24), ("float64", 1000, 21, 22), ("float32", 16, 10, 10), ("float32", 200, 8, 8)]


def whole(count, most, shape):
    rng = np.random.default_rng(count)
    return 2**most - 1 - rng.integers(0, 3, shape)


@pytest.mark.parametrize("dtype, terms, left, right", EXACT)
def test_contractions_of_whole_numbers_within_the_mantissa_are_exact(dtype, terms, left, right):
    a, b = whole(terms, left, (5, terms)), whole(terms + 1, right, (terms, 4))
    exact = a.astype(object) @ b.astype(object)
    assert 2 ** (np.finfo(dtype).nmant - 1) < exact.max() < 2 ** (np.finfo(dtype).nmant + 1)
    assert outcomes(lambda xp, x: xp.matmul(x, xp.asarray(b.astype(dtype))), a, dtype) == {bits(exact.astype(dtype))}


@pytest.mark.parametrize("dtype, terms, left, right", EXACT)
def test_contractions_a_few_bits_beyond_the_mantissa_are_not_exact(dtype, terms, left, right):
    a, b = whole(terms, left + 3, (5, terms)), whole(terms + 1, right + 2, (terms, 4))
    assert len(outcomes(lambda xp, x: xp.matmul(x, xp.asarray(b.astype(dtype))), a, dtype)) > 1


@pytest.mark.parametrize("dtype, terms, left, right", EXACT)
@pytest.mark.parametrize("name", ["sum", "cumulative_sum"])
def test_sums_of_whole_numbers_within_the_mantissa_are_exact(name, dtype, terms, left, right):
    x = whole(terms, left, (5, terms)) * 2**right
    exact = np.sum(x, axis=1) if name == "sum" else np.cumsum(x, axis=1)
    assert outcomes(SUMS[name], x, dtype) == {bits(exact.astype(dtype))}
    x = x * 16 + np.arange(terms)
    assert len(outcomes(SUMS[name], x * 2 + 1, dtype)) > 1


# --- arrays --------------------------------------------------------------------------------------------------------


def assign(x, other):
    x[...] = other


MIXTURES = {
    "x + a": operator.add,
    "a + x": lambda x, other: other + x,
    "a @ x": lambda x, other: other @ x,
    "x += a": operator.iadd,
    "x == a": operator.eq,
    "a == x": lambda x, other: other == x,
    "x ** a": operator.pow,
    "x[...] = a": assign,
    "function": lambda x, other: x.__array_namespace__().add(x, other),
    "in a list": lambda x, other: x.__array_namespace__().concat([x, other]),
    "as a keyword": lambda x, other: x.__array_namespace__().clip(x, max=other),
}


@pytest.mark.parametrize("mix", MIXTURES.values(), ids=MIXTURES)
@pytest.mark.parametrize("other", [np.ones(3), np.float64(1.0), chaos(1).ones(3)], ids=["array", "scalar", "chaos"])
def test_other_arrays_are_refused(mix, other):
    with pytest.raises(TypeError):
        mix(chaos(0).ones(3), other)


@pytest.mark.parametrize("use", [np.asarray, np.exp, lambda x: np.add(x, 1), np.sum, list, hash])
def test_numpy_and_python_do_not_convert_an_array_implicitly(use):
    with pytest.raises(TypeError):
        use(chaos(0).ones(3))


def test_an_ndarray_is_no_index():
    with pytest.raises(IndexError):
        chaos(0).ones(3)[np.asarray([0])]
    with pytest.raises(IndexError, match="each of 2 axes"):
        chaos(0).ones((3, 3))[0]


@pytest.mark.parametrize(
    "mix",
    [
        lambda xp: xp.ones(2) + xp.ones(2, dtype=xp.int64),
        lambda xp: xp.ones(2, dtype=xp.int64) * 0.5,
        lambda xp: xp.ones(2) + True,
        lambda xp: xp.ones(2, dtype=xp.int64) / 2,
        lambda xp: xp.exp(xp.ones(2, dtype=xp.int64)),
        lambda xp: xp.concat([xp.ones(2), xp.ones(2, dtype=xp.int32)]),
        lambda xp: xp.where(xp.ones(2) > 0, xp.ones(2), xp.ones(2, dtype=xp.int32)),
        lambda xp: xp.ones(2, dtype=xp.int64) + xp.ones(2, dtype=xp.uint64),
        lambda xp: xp.ones(2, dtype=xp.float32).__iadd__(xp.ones(2)),
    ],
)
def test_promotion_that_the_standard_does_not_know_is_refused(mix):
    with pytest.raises(TypeError):
        mix(chaos(0))


def test_compat_knows_the_arrays():
    xp = chaos(0)
    x = xp.ones((2, 3), dtype=xp.float32)
    assert array_api_compat.is_array_api_obj(x)
    assert array_api_compat.array_namespace(x, x) is xp
    assert array_api_compat.device(x) == "cpu" and array_api_compat.to_device(x, "cpu") is x
    assert (x.shape, x.ndim, x.size, x.dtype) == ((2, 3), 2, 6, xp.float32)
    assert x.T.shape == x.mT.shape == (3, 2)


def test_only_0d_arrays_are_python_numbers():
    xp = chaos(0)
    assert float(xp.asarray(2.5)) == 2.5 and int(xp.asarray(3)) == 3 and bool(xp.asarray(True))
    assert range(4)[xp.asarray(2)] == 2
    for kind in (float, int, bool):
        with pytest.raises(TypeError, match="0-d"):
            kind(xp.ones(1))


def test_the_namespace_is_the_standard_without_complex_numbers():
    strict = pytest.importorskip("array_api_strict")
    with strict.ArrayAPIStrictFlags(enabled_extensions=("linalg", "fft")):
        standard = {name for name in strict.__all__ if callable(getattr(strict, name)) and name.islower()}
        extension = {f"linalg.{name}" for name in strict.linalg.__all__}
    standard -= {name for name in strict.__all__ if name.startswith("__") or "flags" in name or name[-1].isdigit()}
    standard |= {"log2", "log10", "atan2", "expm1", "log1p"}
    left_out = {"bool", "conj", "real", "imag", "from_dlpack"}
    assert RULE_OF.keys() == (standard - left_out) | extension
    assert all(callable(getattr(chaos(0), name)) for name in RULE_OF)
    for name in ("einsum", "complex64", "float16", "dot"):
        assert not hasattr(chaos(0), name)


def trained(backend):
    """Loss, logits, input gradient and all parameters of a small net after three steps of Adam."""
    model = nn.models.lenet((1, 8, 8), 10, backend=backend, seed=1)
    loss, optimizer = nn.CrossEntropy(), nn.Adam(model, lr=1e-3)
    rng = np.random.default_rng(2)
    x = backend.asarray(rng.standard_normal((8, 1, 8, 8)).astype("float32"))
    y = backend.asarray(rng.integers(0, 10, 8))
    for _ in range(3):
        logits = model(x)
        value = loss(logits, y)
        dx = model.backward(loss.backward())
        optimizer.step()
    state = {"logits": logits, "dx": dx} | {name: p.value for name, p in model.named_parameters()}
    return {"loss": np.float64(float(value))} | {name: backend.to_numpy(array) for name, array in state.items()}


@pytest.mark.usefixtures("array_functions")
def test_a_net_learns_on_chaos_as_on_numpy_and_no_two_seeds_agree():
    expected = trained(nn.get_backend("numpy"))
    hashes = set()
    for seed in range(4):
        with chaos_backend(seed) as backend:
            found = trained(backend)
        for name, value in expected.items():
            assert found[name].shape == value.shape
            assert np.linalg.norm(found[name] - value) <= 1e-4 * np.linalg.norm(value), name
        hashes.add(tuple(found[name].tobytes() for name in found))
    assert len(hashes) == 4
    with chaos_backend(0) as backend:
        assert tuple(value.tobytes() for value in trained(backend).values()) in hashes


def test_the_backend_exists_within_the_block_only():
    before = dict(registry._opened)
    with chaos_backend(1, dtype="float64") as backend:
        assert isinstance(backend, ChaosBackend) and backend.dtype_name == "float64"
        x = backend.asarray([1.0, 2.0])
        assert backend_of(x, like=backend) is backend is nn.get_backend(backend.xp, "float64")
        assert type(operations_of(backend.xp)) is Operations
        assert backend.to_numpy(x).tolist() == [1.0, 2.0]
        with pytest.raises(TypeError, match="must be an array on the host"):
            nn.get_backend("numpy").asarray(x)
    assert registry._opened == before
    with pytest.raises(ValueError, match=r"backend must be .* got 'chaos'"):
        nn.get_backend("chaos")


def test_copies_and_pickles_stay_in_the_backends_namespace():
    with chaos_backend() as backend:
        x = backend.asarray([1.0, 2.0])
        for again in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
            assert backend.owns(again) and backend.to_numpy(again + x).tolist() == [2.0, 4.0]


def test_a_fixture_may_register_the_backend(monkeypatch):
    register(monkeypatch)
    assert nn.get_backend("chaos").spec == "chaos"
    assert "chaos" in registry.names()
