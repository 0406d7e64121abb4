"""Several hundred operations of CuPy on random numbers, compared with NumPy's. They hold on a GPU too."""

import numpy as np
import pytest

REAL = ("float32", "float64")
INTEGERS = ("int8", "int32", "int64", "uint8", "uint32")
ALL = ("bool", *INTEGERS, "float16", *REAL, "complex64", "complex128")
# One of each size and kind: a kernel for each takes time to compile.
SIZES = ("int8", "int64", "float16", "float64", "complex64", "bool")
# Relative to the largest result: what a few roundings of the format make, and elementary functions of 2 ULP.
TOLERANCES = {"float16": 4e-3, "float32": 4e-6, "complex64": 4e-6, "float64": 2e-14, "complex128": 2e-14}

UNARY = (
    *("absolute", "arctan", "arcsinh", "cbrt", "ceil", "cos", "cosh", "exp", "exp2", "expm1", "fabs", "floor"),
    *("isfinite", "isinf", "isnan", "negative", "reciprocal", "rint", "sign", "signbit", "sin", "sinh", "square"),
    *("tan", "tanh", "trunc"),
)
OF_POSITIVE = ("log", "log10", "log1p", "log2", "sqrt")
OF_SMALL = ("arccos", "arcsin", "arctanh")
BINARY = (
    *("add", "arctan2", "copysign", "divide", "equal", "floor_divide", "fmax", "fmin", "fmod", "greater", "hypot"),
    *("less_equal", "logaddexp", "maximum", "minimum", "multiply", "nextafter", "remainder", "subtract"),
)


@pytest.fixture
def cp(gpu):
    import cupy

    return cupy


@pytest.fixture
def numbers():
    """Random numbers of a shape and dtype."""
    rng = np.random.default_rng(7)

    def draw(shape, dtype, low=-50):
        kind = np.dtype(dtype).kind
        if kind == "b":
            return rng.random(shape) < 0.5
        if kind in "iu":
            return rng.integers(0 if kind == "u" else low, 50, shape).astype(dtype)
        values = rng.standard_normal(shape)
        return (values + 1j * rng.standard_normal(shape) if kind == "c" else values).astype(dtype)

    return draw


def compare(cp, operation, *arrays, exact=False, tolerance=None):
    """Assert that an operation of a namespace and arrays gives the same shape, dtype and values on CuPy and NumPy."""
    with np.errstate(all="ignore"):
        wanted = operation(np, *arrays)
    found = operation(cp, *map(cp.asarray, arrays))
    for got, want in zip(*((each if isinstance(each, tuple) else (each,)) for each in (found, wanted)), strict=True):
        got, want = cp.asnumpy(got), np.asarray(want)
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        if exact or want.dtype.kind in "biu":
            np.testing.assert_array_equal(got, want)
        else:
            bound = tolerance or TOLERANCES[want.dtype.name]
            scale = np.abs(want[np.isfinite(want)]).max(initial=1)
            np.testing.assert_allclose(got, want, rtol=bound, atol=bound * scale)


def apply(name, **options):
    return lambda xp, *arrays: getattr(xp, name)(*arrays, **options)


@pytest.mark.parametrize("dtype", REAL)
def test_functions_of_one_number(cp, numbers, dtype):
    x = numbers((5, 7), dtype)
    for name in UNARY:
        compare(cp, apply(name), x)
    for name in OF_POSITIVE:
        compare(cp, apply(name), np.abs(x) + np.asarray(0.1, dtype))
    for name in OF_SMALL:
        compare(cp, apply(name), np.clip(x / 4, -0.9, 0.9))


