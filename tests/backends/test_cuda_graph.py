"""Compiled steps on CuPy, played by a tape that is as frozen as a CUDA graph: a replay does what a step does."""

from types import SimpleNamespace

import numpy as np
import pytest
import tape

import xpnn as nn
from xpnn.backends import CaptureError, capture
from xpnn.backends.cublas import Products

CALLS = 8


@pytest.fixture
def cublas(fake_cupy, monkeypatch):
    return tape.install(fake_cupy, monkeypatch)


@pytest.fixture
def b(cublas):
    return nn.get_backend("cupy")


def net(b, *more):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding="same"),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *more,
        nn.Dense(27, 4),
        backend=b,
        seed=1,
    )


def batch(i, n=8):
    generator = np.random.default_rng(i)
    return generator.normal(size=(n, 1, 6, 6)).astype("float32"), generator.integers(0, 4, n)


def make(b, make_optimizer, *more, zero=True):
    model = net(b, *more)
    optimizer, loss = make_optimizer(model), nn.CrossEntropy(backend=b)

    def step(x, y):
        if zero:
            optimizer.zero_grad()
        value = loss(model(x), y)
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
        return value

    return model, optimizer, step


def train(b, step, calls=CALLS, between=lambda i: None, n=8):
    """Losses, each kept on the device until the end."""
    values = []
    for i in range(calls):
        x, y = batch(i, n)
        values.append(step(b.asarray(x), b.asarray(y)))
        between(i)
    return [b.to_numpy(value).tobytes() for value in values]


def bits(b, model, optimizer):
    state = {name: b.to_numpy(array).tobytes() for name, array in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"{name}.grad"] = b.to_numpy(parameter.grad).tobytes()
        for key, value in parameter.states[optimizer].items():
            state[f"{name}.{key}"] = b.to_numpy(value).tobytes() if hasattr(value, "dtype") else value
    return state


OPTIMIZERS = {
    "sgd": lambda m: nn.SGD(m, lr=0.1),
    "momentum": lambda m: nn.SGD(m, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda m: nn.Adam(m, lr=0.01, capturable=True),
    "adamw": lambda m: nn.AdamW(m, lr=0.01, capturable=True),
    "rmsprop": lambda m: nn.RMSprop(m, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda m: nn.Adagrad(m, lr=0.01, lr_decay=0.1, capturable=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replays_take_the_steps_that_plain_calls_take(b, name):
    ours, optimizer, step = make(b, OPTIMIZERS[name])
    compiled = b.compile(step, ours, optimizer)
    reference, plain_optimizer, plain = make(b, OPTIMIZERS[name])
    assert train(b, compiled) == train(b, plain)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)
    # One call makes what is made on first use, and is of a form of its own.
    assert compiled.recorded == 1 and compiled.replayed >= CALLS - 1 - capture.WARMUP


def bind_anew(optimizer):
    for parameter in optimizer.parameters.values():
        parameter.value = parameter.value - parameter.grad * optimizer.lr


def test_without_the_way_back_a_step_that_binds_anew_stands_still(b, monkeypatch):
    def forgetful(self, slots, before):
        return [slot.get() for slot in slots]

    monkeypatch.setattr(capture.CompiledStep, "_write_back", forgetful)
    monkeypatch.setattr(nn.SGD, "step", bind_anew)
    model, optimizer, step = make(b, OPTIMIZERS["sgd"])
    compiled = b.compile(step, model, optimizer)
    _, _, plain = make(b, OPTIMIZERS["sgd"])
    assert train(b, compiled) != train(b, plain)
    assert compiled.replayed


def test_gradients_add_up_over_replays_that_never_forget_them(b):
    ours, optimizer, step = make(b, OPTIMIZERS["sgd"], zero=False)
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["sgd"], zero=False)
    assert train(b, b.compile(step, ours, optimizer)) == train(b, plain)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)


def test_gradients_forgotten_between_calls_are_made_by_each_replay(b):
    ours, optimizer, step = make(b, OPTIMIZERS["sgd"], zero=False)
    reference, _, plain = make(b, OPTIMIZERS["sgd"], zero=False)
    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, between=lambda i: ours.zero_grad()) == train(
        b, plain, between=lambda i: reference.zero_grad()
    )
    assert compiled.replayed


