"""Bad input ends with one line and status 2, writes nothing and shows no traceback."""

import json
import subprocess
import sys

import numpy as np
import pytest

import xpnn as nn
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
    """A run on `data`, untrained: enough to predict with."""
    dataset, path = load_dataset(data), tmp_path / "run"
    path.mkdir()
    safetensors.save(nn.models.mlp(dataset.image, 4), path / "model.safetensors", describe("mlp", dataset))
    return path


def refused(capsys, *arguments):
    """Run the command; return the one line that it ends with."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert status == 2, (out, err)
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith(f"xpnn {arguments[0]}:")
    return err


def saved(tmp_path, **arrays):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    return path


TRAIN = {
    "unknown backend": (["--backend", "abacus"], "numpy, cupy, torch, strict"),
    "unusable device": (["--backend", "strict:device9"], "device9"),
    "no epochs": (["--epochs", "0"], "--epochs: must be an integer >= 1, got '0'"),
    "half an epoch": (["--epochs", "1.5"], "must be an integer"),
    "no batch": (["--batch", "0"], "--batch: must be an integer >= 1"),
    "negative batch": (["--batch", "-4"], "--batch: must be an integer >= 1"),
    "no learning rate": (["--lr", "0"], "--lr: must be a number > 0"),
    "nan learning rate": (["--lr", "nan"], "--lr: must be a number > 0"),
    "unknown model": (["--model", "transformer"], "lenet"),
    "unknown optimizer": (["--optimizer", "magic"], "adam"),
    "negative seed": (["--seed", "-1"], "--seed: must be an integer >= 0"),
    "huge seed": (["--seed", str(1 << 64)], "seed"),
    "unknown option": (["--speed", "9"], "--speed"),
    "missing file": (["--data", "nowhere.npz"], "no data file nowhere.npz"),
}


@pytest.mark.parametrize("case", TRAIN)
def test_train_refuses_bad_arguments(capsys, tmp_path, data, case):
    arguments, message = TRAIN[case]
    given = ["--data", data, *arguments] if "--data" not in arguments else arguments
    assert message in refused(capsys, "train", *given, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_train_refuses_a_backend_that_is_installed_and_does_not_work(capsys, monkeypatch, data):
    monkeypatch.setitem(sys.modules, "cupy", None)
    line = refused(capsys, "train", "--data", data, "--backend", "cupy:7")
    assert "pip install" in line


def test_train_refuses_bad_data(capsys, tmp_path):
    x, y = np.zeros((20, 8, 8)), np.arange(20) % 4
    out = ("--out", tmp_path / "out")
    assert "no array y" in refused(capsys, "train", "--data", saved(tmp_path, x=x), *out)
    assert "label -1" in refused(capsys, "train", "--data", saved(tmp_path, x=x, y=y - 1), *out)
    small = saved(tmp_path, x=x[:, :3, :3], y=y)
    assert "at least 4 x 4 pixels, got 3 x 3" in refused(capsys, "train", "--data", small, *out)
    (tmp_path / "text.npz").write_text("not an archive")
    assert "text.npz" in refused(capsys, "train", "--data", tmp_path / "text.npz", *out)
    assert not (tmp_path / "out").exists()


def test_train_refuses_a_folder_that_is_not_empty(capsys, data, folder):
    before = (folder / "model.safetensors").read_bytes()
    assert "--force" in refused(capsys, "train", "--data", data, "--out", folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_train_refuses_a_file_for_a_folder(capsys, data):
    assert "is a file" in refused(capsys, "train", "--data", data, "--out", data)
    refused(capsys, "train", "--data", data, "--out", data / "inner")


def test_predict_refuses_a_folder_without_a_run(capsys, tmp_path, data):
    assert "no model.safetensors" in refused(capsys, "predict", tmp_path / "nowhere", "--data", data)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    assert "not a complete safetensors file" in refused(capsys, "predict", tmp_path, "--data", data)
    safetensors.save(nn.Dense(2, 2), tmp_path / "model.safetensors")
    assert "does not say which net" in refused(capsys, "predict", tmp_path, "--data", data)


def test_predict_refuses_weights_of_another_net(capsys, folder, data):
    about = describe("lenet", load_dataset(data))
    safetensors.save(nn.models.mlp((1, 8, 8), 4), folder / "model.safetensors", about)
    assert "0.weight" in refused(capsys, "predict", folder, "--data", data)


def test_predict_refuses_images_of_another_size(capsys, folder, tmp_path):
    other = saved(tmp_path, x=np.ones((20, 9, 8)), y=np.arange(20) % 4)
    assert "are 1 x 9 x 8, this model expects 1 x 8 x 8" in refused(capsys, "predict", folder, "--data", other)


def test_predict_refuses_labels_out_of_range(capsys, folder, tmp_path):
    other = saved(tmp_path, x=np.ones((20, 8, 8)), y=np.arange(20) % 6)
    assert "out of range for 4 classes" in refused(capsys, "predict", folder, "--data", other)


def test_predict_refuses_an_unknown_backend(capsys, folder, data):
    assert "abacus" in refused(capsys, "predict", folder, "--data", data, "--backend", "abacus")


def test_command_without_a_name_or_with_a_wrong_one_is_refused(capsys):
    for arguments in ([], ["fly"]):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_wrong_environment_variable_is_one_line_too():
    run = subprocess.run(
        [sys.executable, "-m", "xpnn", "info"],
        capture_output=True,
        text=True,
        env={"PATH": "", "XPNN_BACKEND": "abacus"},
        check=False,
    )
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "abacus" in run.stderr


def test_internal_errors_are_not_hidden_as_bad_input(monkeypatch, data, tmp_path):
    def broken(*arguments, **keywords):
        raise ValueError("a bug")

    monkeypatch.setattr("xpnn.cli.train.command.fit", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "--data", str(data), "--out", str(tmp_path / "out")])


def test_info_names_every_backend_and_why_it_does_not_work(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setenv("COLUMNS", "200")
    nn.backends.registry._opened.clear()
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("numpy", "cupy", "torch", "strict"):
        assert name in out
    assert "cupy-cuda13x[ctk]" in out
    assert "default: numpy" in out


def test_bench_writes_its_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("xpnn.cli.bench.measure.REST", 0.0)
    monkeypatch.setattr("xpnn.cli.bench.measure.SAMPLE", 0.0)
    monkeypatch.setattr("xpnn.cli.bench.other_processes.Watch.foreign", lambda self, since: 0.0)
    command = ["bench", "--only", "lenet5", "--batch", "4", "--rounds", "1", "--wait", "0", "--no-memory"]
    assert main([*command, "--json", str(tmp_path / "b.json")]) == 0
    row = json.loads((tmp_path / "b.json").read_text())["rows"][0]
    assert (row["kind"], row["name"], row["phase"], row["batch"]) == ("net", "lenet5", "step", 4)
    assert row["ours_ms"] > 0
    assert row["relative_error"] is None or row["relative_error"] < 1e-5
    assert "lenet5" in capsys.readouterr().out
