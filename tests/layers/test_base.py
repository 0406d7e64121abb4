"""Modes, gradients, checks and names, which are the same for every layer."""

import copy
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match
from xpnn.testing.cases import LayerCase

# Layers that compute something else in training than in evaluation, or that need integers, have their own tests.
CHANGING = ("BatchNorm", "Dropout", "Embedding")
# Cases that are graphs, in which errors name a layer within.
GRAPHS = ("Add/", "Concat/", "Graph/", "Multiply/")
LAYERS = {
    case.subject: (case.build, (), case.shape)
    for case in nn.testing.cases()
    if isinstance(case, LayerCase) and case.name.endswith("/plain") and not case.name.startswith(CHANGING + GRAPHS)
}
every_layer = pytest.mark.parametrize(("kind", "arguments", "shape"), LAYERS.values(), ids=LAYERS)


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def step(layer, x):
    """Forward, and backward of ones."""
    y = layer(x)
    return y, layer.backward(y * 0.0 + 1.0)


def test_every_layer_of_the_package_is_tested_here():
    public = [getattr(nn, name) for name in nn.__all__]
    layers = {c.__name__ for c in public if isinstance(c, type) and issubclass(c, nn.Layer)}
    bases = {"Layer", "Container", "Checkpointed", "Sequential", "Residual", "Parallel", "PerInput", "Graph"}
    # With several inputs: see test_joins.
    bases |= {"Add", "Multiply", "Concat"}
    assert {name for name in layers - bases if not name.startswith(CHANGING)} <= LAYERS.keys()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_layer
def test_layer_keeps_dtype_and_backend(at, rng, kind, arguments, shape, dtype):
    layer = kind(*arguments, backend=at.backend, dtype=dtype)
    x = at.put(rng.standard_normal(shape), dtype)
    y, dx = step(layer, x)
    for array in (y, dx, *(p.grad for _, p in layer.named_parameters())):
        assert_match(array, at.get(array), level="exact", backend=at.backend, dtype=dtype)
    assert dx.shape == x.shape


@every_layer
def test_layer_accepts_an_empty_batch(at, kind, arguments, shape):
    layer = kind(*arguments, backend=at.backend)
    x = at.put(np.zeros((0, *shape[1:]), np.float32))
    y, dx = step(layer, x)
    assert y.shape[0] == 0
    assert dx.shape == x.shape
    for _, parameter in layer.named_parameters():
        assert not at.get(parameter.grad).any()


@every_layer
def test_backward_before_forward_is_an_error_that_names_the_layer(kind, arguments, shape):
    layer = kind(*arguments)
    with raises(RuntimeError, f"{layer!r}: backward needs a forward before it, in training mode"):
        layer.backward(np.zeros(shape, np.float32))


@every_layer
def test_evaluation_saves_nothing_and_has_no_backward(kind, arguments, shape):
    layer = kind(*arguments)
    x = np.ones(shape, np.float32)
    y = layer(x)
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    held = [v for v in vars(layer).values() if v is not None]
    assert_match(layer(x), y, level="exact")
    assert [v for v in vars(layer).values() if v is not None] == held
    for refused in (layer, layer.train()):
        with raises(RuntimeError, "backward needs a forward before it"):
            refused.backward(y)
    step(layer, x)


@every_layer
def test_evaluation_mode_frees_what_the_last_forward_saved(kind, arguments, shape):
    layer = kind(*arguments)
    y = layer(np.ones(shape, np.float32))
    layer.eval().train()
    with raises(RuntimeError, "backward needs a forward before it"):
        layer.backward(y)


def test_gradients_add_up_until_zero_grad(at, rng):
    layer = nn.Conv1d(2, 3, 3, backend=at.backend)
    x = at.put(rng.standard_normal((2, 2, 5)), "float32")
    assert all(p.grad is None for p in layer.parameters.values())
    step(layer, x)
    once = {name: at.get(p.grad) for name, p in layer.parameters.items()}
    step(layer, x)
    for name, parameter in layer.parameters.items():
        assert_match(parameter.grad, 2 * once[name], level="exact", backend=at.backend)
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters.values())
    step(layer, x)
    for name, parameter in layer.parameters.items():
        assert_match(parameter.grad, once[name], level="exact", backend=at.backend)


