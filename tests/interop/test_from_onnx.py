"""ONNX files as models: `from_onnx`."""

import functools
import random
import re
import sys
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

import xpnn as nn
from xpnn.testing.cases import LayerCase

CASES = {case.name: case for case in nn.testing.cases() if type(case) is LayerCase}
# Written as a formula of operators that have no layer.
FORMULAS = re.compile(
    r"MultiHeadAttention|vit/|GLU|LogSigmoid|TanhShrink|Softmin|Threshold/|RMSNorm|Adaptive|BatchNorm.*no running|"
    r"(Soft|Hard)Shrink/float64|S?C?ELU/float64|Softplus/(float64|beta|threshold)|LocalResponseNorm|AvgPool|"
    r"(Global)?LpPool|SiLU/NaN|Multiply/three|MaxPool2d/indices"
)


def state(model):
    return {k: np.asarray(v) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", [name for name in CASES if not FORMULAS.match(name)])
def test_every_case_comes_back(tmp_path, name):
    layer, x, _ = CASES[name].prepare("numpy")
    model = nn.Sequential({"block": layer}, backend="numpy", dtype=CASES[name].dtype).eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, *x.shape[1:]))
    back = nn.from_onnx(tmp_path / "a.onnx", backend="numpy")
    y = model(x)
    found = back(x)
    assert found.shape == y.shape and found.dtype == y.dtype
    bound = 2e-4 if y.dtype == np.float32 else 1e-9
    atol = bound * np.abs(y[np.isfinite(y)]).max(initial=1.0)
    np.testing.assert_allclose(found, y, rtol=bound, atol=atol, equal_nan=True)


NETS = {
    "lenet": (lambda: nn.models.lenet((1, 28, 28), 10), (1, 28, 28)),
    "lenet5": (lambda: nn.models.lenet5((1, 28, 28), 10), (1, 28, 28)),
    "mlp": (lambda: nn.models.mlp((1, 8, 8), 10), (1, 8, 8)),
    "mobilenet_v2": (lambda: nn.models.mobilenet_v2((3, 32, 32), 10), (3, 32, 32)),
    "resnet18": (lambda: nn.models.resnet18((3, 32, 32), 10, width=8), (3, 32, 32)),
    "unet": (lambda: nn.models.unet((1, 16, 16), 3, width=4), (1, 16, 16)),
    "vgg11_bn": (lambda: nn.models.vgg11_bn((3, 32, 32), 10, width=8), (3, 32, 32)),
    "torchvision.resnet50": (lambda: nn.models.torchvision.resnet50(7), (3, 32, 32)),
    "torchvision.mobilenet_v2": (lambda: nn.models.torchvision.mobilenet_v2(7), (3, 32, 32)),
}


@pytest.mark.parametrize("name", NETS)
def test_nets_keep_the_bits_and_names_of_their_weights(tmp_path, rng, name):
    build, shape = NETS[name]
    model = build().to("numpy").eval()
    nn.to_onnx(model, tmp_path / "a.onnx", (None, *shape))
    back = nn.from_onnx(tmp_path / "a.onnx", backend="numpy")
    mine, theirs = state(model), state(back)
    assert mine.keys() == theirs.keys() and all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)
    x = rng.standard_normal((2, *shape)).astype(np.float32)
    np.testing.assert_allclose(back(x), model(x), rtol=1e-4, atol=1e-5)
    nn.to_onnx(back, tmp_path / "b.onnx", (None, *shape))
    again = state(nn.from_onnx(tmp_path / "b.onnx", backend="numpy"))
    assert all(mine[k].tobytes() == again[k].tobytes() for k in mine)


