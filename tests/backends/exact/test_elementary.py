"""Exact elementary functions: the same bits on all libraries, correct rounding, no warnings for special values."""

import hashlib
import warnings

import array_api_compat.numpy
import mpmath
import numpy as np
import pytest
from device_counts import run_late

from xpnn.backends import CaptureError
from xpnn.backends.exact import elementary
from xpnn.backends.exact.elementary import Elementary, Tables
from xpnn.backends.recording.guards import guarded

INF, NAN = float("inf"), float("nan")

FUNCTIONS = {
    "exp": lambda e, x: e.exp(x),
    "expm1": lambda e, x: e.expm1(x),
    "log": lambda e, x: e.log(x),
    "log1p": lambda e, x: e.log1p(x),
    "tanh": lambda e, x: e.tanh(x),
    "sinh": lambda e, x: e.sinh(x),
    "cosh": lambda e, x: e.cosh(x),
    "sqrt": lambda e, x: e.sqrt(x),
    "pow 2": lambda e, x: e.pow(x, 2),
    "pow -3": lambda e, x: e.pow(x, -3),
    "pow 63": lambda e, x: e.pow(x, 63),
    "pow 101": lambda e, x: e.pow(x, 101),
    "pow 0.5": lambda e, x: e.pow(x, 0.5),
    "pow -0.75": lambda e, x: e.pow(x, -0.75),
    "pow 1/3": lambda e, x: e.pow(x, 1 / 3),
}

# The first 16 digits of the SHA-256 of the float64 results on `grid`.
GOLDEN = {
    "exp": "c517992508be2b47",
    "expm1": "5b29f76033b1affb",
    "log": "535f997cbfb9457a",
    "log1p": "846b903819eeeb9c",
    "tanh": "a4264ca76f6ab57d",
    "sinh": "f80bb0659e0a4eca",
    "cosh": "fba567ab37c78ccb",
    "sqrt": "4ea768483df2245b",
    "pow 2": "deb5459d3346ef45",
    "pow -3": "54129e0eb67fda3b",
    "pow 63": "59685536e7d06056",
    "pow 101": "0cf2f413c94b759c",
    "pow 0.5": "4ea768483df2245b",
    "pow -0.75": "6ffa77158270df78",
    "pow 1/3": "bf4dc2ea8c813e79",
}

UNPLEASANT = [0.0, -0.0, 1.0, -1.0, 709.7, 709.9, 800.0, -690.0, -700.0, -800.0, 1e300, -1e300, INF, -INF, NAN]
UNPLEASANT += [2.0**-1000, -(2.0**-1000), 2.0**-1010, 5e-324, -5e-324, 1.7976931348623157e308, 2.0**-1022, 1e-200]


def grid() -> np.ndarray:
    """float64 numbers of all sizes and signs, made from integers only: a Weyl sequence of mantissas and exponents."""
    i = np.arange(1, 40_001, dtype=np.uint64)
    word = i * np.uint64(0x9E3779B97F4A7C15)
    mantissa = 1.0 + (word >> np.uint64(12)).astype(np.float64) * 2.0**-52
    narrow, wide = (word % np.uint64(24)).astype(np.int64) - 16, (word % np.uint64(1900)).astype(np.int64) - 950
    exponent = np.where(i % np.uint64(4) == 0, wide, narrow)
    x = np.ldexp(mantissa, exponent)
    near_one = 1.0 + x * 2.0**-20
    x = np.where((i % np.uint64(5) == 0) & (exponent < 20), near_one, x)
    return np.concat([np.where(i % np.uint64(3) == 0, -x, x), np.asarray(UNPLEASANT)])


def bits(y) -> np.ndarray:
    """The bits of float64 results, with one NaN and one zero."""
    host = np.array(y, dtype=np.float64)
    host = np.where(np.isnan(host), np.nan, host) + 0.0
    return host.view(np.int64)