@pytest.mark.parametrize("dtype", REAL)
def test_functions_of_two_numbers_broadcast(cp, numbers, dtype):
    x, row = numbers((5, 7), dtype), numbers((7,), dtype)
    for name in BINARY:
        compare(cp, apply(name), x, row)
    compare(cp, apply("power"), np.abs(x), numbers((5, 1), dtype))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_functions_of_complex_numbers(cp, numbers, dtype):
    z = numbers((5, 3), dtype)
    for name in ("abs", "angle", "conj", "exp", "sqrt", "real", "imag", "sin", "log"):
        compare(cp, apply(name), z)
    compare(cp, lambda xp, a: a * a[::-1] + a / (a + 2), z)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_functions_of_integers(cp, numbers, dtype):
    x = numbers((6, 5), dtype)
    compare(cp, lambda xp, a: a * 3 + a - 1, x)
    compare(cp, lambda xp, a: (a << 1) ^ (a & 3) | ~a, x)
    compare(cp, lambda xp, a: (a // 7, a % 7), x)
    compare(cp, lambda xp, a: xp.bincount(xp.abs(a).astype("int64").ravel()), x)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("shape", [(1,), (5, 7), (40, 300), (2, 1, 700)])
def test_reductions_of_all_and_along_each_axis(cp, numbers, dtype, shape):
    x = numbers(shape, dtype)
    for axis in (None, *range(x.ndim), *([(0, x.ndim - 1)] if x.ndim > 2 else [])):
        for name in ("sum", "max", "min", "prod", "mean", "var"):
            values = 1 + x / 100 if name == "prod" else x
            compare(cp, apply(name, axis=axis), values, tolerance=3e-5 if dtype == "float32" else 1e-12)
        if not isinstance(axis, tuple):
            compare(cp, apply("argmax", axis=axis), x)
            compare(cp, apply("argmin", axis=axis), x)


@pytest.mark.parametrize("dtype", ALL)
def test_reductions_of_every_dtype(cp, numbers, dtype):
    x = numbers((6, 50), dtype)
    compare(cp, apply("any", axis=0), x)
    compare(cp, apply("all", axis=1), x)
    compare(cp, apply("count_nonzero"), x)
    compare(cp, apply("sum", axis=1), x, tolerance=1e-2 if dtype == "float16" else None)
    if np.dtype(dtype).kind != "c":
        compare(cp, apply("max", axis=1), x, exact=True)
        compare(cp, apply("argmax", axis=1), x)


def test_sums_of_many_numbers_are_added_in_parts(cp, numbers):
    x = 1 + numbers((300_000,), "float32")
    assert abs(float(cp.asarray(x).sum()) / x.sum(dtype="float64") - 1) < 1e-6
    compare(cp, apply("sum"), x.astype("float64"))


@pytest.mark.parametrize("dtype", REAL)
def test_running_sums_and_products(cp, numbers, dtype):
    x, bound = numbers((5, 70), dtype), 1e-4 if dtype == "float32" else 1e-12
    for axis in (None, 0, 1):
        compare(cp, apply("cumsum", axis=axis), x, tolerance=bound)
        compare(cp, apply("cumprod", axis=axis), 1 + x / 100, tolerance=bound)
    compare(cp, apply("cumsum"), numbers((5000,), dtype), tolerance=bound)


@pytest.mark.parametrize("dtype", [*REAL, "float16", "complex64"])
def test_extremes_and_sorts_put_nan_where_numpy_puts_it(cp, numbers, dtype):
    x = numbers((4, 7), dtype)
    x[1, 2] = x[3, 0] = np.nan
    x[3, 4] = np.inf
    compare(cp, apply("sort", axis=1), x, exact=True)
    compare(cp, apply("argsort", axis=1, kind="stable"), x)
    if dtype != "complex64":
        for name in ("max", "min", "argmax", "argmin", "nanmax"):
            compare(cp, apply(name, axis=1), x, exact=True)
        for name in ("max", "min", "argmax", "argmin"):
            compare(cp, apply(name), x, exact=True)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 7), (7, 3)),
        ((4, 5, 7), (7, 3)),
        ((4, 5, 7), (4, 7, 3)),
        ((2, 1, 5, 7), (3, 7, 2)),
        ((7,), (7, 3)),
        ((5, 7), (7,)),
        ((7,), (7,)),
        ((64, 100), (100, 33)),
        ((5, 0), (0, 3)),
        ((1, 1), (1, 1)),
        ((17, 33), (33, 5)),
    ],
)
def test_products(cp, numbers, dtype, left, right):
    compare(cp, apply("matmul"), numbers(left, dtype), numbers(right, dtype), tolerance=1e-5)


@pytest.mark.parametrize("dtype", ["float16", *REAL, "complex64", "complex128", "int32"])
def test_products_of_views(cp, numbers, dtype):
    bound = 1e-2 if dtype == "float16" else 1e-5
    compare(cp, lambda xp, a, b: xp.matmul(a.T, b.T), numbers((7, 5), dtype), numbers((3, 7), dtype), tolerance=bound)
    compare(cp, lambda xp, a: xp.matmul(a[::2, ::3], a[::-3, 1::3].T), numbers((10, 21), dtype), tolerance=bound)
    compare(
        *(cp, lambda xp, a, b: xp.matmul(a.transpose(1, 0, 2), b[..., ::2])),
        *(numbers((5, 3, 7), dtype), numbers((3, 7, 8), dtype)),
        tolerance=bound,
    )


