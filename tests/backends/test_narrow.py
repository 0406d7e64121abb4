"""16-bit floats of mixed precision: rounding, storage, products of them, and what refuses them."""

import copy
import pickle

import numpy as np
import pytest
from sixteen_bits import rounded

import xpnn as nn

PRECISIONS = ("float16", "bfloat16")


def hard_numbers():
    """Numbers of all magnitudes, ties, the limits of both formats, and what is not a number."""
    rng = np.random.default_rng(3)
    of_bits = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    near = np.ldexp(1.0 + rng.integers(0, 2**12, 2000) / 2.0**12, rng.integers(-30, 18, 2000))
    edges = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        65504,
        65519.996,
        65520,
        2.0**-24,
        2.0**-25,
        3 * 2.0**-26,
        3.4028235e38,
    ]
    quiet = np.array([0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0xFF800001, 1, 0x80000001], np.uint32).view(np.float32)
    return np.concatenate([of_bits, near.astype(np.float32), np.array(edges, np.float32), quiet])


def test_rounding_is_to_nearest_with_ties_to_even(mixed):
    with np.errstate(all="ignore"):
        x = hard_numbers()
        # A device may flush subnormal numbers of float32, which bfloat16 shares.
        x = x[~((np.abs(x) < 2.0**-125) & (x != 0.0))]
        found = mixed.to_numpy(mixed.narrow.rounded(mixed.asarray(x)))
        expected = rounded(x, mixed.precision).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    real = ~np.isnan(x)
    np.testing.assert_array_equal(np.signbit(found[real]), np.signbit(x[real]))


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (3, 1, 0, 2)])
def test_storage_has_half_the_bytes_and_the_order_of_memory(mixed, axes):
    x = mixed.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32))
    x = mixed.xp.permute_dims(x, axes)
    stored = mixed.narrow.store(x)
    assert stored.array.nbytes * 2 == 4 * 120
    assert mixed.memory_order(stored.array) == mixed.memory_order(stored.load()) == mixed.memory_order(x)
    np.testing.assert_array_equal(mixed.to_numpy(stored.load()), rounded(mixed.to_numpy(x), mixed.precision))
    for other in (copy.deepcopy(stored), pickle.loads(pickle.dumps(stored))):
        np.testing.assert_array_equal(mixed.to_numpy(other.load()), mixed.to_numpy(stored.load()))


def test_an_output_is_stored_once_and_found_while_it_is_in_use(mixed):
    x = mixed.asarray(np.ones((3, 3), np.float32))
    stored = mixed.narrow.store_output(x)
    assert mixed.narrow.known(x) is stored
    assert mixed.narrow.known(mixed.asarray(np.ones((3, 3), np.float32))) is None
    del stored
    assert mixed.narrow.known(x) is None
    mixed.narrow.store(x)
    assert mixed.narrow.known(x) is None, "what is not an output may be changed by the user between two steps"


def test_an_id_that_another_array_had_before_is_not_mistaken_for_it(mixed):
    one = mixed.asarray(np.zeros((2, 2), np.float32))
    stored = mixed.narrow.store_output(one)
    mixed.narrow._outputs[id(two := mixed.asarray(np.ones((2, 2), np.float32)))] = stored
    assert mixed.narrow.known(two) is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_float64_exact_numerics_and_strict_are_refused(precision):
    with pytest.raises(ValueError, match=f"dtype must be float32 with precision='{precision}'.*got float64"):
        nn.get_backend("numpy", "float64", precision=precision)
    with pytest.raises(ValueError, match=f"precision must be 'float32' with numerics='exact'.*got '{precision}'"):
        nn.get_backend("numpy", numerics="exact", precision=precision)
    with pytest.raises(
        ValueError, match=f"precision '{precision}' is for the backends numpy, cupy and torch, got 'str"
    ):
        nn.get_backend("strict", precision=precision)


def test_a_backend_keeps_its_precision_in_copies_and_pickles(mixed):
    assert copy.deepcopy(mixed) is mixed or copy.deepcopy(mixed) == mixed
    again = pickle.loads(pickle.dumps(mixed))
    assert again is mixed and again.narrow is mixed.narrow
    plain = nn.get_backend(mixed, precision="float32")
    assert plain.narrow is None and plain.product_xp is plain.xp and plain.product_algorithms == "any"
    assert mixed.product_algorithms == "direct" and mixed.algorithms == "any"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 5), (5, 3)), ((7, 4, 5), (5, 3)), ((7, 4, 5), (7, 5, 3)), ((5,), (5, 3)), ((0, 5), (5, 3)), ((4, 0), (0, 3))],
)
def test_cublas_multiplies_rounded_factors_and_adds_in_float32(gpu, precision, a, b):
    mixed, rng = nn.get_backend(gpu, precision=precision), np.random.default_rng(1)
    xp = mixed.product_xp
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in (a, b))
    expected = rounded(x, precision) @ rounded(y, precision)
    for left in (mixed.asarray(x), mixed.asarray(np.repeat(x, 2, -1))[..., ::2], mixed.asarray(np.asfortranarray(x))):
        found = xp.matmul(left, mixed.asarray(y))
        assert found.dtype == np.float32
        np.testing.assert_allclose(mixed.to_numpy(found), expected, rtol=0, atol=4e-6)
    out = xp.zeros((*expected.shape[:-1], 2 * expected.shape[-1]), dtype=xp.float32)[..., ::2]
    xp.matmul(mixed.asarray(x), mixed.asarray(y), out=out)
    np.testing.assert_allclose(mixed.to_numpy(out), expected, rtol=0, atol=4e-6)
    # Sums that are not of a layer's factors are not rounded.
    np.testing.assert_allclose(mixed.to_numpy(mixed.xp.matmul(mixed.asarray(x), mixed.asarray(y))), x @ y, atol=4e-6)


def test_cublas_does_not_round_float64(gpu):
    mixed = nn.get_backend(gpu, precision="float16")
    x = np.random.default_rng(1).normal(size=(4, 4))
    found = mixed.product_xp.matmul(mixed.asarray(x), mixed.asarray(x))
    np.testing.assert_allclose(mixed.to_numpy(found), x @ x, rtol=0, atol=1e-14)
    assert copy.copy(mixed.product_xp) is mixed.product_xp and "float16" in repr(mixed.product_xp)


def test_a_sum_of_float16_beyond_its_range_is_not_infinite(gpu):
    """Sums in float16 would overflow, and 1 would be lost beside 4096."""
    mixed = nn.get_backend(gpu, precision="float16")
    x = mixed.asarray(np.full((1, 4096), 200.0, np.float32))
    found = mixed.to_numpy(mixed.product_xp.matmul(x, mixed.xp.permute_dims(x, (1, 0))))
    assert found == 4096 * 200.0 * 200.0


def test_steps_in_mixed_precision_are_not_recorded(mixed):
    def step(x):
        return x

    assert mixed.compile(step) is step
