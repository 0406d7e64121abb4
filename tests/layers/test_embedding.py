"""Embeddings of integers, and learned positions."""

import copy
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers import functional as F
from xpnn.testing import assert_match, gradcheck

INDEX = np.array([[0, 3, 3, 1], [4, 3, 0, 0]])


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def by_addition(index, dy, rows, padding_idx=None):
    """The gradient by NumPy's own addition at repeated indices."""
    found = np.zeros((rows, dy.shape[-1]))
    np.add.at(found, index, dy)
    if padding_idx is not None:
        found[padding_idx] = 0.0
    return found


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
def test_output_is_the_rows_and_equal_indices_add_up(at, rng, kind):
    layer = nn.Embedding(6, 5, backend=at.backend, seed=1)
    weight = at.get(layer.parameters["weight"].value)
    y = layer(at.put(INDEX.astype(kind)))
    assert_match(y, weight[INDEX], level="exact", backend=at.backend, dtype="float32")
    dy = rng.standard_normal(y.shape).astype("float32")
    assert layer.backward(at.put(dy)) is None
    wanted = by_addition(INDEX, dy.astype("float64"), 6)
    assert_match(layer.parameters["weight"].grad, wanted, level="reduction", terms=8, dtype="float32")
    assert not at.get(layer.parameters["weight"].grad)[[2, 5]].any()


@pytest.mark.parametrize("count", [1, 2, 3, 127, 128, 129, 1000])
@pytest.mark.parametrize("rows", [1, 2, 50, 700])
def test_gradient_adds_up_any_number_of_indices(at, rng, count, rows):
    index = rng.integers(0, rows, count)
    dy = rng.integers(-50, 50, (count, 3)).astype("float32")
    found = F.embedding_backward(at.put(dy), at.put(index), rows)
    assert np.array_equal(at.get(found), by_addition(index, dy, rows))


def test_gradient_has_the_same_bits_in_each_run(at, rng):
    index, dy = at.put(rng.integers(0, 4, 500)), at.put(rng.standard_normal((500, 33)).astype("float32"))
    first, *others = (at.get(F.embedding_backward(dy, index, 4)).tobytes() for _ in range(3))
    assert all(each == first for each in others)


def test_exact_gradient_has_the_bits_of_numpy(exact, rng):
    index, dy = (
        rng.integers(0, 9, 300),
        rng.standard_normal((300, 7)).astype("float32") * 10.0 ** rng.integers(-9, 9, 7),
    )
    found = []
    for b in (exact, nn.get_backend("numpy", numerics="exact")):
        layer = nn.Embedding(9, 7, backend=b)
        layer(b.asarray(index))
        layer.backward(b.asarray(dy.astype("float32")))
        found.append(b.to_numpy(layer.parameters["weight"].grad))
    assert found[0].tobytes() == found[1].tobytes()
    wanted = by_addition(index, dy.astype("float32").astype("float64"), 9)
    assert np.allclose(found[0], wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max(0))


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_nan_stays_in_its_row_and_column(at, numerics):
    b = at.computing(numerics)
    layer = nn.Embedding(6, 2, backend=b)
    layer(b.asarray(INDEX))
    dy = np.ones((2, 4, 2), np.float32)
    dy[0, 1, 0], dy[1, 0, 1] = np.nan, np.inf
    layer.backward(b.asarray(dy))
    wanted = by_addition(INDEX, np.ones((2, 4, 2)), 6)
    wanted[3, 0], wanted[4, 1] = np.nan, np.inf if numerics == "fast" else np.nan
    assert np.array_equal(b.to_numpy(layer.parameters["weight"].grad), wanted, equal_nan=True)


