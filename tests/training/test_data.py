"""Batches of a data loader: order, sizes and backend."""

import numpy as np
import pytest

import xpnn as nn


def samples(n=10):
    return np.arange(n, dtype=np.float32).reshape(n, 1), np.arange(n)


def order(loader):
    return np.concatenate([y for _, y in loader]).tolist()


def test_last_partial_batch_is_kept():
    loader = nn.DataLoader(*samples(10), 4)
    assert len(loader) == 3
    assert [len(y) for _, y in loader] == [4, 4, 2]


def test_every_sample_is_returned_once_with_its_target():
    loader = nn.DataLoader(*samples(23), 5, seed=3)
    pairs = [(x[:, 0], y) for x, y in loader]
    assert sorted(np.concatenate([y for _, y in pairs]).tolist()) == list(range(23))
    assert all((x == y).all() for x, y in pairs)


def test_order_depends_on_the_pass_and_on_the_seed():
    first, again = nn.DataLoader(*samples(50), 8, seed=1), nn.DataLoader(*samples(50), 8, seed=1)
    one, two = order(first), order(first)
    assert one != two
    assert [order(again), order(again)] == [one, two]
    assert order(nn.DataLoader(*samples(50), 8, seed=2)) != one


def test_order_continues_from_a_given_pass():
    whole, later = nn.DataLoader(*samples(50), 8, seed=1), nn.DataLoader(*samples(50), 8, seed=1)
    order(whole)
    later.epoch = 1
    assert order(later) == order(whole)


def test_order_is_the_same_on_every_backend(at):
    loader = nn.DataLoader(*samples(20), 6, seed=5, backend=at.backend)
    found = np.concatenate([at.get(y) for _, y in loader]).tolist()
    assert found == order(nn.DataLoader(*samples(20), 6, seed=5))


def test_without_shuffle_samples_come_in_order():
    assert order(nn.DataLoader(*samples(9), 2, shuffle=False)) == list(range(9))


def test_a_batch_is_one_transfer_for_each_array(at):
    loader = nn.DataLoader(*samples(10), 4, backend=at.backend)
    before = at.backend.transfers
    batches = list(loader)
    after = at.backend.transfers
    assert after["to_device"][0] - before["to_device"][0] == 2 * len(batches)
    assert after["to_host"] == before["to_host"]


def test_floats_are_converted_to_the_backends_dtype():
    x, y = samples(4)
    (batch, _), *_ = nn.DataLoader(x.astype(np.float64), y, 4, backend=nn.get_backend("numpy"))
    assert batch.dtype == np.float32
    (batch, _), *_ = nn.DataLoader(x, y, 4, backend=nn.get_backend("numpy", "float64"))
    assert batch.dtype == np.float64


@pytest.mark.parametrize(
    ("x", "y", "batch", "message"),
    [
        (np.zeros((3, 1)), np.zeros(2), 1, "got 3 and 2"),
        (np.zeros((0, 1)), np.zeros(0), 1, "at least 1"),
        (np.zeros((3, 1)), np.zeros(3), 0, "batch_size must be an integer >= 1, got 0"),
        (np.zeros((3, 1)), np.zeros(3), 2.5, "batch_size"),
        (np.float32(1), np.float32(1), 1, "at least 1"),
    ],
)
def test_bad_input_is_refused(x, y, batch, message):
    with pytest.raises(ValueError, match=message):
        nn.DataLoader(x, y, batch)


def test_a_last_batch_that_is_not_full_may_be_left_out():
    loader = nn.DataLoader(*samples(10), 4, seed=1, drop_last=True)
    assert len(loader) == 2
    assert [len(y) for _, y in loader] == [4, 4]
    whole = nn.DataLoader(*samples(10), 4, seed=1)
    assert order(nn.DataLoader(*samples(10), 4, seed=1, drop_last=True)) == order(whole)[:8]
    assert len(nn.DataLoader(*samples(8), 4, drop_last=True)) == 2


def test_a_loader_that_would_drop_all_is_refused():
    with pytest.raises(ValueError, match="drop_last=True leaves no batch of 4: there are 3 samples; use a batch_size"):
        nn.DataLoader(*samples(3), 4, drop_last=True)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"x": (each for each in range(3))}, TypeError, r"make an array of it: np.stack\(list\(x\)\)"),
        ({"y": ["cat", "dog", "cat"]}, TypeError, "y must be numbers, got .*; number classes from 0"),
        ({"x": [[1.0], [1.0, 2.0], [3.0]]}, TypeError, "x must be numbers, got .*; give all samples one shape"),
        ({"x": None}, TypeError, "x must be numbers, got None"),
        ({"shuffle": "yes"}, ValueError, "shuffle must be True or False, got 'yes'"),
        ({"drop_last": 1}, ValueError, "drop_last must be True or False, got 1"),
        ({"seed": "a"}, ValueError, "seed must be an integer from 0"),
        ({"scale": "a"}, ValueError, "scale must be a finite number, got 'a'"),
        ({"transform": nn.augment.Flip}, ValueError, r"got the class Flip; make an object of it: Flip\(\)"),
    ],
)
def test_wrong_arguments_are_named(options, kind, message):
    with pytest.raises(kind, match=message):
        nn.DataLoader(**{"x": np.zeros((3, 1)), "y": np.zeros(3, int), **options})


@pytest.mark.parametrize("name", ["batch_size", "seed", "shuffle", "drop_last", "scale"])
def test_a_state_of_other_batches_is_refused(name):
    settings = {"batch_size": 2, "seed": 0, "shuffle": True, "drop_last": False, "scale": None}
    other = {"batch_size": 3, "seed": 1, "shuffle": False, "drop_last": True, "scale": 0.5}[name]
    state = nn.DataLoader(*samples(), **settings).state_dict()
    with pytest.raises(ValueError, match=f"this loader has {name} "):
        nn.DataLoader(*samples(), **{**settings, name: other}).load_state_dict(state)


def test_numbers_of_numpy_are_accepted():
    loader = nn.DataLoader(*samples(), np.int64(4), shuffle=np.bool_(False), seed=np.uint8(3), prefetch=np.int32(0))
    assert order(loader) == list(range(10)) and type(loader.batch_size) is int