def test_backward_may_be_repeated(at, rng):
    layer = nn.Conv1d(2, 3, 3, backend=at.backend)
    y, dx = step(layer, at.put(rng.standard_normal((2, 2, 5)), "float32"))
    assert_match(layer.backward(y * 0.0 + 1.0), dx, level="exact")


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 3, 3), nn.Dense(5, 3)], ids=repr)
def test_layer_with_parameters_may_skip_the_input_gradient(layer):
    y = layer(np.ones((2, 2, 5), np.float32))
    layer.zero_grad()
    layer.backward(y)
    whole = {name: p.grad for name, p in layer.parameters.items()}
    layer.zero_grad()
    assert layer.backward(y, input_grad=False) is None
    for name, parameter in layer.parameters.items():
        assert_match(parameter.grad, whole[name], level="exact")


@every_layer
def test_integers_are_an_error_that_names_the_layer(kind, arguments, shape):
    layer = kind(*arguments)
    with raises(TypeError, f"{layer!r}: the input must be a float32 or float64 array, got int64 array of numpy"):
        layer(np.zeros(shape, np.int64))


@every_layer
def test_an_input_that_is_not_an_array_is_an_error_that_names_the_layer(kind, arguments, shape):
    layer = kind(*arguments)
    message = (
        f"{layer!r}: the input must be an array of numpy, got list; make one with nn.get_backend('numpy').asarray(x)"
    )
    with raises(TypeError, message):
        layer(np.zeros(shape).tolist())


@every_layer
def test_array_of_another_backend_is_an_error_that_says_how_to_move_it(kind, arguments, shape):
    layer = kind(*arguments, backend="strict:device1")
    message = (
        f"{layer!r}: the input is on numpy, this is on strict:device1; move the array with "
        "nn.get_backend('strict:device1').asarray(x), or this with .to('numpy')"
    )
    with raises(TypeError, message):
        layer(np.zeros(shape, np.float32))


def test_upstream_gradient_of_another_backend_is_an_error():
    layer = nn.ReLU(backend="strict")
    layer(layer.backend.asarray([[1.0]]))
    with raises(TypeError, "ReLU(): the upstream gradient is on numpy, this is on strict; move the array with"):
        layer.backward(np.ones((1, 1), np.float32))


def test_array_of_another_device_is_an_error_that_names_both():
    first, second = nn.get_backend("strict"), nn.get_backend("strict:device1")
    message = (
        "ReLU(): the input is on strict:device1, this is on strict; move the array with "
        "nn.get_backend('strict').asarray(nn.get_backend('strict:device1').to_numpy(x)), or this with "
        ".to('strict:device1')"
    )
    with raises(TypeError, message):
        nn.ReLU(backend=first)(second.asarray([1.0]))


def test_input_of_another_dtype_than_the_parameters_is_an_error_that_says_how_to_convert():
    message = (
        "Dense(2, 1): the input is float64, the parameters are float32; convert it, or the layer with "
        ".to('numpy', 'float64')"
    )
    layer = nn.Dense(2, 1)
    with raises(TypeError, message):
        layer(np.zeros((1, 2)))
    assert layer.to("numpy", "float64")(np.zeros((1, 2))).dtype == np.float64


@pytest.mark.parametrize("dy", [np.zeros((1, 3), np.float32), np.zeros((2, 2)), np.zeros(2, np.float32)])
def test_upstream_gradient_that_does_not_fit_is_an_error(dy):
    layer = nn.ReLU()
    layer(np.zeros((2, 2), np.float32))
    with raises(
        ValueError, f"ReLU(): the upstream gradient is {dy.dtype} array of numpy, shape {dy.shape}; the output"
    ):
        layer.backward(dy)


REPRS = [
    "Conv1d(2, 3, 5)",
    "Conv2d(3, 16, 3)",
    "Conv2d(3, 16, (3, 5), stride=(2, 1), padding='same', dilation=2, bias=False)",
    "Conv2d(4, 8, 3, padding=((0, 1), (2, 3)), groups=2)",
    "Conv3d(1, 1, 2, padding='valid')",
    "Dense(4, 3)",
    "Dense(4, 3, bias=False)",
    "MaxPool2d(2)",
    "MaxPool1d(3, stride=2, padding=1, dilation=2, ceil_mode=True)",
    "AvgPool3d((1, 2, 3), stride=1, count_include_pad=False)",
    "ReLU()",
    "Sigmoid()",
    "Tanh()",
    "Softmax()",
    "Softmax(axis=-1)",
    "Flatten()",
    "CrossEntropy()",
    "MSE(reduction='sum')",
    "Sequential()",
    "Sequential(Conv2d(1, 2, 3), ReLU(), Sequential(Flatten(), Dense(8, 2)))",
]


