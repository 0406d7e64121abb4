"""Out of memory: how each backend reports it, and which batch fits."""

import gc
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing.compare import same_bits
from xpnn.training import out_of_memory as module
from xpnn.training.gradients import forward_backward
from xpnn.training.out_of_memory import halves, largest_batch, out_of_memory


@pytest.fixture(autouse=True)
def young(monkeypatch):
    """Collect only young objects: those of this test are young, and to scan all that other tests keep needs seconds."""
    collect = gc.collect
    monkeypatch.setattr(gc, "collect", lambda: collect(1))


class Narrow(nn.Identity):
    """Raises `MemoryError` for more than a number of samples, in forward or backward."""

    def __init__(self, most, backward=False):
        super().__init__()
        self._most, self._late = most, backward

    def _forward(self, x):
        return x if self._late else self._pass(x)

    def _backward(self, dy, input_grad):
        return self._pass(dy)

    def _pass(self, array):
        if array.shape[0] > self._most:
            raise MemoryError("planted")
        return array


def net(backend, most, **options):
    return nn.Sequential(
        nn.Dense(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), Narrow(most, **options), nn.Dense(4, 2),
        backend=backend, seed=1,
    )  # fmt: skip


@pytest.fixture
def batch(at, rng):
    return at.put(rng.standard_normal((20, 3)), "float32"), at.put(np.arange(20) % 2)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("most", "wanted"), [(20, 10), (9, 5), (5, 5), (3, 2)])
def test_the_first_part_that_fits_is_found(at, batch, most, wanted, backward):
    model = net(at.backend, most, backward=backward)
    assert largest_batch(model, nn.CrossEntropy(), *batch) == wanted


def test_no_part_fits(at, batch):
    assert largest_batch(net(at.backend, 1), nn.CrossEntropy(), *batch, sizes=[10, 2]) == 0


def test_a_sample_that_is_no_batch_for_a_batch_norm_does_not_hide_the_shortage(at, batch):
    assert largest_batch(net(at.backend, 1), nn.CrossEntropy(), *batch) == 0


def test_sizes_are_tried_in_their_order(at, batch):
    tried = []
    model = net(at.backend, 7)
    model[3]._pass = lambda x: tried.append(x.shape[0]) or x
    assert largest_batch(model, nn.CrossEntropy(), *batch, sizes=[12, 8]) == 12
    assert set(tried) == {12}


@pytest.mark.parametrize(("samples", "wanted"), [(20, [10, 5, 2, 1]), (2, [1]), (1, []), (0, [])])
def test_halves_end_at_one_sample(samples, wanted):
    assert halves(samples) == wanted


def test_the_model_is_left_without_gradients_and_otherwise_as_it_was(at, batch):
    model, loss = net(at.backend, 9), nn.CrossEntropy()
    forward_backward(model, loss, *(part[:4, ...] for part in batch))
    before = {name: at.get(array).copy() for name, array in model.state_dict().items()}
    position = model[2].stream.position
    largest_batch(model, loss, *batch)
    assert all(same_bits(at.get(array), before[name]) for name, array in model.state_dict().items())
    assert model[2].stream.position == position and model.training
    assert all(p.grad is None for _, p in model.named_parameters())
    assert all(layer.saved is None for _, layer in model.named_layers()) and loss._saved is None


def test_another_error_is_passed_on(at, batch):
    with pytest.raises(ValueError, match="input must have shape"):
        largest_batch(net(at.backend, 9), nn.CrossEntropy(), batch[0][:, :2], batch[1])


def test_memory_is_freed_between_tries(batch, monkeypatch):
    b = nn.get_backend("numpy")
    calls = []
    monkeypatch.setattr(type(b), "free_memory", lambda self: calls.append(gc.isenabled()))
    largest_batch(net(b, 3), nn.CrossEntropy(), np.ones((20, 3), np.float32), np.arange(20) % 2)
    assert len(calls) == 3


def test_what_a_failed_step_held_is_freed_before_the_tries(rng):
    held, alive = [], []

    class Last(nn.Identity):
        def _forward(self, x):
            alive.append(held and held[0]() is not None)
            big = np.ones(10)
            held.append(weakref.ref(big))
            if x.shape[0] > 2:
                raise MemoryError
            return x

    model, loss = nn.Sequential(nn.Dense(3, 2), Last()), nn.CrossEntropy()
    x, y = rng.standard_normal((4, 3)).astype(np.float32), np.arange(4) % 2
    try:
        forward_backward(model, loss, x, y)
    except MemoryError as error:
        found = out_of_memory(error, model, loss, x, y)
    assert alive[1:] == [False]
    assert (found.batch, found.fits) == (4, 2)


