"""Exact numerics gives one result: on every backend, on the chaos namespace, and whatever the machine is set to.

Bits of float32 hide errors that a longer run brings out. So a training run is compared by two hashes: of all that it
stored, and of every float64 result before it was rounded. The controls show that either hash can tell.
"""

import hashlib
from functools import cache
from math import fsum, inf, nan

import numpy as np
import pytest
from chaos import chaos_backend, reseed

import xpnn as nn
from xpnn.backends import operations_of, registry
from xpnn.backends.backend import SMALLEST_STORED as SMALLEST
from xpnn.backends.backend import Backend
from xpnn.backends.contractions.windows import Windows
from xpnn.backends.exact.namespace import ExactNamespace
from xpnn.backends.exact.operations import ExactOperations
from xpnn.testing import cases
from xpnn.testing.compare import same_bits
from xpnn.testing.parity import run_host

SINGLE = {case.name: case for case in cases() if case.single and case.dtype == "float32"}
SUBJECTS = list(dict.fromkeys(case.subject for case in SINGLE.values()))
SEEDS = {"SGD": range(6), "Adam": range(6, 10)}
STEPS = 10
OPTIMIZERS = {
    "SGD": lambda model: nn.SGD(model, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "Adam": lambda model: nn.Adam(model, lr=0.01),
}
# The first 16 digits of the SHA-256 of all that a run stores. A change here is a change of everyone's results.
GOLDEN = {"SGD": "b72bb59696d65dbd", "Adam": "398b7128c29cd26c"}
UNIT = 2.0**-24
NUMPY = nn.get_backend("numpy", numerics="exact")

# Hashes are of what `Backend.down` is given, too, which compiled kernels do not make.
pytestmark = pytest.mark.usefixtures("array_functions")


class Run:
    """Steps of a small net on a backend, which may change on the way; keeps what was computed as two hashes."""

    def __init__(self, backend, optimizer="SGD"):
        generator = nn.random.Generator(17)
        self.x = generator.fold_in("x").uniform((12, 2, 6, 6), -1.0, 1.0, "float32", "numpy")
        self.y = np.argsort(generator.fold_in("y").uniform((12, 3), dtype="float32", backend="numpy"), axis=1)[:, 0]
        self.model = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Dense(16, 3),
            backend=backend,
            seed=5,
        )
        self.loss = nn.CrossEntropy(label_smoothing=0.1, backend=backend)
        self.loader = nn.DataLoader(self.x, self.y, batch_size=4, seed=3)
        self.optimizer = OPTIMIZERS[optimizer](self.model)
        self.schedule = nn.CosineLR(self.optimizer, total_steps=STEPS, warmup=2)
        self.stored, self.wide = hashlib.sha256(), hashlib.sha256()
        self._keep(self.model.state_dict())

    def steps(self, count=STEPS):
        down = Backend.down

        def watched(b, array):
            self._keep({} if array.dtype == b.xp.float32 else {"wide": array}, self.wide)
            return down(b, array)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Backend, "down", watched)
            while count:
                for x, y in self.loader.batches(self.model.backend):
                    if count:
                        self._step(x, y)
                        count -= 1
        return self

    def to(self, spec):
        self.model.to(spec)
        self.loss.to(spec)
        return self

    def _step(self, x, y):
        self.optimizer.zero_grad()
        logits = self.model(x)
        value = self.loss(logits, y)
        dx = self.model.backward(self.loss.backward())
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        nn.clip_grad_norm(self.model, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self._keep({"x": x, "y": y, "logits": logits, "loss": value, "dx": dx} | gradients | self.model.state_dict())

    def _keep(self, arrays, into=None):
        """Hash the arrays; in float64, which is never stored, a zero has no sign."""
        for name, array in arrays.items():
            host = self.model.backend.to_numpy(array)
            host = host + 0.0 if host.dtype == np.float64 else host
            (into or self.stored).update(f"{name} {host.dtype.name} {host.shape}".encode() + host.tobytes())

    @property
    def hashes(self):
        return self.stored.hexdigest(), self.wide.hexdigest()


@cache
def of_numpy(optimizer="SGD", slice_products=2):
    return Run(nn.get_backend(NUMPY, slice_products=slice_products), optimizer).steps().hashes


def on_chaos(optimizer="SGD", numerics="exact", seeds=SEEDS["SGD"], steps=STEPS):
    """The hashes of runs with differently seeded dice."""
    with chaos_backend(numerics=numerics) as b:
        return [Run(b, optimizer).steps(steps).hashes for seed in seeds if reseed(seed) is None]


def differ(seeds=range(3), steps=3):
    """Whether runs in exact numerics that was tampered with have other float64 results from seed to seed of chaos.

    Two of them may come out the same: the sums of so small a net are not many, and some orders round alike.
    """
    return len({wide for _, wide in on_chaos(seeds=seeds, steps=steps)}) > 1


@pytest.fixture(scope="module")
def chaos():
    """The chaos backend in exact numerics; tests throw its dice anew with `reseed`."""
    with chaos_backend(numerics="exact") as b:
        yield b


def bits(b, array):
    host = b.to_numpy(array)
    assert host.dtype == np.float32
    return host.view(np.uint32).tolist()


def bits_of(*values):
    return np.asarray(values, np.float32).view(np.uint32).tolist()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_case_of_the_catalogue_has_numpys_bits_on_chaos(chaos, subject):
    for seed, case in enumerate(SINGLE.values()):
        if case.subject != subject:
            continue
        reseed(seed)
        expected, found = run_host(case, NUMPY), run_host(case, chaos)
        assert expected.keys() == found.keys()
        for part, array in expected.items():
            assert same_bits(found[part], array), f"{case.name} {part}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_run_has_the_committed_hash(optimizer):
    assert of_numpy(optimizer)[0][:16] == GOLDEN[optimizer]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_run_has_one_hash_on_chaos_and_it_is_numpys(optimizer):
    assert set(on_chaos(optimizer, seeds=SEEDS[optimizer])) == {of_numpy(optimizer)}


def test_a_training_run_in_fast_numerics_has_a_hash_for_each_seed_of_chaos():
    found = on_chaos(numerics="fast", seeds=range(3))
    assert len({stored for stored, _ in found}) == len(found)


def test_float64_rounded_between_layers_is_not_exact(monkeypatch):
    monkeypatch.setattr(registry, "_opened", {})
    monkeypatch.setattr(Backend, "_exact", lambda b: b)
    with chaos_backend(numerics="exact") as b:
        assert not isinstance(b.xp, ExactNamespace)
        assert differ()


@pytest.mark.parametrize(
    "owner, method", [(ExactNamespace, "matmul"), (ExactNamespace, "sum"), (ExactNamespace, "exp")]
)
def test_one_function_of_the_library_in_place_of_an_exact_one_shows(monkeypatch, owner, method):
    monkeypatch.setattr(owner, method, lambda xp, *args, **options: getattr(xp.raw, method)(*args, **options))
    assert differ()


def test_contractions_of_windows_by_the_library_show(monkeypatch):
    plain = ExactOperations.__mro__[1]
    for method in ("contract", "contract_weight_gradient"):

        def raw(ops, *args, method=method):
            return getattr(plain(ops.xp.raw), method)(*args)

        with monkeypatch.context() as patch:
            patch.setattr(ExactOperations, method, raw)
            assert differ(), method


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_run_has_numpys_hash_on_every_backend(exact, optimizer):
    assert Run(exact, optimizer).steps().hashes == of_numpy(optimizer)


def test_three_products_have_one_hash_too_and_another_than_two(exact):
    three = nn.get_backend(exact, slice_products=3)
    assert Run(three).steps().hashes == of_numpy(slice_products=3)
    assert of_numpy(slice_products=3)[1] != of_numpy()[1]


def test_saved_models_are_the_same_file_on_every_backend(exact, tmp_path):
    files = []
    for b in (NUMPY, exact):
        model = Run(b).steps(4).model
        nn.save(model, tmp_path / b.spec.replace(":", "-"), about={"steps": 4})
        files.append((tmp_path / b.spec.replace(":", "-")).read_bytes())
    assert hashlib.sha256(files[0]).hexdigest() == hashlib.sha256(files[1]).hexdigest()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_with_the_same_bits_after_a_move(exact, optimizer):
    run = Run(NUMPY, optimizer)
    # Passes end with these counts, so all samples are seen in the order of an unbroken run.
    run.steps(3).to(exact.spec)
    assert (run.model.backend, run.loss._backend) == (exact, exact)
    run.steps(3).to("numpy").steps(4)
    assert run.hashes == of_numpy(optimizer)


def test_a_run_through_fit_has_numpys_history_and_weights(exact):
    def fitted(b):
        run = Run(b)
        history = nn.fit(run.model, (run.x, run.y), validation=(run.x, run.y), epochs=2, batch_size=7, progress=False)
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
        return rows, {name: b.to_numpy(array).tobytes() for name, array in run.model.state_dict().items()}

    assert fitted(exact) == fitted(NUMPY)


def test_threads_and_flushing_of_torch_change_nothing():
    torch = pytest.importorskip("torch")
    b = nn.get_backend("torch", numerics="exact")
    threads, found = torch.get_num_threads(), set()
    try:
        for count, flush in ((1, True), (2, False)):
            torch.set_num_threads(count)
            torch.set_flush_denormal(flush)
            found.add(Run(b).steps().hashes)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    assert found == {of_numpy()}


def test_a_gradient_that_torch_would_track_is_not_tracked():
    torch = pytest.importorskip("torch")
    b = nn.get_backend("torch", numerics="exact")
    with torch.enable_grad():
        layer = nn.Dense(3, 2, backend=b)
        x = torch.ones((4, 3), requires_grad=True)
        assert not layer(x).requires_grad and not layer.backward(torch.ones((4, 2))).requires_grad


def test_a_device_without_float64_is_refused():
    with pytest.raises(nn.BackendUnavailable, match="computes in float64 and int64, which this device lacks") as caught:
        nn.get_backend("strict:no_float64", numerics="exact")
    assert "numerics='fast'" in caught.value.cure


# Magnitudes around the smallest that is stored.
BELOW = np.nextafter(np.float32(SMALLEST), np.float32(0))
SMALL = np.asarray([1e-45, -1e-40, 2.0**-126, BELOW, -BELOW, SMALLEST, -SMALLEST, -0.0, 1.0], np.float32)
KEPT = bits_of(0, 0, 0, 0, 0, SMALLEST, -SMALLEST, 0, 1)


def test_subnormals_and_negative_zeros_are_flushed_at_the_door(exact):
    assert bits(exact, exact.asarray(SMALL)) == KEPT
    assert bits(exact, exact.asarray(SMALL.tolist())) == KEPT
    assert bits(exact, exact.asarray(SMALL.astype(np.float64), "float32")) == KEPT


def test_arrays_that_are_there_already_are_flushed_at_the_door_as_well(exact):
    fast = nn.get_backend(exact, numerics="fast")
    assert bits(exact, exact.asarray(fast.asarray(SMALL))) == KEPT
    assert bits(exact, exact.asarray(fast.asarray(SMALL.astype(np.float64)), "float32")) == KEPT


def test_results_below_the_smallest_stored_number_are_zero(exact):
    layer = nn.Dense(1, 1, bias=False, backend=exact)
    for weight, expected in (
        (2.0**-62, SMALLEST),
        (2.0**-63, 0.0),
        (-(2.0**-63), 0.0),
        (-(2.0**-62), -SMALLEST),
    ):
        layer.load_state_dict({"weight": np.full((1, 1), weight, np.float32)})
        y = layer(exact.asarray(np.full((2, 1), 2.0**-63, np.float32)))
        assert bits(exact, y) == [bits_of(expected)] * 2


def test_gradients_that_cancel_to_less_than_the_smallest_stored_number_are_zero(exact):
    layer = nn.Dense(1, 1, bias=False, backend=exact)
    x = exact.asarray(np.ones((1, 1), np.float32))
    for upstream in (np.nextafter(np.float32(SMALLEST), np.float32(1)), -np.float32(SMALLEST)):
        layer(x)
        layer.backward(exact.asarray(np.full((1, 1), upstream)))
    assert bits(exact, layer.parameters["weight"].grad) == [bits_of(0.0)]


@pytest.mark.parametrize("build", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Softsign, nn.GELU, nn.Identity, nn.HardSwish])
def test_no_stored_zero_is_negative(exact, build):
    values = np.asarray([[-0.0, 0.0, -1e-45, -1e-38, -1.0, -200.0, 3.0]], np.float32)
    layer = build(backend=exact)
    y = layer(exact.asarray(values))
    dx = layer.backward(exact.asarray(-np.abs(values)))
    for array in (y, dx):
        host = exact.to_numpy(array)
        assert not np.any(np.signbit(host) & (host == 0))


