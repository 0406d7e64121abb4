"""Copies beside the computation: every batch arrives whole, also on streams that run as late as their order allows."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import late_uploads
import numpy as np
import pytest
from device_counts import MODES, require_emulator, run_tests_late

import xpnn as nn
from xpnn.backends import CaptureError
from xpnn.backends.cuda import pinned
from xpnn.backends.recording.guards import guarded


@pytest.fixture
def b(gpu):
    return gpu


@pytest.fixture
def uploader(gpu):
    return pinned.PinnedUploader(gpu, pytest.importorskip("cupy"))


def parts(i, n=6):
    generator = np.random.default_rng(i)
    return [generator.normal(size=(n, 3)).astype("float32"), generator.integers(0, 9, n)]


def used(arrays):
    """What kernels on the compute stream read of a batch."""
    return [array + 0 for array in arrays]


def check(b, results, sizes):
    assert len(results) == len(sizes)
    for i, (got, n) in enumerate(zip(results, sizes, strict=True)):
        for array, wanted in zip(got, parts(i, n), strict=True):
            assert array.dtype == wanted.dtype and np.array_equal(b.to_numpy(array), wanted)


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_every_batch_arrives_whole(b, uploader, ahead):
    results, sent = [], []
    for i in range(12):
        sent.append(uploader.send(parts(i)))
        if len(sent) == ahead:
            results.append(used(uploader.receive(sent.pop(0))))
    results += [used(uploader.receive(each)) for each in sent]
    check(b, results, [6] * 12)
    assert len(uploader._free) == ahead


def test_batches_that_are_kept_stay_as_they_are(b, uploader):
    check(b, [uploader.receive(uploader.send(parts(i))) for i in range(6)], [6] * 6)


def test_host_arrays_may_be_overwritten_at_once(b, uploader):
    results = []
    for i in range(4):
        host = parts(i)
        sent = uploader.send(host)
        for array in host:
            array[...] = 0
        results.append(used(uploader.receive(sent)))
    check(b, results, [6] * 4)


def test_larger_batches_after_smaller_ones_arrive_whole(b, uploader):
    sizes = [2, 90, 3, 400, 1, 4000, 7, 20000]
    check(b, [used(uploader.receive(uploader.send(parts(i, n)))) for i, n in enumerate(sizes)], sizes)


def test_dropped_batches_leave_the_others_whole(b, uploader):
    results = []
    for i in range(8):
        sent = uploader.send(parts(i))
        uploader.send(parts(100 + i))
        results.append(used(uploader.receive(sent)))
    check(b, results, [6] * 8)


def test_another_thread_may_send(b, uploader):
    queue, results = [], []
    ready, room = threading.Semaphore(0), threading.Semaphore(3)

    def send():
        for i in range(30):
            room.acquire()
            queue.append(uploader.send(parts(i)))
            ready.release()

    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(30):
        assert ready.acquire(timeout=30)
        results.append(used(uploader.receive(queue.pop(0))))
        room.release()
    thread.join()
    check(b, results, [6] * 30)


def test_a_batch_is_copied_once_without_a_wait(b, uploader):
    emulator = require_emulator("only an emulated device counts")
    uploader.receive(uploader.send(parts(0)))
    before = emulator.counts()
    for i in range(5):
        uploader.receive(uploader.send(parts(i)))
    after = emulator.counts()
    assert {name: after[name] - before[name] for name in ("to_device", "to_host", "within")} == {
        "to_device": 5,
        "to_host": 0,
        "within": 10,
    }


def test_arrays_are_counted_as_transfers(b, uploader):
    before = b.transfers["to_device"]
    uploader.receive(uploader.send(parts(0)))
    calls, nbytes = b.transfers["to_device"]
    assert (calls - before[0], nbytes - before[1]) == (2, 6 * 3 * 4 + 6 * 8)


def test_a_loader_uses_it_and_gives_the_batches_of_the_host(b):
    x, y = np.random.default_rng(0).random((23, 3)), np.arange(23)
    wanted = list(nn.DataLoader(x, y, 4, seed=1, backend="numpy"))
    results = [used(batch) for batch in nn.DataLoader(x, y, 4, seed=1, backend=b)]
    assert len(results) == 6
    for got, expected in zip(results, wanted, strict=True):
        for array, each in zip(got, expected, strict=True):
            assert array.dtype == each.dtype and np.array_equal(b.to_numpy(array), each)


def test_one_uploader_serves_all_loaders(b):
    assert b.uploader() is b.uploader() and isinstance(b.uploader(), pinned.PinnedUploader)


def test_empty_arrays_arrive(uploader):
    (got,) = uploader.receive(uploader.send([np.zeros((0, 3), np.float32)]))
    assert got.shape == (0, 3)


def test_other_dtypes_are_refused(uploader):
    with pytest.raises(TypeError, match="got complex128"):
        uploader.send([np.zeros(3, complex)])


def test_it_is_refused_in_a_recording(uploader):
    sent = uploader.send(parts(0))
    with guarded([]), pytest.raises(CaptureError, match="copy from the host"):
        uploader.receive(sent)


def test_without_any_one_of_its_rules_batches_are_damaged_and_with_all_of_them_none(gpu):
    """Which rules are needed depends on which streams are late."""
    require_emulator("only an emulated device can delay its streams")

    def damaging(mode):
        command = [sys.executable, str(Path(late_uploads.__file__))]
        run = subprocess.run(command, env={**os.environ, "CUDA_EMULATOR_LATE": mode}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-3000:]
        return json.loads(run.stdout)

    with ThreadPoolExecutor(2) as pool:
        found = {rule for rules in pool.map(damaging, MODES) for rule in rules}
    assert found == set(late_uploads.RULES)


@pytest.mark.parametrize("mode", MODES)
def test_streams_as_late_as_their_order_allows_change_nothing(gpu, mode):
    run_tests_late(__file__, "(whole or kept or overwritten or send or loader) and not late", mode)