@pytest.mark.parametrize("padding", [0, 3, -1, -6])
def test_padding_row_is_zero_and_gets_no_gradient(at, padding):
    layer = nn.Embedding(6, 3, padding, backend=at.backend, seed=0)
    weight = at.get(layer.parameters["weight"].value)
    others = [row for row in range(6) if row != padding % 6]
    assert not weight[padding].any() and weight[others].all()
    layer(at.put(INDEX))
    layer.backward(at.put(np.ones((2, 4, 3), np.float32)))
    wanted = by_addition(INDEX, np.ones((2, 4, 3)), 6, padding)
    assert np.array_equal(at.get(layer.parameters["weight"].grad), wanted)
    plain = nn.Embedding(6, 3, backend=at.backend, seed=0)
    assert np.array_equal(at.get(plain.parameters["weight"].value)[others], weight[others])


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}])
def test_values_and_gradient_are_pytorchs(torch, rng, options):
    layer, theirs = nn.Embedding(6, 5, **options, backend="numpy"), torch.nn.Embedding(6, 5, **options)
    layer.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    y = theirs(torch.from_numpy(INDEX))
    assert_match(layer(INDEX), y.detach().numpy(), level="exact")
    dy = rng.standard_normal(y.shape).astype("float32")
    y.backward(torch.from_numpy(dy))
    layer.backward(dy)
    assert_match(layer.parameters["weight"].grad, theirs.weight.grad.numpy(), level="reduction", terms=8)


def test_initial_values_are_normal():
    weight = nn.Embedding(400, 50, backend="numpy", seed=3).parameters["weight"].value
    assert abs(weight.mean()) < 0.03 and abs(weight.std() - 1.0) < 0.03
    own = nn.Embedding(4, 2, padding_idx=1, weight_init=nn.initialisers.constant(2.0), backend="numpy")
    assert own.parameters["weight"].value.tolist() == [[2.0, 2.0], [0.0, 0.0], [2.0, 2.0], [2.0, 2.0]]


def test_gradients_are_the_derivatives():
    gradcheck(nn.Embedding(6, 3, dtype="float64", backend="numpy"), INDEX)
    gradcheck(
        nn.Sequential(nn.Embedding(6, 4), nn.PositionEmbedding(5, 4), nn.Dense(4, 2), dtype="float64", backend="numpy"),
        INDEX,
    )


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("within", [lambda *layers: layers, lambda *layers: (nn.Checkpointed(nn.Sequential(*layers)),)])
def test_first_layer_of_a_net_has_no_input_gradient(at, input_grad, within):
    layers = nn.Sequential(nn.Embedding(6, 3)), nn.Flatten(), nn.Dense(12, 2)
    model = nn.Sequential(*within(*layers), backend=at.backend, seed=0)
    y = model(at.put(INDEX))
    assert y.shape == (2, 2) == model.output_shape((2, 4))
    assert model.backward(y, input_grad=input_grad) is None
    assert all(parameter.grad is not None for _, parameter in model.named_parameters())
    assert "Embedding(6, 3)" in str(model.summary((2, 4)))


def test_differences_of_nets_are_found_from_the_integers():
    nets = [nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Dense(12, 2), backend="numpy", seed=0) for _ in range(2)]
    assert nn.testing.first_difference(*nets, INDEX, dy=np.ones((2, 2))) is None
    assert next(y.shape for _, _, y in nn.layer_outputs(nets[0], INDEX)) == (2, 4, 3)
    nets[1][0].parameters["weight"].value = nets[0][0].parameters["weight"].value + 1.0
    assert nn.testing.first_difference(*nets, INDEX).layer == "0"


def test_released_steps_and_evaluation(at):
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Dense(12, 2), backend=at.backend, seed=0)
    x = at.put(INDEX)
    y = model(x)
    with nn.released():
        model.backward(y)
    assert model[0].saved is None
    model.eval()
    for _ in range(12):
        assert at.get(model(x)).tobytes() == at.get(y).tobytes()


def test_index_out_of_range_is_an_error_on_the_host_and_nan_elsewhere(at):
    layer = nn.Embedding(5, 2, backend=at.backend)
    for value in (5, -1):
        x = at.put(np.array([0, value, 2]))
        if at.backend.is_host:
            with raises(
                ValueError, f"Embedding(5, 2): indices must be from 0 to 4 for an embedding of 5 rows, got {value}"
            ):
                layer(x)
            continue
        y = layer(x)
        assert np.isnan(at.get(y)).tolist() == [[False] * 2, [True] * 2, [False] * 2]
        layer.zero_grad()
        layer.backward(at.put(np.ones((3, 2), np.float32)))
        assert at.get(layer.parameters["weight"].grad).sum() == 4.0