class Host:
    """Where the same numbers go: a namespace and a device, with and without working in pieces."""

    def __init__(self, name: str, request) -> None:
        self.device = None
        if name.startswith("strict"):
            self.xp = pytest.importorskip("array_api_strict")
            self.device = self.xp.Device("device1" if name == "strict-device1" else "CPU_DEVICE")
        elif name == "torch":
            pytest.importorskip("torch")
            self.xp = pytest.importorskip("array_api_compat.torch")
        elif name == "cupy":
            self.xp = request.getfixturevalue("gpu").xp
        else:
            self.xp = array_api_compat.numpy
        self.elementary = Elementary(self.xp, chunk=1000 if name in ("numpy-chunked", "strict") else 0)

    def put(self, host):
        return self.xp.asarray(np.array(host, dtype=np.float64), device=self.device)

    def get(self, y) -> np.ndarray:
        if self.xp.__name__ == "array_api_compat.torch":
            return y.numpy()
        if self.xp.__name__ == "array_api_compat.cupy":
            return y.get()
        if self.device is not None:
            y = self.xp.asarray(y, device=self.xp.Device("CPU_DEVICE"))
        return np.array(y)

    def compute(self, name: str, host) -> np.ndarray:
        return self.get(FUNCTIONS[name](self.elementary, self.put(host)))