def test_a_model_that_was_read_is_trained(tmp_path, rng):
    model = nn.models.resnet18((1, 8, 8), 3, width=4, backend="numpy", seed=0)
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 1, 8, 8))
    back = nn.from_onnx(tmp_path / "a.onnx", backend="numpy").train()
    x, t = rng.standard_normal((6, 1, 8, 8)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    gradients = []
    for each in (model.train(), back):
        loss = nn.CrossEntropy()
        loss(each(x), t)
        each.backward(loss.backward())
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_round_through_pytorch_and_back(torch, tmp_path):
    t = torch.nn
    module = t.Sequential(t.Conv2d(1, 4, 3, padding=1), t.BatchNorm2d(4), t.ReLU(), t.Flatten(), t.Linear(64, 3)).eval()
    model = nn.from_torch(module, (None, 1, 4, 4), backend="numpy")
    nn.to_onnx(model, tmp_path / "a.onnx", (None, 1, 4, 4))
    last = nn.to_torch(nn.from_onnx(tmp_path / "a.onnx", backend="numpy"))
    for name, value in module.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(last.state_dict()[name], value)
    x = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(last(x), module(x))


@pytest.mark.filterwarnings("ignore")
def test_files_of_pytorch(torch, tmp_path):
    t = torch.nn

    class Net(t.Module):
        def __init__(self):
            super().__init__()
            self.a = t.Sequential(t.Conv2d(2, 4, 3, padding=1), t.GELU(), t.MaxPool2d(2, ceil_mode=True))
            self.b = t.ConvTranspose2d(4, 4, 3, stride=2)
            self.head = t.Linear(4, 3)

        def forward(self, x):
            a = self.a(x)
            b = torch.cat([self.b(a), torch.nn.functional.interpolate(a, size=(7, 7))], 1)
            return self.head(b.mean((2, 3)).view(x.size(0), 2, 4).mean(1))

    net = Net().eval()
    options = {"input_names": ["input"], "dynamic_axes": {"input": {0: "N"}}, "dynamo": False}
    torch.onnx.export(net, (torch.randn(1, 2, 5, 5),), str(tmp_path / "a.onnx"), **options)
    model = nn.from_onnx(tmp_path / "a.onnx", backend="numpy")
    assert {*model.state_dict()} == {*net.state_dict()}
    x = torch.randn(3, 2, 5, 5)
    np.testing.assert_allclose(model(x.numpy()), net(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@functools.cache
def cases_of_onnx():
    """The examples of all operators by the authors of the standard: files, inputs and outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collect_testcases(None)


def test_operators_by_the_standards_own_examples(path):
    """Each is refused, or computed as its authors say; none is computed in another way."""
    agreeing = set()
    for case in cases_of_onnx():
        path.write_bytes(case.model.SerializeToString())
        try:
            model = nn.from_onnx(path, backend="numpy")
        except ValueError as error:
            assert "\n" not in str(error), case.name
            continue
        for inputs, (wanted, *_) in case.data_sets:
            arrays = [np.asarray(x) for x in inputs]
            if any(x.dtype not in (np.float32, np.float64) for x in arrays):
                # Of 16 bits, which the model has as the equal numbers of 32.
                continue
            model.to("numpy", str(arrays[0].dtype))
            found = model(arrays[0] if len(arrays) == 1 else tuple(arrays))
            assert found.shape == wanted.shape, case.name
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=case.name)
            agreeing.add(case.name)
    assert len(agreeing) > 125


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, array):
    return numpy_helper.from_array(np.asarray(array, np.float32), name)


def file(path, nodes, shape=("N", 2, 4, 4), weights=(), opset=18, outputs=("y",), inputs=None, **options):
    """A file with these nodes."""
    given = inputs or [value("x", shape)]
    graph = helper.make_graph(nodes, "g", given, [value(name, None) for name in outputs], list(weights), **options)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString()
    path.write_bytes(content)
    return path


def node(operator, inputs, outputs=("y",), **attributes):
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.onnx"


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_by_words(path, rng, auto, stride):
    w = rng.standard_normal((3, 2, 2, 2)).astype(np.float32)
    file(path, [node("Conv", "xw", auto_pad=auto, strides=[stride] * 2)], (1, 2, 5, 4), [weight("w", w)])
    x = rng.standard_normal((1, 2, 5, 4)).astype(np.float32)
    (wanted,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(nn.from_onnx(path, backend="numpy")(x), wanted, rtol=1e-4, atol=1e-5)


def test_sizes_that_are_computed(path, rng):
    nodes = [
        node("Shape", "x", ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["m"]),
        node("Concat", ["m", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"]),
    ]
    ints = [helper.make_tensor(n, TensorProto.INT64, d, v) for n, d, v in (("zero", [], [0]), ("axes", [1], [0]))]
    file(path, nodes, weights=[*ints, helper.make_tensor("rest", TensorProto.INT64, [1], [-1])])
    assert nn.from_onnx(path, backend="numpy")(np.ones((5, 2, 4, 4), np.float32)).shape == (5, 32)


def test_unknown_sizes_can_be_given(path):
    nodes = [node("Reshape", ["x", "shape"])]
    weights = [helper.make_tensor("shape", TensorProto.INT64, [3], [0, 4, -1])]
    file(path, nodes, ("N", 2, "H", "W"), weights)
    with pytest.raises(ValueError, match="give input_shape with all sizes"):
        nn.from_onnx(path)
    assert nn.from_onnx(path, (None, 2, 6, 2)).output_shape((3, 2, 6, 2)) == (3, 4, 6)


def test_constants_for_channels_are_frozen_convolutions(path, rng):
    nodes = [node("Sub", ["x", "mean"], ["a"]), node("Div", ["a", "std"], ["b"]), node("Mul", ["b", "one"])]
    weights = [weight("mean", [[[0.5]], [[0.25]]]), weight("std", [[[2.0]], [[4.0]]]), weight("one", 1.0)]
    model = nn.from_onnx(file(path, nodes, weights=weights), backend="numpy")
    x = rng.standard_normal((3, 2, 4, 4)).astype(np.float32)
    wanted = (x - np.array([0.5, 0.25])[:, None, None]) / np.array([2.0, 4.0])[:, None, None]
    np.testing.assert_allclose(model(x), wanted, rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for _, parameter in model.named_parameters())


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_weights_of_other_widths(path, kind):
    numbers = [0.5, -1.25, 3.0, 0.0]
    w = helper.make_tensor("w", kind, [2, 2], numbers)
    model = nn.from_onnx(file(path, [node("Gemm", "xw")], ("N", 2), [w]), backend="numpy")
    assert model.backend.dtype_name == ("float64" if kind == TensorProto.DOUBLE else "float32")
    (found,) = (parameter.value for _, parameter in model.named_parameters())
    assert found.tolist() == [[0.5, 3.0], [-1.25, 0.0]]


def test_data_in_a_file_beside(path, tmp_path, rng):
    model = nn.Dense(64, 32, backend="numpy", seed=0)
    nn.to_onnx(model, path, (None, 64))
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 16}
    onnx.save(onnx.load(path), path, **options)
    x = rng.standard_normal((2, 64)).astype(np.float32)
    np.testing.assert_allclose(nn.from_onnx(path, backend="numpy")(x), model(x), rtol=1e-5, atol=1e-6)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match="a file of 5"):
        nn.from_onnx(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match="not there"):
        nn.from_onnx(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/../../secret", "link", ""])
def test_data_outside_of_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    (folder / "link").symlink_to(tmp_path / "secret")
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    w.external_data.add(key="location", value=location)
    file(folder / "a.onnx", [node("Gemm", "xw")], ("N", 4), [w])
    with pytest.raises(ValueError, match=r"outside of the folder|no name of one"):
        nn.from_onnx(folder / "a.onnx")


def tensor(name="w", dims=(2, 2), kind=TensorProto.FLOAT, raw=b"\0" * 16):
    return TensorProto(name=name, data_type=kind, dims=dims, raw_data=raw)


GEMM = [node("Gemm", "xw")]
INT = TensorProto.INT64
HOSTILE = {
    "no nodes": ([], {}, "no graph"),
    "a cycle": ([node("Add", "xb", "a"), node("Relu", "a", "b"), node("Relu", "b")], {}, "which nothing before"),
    "a missing weight": ([node("Gemm", "xw")], {"shape": ("N", 2)}, "which nothing before"),
    "a value twice": ([node("Relu", "x", "a"), node("Relu", "x", "a"), node("Relu", "a")], {}, "once more"),
    "a weight twice": (GEMM, {"shape": ("N", 2), "weights": [tensor(), tensor()]}, "two weights"),
    "an output that is not there": ([node("Relu", "x", "a")], {}, "not computed"),
    "two outputs": ([node("Relu", "x", "a"), node("Relu", "x")], {"outputs": ("a", "y")}, "the outputs a, y"),
    "no outputs": ([node("Relu", "x")], {"outputs": ()}, "outputs none"),
    "too little data": (GEMM, {"shape": ("N", 2), "weights": [tensor(raw=b"\0")]}, "should have 16 bytes"),
    "a huge shape": (GEMM, {"shape": ("N", 2), "weights": [tensor(dims=(2**62, 2**62))]}, "bytes of data"),
    "a negative shape": (GEMM, {"shape": ("N", 2), "weights": [tensor(dims=(-2, 2))]}, "shape|sizes"),
    "text as a weight": (GEMM, {"shape": ("N", 2), "weights": [tensor(kind=TensorProto.STRING)]}, "type STRING"),
    "an unknown type": (GEMM, {"shape": ("N", 2), "weights": [tensor(kind=99)]}, "type 99|sizes"),
    "an old opset": ([node("Relu", "x")], {"opset": 3}, "opset 3"),
    "a new opset": ([node("Relu", "x")], {"opset": 9999}, "opset 9999"),
    "another domain": ([node("Relu", "x", domain="com.evil")], {}, "domain com.evil"),
    "an unknown operator": ([node("Bernoulli", "x")], {}, "Bernoulli: has no layer"),
    "a wrong type of attribute": ([node("MaxPool", "x", kernel_shape=2.5)], {}, "kernel_shape|sizes"),
    "a huge window": ([node("MaxPool", "x", kernel_shape=[2**40, 2**40])], {}, "."),
    "huge padding": (
        [node("Pad", ["x", "p"])],
        {"weights": [helper.make_tensor("p", INT, [8], [0, 0, 2**40, 0, 0, 0, 2**40, 0])]},
        "would have the shape",
    ),
    "a huge constant": (
        [node("ConstantOfShape", "n", "c"), node("Add", "xc")],
        {"weights": [helper.make_tensor("n", INT, [2], [2**30, 2**30])]},
        "a constant of|would have the shape",
    ),
    "a huge range": (
        [node("Range", "abc", "r"), node("Reshape", ["x", "r"])],
        {"weights": [helper.make_tensor(n, INT, [], [v]) for n, v in (("a", 0), ("b", 2**50), ("c", 1))]},
        ".",
    ),
    "huge scales": (
        [node("Resize", ["x", "", "s"], mode="nearest")],
        {"weights": [weight("s", [1, 1, 1e9, 1e9])]},
        ".",
    ),
    "groups that do not divide": (
        [node("Conv", "xw", group=3)],
        {"weights": [weight("w", np.ones((4, 2, 1, 1)))]},
        ".",
    ),
    "an attribute that changes the result": ([node("Selu", "x", alpha=2.0)], {}, "alpha=2"),
    "an attribute that nobody knows": ([node("Relu", "x", power=2.0)], {}, "the attribute power"),
    "integers as an input": ([node("Relu", "x")], {"inputs": [value("x", (1, 2), INT)]}, "no array of floats"),
    "an empty weight": ([node("Conv", "xw")], {"weights": [weight("w", np.ones((0, 2, 1, 1)))]}, "."),
    "a scalar weight": ([node("Conv", "xw")], {"weights": [weight("w", 1.0)]}, "."),
    "no inputs": ([node("Relu", "")], {}, "."),
    "no input values": ([node("Constant", [], value_float=1.0)], {"inputs": []}, "no inputs|not computed"),
    "a batch of nothing": ([node("Relu", "x")], {"shape": (0, 2)}, "has the shape"),
    "a negative size": ([node("Relu", "x")], {"shape": (1, -2)}, "has the shape"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_one_line(path, what):
    nodes, options, message = HOSTILE[what]
    file(path, nodes, **options)
    with pytest.raises(ValueError, match=message) as caught:
        nn.from_onnx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_graphs_within_are_refused(path):
    inner = helper.make_graph([node("Relu", "x", ["z"])], "inner", [], [value("z", None)])
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    file(path, [node("If", "c", then_branch=inner, else_branch=inner)], weights=[condition])
    with pytest.raises(ValueError, match="a graph within"):
        nn.from_onnx(path)


def test_sparse_weights_are_refused(path):
    sparse = helper.make_sparse_tensor(weight("w", [1.0]), helper.make_tensor("i", INT, [1], [0]), [4])
    graph = helper.make_graph([node("Relu", "x")], "g", [value("x", (1, 2))], [value("y", None)])
    graph.sparse_initializer.append(sparse)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="sparse"):
        nn.from_onnx(path)


@pytest.mark.parametrize("content", [b"", b"\0", b"not an ONNX file", bytes(range(256)) * 40, b"\x08" * 1000])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        nn.from_onnx(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        nn.from_onnx(tmp_path / "none.onnx")
    with pytest.raises(OSError):
        nn.from_onnx(tmp_path)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_are_refused_or_read(path, tmp_path, seed):
    """Bytes changed, left out or repeated anywhere: an error of one line, or a model, and never anything else."""
    draw = random.Random(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Residual(nn.Conv2d(2, 2, 3, padding=1)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dense(8, 3),
        backend="numpy",
        seed=0,
    )
    nn.to_onnx(model, path, (None, 1, 4, 4))
    good = path.read_bytes()
    for _ in range(100):
        bad = bytearray(good)
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(len(bad))
            kind = draw.choice(("flip", "cut", "repeat", "set"))
            if kind == "flip":
                bad[at] ^= 1 << draw.randrange(8)
            elif kind == "set":
                bad[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif kind == "cut":
                del bad[at : at + draw.choice((1, 4, len(bad)))]
            else:
                bad[at:at] = bad[at : at + draw.choice((1, 8, 64))]
            if not bad:
                break
        path.write_bytes(bytes(bad))
        try:
            nn.from_onnx(path, backend="numpy")
        except ValueError as error:
            assert "\n" not in str(error)


def test_without_the_package_the_error_says_what_to_install(monkeypatch, path):
    monkeypatch.setitem(sys.modules, "onnx.reference", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'onnx>=1\.16'"):
        nn.from_onnx(path)


def test_every_backend_reads_the_same(path, at, rng):
    model = nn.models.lenet((1, 28, 28), 10, backend="numpy", seed=3)
    nn.to_onnx(model, path, (None, 1, 28, 28))
    back = nn.from_onnx(path, backend=at.backend)
    x = rng.standard_normal((2, 1, 28, 28)).astype(np.float32)
    np.testing.assert_allclose(at.get(back(at.put(x))), model.eval()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("affine", [True, False])
def test_a_group_norm_is_one_layer_again(path, rng, opset, affine):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4, eps=1e-3, affine=affine), nn.GroupNorm(4, 4), nn.ReLU(), backend="numpy"
    ).eval()
    for _, parameter in model.named_parameters():
        parameter.value = rng.standard_normal(parameter.shape).astype(np.float32)
    nn.to_onnx(model, path, (None, 2, 5, 5), opset=opset)
    back = nn.from_onnx(path, backend="numpy")
    assert list(map(repr, back))[1:] == list(map(repr, model))[1:]
    assert state(back).keys() == state(model).keys()
    x = rng.standard_normal((3, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(back(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_group_norm_of_pytorch(torch, path):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.SiLU()).eval()
    torch.nn.init.normal_(module[1].weight), torch.nn.init.normal_(module[1].bias)
    options = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N"}}, "dynamo": False}
    torch.onnx.export(module, (torch.randn(2, 1, 6, 6),), str(path), **options)
    model = nn.from_onnx(path, backend="numpy")
    assert any(isinstance(layer, nn.GroupNorm) for _, layer in model.named_layers())
    assert all(parameter.requires_grad for _, parameter in model.named_parameters())
    x = torch.randn(3, 1, 6, 6)
    np.testing.assert_allclose(model(x.numpy()), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_instance_norm_between_reshapes_that_others_read_stays(path, rng):
    ones, zeros = weight("one", np.ones(2)), weight("zero", np.zeros(2))
    sizes = [helper.make_tensor(n, INT, [len(v)], v) for n, v in (("split", [0, 2, 8]), ("back", [0, 4, 2, 2]))]
    nodes = [
        node("Reshape", ["x", "split"], ["a"]),
        node("InstanceNormalization", ["a", "one", "zero"], ["b"]),
        node("Reshape", ["b", "back"], ["c"]),
        node("Reshape", ["a", "back"], ["d"]),
        node("Add", "cd"),
    ]
    model = nn.from_onnx(file(path, nodes, ("N", 4, 2, 2), [ones, zeros, *sizes]), backend="numpy")
    x = rng.standard_normal((3, 4, 2, 2)).astype(np.float32)
    (wanted,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(model(x), wanted, rtol=1e-4, atol=1e-5)


def test_norms_keep_what_they_have_for_training(path):
    model = nn.Sequential(nn.BatchNorm2d(2, eps=1e-3, momentum=0.3), nn.BatchNorm2d(2), backend="numpy")
    nn.to_onnx(model, path, (None, 2, 4, 4))
    back = nn.from_onnx(path, backend="numpy")
    assert [(norm.eps, norm.momentum) for norm in back] == [(1e-3, 0.3), (1e-5, 0.1)]


@pytest.mark.parametrize(
    "shape, error, message",
    [
        (3, TypeError, "from_onnx: input_shape must be a shape"),
        ((1, -2), ValueError, "from_onnx: input_shape must have sizes >= 1, or None for an axis"),
        (((1, 2), (1, 2)), ValueError, "it has the inputs x, and input_shape 2 shapes"),
        ((None, 3, 4, 4), ValueError, "has 2 cells along axis 1, and input_shape 3"),
        ((None, 2), ValueError, "has 4 axes, and input_shape 2"),
    ],
)
def test_a_wrong_input_shape_is_named(path, shape, error, message):
    with pytest.raises(error, match=message):
        nn.from_onnx(file(path, [node("Relu", "x")]), shape)
