"""Layers in mixed precision against float64 computed from rounded factors, and what they store for backward."""

import copy

import numpy as np
import pytest
from sixteen_bits import rounded

import xpnn as nn
from xpnn.backends.narrow import ROUNDOFF, Stored
from xpnn.layers.core.precision import computing_in

CONVOLUTIONS = {
    "many channels, which Winograd would transform": (nn.Conv2d, (64, 40, 3), {"padding": 1}, (2, 64, 9, 8)),
    "few channels": (nn.Conv2d, (3, 4, 5), {"padding": 2}, (3, 3, 12, 11)),
    "stride, dilation, asymmetric padding": (
        nn.Conv2d,
        (4, 6, (3, 2)),
        {"stride": (2, 1), "dilation": (1, 2), "padding": ((0, 2), (1, 0))},
        (3, 4, 9, 7),
    ),
    "groups": (nn.Conv2d, (4, 6, 3), {"groups": 2, "padding": 1}, (2, 4, 6, 5)),
    "depthwise": (nn.Conv2d, (6, 6, 3), {"groups": 6, "padding": 1}, (2, 6, 7, 5)),
    "one dimension, no bias": (nn.Conv1d, (3, 5, 4), {"bias": False}, (2, 3, 9)),
    "three dimensions": (nn.Conv3d, (2, 3, 2), {}, (2, 2, 4, 3, 4)),
    "one cell": (nn.Conv2d, (1, 1, 1), {}, (1, 1, 1, 1)),
    "no samples": (nn.Conv2d, (3, 4, 3), {}, (0, 3, 6, 6)),
    "transposed": (nn.ConvTranspose2d, (4, 3, 3), {"stride": 2, "output_padding": 1}, (2, 4, 5, 4)),
}


def filled(layer, rng):
    """A layer with a bias that is not 0."""
    for _, parameter in layer.named_parameters():
        parameter.value = layer.backend.asarray(rng.normal(size=parameter.shape).astype(np.float32))
    return layer


def assert_near(b, found, expected, what):
    """To the rounding of float32 sums: far less than rounding to 16 bits makes."""
    assert str(found.dtype).endswith("float32")
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(b.to_numpy(found), expected, rtol=0, atol=2e-6 * scale, err_msg=what)


def in_float64(kind, arguments, options, values, x, dy):
    """Output and gradients of a layer with these values, in float64."""
    wide = kind(*arguments, **options, backend="numpy", dtype="float64")
    for name, value in values.items():
        wide.parameters[name].value = value
    y = wide(x)
    dx = wide.backward(dy)
    return y, dx, {name: parameter.grad for name, parameter in wide.parameters.items()}


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "dense", "dense of sequences"])
def test_products_are_of_rounded_factors_with_float32_sums(mixed, name, rng):
    dense = {"dense": (50, 40), "dense of sequences": (4, 3, 40)}
    if name in dense:
        kind, arguments, options, shape = nn.Dense, (40, 30), {}, dense[name]
    else:
        kind, arguments, options, shape = CONVOLUTIONS[name]
    layer = filled(kind(*arguments, **options, backend=mixed), rng)
    x = rng.normal(size=shape).astype(np.float32)
    y = layer(mixed.asarray(x))
    dy = rng.normal(size=y.shape).astype(np.float32)
    dx = layer.backward(mixed.asarray(dy))

    def narrow(array):
        return rounded(array, mixed.precision)

    exact = {key: mixed.to_numpy(parameter.value) for key, parameter in layer.parameters.items()}
    # The bias is added in float32.
    values = {key: narrow(value) if key == "weight" else value.astype(np.float64) for key, value in exact.items()}
    expected, dx_expected, grads = in_float64(kind, arguments, options, values, narrow(x), narrow(dy))
    assert_near(mixed, y, expected, "output")
    assert_near(mixed, dx, dx_expected, "dx")
    for key, gradient in grads.items():
        assert_near(mixed, layer.parameters[key].grad, gradient, key)
    if x.size > 100:
        # The bound would notice a factor that is not rounded.
        full = {key: value.astype(np.float64) for key, value in exact.items()}
        for changed, other in ((narrow(x), full), (x, values)):
            unlike, _, _ = in_float64(kind, arguments, options, other, changed.astype(np.float64), narrow(dy))
            assert np.abs(unlike - expected).max() > 20e-6 * np.abs(expected).max()
    layer.eval()
    assert_near(mixed, layer(mixed.asarray(x)), expected, "in evaluation")


