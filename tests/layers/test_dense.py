"""The fully connected layer and Flatten."""

import re

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import xpnn as nn
from xpnn.testing import assert_match, gradcheck

F = nn.functional
SHAPES = {"matrix": (4, 5), "more axes": (2, 3, 2, 5), "one row": (1, 5), "one column": (4, 1), "empty": (0, 5)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def loops(x, weight, bias, dy):
    """y, dx, dweight, dbias, one product at a time."""
    rows, upstream = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    y, dx = np.zeros(upstream.shape) + bias, np.zeros(rows.shape)
    dweight, dbias = np.zeros(weight.shape), np.zeros(bias.shape)
    for n in range(len(rows)):
        for o, i in np.ndindex(*weight.shape):
            y[n, o] += rows[n, i] * weight[o, i]
            dx[n, i] += upstream[n, o] * weight[o, i]
            dweight[o, i] += upstream[n, o] * rows[n, i]
        dbias += upstream[n]
    return y.reshape(dy.shape), dx.reshape(x.shape), dweight, dbias


def problem(rng, shape, features=3):
    drawn = ((shape), (features, shape[-1]), (features,), (*shape[:-1], features))
    return [rng.standard_normal(s).astype(np.float32).astype(np.float64) for s in drawn]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_shape
def test_dense_and_its_gradients_match_loops(at, rng, shape, dtype):
    hosts = problem(rng, shape)
    x, weight, bias, dy = (at.put(a, dtype) for a in hosts)
    actual = [F.dense(x, weight, bias), *F.dense_backward(dy, x, weight)]
    rows = max(1, int(np.prod(shape[:-1])))
    for a, d, terms in zip(actual, loops(*hosts), (shape[-1] + 1, 3, rows, rows), strict=True):
        assert_match(a, d, level="reduction", terms=terms, backend=at.backend, dtype=dtype)


@every_shape
def test_dense_matches_pytorch(torch, rng, shape):
    x, weight, bias, dy = problem(rng, shape)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    ty = torch.nn.functional.linear(*tensors)
    desired = [ty.detach(), *torch.autograd.grad(ty, tensors, torch.tensor(dy))]
    for a, d in zip([F.dense(x, weight, bias), *F.dense_backward(dy, x, weight)], desired, strict=True):
        assert_match(a, d, level="reduction", terms=12)


def test_dense_worked_by_hand(at):
    x, weight, bias = at.put([[1.0, 2.0]]), at.put([[3.0, 4.0], [5.0, 6.0], [0.0, 1.0]]), at.put([1.0, 0.0, -1.0])
    assert at.get(F.dense(x, weight, bias)).tolist() == [[12, 17, 1]]
    assert at.get(F.dense(x, weight)).tolist() == [[11, 17, 2]]
    dx, dweight, dbias = F.dense_backward(at.put([[1.0, 0.0, 2.0]]), x, weight)
    assert at.get(dx).tolist() == [[3, 6]]
    assert at.get(dweight).tolist() == [[1, 2], [0, 0], [2, 4]]
    assert at.get(dbias).tolist() == [1, 0, 2]


def test_without_input_gradient_the_others_are_the_same(at, rng):
    x, weight, _, dy = (at.put(a, "float32") for a in problem(rng, (4, 5)))
    dx, dweight, dbias = F.dense_backward(dy, x, weight, input_grad=False)
    assert dx is None
    for a, d in zip((dweight, dbias), F.dense_backward(dy, x, weight)[1:], strict=True):
        assert_match(a, d, level="exact", backend=at.backend)


def test_non_contiguous_inputs_that_stay_unchanged(at, rng):
    wide = rng.standard_normal((5, 8)).astype(np.float32)
    stepped = at.put(wide.copy())
    x = at.xp.permute_dims(stepped[:, ::2], (1, 0))
    weight = at.put(rng.standard_normal((3, 5)), "float32")
    plain = F.dense(at.put(np.ascontiguousarray(wide[:, ::2].T)), weight)
    assert_match(F.dense(x, weight), plain, level="reduction", terms=5, backend=at.backend)
    assert_match(stepped, wide, level="exact")


@pytest.mark.parametrize("bias", [True, False])
def test_backward_of_dense_is_the_derivative_of_its_forward(rng, bias):
    gradcheck(nn.Dense(4, 3, bias=bias, dtype="float64"), rng.standard_normal((2, 2, 4)))


def test_dense_without_bias_has_no_bias():
    assert list(nn.Dense(4, 3, bias=False).parameters) == ["weight"]


@pytest.mark.parametrize("shape", [(5,), (2, 5), (), (4, 2, 3)])
def test_input_of_another_shape_is_an_error_that_names_the_layer(shape):
    message = f"Dense(4, 3): input must have shape (N, ..., 4), got {shape}"
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.Dense(4, 3)(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (((2, 4), (3, 4, 1), None), ValueError, "weight must have shape (out, in), got (3, 4, 1)"),
        (((2, 4), (3, 4), (4,)), ValueError, "bias has shape (4,), expected (3,)"),
    ],
)
def test_function_names_the_array_that_does_not_fit(arrays, error, message):
    with pytest.raises(error, match=re.escape(message)):
        F.dense(*(None if s is None else np.zeros(s, np.float32) for s in arrays))


