"""Dropout of values and of channels."""

import copy
import pickle
import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d, dropout, dropout_backward
from xpnn.testing import assert_match, gradcheck

F32 = np.float32
KINDS = {Dropout: (4, 5), Dropout1d: (4, 5, 3), Dropout2d: (4, 5, 2, 3), Dropout3d: (4, 5, 2, 1, 3)}
every_kind = pytest.mark.parametrize(("kind", "shape"), KINDS.items(), ids=lambda p: getattr(p, "__name__", None))


class Repeated(nn.Layer):
    """A dropout layer that draws the same mask at every forward."""

    def __init__(self, inner):
        super().__init__(dtype="float64")
        self.inner = inner

    def _forward(self, x):
        self.inner.stream.position = 0
        return self.inner.forward(x)

    def _backward(self, dy, input_grad):
        return self.inner.backward(dy)


def masks(layer, put, count, shape=(8, 8)):
    """Which of ones are left, in forwards one after the other, on the host."""
    return [
        np.asarray(nn.backend_of(y).to_numpy(y)) > 0 for y in (layer(put(np.ones(shape, F32))) for _ in range(count))
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_kind
def test_what_is_kept_is_scaled_and_the_gradient_has_the_same_mask(at, rng, kind, shape, dtype):
    layer = kind(0.25, backend=at.backend, seed=1)
    host, upstream = (rng.standard_normal(shape) + 5 for _ in range(2))
    y = layer(at.put(host, dtype))
    keep = at.get(y) != 0
    assert keep.any()
    assert not keep.all()
    host, upstream = host.astype(dtype), upstream.astype(dtype)
    assert_match(y, (keep * host / 0.75).astype(dtype), backend=at.backend, dtype=dtype)
    dx = layer.backward(at.put(upstream, dtype))
    assert_match(dx, (keep * upstream / 0.75).astype(dtype), backend=at.backend, dtype=dtype)


@pytest.mark.parametrize("kind", [Dropout1d, Dropout2d, Dropout3d])
def test_channels_are_kept_or_dropped_whole_and_independently(at, kind):
    shape = (16, 8, *KINDS[kind][2:])
    keep = at.get(kind(backend=at.backend)(at.put(np.ones(shape, F32)))) > 0
    whole = keep.reshape(16, 8, -1)
    assert (whole == whole[..., :1]).all()
    assert len(np.unique(whole[..., 0], axis=0)) > 8
    assert len(np.unique(whole[..., 0], axis=1)) > 4


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_p(p):
    keep = masks(Dropout(p), lambda x: x, 1, (400, 500))[0]
    # Six standard deviations of a mean of 200000 draws.
    assert abs((1 - keep.mean()) - p) < 6 * np.sqrt(p * (1 - p) / keep.size)


def test_the_mask_is_the_same_on_every_backend_and_in_either_dtype(at):
    here = Dropout(0.3, backend=at.backend, seed=5)
    there = Dropout(0.3, backend="numpy", seed=5)
    wide = Dropout(0.3, backend=at.backend, seed=5)
    desired = masks(there, lambda x: x, 3)
    assert np.array_equal(masks(here, at.put, 3), desired)
    assert np.array_equal(masks(wide, lambda x: at.put(x, "float64"), 3), desired)


def test_the_mask_of_a_seed_stays_what_it_was():
    """A change of these bits changes every training run: it must be in the changelog."""
    keep = masks(Dropout(0.5, seed=1), lambda x: x, 1, (2, 16))[0]
    assert ["".join(map(str, row)) for row in keep.astype(int)] == ["0101110100101101", "1111101100010101"]


def test_forwards_layers_and_seeds_have_different_masks():
    model = nn.Sequential(Dropout(), Dropout(), seed=3)
    single = Dropout(seed=4)
    drawn = [*masks(model[0], lambda x: x, 2), *masks(model[1], lambda x: x, 2), *masks(single, lambda x: x, 2)]
    assert len({mask.tobytes() for mask in drawn}) == 6


def test_the_mask_depends_on_the_name_in_the_model_not_on_earlier_use():
    early = Dropout()
    assert early.stream.position == 0
    models = [nn.Sequential(nn.ReLU(), layer, seed=3) for layer in (early, Dropout())]
    first, second = (masks(model[1], lambda x: x, 2) for model in models)
    assert np.array_equal(first, second)


def test_evaluation_returns_the_input_itself_and_draws_nothing(at, rng):
    layer = Dropout(0.5, backend=at.backend).eval()
    x = at.put(rng.standard_normal((3, 4)), "float32")
    assert layer(x) is x
    assert layer.stream.position == 0


def test_with_p_0_all_is_kept_and_nothing_is_drawn(at, rng):
    layer = Dropout(0, backend=at.backend)
    x = at.put(rng.standard_normal((3, 4)), "float32")
    assert layer(x) is x
    assert layer.backward(x) is x
    assert layer.stream.position == 0


@pytest.mark.filterwarnings("error")
@every_kind
def test_with_p_1_all_is_zero_whatever_it_was(at, kind, shape):
    layer = kind(1.0, backend=at.backend)
    host = np.ones(shape, F32)
    host[0], host[1] = np.inf, np.nan
    x = at.put(host)
    for array in (layer(x), layer.backward(x)):
        assert_match(array, np.zeros(shape, F32), level="exact", backend=at.backend)


def test_what_is_dropped_is_zero_whatever_it_was_and_nan_passes_where_kept(at):
    keep = at.put([True, False, False, True, True])
    x = at.put(np.asarray([np.nan, np.nan, np.inf, np.inf, 3.0], F32))
    for function in (dropout, dropout_backward):
        assert_match(function(x, keep, 0.5), np.asarray([np.nan, 0, 0, np.inf, 6], F32), level="exact")


def test_nothing_is_changed(at, rng):
    host = rng.standard_normal((4, 6)).astype(F32)
    layer, stepped = Dropout(backend=at.backend), at.put(host.copy())
    x = at.xp.permute_dims(stepped[:, ::2], (1, 0))
    layer.backward(layer(x))
    assert_match(stepped, host, level="exact")


@every_kind
def test_backward_is_the_derivative_of_forward(rng, kind, shape):
    gradcheck(Repeated(kind(0.4, dtype="float64")), rng.standard_normal(shape))


@every_kind
def test_an_empty_batch_passes(at, kind, shape):
    layer = kind(backend=at.backend)
    x = at.put(np.zeros((0, *shape[1:]), F32))
    assert layer.backward(layer(x)).shape == x.shape


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_goes_on_where_the_layer_is(duplicate):
    layer = Dropout(seed=2)
    masks(layer, lambda x: x, 1)
    other = duplicate(layer)
    assert np.array_equal(masks(other, lambda x: x, 2), masks(layer, lambda x: x, 2))


def test_setting_the_position_goes_back():
    layer = Dropout()
    position = layer.stream.position
    first = masks(layer, lambda x: x, 2)
    layer.stream.position = position
    assert np.array_equal(masks(layer, lambda x: x, 2), first)


def test_a_moved_layer_goes_on_in_its_stream(at):
    stays, moves = Dropout(seed=1), Dropout(seed=1)
    first, second = masks(stays, lambda x: x, 2)
    assert np.array_equal(masks(moves, lambda x: x, 1)[0], first)
    assert np.array_equal(masks(moves.to(at.backend), at.put, 1)[0], second)


def test_a_step_reads_nothing_back(at):
    layer, x = Dropout(backend=at.backend), at.put(np.ones((4, 4), F32))
    before = at.backend.transfers
    layer.backward(layer(x))
    assert at.backend.transfers == before


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_p_out_of_range_is_an_error(p):
    message = re.escape(f"p must be a number from 0 to 1, got {p!r}")
    with pytest.raises(ValueError, match=message):
        Dropout(p)
    with pytest.raises(ValueError, match=message):
        dropout(np.ones(3), np.ones(3, bool), p)


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (Dropout1d(), (2, 3), "(N, C, *)"),
        (Dropout2d(), (2, 3, 4), "(N, C, *, *)"),
        (Dropout3d(), (), "(N, C, *, *, *)"),
    ],
    ids=str,
)
def test_input_of_another_rank_is_an_error_even_in_evaluation(layer, shape, wanted):
    for each in (layer, copy.deepcopy(layer).eval()):
        with pytest.raises(ValueError, match=re.escape(f"{layer!r}: input must have shape {wanted}, got {shape}")):
            each(np.zeros(shape, F32))


def test_integers_are_an_error():
    with pytest.raises(TypeError, match="must be a float32 or float64 array, got int64"):
        Dropout()(np.zeros((2, 3), np.int64))


def test_repr_is_the_call():
    assert [repr(layer) for layer in (Dropout(), Dropout(0.2), Dropout2d(p=1))] == [
        "Dropout()",
        "Dropout(p=0.2)",
        "Dropout2d(p=1.0)",
    ]
