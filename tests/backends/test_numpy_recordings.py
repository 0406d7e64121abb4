"""Compiled steps on NumPy: numbers that change, decisions, memory and threads, and that nothing is missed silently."""

import gc
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from compiled_steps import OPTIMIZERS, bits, make, net, train

import xpnn as nn
from xpnn.backends import CaptureError
from xpnn.backends.cpu import replay
from xpnn.backends.recording import compiled_step
from xpnn.backends.recording.calls import current, decide, empty, record
from xpnn.backends.recording.memory_plan import Lifetime, plan
from xpnn.backends.recording.tape import Tape
from xpnn.backends.recording.traced import TracedArray, plain


@pytest.fixture
def b():
    return nn.get_backend("numpy")


def argument(i, shape=(4, 3)):
    return np.random.default_rng(i).normal(size=shape).astype("float32")


def require_bits(step, make_argument=argument, calls=6):
    """The compiled step has the bits of the step for other arguments each time; returns it."""
    compiled = nn.get_backend("numpy").compile(step)
    for i in range(calls):
        assert np.asarray(compiled(make_argument(i))).tobytes() == np.asarray(step(make_argument(i))).tobytes(), i
    assert compiled.recorded == 1 and compiled.replayed == calls - compiled_step.WARMUP
    return compiled


# Numbers


COUNTING = [
    *(nn.Adam, nn.AdamW, lambda model: nn.Adagrad(model, lr_decay=0.1)),
    *(nn.Adamax, nn.NAdam, nn.RAdam, lambda model: nn.RAdam(model, betas=(0.9, 0.9))),
]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_that_changes_at_every_step_is_replayed(b, name):
    def schedule(optimizer):
        return lambda i: setattr(optimizer, "lr", 0.1 / (i + 3))

    ours, optimizer, step = make(b, OPTIMIZERS[name])
    reference, plain_optimizer, plain_step = make(b, OPTIMIZERS[name])
    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, between=schedule(optimizer)) == train(b, plain_step, between=schedule(plain_optimizer))
    assert compiled.recorded == 1 and bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)


@pytest.mark.parametrize("make_optimizer", COUNTING)
def test_what_optimizers_count_stays_a_number_of_python(b, make_optimizer):
    ours, optimizer, step = make(b, make_optimizer)
    reference, plain_optimizer, plain_step = make(b, make_optimizer)
    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled) == train(b, plain_step)
    assert compiled.recorded == 1 and not optimizer.capturable
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)
    for parameter in optimizer.parameters.values():
        numbers = [value for value in parameter.states[optimizer].values() if not isinstance(value, np.ndarray)]
        assert numbers and all(type(value) in (int, float) for value in numbers)


class Halving(nn.SGD):
    """A rule that reads its rate in Python."""

    def _step(self, gradient, state, xp):
        return gradient * (self.lr if self.lr > 0.05 else 0.5 * self.lr)


def test_a_rate_that_python_reads_has_a_recording_for_each_value(b):
    def change(optimizer):
        return lambda i: setattr(optimizer, "lr", 0.1 if i < 7 else 0.02)

    ours, optimizer, step = make(b, lambda model: Halving(model, lr=0.1))
    _, plain_optimizer, plain_step = make(b, lambda model: Halving(model, lr=0.1))
    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, 14, change(optimizer)) == train(b, plain_step, 14, change(plain_optimizer))
    assert compiled.recorded == 2


def test_a_number_of_python_takes_the_dtype_of_the_arrays_beside_it(b):
    class Owner:
        rate = 0.1

        def slots(self):
            yield compiled_step.Slot.attribute("rate", self, "rate", varies="between")

    owner = Owner()

    def step(x):
        y = x * owner.rate + (1.0 - owner.rate * 3)
        y -= owner.rate
        y *= np.float32(2.0)
        return y + x.astype("float64") * owner.rate

    compiled = b.compile(step, owner)
    for i in range(6):
        owner.rate = 0.1 * i
        assert compiled(argument(i)).tobytes() == step(argument(i)).tobytes()
    assert compiled.recorded == 1 and compiled.replayed == 4


# Decisions


