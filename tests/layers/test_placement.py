"""The backend of layers, their random numbers, and moving them."""

import re

import numpy as np
import pytest

import xpnn as nn
from xpnn.testing import assert_match


def raises(error, message):
    return pytest.raises(error, match=re.escape(message))


def spec(layer):
    return layer.backend.spec


def test_a_layer_computes_on_numpy_by_default():
    assert spec(nn.ReLU()) == spec(nn.Sequential(nn.ReLU())) == "numpy"


def test_environment_variable_comes_before_numpy(monkeypatch):
    monkeypatch.setenv("XPNN_BACKEND", "strict")
    assert spec(nn.Dense(2, 1)) == "strict"
    assert spec(nn.Sequential(nn.Dense(2, 1))[0]) == "strict"


def test_use_backend_comes_before_the_environment_variable(monkeypatch):
    monkeypatch.setenv("XPNN_BACKEND", "torch")
    with nn.use_backend("strict"):
        inside = nn.Dense(2, 1)
        with nn.use_backend("strict:device1"):
            innermost = nn.Dense(2, 1)
        again = nn.Dense(2, 1)
    # the block in which the layer is made counts, not the one in which it is first used
    assert [spec(layer) for layer in (inside, innermost, again)] == ["strict", "strict:device1", "strict"]


def test_container_comes_before_use_backend():
    with nn.use_backend("strict"):
        model = nn.Sequential(nn.Dense(2, 1), nn.Sequential(nn.Dense(1, 1)), backend="strict:device1")
    assert {spec(layer) for _, layer in model.named_layers()} == {"strict:device1"}


def test_own_backend_comes_before_the_container():
    inner = nn.Sequential(nn.ReLU(), nn.ReLU(backend="numpy"), backend="strict:device1")
    model = nn.Sequential(nn.ReLU(), nn.ReLU(backend="numpy"), inner, backend="strict")
    assert [spec(layer) for layer in model[:2]] == ["strict", "numpy"]
    assert [spec(layer) for layer in inner] == ["strict:device1", "numpy"]


def test_a_container_without_a_backend_does_not_move_its_layers():
    model = nn.Sequential(nn.ReLU(backend="strict"), nn.ReLU())
    assert [spec(layer) for layer in model] == ["strict", "numpy"]
    assert spec(model) == "strict"


def test_layer_that_was_used_before_moves_into_its_container():
    layer = nn.Dense(2, 1, seed=3)
    before = layer.parameters["weight"].value
    model = nn.Sequential(layer, backend="strict")
    assert_match(model[0].parameters["weight"].value, before, level="exact", backend="strict")


def test_backend_may_be_a_name_a_backend_or_a_namespace(at):
    for given in (at.backend.spec, at.backend):
        assert nn.ReLU(backend=given).backend.spec == at.backend.spec
    assert nn.ReLU(backend=np).backend.spec == "numpy"


def test_dtype_of_the_container_is_that_of_its_layers():
    model = nn.Sequential(nn.Dense(2, 1), nn.Dense(1, 1, dtype="float32"), dtype="float64")
    assert [layer.backend.dtype_name for layer in model] == ["float64", "float32"]
    assert model[0].parameters["weight"].value.dtype == np.float64


@pytest.mark.parametrize("placement", [{"dtype": "float16"}, {"dtype": "int32"}, {"numerics": "sloppy"}], ids=str)
def test_an_invalid_setting_is_an_error_of_the_constructor(placement):
    with pytest.raises(ValueError, match=r"^(dtype|numerics) must be .* or .*, got"):
        nn.Dense(2, 1, **placement)


def test_an_unknown_backend_is_an_error_of_the_constructor():
    with raises(ValueError, "backend must be numpy, cupy, torch, strict or auto, got 'abacus'"):
        nn.ReLU(backend="abacus")


def test_an_unknown_keyword_is_an_error_that_names_it():
    with raises(TypeError, "ReLU got an unexpected keyword argument: device"):
        nn.ReLU(device="cuda")
    with raises(TypeError, "Sequential got an unexpected keyword argument: name"):
        nn.Sequential(name="net")


def build(seed=1, **placement):
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.Sequential(nn.Dense(4, 4), nn.Dense(4, 4, weight_init=nn.initialisers.he_normal())),
        nn.Dense(4, 4, weight_init=nn.initialisers.orthogonal()),
        seed=seed,
        **placement,
    )


def weights(model):
    return {name: nn.backends.to_host(value) for name, value in model.state_dict().items() if "weight" in name}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_seed_gives_the_same_bits_on_every_backend(at, dtype):
    desired = build(dtype=dtype).state_dict()
    actual = build(backend=at.backend, dtype=dtype).state_dict()
    assert actual.keys() == desired.keys()
    for name, value in actual.items():
        assert_match(value, desired[name], level="exact", backend=at.backend, dtype=dtype, name=name)


def test_equal_layers_at_different_places_have_different_weights():
    model = nn.Sequential(*(nn.Dense(4, 4) for _ in range(3)), nn.Sequential(nn.Dense(4, 4), nn.Dense(4, 4)), seed=1)
    values = [v.tobytes() for v in weights(model).values()]
    assert len(set(values)) == len(values) == 5