def test_index_out_of_range_is_an_error_in_exact_numerics_and_in_a_recorded_step():
    for numerics in ("fast", "exact"):
        b = nn.get_backend("numpy", numerics=numerics)
        layer = nn.Embedding(5, 2, backend=b)
        step = b.compile(lambda x, layer=layer: layer(x), layer)
        x = b.asarray(np.array([0, 4, 2]))
        for _ in range(5):
            step(x)
        assert step.replayed
        with raises(ValueError, "indices must be from 0 to 4"):
            step(b.asarray(np.array([0, 5, 2])))


@pytest.mark.parametrize("x", [np.zeros((2, 3), np.float32), np.zeros((2, 3), bool), np.zeros((2, 3))])
def test_other_dtypes_are_an_error_that_says_what_to_do(x):
    what = f"must be an array of integers, one index for each row wanted, got {x.dtype} array"
    with raises(TypeError, f"Embedding(5, 2): input {what}") as caught:
        nn.Embedding(5, 2, backend="numpy")(x)
    assert "convert it with x.astype('int64')" in str(caught.value)
    with raises(TypeError, f"index {what}") as caught:
        F.embedding(x, np.zeros((5, 2), np.float32))
    assert "convert it with index.astype('int64')" in str(caught.value)


def test_wrong_arguments():
    for padding in (5, -6):
        with raises(ValueError, f"padding_idx must be None or an integer from -5 to 4, got {padding}"):
            nn.Embedding(5, 2, padding)
    with raises(ValueError, "weight must have shape (num_embeddings, embedding_dim) with at least one row, got (5,)"):
        F.embedding(INDEX, np.zeros(5, np.float32))
    with raises(ValueError, "dy must have the shape of the index and one more axis, got (2, 3)"):
        F.embedding_backward(np.zeros((2, 3), np.float32), INDEX, 5)
    with raises(ValueError, "input must have a batch axis"):
        nn.Embedding(5, 2, backend="numpy")(np.array(3))
    with raises(TypeError, "nn.get_backend"):
        nn.Embedding(5, 2, backend="numpy")([[1, 2]])


def test_copies_and_pickles_before_the_first_use():
    layer = nn.Embedding(5, 2, padding_idx=1, backend="numpy", seed=4)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(other.parameters["weight"].value, layer.parameters["weight"].value)
    assert repr(layer) == "Embedding(5, 2, padding_idx=1)"


def test_a_net_with_an_embedding_learns(at):
    """Whether a sequence has the token 3."""
    host = np.random.default_rng(0).integers(0, 6, (64, 5))
    model = nn.Sequential(nn.Embedding(6, 8), nn.Flatten(), nn.Dense(40, 2), backend=at.backend, seed=0)
    x, y, loss = at.put(host), at.put((host == 3).any(1).astype("int64")), nn.CrossEntropy()
    optimizer, values = nn.Adam(model, lr=0.05), []
    for _ in range(40):
        optimizer.zero_grad()
        values.append(float(at.get(loss(model(x), y))))
        model.backward(loss.backward(), input_grad=False)
        optimizer.step()
    assert values[-1] < 0.1 < values[0]


def test_positions_are_added_and_shorter_sequences_use_the_first(at):
    layer = nn.PositionEmbedding(4, 3, backend=at.backend, seed=0)
    weight = at.get(layer.parameters["weight"].value)
    x = np.ones((2, 3, 3), np.float32)
    y = layer(at.put(x))
    assert_match(y, x + weight[:3], level="exact", backend=at.backend, dtype="float32")
    dx = layer.backward(y)
    assert_match(dx, at.get(y), level="exact", backend=at.backend, dtype="float32")
    grad = at.get(layer.parameters["weight"].grad)
    assert_match(grad[:3], at.get(y).sum(0), level="reduction", terms=2, dtype="float32")
    assert not grad[3].any()
    with raises(ValueError, "input must have shape (N, L, 3) with L at most 4, got (2, 5, 3)"):
        layer(at.put(np.ones((2, 5, 3), np.float32)))