@pytest.fixture(params=["numpy", "numpy-chunked", "strict", "strict-device1", "torch", "cupy"])
def host(request):
    host = Host(request.param, request)
    if not request.param.startswith("strict"):
        yield host
        return
    flags = {"boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
    with host.xp.ArrayAPIStrictFlags(**flags):
        yield host


@pytest.fixture(scope="module")
def exact() -> Elementary:
    return Elementary(array_api_compat.numpy)


def rounded_float32(value: mpmath.mpf) -> np.float32:
    """Correctly rounded: mpmath rounds to 24 bits, which float32 holds in the range the tests stay in."""
    with mpmath.workprec(24):
        return np.float32(float(+value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_the_committed_bits(host, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = host.compute(name, grid())
    assert hashlib.sha256(bits(y).tobytes()).hexdigest()[:16] == GOLDEN[name]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3), (1,)])
def test_shape_and_dtype_are_kept(host, name, shape):
    x = host.put(np.full(shape, 0.75))
    y = FUNCTIONS[name](host.elementary, x)
    assert tuple(y.shape) == shape
    assert y.dtype == host.xp.float64
    assert y.device == x.device


def test_one_object_serves_all_devices_of_its_namespace():
    strict = pytest.importorskip("array_api_strict")
    elementary = Elementary(strict)
    for name in ("CPU_DEVICE", "device1", "CPU_DEVICE"):
        x = strict.ones(3, dtype=strict.float64, device=strict.Device(name))
        assert elementary.log(x).device == elementary.exp(x).device == strict.Device(name)


def test_argument_is_not_written_to(host):
    for function in FUNCTIONS.values():
        x = host.put(UNPLEASANT)
        function(host.elementary, x)
        assert np.array_equal(bits(host.get(x)), bits(UNPLEASANT))


def test_layout_does_not_matter(exact):
    x = grid()[:39_000].reshape(30, 1300)
    for function in FUNCTIONS.values():
        whole = function(exact, x)
        assert np.array_equal(bits(function(exact, np.asfortranarray(x))), bits(whole))
        assert np.array_equal(bits(function(exact, x[::2, ::-3])), bits(whole[::2, ::-3]))


REFERENCES = {
    "exp": (mpmath.exp, [(-80, 80), (-0.1, 0.1)]),
    "expm1": (mpmath.expm1, [(-20, 80), (-0.05, 0.05), (-1e-6, 1e-6), (-1e-12, 1e-12)]),
    "log": (mpmath.log, [(1e-30, 1e-3), (0.5, 2), (0.999, 1.001), (1, 1e30)]),
    "log1p": (mpmath.log1p, [(-0.9999, 3), (-0.01, 0.01), (-1e-6, 1e-6), (-1e-12, 1e-12), (1, 1e30)]),
    "tanh": (mpmath.tanh, [(-9, 9), (-0.05, 0.05), (-1e-6, 1e-6), (-1e-12, 1e-12)]),
    "sinh": (mpmath.sinh, [(-80, 80), (-0.05, 0.05), (-1e-6, 1e-6), (-1e-12, 1e-12)]),
    "cosh": (mpmath.cosh, [(-80, 80), (-0.05, 0.05)]),
    "sqrt": (mpmath.sqrt, [(0, 4), (0, 1e30)]),
    "pow 2": (lambda x: x**2, [(-1e9, 1e9)]),
    "pow -3": (lambda x: 1 / x**3, [(-10, 10)]),
    "pow 63": (lambda x: x**63, [(0.7, 3), (-3, -0.7)]),
    "pow 101": (lambda x: x**101, [(0.7, 2), (-2, -0.7)]),
    "pow -0.75": (lambda x: x ** mpmath.mpf(-0.75), [(1e-20, 1e-3), (0.5, 2), (1, 1e20)]),
    "pow 1/3": (lambda x: x ** mpmath.mpf(1 / 3), [(1e-20, 1e-3), (0.5, 2), (1, 1e20)]),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_float32_is_correctly_rounded_and_float64_within_few_units(exact, rng, name):
    function, ranges = REFERENCES[name]
    bound = {"sqrt": 0.5001, "pow 63": 64.0, "pow -3": 4.0}.get(name, 4.0)
    for low, high in ranges:
        x = rng.uniform(low, high, 400).astype(np.float32).astype(np.float64)
        y = FUNCTIONS[name](exact, x)
        with mpmath.workprec(140):
            true = [function(mpmath.mpf(float(value))) for value in x]
            units = [abs(mpmath.mpf(float(a)) - b) / np.spacing(abs(float(b))) for a, b in zip(y, true, strict=True)]
            assert max(units) <= bound
            assert [np.float32(v) for v in y] == [rounded_float32(v) for v in true]


def test_square_root_of_a_square_is_exact(exact, rng):
    root = rng.integers(1, 2**26, 20_000).astype(np.float64)
    assert np.array_equal(exact.sqrt(root * root), root)
    scaled = np.ldexp(root, rng.integers(-400, 400, root.size))
    assert np.array_equal(exact.sqrt(scaled * scaled), scaled)


def test_square_root_is_correctly_rounded_on_float32(exact, rng):
    x = rng.integers(0x00800000, 0x7F800000, 500_000, dtype=np.uint32).view(np.float32).astype(np.float64)
    assert np.array_equal(exact.sqrt(x), np.sqrt(x))


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exp", [0, -INF, INF, 800, -800, -700, NAN], [1, 0, INF, INF, 0, 0, NAN]),
        ("expm1", [0, -INF, INF, 800, -800, 2.0**-900, NAN], [0, -1, INF, INF, -1, 2.0**-900, NAN]),
        ("log", [1, 0, -0.0, -1, -INF, INF, NAN], [0, -INF, -INF, NAN, NAN, INF, NAN]),
        ("log1p", [0, -1, -2, -INF, INF, 2.0**-900, NAN], [0, -INF, NAN, NAN, INF, 2.0**-900, NAN]),
        ("tanh", [0, -INF, INF, 800, -800, 2.0**-900, NAN], [0, -1, 1, 1, -1, 2.0**-900, NAN]),
        ("sinh", [0, -INF, INF, 800, -800, -(2.0**-900), NAN], [0, -INF, INF, INF, -INF, -(2.0**-900), NAN]),
        ("cosh", [0, -INF, INF, 800, -800, 2.0**-900, NAN], [1, INF, INF, INF, INF, 1, NAN]),
        ("sqrt", [0, -0.0, 4, -1, -INF, INF, NAN], [0, 0, 2, NAN, NAN, INF, NAN]),
        ("pow 2", [0, -3, INF, -INF, 1e200, 1e-200, NAN], [0, 9, INF, INF, INF, 0, NAN]),
        ("pow -3", [0, -2, INF, -INF, 1e200, 1e-200, NAN], [INF, -0.125, 0, 0, 0, INF, NAN]),
        ("pow 101", [0, -1, INF, -INF, 1e200, 1e-200, NAN], [0, -1, INF, -INF, INF, 0, NAN]),
        ("pow 0.5", [0, 4, INF, -1, 1, 0.25, NAN], [0, 2, INF, NAN, 1, 0.5, NAN]),
        ("pow -0.75", [0, 16, INF, -1, 1, 2.0**-1005, NAN], [INF, 0.125, 0, NAN, 1, INF, NAN]),
    ],
)
def test_special_values_raise_no_warning(host, name, x, y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(bits(host.compute(name, x)), bits(y))


@pytest.mark.parametrize("p", [0, 0.0, 1, 2.0, -1.0, 64, -64, 65, -65, 2**70, 10**400, 1e300, -1e300, INF, -INF, NAN])
def test_power_agrees_with_ieee_at_the_edges(exact, p):
    x = np.asarray([0.0, 1.0, -1.0, 0.5, 2.0, -2.0, INF, -INF, NAN])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = exact.pow(x, p)
    as_float = float(min(p, 2**1000)) if isinstance(p, int) else p
    with np.errstate(all="ignore"):
        assert np.array_equal(bits(y), bits(np.power(x, as_float)))


def test_exponent_scale_is_strictly_above_on_every_binade(host):
    exponents = np.arange(-1000, 1023)
    powers = np.ldexp(1.0, exponents)
    x = np.concat([powers, np.nextafter(powers, INF), np.nextafter(np.ldexp(1.0, exponents + 1), 0.0)])
    scale = host.get(host.elementary.exponent_scale(host.put(x)))
    assert np.array_equal(scale, np.tile(2.0 * powers, 3))


def test_exponent_scale_outside_the_binades(host):
    x = [0.0, -0.0, 5e-324, np.nextafter(2.0**-1000, 0.0), 2.0**1023, 1.7976931348623157e308, INF, NAN]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scale = host.get(host.elementary.exponent_scale(host.put(x)))
    assert np.array_equal(bits(scale), bits([1, 1, 1, 1, INF, INF, NAN, NAN]))


def test_flushing_subnormals_changes_no_bit(request):
    torch = pytest.importorskip("torch")
    host = Host("torch", request)
    x = host.put(np.concat([grid()[-5000:], np.ldexp(grid()[:5000], -960)]))  # too few for a second thread to join in
    kept = {name: bits(host.get(function(host.elementary, x))) for name, function in FUNCTIONS.items()}
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU does not flush subnormals")
    try:
        flushed = {name: function(host.elementary, x) for name, function in FUNCTIONS.items()}
    finally:
        torch.set_flush_denormal(False)
    assert [name for name in FUNCTIONS if not np.array_equal(bits(host.get(flushed[name])), kept[name])] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_result_is_subnormal(exact, name):
    y = FUNCTIONS[name](exact, grid())
    with np.errstate(invalid="ignore"):
        assert not np.any((y != 0) & (np.abs(y) < 2.0**-1022))


class Place:
    """A device as CuPy's are: compared, and without a hash."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return self.number == other.number

    __hash__ = None


def test_a_device_needs_no_hash_and_has_one_set_of_tables(monkeypatch):
    here, made = [0], []
    monkeypatch.setattr(elementary, "device", lambda x: Place(here[0]))
    monkeypatch.setattr(elementary, "Tables", lambda xp, where: made.append(where.number) or Tables(xp, None))
    functions = Elementary(array_api_compat.numpy)
    for here[0] in (0, 0, 1, 0, 1):
        assert functions.exp(np.zeros(2)).tolist() == [1.0, 1.0]
    assert made == [0, 1]


def test_no_recording_copies_tables_to_the_device():
    with guarded(()), pytest.raises(CaptureError, match="tables of elementary functions"):
        Elementary(array_api_compat.numpy).exp(np.zeros(2))


STREAMS = """
import array_api_compat.cupy as xp, cupy, numpy as np
from xpnn.backends.exact.elementary import Elementary
functions, x = Elementary(xp), np.linspace(0.5, 2.0, 7)
first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
with second:
    here = cupy.array(x)
    second.synchronize()
with first:
    functions.exp(cupy.ones(3))
with second:
    found = [function(here) for function in (functions.exp, functions.log, functions.expm1)]
    second.synchronize()
assert all(np.allclose(y.get(), f(x)) for y, f in zip(found, (np.exp, np.log, np.expm1), strict=True)), found
"""


def test_tables_made_on_one_stream_can_be_read_on_all():
    run_late(STREAMS)