def test_weights_loaded_between_replays_count(b):
    ours, optimizer, step = make(b, OPTIMIZERS["adam"])
    reference, _, plain = make(b, OPTIMIZERS["adam"])
    saved = {name: b.to_numpy(array) for name, array in net(b).state_dict().items()}

    def load(model):
        return lambda i: model.load_state_dict(saved) if i == 5 else None

    compiled = b.compile(step, ours, optimizer)
    assert train(b, compiled, between=load(ours)) == train(b, plain, between=load(reference))
    assert compiled.recorded == 1


class Pair:
    """An owner of two arrays."""

    def __init__(self, b):
        self.first, self.second = (b.asarray(np.array(values, "float32")) for values in ([1.0, 2.0], [10.0, 20.0]))

    def slots(self):
        return (capture.Slot.attribute(name, self, name) for name in ("first", "second"))


@pytest.mark.parametrize("swap", [lambda a, b: (b, a), lambda a, b: (b[::-1], a[::-1]), lambda a, b: (a, a)])
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
    assert compiled.replayed == 6 - capture.WARMUP


def test_another_shape_is_another_recording_and_both_go_on_from_one_state(b):
    ours, optimizer, step = make(b, OPTIMIZERS["adam"])
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["adam"])
    compiled = b.compile(step, ours, optimizer)
    for n in (8, 5, 8, 5):
        assert train(b, compiled, n=n) == train(b, plain, n=n)
    assert bits(b, ours, optimizer) == bits(b, reference, plain_optimizer)
    assert compiled.recorded == 2


def test_recordings_kept_are_few(b):
    compiled = b.compile(lambda x: x * 2.0)
    for n in range(1, 9):
        for i in range(4):
            x = np.full(n, float(i), "float32")
            assert b.to_numpy(compiled(b.asarray(x))).tolist() == (x * 2).tolist()
    assert compiled.recorded == 8 and len(compiled._recordings) == capture.KEPT


def test_a_rate_or_mode_that_is_set_between_calls_counts(b):
    ours, optimizer, step = make(b, OPTIMIZERS["momentum"])
    reference, plain_optimizer, plain = make(b, OPTIMIZERS["momentum"])

    def change(model, of):
        def between(i):
            of.lr = 0.1 if i < 5 else 0.05
            model[1].train(i < 11)

        return between

    compiled = b.compile(step, ours, optimizer)
    mine = train(b, compiled, 11, change(ours, optimizer))
    assert mine == train(b, plain, 11, change(reference, plain_optimizer))
    assert compiled.recorded == 2


def test_a_rate_that_changes_at_every_step_is_right_and_said_to_be_no_faster(b):
    compiled = b.compile(lambda x, rate: x * rate)
    x = b.asarray(np.ones(2, "float32"))
    with pytest.warns(UserWarning, match="runs as if not compiled"):
        for i in range(40):
            assert b.to_numpy(compiled(x, float(i)))[0] == i
    assert not compiled.recorded


def test_numbers_that_a_step_changes_are_refused_by_name(b):
    model, optimizer, step = make(b, lambda m: nn.Adam(m))
    compiled = b.compile(step, model, optimizer)
    with pytest.raises(CaptureError, match=r"Adam's power1 of 0.weight from 0.9 to 0.81.*capturable=True"):
        train(b, compiled)


def test_a_schedule_inside_is_refused_by_name(b):
    model = net(b)
    optimizer = nn.SGD(model, lr=0.1)

    def step(x):
        optimizer.lr *= 0.5
        return x + 1.0

    with pytest.raises(CaptureError, match=r"SGD\.lr from 0.1 to 0.05"):
        b.compile(step, optimizer)(b.asarray(np.ones(2, "float32")))


def test_dropout_is_refused_by_name(b):
    model, optimizer, step = make(b, OPTIMIZERS["sgd"], nn.Dropout(0.5))
    with pytest.raises(CaptureError, match=r"5.stream.position from 0 to \d+"):
        train(b, b.compile(step, model, optimizer))


