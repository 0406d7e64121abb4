"""Compiled steps on NumPy and CuPy: replays have the results of the uncompiled step."""

from contextlib import nullcontext

import numpy as np
import pytest
from compiled_steps import CALLS, OPTIMIZERS, batch, bits, make, net, train, with_dropout

import xpnn as nn
from xpnn.backends import CaptureError, Generator
from xpnn.backends.recording import compiled_step
from xpnn.backends.recording.slots import Slot

pytestmark = pytest.mark.usefixtures("nothing_compiles_in_a_recording")


@pytest.fixture(params=["numpy", "gpu"])
def b(request):
    return nn.get_backend("numpy") if request.param == "numpy" else request.getfixturevalue("gpu")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replays_take_the_steps_that_plain_calls_take(b, name):
    ours, optimizer, step = make(b, OPTIMIZERS[name])
    compiled = b.compile(step, ours, optimizer)
    reference, plain_optimizer, plain = make(b, OPTIMIZERS[name])
    assert train(b, compiled) == train(b, plain)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)
    # The first call makes gradients and the state of the optimizer, and has another form.
    assert compiled.recorded == 1 and compiled.replayed >= CALLS - 1 - compiled_step.WARMUP


def bind_anew(optimizer):
    for parameter in optimizer.parameters.values():
        parameter.value = parameter.value - parameter.grad * optimizer.lr


def test_without_write_back_a_step_that_replaces_arrays_does_not_train(b, monkeypatch):
    def forgetful(slots, before, recorder, unread=()):
        return [slot.get() for slot in slots]

    monkeypatch.setattr(compiled_step, "write_back", forgetful)
    monkeypatch.setattr(nn.SGD, "step", bind_anew)
    model, optimizer, step = make(b, OPTIMIZERS["sgd"])
    compiled = b.compile(step, model, optimizer)
    _, _, plain = make(b, OPTIMIZERS["sgd"])
    assert train(b, compiled) != train(b, plain)
    assert compiled.replayed


def test_gradients_add_up_over_replays_without_zero_grad(b):
    ours, optimizer, step = make(b, OPTIMIZERS["sgd"], zero=False)
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["sgd"], zero=False)
    assert train(b, b.compile(step, ours, optimizer)) == train(b, plain)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)


def test_gradients_dropped_between_calls_are_computed_by_each_replay(b):
    ours, optimizer, step = make(b, OPTIMIZERS["sgd"], zero=False)
    reference, _, plain = make(b, OPTIMIZERS["sgd"], zero=False)
    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, between=lambda i: ours.zero_grad()) == train(
        b, plain, between=lambda i: reference.zero_grad()
    )
    assert compiled.replayed


def test_weights_loaded_between_replays_are_used(b):
    ours, optimizer, step = make(b, OPTIMIZERS["adam"])
    reference, _, plain = make(b, OPTIMIZERS["adam"])
    saved = {name: b.to_numpy(array) for name, array in net(b).state_dict().items()}

    def load(model):
        return lambda i: model.load_state_dict(saved) if i == 5 else None

    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, between=load(ours)) == train(b, plain, between=load(reference))
    assert compiled.recorded == 1


