"""Batches that are made ahead, transformed or read lazily, and passes that are continued."""

import json
import os
import signal
import threading
import time
import traceback

import numpy as np
import pytest

import xpnn as nn
from xpnn import augment
from xpnn.training.prefetch import Prefetch
from xpnn.training.samples import is_lazy


class Lazy:
    """Images that record how they are read and, like HDF5, accept only increasing positions."""

    def __init__(self, array):
        self.array, self.asked, self.shape, self.dtype = array, [], array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __array__(self, *_, **__):
        raise AssertionError("all of it was read")

    def __getitem__(self, index):
        found = self.array[index]
        if not isinstance(index, slice):
            assert (np.diff(index) > 0).all()
        self.asked.append(len(found))
        return found


def images(n=23):
    x = np.random.default_rng(0).integers(0, 256, (n, 3, 6, 5)).astype(np.uint8)
    return x, np.arange(n)


def batches(loader, start=0, b=None):
    b = b or nn.get_backend("numpy")
    return [tuple(np.asarray(b.to_numpy(part)) for part in batch) for batch in loader.batches(b, start)]


def same(one, two):
    return len(one) == len(two) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for left, right in zip(one, two, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "xpnn-prefetch"]


RANDOM = augment.Compose(augment.PadAndCrop(1), augment.Flip(), augment.Normalise(0.5, 0.25))


def test_scaled_batches_are_float32_times_the_scale():
    x, y = images()
    found = batches(nn.DataLoader(x, y, 5, shuffle=False, scale=1 / 255))
    assert np.concatenate([part for part, _ in found]).tobytes() == (x.astype(np.float32) * (1 / 255)).tobytes()


@pytest.mark.parametrize("shuffle", [False, True])
def test_lazy_data_is_read_batch_by_batch(shuffle):
    x, y = images()
    lazy = Lazy(x)
    found = batches(nn.DataLoader(lazy, Lazy(y), 5, shuffle=shuffle, scale=0.5))
    assert lazy.asked == [5, 5, 5, 5, 3]
    assert same(found, batches(nn.DataLoader(x, y, 5, shuffle=shuffle, scale=0.5, prefetch=0)))


def test_mapped_arrays_are_not_copied(tmp_path):
    x, y = images()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    loader = nn.DataLoader(mapped, y, 5)
    assert np.shares_memory(loader.arrays[0], mapped)


def test_lists_numbers_and_arrays_are_not_lazy():
    for value in ([1, 2], np.zeros(3), np.float32(1), (1,), "ab"):
        assert not is_lazy(value)


@pytest.mark.parametrize("prefetch", [0, 1, 3, 50])
@pytest.mark.parametrize("transform", [None, RANDOM])
def test_batches_are_the_same_however_many_are_made_ahead(prefetch, transform):
    loaders = [
        nn.DataLoader(*images(), 4, seed=3, scale=1 / 255, transform=transform, prefetch=p) for p in (0, prefetch)
    ]
    for _ in range(3):
        assert same(*map(batches, loaders))


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_a_pass_continues_from_a_given_batch(prefetch, start):
    def loader():
        return nn.DataLoader(*images(), 4, seed=3, scale=1 / 255, transform=RANDOM, prefetch=prefetch)

    whole, later = loader(), loader()
    batches(whole)
    later.epoch = 1
    assert same(batches(later, start), batches(whole)[start:])
    assert later.epoch == whole.epoch == 2
    assert same(batches(later), batches(whole))


@pytest.mark.parametrize("start", [-1, 7, 1.0, True])
def test_a_start_outside_the_pass_is_refused(start):
    with pytest.raises(ValueError, match="from 0 to 6"):
        nn.DataLoader(*images(), 4).batches(nn.get_backend("numpy"), start)


def test_transforms_draw_other_numbers_for_each_pass_and_batch():
    x, y = np.ones((64, 1, 4, 4), np.float32), np.arange(64)
    loader = nn.DataLoader(x, y, 32, shuffle=False, transform=augment.Cutout(2))
    one, two = batches(loader), batches(loader)
    parts = [x.tobytes() for x, _ in (*one, *two)]
    assert len({*parts}) == 4
    generator = nn.random.Generator(0).fold_in("augment").fold_in(1).fold_in(1)
    assert parts[3] == augment.Cutout(2)(x[:32], generator).tobytes()


def test_batches_are_the_same_on_every_backend(at):
    def loader():
        return nn.DataLoader(*images(), 4, seed=3, scale=1 / 255, transform=RANDOM)

    assert same(batches(loader(), b=at.backend), batches(loader()))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_batch_made_ahead_is_one_transfer_for_each_array(at, prefetch):
    loader = nn.DataLoader(*images(), 4, backend=at.backend, prefetch=prefetch)
    before = at.backend.transfers
    count = len(list(loader))
    after = at.backend.transfers
    assert after["to_device"][0] - before["to_device"][0] == 2 * count
    assert after["to_host"] == before["to_host"]


def test_batches_are_made_ahead_by_default_for_devices_transforms_and_lazy_data():
    x, y = images()
    host = nn.get_backend("numpy")
    assert nn.DataLoader(x, y)._depth(host) == 0
    assert nn.DataLoader(x, y, scale=0.5)._depth(host) == 0
    assert nn.DataLoader(x, y, transform=RANDOM)._depth(host) == 2
    assert nn.DataLoader(Lazy(x), y)._depth(host) == 2
    assert nn.DataLoader(Lazy(x), y, prefetch=0)._depth(host) == 0


