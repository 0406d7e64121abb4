"""Right and wrong layouts of image folders, and harmful files in them."""

import itertools
import os
import struct
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hostile import NO_FILES, limits, no_file

from xpnn.training.datasets import DataError, decode, load_dataset

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
ImageOps = pytest.importorskip("PIL.ImageOps")
_seeds = itertools.count()


def images(folder, n=5, **options):
    """``n`` pictures, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = np.random.default_rng(next(_seeds)).integers(0, 256, (6, 5, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def laid_out(root, *folders, n=5):
    for folder in folders:
        images(root / folder, n)
    return root


def notes(capsys):
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "Training"])
@pytest.mark.parametrize("test", ["test", "Testing", "TEST", "val", "Valid", "validation", "VALIDATION"])
def test_every_spelling_of_two_parts_is_recognised(tmp_path, capsys, train, test):
    laid_out(tmp_path, f"{train}/ant", f"{train}/bee", n=3)
    laid_out(tmp_path, f"{test}/ant", f"{test}/bee", n=2)
    data = load_dataset(tmp_path)
    assert (data.class_names, len(data.y_train), len(data.y_test)) == (("ant", "bee"), 6, 4)
    assert data.x_valid is None and not data.whole_is_test
    assert notes(capsys) == []


@pytest.mark.parametrize("valid", ["val", "valid", "Validation"])
@pytest.mark.parametrize("test", ["test", "Testing"])
def test_three_parts_are_for_training_validation_and_testing(tmp_path, capsys, valid, test):
    for part, n in (("train", 4), (valid, 3), (test, 2)):
        laid_out(tmp_path, f"{part}/ant", f"{part}/bee", n=n)
    data = load_dataset(tmp_path)
    assert (len(data.y_train), len(data.y_valid), len(data.y_test)) == (8, 6, 4)
    for found, part, n in ((data.validation(), valid, 3), (data.held_out(), test, 2)):
        ((x, y),) = found
        files = [tmp_path / part / name / f"{i}.png" for name in ("ant", "bee") for i in range(n)]
        wanted = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in files])
        assert np.array_equal(x, wanted * np.float32(1 / 255)) and y.tolist() == [0] * n + [1] * n
    assert notes(capsys) == [] and len(data.whole()[1]) == 18
    (tmp_path / valid / "bee" / "0.png").unlink()
    assert load_dataset(tmp_path).fingerprint != data.fingerprint


WRONG = {
    "one level too high": (
        ["photos/ant", "photos/bee"],
        "is one level too high: .* photos, is no class.*ant, bee.*name .*/data/photos",
    ),
    "two levels too high": (["a/photos/ant", "a/photos/bee"], "one level too high.*name .*/data/a/photos"),
    "above parts": (
        ["photos/train/ant", "photos/test/ant"],
        "one level too high: photos is no class, it holds test, train; name .*/data/photos",
    ),
    "above spelt parts": (["photos/Training/ant", "photos/Testing/ant"], "one level too high.*name .*/data/photos"),
    "above parts, others beside": (
        ["photos/train/ant", "photos/val/ant", "more/bee"],
        "one level too high.*data/photos",
    ),
    "above several": (["a/ant", "a/bee", "b/ant", "b/bee"], "one level too high: a, b hold the same folders, ant, bee"),
    "within a part": (
        ["train/photos/ant", "train/photos/bee", "test/photos/ant"],
        "one level too high: .*photos.*move up what is in photos",
    ),
    "within the test part": (
        ["train/ant", "train/bee", "test/photos/ant", "test/photos/bee"],
        "one level too high.*move up",
    ),
    "twice the same name": (["seg_train/seg_train/ant", "seg_train/seg_train/bee"], "name .*/data/seg_train/seg_train"),
    "one class, further down": (["ant/2020", "ant/2021"], "one level too high"),
    "parts in classes": (
        ["ant/train", "ant/test", "bee/train", "bee/test"],
        "ant holds test, train of one class; the parts come first: test/ant",
    ),
    "no training": (
        ["test/ant", "valid/ant"],
        "has test and valid and no folder for training; name it train or training",
    ),
    "two for training": (
        ["train/ant", "Training/ant", "test/ant"],
        "two folders for train, Training and train; keep one",
    ),
    "two for choosing": (["train/ant", "val/ant", "valid/ant"], "two folders for valid, val and valid; keep one"),
    "parts without classes": (["train", "test"], "test holds images of no class"),
    "one part without classes": (["Training"], "Training holds images of no class"),
    "a test without classes": (["ant", "bee", "test"], "test holds images of no class.*put all classes into"),
    "validation beside classes": (["ant", "bee", "Validation"], "Validation holds images of no class"),
    "test images in no class": (["train/ant", "train/bee", "test"], "test has no images in folders of classes"),
    "unknown classes": (
        ["train/ant", "train/bee", "test/ant", "test/cow", "test/dog"],
        r"has class cow, dog, which .*train does not have \(ant, bee\)",
    ),
    "an unknown class for choosing": (["train/ant", "test/ant", "val/cow"], "val has class cow, which"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_layouts_are_refused_with_what_to_do(tmp_path, case):
    folders, message = WRONG[case]
    laid_out(tmp_path / "data", *folders, n=3)
    with pytest.raises(DataError, match=message) as error:
        load_dataset(tmp_path / "data")
    assert len(str(error.value).splitlines()) == 1


def test_the_folder_that_the_error_suggests_can_be_loaded(tmp_path):
    laid_out(tmp_path / "data", "a/photos/ant", "a/photos/bee")
    with pytest.raises(DataError, match="one level too high") as error:
        load_dataset(tmp_path / "data")
    place = str(error.value).rpartition("name ")[2]
    assert load_dataset(place).class_names == ("ant", "bee")


def test_an_empty_part_is_refused(tmp_path):
    laid_out(tmp_path, "train/ant", "train/bee", "test/ant")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="val has no images in folders of classes"):
        load_dataset(tmp_path)


WARNED = {
    "one class": (["ant"], "one class only (ant)", ("ant",)),
    "one class in parts": (["train/ant", "test/ant"], "one class only (ant)", ("ant",)),
    "further down": (["ant/2020", "ant", "bee"], "5 images are in nested folders of", ("ant", "bee")),
    "all further down": (["ant/p1", "ant/p2", "bee/p3"], "as those of ant/p1 to class ant", ("ant", "bee")),
    "a class called train": (["plane", "train"], "train is used as a class", ("plane", "train")),
    "beside parts": (
        ["train/ant", "train/bee", "test/ant", "test/bee", "extra"],
        "extra is left out with 5 images",
        ("ant", "bee"),
    ),
    "a name nearly of a part": (
        ["train/ant", "train/bee", "validate/ant"],
        "validate is left out with 5 images",
        ("ant", "bee"),
    ),
    "missing in a part": (["train/ant", "train/bee", "test/ant"], "test has no images of class bee", ("ant", "bee")),
}


@pytest.mark.parametrize("case", WARNED)
def test_possible_mistakes_are_reported(tmp_path, capsys, case):
    folders, message, names = WARNED[case]
    data = load_dataset(laid_out(tmp_path, *folders))
    assert data.class_names == names
    (reported,) = notes(capsys)
    assert reported.startswith("warning: ") and message in reported


def test_images_in_no_class_are_reported(tmp_path, capsys):
    laid_out(tmp_path, "", "ant", "bee", n=5)
    assert len(load_dataset(tmp_path).whole()[1]) == 10
    assert "5 images in" in notes(capsys)[0]


def test_folders_that_archivers_add_are_ignored(tmp_path, capsys):
    laid_out(tmp_path, "ant", "bee")
    for name in ("__MACOSX/ant/._0.png", "@eaDir/0.png", "ant/@eaDir/t.png", ".DS_Store", "ant/.DS_Store", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    data = load_dataset(tmp_path)
    assert (data.class_names, len(data.whole()[1])) == (("ant", "bee"), 10)
    assert notes(capsys) == []


def test_an_empty_class_in_the_held_out_part_is_reported(tmp_path, capsys):
    laid_out(tmp_path, "train/ant", "train/bee", "test/ant")
    (tmp_path / "test" / "bee").mkdir()
    load_dataset(tmp_path)
    assert "test has no images of class bee" in notes(capsys)[0]


def test_images_in_both_parts_are_reported(tmp_path, capsys):
    laid_out(tmp_path, "train/ant", "train/bee", "test/ant", "test/bee")
    content = (tmp_path / "train/ant/2.png").read_bytes()
    (tmp_path / "test/ant/copy.png").write_bytes(content)
    load_dataset(tmp_path)
    (reported,) = notes(capsys)
    assert (
        "1 images are trained on too" in reported and "test/ant/copy.png" in reported and "train/ant/2.png" in reported
    )
    (tmp_path / "test/ant/copy.png").rename(tmp_path / "test/bee/copy.png")
    load_dataset(tmp_path)
    assert "1 images are of two classes" in notes(capsys)[1]


def test_copies_are_reported_if_a_fifth_is_held_out(tmp_path, capsys):
    laid_out(tmp_path, "ant", "bee")
    (tmp_path / "ant/copy.png").write_bytes((tmp_path / "ant/1.png").read_bytes())
    load_dataset(tmp_path)
    assert "1 images are copies of others, of which some may be held out" in notes(capsys)[0]


def test_linked_folders_are_read_but_no_folder_twice(tmp_path, capsys):
    laid_out(tmp_path / "elsewhere", "bees", "more")
    data = laid_out(tmp_path / "data", "ant")
    (data / "bee").symlink_to(tmp_path / "elsewhere" / "bees")
    (data / "ant" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (data / "ant" / "circle").symlink_to(data / "ant")
    (data / "bee" / "itself.png").symlink_to(data / "bee" / "itself.png")
    with limits():
        found = load_dataset(data)
    assert found.class_names == ("ant", "bee") and len(found.whole()[1]) == 15
    assert any("itself.png" in line for line in notes(capsys))
    for target in (data, tmp_path):
        (data / "all").symlink_to(target)
        with limits(), pytest.raises(DataError, match="all is a link to a folder that contains it"):
            load_dataset(data)
        (data / "all").unlink()


def test_deep_folders_are_read(tmp_path):
    deep = tmp_path / "ant"
    for _ in range(300):
        deep /= "d"
    images(deep)
    laid_out(tmp_path, "ant", "bee")
    assert len(load_dataset(tmp_path).whole()[1]) == 15


@pytest.mark.parametrize("kind", NO_FILES[:5])
def test_images_that_are_no_files_are_left_out(tmp_path, capsys, kind):
    laid_out(tmp_path, "ant", "bee")
    no_file(kind, tmp_path / "ant" / "9.png")
    with limits():
        data = load_dataset(tmp_path)
    assert len(data.whole()[1]) == 10
    reported = notes(capsys)
    if kind != "a folder":
        assert "left out" in reported[0] and "9.png" in reported[0] and len(reported) == 2


def test_a_class_name_that_is_not_utf8_is_refused(tmp_path):
    laid_out(tmp_path, "ant")
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    with suppress(OSError):
        Path(os.fsdecode(place)).mkdir()
    if not Path(os.fsdecode(place)).is_dir():
        pytest.skip("this file system refuses such names")
    with pytest.raises(DataError, match=r"caf\\xe9.*is no text in UTF-8; rename it"):
        load_dataset(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", bits: int = 8, colours: int = 2) -> bytes:
    """A file that claims that size."""
    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def jpeg(width: int, height: int, path) -> bytes:
    """A picture whose header claims another size."""
    Image.new("RGB", (8, 8)).save(path, "JPEG")
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(content)


BOMBS = {
    "png": lambda path: png(60_000, 60_000),
    "png beyond Pillow's first limit": lambda path: png(10_000, 10_000),
    "png of one bit": lambda path: png(65_000, 65_000, bytes(8126) * 400, 1, 0),
    "png of no pixels": lambda path: png(0, 0),
    "png of all pixels": lambda path: png((1 << 31) - 1, (1 << 31) - 1),
    "jpeg": lambda path: jpeg(65_000, 65_000, path),
    "gif": lambda path: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0\0;",
    "ppm": lambda path: b"P6 99999 99999 255\n" + bytes(30),
    "bmp": lambda path: b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 90000, 90000, 1, 24, 0, 0, 0, 0, 0, 0),
    "tiff": lambda path: (
        b"II*\0\x08\0\0\0\x04\0"
        + b"".join(
            struct.pack("<HHII", tag, 4, 1, n) for tag, n in ((256, 90000), (257, 90000), (273, 8), (279, 1 << 31))
        )
        + bytes(4)
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_picture_that_claims_a_huge_size_is_left_out(tmp_path, capsys, recwarn, case):
    laid_out(tmp_path, "ant", "bee")
    path = tmp_path / "ant" / "bomb.png"
    path.write_bytes(BOMBS[case](path))
    with limits():
        data = load_dataset(tmp_path)
    assert len(data.whole()[1]) == 10 and data.image == (3, 6, 5)
    reported = notes(capsys)
    assert len(reported) == 2 and reported[0].startswith(f"left out {path}: ")
    assert not list(recwarn)


def test_if_all_images_are_too_large_the_error_is_one_line(tmp_path, capsys):
    (tmp_path / "ant").mkdir()
    for i in range(3):
        (tmp_path / "ant" / f"{i}.png").write_bytes(png(60_000, 60_000))
    with limits(), pytest.raises(DataError, match=r"has no readable image: 3 file\(s\) can't be read") as error:
        load_dataset(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    laid_out(tmp_path, "ant", "bee")
    monkeypatch.setattr(decode, "LARGE", 29)
    monkeypatch.setattr(decode, "available_cores", lambda: 8)
    inside, most = [], []
    transpose = ImageOps.exif_transpose

    def counted(image):
        inside.append(image)
        most.append(len(inside))
        threading.Event().wait(0.005)
        inside.remove(image)
        return transpose(image)

    monkeypatch.setattr(ImageOps, "exif_transpose", counted)
    load_dataset(tmp_path)
    assert most == [1] * 10
    monkeypatch.setattr(decode, "LARGE", 30)
    load_dataset(tmp_path)
    assert max(most) > 1


def test_missing_memory_is_an_error_and_no_image_is_left_out(tmp_path, monkeypatch):
    laid_out(tmp_path, "ant", "bee")

    def full(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", full)
    with pytest.raises(DataError, match="not enough memory to decode"):
        load_dataset(tmp_path)


def test_a_folder_without_permission_to_read_is_an_error(tmp_path, monkeypatch):
    laid_out(tmp_path, "ant", "bee")
    scandir = os.scandir

    def denied(path="."):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="bee"):
        load_dataset(tmp_path)


def test_evaluation_on_few_images_and_classes_gives_no_warnings(tmp_path, capsys):
    laid_out(tmp_path, "bee", n=1)
    (tmp_path / "bee" / "copy.png").write_bytes((tmp_path / "bee" / "0.png").read_bytes())
    data = load_dataset(tmp_path, classes=7)
    assert (data.class_names, data.named, len(data.y_test)) == (("bee",), True, 0)
    assert notes(capsys) == []
