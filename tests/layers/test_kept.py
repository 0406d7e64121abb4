"""What a layer keeps in evaluation is never used after the arrays that it was computed from may have changed."""

import copy
import gc
import pickle
import threading
import weakref
from functools import partial

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.core.kept import MOST_VALUES, Kept
from xpnn.testing.compare import same_bits
from xpnn.training.optimizers import OPTIMIZERS


class Total(nn.Layer):
    """Adds the sum of its weight and buffer, which is kept on every device."""

    def __init__(self, **placement):
        super().__init__(**placement)
        self.add_parameter("weight", (3,), nn.initialisers.constant(1.0))
        self.add_buffer("shift", (3,), 0.0)

    def _forward(self, x):
        self.save_for_backward()
        return x + self.keep_in_evaluation("weight", "shift")("total", self._total)

    def _total(self):
        return self.backend.xp.sum(self.parameter_value("weight") + self.buffer_value("shift"))

    def _backward(self, dy, input_grad):
        ones = self.parameter_value("weight") * 0.0 + 1.0
        self.accumulate_grad("weight", ones * self.backend.xp.sum(dy))
        return dy


def net(b, **options):
    """Layers that keep something: by columns, depthwise, transposed, with folded batch norms, and a layer of a user."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, **options),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Dense(4 * 14 * 14, 3),
        nn.BatchNorm1d(3),
        Total(),
        backend=b,
        seed=3,
    )


@pytest.fixture
def x(at, rng):
    return at.put(rng.standard_normal((2, 2, 8, 8)), "float32")


def fresh(at, model, x):
    """The output of another model with the same numbers, which has kept nothing."""
    other = pickle.loads(pickle.dumps(model)).eval()
    state = {name: at.get(array).copy() for name, array in model.state_dict().items()}
    other.load_state_dict(state)
    return at.get(other(x))


def close(a, b):
    return np.allclose(a, b, rtol=1e-5, atol=1e-5)


def weight(model, name="0.weight"):
    return dict(model.named_parameters())[name]


def add_one(at, array):
    array[...] = array + 1.0


def set_value(at, model, x, held):
    weight(model).value = at.put(np.full((8, 2, 3, 3), 0.125), "float32")


def set_bias(at, model, x, held):
    model[3].parameters["bias"].value = at.put(np.full(8, 0.125), "float32")


def set_weight_of_a_user_s_layer(at, model, x, held):
    weight(model, "10.weight").value = at.put(np.full(3, 0.125), "float32")


def write_into_a_buffer_of_a_user_s_layer(at, model, x, held):
    add_one(at, model[10].buffers["shift"])


def write_in_place(at, model, x, held):
    add_one(at, weight(model).value)


def write_through_state_dict(at, model, x, held):
    add_one(at, model.state_dict()["4.weight"])


def write_into_a_buffer(at, model, x, held):
    add_one(at, model[1].buffers["running_mean"])


def write_into_a_buffer_by_items(at, model, x, held):
    add_one(at, dict(model[5].buffers.items())["running_var"])


def set_a_buffer(at, model, x, held):
    model[1].buffers["running_var"] = model[1].buffers["running_var"] * 4.0


def set_a_buffer_by_method(at, model, x, held):
    model[1].set_buffer("running_var", model[1].buffer_value("running_var") * 4.0)


def load_state(at, model, x, held):
    model.load_state_dict({name: at.get(array) * 2 for name, array in model.state_dict().items()})


def steps_of(optimizer):
    def step(at, model, x, held):
        model.train()
        model.backward(model(x))
        optimizer(model).step()
        model.eval()

    step.__name__ = f"step of {optimizer.__name__}"
    return step


def repeated_steps(at, model, x, held):
    optimizer = nn.SGD(model, lr=0.1)
    for _ in range(2):
        before = at.get(model.eval()(x)).copy()
        model.train()
        model.zero_grad()
        model.backward(model(x))
        # Within one training mode the second step writes into the same array as the first.
        optimizer.step()
        assert not same_bits(at.get(model.eval()(x)), before)


def steps_in_evaluation_mode(at, model, x, held):
    optimizer = nn.SGD([weight(model), weight(model, "10.weight")], lr=0.5)
    for parameter in optimizer.parameters.values():
        parameter.accumulate(at.put(np.ones(parameter.shape), "float32"))
    for _ in range(3):
        before = at.get(model(x)).copy()
        optimizer.step()
        assert not same_bits(at.get(model(x)), before)


def compiled_steps(at, model, x, held):
    optimizer, loss = nn.SGD(model, lr=0.01), nn.MSE(backend=at.backend)

    def step(x, target):
        optimizer.zero_grad()
        value = loss(model(x), target)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        return value

    compiled = model.backend.compile(step, model, optimizer)
    target = at.put(np.ones((2, 3)), "float32")
    for _ in range(5):
        before = at.get(model.eval()(x)).copy()
        model.train()
        compiled(x, target)
        assert not same_bits(at.get(model.eval()(x)), before)
    held["compiled"] = compiled


def replace_a_parameter(at, model, x, held):
    model[0].parameters["weight"] = nn.Parameter(weight(model).value * 2.0)


def write_into_a_shared_parameter(at, model, x, held):
    other = nn.Conv2d(2, 8, 3, padding=1, backend=at.backend)
    other.parameters["weight"] = model[0].parameters["weight"]
    other.eval()(x)
    add_one(at, other.parameters["weight"].value)


def change_eps(at, model, x, held):
    model[1].eps = 0.5


def change_dilation(at, model, x, held):
    model[3].dilation, model[3].padding = 2, 2


def change_mode(at, model, x, held):
    model[1].train()


def train_the_norm(at, model, x, held):
    model[1].train()
    model(x)
    model[1].eval()


def fit(at, model, x, held):
    nn.fit(
        model, (at.get(x), np.array([0, 2])), epochs=1, batch_size=2, optimizer=nn.SGD(model, lr=0.1), progress=False
    )
    model.eval()


def write_into_the_arrays_of_a_snapshot(at, model, x, held):
    add_one(at, model[1].buffers.arrays()["running_mean"])


def restore_buffers(at, model, x, held):
    saved = {name: at.get(array).copy() for name, array in model[1].buffers.items()}
    arrays = model[1].buffers.arrays(copies=True)
    model[1].buffers["running_mean"] = model[1].buffers["running_mean"] + 3.0
    model(x)
    model[1].buffers.restore(arrays)
    assert all(same_bits(at.get(model[1].buffers[name]), array) for name, array in saved.items())
    add_one(at, arrays["running_mean"])


CHANGES = [
    set_value,
    set_bias,
    set_weight_of_a_user_s_layer,
    write_into_a_buffer_of_a_user_s_layer,
    write_in_place,
    write_through_state_dict,
    write_into_a_buffer,
    write_into_a_buffer_by_items,
    set_a_buffer,
    set_a_buffer_by_method,
    load_state,
    *map(steps_of, OPTIMIZERS.values()),
    repeated_steps,
    steps_in_evaluation_mode,
    compiled_steps,
    replace_a_parameter,
    write_into_a_shared_parameter,
    change_eps,
    change_dilation,
    train_the_norm,
    fit,
    write_into_the_arrays_of_a_snapshot,
    restore_buffers,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_after_a_change_the_result_is_that_of_the_new_numbers(at, x, change):
    model = net(at.backend).eval()
    before = [at.get(model(x)).copy() for _ in range(3)]
    assert all(same_bits(each, before[0]) for each in before)
    held = {}
    change(at, model, x, held)
    after = [at.get(model(x)).copy() for _ in range(3)]
    wanted = fresh(at, model, x)
    # After a step the memory layout of a weight, and with it the order of sums on a device, is another one.
    assert not close(wanted, before[0]), "the change does change the result"
    assert all(close(each, wanted) for each in after)
    assert all(same_bits(each, after[0]) for each in after)


def views(array):
    """Ways to hold the memory of an array without `Parameter.value`."""
    yield "the array", array, lambda held: held
    yield "a view", array[1:, ...], lambda held: held
    yield "a view of a view", array[1:, ...][1:, ...], lambda held: held
    if isinstance(array, np.ndarray):
        yield "a buffer", memoryview(array), np.asarray
        yield "DLPack", np.from_dlpack(array), lambda held: held
        yield "a weak reference", weakref.ref(array), lambda held: held()
        yield "an iterator", array.flat, lambda held: held
        yield "the interface of ctypes", array.ctypes, lambda held: np.ctypeslib.as_array(held._arr)
    if hasattr(array, "data") and hasattr(array.data, "mem"):
        # Nothing else of the array may be referred to here, or by the functions.
        kind, where, pointer = type(array), array.data, type(array.data)
        yield "a pointer", where, lambda held: kind((3,), np.float32, held)
        yield "a block of memory", where.mem, lambda held: kind((3,), np.float32, pointer(held, 0))


@pytest.mark.parametrize("target", ["0.weight", "10.weight", "1.running_mean", "10.shift"])
def test_who_holds_the_memory_may_write_at_any_time(at, x, target):
    model = net(at.backend).eval()
    kinds = [name for name, *_ in views(weight(model).value)]
    index, _, name = target.partition(".")
    for kind in kinds:
        source = weight(model, target).value if name == "weight" else model[int(index)].buffers[name]
        held, array = next((held, array) for name, held, array in views(source) if name == kind)
        del source
        for _ in range(2):
            before = at.get(model(x)).copy()
            written = array(held)
            written[...] = written[...] - 1.0
            del written
            after = at.get(model(x)).copy()
            assert not same_bits(after, before), kind
            assert same_bits(after, fresh(at, model, x)), kind
        del held, array


def test_the_memory_of_a_value_that_is_a_view_is_watched_too(at, x):
    model = net(at.backend).eval()
    big = at.xp.asarray(at.xp.stack([weight(model).value] * 3), copy=True)
    weight(model).value = big[1, ...]
    for _ in range(2):
        before = at.get(model(x)).copy()
        big[1, ...] = big[1, ...] + 1.0
        assert not same_bits(at.get(model(x)), before)
    for name in ("0.weight", "10.weight"):
        middle = at.xp.asarray(at.xp.stack([weight(model, name).value] * 3), copy=True)[1, ...]
        weight(model, name).value = middle[...]
        model(x)
        before = at.get(model(x)).copy()
        middle[...] = middle + 1.0
        assert not same_bits(at.get(model(x)), before), name


def keeps(at):
    """Whether that library's arrays show who refers to them."""
    return at.backend.spec.partition(":")[0] in ("numpy", "cupy")