def test_weights_of_another_memory_layout_give_the_plain_steps_bits(b):
    """A trained weight of a convolution has cells before channels in memory, a loaded one channels before cells."""
    results = []
    for compiled in (True, False):
        layers = (nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Dense(16, 4))
        model = nn.Sequential(*layers, backend=b, seed=1)
        optimizer, loss = nn.SGD(model, lr=0.1), nn.CrossEntropy(backend=b)
        saved = {name: np.ascontiguousarray(b.to_numpy(array)) for name, array in model.state_dict().items()}

        def step(x, y, model=model, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            value = loss(model(x), y)
            model.backward(loss.backward(), input_grad=False)
            optimizer.step()
            return value

        def load(i, model=model, saved=saved):
            if i == 5:
                model.load_state_dict(saved)

        chosen = b.compile(step, model, optimizer) if compiled else step
        results.append((train(b, chosen, calls=10, between=load), bits(b, model, optimizer)))
        if compiled:
            assert chosen.replayed >= 4
    assert results[0] == results[1]


def test_arrays_that_a_user_sets_are_not_overwritten(b):
    model, optimizer, step = make(b, OPTIMIZERS["sgd"])
    compiled = b.compile(step, model, optimizer)
    weight, held = model[5].parameters["weight"], []
    for i in range(6):
        held.append([b.asarray(np.full(shape, float(i), "float32")) for shape in (weight.shape, (3,))])
        weight.value, model[1].buffers["running_mean"] = held[i]
        compiled(*map(b.asarray, batch(i)))
    assert compiled.replayed >= 3
    assert all((b.to_numpy(array) == i).all() for i, arrays in enumerate(held) for array in arrays)


def test_gradients_that_a_user_sets_are_not_overwritten(b):
    parameter = nn.Parameter(b.asarray(np.zeros(3, "float32")))
    optimizer = nn.SGD([parameter], lr=1.0)
    compiled = b.compile(optimizer.step, optimizer)
    gradients = [b.asarray(np.full(3, float(i), "float32")) for i in range(6)]
    for gradient in gradients:
        parameter.grad = gradient
        compiled()
    assert [b.to_numpy(gradient)[0] for gradient in gradients] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert b.to_numpy(parameter.value).tolist() == [-15.0] * 3 and compiled.replayed >= 3


def test_recordings_of_two_shapes_share_weights_that_are_not_trained(b):
    model = net(b).eval()
    compiled = b.compile(lambda x: model(x), model)
    for i in range(12):
        compiled(b.asarray(batch(i, 8 - i % 2)[0]))
    first, second = compiled._recordings
    assert all(mine is other for mine, other in zip(first.before, second.before, strict=True) if b.owns(mine))


def test_gradients_of_a_model_that_was_not_given_are_refused(b):
    """For example of a discriminator, which passes a gradient to the generator that a step trains."""
    model, through = nn.Dense(4, 4, backend=b), nn.Dense(4, 2, backend=b)
    optimizer = nn.SGD(model, lr=0.1)

    def step(x):
        y = through(model(x))
        model.backward(through.backward(y))
        optimizer.step()

    x = b.asarray(np.ones((3, 4), "float32"))
    for given in (), (through,):
        through.zero_grad()
        compiled = b.compile(step, model, optimizer, *given)
        with (
            nullcontext() if given else pytest.raises(CaptureError, match=r"gradient of a parameter of shape \(2, 4\)")
        ):
            for _ in range(6):
                compiled(x)
        assert bool(compiled.replayed) == bool(given)


class Pair:
    """An owner of two arrays."""

    def __init__(self, b):
        self.first, self.second = (b.asarray(np.array(values, "float32")) for values in ([1.0, 2.0], [10.0, 20.0]))

    def slots(self):
        return (Slot.attribute(name, self, name) for name in ("first", "second"))


def reversed_pair(a, b):
    return b[::-1], a[::-1]


@pytest.mark.parametrize("swap", [lambda a, b: (b, a), reversed_pair, lambda a, b: (a, a)])
def test_arrays_that_change_places_do_so_at_every_replay(b, swap):
    pairs = Pair(b), Pair(b)

    def step(pair):
        pair.first, pair.second = swap(pair.first, pair.second)

    compiled = b.compile(lambda: step(pairs[0]), pairs[0])
    for _ in range(6):
        compiled()
        step(pairs[1])
        states = [[b.to_numpy(array).tolist() for array in (pair.first, pair.second)] for pair in pairs]
        assert states[0] == states[1]
    assert compiled.recorded == 1 and compiled.replayed >= 2


def test_another_shape_is_another_recording_and_both_continue_from_one_state(b):
    ours, optimizer, step = make(b, OPTIMIZERS["adam"])
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["adam"])
    compiled = b.compile(step, ours, optimizer)
    for n in (8, 5, 8, 5):
        assert train(b, compiled, n=n) == train(b, plain, n=n)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)
    assert compiled.recorded == 2


def test_the_number_of_recordings_is_limited(b):
    compiled = b.compile(lambda x: x * 2.0)
    for n in range(1, 9):
        for i in range(4):
            x = np.full(n, float(i), "float32")
            assert b.to_numpy(compiled(b.asarray(x))).tolist() == (x * 2).tolist()
    assert compiled.recorded == 8 and len(compiled._recordings) == compiled_step.KEPT


