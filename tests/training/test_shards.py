"""A step on parts of a batch equals the step on the whole: bit for bit in exact numerics, to rounding in fast."""

import gc
import itertools
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache, partial

import numpy as np
import pytest
from planting import plant

import xpnn as nn
from xpnn.backends import Backend
from xpnn.backends.execution import team
from xpnn.testing.cases import LayerCase, LossCase, cases
from xpnn.training.gradients import part_bounds, part_sizes
from xpnn.training.shards import ExchangeBarrier, Shards, ThreadTeam
from xpnn.training.training_step import batch_gradients

SPLITS = (1, 2, 3, 4, (3, 1, 5), 20)
#: Values before a worker rounds them to float32: afterwards a difference in the last bits of float64 rarely shows.
rounded: ContextVar[list[np.ndarray] | None] = ContextVar("rounded", default=None)


# They watch what is rounded within layers and which threads run, which compiled kernels do otherwise.
pytestmark = pytest.mark.usefixtures("array_functions")


@pytest.fixture(autouse=True)
def nothing_hangs(monkeypatch):
    """Workers that wait for each other forever fail within seconds, and none is left when a test ends."""
    barrier = threading.Barrier
    monkeypatch.setattr(threading, "Barrier", lambda parties: barrier(parties, timeout=20.0))
    crew()
    before = threading.enumerate()
    yield
    assert [thread for thread in threading.enumerate() if thread not in before] == []


@pytest.fixture
def unrounded(monkeypatch):
    """Keep the values that are rounded to float32."""
    down = Backend.down

    def keep(self, array):
        if (kept := rounded.get()) is not None:
            kept.append(np.array(self.to_numpy(array)))
        return down(self, array)

    monkeypatch.setattr(Backend, "down", keep)


def exact(spec="numpy", **settings):
    return nn.get_backend(spec, numerics="exact", **settings)


@cache
def crew():
    """Threads for all teams: to start new ones takes longer than their work."""
    pool, barrier = ThreadPoolExecutor(8), threading.Barrier(8)
    list(pool.map(lambda _: barrier.wait(), range(8)))
    return pool


def in_team(b, sizes, job):
    """``job(rows)`` for the rows of each part, on a team of threads."""
    barrier, bounds = ExchangeBarrier(len(sizes)), [0, *itertools.accumulate(sizes)]

    def work(rank):
        worker = ThreadTeam(barrier, rank, b.xp)
        try:
            with team.joined(worker):
                found = job(slice(bounds[rank], bounds[rank + 1]))
                worker.finish()
                return found
        except BaseException:
            barrier.abort()
            raise

    done = [crew().submit(copy_context().run, work, rank) for rank in range(len(sizes))]
    errors = [error for error in (each.exception() for each in done) if error]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return [each.result() for each in done]


def layer_job(case, b):
    """One forward and backward of a layer on some rows: arrays by name, and what was rounded on the way."""
    first, x, _ = case.prepare(b, "float32")
    state = first.state_dict()

    def job(rows):
        token = rounded.set([])
        layer = case.build(backend=b)
        layer.load_state_dict(state)
        layer.train(case.training)
        y, found = layer(x[rows, ...]), {}
        if isinstance(y, tuple):
            y, found["indices"] = y
        found["y"] = y
        if case.training:
            dy = case.generator.fold_in("upstream").uniform((x.shape[0], *y.shape[1:]), -1.0, 1.0, "float32", "numpy")
            dx = layer.backward(b.asarray(dy)[rows, ...])
            found |= {} if dx is None else {"dx": dx}
            found |= {f"d{name}": parameter.grad for name, parameter in layer.named_parameters()}
        return results(b, found | layer.state_dict(), token)

    return job


def loss_job(case, b):
    """One loss and its gradient on some rows."""
    _, prediction, target = case.prepare(b, "float32")

    def job(rows):
        token = rounded.set([])
        each = case.build().to(b)
        value, dy = each(prediction[rows, ...], target[rows, ...]), 1.0
        if value.ndim:
            shape = (prediction.shape[0], *value.shape[1:])
            dy = b.asarray(case.generator.fold_in("upstream").uniform(shape, -1.0, 1.0, "float32", "numpy"))[rows, ...]
        return results(b, {"loss": value, "dx": each.backward(dy)}, token)

    return job


