"""Datasets of image folders: classes, splits, sizes, and files that are no images."""

import io
import sys

import numpy as np
import pytest

from xpnn.training import images as budget
from xpnn.training.datasets import DataError, decode, folders, load_dataset

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def picture(seed, size=(6, 5), channels=3):
    shape = (*size, channels) if channels > 1 else size
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def classes(folder, names=("cat", "ant"), n=5, **options):
    """``n`` lossless pictures of each class; by folder."""
    made = {}
    for k, name in enumerate(names):
        for i in range(n):
            made[name, i] = picture(100 * k + i, **options)
            save(folder / name / f"{i:03}.png", made[name, i])
    return made


def rows(made, *keys):
    found = np.stack([made[key] for key in keys])
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found[:, None]


def all_of(data):
    x, y = data.whole()
    return {image.tobytes(): label for image, label in zip(x[:], y.tolist(), strict=True)}


def test_classes_are_the_sorted_folders(tmp_path):
    made = classes(tmp_path)
    data = load_dataset(tmp_path)
    assert (data.class_names, data.image, data.scale) == (("ant", "cat"), (3, 6, 5), 1 / 255)
    assert (len(data.y_train), len(data.y_test), data.whole_is_test) == (8, 2, True)
    found = all_of(data)
    assert all(found[rows(made, key)[0].tobytes()] == ("ant", "cat").index(key[0]) for key in made)


@pytest.mark.parametrize("name", ["test", "val", "valid", "Test"])
def test_a_split_is_kept(tmp_path, name):
    made = classes(tmp_path / "train")
    held = classes(tmp_path / name, names=("cat",), n=2, size=(6, 5))
    data = load_dataset(tmp_path)
    assert np.array_equal(data.x_train, rows(made, *((k, i) for k in ("ant", "cat") for i in range(5))))
    assert np.array_equal(data.x_test, rows(held, ("cat", 0), ("cat", 1)))
    assert data.y_test.tolist() == [1, 1] and not data.whole_is_test


def test_a_class_may_be_called_train(tmp_path):
    classes(tmp_path, names=("plane", "train"))
    assert load_dataset(tmp_path).class_names == ("plane", "train")


def test_hidden_and_other_files_are_ignored(tmp_path):
    classes(tmp_path)
    for name in (".DS_Store", "cat/.hidden.png", "cat/notes.txt", ".cache/a.png", "cat/.thumbs/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"nothing")
    assert len(load_dataset(tmp_path).whole()[1]) == 10


def test_images_are_grey_if_all_files_are(tmp_path):
    made = classes(tmp_path, channels=1)
    data = load_dataset(tmp_path)
    assert data.image == (1, 6, 5)
    assert rows(made, ("cat", 2))[0].tobytes() in all_of(data)
    save(tmp_path / "cat" / "colour.png", picture(9))
    data = load_dataset(tmp_path)
    assert data.image == (3, 6, 5)
    assert np.repeat(rows(made, ("cat", 2))[0], 3, 0).tobytes() in all_of(data)


def test_sixteen_bits_lose_their_lower_byte(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (6, 5)).astype(np.uint16)
    for i in range(5):
        save(tmp_path / "a" / f"{i}.png", values)
    x, _ = load_dataset(tmp_path).whole()
    assert np.array_equal(x[0, 0], values >> 8)


def test_images_are_resized_to_the_most_common_size(tmp_path):
    classes(tmp_path, n=4, size=(6, 5))
    save(tmp_path / "ant" / "!first.png", np.full((30, 40, 3), 77, np.uint8))
    data = load_dataset(tmp_path)
    assert data.image == (3, 6, 5)
    assert np.full((3, 6, 5), 77, np.uint8).tobytes() in all_of(data)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_size_is_height_and_width(tmp_path, channels):
    # The upper left quarter is white, and stays there.
    pixels = np.zeros((8, 6, 3), np.uint8)
    pixels[:4, :3] = 255
    for i in range(5):
        save(tmp_path / "a" / f"{i}.png", pixels if channels == 3 else pixels[..., 0])
    x, _ = load_dataset(tmp_path, image_size=(4, 12)).whole()
    assert x.shape == (5, channels, 4, 12)
    assert x[:, :, 0, :5].min() == 255
    assert x[:, :, -1].max() == x[:, :, :, 7:].max() == 0


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for i in range(5):
        save(tmp_path / "a" / f"{i}.jpg", pixels, exif=exif)
    x, _ = load_dataset(tmp_path).whole()
    assert x.shape == (5, 3, 32, 16)
    assert x[0, :, 2].min() > 200 and x[0, :, -3].max() < 50


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "bmp", "gif", "webp", "ppm", "tif"])
def test_formats(tmp_path, ending):
    for i in range(5):
        save(tmp_path / "a" / f"{i}.{ending}", np.full((6, 5, 3), (200, 40, 90), np.uint8))
    x, _ = load_dataset(tmp_path).whole()
    assert np.abs(x.astype(int) - np.array([200, 40, 90])[:, None, None]).max() <= 4


