"""Layers that are computed together give what they give one after the other."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.layers.containers import folding, fusion
from xpnn.layers.core.layer_outputs import watched
from xpnn.testing import assert_match
from xpnn.testing.compare import same_bits


def apart(model):
    """Within this block each layer of the model is computed by itself."""
    return watched(model, forward=lambda name, layer, y: None)


BEFORE_RELU = {
    "conv": ((2, 3, 6, 6), lambda: [nn.Conv2d(3, 4, 3)]),
    "conv without bias": ((2, 3, 6, 6), lambda: [nn.Conv2d(3, 4, 1, bias=False)]),
    "conv, much padding": ((1, 2, 4, 4), lambda: [nn.Conv2d(2, 2, 3, padding=5000, dilation=5000, stride=5000)]),
    "conv, large": ((2, 8, 260, 260), lambda: [nn.Conv2d(8, 8, 3)]),
    "depthwise": ((2, 4, 6, 6), lambda: [nn.Conv2d(4, 8, 3, groups=4)]),
    "conv transpose": ((2, 4, 6, 6), lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)]),
    "conv transpose without bias": ((2, 4, 6), lambda: [nn.ConvTranspose1d(4, 6, 3, bias=False)]),
    "dense": ((5, 7), lambda: [nn.Dense(7, 4)]),
    "dense of three axes": ((5, 2, 7), lambda: [nn.Dense(7, 4, bias=False)]),
    "batch norm": ((4, 3, 5, 5), lambda: [nn.BatchNorm2d(3)]),
    "batch norm of rows": ((4, 3), lambda: [nn.BatchNorm1d(3)]),
    "batch norm without weight": ((4, 3, 5, 5), lambda: [nn.BatchNorm2d(3, affine=False)]),
    "batch norm without statistics": ((4, 3, 5, 5), lambda: [nn.BatchNorm2d(3, track_running_stats=False)]),
    "batch norm, channels last": (
        (2, 8, 260, 260),
        lambda: [nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)],
    ),
    "conv and batch norm": ((4, 3, 6, 6), lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)]),
}


def state(at, model):
    arrays = [at.get(p.grad) for _, p in model.named_parameters() if p.grad is not None]
    return [*arrays, *(at.get(array).copy() for _, layer in model.named_layers() for array in layer.buffers.values())]


@pytest.mark.parametrize("case", BEFORE_RELU)
def test_relu_computed_with_the_layer_before_has_the_same_bits(at, rng, case):
    shape, layers = BEFORE_RELU[case]
    if np.prod(shape) > 1e6 and at.name != "numpy":
        pytest.skip("blocks on workers are NumPy's")
    host = rng.standard_normal(shape)
    results = []
    for together in (True, False):
        model = nn.Sequential(*layers(), nn.ReLU(), nn.Tanh(), backend=at.backend, seed=1)
        x = at.put(host, "float32")
        with apart(nn.Identity()) if together else apart(model):
            y = model(x)
        relu = model[-2]
        assert relu.saved[0] is not None and tuple(relu.saved[0].shape) == tuple(y.shape)
        dx = model.backward(at.put(np.cos(np.arange(np.prod(y.shape))).reshape(y.shape), "float32"))
        found = [at.get(y), at.get(dx), at.get(relu.saved[0]), *state(at, model)]
        model.eval()
        with apart(nn.Identity()) if together else apart(model):
            evaluated = at.get(model(x))
        if "and batch norm" not in case and "channels last" not in case:
            found.append(evaluated)
        assert relu.saved is None
        results.append(found)
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("shape", [(3, 4, 5, 5), (2, 16, 200, 200)])
def test_the_sum_of_a_residual_block_and_relu_have_the_same_bits(at, rng, shape):
    if np.prod(shape) > 1e6 and at.name != "numpy":
        pytest.skip("blocks on workers are NumPy's")
    host, results = rng.standard_normal(shape), []
    for together in (True, False):
        model = nn.Residual(nn.Tanh(), None, nn.ReLU(), backend=at.backend)
        x = at.put(host, "float32")
        with apart(nn.Identity()) if together else apart(model):
            y = model(x)
        assert model.children["activation"].saved[0] is y
        results.append([at.get(y).copy(), at.get(model.backward(y)), at.get(x)])
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_relu_of_special_values_is_the_same(at):
    values = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 3e38]
    x = at.put(np.array([values]), "float32")
    model = nn.Sequential(nn.Dense(1, 8, backend=at.backend), nn.ReLU(), backend=at.backend)
    for bias in (x[0, :],):
        model[0].parameters["bias"].value = bias
        zero = at.put(np.zeros((2, 1)), "float32")
        found = at.get(model(zero))
        with apart(model):
            wanted = at.get(model(zero))
        assert same_bits(found, wanted)
        assert not np.signbit(found[:, :2]).any()


FOLDED = {
    "conv": ((3, 3, 7, 7), lambda: [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)]),
    "conv without bias": ((3, 3, 7, 7), lambda: [nn.Conv2d(3, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6)]),
    "conv without weight of the norm": ((3, 3, 7), lambda: [nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6, affine=False)]),
    "neither": ((3, 3, 7), lambda: [nn.Conv1d(3, 6, 3, bias=False), nn.BatchNorm1d(6, affine=False)]),
    "groups": ((3, 4, 7, 7), lambda: [nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, eps=0.1)]),
    "depthwise": ((3, 4, 7, 7), lambda: [nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8)]),
    "three axes": ((2, 2, 4, 4, 4), lambda: [nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)]),
    "transposed": ((3, 4, 5, 5), lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)]),
    "transposed groups": ((3, 4, 5), lambda: [nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)]),
    "Winograd": ((2, 64, 16, 16), lambda: [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)]),
    "large weight": ((1, 128, 25, 24), lambda: [nn.Conv2d(128, 128, 3, 6), nn.BatchNorm2d(128)]),
    "dense": ((5, 7), lambda: [nn.Dense(7, 4), nn.BatchNorm1d(4)]),
    "dense without bias": ((4, 7), lambda: [nn.Dense(7, 4, bias=False), nn.BatchNorm1d(4)]),
    "not folded: dense of three axes": ((5, 4, 7), lambda: [nn.Dense(7, 4), nn.BatchNorm1d(4)]),
    "not folded: small output": ((1, 128, 4, 4), lambda: [nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128)]),
    "not folded: one row": ((1, 7), lambda: [nn.Dense(7, 4), nn.BatchNorm1d(4)]),
    "not folded: empty batch": ((0, 3, 7, 7), lambda: [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)]),
}


def with_numbers(at, model, rng):
    """A model in evaluation whose parameters and statistics are far from their initial values."""
    for layer in model:
        for parameter in layer.parameters.values():
            parameter.value = at.put(rng.standard_normal(parameter.shape), "float32")
        if "running_var" in layer.buffers:
            shape = layer.buffers.shape("running_var")
            layer.buffers["running_mean"] = at.put(rng.standard_normal(shape), "float32")
            layer.buffers["running_var"] = at.put(rng.uniform(0.3, 3.0, shape), "float32")
    return model.eval()


def count_folds(monkeypatch):
    """The results of the folded forward, as they are computed."""
    found, forward = [], fusion.forward_folded

    def counting(*arguments):
        found.append(forward(*arguments))
        return found[-1]

    monkeypatch.setattr(fusion, "forward_folded", counting)
    return found


@pytest.mark.parametrize("with_relu", [False, True])
@pytest.mark.parametrize("case", FOLDED)
def test_a_folded_batch_norm_is_that_of_float64(at, rng, monkeypatch, case, with_relu):
    shape, layers = FOLDED[case]
    model = nn.Sequential(*layers(), *[nn.ReLU()] * with_relu, backend=at.backend)
    with_numbers(at, model, rng)
    folds = count_folds(monkeypatch)
    host = rng.standard_normal(shape).astype(np.float32)
    found = model(at.put(host, "float32"))
    assert len(folds) == (at.backend.spec == "numpy" and not case.startswith("not folded"))
    assert all(y is not None for y in folds)
    wide = nn.Sequential(*layers(), *[nn.ReLU()] * with_relu, backend="numpy", dtype="float64")
    wide.load_state_dict({name: at.get(array) for name, array in model.state_dict().items()})
    with apart(wide):
        wanted = wide.eval()(host.astype(np.float64))
    terms = int(np.prod(model[0].parameters["weight"].shape[1:])) + 4
    operation = "Winograd F4" if case == "Winograd" else "net"
    assert_match(found, wanted.astype(np.float32), level=operation, terms=terms, backend=at.backend)
    assert all(layer.saved is None for layer in model)
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        model.backward(found)


def test_a_folded_forward_frees_what_training_saved(rng):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend="numpy")
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    model(x)
    for _, layer in model.named_layers():
        layer.training = False
    model(x)
    assert [layer.saved for layer in model] == [None] * 3


def test_folding_rounds_once(rng):
    model = nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1, eps=0.0), backend="numpy").eval()
    conv, norm = model
    for w, gamma, var in rng.uniform(0.5, 2.0, (50, 3)).astype(np.float32):
        conv.parameters["weight"].value = np.full((1, 1, 1), w)
        norm.parameters["weight"].value, norm.buffers["running_var"] = np.full(1, gamma), np.full(1, var)
        exact = np.float64(w) * (1.0 / np.sqrt(np.float64(var)) * np.float64(gamma))
        assert model(np.ones((1, 1, 1), np.float32))[0, 0, 0] == np.float32(exact)


def set_to(layer, name, value):
    array = np.array(layer.parameters[name].value if name in layer.parameters else layer.buffers[name])
    array.ravel()[0] = value
    if name in layer.parameters:
        layer.parameters[name].value = array
    else:
        layer.buffers[name] = array


NOT_FINITE = {
    "NaN in the weight": lambda conv, norm: set_to(conv, "weight", np.nan),
    "infinity in the weight": lambda conv, norm: set_to(conv, "weight", np.inf),
    "NaN in the mean": lambda conv, norm: set_to(norm, "running_mean", np.nan),
    "infinity in the bias": lambda conv, norm: set_to(norm, "bias", -np.inf),
    "negative variance": lambda conv, norm: set_to(norm, "running_var", -1.0),
    "a product that overflows": lambda conv, norm: (set_to(conv, "weight", 3e38), set_to(norm, "weight", 100.0)),
    "no variance and no eps": lambda conv, norm: (set_to(norm, "running_var", 0.0), setattr(norm, "eps", 0.0)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", NOT_FINITE)
def test_numbers_that_are_not_finite_are_not_folded(rng, monkeypatch, case):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend="numpy", seed=1).eval()
    NOT_FINITE[case](*model[:2])
    folds = count_folds(monkeypatch)
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    x[0, 0, 0, 0] = 0.0
    found = [model(x) for _ in range(3)]
    assert [y is None for y in folds] == [True] * 3
    with apart(model):
        wanted = model(x)
    assert all(np.array_equal(each, wanted, equal_nan=True) for each in found)


def test_zero_variance_is_folded(rng, monkeypatch):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), backend="numpy", seed=1).eval()
    set_to(model[1], "running_var", 0.0)
    folds = count_folds(monkeypatch)
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    found = model(x)
    assert folds[0] is found
    with apart(model):
        assert_match(found, model(x), level="net", terms=20)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_special_inputs_reach_the_same_outputs_of_a_folded_net(rng, value):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend="numpy", seed=1).eval()
    x = rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    x[0, 1, 2, 3] = value
    found = model(x)
    with apart(model):
        wanted = model(x)
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.array_equal(np.isinf(found), np.isinf(wanted))


class OwnConv(nn.Conv2d):
    def _forward(self, x):
        return super()._forward(x) * 2.0


class OwnNorm(nn.BatchNorm2d):
    def _forward(self, x):
        return super()._forward(x) + 1.0


class OwnReLU(nn.ReLU):
    def _forward(self, x):
        return super()._forward(x) + 1.0


def shifted(layer):
    forward = layer.forward
    layer.forward = lambda x: forward(x) + 1.0
    return layer


UNUSUAL = {
    "a subclass of a convolution": lambda: [OwnConv(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()],
    "a subclass of a norm": lambda: [nn.Conv2d(2, 3, 3), OwnNorm(3), nn.ReLU()],
    "a subclass of ReLU": lambda: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), OwnReLU()],
    "a replaced forward of a convolution": lambda: [shifted(nn.Conv2d(2, 3, 3)), nn.BatchNorm2d(3), nn.ReLU()],
    "a replaced forward of a norm": lambda: [nn.Conv2d(2, 3, 3), shifted(nn.BatchNorm2d(3)), nn.ReLU()],
    "a replaced forward of ReLU": lambda: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), shifted(nn.ReLU())],
    "a norm that trains": lambda: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()],
    "a convolution that trains": lambda: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()],
    "no statistics": lambda: [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU()],
    "instance norm": lambda: [nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, track_running_stats=True), nn.ReLU()],
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", UNUSUAL)
def test_what_a_user_changed_is_computed(rng, case, training):
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    model = nn.Sequential(*UNUSUAL[case](), backend="numpy", seed=1).train(training)
    model[1].training |= case == "a norm that trains"
    model[0].training |= case == "a convolution that trains"
    found, y = model(x), x
    assert [layer.saved is not None for layer in model] == [layer.training for layer in model]
    for layer in model:
        y = layer(y)
    assert_match(found, y, level="net", terms=30)


@pytest.mark.parametrize("training", [False, True])
def test_errors_name_the_layer_that_refuses(at, rng, training):
    x = at.put(rng.standard_normal((2, 2, 5, 5)), "float32")

    def model(*layers):
        return nn.Sequential(*layers, backend=at.backend).train(training)

    with pytest.raises(ValueError, match=r"^BatchNorm2d\(4\): input must have shape \(N, 4, \*, \*\)"):
        model(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(4), nn.ReLU())(x)
    with pytest.raises(ValueError, match=r"^BatchNorm1d\(3\): input must have shape \(N, 3\)"):
        model(nn.Conv2d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU())(x)
    with pytest.raises(ValueError, match=r"^Conv2d\(3, 3, 3\): input has 2 channels, expected 3"):
        model(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())(x)
    with pytest.raises(TypeError, match=r"^Conv2d\(2, 3, 3\): "):
        model(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())(np.ones((1, 2, 5, 5), np.int64).tolist())
    with pytest.raises(TypeError, match=r"^Dense\(2, 3\): "):
        model(nn.Dense(2, 3), nn.ReLU())("text")


def test_arrays_of_another_dtype_or_shape_are_refused_as_without_folding(rng):
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend="numpy").eval()
    model[1].buffers["running_mean"] = np.zeros(3, np.float64)
    with pytest.raises(TypeError, match=r"^BatchNorm2d\(3\): mixed dtypes"):
        model(x)
    model[1].buffers["running_mean"] = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"^BatchNorm2d\(3\): mean has shape \(4,\), expected \(3,\)"):
        model(x)
    model[0].parameters["bias"].value = np.zeros(3, np.float64)
    with pytest.raises(TypeError, match=r"^Conv2d\(2, 3, 3\): mixed dtypes"):
        model(x)


def test_exact_numerics_keep_their_bits(exact, at, rng):
    host = rng.standard_normal((2, 2, 6, 6)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend=exact, seed=1)
    x = exact.asarray(host)
    for mode in (True, False):
        model.train(mode)
        found = at.get(model(x))
        with apart(model):
            assert same_bits(found, at.get(model(x)))


def test_a_layer_in_other_numerics_is_computed_by_itself(exact, rng):
    x = exact.asarray(rng.standard_normal((2, 4)).astype(np.float32))
    model = nn.Sequential(nn.Dense(4, 3), nn.ReLU(numerics="fast"), backend=exact)
    y = model(x)
    assert tuple(model.backward(y).shape) == (2, 4)


def test_names_summary_and_outputs_of_layers_are_those_of_the_layers(at, rng):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend=at.backend).eval()
    x = at.put(rng.standard_normal((2, 2, 5, 5)), "float32")
    model(x)
    assert [row.name for row in model.summary((2, 2, 5, 5)).rows] == ["0", "1", "2"]
    seen = nn.layer_outputs(model, x)
    assert [name for name, _, _ in seen] == ["0", "1", "2", ""]
    assert not same_bits(at.get(seen[0][2]), at.get(seen[1][2]))


def test_prediction_folds_once_for_all_batches(rng, monkeypatch):
    made, fold = [], folding.fold
    monkeypatch.setattr(folding, "fold", lambda *arguments: made.append(None) or fold(*arguments))
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), backend="numpy", seed=1)
    x = rng.standard_normal((6, 2, 5, 5)).astype(np.float32)
    found = nn.predict(model, x, batch_size=2)
    assert len(made) == 1
    with apart(model):
        assert_match(found, nn.predict(model, x, batch_size=2), level="net", terms=20)
    assert len(made) == 1
    assert not model[0]._kept._values, "the model is in training mode again"
    model.eval()
    for _ in range(2):
        nn.predict(model, x, batch_size=3)
    assert len(made) == 2
