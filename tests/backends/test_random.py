"""A seed gives the same bits on every backend, and the numbers have the distributions of their names."""

import copy

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends.random import Generator, generator
from xpnn.backends.random.normal_quantile import normal_quantile
from xpnn.backends.random.threefry import threefry2x32


@pytest.mark.parametrize(
    ("counter", "key", "hashed"),
    [
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers_of_random123(at, counter, key, hashed):
    assert threefry2x32(key, counter) == hashed
    words = tuple(at.put(np.array([word, word], dtype=np.int64)) for word in counter)
    for array, expected in zip(threefry2x32(key, words), hashed, strict=True):
        assert at.get(array).tolist() == [expected, expected]


GOLDEN_BITS = [3901892970, 3158004665, 2964889903, 1334547408]
GOLDEN_UNIFORM64 = ["0x1.d12452ef0ed4ep-1", "0x1.61714253e2e4fp-1"]
GOLDEN_NORMAL64 = ["0x1.54da3495508d5p+0", "0x1.fcabf5a308381p-2"]
GOLDEN_PERMUTATION = [5, 4, 8, 6, 9, 10, 3, 11, 2, 1, 0, 7]
GOLDEN_FOLDED = [3695172113, 2136152801]
GOLDEN_FOLDED_3 = [2105050410, 26512623]

SHAPES = [(), (0,), (1,), (7,), (2, 0, 3), (3, 5), (2, 3, 4)]
DRAWS = {
    "bits": lambda g, shape, b: g.bits(shape, b),
    "uniform": lambda g, shape, b: g.uniform(shape, -2.0, 3.0, backend=b),
    "normal": lambda g, shape, b: g.normal(shape, 1.0, 0.3, backend=b),
}


@pytest.fixture(params=list(DRAWS))
def draw(request):
    return DRAWS[request.param]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_on_every_backend(at, draw, shape, dtype):
    b, reference = nn.get_backend(at.backend, dtype), nn.get_backend("numpy", dtype)
    here, there = Generator(2024), Generator(2024)
    for _ in range(2):
        array = draw(here, shape, b)
        assert b.owns(array) and tuple(array.shape) == shape
        nn.testing.assert_match(array, draw(there, shape, reference), level="exact")
    assert here.position == there.position


@pytest.mark.parametrize("more", [-1, 0, 1, 3])
def test_same_bits_across_the_internal_chunks(at, draw, more):
    count = 2 * generator._CHUNK + more
    expected = draw(Generator(5), (count,), "numpy")
    assert np.array_equal(at.get(draw(Generator(5), (count,), at.backend)), expected)
    assert np.array_equal(draw(Generator(5), (100,), "numpy"), expected[:100]), "a long draw begins as a short one"


@pytest.mark.parametrize("chunk", [1, 4, 1 << 20])
def test_chunks_change_nothing(draw, monkeypatch, chunk):
    expected = draw(Generator(5), (3, 7), "numpy")
    monkeypatch.setattr(generator, "_CHUNK", chunk)
    assert np.array_equal(draw(Generator(5), (3, 7), "numpy"), expected)


@pytest.mark.parametrize("device", ["no_float64", "no_x64"])
def test_same_float32_bits_on_a_device_without_wide_types(device):
    pytest.importorskip("array_api_strict")
    narrow = nn.get_backend(f"strict:{device}")
    for name in ("uniform", "normal"):
        for shape in ((7,), (3, 5)):
            array = getattr(Generator(11), name)(shape, backend=narrow)
            assert narrow.owns(array)
            expected = getattr(Generator(11), name)(shape, backend="numpy")
            assert expected.dtype == np.float32
            assert narrow.to_numpy(array).tobytes() == expected.tobytes()


def test_draws_continue_where_the_last_one_ended(draw):
    g = Generator(3)
    first, second = draw(g, (10,), "numpy"), draw(g, (10,), "numpy")
    assert not np.intersect1d(first, second).size
    assert np.array_equal(np.concatenate([first, second]), draw(Generator(3), (20,), "numpy"))


def test_a_draw_of_odd_size_shares_no_bits_with_the_next():
    g = Generator(3)
    first, second = g.bits((3,)), g.bits((3,))
    assert not np.intersect1d(first, second).size
    assert g.bits((4,)).tolist() == Generator(3).bits((12,))[8:].tolist()


def test_an_empty_draw_does_not_advance_the_stream(draw):
    g = Generator(3)
    draw(g, (4, 0), "numpy")
    assert np.array_equal(draw(g, (4,), "numpy"), draw(Generator(3), (4,), "numpy"))


def test_the_stream_continues_past_32_bits_of_counter(at):
    near, far = Generator(3), Generator(3)
    far.position = (1 << 32) - 1
    words = at.get(far.bits((4,), at.backend))
    assert words[2:].tolist() == list(threefry2x32(near.key, (0, 1))), "the high word of the counter counts"
    assert words[2:].tolist() != near.bits((2,)).tolist()


def test_golden_numbers():
    """Changing these breaks everyone's saved experiments."""
    assert Generator(0).bits((2,)).tolist() == [0x6B200159, 0x99BA4EFE], "key and counter 0: the published answer"
    assert Generator(7).bits((4,)).tolist() == GOLDEN_BITS
    assert Generator(7).uniform((3,)).tolist() == [(word >> 8) * 2.0**-24 for word in GOLDEN_BITS[:3]]
    assert [x.hex() for x in Generator(7).uniform((2,), dtype="float64").tolist()] == GOLDEN_UNIFORM64
    assert [x.hex() for x in Generator(7).normal((2,), dtype="float64").tolist()] == GOLDEN_NORMAL64
    assert Generator(7).permutation(12).tolist() == GOLDEN_PERMUTATION
    assert Generator(7).fold_in("weight").bits((2,)).tolist() == GOLDEN_FOLDED
    assert Generator(7).fold_in(3).bits((2,)).tolist() == GOLDEN_FOLDED_3


def test_fold_in_depends_only_on_key_and_name():
    g = Generator(1)
    before = g.fold_in("a").key
    g.normal((5,))
    g.fold_in("b")
    assert g.fold_in("a").key == before
    assert g.fold_in("a").position == 0
    assert Generator(2).fold_in("a").key != before


def test_fold_in_separates_names_numbers_and_orders():
    g = Generator(1)
    names = [g, *map(g.fold_in, ["", "a", "b", "ab", "3", 3, 0, "0", -1, 1 << 70, "gewöhnlich"])]
    nested = [g.fold_in("a").fold_in("b"), g.fold_in("b").fold_in("a"), g.fold_in("a").fold_in("a")]
    keys = [stream.key for stream in names + nested]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("ours", "theirs"), [(3, np.int64(3)), ("a", np.str_("a"))], ids=["int", "str"])
def test_numpy_scalars_fold_in_as_pythons(ours, theirs):
    assert Generator(1).fold_in(theirs).key == Generator(1).fold_in(ours).key


def test_folded_streams_are_not_correlated(rng):
    streams = np.stack([Generator(1).fold_in(i).normal((2000,), dtype="float64") for i in range(20)])
    correlation = np.corrcoef(streams) - np.eye(20)
    assert abs(correlation).max() < 5 / 2000**0.5


@pytest.mark.parametrize("seed", [0, 1, 7, (1 << 64) - 1, np.int64(7), np.uint64(1 << 63)])
def test_seeds(seed):
    g = Generator(seed)
    assert repr(g) == f"Generator({int(seed)})"
    assert g.bits((2,)).tolist() == eval(repr(g)).bits((2,)).tolist()


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.0, "7", None, True, np.float64(1)])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match=r"an integer from 0 to 2\*\*64 - 1, got"):
        Generator(seed)