def test_dropout_of_a_model_that_was_not_given_is_refused_too(b):
    layer = nn.Dropout(0.5, backend=b)
    with pytest.raises(CaptureError, match="random numbers"):
        train(b, b.compile(lambda x, y: layer(x)))


def test_dropout_in_evaluation_is_no_obstacle(b):
    layer = nn.Dropout(0.5, backend=b).eval()
    assert train(b, b.compile(lambda x, y: layer(x), layer)) == train(b, lambda x, y: layer(x))


@pytest.mark.parametrize("given", [0, 1])
def test_state_that_was_not_given_is_refused_and_stays_as_it_was(b, given):
    model, optimizer, step = make(b, OPTIMIZERS["momentum"])
    compiled = b.compile(step, *(model, optimizer)[:given])
    with pytest.raises(CaptureError, match=r"compile\(step, model, optimizer\)"):
        train(b, compiled)
    # A step that could not be recorded left nothing behind, and the next one runs.
    assert all(np.isfinite(b.to_numpy(array)).all() for array in model.state_dict().values())
    assert np.isfinite(b.to_numpy(step(*map(b.asarray, batch(0)))))


@pytest.mark.parametrize(
    "read", [float, lambda y: y.item(), lambda y: nn.get_backend("cupy").to_numpy(y), lambda y: 1.0 if y > 0 else 0.0]
)
def test_reading_a_value_on_the_host_is_refused(b, read):
    def step(x, y):
        read(b.xp.sum(x))
        return x

    with pytest.raises(CaptureError, match=r"waits for the device|copy to the host"):
        train(b, b.compile(step))


def test_a_host_array_inside_is_refused(b):
    host = np.ones(3, "float32")
    with pytest.raises(CaptureError, match="a copy from the host"):
        train(b, b.compile(lambda x, y: b.asarray(host)))


def test_a_pinned_buffer_is_refused_in_a_recording_alone(b, fake_cupy):
    def step(x, y):
        fake_cupy.pinned(72)
        return x

    with pytest.raises(CaptureError, match="72 bytes from the host"):
        train(b, b.compile(step))
    assert fake_cupy.pinned(8) == 8


def test_after_an_error_cupy_is_as_it_was(b, fake_cupy):
    usual = fake_cupy.module.matmul
    with pytest.raises(CaptureError):
        train(b, b.compile(lambda x, y: float(b.xp.sum(x))))
    assert fake_cupy.module.matmul is usual and tape.Tape.running is None and len(tape._streams) == 1


def test_results_are_the_callers_own(b):
    compiled = b.compile(lambda x: {"sum": b.xp.sum(x), "pair": (x + 1.0, 3)})
    kept = [compiled(b.asarray(np.full(2, float(i), "float32"))) for i in range(5)]
    assert [b.to_numpy(each["sum"]).item() for each in kept] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert [b.to_numpy(each["pair"][0])[0] for each in kept] == [1.0, 2.0, 3.0, 4.0, 5.0] and kept[4]["pair"][1] == 3


def test_an_array_of_the_host_is_no_argument(b):
    with pytest.raises(TypeError, match=r"numpy\.ndarray"):
        b.compile(lambda x: x)(np.ones(2))


def test_what_has_no_state_is_no_owner(b):
    with pytest.raises(TypeError, match="models and optimizers"):
        b.compile(lambda x: x, 3)


def test_products_are_recorded_by_a_handle_of_our_own(b, cublas):
    model, optimizer, step = make(b, OPTIMIZERS["sgd"])
    train(b, step)
    assert not cublas.products
    train(b, b.compile(step, model, optimizer))
    assert cublas.products and cublas.compute == 68


def test_elsewhere_a_compiled_step_is_the_step(xp_backend="numpy"):
    def step(x):
        return x

    for name in ("numpy", "strict"):
        assert nn.get_backend(name).compile(step, object()) is step