def test_large_folders_are_decoded_batch_by_batch(tmp_path, monkeypatch):
    made = classes(tmp_path, n=10)
    whole = load_dataset(tmp_path)
    monkeypatch.setattr(folders, "IN_MEMORY", 1)
    data = load_dataset(tmp_path)
    assert not isinstance(data.x_train, np.ndarray) and data.x_train.shape == whole.x_train.shape
    assert len(all_of(data)) == len(made)
    for (x, y), (x_whole, y_whole) in zip(data.loader(3, seed=2), whole.loader(3, seed=2), strict=True):
        assert np.array_equal(x, x_whole) and np.array_equal(y, y_whole)


def test_fingerprint_changes_with_a_pixel(tmp_path):
    classes(tmp_path)
    before = load_dataset(tmp_path).fingerprint
    assert load_dataset(tmp_path).fingerprint == before
    save(tmp_path / "cat" / "000.png", picture(999))
    assert load_dataset(tmp_path).fingerprint != before


def truncated():
    file = io.BytesIO()
    Image.fromarray(picture(0, (40, 40))).save(file, "PNG")
    return file.getvalue()[:1500]


@pytest.mark.parametrize("content", [b"", b"hello", truncated()], ids=["empty", "text", "cut"])
def test_unreadable_files_are_reported_and_left_out(tmp_path, capsys, content):
    made = classes(tmp_path)
    for name in ("cat/bad1.png", "ant/bad2.jpg"):
        (tmp_path / name).write_bytes(content)
    data = load_dataset(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("left out") for line in lines] == [True, True, False]
    assert "bad2.jpg: " in lines[0] and "bad1.png: " in lines[1]
    assert lines[2].startswith("2 image file(s) can't be read")
    found = all_of(data)
    assert len(found) == len(made) == len(data.whole()[1])
    assert all(found[rows(made, key)[0].tobytes()] == ("ant", "cat").index(key[0]) for key in made)


def test_class_without_a_readable_image_is_refused(tmp_path):
    classes(tmp_path)
    for i in range(12):
        (tmp_path / "bee").mkdir(exist_ok=True)
        (tmp_path / "bee" / f"{i:02}.png").write_bytes(b"hello")
    with pytest.raises(
        DataError, match=r"class bee .* 12 file\(s\) can't be read: .*00\.png: no image.*09\.png.*; \.\.\."
    ):
        load_dataset(tmp_path)


def test_a_file_that_can_not_be_read_later_is_named(tmp_path, monkeypatch):
    classes(tmp_path, n=10)
    monkeypatch.setattr(folders, "IN_MEMORY", 1)
    data = load_dataset(tmp_path)
    data.x_train.images.paths[0].write_bytes(b"hello")
    with pytest.raises(DataError, match=r"000\.png can't be read"):
        list(data.loader(3)), list(data.held_out())


def test_empty_class_is_refused(tmp_path):
    classes(tmp_path)
    (tmp_path / "bee").mkdir()
    with pytest.raises(DataError, match="no image in class folder bee"):
        load_dataset(tmp_path)


def test_unknown_held_out_class_is_refused(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test", names=("cat", "dog"))
    with pytest.raises(DataError, match=r"has class dog, which .* does not have"):
        load_dataset(tmp_path)


def test_without_pillow_the_error_says_what_to_install(tmp_path, monkeypatch):
    classes(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'pillow>=10\.1'"):
        load_dataset(tmp_path)


def test_only_the_named_decoders_are_used(tmp_path):
    classes(tmp_path)
    Image.fromarray(picture(1)).save(tmp_path / "cat" / "new.png", "PCX")
    with pytest.raises(decode.Unreadable):
        decode.read_header(tmp_path / "cat" / "new.png")


@pytest.mark.parametrize("size", [(4,), (0, 4), (4, 4.0), 4, "44"])
def test_bad_sizes_are_refused(tmp_path, size):
    with pytest.raises(DataError, match="image_size must be height and width"):
        load_dataset(tmp_path, image_size=size)


def test_one_gigabyte_is_the_budget():
    assert budget.IN_MEMORY == folders.IN_MEMORY == 1 << 30
