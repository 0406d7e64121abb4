"""Files in MNIST's format, made by hand: the data of good ones and the errors for damaged ones."""

import gzip
import struct

import numpy as np
import pytest

from xpnn.training.datasets import DataError, load_dataset
from xpnn.training.datasets.idx import read_idx

CODES = {"B": 0x08, "b": 0x09, "h": 0x0B, "i": 0x0C, "f": 0x0D, "d": 0x0E}


def packed(values, kind="B"):
    values = np.asarray(values)
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, CODES[kind], values.ndim, *values.shape)
    return header + struct.pack(f">{values.size}{kind}", *values.ravel().tolist())


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4)), np.arange(n) % 3


def write(folder, *, dotted=False, ending="", test=True, **instead):
    pairs = {"train": images(12), "t10k": images(6, 1)}
    for part in ("train", "t10k") if test else ("train",):
        for what, values, rank in zip(("images", "labels"), pairs[part], (3, 1), strict=True):
            name = f"{part}-{what}{'.' if dotted else '-'}idx{rank}-ubyte{ending}"
            content = instead.get(f"{part}_{what}", packed(values))
            (folder / name).write_bytes(gzip.compress(content) if ending else content)
    return folder


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_files_are_read_in_every_spelling(tmp_path, dotted, ending):
    data = load_dataset(write(tmp_path, dotted=dotted, ending=ending))
    for part, (x, y) in zip(("train", "test"), (images(12), images(6, 1)), strict=True):
        assert np.array_equal(getattr(data, f"x_{part}"), x[:, None])
        assert np.array_equal(getattr(data, f"y_{part}"), y)
    assert (data.image, data.classes, data.class_names) == ((1, 5, 4), 3, ("0", "1", "2"))
    assert (data.x_train.dtype, data.scale, data.whole_is_test) == (np.uint8, 1 / 255, False)


def test_plain_and_compressed_files_are_the_same_data(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one, two = load_dataset(write(tmp_path / "a")), load_dataset(write(tmp_path / "b", ending=".gz"))
    assert one.fingerprint == two.fingerprint


def test_plain_files_are_mapped_and_not_copied(tmp_path):
    array = load_dataset(write(tmp_path)).x_train
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)


def test_without_t10k_a_fifth_is_held_out(tmp_path):
    data = load_dataset(write(tmp_path, test=False))
    assert (len(data.y_train), len(data.y_test), data.whole_is_test) == (9, 3, True)


@pytest.mark.parametrize("kind", CODES)
def test_every_type_is_read_high_byte_first(tmp_path, kind):
    values = np.array([[1, 2], [100, 3]]) if kind in "Bb" else np.array([[1, -2], [30000, 3]])
    (tmp_path / "a").write_bytes(packed(values, kind))
    found = read_idx(tmp_path / "a")
    assert found.dtype.kind + str(found.dtype.itemsize) == np.dtype(kind).kind + str(struct.calcsize(">" + kind))
    assert found.tolist() == values.tolist()


def test_floats_are_scaled_by_their_largest(tmp_path):
    x, _ = images(12)
    data = load_dataset(write(tmp_path, test=False, train_images=packed(x * 2.0, "f")))
    (batch, _), *_ = data.loader(9, shuffle=False)
    assert batch.dtype == np.float32 and float(np.max(np.abs(batch))) == pytest.approx(1.0)


GOOD = packed(images(12)[0])
BAD = {
    "no magic": (b"\1" + GOOD[1:], "no IDX file: it begins with 01 00 08 03"),
    "empty": (b"", "begins with nothing"),
    "unknown type": (GOOD[:2] + b"\x0a" + GOOD[3:], "type code 0a; the codes are 08, 09"),
    "no dimensions": (GOOD[:3] + b"\0" + GOOD[4:], "no dimensions"),
    "half a header": (GOOD[:9], "ends within its header"),
    "short": (GOOD[:-1], "12 x 5 x 4 entries of 1 byte.s., 240 bytes, and has 239"),
    "long": (GOOD + b"\0", "240 bytes, and has (241|more)"),
    "labels for images": (packed(images(12)[1]), "images are"),
    "nan": (packed(np.full((12, 5, 4), np.nan), "f"), "NaN"),
    "float labels": ({"train_labels": packed(images(12)[1], "f")}, "labels are integers"),
    "negative labels": ({"train_labels": packed(images(12)[1] - 1, "b")}, "label -1"),
    "few labels": ({"train_labels": packed(images(12)[1][:5])}, "5 labels"),
    "unknown test label": ({"t10k_labels": packed(images(6)[1] + 3)}, "test labels run to 5, out of range"),
    "other test size": ({"t10k_images": packed(images(6)[0][:, 1:])}, "one size"),
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("case", BAD)
def test_damaged_files_are_refused(tmp_path, case, ending):
    given, message = BAD[case]
    given = given if isinstance(given, dict) else {"train_images": given}
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path, ending=ending, **given))


@pytest.mark.parametrize("how", ["text", "cut", "flipped"])
def test_a_damaged_compressed_file_is_refused(tmp_path, how):
    path = write(tmp_path, ending=".gz") / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes({"text": b"hello", "cut": whole[:-20], "flipped": whole[:30] + b"\xff\xff" + whole[32:]}[how])
    with pytest.raises(DataError, match="train-images"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_missing_file_is_named(tmp_path, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(DataError, match=f"has no {name}"):
        load_dataset(tmp_path)
