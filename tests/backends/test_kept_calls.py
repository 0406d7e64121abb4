"""Functions whose compiled calls are kept: same bits as the functions, and the limits of keeping."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import kept_calls as module
from xpnn.backends import operations_of, origins
from xpnn.backends.kept_calls import KeptCalls, kept_calls
from xpnn.backends.overrides import Choices, using
from xpnn.cli.bench.net_steps import NETS, OurNet
from xpnn.layers.core.layer_outputs import watched

NUMPY = nn.get_backend("numpy")
OPS = operations_of(NUMPY.xp)

pytestmark = pytest.mark.usefixtures("compiled_kernels")


def counted(arrays, function):
    """The function with its calls kept, and the list of its calls as it is."""
    calls = []

    def noted(*args):
        calls.append(args)
        return function(*args)

    return KeptCalls(noted, arrays), calls


def added(x, y, *settings):
    return OPS.add(x, y)


def pair(rng, shape=(5, 4), dtype="float32"):
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


def settled(function, calls, *args):
    """Call until the function is not called as it is any more; at most some times."""
    for _ in range(5):
        before = len(calls)
        function(*args)
        if len(calls) == before:
            return True
    return False


def test_kept_calls_have_the_bits_of_the_function(rng):
    function, calls = counted(2, added)
    assert settled(function, calls, *pair(rng))
    for _ in range(3):
        x, y = pair(rng)
        found = function(x, y)
        assert found.tobytes() == (x + y).tobytes() and found.base is None
        assert not np.may_share_memory(found, function(x, y))


def test_another_form_is_another_call(rng):
    function, calls = counted(2, added)
    x, y = pair(rng)
    assert settled(function, calls, x, y)
    for one, other in ((x[:3], y[:3]), (x.T, y.T), (x[::-1], y[::-1]), (x.astype("float64"), y.astype("float64"))):
        before = len(calls)
        np.testing.assert_array_equal(function(one, other), one + other)
        assert len(calls) > before
    before = len(calls)
    function(x, y)
    assert len(calls) == before
    function(x, y, "another setting")
    assert len(calls) > before


def test_few_memory_layouts_of_a_form_are_kept(rng):
    function, calls = counted(2, added)
    for gap in range(1, 9):
        x, y = (each[:, ::gap] for each in pair(rng, (4, 3 * gap)))
        settled(function, calls, x, y)
        np.testing.assert_array_equal(function(x, y), x + y)
    (form,) = function._forms.values()
    assert len(form.kept) <= module.MOST_LAYOUTS


def test_forms_are_forgotten_where_there_are_many(rng, monkeypatch):
    monkeypatch.setattr(module, "MOST_FORMS", 3)
    function, _ = counted(2, added)
    for n in range(1, 9):
        function(*pair(rng, (n, 2)))
    assert len(function._forms) <= 3


@pytest.mark.parametrize(
    "refused",
    [
        lambda x, y: np.sin(OPS.add(x, y)),
        lambda x, y: OPS.add(x, np.asarray(np.asarray(y) * 2.0)),
        lambda x, y: (OPS.add(x, y), float(np.asarray(x)[0, 0])),
        lambda x, y: {"sum": OPS.add(x, y)},
        lambda x, y: x[1:],
        lambda x, y: np.zeros(3),
    ],
)
def test_a_function_that_does_anything_else_is_called_as_it_is(refused, rng):
    function, calls = counted(2, refused)
    for _ in range(6):
        x, y = pair(rng)
        before = len(calls)
        found, expected = function(x, y), refused(x, y)
        assert len(calls) > before
        np.testing.assert_equal(found, expected)


def test_results_may_be_arguments_views_tuples_and_none(rng):
    def work(x, y, z, flag):
        total = OPS.add(x, y)
        return x, (total.reshape(-1), None, flag), total.T, x.transpose(1, 0).reshape(-1)

    function, calls = counted(3, work)
    x, y = (each.T for each in pair(rng))
    assert settled(function, calls, x, y, None, True)
    x, y = (each.T for each in pair(rng))
    same, (flat, nothing, flag), turned, memory = function(x, y, None, True)
    assert same is x and nothing is None and flag is True
    np.testing.assert_array_equal(turned, (x + y).T)
    np.testing.assert_array_equal(flat, (x + y).reshape(-1))
    assert np.shares_memory(memory, x)
    np.testing.assert_array_equal(memory, x.T.reshape(-1))


def test_an_array_given_twice_is_not_kept(rng):
    function, calls = counted(2, added)
    x, _ = pair(rng)
    for _ in range(5):
        np.testing.assert_array_equal(function(x, x), x + x)
    x, y = pair(rng)
    np.testing.assert_array_equal(function(x, y), x + y)
    function, calls = counted(2, added)
    assert settled(function, calls, x, y)
    np.testing.assert_array_equal(function(x, x), x + x)


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    moved = memory[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def test_calls_are_kept_after_some_whose_arrays_could_not_be(rng):
    x, y = pair(rng)
    for unsuitable in ((x, x), (unaligned(x), y)):
        function, calls = counted(2, added)
        for _ in range(5):
            np.testing.assert_array_equal(function(*unsuitable), unsuitable[0] + unsuitable[1])
        assert len(calls) >= 5 and settled(function, calls, x, y)


def test_equal_settings_of_another_type_or_sign_are_other_settings(rng):
    function, _ = counted(1, lambda x, setting: (OPS.add(x, x.copy()), setting))
    x, _ = pair(rng)
    for setting in (1, True, 1.0, 0, False, 0.0, -0.0, (0.0,), (-0.0,)):
        for _ in range(5):
            assert repr(function(x, setting)[1]) == repr(setting)


def test_an_exception_is_that_of_the_function(rng):
    function, calls = counted(2, added)
    x, y = pair(rng)
    for _ in range(5):
        with pytest.raises(ValueError, match="broadcast"):
            function(x, y[:2])
    assert settled(function, calls, x, y)


def test_overrides_and_the_environment_apply_at_once(rng, monkeypatch):
    function, calls = counted(2, added)
    x, y = pair(rng)
    assert settled(function, calls, x, y)
    before = len(calls)
    with using(Choices(kernels=False)):
        function(x, y)
    assert len(calls) == before + 1
    monkeypatch.setenv("XPNN_NUMBA", "0")
    function(x, y)
    assert len(calls) == before + 2


def test_threads_may_call_at_the_same_time(rng):
    function = kept_calls(2)(added)
    data = [pair(rng, (300, 41)) for _ in range(16)]
    for x, y in data[:5]:
        function(x, y)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            for (x, y), found in zip(data, threads.map(lambda each: function(*each), data), strict=True):
                np.testing.assert_array_equal(found, x + y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sum_of_few_rows_has_the_bits_of_numpy(dtype, rng):
    for shape in ((1, 2), (7, 3), (2048, 16), (500, 40), (3, 1), (9, 257), (0, 4), (4, 0)):
        x = rng.standard_normal(shape).astype(dtype)
        assert OPS.sum_rows(x).tobytes() == np.sum(x, axis=0).tobytes()
    x = np.full((3, 2), -0.0, dtype)
    assert OPS.sum_rows(x).tobytes() == np.sum(x, axis=0).tobytes()


def test_copies_between_any_memory_layouts(rng):
    def turned(x, order):
        return x.transpose(order).copy()

    for shape in ((3, 4, 5, 6), (1, 7, 1), (2, 3, 4, 5, 6), (40, 33), (1,), (3, 1, 4)):
        for _ in range(4):
            order = tuple(rng.permutation(len(shape)).tolist())
            function, calls = counted(1, turned)
            for dtype in ("float32", "float64", "int64", "int8"):
                x = (100 * rng.standard_normal(shape)).astype(dtype)
                assert settled(function, calls, x, order)
                x = (100 * rng.standard_normal(shape)).astype(dtype)
                np.testing.assert_array_equal(function(x, order), x.transpose(order))


def steps(name, count, wide=False):
    net = OurNet(nn.get_backend("numpy", "float64" if wide else "float32"), NETS[name], 8, "sgd")
    for _ in range(count):
        net.step()
    return [np.array(array) for array in net.model.state_dict().values()]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", ["lenet5", "mlp", "digits_lenet"])
def test_steps_of_nets_have_the_bits_of_steps_without_kept_calls(name, wide, monkeypatch):
    kept = steps(name, 6, wide)
    monkeypatch.setattr(module, "CALLS_BEFORE", 10**9)
    module.forget_all()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(kept, steps(name, 6, wide), strict=True))


@pytest.mark.parametrize("name", ["lenet5", "mlp", "digits_lenet"])
def test_a_step_of_a_small_net_takes_fewer_than_1000_calls_of_python(name, monkeypatch):
    # As in a process without exact numerics and settings.
    monkeypatch.setattr(origins, "watching", False)
    monkeypatch.delenv("XPNN_NUMBA")
    net = OurNet(NUMPY, NETS[name], NETS[name].batch, "sgd")
    for _ in range(5):
        net.step()
    calls = []

    def note(frame, event, argument):
        calls[-1] += event == "call"

    before = sys.getprofile()
    # A busy machine lets threads fall asleep within a step, and a few more calls wake them.
    for _ in range(10):
        calls.append(0)
        sys.setprofile(note)
        try:
            net.step()
        finally:
            sys.setprofile(before)
    assert 100 < min(calls) < 1000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_relu_after_a_batch_norm_has_the_same_bits_computed_together(dtype, rng):
    def made():
        layers = (nn.BatchNorm2d(7), nn.ReLU(), nn.BatchNorm2d(7), nn.ReLU())
        return nn.Sequential(*layers, backend="numpy", dtype=dtype, seed=0)

    together, apart = made(), made()
    for case in range(5):
        x, dy = pair(rng, (6, 7, 5, 4), dtype)
        if case > 2:
            x[:, case % 7] = 0.0
            x[case, 0, 0, 0] = np.nan
        results = []
        for model, context in ((together, None), (apart, watched(apart, lambda *_: None, lambda *_: None))):
            if context is None:
                y, dx = model(x), model.backward(dy)
                assert model[0].covers(model[1])
            else:
                with context:
                    y, dx = model(x), model.backward(dy)
            results.append([y, dx, *(p.grad for _, p in model.named_parameters()), *model.state_dict().values()])
            model.zero_grad()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*results, strict=True))


def test_a_relu_that_was_called_again_is_not_covered(rng):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), backend="numpy")
    x, dy = pair(rng, (8, 3))
    model(x)
    model[1](-x)
    assert not model[0].covers(model[1])
    expected = model[0].backward(dy * (x < 0))
    np.testing.assert_array_equal(model.backward(dy), expected)


def test_released_frees_what_a_covered_relu_saved(rng):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), backend="numpy")
    x, dy = pair(rng, (8, 3))
    model(x)
    with nn.released():
        model.backward(dy)
    assert model[0].saved is None and model[1].saved is None
    with pytest.raises(RuntimeError, match="ReLU"):
        model.backward(dy)


def test_a_step_with_another_batch_or_weight_between_is_right(rng):
    """Forms change from call to call: last batches, weights set in another memory layout, views as input."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(128, 5))
    model.to(NUMPY)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(128, 5))
    plain.to(NUMPY)
    plain.load_state_dict(model.state_dict())
    for step in range(12):
        n = (16, 16, 16, 16, 5)[step % 5]
        x = rng.standard_normal((n, 3, 8, 16)).astype(np.float32)[:, :, :, :: 2 if step % 3 else 1][..., :8]
        dy = rng.standard_normal((n, 5)).astype(np.float32)
        if step == 7:
            weight = np.asfortranarray(rng.standard_normal((8, 3, 3, 3)).astype(np.float32))
            model[0].parameters["weight"].value = weight
            plain[0].parameters["weight"].value = weight.copy()
        ours = model(x), model.backward(dy)
        with using(Choices(kernels=True)):
            theirs = plain(x.copy()), plain.backward(dy)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for (_, p), (_, q) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad, rtol=1e-4, atol=1e-4)
        model.zero_grad()
        plain.zero_grad()


def test_a_setting_without_a_hash_is_left_to_the_function():
    calls = []

    @kept_calls(1)
    def shown(x, setting):
        calls.append(setting)
        return str(setting)

    assert shown(np.ones(2), [1]) == "[1]" and shown(np.ones(2), {}) == "{}" and len(calls) == 2