def test_attention_multiplies_rounded_factors(mixed, rng):
    layer = filled(nn.MultiHeadAttention(6, 2, causal=True, backend=mixed), rng)
    x = rng.normal(size=(2, 5, 6)).astype(np.float32)

    def narrow(array):
        return rounded(np.asarray(array, np.float32), mixed.precision)

    w = {key: mixed.to_numpy(parameter.value) for key, parameter in layer.parameters.items()}

    def attended(narrow):
        joined = narrow(x) @ narrow(w["in_proj_weight"]).T + w["in_proj_bias"]
        q, k, v = joined.reshape(2, 5, 3, 2, 3).transpose(2, 0, 3, 1, 4)
        scores = narrow(q / np.sqrt(3.0)) @ narrow(k).swapaxes(2, 3)
        scores = np.where(np.tri(5) > 0, scores, -np.inf)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        y = (narrow(e / e.sum(-1, keepdims=True)) @ narrow(v)).transpose(0, 2, 1, 3).reshape(2, 5, 6)
        return narrow(y) @ narrow(w["out_proj.weight"]).T + w["out_proj.bias"]

    expected, full = attended(narrow), attended(lambda array: np.asarray(array, np.float64))
    unit = ROUNDOFF[mixed.precision]
    found = mixed.to_numpy(layer(mixed.asarray(x)))
    # A rounding of float32 before may move a factor to the next 16-bit number.
    assert np.abs(found - expected).max() < 0.1 * np.abs(full - expected).max() + 0.2 * unit * np.abs(expected).max()
    dy = rng.normal(size=x.shape).astype(np.float32)
    dx = mixed.to_numpy(layer.backward(mixed.asarray(dy)))
    wide = nn.MultiHeadAttention(6, 2, causal=True, backend="numpy", dtype="float64")
    for key, value in w.items():
        wide.parameters[key].value = value.astype(np.float64)
    wide(x.astype(np.float64))
    np.testing.assert_allclose(dx, wide.backward(dy.astype(np.float64)), rtol=0, atol=60 * unit * np.abs(dx).max())
    for key, parameter in wide.parameters.items():
        found = mixed.to_numpy(layer.parameters[key].grad)
        np.testing.assert_allclose(found, parameter.grad, rtol=0, atol=60 * unit * np.abs(parameter.grad).max())


def test_a_weight_that_changes_in_evaluation_is_rounded_again(mixed, rng):
    layer, x = nn.Conv2d(3, 4, 3, backend=mixed), mixed.asarray(rng.normal(size=(2, 3, 6, 6)).astype(np.float32))
    layer.eval()
    before = [mixed.to_numpy(layer(x)) for _ in range(3)][-1]
    layer.parameters["weight"].value = layer.parameters["weight"].value * 2.0
    np.testing.assert_allclose(mixed.to_numpy(layer(x)), 2.0 * before, rtol=0, atol=1e-5)


def stored_bytes(model):
    """Bytes of all arrays that layers saved, each counted once."""
    found = {}

    def look(value):
        if isinstance(value, Stored):
            found[id(value.array)] = value.array
        elif hasattr(value, "nbytes"):
            found[id(value)] = value
        elif isinstance(value, tuple):
            for each in value.stored() if hasattr(value, "stored") else value:
                look(each)
        elif hasattr(value, "__dataclass_fields__"):
            for each in vars(value).values():
                look(each)

    for _, layer in model.named_layers():
        look(layer.saved)
    return sum(each.nbytes for each in found.values())