def results(b, found, token):
    found = {name: b.to_numpy(array) for name, array in found.items()}
    found |= {f"rounded {i}": array for i, array in enumerate(rounded.get())}
    rounded.reset(token)
    return found


def same(ours, theirs):
    """Whether two arrays have the same bits; all NaN count as equal."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if ours.dtype.kind != "f":
        return np.array_equal(ours, theirs)
    equal = (ours == theirs) & (np.signbit(ours) == np.signbit(theirs))
    return bool(np.all(equal | (np.isnan(ours) & np.isnan(theirs))))


def assert_same_in_parts(job, b, n):
    """Every array equals that of the whole batch, on each worker or after the parts are joined."""
    with np.errstate(all="ignore"):
        whole = job(slice(None))
        for sizes in ((n - 1, 0, 1), (1,) * n if n <= 8 else (1, n // 2, n - n // 2 - 1)):
            parts = in_team(b, sizes, job)
            for name, array in whole.items():
                shared = all(same(array, part[name]) for part in parts)
                joined = array.ndim and same(array, np.concatenate([part[name] for part in parts]))
                assert shared or joined, (sizes, name, array, [part[name] for part in parts])


def splittable():
    """Cases with a batch to split; in exact numerics those in float64 are the plain ones again."""
    kinds, again = (LayerCase, LossCase), ("float64", "read-only input", "none")
    return [c for c in cases() if type(c) in kinds and c.shape[0] > 1 and c.name.partition("/")[2] not in again]


@pytest.mark.parametrize("case", splittable(), ids=lambda case: case.name)
def test_parts_give_the_bits_of_the_whole(case, unrounded):
    b = exact()
    job = layer_job(case, b) if isinstance(case, LayerCase) else loss_job(case, b)
    assert_same_in_parts(job, b, case.shape[0])


@pytest.mark.parametrize("spec", ["torch", "strict"])
@pytest.mark.parametrize("name", ["Conv2d/groups", "BatchNorm2d/plain", "Dropout2d/plain", "CrossEntropy/weights"])
def test_parts_give_the_bits_of_the_whole_on_other_backends(spec, name, unrounded):
    case, b = next(case for case in cases() if case.name == name), usable(spec)
    job = layer_job(case, b) if isinstance(case, LayerCase) else loss_job(case, b)
    assert_same_in_parts(job, b, case.shape[0])


@pytest.mark.parametrize("axis", [0, (0, 1), None])
@pytest.mark.parametrize("function", ["sum", "mean", "var", "std", "max", "min"])
def test_reductions_over_the_batch_are_the_teams(function, axis, rng):
    """A custom layer may use them, and `Softmax` over axis 0 does."""
    b, x = exact(), rng.standard_normal((5, 3, 2))
    found = partial(getattr(b.xp, function), axis=axis)
    for part in in_team(b, (2, 0, 3), lambda rows: found(x[rows, ...])):
        assert same(np.asarray(part), np.asarray(found(x)))


def test_a_softmax_over_the_batch_is_the_teams(rng):
    b, x = exact(), rng.standard_normal((5, 3)).astype(np.float32)
    parts = in_team(b, (1, 4), lambda rows: nn.Softmax(0, backend=b)(b.asarray(x[rows])))
    assert same(np.concatenate(parts), nn.Softmax(0, backend=b)(b.asarray(x)))


def test_a_product_over_the_batch_of_a_team_is_refused(rng):
    b, x = exact(), rng.standard_normal((5, 3))
    with pytest.raises(NotImplementedError, match="several workers"):
        in_team(b, (2, 3), lambda rows: b.xp.prod(x[rows], axis=0))


def usable(spec):
    try:
        return exact(spec)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))


CLASSES = 4


def image_net(b, seed=3):
    """Every kind of layer that has state, draws random numbers or computes over the batch."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4, momentum=None),
        nn.PReLU(4),
        nn.Dropout2d(0.3),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Flatten(),
        nn.Dense(16, 8),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(0.4),
        nn.Dense(8, CLASSES),
        backend=b,
        seed=seed,
    )