def test_a_copy_draws_the_same_numbers():
    g = Generator(4)
    g.bits((6,))
    other = copy.deepcopy(g)
    assert g.bits((4,)).tolist() == other.bits((4,)).tolist()


@pytest.mark.parametrize("dtype", ["int32", "float16"])
def test_only_floats_are_drawn(dtype):
    for draw in (Generator(0).uniform, Generator(0).normal):
        with pytest.raises(TypeError, match=f"float32 or float64, got {dtype}"):
            draw((2,), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_is_uniform(dtype):
    stats = pytest.importorskip("scipy.stats")
    x = Generator(99).uniform((100_000,), -1.0, 3.0, dtype=dtype)
    assert x.min() >= -1.0 and x.max() < 3.0
    assert abs(x.mean() - 1.0) < 0.015 and abs(x.var() - 16 / 12) < 0.015
    assert stats.kstest(x.astype("float64"), "uniform", (-1.0, 4.0)).pvalue > 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_is_normal(dtype):
    stats = pytest.importorskip("scipy.stats")
    x = Generator(99).normal((100_000,), 2.0, 0.5, dtype=dtype)
    assert abs(x.mean() - 2.0) < 0.006 and abs(x.std() - 0.5) < 0.005
    z = (x.astype("float64") - 2.0) / 0.5
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert abs(np.mean(z**3)) < 0.04 and abs(np.mean(z**4) - 3.0) < 0.08, "skewness and kurtosis"


def test_neighbours_in_a_stream_are_not_correlated():
    x = Generator(99).normal((100_000,), dtype="float64")
    for lag in (1, 2, 3, 64):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 / 100_000**0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_never_reaches_its_upper_end(monkeypatch, dtype):
    def ones(key, counter):
        return counter[0] * 0 + 0xFFFFFFFF, counter[1] * 0 + 0xFFFFFFFF

    monkeypatch.setattr(generator, "threefry2x32", ones)
    assert Generator(0).uniform((2,), dtype=dtype).max() < 1.0
    assert Generator(0).uniform((2,), 1.0, 2.0, dtype=dtype).max() < 2.0, "[low, high) whatever the bits"


@pytest.mark.usefixtures("array_functions")
@pytest.mark.parametrize("word", [0x00000000, 0xFFFFFFFF])
def test_normal_is_finite_whatever_the_bits(monkeypatch, word):
    monkeypatch.setattr(generator, "threefry2x32", lambda k, counter: (counter[0] * 0 + word, counter[1] * 0 + word))
    x = Generator(0).normal((2,), dtype="float64")
    assert np.isfinite(x).all() and 8.0 < abs(x).max() < 10.0


def test_normal_quantile_is_scipys(at, rng):
    ndtri = pytest.importorskip("scipy.special").ndtri
    tails = 2.0 ** -np.arange(2.0, 55.0)
    p = np.concatenate([rng.random(10_000), tails, 1 - tails[:50], [0.075, 0.925, np.exp(-25.0)]])
    q = at.get(normal_quantile(at.put(p), at.xp))
    assert np.allclose(q, ndtri(p), rtol=4e-15, atol=0)
    assert normal_quantile(np.array([0.5]), nn.get_backend("numpy").xp)[0] == 0.0


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1001])
def test_permutation_holds_every_index_once(n):
    g = Generator(8)
    once, again = g.permutation(n), g.permutation(n)
    assert isinstance(once, np.ndarray) and once.dtype.kind == "i"
    assert sorted(once.tolist()) == list(range(n)) == sorted(again.tolist())
    assert n < 10 or once.tolist() != again.tolist()


def test_all_orders_are_equally_likely():
    g = Generator(8)
    orders = ["".join(map(str, g.permutation(3))) for _ in range(3000)]
    counts = np.unique(orders, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 500) ** 2 / 500).sum() < 15.1, "chi squared, 5 degrees of freedom, 1%"
