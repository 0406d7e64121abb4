"""The namespace of the CuPy backend replaces array_api_compat.cupy, with the same results."""

import copy
import pickle

import array_api_compat
import numpy as np
import pytest

import xpnn as nn
from xpnn.backends import operations_of
from xpnn.backends.contractions.tensordot import tensordot
from xpnn.layers.core.array_checks import namespace


@pytest.fixture
def compat(gpu):
    return pytest.importorskip("array_api_compat.cupy")


def test_it_has_the_name_of_cupys_namespace(gpu, compat):
    assert gpu.xp.__name__ == compat.__name__ and dir(gpu.xp) == dir(compat)
    assert nn.get_backend(gpu.xp) is gpu
    assert nn.get_backend(compat) is gpu
    x = gpu.asarray([1.0])
    assert array_api_compat.array_namespace(x) is compat
    assert gpu.xp.sum is compat.sum and gpu.xp.__array_api_version__ == compat.__array_api_version__


def test_there_is_one_for_each_precision(gpu):
    rounded = nn.get_backend(gpu, precision="tf32").xp
    assert rounded is not gpu.xp and nn.get_backend(gpu, precision="tf32", dtype="float64").xp is rounded
    assert nn.get_backend(gpu, "float64").xp is gpu.xp


def test_both_namespaces_have_the_same_operations(gpu, compat):
    assert operations_of(compat) is operations_of(gpu.xp) and operations_of(gpu.xp).xp is gpu.xp
    rounded = nn.get_backend(gpu, precision="tf32").xp
    assert operations_of(rounded) is not operations_of(gpu.xp)


def test_functions_that_are_given_no_namespace_use_it(gpu):
    assert namespace(None, input=gpu.asarray([1.0])) is gpu.xp


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda xp: pickle.loads(pickle.dumps(xp))])
def test_copies_and_pickles_are_the_same_one(gpu, again):
    for backend in (gpu, nn.get_backend(gpu, precision="tf32")):
        assert again(backend.xp) is backend.xp and again(backend) is backend


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize(
    ("shapes", "axis"), [(((3,), (3,)), -1), (((2, 3), (3,)), -1), (((4, 1, 3), (2, 3)), -1), (((3, 2), (3, 2)), 0)]
)
def test_vecdot(gpu, shapes, axis, dtype):
    a, b = (np.random.default_rng(i).integers(-9, 9, shape).astype(dtype) for i, shape in enumerate(shapes))
    wanted = np.sum(a * b, axis=axis)
    for xp in (gpu.xp, gpu.xp.linalg):
        found = xp.vecdot(gpu.asarray(a), gpu.asarray(b), axis=axis)
        assert found.dtype == dtype and np.array_equal(gpu.to_numpy(found), wanted)


@pytest.mark.parametrize("axes", [0, 1, 2, ((1, 0), (0, 1)), ((-1,), (1,))])
def test_tensordot(gpu, axes):
    a, b = (np.random.default_rng(i).integers(-9, 9, (4, 4)).astype("f") for i in range(2))
    for xp in (gpu.xp, gpu.xp.linalg):
        assert np.array_equal(
            gpu.to_numpy(xp.tensordot(gpu.asarray(a), gpu.asarray(b), axes=axes)), np.tensordot(a, b, axes)
        )


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_axes_of_other_sizes_are_refused(numerics):
    b = nn.get_backend("numpy" if numerics == "exact" else "strict", numerics=numerics)
    with pytest.raises(ValueError, match="differ in size"):
        tensordot(b.asarray(np.ones((2, 3))), b.asarray(np.ones((3, 2))), ((0, 1), (0, 1)), b.xp)


@pytest.mark.parametrize("count", [1, 8, 9, 70])
@pytest.mark.parametrize(
    ("join", "axis"), [("concat", 0), ("concat", 1), ("concat", None), ("stack", 0), ("stack", -1)]
)
def test_joins_of_many_arrays_can_be_recorded(gpu, join, axis, count):
    arrays = [
        gpu.asarray(np.full((2, 3 if axis != 1 or join == "stack" else 1 + i % 3), i), "float32") for i in range(count)
    ]

    def step(x):
        return getattr(gpu.xp, join)([*arrays[:-1], x], axis=axis)

    compiled = gpu.compile(step)
    wanted = gpu.to_numpy(step(arrays[-1]))
    for _ in range(4):
        assert np.array_equal(gpu.to_numpy(compiled(arrays[-1])), wanted)
    assert compiled.replayed


PRODUCTS = {
    "matmul": lambda xp, x: xp.matmul(x, x),
    "vecdot": lambda xp, x: xp.vecdot(x, x),
    "tensordot": lambda xp, x: xp.tensordot(x, x, axes=1),
    "two dtypes": lambda xp, x: xp.matmul(x, xp.astype(x, xp.float64)),
    "linalg": lambda xp, x: xp.linalg.matmul(x, x[:, 0]),
}


# Exact numerics refuses linalg, which `test_namespace` tests.
@pytest.mark.parametrize(
    "numerics, name", [("fast", name) for name in PRODUCTS] + [("exact", name) for name in PRODUCTS if name != "linalg"]
)
def test_products_of_a_users_own_step_can_be_recorded(gpu, numerics, name):
    b, product = nn.get_backend(gpu, numerics=numerics), PRODUCTS[name]
    x = b.asarray(np.random.default_rng(0).random((5, 5)), "float32")
    wanted = b.to_numpy(product(b.xp, x))
    compiled = b.compile(lambda x: product(b.xp, x))
    for _ in range(4):
        assert b.to_numpy(compiled(x)).tobytes() == wanted.tobytes()
    assert compiled.replayed


def test_cupy_is_not_changed(gpu):
    cupy = pytest.importorskip("cupy")
    usual = cupy.matmul, cupy.concatenate, cupy.ndarray.__matmul__
    compiled = gpu.compile(lambda x: gpu.xp.matmul(x, x))
    for _ in range(4):
        compiled(gpu.asarray(np.ones((2, 2)), "float32"))
    assert (cupy.matmul, cupy.concatenate, cupy.ndarray.__matmul__) == usual
