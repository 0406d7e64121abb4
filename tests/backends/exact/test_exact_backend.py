"""Exact numerics as a setting: where it can be given, what it refuses, and the devices that it requires."""

import copy
import pickle

import numpy as np
import pytest
from chaos import NAMESPACE, Chaos, ChaosBackend, chaos_backend

import xpnn as nn
from xpnn.backends import backend_of, lookup, operations_of, registry
from xpnn.backends.exact import elementary, probe
from xpnn.backends.exact.namespace import ExactNamespace
from xpnn.backends.exact.operations import ExactOperations

VARIABLE = "XPNN_NUMERICS"


def test_an_exact_backend_computes_in_the_exact_namespace(at, exact):
    assert (exact.spec, exact.numerics, exact.dtype_name, exact.slice_products) == (
        at.backend.spec,
        "exact",
        "float32",
        2,
    )
    assert isinstance(exact.xp, ExactNamespace) and exact.xp.raw is at.backend.xp
    assert isinstance(operations_of(exact.xp), ExactOperations)
    assert type(operations_of(exact.xp).raw) is at.backend.operations


def test_each_setting_has_one_backend(at, exact):
    assert nn.get_backend(at.backend.spec, numerics="exact") is exact
    assert nn.get_backend(exact) is exact
    assert nn.get_backend(exact, numerics="fast") is at.backend
    three = nn.get_backend(exact, slice_products=3)
    assert three is not exact and three != exact and three.xp.contractions.slice_products == 3
    assert nn.get_backend(three, slice_products=2) is exact


def test_exact_numerics_accepts_direct_algorithms_as_it_has_no_others(exact):
    direct = nn.get_backend(exact, algorithms="direct")
    assert direct.algorithms == "direct" and direct.numerics == "exact" and direct != exact
    x = np.random.default_rng(5).standard_normal((2, 32, 8, 8)).astype(np.float32)
    found = []
    for b in (exact, direct):
        layer = nn.Conv2d(32, 32, 3, padding=1, backend=b, seed=1)
        y = layer(b.asarray(x))
        found.append((b.to_numpy(y).tobytes(), b.to_numpy(layer.backward(y)).tobytes()))
    assert found[0] == found[1]


def test_arrays_belong_to_both_numerics_and_the_backend_is_found_with_settings(at, exact):
    x = exact.asarray([1.0, 2.0])
    assert at.backend.owns(x) and exact.owns(x)
    assert backend_of(x) is at.backend
    assert backend_of(x, like=exact) is exact


def test_an_exact_backend_has_its_tables_before_the_first_function(exact, fresh_registry, monkeypatch):
    opened = nn.get_backend(exact.spec, numerics="exact")
    assert opened is not exact
    monkeypatch.setattr(elementary, "Tables", None)
    y = opened.xp.exp(opened.asarray([0.25, 1.0]))
    assert opened.to_numpy(y).tolist() == np.exp([0.25, 1.0]).astype("float32").tolist()


def test_repr_names_the_settings(exact):
    assert repr(exact).startswith(f"{type(exact).__name__}(spec={exact.spec!r}, dtype_name='float32', numerics='exact'")
    assert "slice_products=3" in repr(nn.get_backend(exact, slice_products=3))


def test_copies_and_pickles_of_a_backend_are_that_backend(exact):
    three = nn.get_backend(exact, slice_products=3)
    for b in (exact, three):
        assert pickle.loads(pickle.dumps(b)) is b
        assert copy.copy(b) is b and copy.deepcopy(b) is b


def test_copies_and_pickles_of_a_model_stay_exact(exact):
    model = nn.Sequential(nn.Dense(3, 4), nn.Tanh(), backend=exact, seed=2)
    x = exact.asarray(np.ones((2, 3), np.float32))
    y = exact.to_numpy(model(x)).tobytes()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.backend is exact and exact.to_numpy(again(x)).tobytes() == y


