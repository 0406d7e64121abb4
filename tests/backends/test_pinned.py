"""Copies beside the computation, on streams that run as late or as early as their order allows: no GPU is needed.

It proves which order is asked for, not that a GPU keeps it.
"""

from pathlib import Path

import numpy as np
import pytest
import streams

import xpnn as nn
from xpnn.backends import CaptureError, capture, pinned


@pytest.fixture(params=["none", "copy", "compute", "all"])
def world(request, fake_cupy, monkeypatch):
    return streams.install(fake_cupy, monkeypatch, request.param)


@pytest.fixture
def b(world):
    return nn.get_backend("cupy")


def parts(i, n=6):
    generator = np.random.default_rng(i)
    return [generator.normal(size=(n, 3)).astype("float32"), generator.integers(0, 9, n)]


def consume(world, arrays, results):
    """A kernel on the compute stream that reads a batch, whenever it runs."""
    reads = [array.read() for array in arrays]
    world.compute.submit(lambda: results.append([read() for read in reads]))


def check(results, count):
    assert len(results) == count
    for i, got in enumerate(results):
        assert all(np.array_equal(a, b) for a, b in zip(got, parts(i), strict=True))


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_every_batch_arrives_whole(world, b, ahead):
    uploader, results, sent = b.uploader(), [], []
    for i in range(12):
        sent.append(uploader.send(parts(i)))
        if len(sent) == ahead:
            consume(world, uploader.receive(sent.pop(0)), results)
    for each in sent:
        consume(world, uploader.receive(each), results)
    world.compute.drain()
    check(results, 12)
    assert len(uploader._free) == ahead


def test_batches_that_are_kept_stay_as_they_are(world, b):
    uploader, kept = b.uploader(), []
    for i in range(6):
        kept.append(uploader.receive(uploader.send(parts(i))))
    results = []
    for arrays in kept:
        consume(world, arrays, results)
    world.compute.drain()
    check(results, 6)


def test_host_arrays_may_be_overwritten_at_once(world, b):
    uploader, results = b.uploader(), []
    for i in range(4):
        host = parts(i)
        sent = uploader.send(host)
        for array in host:
            array[...] = 0
        consume(world, uploader.receive(sent), results)
    world.compute.drain()
    check(results, 4)


def test_larger_batches_after_smaller_ones_arrive_whole(world, b):
    uploader, results = b.uploader(), []
    sizes = [2, 90, 3, 400, 1, 400]
    for i, n in enumerate(sizes):
        consume(world, uploader.receive(uploader.send(parts(i, n))), results)
    world.compute.drain()
    assert all(np.array_equal(got[0], parts(i, n)[0]) for i, (got, n) in enumerate(zip(results, sizes, strict=True)))


def test_batches_given_up_leave_the_others_whole(world, b):
    uploader, results = b.uploader(), []
    for i in range(8):
        sent = uploader.send(parts(i))
        uploader.send(parts(100 + i))
        consume(world, uploader.receive(sent), results)
        del sent
    world.compute.drain()
    check(results, 8)


def test_a_batch_crosses_the_bus_once_on_a_stream_of_its_own(world, b):
    uploader = b.uploader()
    uploader.receive(uploader.send(parts(0)))
    assert [entry[:2] for entry in world.log] == [("host", "copy"), ("device", "compute"), ("device", "compute")]


def test_arrays_are_counted_as_transfers(world, b):
    before = b.transfers["to_device"]
    b.uploader().receive(b.uploader().send(parts(0)))
    calls, nbytes = b.transfers["to_device"]
    assert (calls - before[0], nbytes - before[1]) == (2, 6 * 3 * 4 + 6 * 8)


def test_a_loader_uses_it_and_gives_the_batches_of_the_host(world, b):
    x, y = np.random.default_rng(0).random((23, 3)), np.arange(23)
    wanted = list(nn.DataLoader(x, y, 4, seed=1, backend="numpy"))
    results = []
    for batch in nn.DataLoader(x, y, 4, seed=1, backend=b):
        consume(world, batch, results)
    world.compute.drain()
    assert len(results) == 6
    for got, expected in zip(results, wanted, strict=True):
        assert all(a.dtype == e.dtype and np.array_equal(a, e) for a, e in zip(got, expected, strict=True))


def test_one_uploader_serves_all_loaders(b):
    assert b.uploader() is b.uploader()


def test_empty_arrays_arrive(world, b):
    (got,) = b.uploader().receive(b.uploader().send([np.zeros((0, 3), np.float32)]))
    assert got.shape == (0, 3)


def test_what_is_not_taken_is_refused_before_any_copy(world, b):
    with pytest.raises(TypeError, match="got complex128"):
        b.uploader().send([np.zeros(3, complex)])
    assert not world.log


def test_a_recording_is_no_place_for_it(b):
    uploader = b.uploader()
    sent = uploader.send(parts(0))
    with capture._watching([]), pytest.raises(CaptureError, match="copy from the host"):
        uploader.receive(sent)


@pytest.mark.parametrize(
    "rule",
    [
        "slot.copied.synchronize()",
        "self._stream.wait_event(slot.consumed)",
        "current.wait_event(slot.copied)",
        "self._stream.record(slot.copied)",
        "current.record(slot.consumed)",
    ],
)
def test_without_any_one_of_its_rules_batches_are_damaged(rule, fake_cupy, monkeypatch):
    """The streams here are adversaries enough to notice."""
    source = Path(pinned.__file__).read_text(encoding="utf-8")
    assert source.count(rule) == 1
    scope = {"__name__": "xpnn.backends.broken", "__package__": "xpnn.backends"}
    exec(compile(source.replace(rule, "pass"), "broken", "exec"), scope)
    damaged = False
    for eager in ("none", "copy", "compute", "all"):
        world = streams.install(fake_cupy, monkeypatch, eager)
        uploader, results, sent = scope["PinnedUploader"](nn.get_backend("cupy"), fake_cupy.module), [], []
        for i in range(8):
            sent.append(uploader.send(parts(i)))
            if len(sent) == 2:
                consume(world, uploader.receive(sent.pop(0)), results)
        world.compute.drain()
        damaged |= any(not np.array_equal(got[0], parts(i)[0]) for i, got in enumerate(results))
    assert damaged