def small_net(b, seed=5):
    return nn.Sequential(nn.Dense(6, 5), nn.Tanh(), nn.Dropout(0.5), nn.Dense(5, CLASSES), backend=b, seed=seed)


def images(n=21, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2, 6, 6)).astype(np.float32), np.arange(n) % CLASSES


def rows(n=21, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 6)).astype(np.float32), np.arange(n) % CLASSES


def with_gaps(data, part=5):
    """The first samples are ignored, so that in the order of the file one part has only ignored samples."""
    x, y = data
    return nn.DataLoader(x, np.where(np.arange(len(y)) < part, -100, y), 8, shuffle=False)


def trained(make, data, optimizer, *, epochs=1, **options):
    """A model, its optimizer and the history of its training, without the seconds."""
    model = make()
    taught = optimizer(model)
    with np.errstate(all="ignore"):
        history = nn.fit(model, data, optimizer=taught, epochs=epochs, batch_size=8, progress=False, **options)
    return model, taught, {name: history[name] for name in history if name != "seconds"}


def everything(model, optimizer):
    """The state of a run: bits of parameters, buffers and optimizer states, positions of random streams."""
    b = model.backend
    found = {name: b.to_numpy(array).tobytes() for name, array in model.state_dict().items()}
    for name, state in optimizer.state_dict()["state"].items():
        found |= {f"{name}/{k}": b.to_numpy(v).tobytes() if hasattr(v, "dtype") else v for k, v in state.items()}
    for path, layer in model.named_layers():
        found[f"{path}/training"] = layer.training
        if isinstance(layer, nn.Dropout):
            found[f"{path}/position"] = layer.stream.position
    return found


def sgd(model):
    return nn.SGD(model, lr=0.05, momentum=0.9)


RUNS = {
    "images": (image_net, images(), nn.Adam, {"validation": images(9, 1)}),
    "images, momentum": (image_net, images(), sgd, {"loss": nn.CrossEntropy(label_smoothing=0.1)}),
    "weights": (small_net, rows(), nn.Adam, {"loss": nn.CrossEntropy(weight=[0.5, 1, 2, 0])}),
    "ignored": (small_net, with_gaps(rows()), sgd, {"loss": nn.CrossEntropy(label_smoothing=0.1)}),
    "all ignored": (small_net, with_gaps(rows(), 8), sgd, {"loss": nn.CrossEntropy()}),
    "squares": (small_net, (rows()[0], rows()[0][:, :CLASSES]), sgd, {"loss": nn.MSE()}),
    "divergence": (small_net, (rows()[0], np.full((21, CLASSES), 0.25)), sgd, {"loss": nn.KLDivergence()}),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_on_parts_is_the_run(run, tmp_path):
    """History, state and file equal those of a run without parts."""
    make, data, optimizer, options = RUNS[run]
    found = []
    for k in SPLITS:
        if isinstance(data, nn.DataLoader):
            data.epoch = 0
        model, taught, history = trained(lambda: make(exact()), data, optimizer, shards=k, **options)
        nn.save(model, tmp_path / f"{k}.safetensors")
        states = [everything(model, taught)]
        if k in (1, 3):
            nn.fit(model, data, optimizer=taught, epochs=1, progress=False, loss=options.get("loss"))
            states.append(everything(model, taught))
        found.append((repr(history), (tmp_path / f"{k}.safetensors").read_bytes(), states))
    for history, file, states in found[1:]:
        assert history == found[0][0]
        assert file == found[0][1]
        assert states == found[0][2][: len(states)]


@pytest.mark.parametrize("spec", ["torch", "strict"])
def test_a_run_on_parts_of_other_backends_is_numpys(spec):
    host, taught, history = trained(lambda: image_net(exact()), images(), nn.Adam)
    there, other, also = trained(lambda: image_net(usable(spec)), images(), nn.Adam, shards=(2, 1))
    assert also == history
    assert everything(there, other) == everything(host, taught)


def test_a_run_on_parts_with_three_products_is_the_run():
    runs = [trained(lambda: image_net(exact(slice_products=3)), images(), nn.Adam, shards=k) for k in (1, 3)]
    assert everything(*runs[0][:2]) == everything(*runs[1][:2]) and runs[0][2] == runs[1][2]
    usual = trained(lambda: image_net(exact()), images(), nn.Adam)
    assert everything(*usual[:2]) != everything(*runs[0][:2])


def one_step(model, loss, x, target, sizes):
    """Loss, predictions and gradients of a step, on the host."""
    b = model.backend
    model.zero_grad()
    with nn.use_backend(b), batch_gradients(model, loss, sizes) as step:
        value, prediction = step(b.asarray(x), b.asarray(target))
    gradients = {name: b.to_numpy(parameter.grad) for name, parameter in model.named_parameters()}
    return {"loss": b.to_numpy(value), "y": b.to_numpy(prediction), **gradients}


def test_a_mean_over_samples_is_that_of_all_parts():
    """A step with a loss of ``batchmean``."""
    x, target = rows(7)[0], np.full((7, CLASSES), 0.25, np.float32)
    loss = nn.KLDivergence("batchmean")
    found = [one_step(small_net(exact()), loss, x, target, sizes) for sizes in ([1], [1, 5, 2])]
    assert all(same(found[0][name], found[1][name]) for name in found[0])


def fast_net():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Dropout(0.5), nn.Dense(48, CLASSES))


