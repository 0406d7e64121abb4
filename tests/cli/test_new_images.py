"""``xpnn predict DIR IMAGE ...`` prints the class of each new image."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.cli.main import main

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
COLOURS = {"ant": (220, 30, 40), "bee": (30, 220, 60), "cat": (20, 60, 210)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with photos and a run that xpnn train made of them."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.clip(rng.integers(-20, 20, (8, 8, 3)) + np.array(colour), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.png")
    options = ["--epochs", "4", "--lr", "0.02", "--normalise", "--no-pictures", "--backend", "numpy", "--out", "run"]
    before = Path.cwd()
    os.chdir(root)
    try:
        assert main(["train", "--data", "photos", "--model", "mlp", *options]) == 0
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def here(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    capsys.readouterr()
    return trained


def predict(*arguments):
    return main(["predict", "run", *map(str, arguments), "--backend", "numpy"])


def test_each_image_has_a_line_with_file_class_and_probability(here, capsys):
    assert predict("photos/bee/3.png", "photos/ant") == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    names = ["photos/bee/3.png", *(f"photos/ant/{i}.png" for i in range(6))]
    assert [line[0] for line in lines] == names and [line[1] for line in lines] == ["bee", *["ant"] * 6]
    wanted = nn.load_classifier("run").predict_proba(names).max(axis=1)
    assert [line[2] for line in lines] == [f"{p:.4f}" for p in wanted]


def test_options_may_stand_between_images(here, capsys):
    assert main(["predict", "run", "--batch", "2", "photos/ant/1.png", "--backend=numpy", "photos/cat/1.png"]) == 0
    found = capsys.readouterr().out
    assert [line.split()[1] for line in found.splitlines()] == ["ant", "cat"]
    assert main(["predict", "--backend", "numpy", "run", "--", "photos/ant/1.png"]) == 0
    assert capsys.readouterr().out.split()[1] == "ant"


def test_a_table_has_the_classes_in_full_precision(here, capsys, tmp_path):
    file = tmp_path / "out.csv"
    assert predict("photos/cat", "--csv", file, "--top", 2) == 0
    capsys.readouterr()
    rows = list(csv.reader(file.open(newline="")))
    assert rows[0] == ["file", "class", "probability", "class_2", "probability_2"] and len(rows) == 7
    found = nn.load_classifier("run").predict_proba("photos/cat")
    assert [float(row[2]) for row in rows[1:]] == found.max(axis=1).tolist()
    assert [float(row[4]) for row in rows[1:]] == np.sort(found, axis=1)[:, 1].tolist()
    assert predict("photos/cat", "--csv", file, "--top", 99) == 0
    assert len(next(csv.reader(file.open(newline="")))) == 7


def test_files_that_can_not_be_read_are_named_and_the_others_classified(here, capsys, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "b\n.png").write_text("no picture")
    assert predict(tmp_path / "a.png", tmp_path / "b\n.png", "photos/cat/1.png") == 3
    out, err = capsys.readouterr()
    assert out.split()[:2] == ["photos/cat/1.png", "cat"] and len(out.splitlines()) == 1
    assert f"left out {tmp_path / 'a.png'}: no image of a known format" in err
    assert "b\\n.png': no image of a known format" in err and "2 of 3 image file(s) can't be read" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gone.png"], "there is no file gone.png"),
        (["run"], "run holds no image"),
        (["photos", "--data", "photos"], "--data is labelled data to measure on"),
        (["--csv", "a.csv"], "--csv and --top are for new images"),
        (["--top", "2"], "--csv and --top are for new images"),
        (["photos", "--csv", "gone/a.csv"], "there is no folder gone"),
        (["photos", "--csv", "photos"], "is a folder; name a file"),
        (["photos", "--batc", "3"], "did you mean --batch?"),
        (["photos", "--batch"], "expected one argument"),
        (["photos", ""], "must not be empty"),
    ],
)
def test_mistakes_are_one_line(here, capsys, arguments, message):
    try:
        status = predict(*arguments) if "--batch" not in arguments else main(["predict", "run", *arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1 and not out


def test_a_checkpoint_may_be_named(here, capsys):
    for which in ("best", "last"):
        assert predict("photos/cat/1.png", "--checkpoint", which) == 0
        assert nn.load_classifier("run", checkpoint=which).predict("photos/cat/1.png") == ["cat"]
    steps = nn.Checkpoints("run/checkpoints").steps()
    assert predict("photos/cat/1.png", "--checkpoint", steps[-1]) == 0
    assert nn.load_classifier("run", checkpoint=steps[-1]).class_names == ("ant", "bee", "cat")


def test_a_run_that_has_not_ended_can_classify(here, capsys, tmp_path):
    shutil.copytree("run", tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    assert nn.load_classifier(tmp_path / "run", checkpoint="last").predict("photos/bee/1.png") == ["bee"]
    with pytest.raises(ValueError, match="add --checkpoint last, since the run has not ended"):
        nn.load_classifier(tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text("data = [")
    with pytest.raises(ValueError, match="is not a TOML file"):
        nn.load_classifier(tmp_path / "run", checkpoint="last")