def test_the_environment_chooses_numerics_for_what_names_none(monkeypatch):
    monkeypatch.setenv(VARIABLE, "exact")
    assert nn.get_backend().numerics == nn.get_backend("strict").numerics == "exact"
    assert nn.get_backend(np).numerics == "exact"
    assert nn.Dense(2, 2).backend.numerics == "exact"
    assert backend_of(np.ones(2)).numerics == "exact"
    monkeypatch.setenv(VARIABLE, "")
    assert nn.get_backend().numerics == "fast"


def test_an_argument_and_a_backend_come_before_the_environment(monkeypatch):
    fast, exact = nn.get_backend("numpy", numerics="fast"), nn.get_backend("numpy", numerics="exact")
    monkeypatch.setenv(VARIABLE, "exact")
    assert nn.get_backend("numpy", numerics="fast") is nn.get_backend(fast) is fast
    assert nn.get_backend("numpy", "float64", "fast").dtype_name == "float64"
    assert nn.Dense(2, 2, numerics="fast").backend is fast
    monkeypatch.setenv(VARIABLE, "fast")
    assert nn.get_backend("numpy", numerics="exact") is nn.get_backend(exact) is exact


def test_an_invalid_variable_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv(VARIABLE, "precise")
    with pytest.raises(ValueError, match=r"^XPNN_NUMERICS must be 'fast' or 'exact', got 'precise'$"):
        nn.get_backend("numpy")


@pytest.mark.parametrize("slice_products", [0, 4, "2", 2.5])
def test_slice_products_are_1_2_or_3(slice_products):
    with pytest.raises(ValueError, match=r"slice_products must be 1, 2 or 3, got"):
        nn.get_backend("numpy", numerics="exact", slice_products=slice_products)


def test_float64_and_tf32_are_refused():
    with pytest.raises(
        ValueError,
        match="dtype must be float32 with numerics='exact', which computes in float64 and stores float32; got float64",
    ):
        nn.get_backend("numpy", "float64", "exact")
    with pytest.raises(
        ValueError,
        match="precision must be 'float32' with numerics='exact', which multiplies in float64; got 'tf32'",
    ):
        nn.get_backend("numpy", numerics="exact", precision="tf32")
    with pytest.raises(ValueError, match="dtype must be float32 with numerics='exact'"):
        nn.Dense(2, 2, numerics="exact", dtype="float64")


def test_tf32_is_refused_before_a_device_is_looked_for(fake_cupy):
    with pytest.raises(
        ValueError, match="precision must be 'float32' with numerics='exact', which multiplies in float64; got 'tf32'"
    ):
        nn.get_backend("cupy", numerics="exact", precision="tf32")


def test_float64_arrays_are_refused_by_layers(exact):
    layer, wide = nn.Dense(2, 2, backend=exact), exact.asarray(np.ones((2, 2)))
    words = r"is float64; numerics='exact' stores float32: convert it with asarray\(x, 'float32'\)"
    with pytest.raises(TypeError, match=rf"^Dense\(2, 2\): the input {words}$"):
        layer(wide)
    layer(exact.asarray(wide, "float32"))
    with pytest.raises(TypeError, match=f"the upstream gradient {words}"):
        layer.backward(wide)
    for build in (nn.ReLU, nn.Flatten, nn.Identity, lambda **o: nn.Residual(nn.ReLU(), **o)):
        with pytest.raises(TypeError, match=f"the input {words}"):
            build(backend=exact)(wide)


def test_float64_arrays_are_refused_by_losses(exact):
    narrow, wide = (exact.asarray(np.full((2, 2), 0.5, dtype)) for dtype in ("float32", "float64"))
    loss = nn.MSE(backend=exact)
    with pytest.raises(TypeError, match="prediction is float64; numerics='exact' stores float32"):
        loss(wide, wide)
    with pytest.raises(TypeError, match="target is float64; numerics='exact' stores float32"):
        loss(narrow, wide)
    loss(narrow, narrow)
    with pytest.raises(TypeError, match="mixed dtypes"):
        loss.backward(exact.xp.ones((), dtype=exact.xp.float64, device=exact.device))