@pytest.mark.usefixtures("array_functions")
def test_targets_that_python_decides_by_are_tested_at_every_replay(b):
    model, optimizer, step = make(b, OPTIMIZERS["sgd"])
    _, _, plain_step = make(b, OPTIMIZERS["sgd"])
    compiled = b.compile(step, model, optimizer)
    x = np.random.default_rng(0).normal(size=(8, 1, 6, 6)).astype("float32")
    usual, ignored = np.arange(8) % 4, np.where(np.arange(8) < 3, -100, 1)
    for y in (usual, usual, usual, usual, ignored, usual, ignored):
        assert compiled(x, y) == plain_step(x, y)
    assert compiled.recorded == 1 and compiled.replayed == 2
    with pytest.raises(ValueError, match="targets run from 9 to 9"):
        compiled(x, np.full(8, 9))


def test_a_decision_by_what_the_step_computed_is_refused(b):
    compiled = b.compile(lambda x: x * (2.0 if decide(lambda y: bool(y[0, 0] > 0), x + 1.0) else 3.0))
    with pytest.raises(CaptureError, match="reads values that it computed itself"):
        train_on(compiled)


# What is refused


def train_on(compiled, calls=4, make_argument=argument):
    for i in range(calls):
        compiled(make_argument(i))


TABLE = np.arange(5.0, dtype="float32")
BUFFER = np.zeros((4, 3), "float32")


def copied_into_own_array(x):
    y = np.empty((4, 3), "float32")
    y[...] = x
    return x + y


def written_outside(x):
    BUFFER[:] += x
    return x


def by_ufunc_into_own_array(x):
    return np.add(x, 1.0, out=np.empty((4, 3), "float32"))


MISSED = {
    "a copy by asarray": lambda x: x + np.asarray(x) * 2.0,
    "a result by asarray": lambda x: np.asarray(x) * 2.0,
    "a copy by array": lambda x: np.array(x),
    "a copy into an array of its own": copied_into_own_array,
    "a random number": lambda x: x * np.random.default_rng().random(),
    "a random array": lambda x: x * np.random.default_rng().random(3).astype("float32"),
    "a table of its own": lambda x: x + TABLE[(x > 0).astype("int64")],
    "a write outside": written_outside,
    "an array of its own as out": by_ufunc_into_own_array,
    "a value as float": lambda x: x * float(x[0, 0]),
    "a value as int": lambda x: x * int(x[0, 0]),
    "a value as bool": lambda x: x if x.sum() > 0 else -x,
    "a value as index": lambda x: x[abs(int(x[0, 0])) % 2],
    "a value by item": lambda x: x * x.max().item(),
    "values as a list": lambda x: x * x.tolist()[0][0],
    "a mask": lambda x: x[x > 0],
    "places": lambda x: np.nonzero(x)[0],
    "text": lambda x: x * len(x.tobytes()),
}


@pytest.mark.parametrize("what", MISSED)
def test_what_a_replay_would_miss_is_refused(b, what):
    with pytest.raises(CaptureError):
        train_on(b.compile(MISSED[what]))
    assert current() is None


@pytest.mark.parametrize("place", range(6))
def test_a_call_that_is_missing_on_the_tape_is_noticed(b, monkeypatch, place):
    """Planted: one of the calls of both runs is left out."""
    usual, count = Tape.append, Counter()

    def forget(self, function, args, keywords):
        count[self] += 1
        if count[self] % 6 != place:
            usual(self, function, args, keywords)

    monkeypatch.setattr(Tape, "append", forget)
    step = b.compile(lambda x: np.exp(x * 2.0 + 1.0).sum(axis=0).reshape(3, 1) * np.sqrt(np.abs(x.T)) - 0.5)
    with pytest.raises(CaptureError, match="not recorded"):
        train_on(step)


