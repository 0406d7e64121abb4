"""``xpnn explain``: the outputs of a trained net's layers for a sample, as text and as a picture."""

import re
import sys

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.explain.command import softmax, statistics, verdict
from xpnn.cli.main import main
from xpnn.interop import safetensors
from xpnn.training.datasets import load_dataset
from xpnn.training.saved_net.description import describe


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    np.savez(path, x=rng.random((20, 8, 8)), y=np.arange(20) % 4)
    return path


@pytest.fixture
def folder(tmp_path, data):
    dataset, path = load_dataset(data), tmp_path / "run"
    path.mkdir()
    model = nn.models.lenet(dataset.image, 4, seed=3)
    safetensors.save(model, path / "model.safetensors", describe("lenet", dataset))
    return path


NAMES = [str(i) for i in range(10)]


def explain(*arguments):
    return main(["explain", *map(str, arguments)])


def test_explain_prints_every_layer_and_the_most_likely_classes(folder, data, capsys):
    assert explain(folder, "--data", data, "--sample", 2, "--backend", "numpy") == 0
    out = capsys.readouterr().out
    label = int(load_dataset(data).y_test[2])
    assert out.startswith(f"sample 2 of held-out part of data.npz: class {label}\n")
    rows = [line.split() for line in out.splitlines() if re.match(r" \d+ ", line)]
    assert [row[0] for row in rows] == [str(i) for i in range(12)]
    assert rows[0][-10:-4] == ["16", "x", "8", "x", "8", "160"]
    assert re.search(rf"^  {label} +\d+\.\d\d%.*<- true class$", out, re.M)
    shares = [float(share) for share in re.findall(r"^  \d +([\d.]+)%", out, re.M)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100.0, abs=0.05)


def test_explain_writes_a_picture(folder, data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert explain(folder, "--data", data, "--sample", 1) == 0
    assert (folder / "explain-1.png").read_bytes().startswith(b"\x89PNG")
    assert explain(folder, "--data", data, "--out", tmp_path / "mine.png") == 0
    assert (tmp_path / "mine.png").exists()


def test_explain_does_without_matplotlib(folder, data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "xpnn.cli.pictures", None)
    assert explain(folder, "--data", data) == 0
    assert "pip install 'matplotlib>=3.8'" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["strict", "torch"])
def test_explanations_agree_on_every_backend(folder, data, capsys, backend, tmp_path):
    try:
        nn.get_backend(backend)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    outputs = []
    for name in ("numpy", backend):
        assert (
            explain(folder, "--data", data, "--numerics", "exact", "--backend", name, "--out", tmp_path / "a.png") == 0
        )
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "4"], "no sample 4: held-out part of data.npz has 4, numbered from 0"),
        (["--sample", "-1"], "--sample: must be an integer >= 0"),
        (["--out", "nowhere/a.png"], "no folder nowhere to write a.png into"),
        (["--backend", "abacus"], "abacus"),
    ],
)
def test_explain_refuses_in_one_line(folder, data, capsys, arguments, message):
    try:
        status = explain(folder, "--data", data, *arguments)
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("xpnn explain: ") and message in err


def test_explain_refuses_a_folder_without_a_run(tmp_path, data, capsys):
    assert explain(tmp_path, "--data", data) == 2
    assert "no model.safetensors" in capsys.readouterr().err


def test_explain_refuses_images_of_another_size(folder, tmp_path, capsys):
    np.savez(tmp_path / "wide.npz", x=np.ones((20, 9, 8)), y=np.arange(20) % 4)
    assert explain(folder, "--data", tmp_path / "wide.npz") == 2
    assert "the images of wide.npz are 1 x 9 x 8, this model expects 1 x 8 x 8" in capsys.readouterr().err


def test_statistics_of_a_layer():
    values = np.array([[[0.0, 2.0], [-1.0, 0.0]]], np.float32)
    assert statistics(values, 1234) == ("1 x 2 x 2", "1,234", "-1", "0.25", "2", "50%")


def test_the_true_class_is_always_listed():
    probabilities = np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.04, 0.01])
    lines = verdict(probabilities, 6, NAMES).splitlines()
    assert lines[0] == "predicted class 0, which is wrong: it is 6"
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3", "4", "6"]
    assert "true class" in lines[-1]
    assert verdict(probabilities, 0, NAMES).startswith("predicted class 0, which is right\n")


def test_softmax_overflows_nowhere():
    np.testing.assert_allclose(softmax(np.array([1e4, 1e4, -1e4], np.float32)), [0.5, 0.5, 0.0])
