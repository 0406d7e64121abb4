"""The context of a GPU sets its device and the rounding of products, for each thread and backend, and restores both."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnn as nn
from xpnn.backends.precision import Rounding
from xpnn.backends.torch import TorchBackend
from xpnn.training.gradients import accumulate

FOUND = ["default", "off", "on"]


class Switch:
    """A library's setting that switches rounding on and off."""

    def __init__(self, state):
        self.state, self.sets = state, 0
        self.rounding = Rounding(lambda: self.state, self._set, "off", "on")

    def _set(self, state):
        self.state, self.sets = state, self.sets + 1

    def use(self, rounds):
        return self.rounding.rounded if rounds else self.rounding.floats


@given(st.sampled_from(FOUND), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_the_switch_fits_all_open_contexts_in_any_order(found, changes):
    switch, inside = Switch(found), [0, 0]
    for comes, rounds in changes:
        if comes:
            switch.use(rounds).__enter__()
            inside[rounds] += 1
        elif inside[rounds]:
            switch.use(rounds).__exit__(None, None, None)
            inside[rounds] -= 1
        if inside[False]:
            assert switch.state != "on"
        elif inside[True]:
            assert switch.state == "on"
        else:
            assert switch.state == found


@pytest.mark.parametrize("found", ["default", "off"])
def test_work_in_float32_does_not_set_a_switch_that_is_off(found):
    switch = Switch(found)
    with switch.use(False), switch.use(False):
        pass
    assert switch.sets == 0


@pytest.mark.parametrize("found", FOUND)
def test_the_switch_is_restored_after_an_error(found):
    switch = Switch(found)
    for rounds in (False, True):
        with pytest.raises(ZeroDivisionError), switch.use(rounds), switch.use(not rounds):
            raise ZeroDivisionError
        assert switch.state == found


def test_threads_share_the_switch():
    switch, wrong = Switch("default"), []

    def work(rounds):
        for _ in range(300):
            with switch.use(rounds):
                if not rounds and switch.state == "on":
                    wrong.append(rounds)

    threads = [threading.Thread(target=work, args=(rounds,)) for rounds in (False, True, False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and switch.state == "default"


@pytest.fixture
def two_devices(fake_cupy):
    fake_cupy.runtime.getDeviceCount = lambda: 2
    return fake_cupy.runtime, nn.get_backend("cupy:0"), nn.get_backend("cupy:1")


def test_each_backend_computes_on_its_device_and_leaves_the_callers(two_devices):
    runtime, first, second = two_devices
    with first.context():
        assert runtime.getDevice() == 0
        with second.context():
            assert runtime.getDevice() == 1
            with first.context(), first.context():
                assert runtime.getDevice() == 0
            assert runtime.getDevice() == 1
        with pytest.raises(ZeroDivisionError), second.context():
            raise ZeroDivisionError
        assert runtime.getDevice() == 0


def test_threads_return_to_their_own_devices(fake_cupy):
    fake_cupy.runtime.getDeviceCount = lambda: 3
    b, third = nn.get_backend("cupy:1"), nn.get_backend("cupy:2")
    inside, leave, found = threading.Event(), threading.Event(), []

    def work():
        with third.context():
            with b.context():
                inside.set()
                leave.wait(10)
            found.append(fake_cupy.runtime.getDevice())

    thread = threading.Thread(target=work)
    with b.context():
        thread.start()
        inside.wait(10)
    found.append(fake_cupy.runtime.getDevice())
    leave.set()
    thread.join()
    assert found == [0, 2]


def test_no_context_is_made_on_the_current_device(two_devices):
    _, first, _ = two_devices
    assert first.context() is first.context()


def test_a_backend_computes_in_its_context_within_anothers(at):
    other = nn.get_backend("numpy")
    with at.backend.context(), other.context(), at.backend.context():
        y = at.put([1.0, 2.0]) * 2.0
    assert at.get(y).tolist() == [2.0, 4.0]


def devices(*arrays):
    """Where arrays are."""
    return {array.device.id for array in arrays if hasattr(array, "dtype")}


@pytest.mark.parametrize("make", [nn.SGD, nn.Adam, lambda model: nn.Adam(model, capturable=True), nn.Adagrad])
def test_all_that_a_step_makes_is_on_the_backends_device(two_devices, make):
    runtime, _, b = two_devices
    model = nn.Sequential(nn.Dense(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Dropout(0.5), nn.Dense(4, 2), backend=b)
    loss, optimizer = nn.CrossEntropy(backend=b), make(model)
    x, y = b.asarray(np.ones((5, 3), "float32")), b.asarray(np.arange(5) % 2)
    for _ in range(2):
        optimizer.zero_grad()
        value = loss(model(x), y)
        dx = model.backward(loss.backward())
        norm = nn.clip_grad_norm(model, 1.0)
        nn.clip_grad_value(model, 0.1)
        optimizer.step()
    parameters = [parameter for _, parameter in model.named_parameters()]
    states = [array for parameter in parameters for array in parameter.states[optimizer].values()]
    assert devices(value, dx, norm, *model.state_dict().values(), *(p.grad for p in parameters), *states) == {1}
    assert runtime.getDevice() == 0


def test_sums_over_parts_of_a_batch_are_on_the_backends_device(two_devices):
    _, _, b = two_devices
    model = nn.Sequential(nn.Dense(3, 2), backend=b)
    x, y = b.asarray(np.ones((5, 3), "float32")), b.asarray(np.arange(5) % 2)
    probabilities = b.asarray(np.full((5, 2), 0.5, "float32"))
    for loss, target in ((nn.CrossEntropy(), y), (nn.CrossEntropy(), probabilities), (nn.MSE(), probabilities)):
        value, prediction = accumulate(model, loss, [2, 3], x, target)
        assert devices(value, prediction, loss.terms(prediction, target)) == {1}


class FakeTorch:
    """What the context of a PyTorch GPU uses of the library."""

    def __init__(self):
        self.graded, self.here = True, 0
        self.backends = SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True)))
        self.cuda = SimpleNamespace(current_device=lambda: self.here, device=lambda d: self._set("here", d.index))

    def is_grad_enabled(self):
        return self.graded

    def no_grad(self):
        return self._set("graded", False)

    @contextmanager
    def _set(self, name, value):
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)

    def state(self):
        return self.graded, self.here, self.backends.cuda.matmul.allow_tf32


def torch_gpu(torch, index, precision):
    device = SimpleNamespace(type="cuda", index=index)
    b = TorchBackend(f"torch:cuda:{index}", precision=precision, xp=None, device=device)
    vars(b)["_torch"] = torch
    return b


def test_a_pytorch_gpu_computes_without_gradients_on_its_device_and_rounds_as_set():
    torch = FakeTorch()
    first, second = torch_gpu(torch, 0, "tf32"), torch_gpu(torch, 1, "float32")
    before = torch.state()
    with first.context():
        assert torch.state() == (False, 0, True)
        with second.context():
            assert torch.state() == (False, 1, False)
            with second.context():
                assert torch.state() == (False, 1, False)
        assert torch.state() == (False, 0, True)
    assert torch.state() == before
    with pytest.raises(ZeroDivisionError), second.context():
        raise ZeroDivisionError
    assert torch.state() == before
    with torch.no_grad():
        assert first.context() is first.context()