def test_a_step_that_was_refused_leaves_arguments_and_state(b):
    model, optimizer, step = make(b, OPTIMIZERS["momentum"])
    reference, plain_optimizer, plain_step = make(b, OPTIMIZERS["momentum"])
    calls = []

    def fails_at_last(x, y):
        value = step(x, y)
        calls.append(current() is not None)
        return float(value) if calls[-1] else value

    compiled = b.compile(fails_at_last, model, optimizer)
    with pytest.raises(CaptureError, match="can't read values"):
        train(b, compiled)
    plain_calls = calls.count(False)
    train(b, plain_step, plain_calls)
    assert bits(b, model, optimizer) == bits(b, reference, plain_optimizer)
    assert not any(isinstance(array, TracedArray) for array in model.state_dict().values())


# Functions of NumPy

FUNCTIONS = {
    "in place": lambda x: _in_place(x + 0.0),
    "views": lambda x: np.moveaxis(x[:, ::2], 0, 1)[::-1].T.swapaxes(0, 1) * 2.0,
    "a scalar": lambda x: x[1, 2] + x[0][1] * np.float32(3.0),
    "joined": lambda x: np.concatenate([x, x * 2.0, np.stack([x, -x])[1]], axis=0),
    "chosen": lambda x: np.where(x > 0, x, 0.0) + np.take_along_axis(x, np.argsort(x, axis=1), axis=1),
    "reductions": lambda x: np.sum(x, axis=0) + x.max(axis=0) + x.mean(axis=0) + np.any(x > 1.0, axis=0),
    "several results": lambda x: np.add(*np.modf(x)) + np.divmod(x, 0.3)[1],
    "split": lambda x: np.split(x, 2)[0] * np.split(x, 2)[1],
    "assigned": lambda x: _assigned(x * 1.0),
    "by a list": lambda x: x[[0, 2]] + x[np.array([1, 3])],
    "iterated": lambda x: sum((row * row for row in x), np.zeros(3, "float32")),
    "reshaped": lambda x: x.T.reshape(2, 6) + np.ravel(x[::-1]).reshape(2, 6) + x.flatten().reshape(2, 6),
    "bits": lambda x: (x.view(np.int32) ^ 1).view(np.float32),
    "products": lambda x: x @ x.T + np.einsum("ij,kj->ik", x, x) + np.tensordot(x, x, axes=([1], [1])),
    "new arrays": lambda x: np.ones_like(x) + np.full_like(x, 2.0) + np.zeros_like(x[:1]),
    "scattered": lambda x: _scattered(x * 1.0),
}


def _in_place(y):
    y *= 2.0
    y[1:3, :2] -= 1.0
    np.add(y, 1.0, out=y[:, ::-1])
    y.fill(3.0) if y.ndim == 1 else y.sort(axis=1)
    return y


def _assigned(y):
    y[0] = y[1:2]
    y[1, 1] = 5
    y[..., 0] = [1.0, 2.0, 3.0, 4.0]
    y[y > 2.0] = 0.0
    return y


def _scattered(y):
    np.add.at(y, ([0, 0], [1, 1]), 1.0)
    np.put_along_axis(y, np.argmax(y, axis=1)[:, np.newaxis], 7.0, axis=1)
    np.copyto(y, 0.25, where=y < 0.0)
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_numpy_are_replayed(b, name):
    require_bits(FUNCTIONS[name])


@pytest.mark.parametrize(
    "make_arrays",
    [
        lambda xp, x: x + xp.zeros((3,), dtype=x.dtype) + xp.ones(3) + xp.full((4, 3), 2.0, dtype=x.dtype),
        lambda xp, x: x * xp.arange(3, dtype=x.dtype) + xp.asarray(2.0) * xp.asarray(x, dtype="float64"),
        lambda xp, x: xp.take(xp.asarray([1.0, 2.0]), xp.astype(x > 0, xp.int64)),
        lambda xp, x: xp.count_nonzero(x > 0, axis=0) + xp.clip(x, -0.5, 0.5),
        lambda xp, x: xp.cumulative_sum(xp.permute_dims(x, (1, 0)), axis=1) + xp.sum(xp.sort(x)),
    ],
)
def test_functions_of_the_namespace_are_replayed(b, make_arrays):
    require_bits(lambda x: make_arrays(b.xp, x))


def test_arrays_of_the_backend_pass_through_asarray(b):
    require_bits(lambda x: b.asarray(b.asarray(x) * 2.0, "float64") + b.asarray(x))