@pytest.mark.parametrize("text", REPRS)
def test_repr_is_the_call(text):
    assert repr(eval(text, dict(vars(nn)))) == text


@every_layer
def test_copy_computes_the_same_and_shares_nothing(at, rng, kind, arguments, shape):
    layer = kind(*arguments, backend=at.backend, seed=5)
    x = at.put(rng.standard_normal(shape), "float32")
    y, dx = step(layer, x)
    twin = copy.deepcopy(layer)
    assert twin.backend is layer.backend
    for a, d in zip(step(twin, x), (y, dx), strict=True):
        assert_match(a, d, level="exact", backend=at.backend)
    for (name, parameter), (_, original) in zip(twin.named_parameters(), layer.named_parameters(), strict=True):
        assert_match(parameter.value, original.value, level="exact", backend=at.backend, name=name)
        assert_match(parameter.grad, 2 * at.get(original.grad), level="exact", backend=at.backend, name=name)


def test_copy_of_an_unused_layer_has_the_weights_that_the_layer_will_have():
    layer = nn.Dense(4, 3, seed=9)
    twin = copy.deepcopy(layer)
    assert_match(twin.parameters["weight"].value, layer.parameters["weight"].value, level="exact")


@every_layer
def test_pickled_layer_computes_the_same(at, rng, kind, arguments, shape):
    layer = kind(*arguments, backend=at.backend, seed=5)
    x = at.put(rng.standard_normal(shape), "float32")
    y, dx = step(layer, x)
    for a, d in zip(step(pickle.loads(pickle.dumps(layer)), x), (y, dx), strict=True):
        assert_match(a, d, level="exact", backend=at.backend)


def test_pickled_unused_layer_has_the_weights_that_the_layer_will_have():
    layer = nn.Dense(4, 3, seed=9)
    twin = pickle.loads(pickle.dumps(layer))
    assert_match(twin.parameters["weight"].value, layer.parameters["weight"].value, level="exact")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pickled_and_copied_backends_are_the_same_backend(at, dtype):
    backend = nn.get_backend(at.backend, dtype)
    assert pickle.loads(pickle.dumps(backend)) is backend
    assert copy.deepcopy(backend) is backend
    assert copy.copy(backend) is backend


def test_parameter_accepts_only_arrays_of_its_shape():
    parameter = nn.Dense(4, 3).parameters["weight"]
    assert parameter.shape == (3, 4)
    with raises(ValueError, "value must have shape (3, 4), got an array of shape (4, 3)"):
        parameter.value = np.zeros((4, 3), np.float32)


def test_layer_without_forward_or_backward_names_what_is_missing():
    class Nothing(nn.Layer):
        pass

    with raises(NotImplementedError, "Nothing defines no _forward"):
        Nothing()(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (np.ones((2, 4), np.float32), ValueError, r"input must have shape \(N, ..., 3\), got \(2, 4\)"),
        (np.ones((2, 3)), TypeError, "float64, the parameters are float32"),
        (np.ones((2, 3), np.int64), TypeError, "int64"),
        (np.ones((2, 3), ">f4"), TypeError, "float32 or float64 array"),
        ([[1.0, 2.0, 3.0]], TypeError, "got list"),
        (nn.get_backend("strict").asarray(np.ones((2, 3), np.float32)), TypeError, "strict"),
    ],
    ids=["shape", "dtype", "integers", "byte order", "list", "backend"],
)
def test_checks_still_raise_after_a_good_call(wrong, error, message):
    layer = nn.Dense(3, 3)
    good = layer.forward(np.ones((2, 3), np.float32))
    layer.backward(good)
    for call in (layer.forward, layer.backward):
        with pytest.raises(error, match="Dense" if call == layer.backward else message):
            call(wrong)


def test_layer_does_not_change_read_only_arrays():
    layer = nn.Dense(3, 2)
    x, dy = np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)
    x.flags.writeable = dy.flags.writeable = False
    for _ in range(2):
        layer.forward(x)
        layer.backward(dy)
    assert (x == 1.0).all() and (dy == 1.0).all()
