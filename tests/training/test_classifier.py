"""A trained net names the classes of new images, prepared exactly as those of training."""

import os

import numpy as np
import pytest

import xpnn as nn
from xpnn.interop import safetensors
from xpnn.training.augment import Compose, Flip, Normalise
from xpnn.training.datasets import DataError, load_dataset
from xpnn.training.saved_net.description import describe

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
rng = np.random.default_rng(0)
COLOURS = {"ant": (220, 30, 40), "bee": (30, 220, 60), "cat": (20, 60, 210)}


def picture(colour, size=(9, 8)):
    noise = rng.integers(-20, 20, (*size, 3))
    return np.clip(noise + np.array(colour), 0, 255).astype(np.uint8)


def mlp(image, classes, **placement):
    return nn.models.mlp(image, classes, **placement)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(8):
            # Files of another size than the net's images.
            size = (9, 8) if i else (23, 31)
            Image.fromarray(picture(colour, size)).save(folder / name / f"{i}.png")
    return folder


def written(folder, data, model, transform=None, name="lenet"):
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.save(model, folder / "model.safetensors", describe(name, data, transform))
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A folder of a run, its data and the transform of training."""
    data = load_dataset(photos)
    transform = Compose(Flip(), Normalise.of(data))
    model = nn.models.lenet(data.image, data.classes, seed=0)
    loader = data.loader(8, transform=transform)
    nn.fit(model, loader, optimizer=nn.Adam(model, 0.01), epochs=6, progress=False)
    return written(tmp_path_factory.mktemp("run") / "r", data, model, transform), data, transform, model


def probabilities(scores):
    e = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_images_are_prepared_as_in_training(at, run, photos):
    folder, data, transform, model = run
    wanted = probabilities(nn.predict(model, data.held_out(transform=transform)))
    classifier = nn.load_classifier(folder, backend=at.backend)
    assert classifier.class_names == ("ant", "bee", "cat") and classifier.image == (3, 9, 8)
    # The held-out images, as the dataset stores them, and the files that they are.
    x = np.asarray(data.x_test)
    for items in (x, x.transpose(0, 2, 3, 1), [Image.fromarray(each.transpose(1, 2, 0)) for each in x]):
        np.testing.assert_allclose(classifier.predict_proba(items), wanted, rtol=1e-4, atol=1e-6)
    names = classifier.predict(x, batch_size=2)
    assert names == [data.class_names[label] for label in wanted.argmax(1)]


def test_files_and_folders_come_in_order(run, photos):
    classifier = nn.load_classifier(run[0])
    assert classifier.predict(photos) == ["ant"] * 8 + ["bee"] * 8 + ["cat"] * 8
    mixed = [photos / "cat" / "0.png", str(photos / "ant"), np.asarray(Image.open(photos / "bee" / "1.png"))]
    assert classifier.predict(mixed) == ["cat", *["ant"] * 8, "bee"]
    one = classifier.predict_proba(photos / "cat" / "0.png")
    assert one.shape == (1, 3) and one.sum() == pytest.approx(1.0, abs=1e-12)
    for size in (1, 3, 100):
        assert np.array_equal(
            classifier.predict_proba(mixed, batch_size=size).argmax(1), classifier.predict_proba(mixed).argmax(1)
        )
    assert classifier.predict([]) == [] and classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict(iter(mixed)) == classifier.predict(mixed)


def test_pictures_of_any_size_and_mode_are_converted_as_files_are(run, photos, tmp_path):
    classifier = nn.load_classifier(run[0])
    large = picture(COLOURS["bee"], (40, 17))
    Image.fromarray(large).save(tmp_path / "a.png")
    wanted = classifier.predict_proba(tmp_path / "a.png")
    rgba = np.concatenate([large, np.full((40, 17, 1), 9, np.uint8)], axis=2)
    for item in (large, large.transpose(2, 0, 1), Image.fromarray(large), rgba, Image.open(tmp_path / "a.png")):
        assert np.array_equal(classifier.predict_proba(item), wanted)
    turned = Image.fromarray(np.rot90(large).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(classifier.predict_proba(tmp_path / "turned.png"), wanted)
    grey = large[..., 0]
    assert np.array_equal(classifier.predict_proba(grey), classifier.predict_proba(Image.fromarray(grey)))
    assert np.array_equal(classifier.predict_proba(grey[..., None]), classifier.predict_proba(Image.fromarray(grey)))


@pytest.mark.parametrize("top", [16.0, 1.0, 1000.0])
def test_values_of_the_training_data_and_pictures_are_told_apart(tmp_path, top):
    """A net trained on values up to 16, as the digits are: a picture's white is their largest."""
    x = (rng.random((40, 6, 5)) * top).astype(np.float32)
    x[0, 0, 0] = top
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 2)
    data = load_dataset(tmp_path / "d.npz")
    model = nn.models.mlp(data.image, 2, seed=3)
    classifier = nn.load_classifier(written(tmp_path / "r", data, model, name="mlp"))
    wanted = probabilities(nn.predict(model, (x * np.float32(data.scale))[:, None]))
    np.testing.assert_allclose(classifier.predict_proba(list(x)), wanted, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict_proba(x[:, None]), wanted, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict_proba(x[3].astype(np.float64)), wanted[3:4], rtol=1e-5)
    bytes_of = np.round(x / top * 255).astype(np.uint8)
    found = classifier.predict_proba(bytes_of[0])
    np.testing.assert_allclose(found, classifier.predict_proba(Image.fromarray(bytes_of[0])), rtol=1e-12)
    np.testing.assert_allclose(found, classifier.predict_proba(bytes_of[0] / np.float32(255) * top), rtol=1e-4)