def test_the_recording_that_was_used_longest_ago_is_dropped_first(b):
    compiled = b.compile(lambda x: x * 2.0)
    usual = b.asarray(np.ones(50, "float32"))
    for n in range(1, 8):
        for _ in range(compiled_step.WARMUP + 1):
            compiled(b.asarray(np.ones(n, "float32")))
            compiled(usual)
    assert compiled.recorded == 8


def test_a_rate_that_changes_at_every_step_is_right_and_warns(b):
    compiled = b.compile(lambda x, rate: x * rate)
    x = b.asarray(np.ones(2, "float32"))
    with pytest.warns(UserWarning, match="runs as if not compiled"):
        for i in range(40):
            assert b.to_numpy(compiled(x, float(i)))[0] == i
    assert not compiled.recorded


def test_a_schedule_inside_is_refused_by_name(b):
    model = net(b)
    optimizer = nn.SGD(model, lr=0.1)

    def step(x):
        optimizer.lr *= 0.5
        return x + 1.0

    with pytest.raises(CaptureError, match=r"SGD\.lr from 0.1 to 0.05"):
        b.compile(step, optimizer)(b.asarray(np.ones(2, "float32")))


def test_each_replay_draws_what_the_plain_step_draws(b):
    ours, optimizer, step = with_dropout(b)
    reference, plain_optimizer, plain = with_dropout(b)
    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, 12) == train(b, plain, 12)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)
    assert compiled.recorded == 1 and compiled.replayed >= 8
    assert [layer.stream.position for layer in ours[5:7]] == [layer.stream.position for layer in reference[5:7]]


class Noise(nn.Layer):
    """A layer as a user writes it: noise from a stream of its own, added in training."""

    _stream = None

    @property
    def stream(self):
        if self._stream is None:
            self._stream = self.generator.fold_in("noise")
        return self._stream

    def _forward(self, x):
        return x + self.stream.uniform(x.shape, dtype="float32", backend=self.backend)

    def _backward(self, dy, input_grad):
        return dy


def test_each_replay_draws_what_the_plain_step_draws_in_a_users_layer_too(b):
    layer, reference = (Noise(backend=b, seed=1) for _ in range(2))
    step, x = b.compile(layer.forward, layer), b.asarray(np.ones((4, 5), "float32"))
    for i in range(CALLS):
        assert b.to_numpy(step(x)).tobytes() == b.to_numpy(reference(x)).tobytes(), i
    assert step.recorded == 1 and step.replayed >= 2
    assert layer.stream.position == reference.stream.position > 0


def test_masks_differ_from_replay_to_replay(b):
    layer = nn.Dropout(0.5, backend=b, seed=1)
    compiled = b.compile(lambda x: layer(x), layer)
    x = b.asarray(np.ones(64, "float32"))
    assert len({b.to_numpy(compiled(x)).tobytes() for _ in range(10)}) == 10


def test_plain_steps_between_replays_continue_the_stream(b):
    ours, optimizer, step = with_dropout(b)
    _, _, plain = with_dropout(b)
    compiled = b.compile(step, ours, optimizer)
    mixed = [train(b, compiled, 5), train(b, step, 2), train(b, compiled, 3), train(b, step, 1), train(b, compiled, 2)]
    assert mixed == [train(b, plain, n) for n in (5, 2, 3, 1, 2)]
    assert compiled.recorded == 1


def test_a_position_that_is_set_between_replays_is_used(b):
    layer, reference = (nn.Dropout(0.5, backend=b, seed=1) for _ in range(2))
    compiled = b.compile(lambda x: layer(x), layer)
    x = b.asarray(np.ones(64, "float32"))
    for i in range(12):
        if i in (5, 9):
            layer.stream.position = reference.stream.position = 7 * i
        assert b.to_numpy(compiled(x)).tobytes() == b.to_numpy(reference(x)).tobytes()
    assert compiled.recorded == 1


def test_another_key_is_another_recording(b):
    layer, reference = (nn.Dropout(0.5, backend=b, seed=1) for _ in range(2))
    compiled = b.compile(lambda x: layer(x), layer)
    x = b.asarray(np.ones(64, "float32"))
    for i in range(12):
        if i == 5:
            layer.stream.key = reference.stream.key = (3, 4)
        assert b.to_numpy(compiled(x)).tobytes() == b.to_numpy(reference(x)).tobytes()
    assert compiled.recorded == 2