FACTORS = {
    "plain": ((5, 3), (3, 4), (0, 1), (0, 1)),
    "left transposed": ((3, 5), (3, 4), (1, 0), (0, 1)),
    "right transposed": ((5, 3), (4, 3), (0, 1), (1, 0)),
    "both transposed": ((3, 5), (4, 3), (1, 0), (1, 0)),
    "batch": ((2, 6, 5, 3), (2, 6, 3, 4), (0, 1, 2, 3), (0, 1, 2, 3)),
    "batch transposed": ((2, 6, 5, 3), (2, 6, 3, 4), (1, 0, 2, 3), (1, 0, 2, 3)),
    "groups in the middle": ((5, 2, 3), (2, 3, 4), (1, 0, 2), (0, 1, 2)),
    "channels outside": ((3, 2, 5), (2, 3, 4), (1, 2, 0), (0, 1, 2)),
    "one column": ((5, 1), (1, 4), (0, 1), (0, 1)),
    "one row": ((1, 3), (3, 1), (0, 1), (0, 1)),
    "vectors": ((3,), (3,), (0,), (0,)),
    "matrix and vector": ((5, 3), (3,), (0, 1), (0,)),
    "vector and batch": ((3,), (2, 3, 4), (0,), (0, 1, 2)),
    "shared left": ((5, 3), (2, 3, 4), (0, 1), (0, 1, 2)),
    "broadcast": ((2, 1, 5, 3), (6, 3, 4), (0, 1, 2, 3), (0, 1, 2)),
    "no depth": ((5, 0), (0, 4), (0, 1), (0, 1)),
    "no rows": ((0, 3), (3, 4), (0, 1), (0, 1)),
    "empty batch": ((0, 5, 3), (0, 3, 4), (0, 1, 2), (0, 1, 2)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FACTORS)
def test_cublas_is_told_where_any_factor_lies(cublas, fake_cupy, name, dtype):
    shape_a, shape_b, order_a, order_b = FACTORS[name]
    generator = np.random.default_rng(0)
    # Whole numbers: products and sums are exact in any order.
    a = generator.integers(-9, 9, shape_a).astype(dtype).transpose(order_a).view(tape.TapeArray)
    b = generator.integers(-9, 9, shape_b).astype(dtype).transpose(order_b).view(tape.TapeArray)
    products = Products(fake_cupy.module, cublas, SimpleNamespace(ptr=7), tf32=True)
    assert products.takes(a, b)
    y = products.matmul(a, b)
    wanted = np.matmul(np.asarray(a), np.asarray(b))
    assert y.shape == wanted.shape and str(y.dtype) == dtype and np.array_equal(y, wanted)
    out = np.empty(wanted.shape, dtype).view(tape.TapeArray)
    assert products.matmul(a, b, out) is out and np.array_equal(out, wanted)
    assert cublas.compute in ((77 if dtype == "float32" else 70), None)


@pytest.mark.parametrize(
    "step", [(slice(None), slice(None, None, 2)), (slice(None, None, 2),), (slice(None, None, -1),)]
)
def test_cublas_gets_a_copy_of_strides_that_it_does_not_know(cublas, fake_cupy, step):
    whole = np.arange(48.0).reshape(6, 8).view(tape.TapeArray)
    a = whole[step]
    b = np.arange(float(a.shape[1] * 3)).reshape(-1, 3).view(tape.TapeArray)
    products = Products(fake_cupy.module, cublas, SimpleNamespace(ptr=7), tf32=False)
    assert np.array_equal(products.matmul(a, b), np.asarray(a) @ np.asarray(b))


def test_integers_stay_with_cupy(cublas, fake_cupy):
    products = Products(fake_cupy.module, cublas, SimpleNamespace(ptr=7), tf32=False)
    whole = np.ones((2, 2), int).view(tape.TapeArray)
    assert not products.takes(whole, whole)


def test_a_status_of_cublas_is_an_error(cublas, fake_cupy):
    cublas.cublasSetStream_v2 = lambda *_: 7
    with pytest.raises(RuntimeError, match="cublasSetStream_v2 failed with cuBLAS status 7"):
        Products(fake_cupy.module, cublas, SimpleNamespace(ptr=7), tf32=False)