def test_function_names_mixed_dtypes():
    with pytest.raises(TypeError, match=re.escape("mixed dtypes (input float32, weight float64)")):
        F.dense(np.zeros((2, 4), np.float32), np.zeros((3, 4)))


@pytest.mark.parametrize("sizes", [(0, 3), (4, -1), (4.0, 3), (True, 3), ((4,), 3), (4, [3])], ids=str)
def test_sizes_out_of_range_are_an_error_of_the_constructor(sizes):
    with pytest.raises(ValueError, match=r"(in|out)_features must be an integer >= 1"):
        nn.Dense(*sizes)


def test_flatten_keeps_row_major_order_and_backward_restores_the_shape(at):
    host = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    layer = nn.Flatten(backend=at.backend)
    y = layer(at.put(host))
    assert_match(y, host.reshape(2, 12), level="exact", backend=at.backend)
    assert_match(layer.backward(y), host, level="exact", backend=at.backend)


@pytest.mark.parametrize(("shape", "flat"), [((0, 3, 2), (0, 6)), ((3,), (3, 1)), ((2, 0, 4), (2, 0))])
def test_flatten_of_unusual_shapes(at, shape, flat):
    layer = nn.Flatten(backend=at.backend)
    y = layer(at.put(np.zeros(shape, np.float32)))
    assert y.shape == flat
    assert layer.backward(y).shape == shape


@pytest.mark.parametrize("rows, features, outputs", [(128, 784, 700), (2000, 300, 40), (1, 5000, 4000)])
def test_large_products_have_the_same_bits_for_any_number_of_threads(monkeypatch, rows, features, outputs):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((rows, features), np.float32), rng.standard_normal((outputs, features), np.float32)
    dy = rng.standard_normal((rows, outputs), np.float32)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setenv("XPNN_NUM_THREADS", str(threads))
        with threadpool_limits(threads, user_api="blas"):
            results.append([nn.functional.dense(x, weight), *nn.functional.dense_backward(dy, x, weight)])
    np.testing.assert_allclose(results[0][0], x.astype(np.float64) @ weight.T, rtol=1e-4, atol=1e-2)
    for result in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize(
    "rows, features, outputs", [(64, 64, 63), (1, 96, 95), (95, 96, 1), (1, 9000, 1), (64, 128, 64)]
)
def test_small_products_have_the_same_bits_for_any_number_of_blas_threads(rows, features, outputs):
    """Below a certain size the library uses one thread, so its number of threads is left unchanged."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((rows, features), np.float32), rng.standard_normal((outputs, features), np.float32)
    results = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            results.append(nn.functional.dense(x, weight))
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()
