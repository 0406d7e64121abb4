"""Add, Multiply and Concat: values, gradients, and what they refuse."""

import copy
import pickle

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.containers.sums import sum_of
from xpnn.testing import assert_match
from xpnn.testing.compare import same_bits

F32 = np.float32


def numbers(rng, *shapes):
    return [rng.standard_normal(shape).astype(F32) for shape in shapes]


def fitting(gradient, shape):
    """The sum over the axes along which an input was broadcast."""
    axes = tuple(a for a, n in enumerate(shape) if n != gradient.shape[a])
    return gradient.sum(axis=axes, keepdims=True)


JOINS = {
    "add": (nn.Add, [(3, 4), (3, 4)]),
    "add, three": (nn.Add, [(3, 4, 5)] * 3),
    "add, one": (nn.Add, [(3, 4)]),
    "add, broadcast": (nn.Add, [(2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 1)]),
    "add, both broadcast": (nn.Add, [(2, 3, 1), (2, 1, 4)]),
    "add, no sample": (nn.Add, [(0, 3, 4), (0, 3, 1)]),
    "multiply": (nn.Multiply, [(3, 4), (3, 4)]),
    "multiply, four": (nn.Multiply, [(3, 4, 5)] * 4),
    "multiply, one": (nn.Multiply, [(3, 4)]),
    "multiply, broadcast": (nn.Multiply, [(2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 1)]),
    "multiply, no sample": (nn.Multiply, [(0, 3, 4), (0, 3, 1)]),
    "multiply, no cell": (nn.Multiply, [(2, 3, 0), (2, 3, 1)]),
    "concat": (nn.Concat, [(3, 4), (3, 2), (3, 1)]),
    "concat, one": (nn.Concat, [(3, 4)]),
    "concat, planes": (nn.Concat, [(2, 3, 4, 5), (2, 0, 4, 5), (2, 1, 4, 5)]),
    "concat, last": (lambda **p: nn.Concat(-1, **p), [(2, 3, 4), (2, 3, 2)]),
    "concat, no sample": (nn.Concat, [(0, 3, 4), (0, 2, 4)]),
}


def wanted(name, x):
    """The output and a function of its gradient, in float64."""
    wide = [each.astype(np.float64) for each in x]
    if name.startswith("concat"):
        axis = -1 if "last" in name else 1
        edges = np.cumsum([each.shape[axis] for each in x])[:-1]
        return np.concatenate(wide, axis), lambda dy: np.split(dy, edges, axis)
    whole = np.broadcast_shapes(*(each.shape for each in x))
    if name.startswith("add"):
        total = sum(wide)
        return total, lambda dy: [fitting(dy, each.shape) for each in x]
    product = np.ones(whole)
    for each in wide:
        product = product * each

    def gradients(dy):
        found = []
        for i, each in enumerate(wide):
            others = np.ones(whole)
            for j, other in enumerate(wide):
                others = others if i == j else others * other
            found.append(fitting(dy * others, each.shape))
        return found

    return product, gradients


@pytest.mark.parametrize("numerics", ["fast", "exact"])
@pytest.mark.parametrize("name", JOINS)
def test_values_and_gradients(at, rng, name, numerics):
    make, shapes = JOINS[name]
    layer, x = make(backend=at.computing(numerics)), numbers(rng, *shapes)
    y, gradients = wanted(name, x)
    assert layer.output_shape(tuple(shapes)) == y.shape
    found = layer(tuple(map(at.put, x)))
    assert_match(found, y.astype(F32), level="elementwise", backend=layer.backend)
    (dy,) = numbers(rng, y.shape)
    for _ in range(2):
        dx = layer.backward(at.put(dy))
        assert isinstance(dx, tuple) and len(dx) == len(x)
        for each, slope in zip(dx, gradients(dy.astype(np.float64)), strict=True):
            assert_match(each, slope.astype(F32), level="reduction", terms=20, backend=layer.backend)
    assert layer.backward(at.put(dy), input_grad=False) is None


def test_gradients_are_those_of_pytorch(at, torch, rng):
    x = numbers(rng, (2, 3, 4, 5), (2, 3, 1, 1), (2, 1, 4, 5))
    theirs = [torch.from_numpy(each).requires_grad_() for each in x]
    for layer, value in ((nn.Multiply, theirs[0] * theirs[1] * theirs[2]), (nn.Add, theirs[0] + theirs[1] + theirs[2])):
        (dy,) = numbers(rng, (2, 3, 4, 5))
        slopes = torch.autograd.grad(value, theirs, torch.from_numpy(dy))
        ours = layer(backend=at.backend)
        assert_match(ours(tuple(map(at.put, x))), value.detach().numpy(), level="elementwise")
        for found, desired in zip(ours.backward(at.put(dy)), slopes, strict=True):
            assert_match(found, desired.numpy(), level="reduction", terms=20)


def test_float64_stays(at, rng):
    x = [at.put(each, "float64") for each in numbers(rng, (2, 3), (2, 3))]
    for layer in (nn.Add(), nn.Multiply(), nn.Concat()):
        layer.to(at.backend)
        y = layer(x)
        assert y.dtype == at.xp.float64 and all(dx.dtype == at.xp.float64 for dx in layer.backward(y))