def test_weights_depend_on_the_seed():
    assert not np.array_equal(weights(build(1))["0.weight"], weights(build(2))["0.weight"])
    assert np.array_equal(weights(build(1))["0.weight"], weights(build(1))["0.weight"])


def test_weights_do_not_depend_on_the_order_of_their_creation():
    forwards, backwards = build(), build()
    for model, order in ((forwards, 1), (backwards, -1)):
        for _, parameter in list(model.named_parameters())[::order]:
            _ = parameter.value
    for name, value in weights(forwards).items():
        assert_match(weights(backwards)[name], value, level="exact")


def test_weights_do_not_depend_on_other_layers():
    longer = nn.Sequential(nn.Dense(3, 3), nn.Dense(4, 4), nn.Dense(5, 5), seed=1)
    shorter = nn.Sequential(nn.ReLU(), nn.Dense(4, 4), seed=1)
    assert_match(weights(longer)["1.weight"], weights(shorter)["1.weight"], level="exact")


def test_own_seed_comes_before_the_container():
    model = nn.Sequential(nn.Dense(4, 4, seed=7), nn.Sequential(nn.Dense(4, 4), seed=8), seed=1)
    same_seeds = nn.Sequential(nn.Dense(4, 4), seed=7), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Dense(4, 4)), seed=8)
    assert_match(weights(model)["0.weight"], weights(same_seeds[0])["0.weight"], level="exact")
    assert_match(weights(model)["1.0.weight"], weights(same_seeds[1])["1.0.weight"], level="exact")


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, 2**64])
def test_seed_out_of_range_is_an_error(seed):
    with raises(ValueError, "seed must be an integer from 0 to 2**64 - 1"):
        _ = nn.Dense(2, 2, seed=seed).parameters["weight"].value


def trained(optimizer, **settings):
    """A model on NumPy after a step and the backward of the next, and its optimizer."""
    model = build()
    moments = optimizer(model, **settings)
    for step in (True, False):
        for _, parameter in model.named_parameters():
            parameter.accumulate(np.full(parameter.shape, 0.5, np.float32))
        if step:
            moments.step()
    return model, moments


@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize(("optimizer", "settings"), [(nn.SGD, {"lr": 0.1, "momentum": 0.9}), (nn.Adam, {"lr": 0.1})])
def test_moving_includes_values_gradients_and_optimizer_states(at, optimizer, settings, dtype):
    model, moments = trained(optimizer, **settings)
    stay, kept = trained(optimizer, **settings)
    assert model.to(at.backend.spec, dtype) is model
    kind = dtype or "float32"
    for (name, parameter), (_, original) in zip(model.named_parameters(), stay.named_parameters(), strict=True):
        for a, d in ((parameter.value, original.value), (parameter.grad, original.grad)):
            assert_match(a, d, level="exact", backend=at.backend, dtype=kind, name=name)
        state, before = parameter.states[moments], original.states[kept]
        arrays = [key for key, value in before.items() if hasattr(value, "dtype")]
        assert arrays
        for key in arrays:
            assert_match(state[key], before[key], level="exact", backend=at.backend, dtype=kind, name=f"{name} {key}")
    moments.step()


def test_moving_to_another_backend_and_back_changes_no_bit(at):
    model = build()
    before = weights(model)
    model.to(at.backend).to("numpy")
    for name, value in weights(model).items():
        assert_match(value, before[name], level="exact", backend="numpy")


def test_moving_before_first_use_gives_the_same_weights(at):
    for name, value in build().to(at.backend).state_dict().items():
        assert_match(value, build().state_dict()[name], level="exact", backend=at.backend)


def test_model_computes_where_it_was_moved(at, rng):
    x = rng.standard_normal((3, 4)).astype(np.float32)
    model = nn.Sequential(nn.Dense(4, 3), nn.Tanh(), nn.Dense(3, 2), seed=2)
    y = model(x)
    assert_match(model.to(at.backend)(at.put(x)), y, level="network", terms=4, backend=at.backend)


def test_moving_frees_what_the_last_forward_saved():
    layer = nn.ReLU()
    layer(np.ones((1, 1), np.float32))
    layer.to("strict")
    with raises(RuntimeError, "ReLU(): backward needs a forward before it"):
        layer.backward(layer.backend.asarray([[1.0]]))


def test_moving_by_name_keeps_the_dtype():
    layer = nn.Dense(2, 1, dtype="float64").to("strict")
    assert layer.backend.dtype_name == "float64"
    assert layer.to(nn.get_backend("numpy", "float32")).backend.dtype_name == "float32"


def test_every_layer_of_a_moved_model_moves_even_one_with_a_backend_of_its_own():
    model = nn.Sequential(nn.ReLU(backend="strict"), nn.Sequential(nn.Dense(2, 2, backend="numpy"))).to(
        "strict:device1"
    )
    assert {spec(layer) for _, layer in model.named_layers()} == {"strict:device1"}