def count(layer, *names):
    """A function that returns 1 if a kept value was computed anew, else 0."""
    made = []

    def run():
        before = len(made)
        layer.keep_in_evaluation(*names)("key", lambda: made.append(None))
        return len(made) - before

    return run


def test_a_value_is_computed_once_in_evaluation_and_each_time_in_training(at, x):
    layer = nn.BatchNorm2d(2, backend=at.backend)
    run = count(layer, "weight", "running_mean", "no such name")
    assert [run(), run()] == [1, 1]
    layer.eval()
    assert [run(), run(), run()] == ([1, 0, 0] if keeps(at) else [1, 1, 1])
    held = layer.parameters["weight"].value
    assert [run(), run()] == [1, 1], "while somebody holds the array"
    del held
    assert [run(), run()] == ([1, 0] if keeps(at) else [1, 1])
    layer.train()
    assert [run(), run()] == [1, 1]


def test_reading_does_not_count_as_a_change(at, x):
    if not keeps(at):
        pytest.skip("nothing is kept")
    model = net(at.backend).eval()
    run = count(model[1], "weight", "running_var")
    run()
    model(x)
    model[1].parameter_value("weight"), model[1].buffer_value("running_var")
    repr(model), model.summary((1, 2, 8, 8)), list(model.named_parameters()), "running_mean" in model[1].buffers
    assert run() == 0
    model.state_dict()
    assert [run(), run()] == [1, 0]