def net(backend):
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Dense(2048, 10)),
        backend=backend,
        seed=1,
    )


def test_what_backward_needs_takes_half_the_memory(mixed, rng):
    plain = nn.get_backend(mixed, precision="float32")
    x = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
    sizes = []
    for backend in (plain, mixed):
        model = net(backend)
        model(backend.asarray(x))
        sizes.append(stored_bytes(model))
    # The statistics of the norm stay in float32; an output that two layers need is stored once.
    assert 0.5 <= sizes[1] / sizes[0] < 0.55
    assert model[4].saved.stored()[0] is model[5].saved.stored()[0]
    model.eval()
    model(mixed.asarray(x))
    assert stored_bytes(model) == 0


def test_norms_softmax_and_losses_compute_in_float32(mixed, rng):
    plain = nn.get_backend(mixed, precision="float32")
    x = rng.normal(2.0, 3.0, size=(16, 6)).astype(np.float32)
    dy = rng.normal(size=(16, 6)).astype(np.float32)
    for make in (nn.BatchNorm1d, nn.LayerNorm):
        one, other = make(6, backend=plain), make(6, backend=mixed)
        np.testing.assert_array_equal(plain.to_numpy(one(plain.asarray(x))), mixed.to_numpy(other(mixed.asarray(x))))
        found = mixed.to_numpy(other.backward(mixed.asarray(dy)))
        expected = plain.to_numpy(one.backward(plain.asarray(dy)))
        # Backward reads the input in 16 bits.
        np.testing.assert_allclose(found, expected, rtol=0, atol=20 * ROUNDOFF[mixed.precision])
        assert (found != expected).any()
    one, other = nn.Softmax(backend=plain), nn.Softmax(backend=mixed)
    np.testing.assert_array_equal(plain.to_numpy(one(plain.asarray(x))), mixed.to_numpy(other(mixed.asarray(x))))
    both = plain.to_numpy(one.backward(plain.asarray(dy))), mixed.to_numpy(other.backward(mixed.asarray(dy)))
    np.testing.assert_array_equal(*both)


def test_batch_norm_is_not_folded_into_a_weight_that_is_rounded(mixed, rng):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), backend=mixed, seed=2).eval()
    x = mixed.asarray(rng.normal(size=(2, 3, 8, 8)).astype(np.float32))
    plain = mixed.asarray(x)
    for layer in model:
        plain = layer(plain)
    for _ in range(12):
        np.testing.assert_array_equal(mixed.to_numpy(model(x)), mixed.to_numpy(plain))


