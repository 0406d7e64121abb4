"""Compiled storage and elementwise functions of exact numerics: the bits of array functions."""

import numpy as np
import pytest
from exact_arrays import both_ways, hostile, same_bits

import xpnn as nn
from xpnn.backends import operations_of
from xpnn.backends.overrides import Choices, using

pytest.importorskip("numba", reason="no compiled kernels: Numba is not installed")
EXACT = nn.get_backend("numpy", numerics="exact")
OPS = operations_of(EXACT.xp)
FUNCTIONS = {
    "widen": lambda x, y: [EXACT.up(x)],
    "narrow": lambda x, y: [EXACT.down(x.astype(np.float64) * (1.0 / 3.0))],
    "relu": lambda x, y: [OPS.relu(x)],
    "relu in place": lambda x, y: [OPS.relu_in_place(x.copy())],
    "relu backward": lambda x, y: [OPS.relu_backward(x, y)],
    "add": lambda x, y: [OPS.add(x, y)],
    "add and relu": lambda x, y: [OPS.add(x, y, relu=True)],
}
SHAPES = [(1,), (17,), (3, 5, 7, 8), (70_000,), (0, 4)]
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@every_function
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_functions_have_the_bits_of_array_functions(function, shape):
    assert same_bits(*both_ways(function, hostile(shape), hostile(shape, seed=1)))


@every_function
@pytest.mark.parametrize("layout", ["channels last", "reversed", "gaps", "repeated", "read-only"])
def test_in_any_memory_layout(function, layout):
    x, y = hostile((4, 6, 5, 8)), hostile((4, 6, 5, 8), seed=1)
    if layout == "channels last":
        x, y = x.transpose(0, 3, 1, 2), np.ascontiguousarray(y.transpose(0, 3, 1, 2))
    elif layout == "reversed":
        x, y = x[::-1, :, ::-1], y[:, ::-1]
    elif layout == "gaps":
        x, y = x[:, ::2], y[:, 1::2]
    elif layout == "repeated":
        x, y = np.broadcast_to(x[:1], x.shape), y
    else:
        x.flags.writeable = y.flags.writeable = False
    assert same_bits(*both_ways(function, x, y))


def test_storage_at_the_limits():
    edge = 2.0**-125
    near = [edge, edge * (1 - 2.0**-25), edge * (1 - 2.0**-26), edge * (1 - 2.0**-24), -edge / 2]
    halves = [1 + 2.0**-24, 1 + 3 * 2.0**-24]
    wide = np.array([*near, *halves, 3.4e38, 3.5e38, -1e300, 5e-324, -0.0, np.nan, np.inf])
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    for function, x in ((EXACT.down, wide), (EXACT.up, narrow), (OPS.relu, narrow)):
        assert same_bits(*both_ways(lambda x, function=function: [function(x)], x))
    with using(Choices(kernels=True, large=True)):
        assert EXACT.down(wide)[:4].tolist() == [edge, edge, edge, 0.0]
        assert not np.signbit(EXACT.down(wide)[11])


def test_a_float32_sum_is_that_of_float64_rounded():
    rng = np.random.default_rng(5)
    x, y = ((rng.standard_normal(100_000) * 2.0 ** rng.integers(-40, 40, 100_000)).astype(np.float32) for _ in "ab")
    expected = (x.astype(np.float64) + y.astype(np.float64)).astype(np.float32)
    compiled, by_arrays = both_ways(lambda: [OPS.add(x, y)])
    assert same_bits(compiled, [expected]) and same_bits(by_arrays, [expected])


def test_what_relu_overwrites_is_its_argument_only():
    x = hostile((64, 64))
    before = x.copy()
    with using(Choices(kernels=True)):
        OPS.relu(x)
        assert same_bits([x], [before])
        assert OPS.relu_in_place(x) is x


class Doubled(nn.ReLU):
    """A subclass that computes in what it gets."""

    def _forward(self, x):
        assert x.dtype == np.float64
        return super()._forward(x) * 2.0


def test_a_subclass_computes_in_float64(compiled_engine):
    layer = Doubled(backend=EXACT)
    y = layer(EXACT.asarray([[-1.0, 3.0]], "float32"))
    assert y.dtype == np.float32 and y.tolist() == [[0.0, 6.0]] and layer.backward(y).tolist() == [[0.0, 6.0]]
