"""``xpnn train --model FILE.onnx``: training goes on with the net of a file."""

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.main import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a net for the digits, trained for a moment, in an ONNX file."""
    monkeypatch.chdir(tmp_path)
    model = nn.models.lenet((1, 8, 8), 10, backend="numpy", seed=4)
    (tmp_path / "nets").mkdir()
    nn.to_onnx(model, "nets/start.onnx", (None, 1, 8, 8))
    return model


def train(*options):
    return main(["train", "--model", "nets/start.onnx", "--epochs", "1", "--batch", "64", "--no-pictures", *options])


def test_a_run_begins_with_the_weights_of_the_file(here, capsys, tmp_path):
    assert train("--lr", "1e-12", "--out", "run") in (0, None)
    for name, array in here.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            found = nn.interop.safetensors.read("run/model.safetensors")[0][name]
            np.testing.assert_allclose(found, array, atol=1e-6)


def test_the_folder_is_enough_afterwards(here, capsys, tmp_path):
    assert train("--out", "run") in (0, None)
    (tmp_path / "nets" / "start.onnx").unlink()
    capsys.readouterr()
    assert main(["predict", "run"]) in (0, None)
    assert "accuracy" in capsys.readouterr().out
    classifier = nn.load_classifier("run", backend="numpy")
    assert classifier.model.output_shape((2, 1, 8, 8)) == (2, 10)
    assert main(["export", "run", "--onnx", "again.onnx"]) in (0, None)
    assert nn.from_onnx("again.onnx").output_shape((1, 1, 8, 8)) == (1, 10)
    assert main(["train", "--resume", "run", "--epochs", "2"]) in (0, None)


def test_a_new_run_in_the_folder_leaves_no_old_net(here, capsys, tmp_path):
    assert train("--out", "run") in (0, None)
    assert (tmp_path / "run" / "net.onnx").is_file()
    options = ["--model", "mlp", "--epochs", "1", "--no-pictures", "--out", "run", "--force"]
    assert main(["train", *options]) in (0, None)
    assert not (tmp_path / "run" / "net.onnx").exists()


def fails(capsys, *options):
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(train(*options))
    message = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    return message[-1]


def test_wrong_files_are_one_line(here, capsys, tmp_path):
    nn.to_onnx(nn.models.lenet((1, 8, 8), 7, backend="numpy"), "nets/start.onnx", (None, 1, 8, 8))
    assert "returns (7,) for an image, and the data has 10 classes" in fails(capsys, "--out", "a")
    nn.to_onnx(nn.models.lenet((1, 9, 9), 10, backend="numpy"), "nets/start.onnx", (None, 1, 9, 9))
    assert "start.onnx" in fails(capsys, "--out", "a")
    (tmp_path / "nets" / "start.onnx").write_bytes(b"no net")
    assert "start.onnx" in fails(capsys, "--out", "a")
    (tmp_path / "nets" / "start.onnx").unlink()
    assert "start.onnx" in fails(capsys, "--out", "a")
    assert not (tmp_path / "a").exists()