def test_after_training_values_are_kept_again(at, x):
    if not keeps(at):
        pytest.skip("nothing is kept")
    model = net(at.backend)
    optimizer = nn.Adam(model)
    for _ in range(2):
        model.train()
        model.backward(model(x))
        optimizer.step()
        model.zero_grad()
        model.eval()
        runs = [count(layer, "weight", "bias", "running_mean") for layer in model if layer.parameters]
        assert [run() for run in runs] == [1] * len(runs)
        assert [run() for run in runs] == [0] * len(runs)


def test_training_frees_what_was_kept(at, x):
    model = net(at.backend).eval()
    model(x)
    kept = weakref.ref(model[0].keep_in_evaluation("weight")("array", Opaque))
    gc.collect()
    assert (kept() is not None) == keeps(at)
    model.train()
    gc.collect()
    assert kept() is None


class Opaque:
    """What an engine may keep."""


def test_another_value_of_the_same_sources_is_kept_beside_it():
    layer = nn.Dense(2, 2, backend="numpy").eval()
    keep = layer.keep_in_evaluation("weight")
    first, second = keep("a", Opaque), keep(("b", 1), Opaque)
    again = layer.keep_in_evaluation("weight")
    assert again("a", Opaque) is first
    assert again(("b", 1), Opaque) is second is not first


@pytest.mark.parametrize("sizes", [(32, 1), (1, 32)])
def test_large_batches_of_an_engine_and_small_ones_of_arrays_keep_apart(compiled_kernels, rng, sizes):
    x = rng.standard_normal((32, 2, 8, 8)).astype("float32")
    make = partial(nn.Conv2d, 2, 4, 3, padding="same", backend="numpy", numerics="exact", seed=3)
    layer = make().eval()
    for size in sizes:
        assert same_bits(nn.predict(layer, x[:size], batch_size=size), nn.predict(make(), x[:size], batch_size=size))