def test_numerics_of_a_container_reach_its_children_and_own_numerics_come_first():
    model = nn.Sequential(nn.Dense(3, 3), nn.Sequential(nn.Tanh()), nn.Dense(3, 2, numerics="fast"), numerics="exact")
    kinds = [layer.backend.numerics for _, layer in model.named_layers()]
    assert kinds == ["exact", "exact", "exact", "exact", "fast"]
    given = nn.Dense(3, 2, backend=nn.get_backend("numpy", numerics="exact"))
    assert nn.Sequential(given, numerics="fast") and given.backend.numerics == "exact"


def test_use_backend_is_for_what_names_no_numerics():
    with nn.use_backend("numpy", numerics="exact", slice_products=3) as b:
        assert (b.numerics, b.slice_products) == ("exact", 3)
        assert nn.Dense(2, 2).backend is b is nn.get_backend()
        assert nn.Dense(2, 2, numerics="fast").backend.numerics == "fast"
    assert nn.get_backend().numerics == "fast"


def test_a_move_by_name_keeps_numerics_and_a_backend_brings_its_own():
    three = nn.get_backend("numpy", numerics="exact", slice_products=3)
    for made in (nn.Dense(2, 2, backend=three), nn.CrossEntropy(backend=three)):
        there = made.to("strict")._backend
        assert (there.spec, there.numerics, there.slice_products) == ("strict", "exact", 3)
        assert made.to(nn.get_backend("numpy"))._backend.numerics == "fast"


def test_a_loss_without_a_backend_follows_use_backend_and_then_the_environment(monkeypatch):
    b = nn.get_backend("numpy", numerics="exact")
    loss, x, y = nn.CrossEntropy(), np.full((3, 2), 0.3, np.float32), np.asarray([0, 1, 1])

    def numerics():
        loss(x, y)
        return loss._saved[0].numerics

    assert numerics() == "fast"
    with nn.use_backend(b):
        assert numerics() == "exact"
    with nn.use_backend("strict", numerics="exact"):
        assert numerics() == "fast"
    monkeypatch.setenv(VARIABLE, "exact")
    assert numerics() == "exact"


class Machine:
    """Chaos whose functions a test replaces, opened as an exact backend that nothing is known of yet."""

    def __init__(self, monkeypatch):
        self._patch = monkeypatch
        monkeypatch.setattr(registry, "_opened", {})
        monkeypatch.setattr(lookup, "_operations", {})

    def replace(self, name, function):
        """Let ``function(result, *operands)`` give what the machine makes of the right float64 result."""
        right = Chaos._call

        def call(xp, called, /, *args, **options):
            result = right(xp, called, *args, **options)
            if called == name:
                operands = [getattr(x, "_data", x) for x in args]
                result._data[...] = function(result._data.copy(), *operands)
            return result

        self._patch.setattr(Chaos, "_call", call)

    def open(self):
        with chaos_backend(numerics="exact") as b:
            return b


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def keeping(bits):
    """Numbers rounded to that many bits."""

    def function(y, *_):
        mantissa, exponent = np.frexp(y)
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)

    return function


