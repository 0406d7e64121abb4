"""Attention, its gradients, and the layer for self-attention."""

import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers import functional as F
from xpnn.testing import assert_match, gradcheck

E, L = 6, 5


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def drawn(rng, *shapes):
    return [rng.standard_normal(shape) for shape in shapes]


def heads(rng, length=4, keys=7, features=3, values=5):
    return drawn(rng, (2, 3, length, features), (2, 3, keys, features), (2, 3, keys, values))


def by_formula(q, k, v, causal=False):
    """The formula of the paper, for one query at a time."""
    y = np.zeros((*q.shape[:3], v.shape[-1]))
    for n, h, i in np.ndindex(q.shape[:3]):
        seen = slice(0, i + 1 if causal else None)
        weight = np.exp(k[n, h, seen] @ q[n, h, i] / np.sqrt(q.shape[-1]))
        y[n, h, i] = (weight / weight.sum()) @ v[n, h, seen]
    return y


@pytest.mark.parametrize("causal", [False, True])
def test_queries_may_be_of_another_sequence_than_the_keys(at, rng, causal):
    q, k, v = heads(rng)
    y = F.attention(*(at.put(each, "float32") for each in (q, k, v)), causal=causal)
    assert_match(y, by_formula(q, k, v, causal), level="attention", terms=20, backend=at.backend, dtype="float32")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_gradients_of_the_function_are_the_derivatives(rng, causal, p):
    arrays = heads(rng)
    options = {"causal": causal}
    if p:
        options |= {"keep": rng.random((2, 3, 4, 7)) > p, "p": p}
    dy = rng.standard_normal((2, 3, 4, 5))
    found = F.attention_backward(dy, *arrays, **options)
    for i, gradient in enumerate(found):
        along, step = rng.standard_normal(arrays[i].shape), 1e-6
        moved = [[a + s * step * along if i == j else a for j, a in enumerate(arrays)] for s in (1, -1)]
        ahead, behind = (float(np.sum(dy * F.attention(*each, **options))) for each in moved)
        assert (ahead - behind) / (2 * step) == pytest.approx(float(np.sum(gradient * along)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_function_and_gradients_are_pytorchs(torch, rng, causal):
    arrays = heads(rng)
    tensors = [torch.from_numpy(each).requires_grad_() for each in arrays]
    y = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)
    assert_match(F.attention(*arrays, causal=causal), y.detach().numpy(), level="attention", terms=20)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.from_numpy(dy))
    for ours, theirs in zip(F.attention_backward(dy, *arrays, causal=causal), tensors, strict=True):
        assert_match(ours, theirs.grad.numpy(), level="attention", terms=20)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_layer_loads_pytorchs_state_and_computes_the_same(torch, rng, count, bias, causal):
    theirs = torch.nn.MultiheadAttention(E, count, bias=bias, batch_first=True).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += torch.from_numpy(rng.standard_normal(parameter.shape)) * 0.3
    layer = nn.MultiHeadAttention(E, count, bias, causal=causal, backend="numpy", dtype="float64")
    state = theirs.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: value.shape for name, value in layer.state_dict().items()
    }
    layer.load_state_dict({name: value.numpy() for name, value in state.items()})
    host, dy = drawn(rng, (3, L, E), (3, L, E))
    x = torch.from_numpy(host).requires_grad_()
    mask = torch.triu(torch.ones(L, L, dtype=torch.bool), diagonal=1) if causal else None
    y, _ = theirs(x, x, x, need_weights=False, attn_mask=mask)
    assert_match(layer(host), y.detach().numpy(), level="attention", terms=40)
    y.backward(torch.from_numpy(dy))
    assert_match(layer.backward(dy), x.grad.numpy(), level="attention", terms=40)
    for name, parameter in theirs.named_parameters():
        assert_match(layer.parameters[name].grad, parameter.grad.numpy(), level="attention", terms=80, name=name)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"bias": False}])