def test_what_exceeds_float32_is_infinite(exact):
    layer = nn.Dense(2, 3, bias=False, backend=exact)
    layer.load_state_dict({"weight": np.asarray([[3e38, 3e38], [-3e38, -3e38], [3e38, -3e38]], np.float32)})
    with np.errstate(over="ignore"):
        y = layer(exact.asarray(np.ones((1, 2), np.float32)))
    assert exact.to_numpy(y).tolist() == [[inf, -inf, 0.0]]


def test_an_infinity_makes_a_sum_that_sees_it_nan_and_no_other(exact):
    layer = nn.Dense(2, 2, backend=exact)
    y = exact.to_numpy(layer(exact.asarray([[1.0, inf], [1.0, 2.0], [-inf, nan]])))
    assert np.isnan(y).tolist() == [[True, True], [False, False], [True, True]]
    layer.backward(exact.asarray([[0.0, 1.0], [0.0, nan], [0.0, 1.0]]))
    assert np.isnan(exact.to_numpy(layer.parameters["bias"].grad)).tolist() == [False, True]


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("groups, dilation, padding", [(1, 1, 1), (2, 1, 0), (1, 2, 2)])
def test_nan_is_in_exactly_the_windows_that_see_it(exact, value, groups, dilation, padding):
    x = np.ones((2, 4, 6, 7), np.float32)
    x[1, 1, 2, 3] = value
    layer = nn.Conv2d(4, 4, 3, groups=groups, dilation=dilation, padding=padding, backend=exact)
    y = exact.to_numpy(layer(exact.asarray(x)))
    reach = [
        [i for i in range(n) if (cell + padding - i) in (0, dilation, 2 * dilation)]
        for cell, n in ((2, y.shape[2]), (3, y.shape[3]))
    ]
    seen = np.zeros(y.shape, bool)
    seen[np.ix_([1], range(4 // groups), *reach)] = True
    assert np.array_equal(np.isnan(y), seen)
    dx = exact.to_numpy(layer.backward(exact.asarray(np.ones(y.shape, np.float32))))
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("value", [nan, inf])
@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"kernel_size": 2, "dilation": 2, "stride": 3}, {"stride": (1, 2), "groups": 2}]
)
def test_nan_that_no_window_reads_is_in_no_gradient(exact, value, options):
    """Nor does it change a bit of them."""
    found = []
    for cell in (value, 5.0):
        x = np.arange(2 * 4 * 7 * 8, dtype=np.float32).reshape(2, 4, 7, 8) % 11
        # Windows of one cell read every second, of two cells 0, 2, 3 and 5.
        x[1, 1, 1, 1] = cell
        layer = nn.Conv2d(4, 4, **{"kernel_size": 1, "backend": exact, "seed": 3, **options})
        y = layer(exact.asarray(x))
        dx = layer.backward(y * 0 + 1)
        found.append([exact.to_numpy(a) for a in (y, dx, layer.parameters["weight"].grad)])
    for first, second in zip(*found, strict=True):
        assert np.isfinite(first).all() and same_bits(first, second)