def test_copies_keep_their_memory_layout(b):
    """Products of arrays in another layout have other last bits."""
    strides = []

    def step(x):
        copied = b.xp.asarray(b.xp.permute_dims(x, (2, 0, 1)), copy=True)
        strides.append(plain(copied).strides)
        return copied * 2.0

    require_bits(step, lambda i: argument(i, (4, 3, 2)))
    assert set(strides) == {(4, 24, 8)}


def test_an_array_of_the_namespace_can_be_filled_in_a_step(b):
    def step(x):
        y, total = b.xp.empty((4, 3), dtype=x.dtype), b.xp.zeros((), dtype=x.dtype)
        y[...] = x
        total += b.xp.sum(y)
        return y * total

    require_bits(step)


def test_a_large_product_of_numpy_keeps_its_threads(b):
    step = require_bits(lambda x: x @ x.T, lambda i: argument(i, (300, 300)), calls=4)
    (call,) = step._recordings[0].replay._calls
    assert call.func is not np.matmul
    small = require_bits(lambda x: x @ x.T)
    assert small._recordings[0].replay._calls[0].func is np.matmul


# Memory


def overlap(one, other):
    if one.group >= 0 and one.group == other.group and one.lane != other.lane:
        return True
    ends = [np.inf if life.end is None else life.end for life in (one, other)]
    return one.start < ends[1] and other.start < ends[0]


def test_arrays_in_use_at_the_same_time_share_no_memory():
    rng = np.random.default_rng(0)
    for _ in range(30):
        lives = []
        for start in range(40):
            end = None if rng.random() < 0.1 else start + 1 + int(rng.integers(15))
            group = int(rng.integers(2)) if rng.random() < 0.4 else -1
            lane = int(rng.integers(3)) if group >= 0 else -1
            lives.append(Lifetime(int(rng.integers(500)), start, end, group, lane))
        offsets, size = plan(lives)
        for i, one in enumerate(lives):
            assert offsets[i] + one.size <= size
            for j, other in enumerate(lives[:i]):
                apart = offsets[i] + one.size <= offsets[j] or offsets[j] + other.size <= offsets[i]
                assert apart or not overlap(one, other)
    assert plan([]) == ([], 0)


def test_memory_is_reused_by_lifetime(b):
    def step(x):
        for _ in range(20):
            x = x * 1.5 + 1.0
        return x

    compiled = require_bits(step, lambda i: argument(i, (100, 100)))
    assert compiled._recordings[0].replay.nbytes <= 3 * 40_064


@pytest.mark.usefixtures("array_functions")
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 16)])
def test_a_compiled_step_holds_at_most_the_memory_of_a_plain_one(b, shape):
    x = argument(0, (64, *shape))
    y = np.arange(64) % 10

    def peak(compiled):
        gc.collect()
        tracemalloc.start()
        model = nn.models.lenet5(shape, 10, backend=b, seed=1)
        optimizer, loss = nn.Adam(model), nn.CrossEntropy(backend=b)

        def step(x, y):
            with nn.released():
                optimizer.zero_grad()
                value = loss(model(x), y)
                model.backward(loss.backward(), input_grad=False)
                optimizer.step()
            return value

        chosen = b.compile(step, model, optimizer) if compiled else step
        for _ in range(5):
            chosen(x, y)
        gc.collect()
        tracemalloc.reset_peak()
        chosen(x, y)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(True) <= 1.02 * peak(False)


def test_a_dropped_recording_frees_its_memory(b):
    def held():
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after = []
        for _ in range(4):
            model, optimizer, step = make(b, OPTIMIZERS["adam"])
            compiled = b.compile(step, model, optimizer)
            train(b, compiled)
            assert compiled.recorded == 1
            del model, optimizer, step, compiled
            after.append(held())
    finally:
        tracemalloc.stop()
    assert after[-1] - after[1] < 20_000


# Threads


def shared_step(b, n=6, size=64):
    ops = nn.backends.operations_of(b.xp)

    def step(x):
        y = b.xp.empty(x.shape, dtype=x.dtype)

        def work(i):
            part = slice(i * size, (i + 1) * size)
            scratch = ops.workspace("scratch", (size, x.shape[1]), x)
            np.multiply(x[part], float(i + 1), out=scratch)
            y[part] = np.exp(scratch * 0.5) + scratch

        ops.parallel(n, work)
        return y * 2.0

    return step