@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_the_derivatives(rng, count, options):
    layer = nn.MultiHeadAttention(E, count, **options, backend="numpy", dtype="float64", seed=0)
    for _, parameter in layer.named_parameters():
        parameter.value = parameter.value + rng.standard_normal(parameter.shape) * 0.3
    for length in (1, 4):
        gradcheck(layer, rng.standard_normal((2, length, E)))


def test_a_position_sees_no_later_one_in_causal_attention(at, rng):
    layer = nn.MultiHeadAttention(E, 2, causal=True, backend=at.backend, seed=0)
    x = rng.standard_normal((2, L, E)).astype("float32")
    before = at.get(layer(at.put(x)))
    x[:, 3] += 1.0
    after = at.get(layer(at.put(x)))
    assert before[:, :3].tobytes() == after[:, :3].tobytes()
    assert np.all(before[:, 3:] != after[:, 3:])


def test_nan_in_one_sample_stays_there(at, rng):
    layer = nn.MultiHeadAttention(E, 2, backend=at.backend, seed=0)
    x = rng.standard_normal((3, L, E)).astype("float32")
    x[1, 2, 0] = np.nan
    y = layer(at.put(x))
    assert np.isnan(at.get(y)).all((1, 2)).tolist() == [False, True, False]
    assert np.isfinite(at.get(y)[[0, 2]]).all()
    dx = at.get(layer.backward(at.put(np.ones(x.shape, np.float32))))
    assert np.isnan(dx[1]).all() and np.isfinite(dx[[0, 2]]).all()


def test_large_scores_do_not_overflow(at):
    layer = nn.MultiHeadAttention(E, 1, backend=at.backend, seed=0)
    y = layer(at.put(np.linspace(-300, 300, 2 * L * E, dtype=np.float32).reshape(2, L, E)))
    assert np.isfinite(at.get(y)).all() and np.isfinite(at.get(layer.backward(y))).all()


@pytest.mark.parametrize("shape", [(0, L, E), (3, 1, E)])
def test_empty_batch_and_one_position(at, shape):
    layer = nn.MultiHeadAttention(E, 2, backend=at.backend, seed=0)
    x = at.put(np.ones(shape, np.float32))
    y = layer(x)
    assert y.shape == shape == layer.output_shape(shape) == layer.backward(y).shape
    assert np.isfinite(at.get(layer.parameters["in_proj_weight"].grad)).all()


def test_dropout_draws_a_mask_from_the_layers_stream_and_keeps_the_mean(at):
    layer = nn.MultiHeadAttention(2, 1, dropout=0.25, backend=at.backend, seed=0)
    state = {name: np.zeros(parameter.shape, np.float32) for name, parameter in layer.named_parameters()}
    # All scores are 0, and the output is the mean of the inputs that are kept, divided by the share of those.
    state["in_proj_weight"][4:] = state["out_proj.weight"][:] = np.eye(2)
    layer.load_state_dict(state)
    x = at.put(np.ones((40, 50, 2), np.float32))
    y = at.get(layer(x))
    assert 0.97 < y.mean() < 1.03 and y.std() > 0.05
    assert layer.stream.position
    assert np.allclose(at.get(layer.eval()(x)), 1.0)
    layer.train().stream.position = 0
    assert at.get(layer(x)).tobytes() == y.tobytes()
    assert np.any(at.get(layer(x)) != y)


def test_dropout_has_the_same_mask_on_every_backend(at):
    found = []
    for b in (at.backend, nn.get_backend("numpy")):
        model = nn.Sequential(nn.MultiHeadAttention(E, 2, dropout=0.5), backend=b, seed=5)
        x = np.random.default_rng(0).standard_normal((2, L, E)).astype("float32")
        found.append(b.to_numpy(model(b.asarray(x))))
    assert np.allclose(*found, atol=1e-5)


def test_gradient_with_dropout_has_the_mask_of_the_forward(rng):
    layer = nn.MultiHeadAttention(E, 2, dropout=0.5, backend="numpy", dtype="float64", seed=0)
    x, along, dy = drawn(rng, *[(2, L, E)] * 3)
    layer(x)
    dx, step, ends = layer.backward(dy), 1e-6, []
    for sign in (1, -1):
        layer.stream.position = 0
        ends.append(layer(x + sign * step * along))
    assert float(np.sum(dy * (ends[0] - ends[1]))) / (2 * step) == pytest.approx(float(np.sum(dx * along)), rel=1e-6)