def test_nan_in_a_batch_norm_stays_in_its_channel(exact):
    x = np.ones((3, 2, 4), np.float32) * np.arange(4, dtype=np.float32)
    x[1, 1, 2] = nan
    layer = nn.BatchNorm1d(2, backend=exact)
    y = exact.to_numpy(layer(exact.asarray(x)))
    assert np.isfinite(y[:, 0]).all() and np.isnan(y[:, 1]).all()
    assert np.isnan(exact.to_numpy(layer.buffers["running_mean"])).tolist() == [False, True]


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batches_of_nothing_and_rows_of_zeros_give_zeros(exact, batch):
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Dense(12, 2), backend=exact)
    y = model(exact.asarray(np.zeros((batch, 2, 4, 4), np.float32)))
    dx = model.backward(exact.asarray(np.zeros((batch, 2), np.float32)))
    for array in (y, dx, *(parameter.grad for _, parameter in model.named_parameters())):
        assert not np.any(exact.to_numpy(array).view(np.uint32))
    assert dx.shape == (batch, 2, 4, 4)


def many(b, slice_products=2):
    """A dense layer and a batch norm on more samples than a power of two, and their operands."""
    b, n = nn.get_backend(b, slice_products=slice_products), 2**12 + 1
    generator = nn.random.Generator(23)
    x = generator.fold_in("x").uniform((n, 3), -1.0, 1.0, "float32", "numpy")
    x = (x + np.asarray([0.0, 10.0, 1e-3], np.float32)).astype(np.float32)
    dy = generator.fold_in("dy").uniform((n, 2), -1.0, 1.0, "float32", "numpy")
    dense, norm = nn.Dense(3, 2, backend=b, seed=1), nn.BatchNorm1d(3, momentum=1.0, backend=b)
    found = {"y": dense(b.asarray(x)), "dx": dense.backward(b.asarray(dy))}
    found |= {"dweight": dense.parameters["weight"].grad, "dbias": dense.parameters["bias"].grad}
    found |= {"normal": norm(b.asarray(x)), **norm.buffers}
    return {name: b.to_numpy(array) for name, array in found.items()}, x.astype(np.float64), dy.astype(np.float64)