def test_layers_computed_again_in_backward_draw_the_same_again(b):
    def net():
        body = nn.Checkpointed(nn.Sequential(nn.Dense(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.2)))
        return nn.Sequential(body, nn.Dense(8, 2), backend=b, seed=3)

    found = []
    for compiled in (True, False):
        model = net()
        optimizer = nn.SGD(model, lr=0.1)

        def step(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            y = model(x)
            model.backward(y, input_grad=False)
            optimizer.step()
            return y

        chosen = b.compile(step, model, optimizer) if compiled else step
        x = b.asarray(np.random.default_rng(0).random((5, 6)), "float32")
        found.append([b.to_numpy(chosen(x)).tobytes() for _ in range(8)])
    assert found[0] == found[1]


def test_a_resumed_run_continues_with_the_same_masks(b, tmp_path):
    def start():
        model, optimizer, step = with_dropout(b)
        return model, optimizer, b.compile(step, model, optimizer)

    model, optimizer, step = start()
    train(b, step, 6)
    state = model.state_dict(), optimizer.state_dict(), [layer.stream.position for layer in model[5:7]]
    state = ({n: b.to_numpy(a).copy() for n, a in state[0].items()}, state[1], state[2])
    saved = {
        name: {key: b.to_numpy(value).copy() if hasattr(value, "dtype") else value for key, value in kept.items()}
        for name, kept in state[1]["state"].items()
    }
    wanted = train(b, step, 6)
    model, optimizer, step = start()
    model.load_state_dict(state[0])
    optimizer.load_state_dict({"settings": state[1]["settings"], "state": saved})
    for layer, position in zip(model[5:7], state[2], strict=True):
        layer.stream.position = position
    assert train(b, step, 6) == wanted


def test_a_users_own_stream_is_drawn_from_if_it_is_given(b):
    ours, reference = Generator(5), Generator(5)
    compiled = b.compile(lambda x: x + ours.normal(x.shape, backend=b) + ours.uniform(x.shape, backend=b), ours)
    x = b.asarray(np.ones(7, "float32"))
    for _ in range(8):
        wanted = x + reference.normal((7,), backend=b) + reference.uniform((7,), backend=b)
        assert b.to_numpy(compiled(x)).tobytes() == b.to_numpy(wanted).tobytes()
    assert compiled.recorded == 1 and ours.position == reference.position


def test_dropout_of_a_model_that_was_not_given_is_refused(b):
    layer = nn.Dropout(0.5, backend=b)
    with pytest.raises(CaptureError, match="random numbers from a stream that it was not given"):
        train(b, b.compile(lambda x, y: layer(x)))


def test_dropout_in_evaluation_can_be_compiled(b):
    layer = nn.Dropout(0.5, backend=b).eval()
    assert train(b, b.compile(lambda x, y: layer(x), layer)) == train(b, lambda x, y: layer(x))


@pytest.mark.parametrize("given", [0, 1])
def test_state_that_was_not_given_is_refused_and_stays_as_it_was(b, given):
    model, optimizer, step = make(b, OPTIMIZERS["momentum"])
    compiled = b.compile(step, *(model, optimizer)[:given])
    with pytest.raises(CaptureError, match=r"compile\(step, model, optimizer\)"):
        train(b, compiled)
    # A step that could not be recorded has no effect on the next one.
    assert all(np.isfinite(b.to_numpy(array)).all() for array in model.state_dict().values())
    assert np.isfinite(b.to_numpy(step(*map(b.asarray, batch(0)))))


def test_a_host_array_inside_is_refused(b):
    host = np.ones(3, "float32")
    with pytest.raises(CaptureError, match="a copy from the host"):
        train(b, b.compile(lambda x, y: b.asarray(host)))


def test_results_are_copies(b):
    compiled = b.compile(lambda x: {"sum": b.xp.sum(x), "pair": (x + 1.0, 3)})
    kept = [compiled(b.asarray(np.full(2, float(i), "float32"))) for i in range(5)]
    assert [b.to_numpy(each["sum"]).item() for each in kept] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert [b.to_numpy(each["pair"][0])[0] for each in kept] == [1.0, 2.0, 3.0, 4.0, 5.0] and kept[4]["pair"][1] == 3


def test_owners_without_state_are_refused(b):
    with pytest.raises(TypeError, match="models and optimizers"):
        b.compile(lambda x: x, 3)


def test_a_compiled_step_inside_another_is_a_part_of_it(b):
    inner = b.compile(lambda x: x * 2.0)
    outer = b.compile(lambda x: inner(x) + 1.0)
    for i in range(8):
        x = np.full(3, float(i), "float32")
        assert b.to_numpy(outer(b.asarray(x))).tolist() == (x * 2 + 1).tolist()
    assert outer.recorded == 1 and not inner.recorded


def test_slots_that_change_places_between_replays_are_copied_as_they_were(b):
    pair = Pair(b)
    compiled = b.compile(lambda x: x + pair.first, pair)
    x = b.asarray(np.zeros(2, "float32"))
    for i in range(8):
        wanted = [[1.0, 2.0], [10.0, 20.0]][i % 2]
        assert b.to_numpy(compiled(x)).tolist() == wanted
        pair.first, pair.second = pair.second, pair.first
    assert compiled.recorded == 1


def test_a_slot_that_is_broadcast_in_memory_is_written_back_whole(b):
    pair, reference = Pair(b), Pair(b)

    def step(pair):
        pair.first = pair.first + pair.second

    compiled = b.compile(lambda: step(pair), pair)
    for i in range(6):
        for each in (pair, reference):
            each.first = b.xp.broadcast_to(b.asarray(np.full(1, float(i), "float32")), (2,))
        compiled()
        step(reference)
        assert b.to_numpy(pair.first).tolist() == b.to_numpy(reference.first).tolist() == [10.0 + i, 20.0 + i]
    assert compiled.replayed


class Strided:
    """An owner of an array with gaps between its entries, of a dtype that no other test has compiled kernels for."""

    def __init__(self, b, dtype):
        self.b, self.dtype = b, dtype
        self.fill(0)

    def fill(self, value):
        self.value = self.b.asarray(np.full((6, 10), value, self.dtype))[::2, ::2]

    def slots(self):
        yield Slot.attribute("value", self, "value")


def bind_new(owner):
    owner.value = owner.value + 1


def bind_view(owner):
    xp = owner.b.xp
    owner.value = xp.permute_dims(xp.permute_dims(owner.value, (1, 0)) + 1, (1, 0))


@pytest.mark.parametrize(("bind", "dtype"), [(bind_new, "int8"), (bind_view, "int16")])
def test_write_backs_are_rehearsed_where_strides_are_odd(b, bind, dtype):
    owner = Strided(b, dtype)
    compiled = b.compile(lambda: bind(owner), owner)
    for i in range(7):
        owner.fill(i)
        compiled()
    assert b.to_numpy(owner.value).tolist() == np.full((3, 5), 7).tolist()
    assert compiled.replayed


@pytest.mark.parametrize("view", [lambda x: x[:, ::2], lambda x: x.T, lambda x: x[::-1], lambda x: x[1:, 1:]])
def test_arguments_of_other_memory_layouts_are_rehearsed_in_theirs(b, view):
    x = view(b.asarray(np.random.default_rng(0).random((90, 90)), "float32"))

    def step(x):
        return b.xp.sum(x * 3.0 - b.xp.exp(x), axis=0), b.xp.sum(x, axis=1), b.xp.mean(x)

    compiled, wanted = b.compile(step), [b.to_numpy(y).tobytes() for y in step(x)]
    for _ in range(5):
        # With other strides a sum may have another order.
        assert [b.to_numpy(y).tobytes() for y in compiled(x)] == wanted
    assert compiled.replayed


def test_the_same_shape_in_another_layout_is_another_recording(b):
    compiled = b.compile(lambda x: x * 2.0)
    x = b.asarray(np.random.default_rng(0).random((4, 4)), "float32")
    for _ in range(4):
        for each in (x, x.T):
            assert np.array_equal(b.to_numpy(compiled(each)), b.to_numpy(each) * 2.0)
    assert compiled.recorded == 2


def test_a_recorded_step_counts_its_launches(b):
    step = b.compile(lambda x: x * 2.0 + 1.0)
    assert step.launches is None
    for _ in range(4):
        step(b.asarray(np.ones(3, np.float32)))
    assert (step.recorded, step.launches) == (1, 2)
