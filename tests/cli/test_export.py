"""``xpnn export``: the net of a run as a file that computes what ``xpnn predict`` computes."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import xpnn as nn
from xpnn.cli.main import main

NETS = """
import xpnn as nn

def tiny(image, classes, **where):
    return nn.Sequential(nn.Conv2d(image[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.GlobalAvgPool(), nn.Flatten(),
                         nn.Dense(4, classes), **where)

class Own(nn.Layer):
    def _output_shape(self, shape):
        return shape
    def _forward(self, x):
        return x
    def _backward(self, dy, input_grad):
        return dy

def odd(image, classes, **where):
    return nn.Sequential(nn.Flatten(), Own(), nn.Dense(image[0] * image[1] * image[2], classes), Own(), **where)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with bytes as images, which are scaled."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.integers(0, 256, (40, 3, 8, 9), dtype=np.uint8), y=np.arange(40) % 4)
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("nets", None)


def train(model, *options):
    call = ["train", "--data", "data.npz", "--model", model, "--epochs", "1", "--batch", "10", "--no-pictures"]
    assert main([*call, "--backend", "numpy", "--out", "run", *options]) == 0


def export(*options):
    return main(["export", "run", "--onnx", "net.onnx", *options])


def probabilities(x):
    """Of the exported net, prepared by nothing but its metadata."""
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    facts = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    mean, std = (np.reshape(facts[name], (-1, 1, 1)) for name in ("mean", "std"))
    assert list(x.shape[1:]) == facts["image"]
    prepared = (x * facts["scale"] - mean) / std
    (scores,) = session.run(None, {session.get_inputs()[0].name: prepared.astype(np.float32)})
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), facts["class_names"]


@pytest.mark.parametrize("normalise", [(), ("--normalise",)], ids=["plain", "normalised"])
@pytest.mark.parametrize("net", ["lenet", "nets:tiny"])
@pytest.mark.parametrize("options", [(), ("--fold-batch-norm", "--checkpoint", "last", "--opset", "20")])
def test_the_file_computes_what_the_net_of_the_run_computes(here, capsys, net, normalise, options):
    train(net, *normalise)
    own = ("--model", net) if ":" in net else ()
    assert export(*own, *options) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("bytes, input (batch, 3, 8, 9)")
    onnx.checker.check_model("net.onnx", full_check=True)
    file = onnx.load("net.onnx")
    assert (file.producer_name, file.opset_import[0].version) == ("xpnn", 20 if options else 18)
    assert ("BatchNormalization" in {node.op_type for node in file.graph.node}) == (bool(own) and not options)
    x = np.load("data.npz")["x"]
    found, names = probabilities(x[:7])
    model = sys.modules["nets"].tiny if own else None
    classifier = nn.load_classifier("run", backend="numpy", model=model)
    assert names == list(classifier.class_names)
    # Bytes in an array of another dtype have the values of the training data.
    np.testing.assert_allclose(found, classifier.predict_proba(x[:7].astype(np.float32)), atol=1e-5)


def test_a_batch_may_have_a_given_size(here):
    train("lenet")
    assert export("--batch", "5") == 0
    dims = onnx.load("net.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [5, 3, 8, 9]


def test_without_data_the_net_of_a_run_is_exported(here):
    train("lenet")
    (here / "data.npz").unlink()
    assert export() == 0


def refused(capsys, *options):
    capsys.readouterr()
    assert export(*options) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("xpnn export: "), err
    assert not list(Path.cwd().glob("*net.onnx*"))
    return err


def test_layers_without_operators_are_named_in_one_line(here, capsys):
    train("nets:odd")
    err = refused(capsys, "--model", "nets:odd")
    assert "1: Own: has no operator; 3: Own: has no operator" in err
    assert "add --model nets:odd to run that code" in refused(capsys)


def test_without_onnx_one_line_says_what_to_install(here, capsys, monkeypatch):
    train("lenet")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'onnx>=1.16'" in refused(capsys)