def test_sums_over_many_samples_are_right_to_the_rounding_to_float32():
    for slice_products, limit in ((2, 1.0), (3, 0.5)):
        found, x, dy = many(NUMPY, slice_products)
        dweight = np.asarray([[fsum(dy[:, i] * x[:, j]) for j in range(3)] for i in range(2)])
        errors = np.abs(found["dweight"] - dweight) / UNIT
        assert np.all(errors <= limit * 2.0 * np.abs(dweight) + limit)
        dbias = np.asarray([fsum(column) for column in dy.T])
        assert np.array_equal(found["dbias"], dbias.astype(np.float32))
        mean = np.asarray([fsum(column) / len(x) for column in x.T])
        variance = np.asarray([fsum((x[:, i] - mean[i]) ** 2) / (len(x) - 1) for i in range(3)])
        assert np.array_equal(found["running_mean"], mean.astype(np.float32))
        assert np.array_equal(found["running_var"], variance.astype(np.float32))


@pytest.mark.parametrize("slice_products", [1, 2, 3])
def test_sums_over_many_samples_are_the_same_bits_on_every_backend(exact, slice_products):
    expected, found = many(NUMPY, slice_products)[0], many(exact, slice_products)[0]
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in expected.items()}


def test_sums_over_many_samples_are_the_same_bits_on_chaos(chaos):
    for slice_products in (2, 3):
        expected = many(NUMPY, slice_products)[0]
        for seed in range(3):
            reseed(seed)
            found = many(chaos, slice_products)[0]
            assert all(found[name].tobytes() == array.tobytes() for name, array in expected.items())