def test_exact_numerics_have_the_bits_of_numpy(exact, rng):
    x, found = rng.standard_normal((2, L, E)).astype("float32"), []
    for b in (exact, nn.get_backend("numpy", numerics="exact")):
        layer = nn.MultiHeadAttention(E, 3, dropout=0.2, causal=True, backend=b, seed=1)
        arrays = [layer(b.asarray(x)), layer.backward(b.asarray(x)), *(p.grad for _, p in layer.named_parameters())]
        found.append([b.to_numpy(each).tobytes() for each in arrays])
    assert found[0] == found[1]


def test_summary_counts_products():
    layer = nn.MultiHeadAttention(8, 2, backend="numpy")
    # in_proj: 24 x 8, out_proj: 8 x 8, for each of 5 positions; scores and sums: 5 x 5 x 8 each.
    assert layer.multiply_adds((3, 5, 8), (3, 5, 8)) == 3 * (5 * (24 * 8 + 8 * 8) + 2 * 5 * 5 * 8)
    assert "MultiHeadAttention(8, 2)" in str(layer.summary((3, 5, 8)))


def test_wrong_arguments_and_shapes(rng):
    with raises(ValueError, "embed_dim must be a multiple of num_heads, got embed_dim=6, num_heads=4"):
        nn.MultiHeadAttention(6, 4)
    with raises(ValueError, "dropout must be a number"):
        nn.MultiHeadAttention(6, 2, dropout=1.5)
    layer = nn.MultiHeadAttention(6, 2, backend="numpy")
    for shape in ((2, 5, 8), (2, 6), (2, 0, 6), (2, 3, 5, 6)):
        with raises(ValueError, f"input must have shape (N, L, 6) with L at least 1, got {shape}"):
            layer(np.zeros(shape, np.float32))
        with raises(ValueError, "input must have shape (N, L, 6)"):
            layer.output_shape(shape)
    q, k, v = heads(rng)
    with raises(ValueError, "k has shape (2, 3, 7, 2), expected (2, 3, 7, 3)"):
        F.attention(q, k[..., :2], v)
    with raises(ValueError, "v has shape (2, 3, 6, 5), expected (2, 3, 7, 5)"):
        F.attention(q, k, v[:, :, :6])
    with raises(ValueError, "k must have shape (N, heads, S, d) with S at least 1, got (2, 3, 0, 3)"):
        F.attention(q, k[:, :, :0], v[:, :, :0])
    with raises(ValueError, "q must have shape (N, heads, L, d) with d at least 1, got (2, 3, 4)"):
        F.attention(q[..., 0], k, v)
    with raises(TypeError, "mixed dtypes"):
        F.attention(q.astype("float32"), k, v)
    with raises(ValueError, "dy has shape (2, 3, 4, 3), expected (2, 3, 4, 5)"):
        F.attention_backward(q, q, k, v)


def test_permute_is_its_inverse_backward(at, rng):
    x = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    layer = nn.Permute(3, 1, 2, backend=at.backend)
    y = layer(at.put(x))
    assert_match(y, x.transpose(0, 3, 1, 2), level="exact", backend=at.backend, dtype="float32")
    assert_match(layer.backward(y), x, level="exact", backend=at.backend, dtype="float32")
    assert layer.output_shape((2, 3, 4, 5)) == (2, 5, 3, 4) and repr(layer) == "Permute(3, 1, 2)"
    with raises(ValueError, "input must have 4 axes, got shape (2, 3)"):
        layer(at.put(x[..., 0, 0]))
    for wrong in ((0, 1), (1, 1), (2, 3), (1.0, 2.0)):
        with raises(ValueError, "axes must be the numbers from 1 on, each once"):
            nn.Permute(*wrong)