class Failing:
    """A transform that raises at its third batch."""

    calls = 0

    def __call__(self, x, generator):
        self.calls += 1
        if self.calls == 3:
            raise KeyError("third")
        return x


@pytest.mark.parametrize("prefetch", [0, 2])
def test_error_of_a_transform_is_raised_at_its_batch_with_its_traceback(prefetch):
    loader, seen = nn.DataLoader(*images(), 4, transform=Failing(), prefetch=prefetch), []
    with pytest.raises(KeyError, match="third") as caught:
        for batch in loader:
            seen.append(batch)
    assert len(seen) == 2
    assert 'raise KeyError("third")' in "".join(traceback.format_exception(caught.value))
    assert not threads()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_stop_iteration_in_a_transform_is_no_end_of_the_pass(prefetch):
    def stop(x, generator):
        raise StopIteration

    with pytest.raises(RuntimeError):
        list(nn.DataLoader(*images(), 4, transform=stop, prefetch=prefetch))


def test_result_of_a_transform_is_checked():
    with pytest.raises(
        ValueError, match=r"must return an array of as many samples as its batch, 4, got \(3, 3, 6, 5\)"
    ):
        list(nn.DataLoader(*images(), 4, transform=lambda x, generator: x[1:]))


def test_leaving_a_pass_stops_its_thread():
    loader = nn.DataLoader(*images(), 2, prefetch=2)
    for _ in loader:
        assert len(threads()) == 1
        break
    assert not threads()
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError
    assert not threads()
    running = iter(loader)
    next(running)
    running.close()
    assert not threads()
    assert len(list(loader)) == 12 and not threads()
    never = iter(loader)
    del never
    assert not threads()


def test_no_more_batches_are_made_than_prefetch_allows():
    made = []

    def note(x, generator):
        made.append(len(x))
        return x

    running = iter(nn.DataLoader(*images(), 2, transform=note, prefetch=2))
    next(running)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    # One is used, two are ready, one waits to be added.
    assert len(made) == 4
    running.close()


def test_waiting_for_a_batch_can_be_interrupted():
    gate = threading.Event()

    def slow(x, generator):
        gate.wait(10)
        return x

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.15)
        gate.set()

    running = iter(nn.DataLoader(*images(), 4, transform=slow))
    threading.Timer(0.05, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert gate.is_set() and not threads()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_its_own_pass():
    loader = nn.DataLoader(*images(), 2, prefetch=2)
    running = iter(loader)
    next(running)
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(10)
            try:
                next(running)
            except RuntimeError as error:
                assert "forked" in str(error)
                running.close()
                assert len(list(loader)) == 12
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(running)) == 11


def test_thread_sees_the_backend_in_use():
    seen = []

    def look(x, generator):
        seen.append(nn.get_backend().spec)
        return x

    with nn.use_backend("strict"):
        list(nn.DataLoader(*images(), 23, transform=look))
    assert seen == ["strict"]


def test_items_end_once():
    with Prefetch(iter([1, 2]), 5) as ahead:
        assert list(ahead) == [1, 2]
        assert next(ahead, None) is None


def test_state_is_numbers_and_text_and_restores_the_passes():
    loader = nn.DataLoader(*images(), 4, seed=3, transform=RANDOM)
    batches(loader), batches(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    later = nn.DataLoader(*images(), 4, seed=3, transform=RANDOM)
    later.load_state_dict(state)
    assert later.epoch == 2 and same(batches(later), batches(loader))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 5}, "has batch_size 5 and the state is of one with 4"),
        ({"seed": 1}, "has seed 1 and the state is of one with 0"),
        ({"shuffle": False}, "has shuffle False"),
        ({"transform": augment.Flip()}, r"has transform 'Flip\(0.5\)' and the state is of one with 'None'"),
    ],
)
def test_state_of_another_loader_is_refused(changed, message):
    state = nn.DataLoader(*images(), 4).state_dict()
    other = nn.DataLoader(*images(), **{"batch_size": 4, **changed})
    with pytest.raises(ValueError, match=message):
        other.load_state_dict({**state, "epoch": 3})
    assert other.epoch == 0


def test_state_of_other_data_or_of_nothing_is_refused():
    loader = nn.DataLoader(*images(), 4)
    with pytest.raises(ValueError, match="has samples 23 and the state is of one with 20"):
        loader.load_state_dict(nn.DataLoader(*images(20), 4).state_dict())
    with pytest.raises(ValueError, match="no seed; it holds nothing"):
        loader.load_state_dict({})
    with pytest.raises(ValueError, match="epoch must be an integer >= 0, got -1"):
        loader.load_state_dict({**loader.state_dict(), "epoch": -1})


@pytest.mark.parametrize("prefetch", [-1, 1.5, True])
def test_bad_prefetch_is_refused(prefetch):
    with pytest.raises(ValueError, match="prefetch must be an integer >= 0"):
        nn.DataLoader(*images(), prefetch=prefetch)


def test_a_transform_must_be_callable():
    with pytest.raises(ValueError, match="transform must be a callable"):
        nn.DataLoader(*images(), transform="flip")