def emulated(bits):
    """A product of two matrices from 7-bit slices of the operands, without those beyond that many bits together."""

    def function(y, a, b):
        def cut(x, axis):
            scale = np.exp2(np.floor(np.log2(np.abs(x).max(axis=axis, keepdims=True).clip(1e-300))) + 1)
            rest, slices = x / scale, []
            for i in range(1, bits // 7 + 1):
                slices.append(np.trunc(rest * 2.0 ** (7 * i)) / 2.0 ** (7 * i))
                rest = rest - slices[-1]
            return slices, scale

        (left, s), (right, t) = cut(a, -1), cut(b, -2)
        count = bits // 7
        pairs = ((i, j) for i in range(count) for j in range(count) if i + j < count)
        return sum(left[i] @ right[j] for i, j in pairs) * s * t

    return function


def off_by_an_ulp(y, *operands):
    """Some quotients of arrays next to the right ones."""
    return np.where(np.arange(y.size).reshape(y.shape) % 5 == 3, np.nextafter(y, np.inf), y)


def halves_away(y, x):
    return np.trunc(x + np.copysign(0.5, x))


def truncated(y, x, dtype):
    if dtype != np.float32 or x.dtype != np.float64:
        return y
    return np.where(np.abs(y.astype(np.float64)) > np.abs(x), np.nextafter(y, np.float32(0)), y)


def halves_up(y, x, dtype):
    if dtype != np.float32 or x.dtype != np.float64:
        return y
    other = np.nextafter(y, np.copysign(np.float32(np.inf), x.astype(np.float32)))
    tie = (x - y.astype(np.float64)) == (other.astype(np.float64) - x)
    return np.where(tie, other, y)


def through_float32(y, *_):
    return y.astype(np.float32).astype(y.dtype)


FAULTS = {
    "a product that keeps 42 bits": ("matmul", keeping(42), "matrix product"),
    "a product that keeps 52 bits": ("matmul", keeping(52), "matrix product"),
    "a product emulated with 42 bits": ("matmul", emulated(42), "matrix product of 26-bit numbers"),
    "a product in float32": ("matmul", through_float32, "matrix product"),
    "a sum that keeps 50 bits": ("sum", keeping(50), "float64 sum of whole numbers"),
    "a division off by an ulp": ("divide", off_by_an_ulp, "correctly rounded float64 division"),
    "a division by a reciprocal": ("divide", lambda y, a, b: a * (1.0 / b), "correctly rounded float64 division"),
    "multiplication in float32": ("multiply", through_float32, "correctly rounded float64 products"),
    "addition in float32": ("add", through_float32, "float64"),
    "halves away from zero": ("round", halves_away, "rounding of halves to even"),
    "a truncating cast": ("astype", truncated, "casts to float32 that round to even"),
    "a cast that rounds halves away": ("astype", halves_up, "casts to float32 that round to even"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_machine_that_does_not_keep_what_is_relied_on_is_refused_with_the_reason(machine, fault):
    name, function, reason = FAULTS[fault]
    machine.replace(name, function)
    with pytest.raises(nn.BackendUnavailable) as caught:
        machine.open()
    assert reason in caught.value.cause and caught.value.cause.startswith("numerics='exact' relies on ")
    assert "use numerics='fast'" in caught.value.cure
    with chaos_backend(numerics="fast") as b:
        assert b.numerics == "fast"


@pytest.mark.parametrize("bits", [56, 63])
def test_a_product_emulated_with_enough_bits_is_accepted(machine, bits):
    machine.replace("matmul", emulated(bits))
    assert machine.open().numerics == "exact"


@pytest.mark.parametrize("seed", range(10))
def test_all_that_the_standard_leaves_open_is_accepted(machine, seed):
    with chaos_backend(seed, numerics="exact") as b:
        assert b.numerics == "exact"


def test_a_machine_on_which_the_trial_fails_is_unavailable(machine):
    def broken(*_):
        raise RuntimeError("no kernel image for this device")

    machine.replace("matmul", broken)
    with pytest.raises(nn.BackendUnavailable, match="no kernel image for this device"):
        machine.open()


def test_the_trial_runs_once_and_moves_one_array_each_way(machine, monkeypatch):
    trials, moved, require = [], [], probe.require_exact

    def counted(b):
        before = b.transfers
        require(b)
        trials.append(b.spec)
        moved.append([b.transfers[direction][0] - before[direction][0] for direction in ("to_device", "to_host")])

    monkeypatch.setattr(probe, "require_exact", counted)
    with chaos_backend() as fast:
        assert trials == []
        b = nn.get_backend(fast, numerics="exact")
        assert nn.get_backend("chaos", numerics="exact") is nn.Dense(2, 2, backend=b).backend is b
        assert trials == ["chaos"] and moved == [[1, 1]]
        assert b.transfers == {"to_device": (0, 0), "to_host": (0, 0)}
        assert isinstance(b, ChaosBackend) and b.xp.raw is NAMESPACE