def test_backward_may_be_called_again_and_frees_within_released(mixed, rng):
    model = net(mixed)
    x = mixed.asarray(rng.normal(size=(2, 3, 16, 16)).astype(np.float32))
    y = model(x)
    dy = mixed.asarray(rng.normal(size=y.shape).astype(np.float32))
    first, second = (mixed.to_numpy(model.backward(dy)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with nn.released():
        model.backward(dy)
    assert stored_bytes(model) == 0


def test_an_input_that_the_user_overwrites_between_steps_is_read_anew(mixed, rng):
    model = nn.Dense(6, 4, backend=mixed)
    x = mixed.asarray(rng.normal(size=(5, 6)).astype(np.float32))
    x = x.copy() if isinstance(x, np.ndarray) else x
    y = model(x)
    dy = mixed.xp.ones_like(y)
    model.backward(dy)
    x[...] = x * 3.0
    model.zero_grad()
    model(x)
    model.backward(dy)
    expected = rounded(mixed.to_numpy(x), mixed.precision).sum(axis=0)
    np.testing.assert_allclose(mixed.to_numpy(model.parameters["weight"].grad)[0], expected, rtol=1e-5, atol=1e-5)


def test_checkpointed_layers_have_the_same_bits(mixed, rng):
    def make(checkpoint):
        part = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU())
        # With a backend of its own a container would store its input in 16 bits.
        first = nn.Checkpointed(part, backend=mixed) if checkpoint else part
        return nn.Sequential(first, nn.Conv2d(4, 2, 3), backend=mixed, seed=4)

    x = mixed.asarray(rng.normal(size=(2, 3, 9, 9)).astype(np.float32))
    found = []
    for checkpoint in (False, True):
        model = make(checkpoint)
        y = model(x)
        dx = model.backward(mixed.xp.ones_like(y))
        found.append([mixed.to_numpy(each) for each in (y, dx, *(p.grad for _, p in model.named_parameters()))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_numbers_beyond_float16_become_infinite_and_those_of_bfloat16_stay(mixed):
    layer = nn.Dense(1, 1, backend=mixed)
    layer.parameters["weight"].value = mixed.asarray(np.ones((1, 1), np.float32))
    y = mixed.to_numpy(layer(mixed.asarray(np.float32([[1e5], [np.nan], [-np.inf]]))))[:, 0]
    assert y[0] == (np.inf if mixed.precision == "float16" else 99840.0)
    assert np.isnan(y[1]) and y[2] == -np.inf


def test_a_model_with_saved_arrays_is_copied(mixed, rng):
    model = net(mixed)
    y = model(mixed.asarray(rng.normal(size=(2, 3, 16, 16)).astype(np.float32)))
    other = copy.deepcopy(model)
    dy = mixed.xp.ones_like(y)
    np.testing.assert_array_equal(mixed.to_numpy(model.backward(dy)), mixed.to_numpy(other.backward(dy)))


def test_batch_norm_of_rows_with_gaps(mixed, rng):
    """A kernel that is passed the distance between rows must find them there."""
    x = rng.normal(size=(8, 5, 5, 12)).astype(np.float32)
    strided = mixed.xp.permute_dims(mixed.asarray(x), (0, 3, 1, 2))[:, :4, ...]
    dy = mixed.asarray(rng.normal(size=(8, 4, 5, 5)).astype(np.float32))
    found = []
    for array in (strided, mixed.asarray(np.ascontiguousarray(x.transpose(0, 3, 1, 2)[:, :4]))):
        layer = nn.BatchNorm2d(4, backend=mixed)
        layer(array)
        found.append(mixed.to_numpy(layer.backward(dy)))
    np.testing.assert_allclose(*found, rtol=0, atol=10 * ROUNDOFF[mixed.precision])


def test_a_model_in_another_precision_for_a_while_is_the_same_afterwards(mixed, rng):
    # The same algorithms in both, whose kept values have the same names.
    plain = nn.get_backend(mixed, precision="float32", algorithms="direct")
    model, other = (
        nn.Sequential(net(b), nn.Checkpointed(nn.Dense(10, 3)), backend=b, seed=1).eval()
        for b in (plain, nn.get_backend(plain, precision=mixed.precision))
    )
    x = plain.asarray(rng.normal(size=(4, 3, 16, 16)).astype(np.float32))
    before, placed = plain.to_numpy(model(x)), [layer._backend for _, layer in model.named_layers()]
    with computing_in(model, mixed.precision):
        assert {layer.backend.precision for _, layer in model.named_layers()} == {mixed.precision}
        rough = [mixed.to_numpy(model(x)) for _ in range(3)]
        for each in rough:
            np.testing.assert_array_equal(each, mixed.to_numpy(other(x)))
    assert (rough[0] != before).any()
    np.testing.assert_allclose(rough[0], before, rtol=0, atol=20 * ROUNDOFF[mixed.precision])
    assert [layer._backend for _, layer in model.named_layers()] == placed
    # What layers kept in evaluation was made of rounded weights.
    np.testing.assert_array_equal(plain.to_numpy(model(x)), before)
    with pytest.raises(ValueError, match="precision must be"), computing_in(model, "float8"):
        pass
    assert [layer._backend for _, layer in model.named_layers()] == placed