def test_few_values_are_kept():
    keep = nn.Dense(2, 2, backend="numpy").eval().keep_in_evaluation("weight")
    first = keep(0, Opaque)
    for i in range(1, MOST_VALUES):
        keep(i, Opaque)
    assert keep(0, Opaque) is first
    keep(MOST_VALUES, Opaque)
    assert keep(0, Opaque) is not first


def test_a_value_that_refers_to_the_array_is_not_kept():
    layer = nn.Dense(2, 2, backend="numpy").eval()
    for _ in range(4):
        view = layer.keep_in_evaluation("weight")("view", lambda: layer.parameter_value("weight").T)
        layer.parameters["weight"].value[...] += 1.0
        assert same_bits(view, layer.parameters["weight"].value.T)
        del view


def test_copies_and_pickles_keep_nothing():
    model = net("numpy").eval()
    values = np.ones((1, 2, 8, 8), np.float32)
    model(values)
    wanted = model(values)
    size = len(pickle.dumps(net("numpy").eval()))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not other[0]._kept._values
        assert same_bits(other(values), wanted)
        add_one(None, other[0].parameters["weight"].value)
        assert not same_bits(other(values), wanted)
        assert same_bits(model(values), wanted)
    state = sum(array.nbytes for array in model.state_dict().values())
    assert len(pickle.dumps(model)) < size + 2 * state
    shallow = copy.copy(model[0])
    shallow.parameters = {**shallow.parameters, "weight": nn.Parameter(shallow.parameters["weight"].value * 2.0)}
    assert not same_bits(shallow(values), model[0](values))
    assert not same_bits(shallow(values), model[0](values))


def test_moving_a_model_changes_what_it_computes(at, x):
    model = net(at.wide()).eval()
    for _ in range(2):
        wide = at.get(model(at.put(at.get(x), "float64"))).copy()
    model.to(at.backend)
    narrow = at.get(model(x)).copy()
    assert (wide.dtype, narrow.dtype) == (np.float64, np.float32)
    assert same_bits(narrow, fresh(at, model, x))


def test_inside_a_recording_nothing_is_kept(gpu):
    layer = nn.Dense(2, 2, backend=gpu).eval()
    x = gpu.asarray(np.ones((2, 2), np.float32))

    def step(x):
        return x + layer.keep_in_evaluation("weight")("sum", lambda: gpu.xp.sum(layer.parameter_value("weight")))

    layer(x), step(x), step(x)
    compiled = gpu.compile(step)
    for i in range(6):
        found = gpu.to_numpy(compiled(x))
        wanted = 1.0 + gpu.to_numpy(gpu.xp.sum(layer.parameters["weight"].value))
        assert np.allclose(found, wanted), i
        layer.parameters["weight"].value[...] += 1.0


def test_a_forward_within_a_change_of_all_state_leaves_nothing_behind(at, x):
    """`output_shape` of a layer without shapes runs a forward with other arrays in place of the layer's own."""

    class Counting(nn.Layer):
        def __init__(self, **placement):
            super().__init__(**placement)
            self.add_buffer("seen", (), 0.0)

        def _forward(self, x):
            if x.shape[0] == 1:
                self.set_buffer("seen", self.buffer_value("seen") + 1.0)
            return x + self.keep_in_evaluation("seen")("double", lambda: self.buffer_value("seen") * 2.0)

    layer = Counting(backend=at.backend).eval()
    for _ in range(3):
        assert same_bits(at.get(layer(x)), at.get(x + 0.0))
        layer.output_shape((2, 3))


def test_threads_may_evaluate_one_model(at, x):
    model = net(at.backend).eval()
    wanted = at.get(model(x)).copy()
    wrong = []

    def work():
        for _ in range(15):
            if not same_bits(at.get(model(x)), wanted):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        weight(model).value = weight(model).value + 0.0
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_access_between_the_checks_is_noticed():
    """Another thread gets and changes the array between the reading of ``seen`` and that of the counts."""

    class Changing:
        def __init__(self):
            self.seen, self.number = object(), 0

        def is_held_elsewhere(self):
            if self.number == 0:
                self.number, self.seen = 1, object()
            return False

        def is_sole_access(self):
            return True

    source, kept = Changing(), Kept()
    stale = source.number
    kept.of("name", [source], int)("key", lambda: stale)
    assert kept.of("name", [source], int)("key", lambda: source.number) == 1
