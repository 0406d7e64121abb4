"""Exact products and sums: the same float64 bits for every order of additions and every number of workers."""

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from threading import Barrier

import array_api_compat.numpy
import numpy as np
import pytest
from chaos import chaos

from xpnn.backends.exact import contractions
from xpnn.backends.exact.contractions import ExactContractions
from xpnn.backends.exact.splitting import FLOAT64_TERMS, MOST_TERMS, budget

INF, NAN = float("inf"), float("nan")
SEEDS = range(10)
TERMS = [1, 2, 31, 32, 33, 1000, 2**16 - 1, 2**16, 2**16 + 1, 2**20]
PLACES = ["numpy", "numpy-chunked", "strict", "strict-device1", "torch", *(f"chaos-{seed}" for seed in SEEDS)]
# For contractions that take half a second on chaos.
FEW_PLACES = ["numpy", "strict-device1", "torch", "chaos-0"]
BELOW_ONE = np.nextafter(1.0, 0.0)


class Place:
    """Where the same numbers go: a namespace, a device, and blocks or none."""

    def __init__(self, name: str, slice_products: int = 2) -> None:
        self.device = None
        if name.startswith("strict"):
            self.xp = pytest.importorskip("array_api_strict")
            self.device = self.xp.Device("device1" if name == "strict-device1" else "CPU_DEVICE")
        elif name == "torch":
            pytest.importorskip("torch")
            self.xp = pytest.importorskip("array_api_compat.torch")
        elif name.startswith("chaos"):
            self.xp = chaos(int(name.partition("-")[2]))
        else:
            self.xp = array_api_compat.numpy
        self.chunk = 200 if name == "numpy-chunked" else 0
        self.use(slice_products)

    def use(self, slice_products: int) -> "Place":
        self.exact = ExactContractions(self.xp, slice_products, self.chunk)
        return self

    def put(self, host):
        return self.xp.asarray(np.array(host, dtype=np.float64), device=self.device)

    def get(self, y) -> np.ndarray:
        if self.xp.__name__ == "array_api_compat.torch":
            return y.numpy()
        if self.xp.__name__ == "chaos":
            return y._data
        if self.device is not None:
            y = self.xp.asarray(y, device=self.xp.Device("CPU_DEVICE"))
        return np.array(y)

    def matmul(self, x, w) -> np.ndarray:
        return self.get(self.exact.matmul(self.put(x), self.put(w)))

    def contract_rows(self, x, dy, team=None) -> np.ndarray:
        return self.get(self.exact.contract_rows(self.put(x), self.put(dy), team=team))

    def sum(self, x, axis=None, keepdims=False, team=None) -> np.ndarray:
        return self.get(self.exact.sum(self.put(x), axis=axis, keepdims=keepdims, team=team))