def test_a_relu_after_a_sum_has_the_same_bits(at, rng):
    for shapes in ([(3, 4)] * 2, [(3, 4)] * 3, [(3, 4), (3, 1)]):
        add, relu = nn.Add(backend=at.backend), nn.ReLU(backend=at.backend)
        x = tuple(map(at.put, numbers(rng, *shapes)))
        y = relu(add(x))
        dx = add.backward(relu.backward(y))
        assert same_bits(at.get(add.forward_and_relu(x, relu)), at.get(y))
        for one, other in zip(add.backward(relu.backward(y)), dx, strict=True):
            assert same_bits(at.get(one), at.get(other))


def test_three_arrays_are_added_from_the_first_to_the_last():
    big, one = np.full((1, 1), 2.0**24, F32), np.ones((1, 1), F32)
    assert nn.Add()((big, one, one)).item() == 2.0**24
    assert nn.Add()((one, one, big)).item() == 2.0**24 + 2
    assert sum_of([big, one, one], nn.get_backend("numpy")).item() == 2.0**24
    # In exact numerics the sum is rounded once.
    for order in ((big, one, one), (one, one, big)):
        assert nn.Add(numerics="exact")(order).item() == 2.0**24 + 2


def test_within_released_nothing_is_kept(at, rng):
    x = tuple(map(at.put, numbers(rng, (2, 3), (2, 3))))
    for layer in (nn.Add, nn.Multiply, nn.Concat):
        join = layer(backend=at.backend)
        y = join(x)
        with nn.released():
            join.backward(y)
        assert join.saved is None
        with pytest.raises(RuntimeError, match="backward needs a forward before it"):
            join.backward(y)
        with nn.no_grad():
            join(x)
        assert join.saved is None


def test_inputs_are_not_changed(at, rng):
    hosts = numbers(rng, (2, 3), (2, 3))
    x = tuple(map(at.put, hosts))
    for layer in (nn.Add, nn.Multiply, nn.Concat):
        join = layer(backend=at.backend)
        join.backward(join(x))
        assert all(same_bits(at.get(each), host) for each, host in zip(x, hosts, strict=True))


ONE, OTHER = np.ones((2, 3), F32), np.ones((2, 4), F32)
REFUSED = {
    "one array": (nn.Add(), ONE, TypeError, r"^Add\(\): input must be a tuple of arrays, got one ndarray"),
    "nothing": (nn.Add(), (), TypeError, "input must be a tuple of arrays, got an empty tuple"),
    "a list of numbers": (nn.Multiply(), ([1.0], ONE), TypeError, r"^Multiply\(\): the input 1 must be an array of"),
    "integers": (nn.Add(), (ONE, ONE.astype(np.int64)), TypeError, "input 2 must be a float32 or float64 array"),
    "mixed dtypes": (nn.Add(), (ONE, ONE.astype(np.float64)), TypeError, "one dtype, got float32, float64; convert"),
    "other sizes": (nn.Add(), (ONE, OTHER), ValueError, r"inputs have shapes \(2, 3\), \(2, 4\); each axis"),
    "another rank": (nn.Multiply(), (ONE, ONE[0]), ValueError, r"inputs have shapes \(2, 3\), \(3,\); each axis"),
    "other samples": (nn.Multiply(), (ONE, ONE[:1]), ValueError, "the batch axis one size"),
    "not along the axis": (
        nn.Concat(2),
        (ONE[..., None], OTHER[..., None]),
        ValueError,
        r"^Concat\(axis=2\): inputs have shapes \(2, 3, 1\), \(2, 4, 1\), which cannot be concatenated along axis 2",
    ),
    "no such axis": (nn.Concat(2), (ONE, ONE), ValueError, "cannot be concatenated along axis 2"),
    "the batch axis from the end": (nn.Concat(-2), (ONE, ONE), ValueError, "cannot be concatenated along axis -2"),
    "ranks to concatenate": (nn.Concat(), (ONE, ONE[..., None]), ValueError, "cannot be concatenated along axis 1"),
}


@pytest.mark.parametrize("layer, x, kind, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(layer, x, kind, message):
    with pytest.raises(kind, match=message):
        layer(x)
    if kind is ValueError:
        with pytest.raises(kind, match=message):
            layer.output_shape(tuple(each.shape for each in x))


def test_other_mistakes_are_refused():
    with pytest.raises(ValueError, match="the batch axis, got 0"):
        nn.Concat(0)
    with pytest.raises(
        ValueError, match=r"^Add\(\): input_shape must be a tuple of shapes, one for each input, got \(2"
    ):
        nn.Add().output_shape((2, 3))
    with pytest.raises(ValueError, match=r"^Dense\(3, 2\): input_shape must be the shape of one input, got \(\(2, 3\)"):
        nn.Dense(3, 2).output_shape(((2, 3), (2, 3)))
    add = nn.Add()
    add((ONE, ONE))
    with pytest.raises(ValueError, match=r"the upstream gradient is .*\(2, 4\)"):
        add.backward(OTHER)


def test_copies_and_pickles():
    for layer, text in ((nn.Add(), "Add()"), (nn.Multiply(), "Multiply()"), (nn.Concat(-1), "Concat(axis=-1)")):
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert repr(twin) == text
            assert same_bits(twin((ONE, ONE)), layer((ONE, ONE)))
    assert repr(nn.Concat()) == "Concat()"


def test_a_join_in_mixed_precision_rounds_what_it_saves(with_16_bits):
    b = nn.get_backend(with_16_bits, precision="float16")
    x = tuple(b.asarray(np.full((1, 2), value, F32)) for value in (1.0 + 2.0**-14, 3.0))
    multiply = nn.Multiply(backend=b)
    y = multiply(x)
    assert b.to_numpy(multiply.backward(y * 0.0 + 1.0)[1]).tolist() == [[1.0, 1.0]]