def test_the_error_says_what_fits_and_what_to_do(at, batch, monkeypatch):
    monkeypatch.setattr(type(at.backend), "capacity", lambda self: (80_000_000_000, 78_400_000_000))
    found = out_of_memory(MemoryError(), net(at.backend, 6), nn.CrossEntropy(), *batch)
    assert isinstance(found, MemoryError) and isinstance(found, nn.OutOfMemory)
    assert str(found) == (
        f"batch of 20 does not fit in the memory of {at.backend.spec} (80 GB, 78 in use); a batch of 5 does: "
        "--batch 5, or --accumulate 4 / accumulate=4 to keep the same steps; Checkpointed(...) needs less"
    )


def test_the_error_says_that_not_even_one_sample_fits():
    b = nn.get_backend("numpy")
    model = nn.Sequential(nn.Dense(3, 4), Narrow(0), backend=b)
    found = out_of_memory(MemoryError(), model, nn.CrossEntropy(), np.ones((8, 3), np.float32), np.arange(8) % 2)
    assert "nor does one sample: take smaller inputs, a smaller model, or Checkpointed(...)" in str(found)


@pytest.mark.parametrize(("size", "text"), [(80e9, "80"), (7.94e9, "7.9"), (3.1e8, "0.31"), (0, "0")])
def test_gigabytes_are_short(size, text):
    assert module.gigabytes(int(size)) == text


def test_the_libraries_own_error_is_known(at):
    b = at.backend
    assert b.is_out_of_memory(MemoryError())
    assert not any(map(b.is_out_of_memory, (ValueError("out of memory"), RuntimeError("other"), KeyboardInterrupt())))
    with pytest.raises(Exception, match=r".") as caught, b.context():
        b.xp.ones((1 << 47,), dtype=b.xp.float32, device=b.device)
    assert b.is_out_of_memory(caught.value)


def test_the_error_for_a_real_shortage_of_address_space_names_what_fits():
    pytest.importorskip("resource")
    program = """
        import resource
        import numpy as np
        import xpnn as nn
        from xpnn.training.out_of_memory import out_of_memory
        from xpnn.training.gradients import forward_backward

        model, loss = nn.Sequential(nn.Dense(4, 1000), nn.Tanh(), nn.Dense(1000, 2)), nn.CrossEntropy()
        x, y = np.ones((64_000, 4), np.float32), np.arange(64_000) % 2
        forward_backward(model, loss, x[:8], y[:8])
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, used + 400_000_000))
        try:
            forward_backward(model, loss, x, y)
        except MemoryError as error:
            print(out_of_memory(error, model, loss, x, y))
        else:
            print("it fits")
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "batch of 64000 does not fit in the memory of numpy (" in found.stdout
    size = int(found.stdout.partition("--batch ")[2].partition(",")[0])
    # Half of it needs two arrays of 128 MB and their gradients.
    assert 4000 <= size <= 32000


def test_a_new_peak_starts_where_the_system_permits_it():
    b = nn.get_backend("numpy")
    np.ones(20_000_000)
    high = b.memory()["peak"]
    if not b.reset_peak():
        pytest.skip("the system keeps the peak of the whole process")
    low = b.memory()
    assert low["in_use"] <= low["peak"] < high - 50_000_000
    np.ones(20_000_000)
    assert b.memory()["peak"] > low["peak"] + 100_000_000


def test_a_system_without_figures_of_memory_gives_none(monkeypatch, tmp_path):
    from xpnn.common import host_memory

    monkeypatch.setattr(host_memory, "PROC", tmp_path)
    b = nn.get_backend("numpy")
    assert not b.reset_peak()
    assert b.memory()["peak"] > 0
    monkeypatch.setattr(host_memory, "_physical", lambda: 0)
    assert b.capacity() == (0, 0)
    assert module.device_memory(b) == "numpy"


def test_capacity_is_at_least_what_is_in_use(at):
    total, used = at.backend.capacity()
    assert type(total) is type(used) is int
    assert 0 <= used <= total