def near_the_maximum(b):
    """Weight gradients in float64 of operands of one sign near their maximum, the last samples by far the largest."""
    n, contractions = 4097, operations_of(b.xp)
    generator = nn.random.Generator(31)
    growing = np.where(np.arange(n) < n - 200, 1.0, 2.0**9)[:, None]
    x = generator.fold_in("x").uniform((n, 4), 0.9, 1.0, "float64", "numpy") * growing
    dy = generator.fold_in("dy").uniform((n, 4), 0.9, 1.0, "float64", "numpy") * growing
    x, dy = b.asarray(x), b.asarray(dy)
    windows = Windows(kernel=(1,), stride=(1,), dilation=(1,), count=(1,))
    found = (
        contractions.contract_rows(x, dy),
        contractions.contract_weight_gradient(b.xp.reshape(x, (n, 1, 4)), b.xp.reshape(dy, (n, 1, 4)), windows, 2),
    )
    return [b.to_numpy(array).tobytes() for array in (*found, b.xp.matmul(b.xp.matrix_transpose(x), dy))]


def test_operands_near_their_maximum_leave_no_bit_open_in_float64(exact, chaos):
    expected = near_the_maximum(NUMPY)
    assert near_the_maximum(exact) == expected
    for seed in range(2):
        reseed(seed)
        assert near_the_maximum(chaos) == expected


@pytest.mark.parametrize(
    "build, shape",
    [
        (lambda **o: nn.Dense(500, 40, bias=False, **o), (64, 500)),
        (lambda **o: nn.Conv2d(40, 8, 3, **o), (4, 40, 8, 8)),
    ],
    ids=["Dense", "Conv2d"],
)
def test_three_products_err_less_than_two_and_only_by_rounding(build, shape):
    generator = nn.random.Generator(29)
    x = generator.fold_in("x").normal(shape, dtype="float32", backend="numpy")
    errors, state = {}, build(backend=NUMPY, seed=4).state_dict()
    truths = None
    for b in (nn.get_backend("numpy", "float64"), NUMPY, nn.get_backend(NUMPY, slice_products=3)):
        layer = build(backend=b)
        layer.load_state_dict(state)
        y = layer(b.asarray(x, b.dtype))
        dy = generator.fold_in("dy").normal(y.shape, dtype="float32", backend="numpy")
        dx = layer.backward(b.asarray(dy, b.dtype))
        found = np.asarray(y), np.asarray(dx), layer.parameters["weight"].grad
        truths = truths or found
        for part, array, truth in zip(("y", "dx", "dweight"), found, truths, strict=True):
            errors[b.slice_products, part] = np.linalg.norm(array - truth) / np.linalg.norm(truth) / UNIT
    for part in ("y", "dx", "dweight"):
        assert errors[3, part] < 0.9 * errors[2, part] and errors[3, part] < 0.5 and errors[2, part] < 1.0, errors
