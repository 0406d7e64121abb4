"""A trained net on data: classes by name, the run's own data, and folders whose files are damaged."""

import json
import os
import re
import shutil
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile import NO_FILES, limits, no_file

import xpnn as nn
from xpnn.cli.confusion_matrix import format_matrix
from xpnn.cli.main import main
from xpnn.interop import safetensors
from xpnn.training.datasets import load_dataset
from xpnn.training.saved_net.description import describe

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

# The three colours that the net predicts as ant, bee and cat.
COLOURS = {"ant": (250, 10, 10), "bee": (10, 250, 10), "cat": (10, 10, 250)}
NETS = """
import xpnn as nn

def colours(image, classes, **where):
    return nn.Sequential(nn.Flatten(), nn.Dense(image[0] * image[1] * image[2], classes), **where)
"""


def pictures(folder, colour, n=3, size=(4, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = np.full((*size, 3), colour, np.uint8)
        pixels[0, 0, 0] ^= i + 1
        Image.fromarray(pixels).save(folder / f"{i}.png")


def photos(folder, *names, n=3):
    for name in names:
        pictures(folder / name, COLOURS[name], n)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("nets", None)


def perfect(classes=3):
    """A net that distinguishes the colours."""
    model = nn.Sequential(nn.Flatten(), nn.Dense(48, classes))
    weight = np.zeros((classes, 48), np.float32)
    for k in range(3):
        weight[k % classes, 16 * k : 16 * k + 16] = 1.0
    model.load_state_dict({"1.weight": weight, "1.bias": np.zeros(classes, np.float32)})
    return model


@pytest.fixture
def run(here):
    """The folder of a run that knows the three colours by name."""
    data = load_dataset(photos(here / "photos", "ant", "bee", "cat", n=5))
    folder = here / "run"
    folder.mkdir()
    safetensors.save(perfect(), folder / "model.safetensors", describe("nets:colours", data))
    (folder / "config.toml").write_text('data = "photos"\nmodel = "nets:colours"\n')
    return folder


def predict(*arguments, command="predict"):
    return main([command, *map(str, arguments), "--model", "nets:colours", "--backend", "numpy"])


def refused(capsys, *arguments, command="predict", status=2):
    with limits(256), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predict(*arguments, command=command) == status
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("xpnn"), err
    return err


@pytest.mark.parametrize(
    "names", [("bee",), ("cat", "bee"), ("ant", "cat"), ("ant", "bee", "cat")], ids=lambda names: "+".join(names)
)
def test_classes_are_matched_by_name_whatever_classes_there_are(run, here, capsys, names):
    photos(here / "other", *names)
    assert predict(run, "--data", "other") == 0
    out, err = capsys.readouterr()
    count = 3 * len(names)
    assert out.startswith(f"all of other: {count} images, {count} right, accuracy 100.0000%")
    head, *rows = [line.split() for line in out.splitlines()[1:]]
    assert head[-3:] == ["ant", "bee", "cat"]
    assert [row[0] for row in rows] == ["ant", "bee", "cat"]
    wanted = [[3 * (a == b and a in names) for b in COLOURS] for a in COLOURS]
    assert [[int(cell) for cell in row[1:]] for row in rows] == wanted
    assert err == ""


def test_wrong_predictions_are_counted_under_the_right_names(run, here, capsys):
    photos(here / "other", "bee")
    pictures(here / "other" / "bee" / "in disguise", COLOURS["cat"], 2)
    assert predict(run, "--data", "other") == 0
    out = capsys.readouterr().out
    assert "5 images, 3 right" in out
    assert [line.split() for line in out.splitlines() if line.strip().startswith("bee")] == [["bee", "0", "3", "2"]]


def test_explain_names_the_right_class(run, here, capsys):
    photos(here / "other", "cat")
    assert predict(run, "--data", "other", command="explain") == 0
    out = capsys.readouterr().out
    assert out.startswith("sample 0 of all of other: class cat\n")
    assert "predicted class cat, which is right" in out


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_names_that_the_net_does_not_know_are_refused_and_listed(run, here, capsys, command):
    photos(here / "other", "bee")
    for name in ("wasp", "zebra"):
        pictures(here / "other" / name, (9, 9, 9))
    line = refused(capsys, run, "--data", "other", command=command)
    assert "other has class wasp, zebra, which this model does not know; its classes are ant, bee, cat" in line


def test_an_unknown_class_in_the_training_part_is_refused_too(run, here, capsys):
    for part in ("train", "test"):
        photos(here / "other" / part, "ant", "bee")
    pictures(here / "other" / "train" / "wasp", (9, 9, 9))
    assert "has class wasp, which this model does not know" in refused(capsys, run, "--data", "other")


def test_names_in_either_spelling_of_unicode_are_one(here, capsys):
    names = {unicodedata.normalize("NFC", "Bär"): "ant", "bee": "bee", "cat": "cat"}
    for name, colour in names.items():
        pictures(here / "photos" / name, COLOURS[colour], 5)
        pictures(here / "other" / unicodedata.normalize("NFD", name), COLOURS[colour])
    data = load_dataset(here / "photos")
    folder = here / "run"
    folder.mkdir()
    model = perfect()
    order = [data.class_names.index(name) for name in names]
    weight = np.zeros((3, 48), np.float32)
    weight[order] = nn.backends.to_host(model.state_dict()["1.weight"])
    model.load_state_dict({"1.weight": weight, "1.bias": np.zeros(3, np.float32)})
    safetensors.save(model, folder / "model.safetensors", describe("nets:colours", data))
    assert predict(folder, "--data", "other") == 0
    assert "9 images, 9 right" in capsys.readouterr().out


def arrays(path, *names, numbers=None, **more):
    """An archive of the pictures of these classes, with labels in this order."""
    x = np.array([np.full((4, 4, 3), COLOURS[name]).transpose(2, 0, 1) for name in names for _ in range(3)], np.uint8)
    y = np.repeat(np.arange(len(names)) if numbers is None else numbers, 3)
    np.savez(path, x=x, y=y, **more)
    return path


def test_classes_without_names_are_matched_by_number_with_a_warning(run, here, capsys):
    arrays("other.npz", "ant", "cat", numbers=[0, 2])
    assert predict(run, "--data", "other.npz") == 0
    out, err = capsys.readouterr()
    assert "6 images, 6 right" in out
    assert err == "other.npz has no names of classes; by number 0 is ant, 1 is bee, 2 is cat\n"
    arrays("other.npz", "ant", "cat", numbers=[0, 3])
    assert "labels run to 3, out of range for 3 classes" in refused(capsys, run, "--data", "other.npz")


def test_an_archive_with_names_is_matched_by_these(run, here, capsys):
    arrays("other.npz", "cat", "ant", class_names=["cat", "ant"])
    assert predict(run, "--data", "other.npz") == 0
    assert "6 images, 6 right" in capsys.readouterr().out
    # A name without images is accepted.
    arrays("other.npz", "cat", "ant", class_names=["cat", "ant", "wasp"])
    assert predict(run, "--data", "other.npz") == 0
    assert "6 images, 6 right" in capsys.readouterr().out
    arrays("other.npz", "cat", "ant", class_names=["cat", "wasp"])
    assert "has class wasp, which this model does not know" in refused(capsys, run, "--data", "other.npz")


def test_a_net_of_numbers_knows_folders_of_numbers_only(here, capsys):
    data = load_dataset(arrays("rows.npz", "ant", "bee", "cat"))
    folder = here / "run"
    folder.mkdir()
    safetensors.save(perfect(), folder / "model.safetensors", {**describe("nets:colours", data), "scale": 1 / 255})
    for name, colour in (("2", "cat"), ("1", "bee")):
        pictures(here / "numbers" / name, COLOURS[colour])
    assert predict(folder, "--data", "numbers") == 0
    out, err = capsys.readouterr()
    assert "6 images, 6 right" in out and err == ""
    photos(here / "other", "ant", "bee")
    line = refused(capsys, folder, "--data", "other")
    assert "has class ant, bee, which this model does not know; its classes are by number only, 0, 1, 2" in line


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_without_data_it_is_that_of_the_run(run, capsys, command):
    assert predict(run, command=command) == 0
    assert "held-out part of photos" in capsys.readouterr().out


def test_data_of_the_run_that_is_missing_or_changed_is_refused(run, here, capsys, monkeypatch):
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    monkeypatch.syspath_prepend(str(here))
    assert "the data of the run, photos, is not there" in refused(capsys, run)
    monkeypatch.chdir(here)
    pictures(here / "photos" / "ant", (200, 0, 0), 1)
    line = refused(capsys, run)
    assert "photos has changed since the net was trained on it" in line and "--data photos" in line
    assert predict(run, "--data", "photos") == 0
    assert "all of photos: 15 images" in capsys.readouterr().out
    (run / "config.toml").unlink()
    assert "to say which data the net was trained on (photos); add --data" in refused(capsys, run)


CONFIGS = {
    "no data": b'model = "mlp"\n',
    "a number": b"data = 3\n",
    "no TOML": b"data = \n",
    "no text": b"\xff\xfe\0",
    "deep": b"data = " + b"[" * 100_000,
    "large": b"#" * (1 << 21),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_damaged_configuration_is_one_line(run, capsys, case):
    (run / "config.toml").write_bytes(CONFIGS[case])
    assert "config.toml" in refused(capsys, run)


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind != "a file as a folder"])
def test_a_configuration_or_weights_that_are_no_file_are_one_line(run, capsys, kind):
    (run / "config.toml").unlink()
    no_file(kind, run / "config.toml")
    assert "config.toml" in refused(capsys, run)
    (run / "model.safetensors").unlink()
    no_file(kind, run / "model.safetensors")
    assert "model.safetensors" in refused(capsys, run, "--data", "photos")


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("command", ["predict", "explain"])
def test_data_that_is_no_file_is_one_line(run, here, capsys, kind, command):
    path = no_file(kind, here / "data.npz")
    assert "data.npz" in refused(capsys, run, "--data", path, command=command)


@pytest.mark.parametrize("kind", NO_FILES[1:3])
def test_options_for_training_that_are_no_file_are_one_line(here, capsys, kind):
    no_file(kind, here / "run.toml")
    with limits():
        assert main(["train", "--config", "run.toml"]) == 2
        assert main(["train", "--data", "run.toml", "--out", "out"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (here / "out").exists()


def bad(**entries):
    return lambda about: {**about, **entries}


def without(name):
    return lambda about: {key: value for key, value in about.items() if key != name}


ABOUT = {
    "few names": (bad(class_names=["ant", "bee"]), "class_names has 2 names of 3 classes"),
    "many names": (bad(class_names=list("abcd")), "class_names has 4 names of 3 classes"),
    "the same name twice": (bad(class_names=["ant", "bee", "ant"]), "class_names has 2 names of 3 classes"),
    "names that are numbers": (bad(class_names=[1, 2, 3]), "class_names is no list of names"),
    "an empty name": (bad(class_names=["ant", "bee", ""]), "class_names is no list of names"),
    "names that are text": (bad(class_names="abc"), "class_names is no list of names"),
    "names that are a mapping": (bad(class_names={"a": 1}), "class_names is no list of names"),
    "no model": (without("model"), "no model"),
    "no image": (without("image"), "no image"),
    "no classes": (without("classes"), "no classes"),
    "no scale": (without("scale"), "no scale"),
    "a model that is a number": (bad(model=3), "model is 3"),
    "a model of no name": (bad(model="transformer"), "'transformer'"),
    "an image of two": (bad(image=[4, 4]), "does not say which net"),
    "an image of text": (bad(image="344"), "image must be an integer"),
    "an image of halves": (bad(image=[3, 4.5, 4]), "image must be an integer"),
    "an image of nothing": (bad(image=None), "does not say which net"),
    "a negative image": (bad(image=[3, -4, 4]), "image must be an integer"),
    "a huge image": (bad(image=[3, 10**9, 10**9]), "image must be an integer"),
    "huge classes": (bad(classes=10**12, class_names=None), "classes must be an integer"),
    "no class": (bad(classes=0), "classes must be an integer"),
    "classes that are true": (bad(classes=True), "classes must be an integer"),
    "other classes": (bad(classes=4, class_names=None), "1.weight has shape"),
    "a scale of text": (bad(scale="1"), "scale is '1'"),
    "a scale of nothing": (bad(scale=0), "scale is 0"),
    "an infinite scale": (bad(scale=float("inf")), "scale is inf"),
    "a scale that is NaN": (bad(scale=float("nan")), "scale is nan"),
    "normalise of text": (bad(normalise="yes"), "normalise has no numbers"),
    "normalise without a mean": (bad(normalise={"std": [1.0]}), "no mean"),
    "normalise of a number": (bad(normalise={"mean": 1.0, "std": 1.0}), "normalise has no numbers"),
    "normalise by zero": (bad(normalise={"mean": [0.0], "std": [0.0]}), "std[0] must be a number > 0"),
    "normalise by NaN": (bad(normalise={"mean": [float("nan")], "std": [1.0]}), "mean[0] must be a finite number"),
    "normalise of other channels": (bad(normalise={"mean": [0.0] * 2, "std": [1.0] * 2}), "2 channels of 3"),
    "normalise of lists": (bad(normalise={"mean": [[0.0]], "std": [1.0]}), "normalise has no numbers"),
    "nothing": (lambda about: {}, "no image"),
}


@pytest.mark.parametrize("case", ABOUT)
def test_damaged_descriptions_of_a_net_are_one_line(run, capsys, case):
    change, message = ABOUT[case]
    path = run / "model.safetensors"
    weights, about = safetensors.read(path)
    path.write_bytes(safetensors.to_bytes(weights, change(about)))
    line = refused(capsys, run, "--data", "photos")
    assert message in line and ("model.safetensors" in line or "load_state_dict" in line)


def test_a_deep_description_is_one_line(run, capsys):
    path = run / "model.safetensors"
    header = json.dumps({"__metadata__": {"xpnn": '{"a":' * 100_000}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "is not a complete safetensors file" in refused(capsys, run, "--data", "photos")


@pytest.mark.parametrize("command", ["predict", "explain"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(run, capsys, command, value):
    path = run / "model.safetensors"
    weights, about = safetensors.read(path)
    weights["1.bias"] = np.array([0.0, value, 1.0], np.float32)
    path.write_bytes(safetensors.to_bytes(weights, about))
    line = refused(capsys, run, "--data", "photos", command=command)
    assert "model.safetensors holds NaN or infinity: 1.bias in 1 of 3 values" in line
    # The library itself loads them, so that the cause can be examined.
    model = perfect()
    nn.load(model, path)
    assert not np.isfinite(nn.backends.to_host(model.state_dict()["1.bias"])).all()


def test_weights_that_overflow_when_they_are_loaded_are_refused(run, capsys):
    path = run / "model.safetensors"
    weights, about = safetensors.read(path)
    weights["1.weight"] = weights["1.weight"] * np.float64(1e300)
    path.write_bytes(safetensors.to_bytes(weights, about))
    assert "1.weight in 48 of 144 values" in refused(capsys, run, "--data", "photos")


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_outputs_that_are_no_numbers_are_no_predictions(run, capsys, command):
    path = run / "model.safetensors"
    weights, about = safetensors.read(path)
    weights["1.weight"] = np.full_like(weights["1.weight"], 3e38)
    path.write_bytes(safetensors.to_bytes(weights, about))
    line = refused(capsys, run, "--data", "photos", command=command, status=1)
    assert "the net's output is NaN or infinite for" in line


def test_a_net_with_other_outputs_is_refused(run, here, capsys):
    (here / "nets.py").write_text(NETS.replace("classes), **where", "classes), nn.Reshape(3, 1), **where"))
    assert "outputs must have shape (images, 3), one for each class, got (3, 3, 1)" in refused(capsys, run)


def test_weights_in_bfloat16_predict_too(run, capsys):
    path = run / "model.safetensors"
    weights, about = safetensors.read(path)
    for dtype in ("bfloat16", "float16", "float64"):
        path.write_bytes(safetensors.to_bytes(weights, about, dtype))
        assert predict(run) == 0
        assert "accuracy 100.0000%" in capsys.readouterr().out


def test_a_matrix_has_names_where_they_fit_and_numbers_beside_names_where_not():
    matrix = np.arange(4).reshape(2, 2)
    assert format_matrix(matrix, ["ant", "蜂蜂"]).splitlines() == [
        "true \\ predicted  ant 蜂蜂",
        "             ant    0    1",
        "            蜂蜂    2    3",
    ]
    names = [f"a rather long name of class {k}" for k in range(9)]
    head, *rows = format_matrix(np.eye(9, dtype=int), names).splitlines()
    assert head.split()[-9:] == [str(k) for k in range(9)]
    assert all(row.strip().startswith(f"{name} {k} ") for k, (row, name) in enumerate(zip(rows, names, strict=True)))
    assert {len(row) for row in rows} == {len(head)}


@pytest.mark.parametrize(("width", "n"), [(80, 40), (40, 9), (80, 100)])
def test_a_matrix_keeps_to_the_columns_of_a_terminal_and_shows_every_count_once(width, n):
    matrix = np.arange(n * n).reshape(n, n) % 97
    lines = format_matrix(matrix, [f"a rather long name of class {k}" for k in range(n)], width).splitlines()
    assert max(map(len, lines)) <= width
    found = {k: [] for k in range(n)}
    for line in lines:
        if line and "predicted" not in line:
            row, *counts = re.sub(r"^.*?(class \d+|\.\.\.) ", "", line.strip()).split()
            found[int(row)] += map(int, counts)
    assert [found[k] for k in range(n)] == matrix.tolist()


def test_a_batch_that_does_not_fit_is_one_line_with_the_batch_that_does(run, capsys, monkeypatch):
    forward = nn.Dense._forward

    def short(self, x):
        if x.shape[0] > 1:
            raise MemoryError("planted")
        return forward(self, x)

    monkeypatch.setattr(nn.Dense, "_forward", short)
    capsys.readouterr()
    assert predict(run) == 1
    error = capsys.readouterr().err
    batch = re.fullmatch(r"xpnn predict: batch of \d+ does not fit .*: add --batch (\d+)\n", error)[1]
    assert batch == "1"
    assert predict(run, "--batch", batch) == 0


def three_parts(here):
    """All labels of the validation part are wrong, so that its figures differ from those of the test part."""
    for part, n in (("train", 4), ("val", 3), ("test", 2)):
        photos(here / "photos3" / part, "ant", "bee", "cat", n=n)
    for a, b in (("ant", "x"), ("bee", "ant"), ("cat", "bee"), ("x", "cat")):
        (here / "photos3" / "val" / a).rename(here / "photos3" / "val" / b)


def test_three_parts_are_for_training_choosing_and_measuring_once(here, capsys):
    three_parts(here)
    train = ["train", "--data", "photos3", "--model", "nets:colours", "--epochs", "6", "--lr", "0.05", "--out", "r3"]
    assert main([*train, "--backend", "numpy", "--no-pictures"]) == 0
    out, err = capsys.readouterr()
    assert "12 images for training, 9 for validation, 6 for testing" in err
    metrics = json.loads(Path("r3/metrics.json").read_text())
    assert (metrics["validation_part"], metrics["test_part"]) == ("validation", "test")
    assert (metrics["validation_accuracy"], metrics["test_accuracy"]) == (0.0, 1.0)
    history = nn.History.from_csv("r3/history.csv")
    assert history["validation_accuracy"][-1] == 0.0
    assert history["validation_loss"][-1] == pytest.approx(metrics["validation_loss"])
    assert "test accuracy 100.00% (6 images)" in out
    assert predict("r3") == 0
    assert "held-out part of photos3: 6 images, 6 right" in capsys.readouterr().out


def test_two_parts_are_named_as_what_they_are(here, capsys):
    photos(here / "photos2", "ant", "bee", "cat", n=5)
    train = ["train", "--data", "photos2", "--model", "nets:colours", "--epochs", "1", "--out", "r2", "--no-pictures"]
    assert main([*train, "--backend", "numpy"]) == 0
    assert "held-out accuracy" in capsys.readouterr().out
    metrics = json.loads(Path("r2/metrics.json").read_text())
    assert (metrics["validation_part"], metrics["test_part"]) == ("held-out", "held-out")
    assert metrics["validation_loss"] == metrics["test_loss"]
    assert metrics["validation_accuracy"] == metrics["test_accuracy"]


def test_one_class_is_not_trained_and_one_of_several_is_with_a_warning(here, capsys):
    photos(here / "one", "ant", n=6)
    train = ["train", "--model", "nets:colours", "--epochs", "1", "--out", "r1", "--no-pictures", "--backend", "numpy"]
    assert main([*train, "--data", "one"]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: one has images of one class only (ant)")
    assert error == "xpnn train: one has one class, ant; training needs at least two"
    assert not (here / "r1").exists()
    arrays("one.npz", "ant", "ant", "ant", numbers=[0, 0, 0], class_names=["ant", "bee"])
    assert main([*train, "--data", "one.npz"]) == 0
    assert "warning: one.npz has images of one class only (ant)" in capsys.readouterr().err


def test_a_run_on_the_digits_needs_no_configuration(here, capsys):
    pytest.importorskip("sklearn")
    data = load_dataset("digits")
    folder = here / "digits"
    folder.mkdir()
    safetensors.save(nn.models.mlp(data.image, 10, seed=0), folder / "model.safetensors", describe("mlp", data))
    assert main(["predict", str(folder), "--backend", "numpy"]) == 0
    assert "held-out part of digits" in capsys.readouterr().out
    shutil.rmtree(folder)
    assert not os.path.lexists(folder)


@pytest.fixture
def finished(here):
    """A run of four epochs with all its checkpoints, which differ: the first predicts only one class."""
    photos(here / "photos", "ant", "bee", "cat", n=5)
    train = ["train", "--data", "photos", "--model", "nets:colours", "--epochs", "4", "--batch", "6", "--lr", "0.05"]
    assert main([*train, "--keep", "9", "--normalise", "--out", "run", "--backend", "numpy", "--no-pictures"]) == 0
    folder = here / "run"
    checkpoints = nn.Checkpoints(folder / "checkpoints", keep=9)
    steps = checkpoints.steps()
    with checkpoints:
        for k, step in enumerate(steps):
            found = checkpoints.read(step)
            bias = np.zeros(3, np.float32)
            bias[k % 3] = 1e4
            found.arrays["model/1.bias"] = bias
            checkpoints.write(step, found.arrays, found.facts, -abs(k - 1.0))
    assert len(steps) == 4
    return folder


def taken_for(capsys):
    """The class that was predicted for all images."""
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    (column,) = np.flatnonzero(np.sum([[int(cell) for cell in row[1:]] for row in rows], axis=0))
    return int(column)


@pytest.mark.parametrize("ended", [True, False])
def test_a_checkpoint_is_predicted_with_whether_the_run_has_ended_or_not(finished, capsys, ended):
    steps = nn.Checkpoints(finished / "checkpoints").steps()
    if not ended:
        (finished / "model.safetensors").unlink()
    before = {path: path.read_bytes() for path in (finished / "checkpoints").iterdir()}
    capsys.readouterr()
    for which, wanted in (("best", 1), ("last", 0), *((step, k % 3) for k, step in enumerate(steps))):
        assert predict(finished, "--checkpoint", which) == 0
        assert taken_for(capsys) == wanted, which
    assert predict(finished, "--checkpoint", "best", "--out", "a.png", command="explain") == 0
    assert "predicted class bee" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (finished / "checkpoints").iterdir()} == before
    if ended:
        assert predict(finished) == 0
        assert "3 images, 3 right" in capsys.readouterr().out
    else:
        assert "add --checkpoint last, since the run has not ended" in refused(capsys, finished)


def test_a_run_that_has_not_ended_is_described_as_one_that_has(finished, monkeypatch):
    from xpnn.training.saved_net import weights

    _, wanted = safetensors.read(finished / "model.safetensors")
    (finished / "model.safetensors").unlink()
    _, found, _ = weights.read_weights(finished, "last")
    assert found == wanted and found["normalise"] is not None


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_checkpoints_that_are_not_there_are_one_line(finished, capsys, command):
    capsys.readouterr()
    line = refused(capsys, finished, "--checkpoint", "999", command=command)
    steps = ", ".join(map(str, nn.Checkpoints(finished / "checkpoints").steps()))
    assert f"no checkpoint of step 999 in {finished / 'checkpoints'}; there are those of {steps}" in line
    for which in ("worst", "-1", "1.5", "٣", ""):
        with pytest.raises(SystemExit) as stop:
            predict(finished, f"--checkpoint={which}", command=command)
        assert stop.value.code == 2
        assert "best, last or a step" in capsys.readouterr().err
    for path in (finished / "checkpoints").glob("step-*.safetensors"):
        path.write_bytes(b"")
    for which in ("best", "last"):
        assert "is damaged" in refused(capsys, finished, "--checkpoint", which, command=command)
    shutil.rmtree(finished / "checkpoints")
    for which in ("best", "last", "3"):
        assert "no checkpoint in" in refused(capsys, finished, "--checkpoint", which, command=command)


def test_checkpoints_of_another_run_or_without_numbers_are_refused(finished, here, capsys):
    capsys.readouterr()
    with nn.Checkpoints(finished / "checkpoints", keep=9) as checkpoints:
        step = checkpoints.steps()[-1]
        found = checkpoints.read(step)
        weights = found.arrays["model/1.weight"]
        checkpoints.write(step, {**found.arrays, "model/1.weight": weights * np.nan}, found.facts)
        assert "1.weight in 144 of 144 values" in refused(capsys, finished, "--checkpoint", "last")
        checkpoints.write(step, {**found.arrays, "model/1.weight": weights[:2]}, found.facts)
        assert "1.weight has shape (2, 48)" in refused(capsys, finished, "--checkpoint", "last")
        for about in ({"data": "that of SHA-256 0123456789abcdef"}, {}, [], None):
            checkpoints.write(step, found.arrays, {**found.facts, "about": about})
            assert "is of a run on other data" in refused(capsys, finished, "--checkpoint", "last")
        checkpoints.write(step, found.arrays, found.facts)
    (finished / "model.safetensors").unlink()
    for text, message in (
        ("", "names no data or no model"),
        ('data = "photos"\nmodel = 3\n', "names no data or no model"),
        ('data = "gone"\nmodel = "nets:colours"\n', "no data file gone"),
        ('data = "photos"\nmodel = "nets:colours"\nimage-size = "x"\n', "image_size must be height and width"),
    ):
        (finished / "config.toml").write_text(text)
        assert message in refused(capsys, finished, "--checkpoint", "last")
