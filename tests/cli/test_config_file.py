"""Options from a TOML file, and the file that a run writes with the options it used."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from xpnn.cli.main import main


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.random((30, 6, 6)).astype(np.float32), y=np.arange(30) % 3)
    return tmp_path


BASE = 'data = "data.npz"\nmodel = "mlp"\nepochs = 1\nno-pictures = true\n'


def train(text, *arguments):
    Path("run.toml").write_text(text, encoding="utf-8")
    return main(["train", "--config", "run.toml", "--out", "run", *arguments])


def used():
    return tomllib.loads(Path("run/config.toml").read_text(encoding="utf-8"))


def test_a_file_gives_options_and_the_command_line_counts_more(data):
    text = BASE + 'batch = 10\nlr = 0.01\nclip_norm = 2.0\naugment = ["flip", "crop"]\nnormalise = true\n'
    assert train(text, "--lr", "0.5", "--backend", "numpy") == 0
    found = used()
    assert (found["batch"], found["lr"], found["clip-norm"]) == (10, 0.5, 2.0)
    assert found["augment"] == ["flip", "crop"] and found["normalise"] is True
    # Options that were not given are in it too, with the values that were used.
    assert (found["optimizer"], found["seed"], found["backend"]) == ("adam", 0, "numpy")


def test_any_text_and_number_survives_the_config_file(data):
    name = 'a "b" \\ c é 😀\t.npz'
    (data / "data.npz").rename(data / name)
    assert (
        main(
            [
                "train",
                "--data",
                name,
                "--model",
                "mlp",
                "--epochs",
                "1",
                "--lr",
                "1e-7",
                "--no-pictures",
                "--out",
                "run",
            ]
        )
        == 0
    )
    assert (used()["data"], used()["lr"]) == (name, 1e-7)
    assert main(["train", "--resume", "run"]) == 0


def test_the_file_that_was_used_gives_the_same_run_again(data):
    assert train(BASE + 'augment = ["cutout"]\nseed = 5\nschedule = "cosine"\nwarmup = 0\n') == 0
    assert main(["train", "--config", "run/config.toml", "--out", "again"]) == 0
    assert (data / "again/model.safetensors").read_bytes() == (data / "run/model.safetensors").read_bytes()
    assert (data / "again/config.toml").read_bytes() == (data / "run/config.toml").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3\n", "epoch is not an option of xpnn train; did you mean epochs?"),
        ("xyz = 3\n", "xyz is not an option of xpnn train; the options are accumulate, augment, "),
        ("epochs = 0\n", "--epochs: must be an integer >= 1, got '0'"),
        ("epochs = [1]\n", "epochs must be a string or a number, got [1]"),
        ("epochs = true\n", "epochs must be a string or a number, got True"),
        ("normalise = 1\n", "normalise must be true or false, got 1"),
        ('augment = ["spin"]\n', "invalid choice: 'spin'"),
        ("epochs = \n", "run.toml is not a TOML file"),
        ('resume = "x"\n', "resume is not an option"),
    ],
)
def test_a_bad_file_is_one_line_and_nothing_is_written(data, capsys, text, message):
    try:
        status = train(text)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1
    assert not (data / "run").exists()


def test_a_missing_file_is_named(data, capsys):
    assert main(["train", "--config", "none.toml"]) == 2
    assert "no file none.toml" in capsys.readouterr().err


NETS = """
import xpnn as nn

nothing = 3

def tiny(image, classes, **where):
    return nn.Sequential(nn.Flatten(), nn.Dense(36, classes), **where)

def none(image, classes, **where):
    return 3

def few(image):
    return 3
"""


def test_a_net_of_the_user_s_own_is_trained_and_opened_by_name(data, capsys):
    (data / "my_nets.py").write_text(NETS)
    assert train(BASE.replace('"mlp"', '"my_nets:tiny"')) == 0
    assert main(["predict", "run", "--data", "data.npz"]) == 2
    assert "add --model my_nets:tiny to run that code" in capsys.readouterr().err
    for command in ("predict", "explain"):
        assert main([command, "run", "--data", "data.npz", "--model", "my_nets:tiny"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:f", "No module named 'nowhere'"),
        ("own_nets:missing", "no attribute 'missing'"),
        ("own_nets:nothing", "must be a function of an image's shape and the number of classes, got int"),
        ("own_nets:none", "must return a layer, got int"),
        ("own_nets:few", "it is called as few(image, classes, backend=..., seed=...)"),
        ("lenet:", "must be one of"),
        ("alexnet", "must be one of lenet, lenet5"),
    ],
)
def test_an_unusable_net_is_refused_in_one_line(data, capsys, name, message):
    (data / "own_nets.py").write_text(NETS)
    try:
        status = main(["train", "--data", "data.npz", "--model", name, "--out", "run"])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count("\n") == 1
    assert not (data / "run").exists()