@pytest.mark.parametrize("dtype", REAL)
def test_other_products(cp, numbers, dtype):
    a, b = numbers((3, 4, 5), dtype), numbers((4, 5, 6), dtype)
    compare(cp, apply("tensordot", axes=([1, 2], [0, 1])), a, b, tolerance=1e-5)
    compare(cp, lambda xp, x: xp.einsum("nij,nkj->nik", x, x), a, tolerance=1e-5)
    compare(cp, apply("dot"), numbers((50,), dtype), numbers((50,), dtype), tolerance=1e-5)
    compare(cp, apply("outer"), numbers((5,), dtype), numbers((6,), dtype))
    compare(cp, lambda xp, x: xp.linalg.norm(x), a, tolerance=1e-5)


@pytest.mark.parametrize("dtype", SIZES)
def test_values_move_unchanged(cp, numbers, dtype):
    x = numbers((6, 5), dtype)
    i = np.array([[0, 3], [5, 3]])
    for operation in (
        lambda xp, a: a[::-2, 1::2].copy(),
        lambda xp, a: xp.ascontiguousarray(a.T),
        lambda xp, a: xp.concatenate([a, a[:2], a], axis=0),
        lambda xp, a: xp.stack([a, a[::-1]], axis=2),
        lambda xp, a: xp.pad(a, ((1, 2), (0, 3))),
        lambda xp, a: xp.roll(a, 2, axis=1),
        lambda xp, a: xp.repeat(a, 3, axis=1),
        lambda xp, a: xp.tile(a, (2, 3)),
        lambda xp, a: xp.where(a > a[::-1] if a.dtype.kind != "c" else a != 0, a, a[::-1]),
        lambda xp, a: a[a != 0],
        lambda xp, a: xp.nonzero(a),
    ):
        compare(cp, operation, x, exact=True)
    compare(cp, lambda xp, a, i: a[i, 2], x, i, exact=True)
    compare(cp, lambda xp, a, i: xp.take(a, i, axis=0), x, i, exact=True)


@pytest.mark.parametrize("dtype", SIZES)
def test_conversions(cp, numbers, dtype):
    for to in ALL:
        # NumPy warns of a lost imaginary part, and negative numbers have no one value as unsigned ones.
        if np.dtype(dtype).kind != "c" or np.dtype(to).kind == "c":
            x = numbers((6, 5), dtype, low=0)
            compare(cp, lambda xp, a, to=to: a.astype(to), np.abs(x) if to[0] == "u" else x, exact=True)


def test_assignments(cp, numbers):
    def assign(xp, a, i):
        a = a.copy()
        a[i] = 1
        a[:, 2] = a[:, 1]
        a[a < -1] = 0
        return a

    compare(cp, assign, numbers((6, 5), "float32"), np.array([4, 0]), exact=True)


def test_scattered_sums(cp, numbers):
    at, values = np.random.default_rng(3).integers(0, 6, 40), numbers((40,), "float64")
    wanted, found = np.zeros(6), cp.zeros(6)
    np.add.at(wanted, at, values)
    cp.add.at(found, cp.asarray(at), cp.asarray(values))
    np.testing.assert_allclose(found.get(), wanted, rtol=1e-13)


@pytest.mark.parametrize("dtype", REAL)
def test_sorted_and_counted_values(cp, numbers, dtype):
    x = numbers((5, 70), dtype)
    compare(cp, apply("unique"), np.round(x))
    compare(cp, apply("searchsorted"), np.sort(x.ravel()), x[0])
    compare(cp, lambda xp, a: xp.percentile(a, [10, 50, 90]), x, tolerance=1e-5)
    compare(cp, lambda xp, a: xp.histogram(a, 5)[0], x)
    compare(cp, lambda xp, a: xp.histogram(a, xp.asarray([-1.0, 0.0, 0.5, 2.0]))[0], x)
    compare(cp, lambda xp, a: xp.lexsort(xp.stack([a[0], xp.round(a[1])])), x)
    compare(cp, apply("clip", a_min=-0.5, a_max=0.5), x, exact=True)
