"""The exact namespace is the standard: NumPy's float64 results to a rounding, in every shape, dtype and device."""

import copy
import math

import numpy as np
import pytest
from chaos import RULES, chaos

from xpnn.backends.exact.namespace import REFUSED, ExactNamespace

RNG = np.random.default_rng(41)
NUMBERS = RNG.standard_normal((5, 4, 7))
# A product of all of these is of a size with them.
FACTORS = np.sign(NUMBERS) * np.exp(0.2 * NUMBERS)
POSITIVE = np.abs(NUMBERS) + 0.1
AXES = [None, 0, 1, -1, (0,), (0, 2), (-1, 0), (0, 1, 2)]
ELEMENTARY = {
    "exp": (np.exp, NUMBERS),
    "expm1": (np.expm1, NUMBERS),
    "log": (np.log, POSITIVE),
    "log1p": (np.log1p, POSITIVE),
    "tanh": (np.tanh, NUMBERS),
    "sinh": (np.sinh, NUMBERS),
    "cosh": (np.cosh, NUMBERS),
    "sqrt": (np.sqrt, POSITIVE),
    "reciprocal": (np.reciprocal, NUMBERS),
}
REDUCTIONS = {
    "sum": (np.sum, {}),
    "mean": (np.mean, {}),
    "var": (np.var, {}),
    "var, correction": (lambda x, **o: np.var(x, ddof=1, **o), {"correction": 1.0}),
    "std": (np.std, {}),
    "std, correction": (lambda x, **o: np.std(x, ddof=0.5, **o), {"correction": 0.5}),
    "prod": (np.prod, {}),
}
WORDS = "has no exact form: numerics='exact' does not support it"


class Exact:
    """An exact backend, with host arrays in and out in either float."""

    def __init__(self, backend):
        self.backend = backend
        self.xp = backend.xp

    def put(self, host, dtype=None):
        return self.backend.asarray(np.asarray(host) if dtype is None else np.asarray(host).astype(dtype))

    def get(self, array, dtype):
        host = self.backend.to_numpy(array)
        assert host.dtype == dtype
        return host


@pytest.fixture
def exact(exact):
    return Exact(exact)


def close(found, expected, dtype, units=8.0):
    """Equal in shape, and in value to some units in the last place of the largest."""
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=0.0)
    assert np.all(np.abs(found - expected) <= units * np.finfo(dtype).eps * largest)


DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@DTYPES
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_are_numpys_over_any_axes(exact, name, keepdims, dtype):
    reference, options = REDUCTIONS[name]
    x = (FACTORS if name == "prod" else NUMBERS).astype(dtype)
    for axis in AXES:
        found = getattr(exact.xp, name.partition(",")[0])(exact.put(x), axis=axis, keepdims=keepdims, **options)
        # Terms of a sum in float64 are cut where its last bits would be.
        units = 8.0 if dtype == "float32" or name == "prod" else 2.0**16
        close(exact.get(found, dtype), reference(x.astype(np.float64), axis=axis, keepdims=keepdims), dtype, units)


@pytest.mark.parametrize("name", ["sum", "prod"])
def test_sums_and_products_take_a_dtype(exact, name):
    x = FACTORS.astype(np.float32)
    for axis in (None, 0, (1, -1)):
        wide = getattr(exact.xp, name)(exact.put(x), axis=axis, dtype=exact.xp.float64)
        close(exact.get(wide, "float64"), getattr(np, name)(x.astype(np.float64), axis=axis), np.float32, 0.5)
        narrow = getattr(exact.xp, name)(exact.put(FACTORS), axis=axis, dtype=exact.xp.float32)
        close(exact.get(narrow, "float32"), getattr(np, name)(FACTORS, axis=axis), np.float32, 1.0)