@pytest.mark.parametrize("threads", ["1", "2", "3", "7"])
def test_items_on_any_number_of_threads_give_the_same_bits(b, monkeypatch, threads):
    monkeypatch.setenv("XPNN_NUM_THREADS", threads)
    monkeypatch.setattr(replay, "WORTH_SHARING", 0.0)
    compiled = require_bits(shared_step(b), lambda i: argument(i, (6 * 64, 50)), calls=10)
    lanes = [call for call in compiled._recordings[0].replay._calls if isinstance(call, replay.SharedLanes)]
    assert [len(group.lanes) for group in lanes] == ([] if threads == "1" else [min(int(threads), 6)])


def test_an_array_that_an_item_frees_is_kept_for_the_other_lanes():
    tape = Tape(2)
    held = [tape.new((4,), "float32")]

    def work(i):
        if i == 0:
            held.clear()
        tape.new((8,), "float32")

    tape.parallel(2, work)
    freed, *others = tape.lifetimes
    assert len(others) == 2 and all(freed.end > other.start for other in others)


def test_short_items_stay_on_one_thread(b, monkeypatch):
    monkeypatch.setenv("XPNN_NUM_THREADS", "2")
    monkeypatch.setattr(replay, "WORTH_SHARING", 60.0)
    compiled = require_bits(shared_step(b), lambda i: argument(i, (6 * 64, 50)))
    assert not any(isinstance(call, replay.SharedLanes) for call in compiled._recordings[0].replay._calls)


def test_a_recording_of_many_threads_runs_on_one(b, monkeypatch):
    monkeypatch.setenv("XPNN_NUM_THREADS", "3")
    monkeypatch.setattr(replay, "WORTH_SHARING", 0.0)
    step = shared_step(b)
    compiled = require_bits(step, lambda i: argument(i, (6 * 64, 50)))
    monkeypatch.setenv("XPNN_NUM_THREADS", "1")
    x = argument(9, (6 * 64, 50))
    assert compiled(x).tobytes() == step(x).tobytes() and compiled.recorded == 1


# Engines


def test_an_engine_records_calls_over_arrays_of_the_recording(b):
    runs = []

    def doubled(x):
        x, out = plain(x), empty(x.shape, x.dtype)
        target = plain(out)

        def call():
            runs.append(1)
            np.multiply(x, 2.0, out=target)

        call()
        record(call)
        return out

    require_bits(lambda x: doubled(doubled(x) + 1.0), calls=5)
    assert type(empty(3, "float32")) is np.ndarray and len(runs) == 2 * (5 + 2 + 3 + 1 + 3)


class Scaling:
    """A call of an engine that joins the next one."""

    def __init__(self, x, factors, out):
        self.x, self.factors, self.out = x, factors, out

    def __call__(self):
        np.copyto(self.out, self.x)
        for factor in self.factors:
            self.out *= factor

    def merged(self, following):
        if not isinstance(following, Scaling) or following.x is not self.out:
            return None
        return Scaling(self.x, self.factors + following.factors, following.out)


def test_adjacent_calls_of_an_engine_are_merged(b):
    def scaled(x, factor):
        out = empty(x.shape, x.dtype)
        call = Scaling(plain(x), [np.float32(factor)], plain(out))
        call()
        record(call)
        return out

    compiled = require_bits(lambda x: scaled(scaled(scaled(x, 2.0), 3.0), 0.5) + 1.0, calls=5)
    first, _ = compiled._recordings[0].replay._calls
    assert first.factors == [2.0, 3.0, 0.5]


def test_a_layer_that_was_recorded_still_computes(b):
    model = net(b)
    compiled = b.compile(lambda x: model(x), model)
    for i in range(4):
        compiled(argument(i, (8, 1, 6, 6)))
    dx = model.backward(np.ones((8, 4), "float32"))
    assert type(dx) is np.ndarray and np.isfinite(dx).all()