def same(actual, expected) -> None:
    """Equal in shape, dtype and bits, with one NaN; no zero is negative."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == np.float64
    finite = np.nan_to_num(actual, nan=0.0)
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    assert np.array_equal(finite.view(np.int64), np.nan_to_num(expected, nan=0.0).view(np.int64))
    assert not np.any(np.signbit(finite) & (finite == 0))


def near_one(shape, seed=0):
    """Numbers of one sign in the last 64th below 1, of all 53 bits: sums of their slices come close to 2**53."""
    return np.minimum(1 - np.random.default_rng(seed).random(shape) * 2.0**-6, BELOW_ONE)


def floats(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def reference(x, w, slice_products=2):
    """The product of the quantised matrices in integer arithmetic."""
    plan = budget(x.shape[-1], slice_products)
    rows = np.frexp(np.max(np.abs(x), axis=-1, keepdims=True))[1]
    columns = np.frexp(np.max(np.abs(w), axis=-2, keepdims=True))[1]
    left = integers(np.ldexp(x, -rows), plan.left_bits, plan.left_count)
    right = integers(np.ldexp(w, -columns), plan.right_bits, plan.right_count)
    y = (left[0] @ right[0]).astype(np.float64)
    lower = [left[0] @ q for q in right[1:]] + [q @ right[0] for q in left[1:]]
    y += np.ldexp(sum(lower, np.zeros(y.shape, np.int64)).astype(np.float64), -plan.right_bits)
    return np.ldexp(y, rows + columns - plan.left_bits - plan.right_bits)


def integers(rest, bits, count):
    slices = []
    for _ in range(count):
        rest = np.ldexp(rest, bits)
        slices.append(np.rint(rest).astype(np.int64))
        rest = rest - slices[-1]
    return slices


@pytest.fixture(params=PLACES)
def place(request):
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")
        place = Place(request.param)
        if request.param.startswith("strict"):
            flags = {"boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
            stack.enter_context(place.xp.ArrayAPIStrictFlags(**flags))
        yield place


def places_by_terms(terms):
    few = [(place, n) for n in terms if n > 2**17 for place in FEW_PLACES]
    cases = [(place, n) for n in terms if n <= 2**17 for place in PLACES] + few
    return pytest.mark.parametrize(("place", "terms"), cases, indirect=["place"])


@pytest.fixture(scope="module")
def numpy_place():
    return Place("numpy")


@pytest.mark.parametrize("slice_products", [1, 2, 3])
def test_sums_of_slices_stay_within_2_to_53_and_of_blocks_within_int64(slice_products):
    for terms in {*range(1, 3000), *(2**i + j for i in range(2, 26) for j in (-1, 0, 1)), MOST_TERMS}:
        plan = budget(terms, slice_products)
        assert min(terms, plan.product_terms) * 2 ** (plan.left_bits + plan.right_bits) <= 2**53
        assert not plan.wide or terms * 2 ** (plan.left_bits + plan.right_bits) < 2**63
        assert max(plan.left_bits, plan.right_bits) <= 26
        assert plan.right_count == 1 or plan.left_count == 1 or plan.left_bits == plan.right_bits


def test_too_long_a_contraction_is_an_error_that_says_so(numpy_place):
    x = np.broadcast_to(np.ones(()), (1, MOST_TERMS + 1))
    with pytest.raises(ValueError, match="at most 67108863 terms, got 67108864"):
        numpy_place.exact.matmul(x, x.T)


def test_slice_products_are_1_2_or_3():
    with pytest.raises(ValueError, match="slice_products must be 1, 2 or 3, got 4"):
        budget(10, 4)


def test_scale_is_the_power_of_two_strictly_above(place):
    x = [[0.0, -0.0], [1.0, -0.5], [-1.0, BELOW_ONE], [BELOW_ONE, 0.0], [2.0**-149, 0.0], [3e38, 1.0], [1e-200, 0.0]]
    x += [[NAN, 1.0], [1.0, -INF], [INF, NAN], [2.0**600, 0.0], [np.nextafter(2.0**600, 0), 0.0], [5e-324, 0.0]]
    expected = [1.0, 2.0, 2.0, 1.0, 2.0**-148, 2.0**128, 2.0**-400, NAN, NAN, NAN, NAN, 2.0**600, 1.0]
    s = place.get(place.exact.scale(place.put(x), -1))
    same(s, np.asarray(expected)[:, None])
    assert place.exact.scale(place.put(np.ones((2, 3, 4))), (0, -1)).shape == (1, 3, 1)
    same(place.get(place.exact.scale(place.put(np.ones((0, 3))), 0)), np.ones((1, 3)))
    assert place.exact.scale(place.put(np.ones((0, 3))), 1).shape == (0, 1)


def test_slices_are_whole_numbers_within_bounds_that_add_up(place):
    x = np.concat([floats(200), floats(200) * 2.0**-20, [0.0, -0.0, 3.5, -3.5, 5e-324]])
    s = place.exact.scale(place.put(x), 0)
    slices = [place.get(q) for q in place.exact.split(place.put(x), s, 20, 3)]
    assert np.array_equal(
        sum(q * 4.0 * 2.0 ** (-20 * (i + 1)) for i, q in enumerate(slices)), np.where(x == 5e-324, 0, x)
    )
    for q, most in zip(slices, [2**20, 2**19, 2**19], strict=True):
        assert np.array_equal(q, np.rint(q))
        assert np.max(np.abs(q)) <= most


def test_a_slice_rounds_up_to_the_scale_itself(numpy_place):
    (q,) = numpy_place.exact.split(np.asarray([BELOW_ONE, -BELOW_ONE]), np.ones(1), 25, 1)
    assert q.tolist() == [2.0**25, -(2.0**25)]


@places_by_terms(TERMS)
def test_matmul_near_the_maximum_is_exact_in_any_order(place, terms):
    x, w, expected = case_near_one(terms, 2)
    same(place.matmul(x, w), expected)


@places_by_terms([1, 2, 32, 500, 2**17 + 1])
def test_matmul_of_3_products_near_the_maximum_is_exact_in_any_order(place, terms):
    x, w, expected = case_near_one(terms, 3)
    same(place.use(3).matmul(x, w), expected)


@lru_cache
def case_near_one(terms, slice_products):
    x, w = near_one((8 if terms < 2**17 else 1, terms)), near_one((terms, 1), 1)
    return x, w, reference(x, w, slice_products)


@places_by_terms([32, 33, 2**12, 2**18])
def test_matmul_of_the_largest_slices(place, terms):
    x, w = np.full((1, terms), BELOW_ONE), np.full((terms, 1), -BELOW_ONE)
    same(place.matmul(x, w), np.full((1, 1), -float(terms)))


@pytest.mark.parametrize("slice_products", [1, 2, 3])
def test_products_are_the_quantised_operands_exactly(place, slice_products):
    x, w = floats((7, 300)), floats((300, 5), 1) * 1e-3
    same(place.use(slice_products).matmul(x, w), reference(x, w, slice_products))
    same(place.use(slice_products).contract_rows(x.T, w), reference(x, w, slice_products))


def results_of_chaos(compute):
    return {compute(Place(f"chaos-{seed}")).tobytes() for seed in SEEDS}


@pytest.mark.parametrize("terms", [33, 1000])
def test_chaos_detects_bits_over_the_budget(monkeypatch, terms):
    """The control of the tests above: they could fail."""
    x, w = near_one((2, terms)), near_one((terms, 2), 1)
    assert len(results_of_chaos(lambda place: place.matmul(x, w))) == 1
    over = replace(budget(terms), left_bits=budget(terms).left_bits + 5)
    monkeypatch.setattr(contractions, "budget", lambda terms, slice_products: over)
    assert len(results_of_chaos(lambda place: place.matmul(x, w))) > 1


def test_chaos_varies_a_plain_float64_matmul():
    x, w = floats((8, 500)), floats((500, 8), 1)
    assert len(results_of_chaos(lambda place: place.get(place.xp.matmul(place.put(x), place.put(w))))) > 1


SHAPES = [
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((2, 5), (5,)),
    ((4, 2, 5), (5,)),
    ((5,), (4, 5, 3)),
    ((4, 2, 5), (5, 3)),
    ((2, 5), (4, 5, 3)),
    ((4, 1, 2, 5), (6, 5, 3)),
    ((3, 0), (0, 2)),
    ((0, 4), (4, 2)),
    ((3, 4), (4, 0)),
    ((0,), (0,)),
    ((2, 3, 40), (2, 40, 7)),
    ((0, 3, 40), (0, 40, 7)),
]


def test_matmul_accepts_the_shapes_of_the_standard(place, numpy_place):
    for left, right in SHAPES:
        x, w = floats(left), floats(right, 1)
        actual = place.matmul(x, w)
        np.testing.assert_allclose(actual, np.matmul(x, w), rtol=0, atol=3e-6)
        same(actual, numpy_place.matmul(x, w))


@pytest.mark.parametrize(("left", "right"), [((2, 5), (4, 3)), ((5,), (4,)), ((), (4,)), ((4,), ())])
def test_shapes_that_do_not_fit_are_an_error(numpy_place, left, right):
    with pytest.raises(ValueError, match="lengths of the contraction differ"):
        numpy_place.matmul(np.ones(left), np.ones(right))
    with pytest.raises(ValueError, match="all axes but the last must agree"):
        numpy_place.contract_rows(np.ones((3, 2)), np.ones((4, 2)))


# In units of 2**-24 of the Frobenius norm, after the cast to float32, whose own rounding is 0.42.
@pytest.mark.parametrize(
    ("terms", "two", "three"), [(32, 1.7, 0.45), (75, 0.8, 0.45), (576, 0.85, 0.45), (4608, 1.0, 0.45)]
)
def test_accuracy(numpy_place, terms, two, three):
    x, w = floats((32, terms)), floats((terms, 32), 1)
    exact = np.matmul(x.astype(np.longdouble), w.astype(np.longdouble))
    for slice_products, bound in ((2, two), (3, three)):
        y = numpy_place.use(slice_products).matmul(x, w).astype(np.float32)
        assert (
            np.linalg.norm((y - exact).astype(np.float64)) / np.linalg.norm(exact.astype(np.float64)) < bound * 2.0**-24
        )
    numpy_place.use(2)


def test_special_rows_and_columns_of_a_matmul(place):
    x, w = floats((6, 50)), floats((50, 4), 1)
    x[0], x[1] = 0.0, -0.0
    x[2, 3], x[3, 4], x[3, 5] = NAN, INF, -INF
    x[4] = 2.0**-149 * np.arange(50)
    w[7, 1] = -INF
    y = place.matmul(x, w)
    nan = np.zeros((6, 4), dtype=bool)
    nan[2:4], nan[:, 1] = True, True
    assert np.array_equal(np.isnan(y), nan)
    assert np.all(y[:2, [0, 2, 3]] == 0)
    np.testing.assert_allclose(y[4, [0, 2, 3]], (x[4] @ w)[[0, 2, 3]], rtol=1e-4)
    same(y, Place("numpy").matmul(x, w))
    same(place.contract_rows(x.T, w), y)


def test_no_product_sees_a_nan(monkeypatch, numpy_place):
    x = floats((4, 50))
    x[1, 2], x[2, 3] = NAN, INF
    seen = []
    multiply = numpy_place.exact.multiply
    monkeypatch.setattr(numpy_place.exact, "multiply", lambda *args: seen.append(args) or multiply(*args))
    numpy_place.matmul(x, x.T)
    numpy_place.contract_rows(x, x)
    assert len(seen) == 2
    assert all(np.all(np.isfinite(q)) for left, right, _ in seen for q in [*left, right])


def test_special_values_in_a_contraction_of_more_than_one_block(place):
    x, w = near_one((3, FLOAT64_TERMS + 3)), near_one((FLOAT64_TERMS + 3, 2), 1)
    x[0, 5], x[1] = NAN, 0.0
    w[-1, 1] = INF
    y = place.matmul(x, w)
    assert np.array_equal(np.isnan(y), [[True, True], [False, True], [False, True]])
    assert y[1, 0] == 0
    assert y[2, 0] == reference(x[2:], w[:, :1])[0, 0]


def test_largest_float32_overflow_only_in_the_cast(place):
    largest = float(np.finfo(np.float32).max)
    x = np.full((2, 40), largest)
    y = place.matmul(x, x.T)
    np.testing.assert_allclose(y, 40 * largest**2, rtol=2.0**-24)
    np.testing.assert_allclose(place.sum(x, 1), [40 * largest] * 2, rtol=2.0**-24)


def test_extreme_scales_stay_exact(place):
    x = np.asarray([[2.0**-399, -(2.0**-398)], [2.0**470, 2.0**460], [2.0**-460, 2.0**-399]])
    w = np.asarray([[2.0**-399, 2.0**470], [2.0**-400, 2.0**-399]])
    same(place.matmul(x, w), Place("numpy").matmul(x, w))
    same(place.matmul(x[:1, :1], w[:1, :1]), np.full((1, 1), 2.0**-798))
    assert place.matmul(x[2:, :1], w[:1, :1]) == 0


def test_small_terms_beside_large_ones_vanish_the_same_everywhere(place):
    x = floats((5, 200)) * np.exp2(-2.0 * np.arange(200))
    w = floats((200, 5), 1) * np.exp2(1.0 * np.arange(200))[:, None]
    same(place.matmul(x, w), reference(x, w))
    same(place.sum(x, 1), Place("numpy").sum(x, 1))


def test_inputs_stay_as_they_are(numpy_place):
    x, w = floats((5, 40)), floats((40, 5), 1)
    kept = x.copy(), w.copy()
    for array in (x, w):
        array.flags.writeable = False
    numpy_place.matmul(x, w)
    numpy_place.contract_rows(w, w)
    numpy_place.sum(x, (0,))
    assert np.array_equal(x, kept[0])
    assert np.array_equal(w, kept[1])


def test_blocks_of_terms_add_up_to_the_whole(place):
    exact, x, w = place.exact, near_one((3, 70)), near_one((70, 4), 1)
    plan = budget(70)
    s, t = exact.scale(place.put(x), -1), exact.scale(place.put(w), -2)
    left = exact.split(place.put(x), s, plan.left_bits, plan.left_count)
    right = exact.join(exact.split(place.put(w), t, plan.right_bits, plan.right_count))
    quanta = exact.multiply([q[:, :13] for q in left], right[:13, :], plan)
    quanta = exact.multiply([q[:, 13:] for q in left], right[13:, :], plan) + quanta
    same(place.get(exact.combine(quanta, plan, s, t)), place.matmul(x, w))


def test_more_terms_than_planned_are_an_error(numpy_place):
    x = np.ones((1, FLOAT64_TERMS + 1))
    with pytest.raises(ValueError, match="at most the 10 terms of its plan, got 65537"):
        numpy_place.exact.multiply([x], x.T, budget(10))


@places_by_terms([*TERMS, 2**12 + 1, 2**16, 2**16 + 1])
def test_sum_near_the_maximum_is_exact_in_any_order(place, terms):
    x = near_one((terms, 1))
    bits = 53 - (terms - 1).bit_length()
    slices = integers(x, bits, 1 if terms <= 2**16 else 2)
    expected = sum(np.ldexp(np.sum(q, axis=0).astype(np.float64), -bits * (i + 1)) for i, q in enumerate(slices))
    same(place.sum(x, axis=0), expected)
    # All the next below 1: rounded up to 1 each, as far as there is no second slice.
    largest = BELOW_ONE if terms == 1 else terms * BELOW_ONE if len(slices) == 2 else float(terms)
    same(place.sum(np.full(terms, BELOW_ONE)), np.asarray(largest))


@pytest.mark.parametrize("terms", [1000, 2**14])
def test_chaos_detects_bits_over_the_budget_of_a_sum(monkeypatch, terms):
    x = np.random.default_rng(0).random((terms, 3)) * 0.1 + 0.9
    assert len(results_of_chaos(lambda place: place.sum(x, 0))) == 1
    levels = contractions.length(terms) - 5
    monkeypatch.setattr(contractions, "length", lambda terms: levels)
    assert len(results_of_chaos(lambda place: place.sum(x, 0))) > 1


def test_sum_over_axes(place, numpy_place):
    x = floats((5, 7, 11))
    for axis in (None, 0, -1, (0, 2), (-1, -3), (0, 1, 2), ()):
        for keepdims in (False, True):
            actual = place.sum(x, axis, keepdims)
            np.testing.assert_allclose(actual, np.sum(x, axis=axis, keepdims=keepdims), rtol=0, atol=1e-10)
            same(actual, numpy_place.sum(x, axis, keepdims))


def test_sum_of_nothing_is_zero_and_of_one_term_a_copy(place):
    same(place.sum(np.ones((3, 0, 2)), 1), np.zeros((3, 2)))
    same(place.sum(np.ones((3, 0)), 0), np.zeros((0,)))
    same(place.sum(np.ones((0,))), np.zeros(()))
    x = np.asarray([1 / 3, -1e-100, 1e100, NAN, INF, -INF, BELOW_ONE, 5e-324, -0.0])
    for shape in ((9, 1), (1, 9)):
        expected = [1 / 3, -1e-100, 1e100, NAN, NAN, NAN, BELOW_ONE, 0.0, 0.0]
        same(place.sum(np.reshape(x, shape), shape.index(1)), np.asarray(expected))
    same(place.sum(np.asarray(2.5)), np.asarray(2.5))


def test_sum_with_nan_or_inf_is_nan(place):
    x = np.ones((4, 5))
    x[0, 0], x[1, 1], x[2, 2], x[3, 2] = NAN, INF, INF, -INF
    same(place.sum(x, 0), np.asarray([NAN, NAN, NAN, 4.0, 4.0]))


def test_a_sum_of_a_missing_axis_is_an_error(numpy_place):
    with pytest.raises(IndexError):
        numpy_place.sum(np.ones((2, 3)), 2)


class Member:
    """One worker's side of a team of threads."""

    def __init__(self, slots, barrier, rank, place):
        self.slots, self.barrier, self.rank, self.place = slots, barrier, rank, place

    def exchange(self, value):
        self.slots[self.rank] = value
        self.barrier.wait(timeout=5)
        values = list(self.slots)
        self.barrier.wait(timeout=5)
        random.shuffle(values)  # no order is promised
        return values

    def reduced(self, array, function):
        host = function.reduce(np.stack(self.exchange(self.place.get(array))), axis=0)
        return self.place.xp.asarray(host, device=self.place.device)

    def max(self, array):
        return self.reduced(array, np.maximum)

    def sum(self, array):
        return self.reduced(array, np.add)

    def rows(self, n):
        return sum(self.exchange(n))