def test_a_sum_is_rounded_once(exact):
    x = np.asarray([[1.0, 2.0**-24, 2.0**-50], [1e30, 1.0, -1e30]])
    found = exact.get(exact.xp.sum(exact.put(x), axis=1), "float64")
    assert found[0] == math.fsum(x[0])
    narrow = exact.xp.sum(exact.put(x[:1, :], "float32"), axis=1)
    assert exact.get(narrow, "float32").tolist() == [1.0 + 2.0**-23]


@pytest.mark.parametrize("shape, axis", [((0, 3), 0), ((0, 3), None), ((3, 0), 1), ((2, 0, 0), (1, 2))])
def test_nothing_adds_up_to_0_and_multiplies_to_1_and_has_no_mean(exact, shape, axis):
    empty = exact.put(np.zeros(shape))
    kept = np.sum(np.zeros(shape), axis=axis)
    assert exact.get(exact.xp.sum(empty, axis=axis), "float64").tolist() == kept.tolist()
    assert exact.get(exact.xp.prod(empty, axis=axis), "float64").tolist() == (kept + 1.0).tolist()
    assert np.isnan(exact.get(exact.xp.mean(empty, axis=axis), "float64")).all()


def test_a_0d_array_is_its_own_sum_mean_and_product(exact):
    x = exact.put(np.asarray(2.5))
    for name in ("sum", "mean", "prod"):
        found = exact.get(getattr(exact.xp, name)(x), "float64")
        assert (found.shape, found.tolist()) == ((), 2.5)


@DTYPES
@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions_are_numpys_and_keep_dtype_and_shape(exact, name, dtype):
    reference, x = ELEMENTARY[name]
    x = x.astype(dtype)
    found = exact.get(getattr(exact.xp, name)(exact.put(x)), dtype)
    expected = reference(x.astype(np.float64))
    assert found.shape == x.shape
    assert np.all(np.abs(found - expected) <= 4.0 * np.finfo(dtype).eps * np.abs(expected))


@DTYPES
@pytest.mark.parametrize("power", [0, 1, 2, 3, -1, -2, 0.5, 1.5, -0.25, 2.0])
def test_powers_with_a_number_are_numpys(exact, power, dtype):
    x = POSITIVE.astype(dtype)
    found = exact.get(exact.xp.pow(exact.put(x), power), dtype)
    expected = x.astype(np.float64) ** power
    assert np.all(np.abs(found - expected) <= 4.0 * np.finfo(dtype).eps * expected)


def test_powers_with_an_array_are_refused(exact):
    x = exact.put(POSITIVE)
    with pytest.raises(TypeError, match="the exponent must be a number of Python"):
        exact.xp.pow(x, x)


MATMULS = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
    ((2, 100), (100, 3)),
]


@DTYPES
@pytest.mark.parametrize("left, right", MATMULS)
def test_matmul_is_numpys_in_every_shape(exact, left, right, dtype):
    x, w = (np.random.default_rng(5).standard_normal(shape).astype(dtype) for shape in (left, right))
    found = exact.get(exact.xp.matmul(exact.put(x), exact.put(w)), dtype)
    close(found, x.astype(np.float64) @ w.astype(np.float64), np.float32, 2.0)


TENSORDOTS = [
    ((2, 3, 4), (3, 4, 5), 2),
    ((2, 3), (4, 5), 0),
    ((2, 3), (3, 5), 1),
    ((2, 3, 4), (4, 5, 3), ((1, 2), (2, 0))),
    ((2, 3, 4), (4, 5, 3), ((-2,), (-1,))),
    ((2, 3, 4), (5, 3), ((1,), (1,))),
    ((0, 3), (3, 2), 1),
    ((2, 0), (0, 3), 1),
]


@DTYPES
@pytest.mark.parametrize("left, right, axes", TENSORDOTS)
def test_tensordot_is_numpys_over_any_axes(exact, left, right, axes, dtype):
    x, w = (np.random.default_rng(6).standard_normal(shape).astype(dtype) for shape in (left, right))
    found = exact.get(exact.xp.tensordot(exact.put(x), exact.put(w), axes=axes), dtype)
    close(found, np.tensordot(x.astype(np.float64), w.astype(np.float64), axes=axes), np.float32, 2.0)


