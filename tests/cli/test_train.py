"""``xpnn train``, from the command line to the files that it writes."""

import csv
import hashlib
import json

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.confusion_matrix import confusion, format_matrix
from xpnn.cli.main import main
from xpnn.training.datasets import load_dataset

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def images(path, n=60, shape=(8, 8), classes=3, **extra):
    """Images whose class is the number of their bright row."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.random((n, *shape)).astype(np.float32)
    x[np.arange(n), ..., 2 * y, :] += 3.0
    np.savez(path, x=x, y=y, **extra)
    return str(path)


def run(*arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert run("train", "--backend", "numpy", "--epochs", 4, "--batch", 64, "--lr", 0.003, "--out", folder) == 0
    return folder


def test_default_run_reaches_the_promised_accuracy(tmp_path):
    assert run("train", "--out", tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["test_accuracy"] >= 0.985
    assert metrics["backend"] in ("numpy", "cupy:0")


def test_compiled_and_plain_runs_write_the_same_weights(tmp_path):
    found = []
    for choice, more in (("yes", "no"), ("no", "yes")):
        folder = tmp_path / choice
        options = ("--backend", "numpy", "--batch", 128, "--no-pictures", "--out", folder)
        assert run("train", *options, "--epochs", 1, "--compile", choice) == 0
        assert run("train", "--resume", folder, "--epochs", 2, "--compile", more) == 0
        found.append((folder / "model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_run_folder_holds_weights_history_and_figures(trained):
    assert {p.name for p in trained.iterdir()} >= {"model.safetensors", "history.csv", "metrics.json"}
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics.keys() >= {"test_accuracy", "backend", "seed", "epochs", "seconds"}
    assert (metrics["backend"], metrics["seed"], metrics["epochs"]) == ("numpy", 0, 4)
    assert metrics["test_accuracy"] > 0.9
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert float(rows[-1]["validation_accuracy"]) == metrics["test_accuracy"]


@pytest.mark.parametrize("backend", ["strict", "torch"])
def test_exact_numerics_writes_one_file_on_every_backend(tmp_path, capsys, backend):
    pytest.importorskip("array_api_strict" if backend == "strict" else backend)
    files = []
    for name, shards in (("numpy", 1), (backend, 1), ("numpy", 3)):
        folder = tmp_path / f"{name}-{shards}"
        options = ("--data", images(tmp_path / "data.npz"), "--model", "mlp", "--epochs", 2, "--shards", shards)
        assert run("train", *options, "--numerics", "exact", "--backend", name, "--out", folder) == 0
        files.append((folder / "model.safetensors").read_bytes())
        digest = hashlib.sha256(files[-1]).hexdigest()
        assert f"{digest}  {folder / 'model.safetensors'}" in capsys.readouterr().out
        assert json.loads((folder / "metrics.json").read_text())["numerics"] == "exact"
    assert files[0] == files[1] == files[2]


def test_predict_has_the_option_numerics(trained, capsys):
    outputs = []
    for numerics in ("fast", "exact"):
        assert run("predict", trained, "--backend", "numpy", "--numerics", numerics) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_curves_are_drawn_where_matplotlib_is(trained):
    pytest.importorskip("matplotlib")
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_writes_the_same_bytes(trained, tmp_path):
    def digest(folder):
        return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    again, other = tmp_path / "again", tmp_path / "other"
    common = ("train", "--backend", "numpy", "--epochs", 4, "--batch", 64, "--lr", 0.003)
    run(*common, "--out", again)
    run(*common, "--out", other, "--seed", 1)
    assert digest(again) == digest(trained)
    assert digest(other) != digest(trained)


@pytest.mark.parametrize("backend", ["strict", "strict:device1", "torch"])
def test_prediction_is_the_same_on_every_backend(trained, capsys, backend):
    try:
        nn.get_backend(backend)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    assert run("predict", trained, "--backend", "numpy") == 0
    reference = capsys.readouterr().out
    assert run("predict", trained, "--backend", backend) == 0
    assert capsys.readouterr().out == reference


def test_prediction_reports_the_accuracy_of_the_run(trained, capsys):
    metrics = json.loads((trained / "metrics.json").read_text())
    run("predict", trained)
    first, head, *rows = capsys.readouterr().out.splitlines()
    n = len(load_dataset("digits").y_test)
    assert first.startswith("held-out part of digits:")
    assert f"accuracy {metrics['test_accuracy']:.4%}" in first
    assert head.split()[-10:] == [str(c) for c in range(10)]
    matrix = np.array([[int(v) for v in row.split()[1:]] for row in rows])
    assert matrix.sum() == n
    assert np.trace(matrix) / n == pytest.approx(metrics["test_accuracy"])


def test_confusion_has_true_classes_by_row():
    found = confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 0]), 3)
    assert found.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert format_matrix(found).splitlines()[1].split() == ["0", "1", "0", "1"]


@pytest.mark.parametrize("backend", ["strict", "torch"])
def test_training_runs_on_every_backend(tmp_path, capsys, backend):
    try:
        nn.get_backend(backend)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    data = images(tmp_path / "rows.npz")
    assert run("train", "--data", data, "--backend", backend, "--epochs", 8, "--batch", 8, "--out", tmp_path / "r") == 0
    assert json.loads((tmp_path / "r/metrics.json").read_text())["test_accuracy"] == 1.0


def test_other_data_is_predicted_whole_and_training_data_only_where_held_out(tmp_path, capsys):
    data, other = images(tmp_path / "rows.npz"), images(tmp_path / "more.npz", n=30)
    run("train", "--data", data, "--model", "mlp", "--epochs", 2, "--out", tmp_path / "r")
    capsys.readouterr()
    run("predict", tmp_path / "r", "--data", data)
    assert "held-out part of rows.npz: 12 images" in capsys.readouterr().out
    run("predict", tmp_path / "r", "--data", other)
    assert "all of more.npz: 30 images" in capsys.readouterr().out


def test_without_out_runs_get_folders_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = images(tmp_path / "rows.npz")
    for _ in range(2):
        run("train", "--data", data, "--model", "mlp", "--epochs", 1)
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["rows-mlp-1", "rows-mlp-2"]
    assert "runs/rows-mlp-2/metrics.json" in capsys.readouterr().out


def test_force_writes_into_a_folder_and_leaves_what_is_not_its_own(tmp_path):
    data, folder = images(tmp_path / "rows.npz"), tmp_path / "r"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert run("train", "--data", data, "--model", "mlp", "--epochs", 1, "--out", folder) == 2
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    assert run("train", "--data", data, "--model", "mlp", "--epochs", 1, "--out", folder, "--force") == 0
    assert (folder / "notes.txt").read_text() == "mine"


def test_skipped_nans_are_reported_without_numpy_s_warnings(tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.random((20, 8, 8), np.float32), y=np.arange(20) % 4)
    command = [
        "--data",
        "data.npz",
        "--model",
        "mlp",
        "--epochs",
        "1",
        "--lr",
        "1e30",
        "--on-nan",
        "skip",
        "--out",
        "run",
    ]
    assert main(["train", *command, "--backend", "numpy"]) == 0
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
def test_a_run_in_another_precision_goes_on_in_it(tmp_path, precision):
    options = ("--backend", "numpy", "--batch", 128, "--no-pictures", "--epochs", 2, "--precision", precision)
    assert run("train", *options, "--out", tmp_path / "whole") == 0
    assert run("train", *options[:-4], "--epochs", 1, "--precision", precision, "--out", tmp_path / "parts") == 0
    assert f'precision = "{precision}"' in (tmp_path / "parts/config.toml").read_text()
    assert run("train", "--resume", tmp_path / "parts", "--epochs", 2) == 0
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert run("predict", tmp_path / "whole", "--backend", "numpy") == 0


def test_precisions_that_a_backend_does_not_have_are_refused_before_any_file(tmp_path, capsys):
    for options in (("--backend", "strict"), ("--backend", "numpy", "--numerics", "exact")):
        assert run("train", *options, "--precision", "float16", "--out", tmp_path / "run") == 2
        error = capsys.readouterr().err
        assert "precision" in error and "float16" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
