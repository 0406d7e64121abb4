"""Models as ONNX files, computed by ONNX Runtime, or by ONNX's reference where that lacks a type."""

import copy
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import xpnn as nn
from xpnn.interop.onnx.operators import WRITERS
from xpnn.testing.cases import LayerCase

CASES = {case.name: case for case in nn.testing.cases() if type(case) is LayerCase}
REFUSED = {"MaxPool2d/indices": "return_indices", "MaxPool2d/indices, padding, dilation": "return_indices"}
# ONNX Runtime compares with NaN in another way, has NaN where the limit is a number, or refuses an empty batch.
DIFFERENT = re.compile(
    r"(.*Pool.*|LocalResponseNorm)/(NaN|minus infinity)$|.*/(NaN and infinities|linear, NaN)$|"
    r"Softmin/minus infinity|Pad/circular, empty"
)
# What only the reference has in float64, and computes with numbers of less digits.
ROUGH = {"GELU/float64", "Upsample/bicubic, float64"}
onnxruntime.set_default_logger_severity(4)


def run(path, *inputs):
    """The output of a checked file."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        session = ReferenceEvaluator(str(path))
        names = session.input_names
    else:
        names = [each.name for each in session.get_inputs()]
    given = {name: np.ascontiguousarray(x) for name, x in zip(names, inputs, strict=True)}
    (y,) = session.run(None, {name: x if x.dtype.kind == "f" else x.astype(np.int64) for name, x in given.items()})
    return y


def agree(found, wanted, times=1.0):
    bound = times * (2e-4 if wanted.dtype == np.float32 else 1e-10)
    finite = np.abs(wanted[np.isfinite(wanted)]).max(initial=1.0)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=bound, atol=bound * finite, equal_nan=True)


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED and not DIFFERENT.match(name)])
def test_every_case_is_a_file_that_computes_the_same(tmp_path, name):
    layer, x, _ = CASES[name].prepare("numpy")
    layer.eval()
    nn.to_onnx(layer, tmp_path / "a.onnx", (None, *x.shape[1:]))
    agree(run(tmp_path / "a.onnx", x), layer(x), 1e5 if name in ROUGH else 1.0)


@pytest.mark.parametrize("opset", [17, 22])
@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("/plain")])
def test_every_layer_computes_the_same_in_other_opsets(tmp_path, name, opset):
    layer, x, _ = CASES[name].prepare("numpy")
    layer.eval()
    try:
        nn.to_onnx(layer, tmp_path / "a.onnx", (None, *x.shape[1:]), opset=opset)
    except ValueError as error:
        assert opset == 17 and re.search("opset 17 lacks .* give opset=1[89]", str(error))
        return
    agree(run(tmp_path / "a.onnx", x), layer(x))


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_lacks_is_refused_by_name(tmp_path, name):
    layer, x, _ = CASES[name].prepare("numpy")
    model = nn.Graph({"deep.pool": (layer, "input")})
    with pytest.raises(ValueError, match=rf"to_onnx: deep\.pool: .*{REFUSED[name]}"):
        nn.to_onnx(model, tmp_path / "a.onnx", x.shape)
    assert not any(tmp_path.iterdir())


# Where ONNX Runtime refuses what these could be written as at first sight, or rounds a position to another cell.
CORNERS = [
    (nn.ConvTranspose1d(2, 3, 2, dilation=3, output_padding=1), (2,)),
    (nn.ConvTranspose2d(2, 4, (1, 3), stride=(1, 2), padding=(1, 0), dilation=(3, 2), output_padding=(2, 1)), (4, 4)),
    (nn.ConvTranspose2d(2, 2, (4, 3), groups=2, padding=((0, 3), (3, 0)), dilation=2, output_padding=1), (6, 5)),
    (nn.MaxPool2d((3, 2), 2, padding=((1, 1), (0, 3)), dilation=(2, 1), ceil_mode=True), (6, 9)),
    (nn.MaxPool1d(1, 2, padding=((0, 1),), dilation=3, ceil_mode=True), (2,)),
    (nn.AvgPool2d((2, 4), padding=((1, 2), (1, 2)), ceil_mode=True, count_include_pad=False), (5, 1)),
    (nn.AvgPool2d((2, 4), padding=((1, 2), (1, 2)), ceil_mode=True, divisor_override=3), (5, 1)),
    (nn.AvgPool2d((4, 2), padding=((2, 1), (1, 3)), dilation=2, count_include_pad=False), (5, 2)),
    (nn.AvgPool1d(2, padding=((1, 2),), ceil_mode=True), (1,)),
    (nn.LpPool2d(3.5, (1, 3), stride=(4, 1), padding=((0, 1), (2, 3)), ceil_mode=True), (8, 6)),
    (nn.LpPool2d(3, (2, 3), padding="same", dilation=2), (5, 6)),
    (nn.LocalResponseNorm(3, alpha=0.5), (4, 5, 2)),
    (nn.LocalResponseNorm(3, alpha=0.5), (7,)),
    (nn.AdaptiveMaxPool((2, 3)), (6, 9)),
    (nn.AdaptiveAvgPool((2, 3)), (5, 9)),
    (nn.Upsample((1.4, 0.95)), (20, 7)),
    (nn.Upsample((1.52, 1.484), mode="nearest-exact"), (25, 2)),
    (nn.Upsample((1.26,), mode="nearest-exact"), (3,)),
    (nn.Upsample((1.131, 1.48), mode="bicubic"), (2, 1)),
    (nn.Upsample(size=12), (27,)),
    (nn.Upsample((1.04, 2.5), mode="bilinear"), (3, 21)),
    (nn.Upsample((2.408, 1.17, 2.705), mode="trilinear"), (5, 4, 4)),
    (nn.Upsample((1.8, 1.33), mode="bicubic"), (25, 26)),
    (nn.Upsample((1.4, 2.36), mode="bicubic", align_corners=True), (20, 20)),
    (nn.Upsample(size=(7, 30), mode="bilinear"), (9, 10)),
]


@pytest.mark.parametrize("opset", [17, None])
@pytest.mark.parametrize("layer, sizes", CORNERS, ids=lambda value: str(value))
def test_corners_in_which_operators_differ(tmp_path, rng, layer, sizes, opset):
    layer = copy.deepcopy(layer).to("numpy").eval()
    x = rng.standard_normal((3, 2, *sizes)).astype(np.float32)
    opset = None if isinstance(layer, nn.AvgPool2d | nn.LpPool2d | nn.AdaptiveAvgPool | nn.AdaptiveMaxPool) else opset
    nn.to_onnx(layer, tmp_path / "a.onnx", (None, *x.shape[1:]), opset=opset)
    agree(run(tmp_path / "a.onnx", x), layer(x))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True)])
def test_padding_of_pools_is_an_attribute(tmp_path, pool):
    nn.to_onnx(pool, tmp_path / "a.onnx", (None, 1, 7, 7))
    first, _ = onnx.load(tmp_path / "a.onnx").graph.node
    assert list(next(each for each in first.attribute if each.name == "pads").ints) == [1, 1, 1, 1]


def test_every_layer_has_operators():
    layers = {getattr(nn, name) for name in nn.layers.__all__ if isinstance(getattr(nn, name), type)}
    containers = {each for each in layers if issubclass(each, nn.Container)} | {nn.Layer, nn.Checkpointed}
    assert {each for each in layers if issubclass(each, nn.Layer)} - containers == {*WRITERS}


IMAGE = (3, 32, 32)
NETS = {
    "lenet": (lambda **p: nn.models.lenet((1, 28, 28), 10, **p), (1, 28, 28)),
    "lenet5": (lambda **p: nn.models.lenet5((1, 28, 28), 10, **p), (1, 28, 28)),
    "mlp": (lambda **p: nn.models.mlp((1, 8, 8), 10, **p), (1, 8, 8)),
    "mobilenet_v2": (lambda **p: nn.models.mobilenet_v2(IMAGE, 10, **p), IMAGE),
    "resnet18": (lambda **p: nn.models.resnet18(IMAGE, 10, width=8, **p), IMAGE),
    "unet": (lambda **p: nn.models.unet((1, 16, 16), 3, width=4, **p), (1, 16, 16)),
    "vgg11_bn": (lambda **p: nn.models.vgg11_bn(IMAGE, 10, width=8, **p), IMAGE),
    "vit": (lambda **p: nn.models.vit((1, 8, 8), 10, **p), (1, 8, 8)),
    "torchvision.resnet50": (lambda **p: nn.models.torchvision.resnet50(7, **p), IMAGE),
    "torchvision.mobilenet_v2": (lambda **p: nn.models.torchvision.mobilenet_v2(7, **p), IMAGE),
}


def moved_statistics(model, rng):
    """Running statistics as after training."""
    for _, layer in model.named_layers():
        for name in ("running_mean", "running_var"):
            if name in layer.buffers:
                layer.buffers[name] = rng.uniform(0.5, 1.5, layer.buffers[name].shape).astype(np.float32)
    return model


def test_every_net_of_the_package_is_among_these():
    assert {*nn.models.BUILDERS, "unet"} <= {*NETS}


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_every_net_is_a_file_for_any_batch(tmp_path, rng, name, folds):
    build, shape = NETS[name]
    model = moved_statistics(build(backend="numpy", seed=1), rng)
    nn.to_onnx(model, tmp_path / "net.onnx", (None, *shape), fold_batch_norm=folds)
    assert model.training
    model.eval()
    for samples in (1, 3):
        x = rng.standard_normal((samples, *shape)).astype(np.float32)
        agree(run(tmp_path / "net.onnx", x), model(x), 5.0)
    file = onnx.load(tmp_path / "net.onnx")
    operators = [node.op_type for node in file.graph.node]
    names = {each.name for each in file.graph.initializer}
    if folds:
        assert "BatchNormalization" not in operators
    else:
        state = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
        assert state <= names
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in file.graph.initializer}
        assert all(arrays[each].tobytes() == np.asarray(model.state_dict()[each]).tobytes() for each in state)


def test_a_batch_of_a_given_size_is_in_the_file(tmp_path):
    nn.to_onnx(nn.Dense(3, 2), tmp_path / "a.onnx", (5, 3))
    dims = onnx.load(tmp_path / "a.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [5, 3]
    nn.to_onnx(nn.Dense(3, 2), tmp_path / "a.onnx", (None, 3))
    assert onnx.load(tmp_path / "a.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("opset", [17, 18, 20, 21])
def test_opsets(tmp_path, rng, opset):
    model = nn.models.unet((1, 8, 8), 2, width=2, levels=1, backend="numpy", seed=0).eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 1, 8, 8), opset=opset)
    assert onnx.load(tmp_path / "a.onnx").opset_import[0].version == opset
    x = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x), model(x))


def test_a_later_opset_is_used_where_a_layer_needs_it(tmp_path):
    model = nn.Sequential(nn.Pad(1, mode="circular"), nn.Mish(), nn.AvgPool2d(2, dilation=2))
    nn.to_onnx(model, tmp_path / "a.onnx", (1, 1, 5, 5))
    assert onnx.load(tmp_path / "a.onnx").opset_import[0].version == 19
    with pytest.raises(ValueError, match=r"opset 17 lacks .*: 0 needs 19, 1 needs 18, 2 needs 19; give opset=19"):
        nn.to_onnx(model, tmp_path / "b.onnx", (1, 1, 5, 5), opset=17)


@pytest.mark.parametrize("opset", [16, 999, True, 18.0])
def test_an_opset_that_is_not_written_is_refused(tmp_path, opset):
    with pytest.raises((ValueError, TypeError), match="opset must be"):
        nn.to_onnx(nn.ReLU(), tmp_path / "a.onnx", (1, 2), opset=opset)


def test_several_inputs(tmp_path, rng):
    model = nn.Graph(
        {
            "a.b": (nn.Dense(3, 4), "image.x"),
            "c": (nn.Dense(2, 4), "table"),
            "sum": (nn.Add(), ("a.b", "c", "c")),
        },
        inputs=("image.x", "table"),
        backend="numpy",
        seed=0,
    )
    nn.to_onnx(model, tmp_path / "a.onnx", ((None, 3), (None, 2)))
    x, z = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((5, 2)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x, z), model.eval()((x, z)))
    with pytest.raises(ValueError, match="a shape for each, got 1"):
        nn.to_onnx(model, tmp_path / "b.onnx", (None, 3))


def test_a_tied_weight_is_in_the_file_once(tmp_path, rng):
    shared = nn.Dense(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Dense(4, 4), backend="numpy", seed=0).eval()
    model[3].parameters["weight"] = shared.parameters["weight"]
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 4))
    names = [each.name for each in onnx.load(tmp_path / "a.onnx").graph.initializer]
    assert sorted(names) == ["0.bias", "0.weight", "3.bias"]
    x = rng.standard_normal((2, 4)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x), model(x))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_a_folded_weight_is_not_that_of_the_layers_that_share_it(tmp_path, rng, order):
    first, last = nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    last.parameters["weight"] = first.parameters["weight"]
    layers = (first, nn.BatchNorm2d(2), last)
    model = moved_statistics(nn.Sequential(*(layers[i] for i in order), backend="numpy", seed=0), rng).eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 2, 4, 4), fold_batch_norm=True)
    x = rng.standard_normal((2, 2, 4, 4)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x), model(x))


def test_an_input_may_be_named_output(tmp_path, rng):
    model = nn.Graph({"output_2": (nn.Dense(3, 3), "output")}, inputs=("output",), backend="numpy", seed=0).eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 3))
    x = rng.standard_normal((2, 3)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x), model(x))


def test_samples_may_be_joined(tmp_path, rng):
    model = nn.Sequential(nn.Flatten(0, 1), nn.Dense(4, 2), backend="numpy", seed=0).eval()
    x = rng.standard_normal((5, 3, 4)).astype(np.float32)
    for batch in (None, 5):
        nn.to_onnx(model, tmp_path / "a.onnx", (batch, 3, 4))
        dim = onnx.load(tmp_path / "a.onnx").graph.output[0].type.tensor_type.shape.dim[0]
        assert (dim.dim_param, dim.dim_value) == ("", 15 if batch else 0)
        agree(run(tmp_path / "a.onnx", x), model(x))


def test_a_file_of_more_than_the_format_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("xpnn.interop.onnx.to_onnx._LARGEST", 1000)
    with pytest.raises(ValueError, match=r"the file would have 8,080 bytes, more than the 1,000 that ONNX's format"):
        nn.to_onnx(nn.Dense(100, 20, dtype="float32"), tmp_path / "a.onnx", (None, 100))
    with pytest.raises(ValueError, match=r"the file would have 16,160 bytes"):
        nn.to_onnx(nn.Dense(100, 20, dtype="float64"), tmp_path / "a.onnx", (None, 100))
    assert not any(tmp_path.iterdir())


def test_a_norm_is_folded_only_into_a_layer_that_nothing_else_uses(tmp_path, rng):
    nodes = {
        "conv": (nn.Conv2d(1, 2, 3), "input"),
        "norm": (nn.BatchNorm2d(2), "conv"),
        "sum": (nn.Add(), ("conv", "norm")),
        "last": (nn.Conv2d(2, 3, 1), "sum"),
        "end": (nn.BatchNorm2d(3, affine=False), "last"),
    }
    model = moved_statistics(nn.Graph(nodes, backend="numpy", seed=0), rng).eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 1, 5, 5), fold_batch_norm=True)
    operators = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert operators.count("BatchNormalization") == 1
    x = rng.standard_normal((2, 1, 5, 5)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x), model(x))


def test_a_layer_in_several_places_is_folded_with_the_norm_of_each(tmp_path, rng):
    conv = nn.Conv2d(2, 2, 3, padding=1)
    nodes = {
        "first": (conv, "input"),
        "norm": (nn.BatchNorm2d(2), "first"),
        "second": (conv, "norm"),
        "other": (nn.BatchNorm2d(2), "second"),
        "third": (conv, "other"),
    }
    model = moved_statistics(nn.Graph(nodes, backend="numpy", seed=0), rng).eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 2, 5, 5), fold_batch_norm=True)
    assert "BatchNormalization" not in [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    x = rng.standard_normal((2, 2, 5, 5)).astype(np.float32)
    agree(run(tmp_path / "a.onnx", x), model(x), 5.0)


def test_a_norm_that_is_not_finite_is_not_folded(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), backend="numpy")
    model[1].buffers["running_var"] = np.array([1.0, np.nan], np.float32)
    with pytest.raises(ValueError, match="0: Conv2d: its batch norm can't be folded"):
        nn.to_onnx(model, tmp_path / "a.onnx", (1, 1, 4, 4), fold_batch_norm=True)


def test_layers_of_ones_own_are_all_named(tmp_path):
    class Own(nn.Layer):
        """A layer of a user."""

        def _output_shape(self, shape):
            return shape

    model = nn.Sequential(Own(), nn.Residual(nn.Sequential(nn.ReLU(), Own())))
    with pytest.raises(ValueError, match=r"to_onnx: 0: Own: has no operator; 1\.body\.1: Own: has no operator"):
        nn.to_onnx(model, tmp_path / "a.onnx", (1, 2))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "shape, error",
    [(3, TypeError), ((), TypeError), ((None, None), ValueError), ((0, 3), ValueError), ((1, 4), ValueError)],
)
def test_a_wrong_input_shape_is_refused(tmp_path, shape, error):
    with pytest.raises(error):
        nn.to_onnx(nn.Dense(3, 2), tmp_path / "a.onnx", shape)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("folds", [False, True])
def test_every_backend_writes_the_same_file(tmp_path, at, folds):
    if folds and not at.wide_enough:
        pytest.skip("no float64 on this device")

    def written(name, **placement):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dense(16, 3), seed=3, **placement)
        nn.to_onnx(model, tmp_path / name, (None, 1, 4, 4), fold_batch_norm=folds)
        return (tmp_path / name).read_bytes()

    assert written("a.onnx", backend="numpy") == written("b.onnx", backend=at.backend)


def test_exact_numerics_write_the_same_file(tmp_path):
    for numerics in ("fast", "exact"):
        model = nn.models.lenet((1, 28, 28), 10, backend="numpy", numerics=numerics, seed=3)
        nn.to_onnx(model, tmp_path / numerics, (None, 1, 28, 28))
    assert (tmp_path / "fast").read_bytes() == (tmp_path / "exact").read_bytes()


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'onnx>=1\.16'"):
        nn.to_onnx(nn.ReLU(), tmp_path / "a.onnx", (1, 2))