def with_team(shares, place_name, compute):
    """``compute(place, member, share)`` of all workers at once, each with a namespace of its own."""
    slots, barrier = [None] * len(shares), Barrier(len(shares))

    def work(rank):
        place = Place(f"chaos-{rank}" if place_name == "chaos" else place_name)
        try:
            return compute(place, Member(slots, barrier, rank, place), shares[rank])
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(work, range(len(shares))))


TEAMS = [[1.0], [0.5, 0.5], [0.58, 0.42], [0.0, 1.0], [0.01, 0.29, 0.7], [0.25] * 4, [0.3, 0.0, 0.7, 0.0]]


def shared(rows, team):
    """The rows cut into a share of each worker."""
    ends = np.rint(np.cumsum(team) * rows).astype(int)
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("team", TEAMS, ids=str)
@pytest.mark.parametrize("rows", [1, 20, 1000, FLOAT64_TERMS + 2])
@pytest.mark.parametrize("where", ["numpy", "chaos"])
def test_contract_rows_is_the_same_for_any_team(numpy_place, team, rows, where):
    x, dy = near_one((rows, 3)), near_one((rows, 2), 1)
    # The largest numbers are in one worker's share only.
    x[: rows // 2], dy[rows // 3 :] = x[: rows // 2] * 300, dy[rows // 3 :] * -1e-3
    expected = numpy_place.contract_rows(x, dy)
    same(expected, reference(x.T, dy))
    shares = [(x[rows], dy[rows]) for rows in shared(rows, team)]
    for y in with_team(shares, where, lambda place, member, share: place.contract_rows(*share, team=member)):
        same(y, expected)


@pytest.mark.parametrize("team", TEAMS, ids=str)
@pytest.mark.parametrize("rows", [1, 20, 1000, 2**12 + 2, FLOAT64_TERMS + 2])
@pytest.mark.parametrize("where", ["numpy", "chaos"])
def test_sum_is_the_same_for_any_team(numpy_place, team, rows, where):
    x = near_one((rows, 2)) + np.random.default_rng(1).random((rows, 2)) * 2.0**-30
    x[: rows // 2] *= 300
    shares = [x[rows] for rows in shared(rows, team)]
    expected = numpy_place.sum(x, 0)
    for y in with_team(shares, where, lambda place, member, share: place.sum(share, 0, team=member)):
        same(y, expected)


@pytest.mark.parametrize("rows", [20, FLOAT64_TERMS + 2])
def test_a_nan_of_one_worker_reaches_all(rows):
    x, dy = near_one((rows, 3)), near_one((rows, 2), 1)
    x[0, 1], dy[1, 0] = NAN, INF
    shares = [(x[part], dy[part]) for part in shared(rows, [0.5, 0.2, 0.3])]
    for y in with_team(shares, "numpy", lambda place, member, share: place.contract_rows(*share, team=member)):
        assert np.array_equal(np.isnan(y), [[True, False], [True, True], [True, False]])
    for y in with_team(shares, "numpy", lambda place, member, share: place.sum(share[0], 0, team=member)):
        assert np.array_equal(np.isnan(y), [False, True, False])


def test_a_team_without_rows_gets_zeros():
    shares = [(np.ones((0, 3)), np.ones((0, 2)))] * 2
    for y in with_team(shares, "numpy", lambda place, member, share: place.contract_rows(*share, team=member)):
        same(y, np.zeros((3, 2)))
    for y in with_team(shares, "numpy", lambda place, member, share: place.sum(share[0], 0, team=member)):
        same(y, np.zeros(3))


def test_contract_rows_of_stacks(place):
    x, dy = floats((2, 40, 3)), floats((2, 40, 4), 1)
    same(place.contract_rows(x, dy), np.stack([reference(a.T, b) for a, b in zip(x, dy, strict=True)]))
    assert place.contract_rows(np.ones((0, 5, 3)), np.ones((0, 5, 2))).shape == (0, 3, 2)