@DTYPES
def test_vecdot_broadcasts_and_accepts_an_axis(exact, dtype):
    x, w = NUMBERS.astype(dtype), NUMBERS[:1, :, :].astype(dtype)
    for axis in (-1, -2):
        found = exact.get(exact.xp.vecdot(exact.put(x), exact.put(w), axis=axis), dtype)
        close(found, np.sum(x.astype(np.float64) * w, axis=axis), dtype)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_are_computed_by_the_library(exact, dtype):
    xp, large = exact.xp, 2**28 + 1
    x = np.full((2, 40), large, dtype)
    ones = np.ones((40, 3), dtype)
    if dtype == "int64":
        product = exact.backend.to_numpy(xp.matmul(exact.put(x), exact.put(ones)))
        assert product.dtype == dtype and np.all(product == 40 * large)
    total = exact.backend.to_numpy(xp.sum(exact.put(x), axis=1, dtype=xp.int64))
    assert total.dtype == np.int64 and np.all(total == 40 * large)
    assert int(xp.prod(exact.put(x[:1, :1]))) == large
    assert int(xp.sum(xp.astype(exact.put([True, False, True]), xp.int64))) == 2


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sqrt"])
def test_elementary_functions_of_integers_are_refused(exact, name):
    with pytest.raises(TypeError, match="the array must be float32 or float64, got int64"):
        getattr(exact.xp, name)(exact.put(np.asarray([1, 2])))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_functions_without_an_exact_form_are_refused(exact, name):
    assert not hasattr(exact.xp, name)
    with pytest.raises(AttributeError, match=f"^{name} {WORDS}$"):
        getattr(exact.xp, name)


def test_all_else_is_the_librarys_own(exact):
    raw = exact.xp.raw
    assert not isinstance(raw, ExactNamespace)
    for name in ("where", "abs", "maximum", "argmax", "round", "floor", "take", "reshape", "float32", "int64", "inf"):
        ours, theirs = getattr(exact.xp, name), getattr(raw, name)
        assert ours is theirs or ours == theirs
    with pytest.raises(AttributeError):
        _ = exact.xp.no_such_function


def test_every_open_function_of_the_standard_is_replaced_or_refused():
    space = chaos(0)
    open_kinds = ("elementary", "root", "reduction", "cumulation", "contraction")
    for name in " ".join(RULES[kind] for kind in open_kinds).split():
        if "." in name:
            continue
        assert name in REFUSED or name in vars(ExactNamespace), name
    assert not hasattr(ExactNamespace(space), "linalg")


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "prod", "exp", "sqrt", "reciprocal"])
def test_results_are_the_same_bits_on_chaos(exact, name):
    # Away from 0 a mean that is off by its last bit shows in the variance.
    x = POSITIVE + 100.0 if name in ("var", "std") else POSITIVE
    expected = exact.get(getattr(exact.xp, name)(exact.put(x)), "float64")
    for seed in range(3):
        xp = ExactNamespace(chaos(seed))
        found = getattr(xp, name)(xp.asarray(x))
        assert found._data.tobytes() == expected.tobytes()


def test_arguments_stay_as_they_are(exact):
    for name in (*ELEMENTARY, "sum", "mean", "var", "prod"):
        x = exact.put(POSITIVE)
        getattr(exact.xp, name)(x)
        assert exact.backend.to_numpy(x).tobytes() == POSITIVE.tobytes()


def test_results_are_on_the_device_of_the_argument(exact):
    x = exact.put(POSITIVE)
    for y in (exact.xp.mean(x), exact.xp.exp(x), exact.xp.matmul(x, exact.xp.matrix_transpose(x)), exact.xp.prod(x)):
        assert exact.backend.owns(y)


def test_a_namespace_can_be_copied_and_says_what_it_is_over(exact):
    assert copy.copy(exact.xp).raw is exact.xp.raw
    assert repr(exact.xp) == f"ExactNamespace({exact.xp.raw!r})"