@pytest.mark.parametrize("sizes", [[1, 1], [3, 1, 5], [1] * 20], ids=str)
@pytest.mark.parametrize(
    ("loss", "ignored"),
    [
        (nn.CrossEntropy(), 0),
        (nn.CrossEntropy(weight=[0.5, 1, 2, 0], label_smoothing=0.2), 3),
        (nn.CrossEntropy(), 7),
        (nn.CrossEntropy(), 12),
        (nn.NLL(), 5),
    ],
    ids=str,
)
def test_in_fast_numerics_gradients_of_parts_add_up(loss, ignored, sizes):
    """Each part counts by its targets, not by its samples, and has its part of the whole batch's dropout mask."""
    x, target = images(12)
    target = np.where(np.arange(12) < ignored, -100, target)
    with np.errstate(all="ignore"):
        whole, parts = (one_step(fast_net(), loss, x, target, s) for s in ([1], sizes))
    for name, array in whole.items():
        np.testing.assert_allclose(parts[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_in_fast_numerics_a_loss_of_other_targets_adds_up(at):
    model = nn.Sequential(nn.Flatten(), nn.Dense(72, 3), nn.Sigmoid(), backend=at.backend)
    x, target = images(10)[0], np.random.default_rng(1).uniform(size=(10, 3)).astype(np.float32)
    for loss in (nn.MSE(), nn.BinaryCrossEntropy(), nn.CrossEntropy(), nn.KLDivergence()):
        whole, parts = (one_step(model, loss, x, target, sizes) for sizes in ([1], [2, 7]))
        for name, array in whole.items():
            np.testing.assert_allclose(parts[name], array, rtol=1e-4, atol=1e-6, err_msg=f"{loss} {name}")


def test_one_part_in_fast_numerics_is_the_batch():
    x, target = rows(8)
    runs = [trained(lambda: small_net("numpy"), (x, target), nn.Adam, shards=k) for k in (1, [7])]
    assert everything(*runs[0][:2]) == everything(*runs[1][:2]) and runs[0][2] == runs[1][2]


@pytest.mark.parametrize("odd", ["layer", "loss"])
def test_what_is_not_all_exact_is_accumulated(odd):
    """A fast layer or loss among exact ones sums only its own part, so the parts run one after another."""
    b, loss = exact(), nn.CrossEntropy(numerics="fast" if odd == "loss" else None)
    settings = {"backend": "numpy", "numerics": "fast"} if odd == "layer" else {}
    model = nn.Sequential(nn.Dense(6, 5, **settings), nn.Tanh(), nn.Dense(5, CLASSES), backend=b)
    x, target = rows(9)
    target[:4] = -100
    whole, parts = (one_step(model, loss, x, target, sizes) for sizes in ([1], [1, 2]))
    for name, array in whole.items():
        np.testing.assert_allclose(parts[name], array, rtol=1e-5, atol=1e-7, err_msg=name)


class Part(nn.Layer):
    """Calls a function of the test for one part of a batch, found by its first number."""

    def __init__(self, what, **placement):
        super().__init__(**placement)
        self.what = what

    def __deepcopy__(self, memo):
        return Part(self.what, backend=self.backend)

    def _forward(self, x):
        return self.what(x, self.backend.xp)

    def _backward(self, dy, input_grad):
        return dy


class BrokenError(Exception):
    pass


def is_marked(x, xp):
    return bool(xp.any(x[:, 0] == 7.0))


def broken(error, x, xp):
    if is_marked(x, xp):
        raise error
    return x + 0.0 * xp.sum(x)


def marked(n=9):
    """Only the last sample begins with 7."""
    x, target = rows(n)
    x[-1, 0] = 7.0
    return nn.DataLoader(x, target, n, shuffle=False)


@pytest.mark.parametrize("error", [BrokenError("here"), KeyboardInterrupt("there"), SystemExit(3)], ids=repr)
def test_an_error_of_one_worker_is_the_callers(error):
    b = exact()
    model = nn.Sequential(Part(partial(broken, error)), small_net(b), backend=b)
    with pytest.raises(type(error)) as caught:
        nn.fit(model, marked(), epochs=1, progress=False, shards=3)
    assert caught.value is error
    assert model.training and all(parameter.grad is None for _, parameter in model.named_parameters())


def test_a_class_out_of_range_in_one_part_is_an_error_and_the_model_still_works():
    x, target = rows(9)
    found = []
    for k in (1, 3):
        model = small_net(exact())
        wrong = nn.DataLoader(x, np.where(np.arange(9) == 8, 9, target), 9, shuffle=False)
        with pytest.raises(ValueError, match=r"CrossEntropy\(\): targets run from \d to 9, classes from 0 to 3"):
            nn.fit(model, wrong, epochs=1, progress=False, shards=k)
        model[2].stream.position = 0
        taught = nn.Adam(model)
        nn.fit(model, (x, target), optimizer=taught, epochs=1, progress=False, shards=k)
        found.append(everything(model, taught))
    assert found[0] == found[1]


def different_sums(x, xp):
    return x + (0.0 if is_marked(x, xp) else 0.0 * xp.sum(x))


def different_shapes(x, xp):
    return x + 0.0 * (xp.sum(x) if is_marked(x, xp) else xp.sum(x, axis=0))


def no_samples(x, xp):
    return x + (0.0 * xp.sum(x, axis=0) if x.shape[0] else 0.0)


@pytest.mark.parametrize(("what", "parts"), [(different_sums, 3), (different_shapes, 3), (no_samples, 20)])
def test_workers_that_compute_different_sums_are_an_error(what, parts):
    b = exact()
    model = nn.Sequential(Part(what), nn.Dense(6, CLASSES), backend=b)
    with pytest.raises(
        RuntimeError, match=r"the parts of a batch computed different sums: they are at a .*; with shards a layer"
    ):
        nn.fit(model, marked(), epochs=1, progress=False, shards=parts)


def test_an_interrupt_between_workers_leaves_none_waiting(monkeypatch):
    submit, calls = ThreadPoolExecutor.submit, []

    def interrupted(self, *arguments) -> Future:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return submit(self, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        nn.fit(small_net(exact()), rows(), epochs=1, progress=False, shards=3)
    assert time.monotonic() - started < 10.0


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", [], [0], [1, -1], [1, 2.0], True, None, {2}], ids=repr)
@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_parts_that_are_no_numbers_are_refused_first(wrong, numerics):
    model = small_net(nn.get_backend("numpy", numerics=numerics)).eval()
    with pytest.raises(ValueError, match="shards must be an integer >= 1, or a sequence of them"):
        nn.fit(model, (None, None), shards=wrong, progress=False)
    assert not model.training


def test_sizes_may_be_numpys_and_a_range():
    assert part_sizes(np.int64(3)) == [1, 1, 1] and part_sizes(range(1, 3)) == [1, 2]
    assert (
        part_bounds(16, (3, 1, 5)) == [0, 5, 7, 16]
        and part_bounds(2, (1, 1, 1)) == [0, 0, 1, 2]
        and part_bounds(0, (1, 2)) == [0, 0, 0]
    )


def test_replicas_hold_no_arrays_of_their_own():
    """No copies of parameters or of optimizer state; and the replicas are freed after the run."""
    model = small_net(exact())
    optimizer = nn.Adam(model)
    nn.fit(model, rows(), optimizer=optimizer, epochs=1, progress=False)
    with Shards(model, nn.CrossEntropy(), (1, 1, 2)) as parts:
        for twin in [layer for layer, _ in parts._workers[1:]]:
            for (name, own), (_, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
                assert own is not other and own.value is other.value, name
                assert other.grad is None and not len(other.states), name
        gone = weakref.ref(twin)
    del parts, twin, other
    gc.collect()
    assert gone() is None


def test_an_error_holds_no_replica():
    b, alive = exact(), []
    model = nn.Sequential(Part(partial(broken, BrokenError)), small_net(b), backend=b)
    with pytest.raises(BrokenError), Shards(model, nn.CrossEntropy(), (1, 1)) as parts, nn.use_backend(b):
        alive.append(weakref.ref(parts))
        parts.forward_backward(*(b.asarray(array) for array in marked().arrays))
    del parts
    gc.collect()
    assert alive[0]() is None


def test_a_step_copies_its_batch_in_and_nothing_out():
    model, x, y = small_net(exact()), *rows(24)
    loader = nn.DataLoader(x, y, 8)
    nn.fit(model, loader, epochs=1, progress=False, shards=3)
    before = model.backend.transfers
    nn.fit(model, loader, epochs=1, progress=False, shards=3)
    after = model.backend.transfers
    assert after["to_device"][0] - before["to_device"][0] == 2 * len(loader)
    assert after["to_host"][0] - before["to_host"][0] == 1


def test_memory_of_workers_is_not_written_by_others():
    """All workers read an exchanged array, so none may change it in place afterwards."""
    barrier, seen = ExchangeBarrier(2), []

    def work(rank):
        for i in range(200):
            mine = np.full(3, float(rank + i))
            seen.append(ThreadTeam(barrier, rank, np).sum(mine).tolist() == [2.0 * i + 1.0] * 3)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 400 and all(seen)


MISTAKES = {
    "a mask for each part": (
        "layers.dropout",
        "Dropping._mask",
        "place_in_batch(shape[0]) if shape else (0, 0)",
        "(0, shape[0])",
    ),
    "a part's own count": (
        "backends.execution",
        "rows_of_all",
        "return n if team is None else team.rows(n)",
        "return n",
    ),
    "the mean of a part": ("layers.losses", "reduce", "rows_of_all(prod(losses.shape))", "prod(losses.shape)"),
    "scales not shared": ("backends.exact", "Splitting.scale", "team is not None", "False"),
    "a step for each part": (
        "training",
        "Shards._work",
        "results = forward_backward(*self._workers[rank], x, target)",
        "results = forward_backward(*self._workers[rank], x, target)\n"
        "for _, p in self._workers[rank][0].named_parameters():\n"
        "    p.value = p.value - 0.01 * p.grad",
    ),
    "gradients of one part": ("backends.execution", "current_team", "return _current.get()", "return None"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_shows(mistake):
    """The comparison of parts with the whole batch can fail."""
    loss = nn.MSE()
    data = images(24)[0], rows(24)[0][:, :CLASSES]
    whole = trained(lambda: image_net(exact()), data, sgd, loss=loss)
    with plant(*MISTAKES[mistake]):
        parts = trained(lambda: image_net(exact()), data, sgd, loss=loss, shards=3)
    assert everything(*parts[:2]) != everything(*whole[:2]) or parts[2] != whole[2]