def test_what_is_not_clear_is_refused(tmp_path, run):
    x = rng.integers(0, 17, (20, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) % 2)
    data = load_dataset(tmp_path / "d.npz")
    classifier = nn.load_classifier(written(tmp_path / "r", data, nn.models.mlp(data.image, 2, seed=0), name="mlp"))
    with pytest.raises(DataError, match=r"image 0 can't be classified: bytes up to 1[56], and the net was"):
        classifier.predict(x[0].astype(np.uint8))
    with pytest.raises(DataError, match=r"floats up to 0\.9.* multiply by 255, or give bytes"):
        nn.load_classifier(run[0]).predict(np.full((3, 9, 8), 0.9, np.float32))


def test_a_net_of_bytes_with_another_largest_value_keeps_the_scale_of_training(tmp_path):
    x = rng.integers(0, 201, (20, 6, 6)).astype(np.uint8)
    x[:, 0, 0] = 200
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) % 2)
    data = load_dataset(tmp_path / "d.npz")
    assert data.scale == 1 / 200
    model = nn.models.mlp(data.image, 2, seed=0)
    classifier = nn.load_classifier(written(tmp_path / "r", data, model, name="mlp"))
    loader = nn.DataLoader(x[:, None], np.zeros(20, int), 32, shuffle=False, scale=data.scale)
    np.testing.assert_allclose(classifier.predict_proba(list(x)), probabilities(nn.predict(model, loader)), rtol=1e-5)


@pytest.mark.parametrize(
    "item, kind, message",
    [
        (lambda p: p / "gone.png", FileNotFoundError, "there is no file .*gone.png"),
        (lambda p: p / "text.png", DataError, "text.png can't be classified: no image of a known format"),
        (lambda p: [p / "good.png", p / "cut.png"], DataError, "cut.png can't be classified: "),
        (lambda p: p / "pipe.png", DataError, "pipe.png can't be classified: "),
        (lambda p: p / "empty", DataError, "empty holds no image"),
        (lambda p: np.zeros((3, 9, 7), np.float32), DataError, r"shape \(3, 9, 7\), the net's images are 3 x 9 x 8"),
        (lambda p: np.zeros((9, 8, 5), np.uint8), DataError, r"shape \(9, 8, 5\); an image is \(H, W, C\)"),
        (lambda p: np.zeros((0, 8, 3), np.uint8), DataError, "the image is empty"),
        (lambda p: np.full((3, 9, 8), np.nan), DataError, "NaN or infinite"),
        (lambda p: np.full((3, 9, 8), 1e300), DataError, "NaN or infinite"),
        (lambda p: np.zeros((9, 8), bool), DataError, "an image holds integers or floats, got bool"),
        (lambda p: np.zeros(9), ValueError, r"an image is \(H, W, C\)"),
        (lambda p: 3, TypeError, "items are paths, folders, arrays or Pillow images, got 3"),
        (lambda p: [None], TypeError, "items are paths"),
        (lambda p: Image.new("F", (8, 9)), DataError, "32 bits"),
    ],
)
def test_images_that_can_not_be_used_are_named(run, tmp_path, item, kind, message):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    Image.fromarray(picture(COLOURS["ant"], (60, 60))).save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(kind, match=message):
        nn.load_classifier(run[0]).predict(item(tmp_path))


def test_a_picture_for_a_net_of_other_channels_is_refused(tmp_path):
    x = rng.integers(0, 256, (20, 2, 5, 5)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) % 2)
    data = load_dataset(tmp_path / "d.npz")
    classifier = nn.load_classifier(written(tmp_path / "r", data, nn.models.mlp(data.image, 2, seed=0), name="mlp"))
    assert len(classifier.predict(x)) == 20
    with pytest.raises(DataError, match="the net's images have 2 channels, a picture has 1 or 3; give arrays"):
        classifier.predict(Image.new("RGB", (5, 5)))


def test_a_grey_net_takes_colours_as_grey(tmp_path):
    x = rng.integers(0, 256, (20, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) % 2)
    data = load_dataset(tmp_path / "d.npz")
    classifier = nn.load_classifier(written(tmp_path / "r", data, nn.models.mlp(data.image, 2, seed=0), name="mlp"))
    colour = np.stack([x[0]] * 3, axis=-1)
    np.testing.assert_allclose(classifier.predict_proba(colour), classifier.predict_proba(x[0]), rtol=1e-6)


def test_in_exact_numerics_probabilities_have_the_same_bits_everywhere(exact, run, photos):
    found = [nn.load_classifier(run[0], backend=b).predict_proba(photos) for b in (exact, "numpy")]
    again = nn.load_classifier(run[0], backend="numpy", numerics="exact").predict_proba(photos, batch_size=5)
    assert np.array_equal(found[0], again)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_a_net_of_the_user_needs_the_function_that_made_it(run, tmp_path, photos):
    _, data, transform, _ = run
    model = mlp(data.image, 3, seed=0)
    folder = written(tmp_path / "r", data, model, transform, name="my_nets:tiny")
    with pytest.raises(ValueError, match="holds a net of your own, my_nets:tiny; pass the function that made it"):
        nn.load_classifier(folder)
    wanted = nn.load_classifier(folder, model=mlp).predict_proba(photos)
    assert np.array_equal(nn.load_classifier(folder, model=mlp(data.image, 3)).predict_proba(photos), wanted)
    with pytest.raises(ValueError, match="model has a backend already"):
        nn.load_classifier(folder, model=mlp(data.image, 3), backend="numpy")
    for wrong in ("mlp", 3):
        with pytest.raises(TypeError, match="model must be a function"):
            nn.load_classifier(folder, model=wrong)


@pytest.mark.parametrize("how", ["nothing", "file", "no model", "garbage", "not described", "nan"])
def test_folders_without_a_good_net_are_refused(tmp_path, how, run):
    folder = tmp_path / "r"
    _, data, _, model = run
    if how == "file":
        folder.write_text("x")
    elif how != "nothing":
        folder.mkdir()
    if how == "garbage":
        (folder / "model.safetensors").write_bytes(b"\xff" * 99)
    if how == "not described":
        safetensors.save(model, folder / "model.safetensors", {"model": "lenet"})
    if how == "nan":
        broken = nn.models.lenet(data.image, data.classes, seed=0)
        next(broken.named_parameters())[1].value[...] = np.nan
        written(folder, data, broken)
    message = {
        "nothing": "there is no folder",
        "file": "there is no folder",
        "no model": "no model.safetensors in .*; name a folder that xpnn train wrote",
        "garbage": "model.safetensors",
        "not described": r"does not say which net it holds \(no image\)",
        "nan": "holds NaN or infinity",
    }[how]
    with pytest.raises(ValueError, match=message):
        nn.load_classifier(folder)
    with pytest.raises(ValueError, match="checkpoint must be 'best', 'last' or a step"):
        nn.load_classifier(folder, checkpoint="worst")


def test_outputs_that_are_no_scores_of_the_classes_are_refused(run, tmp_path):
    _, data, _, _ = run
    net = nn.Sequential(nn.Flatten(), nn.Dense(3 * 9 * 8, 4), seed=0)
    folder = written(tmp_path / "r", data, net, name="a:b")
    with pytest.raises(ValueError, match=r"must have shape \(images, 3\), one for each class, got \(1, 4\)"):
        nn.load_classifier(folder, model=lambda image, classes, **where: net).predict(picture(COLOURS["ant"]))
    huge = nn.Sequential(nn.Flatten(), nn.Dense(3 * 9 * 8, 3), seed=0)
    huge[1].parameters["weight"].value = huge[1].parameters["weight"].value * 0 + 3e38
    folder = written(tmp_path / "h", data, huge, name="a:b")
    with pytest.raises(ValueError, match="output is NaN or infinite"):
        nn.load_classifier(folder, model=huge).predict(picture(COLOURS["ant"]))
