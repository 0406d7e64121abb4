"""EMNIST's files and Keras's mnist.npz are found by their names."""

import gzip
import struct

import numpy as np
import pytest

from xpnn.training.datasets import DataError, load_dataset

LETTERS = "\n".join(f"{n} {64 + n} {96 + n}" for n in range(1, 27))
BALANCED = "0 48\n1 49\n2 65\n3 97\n"


def idx(values):
    values = np.asarray(values, np.uint8)
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def pictures(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 5))


def write(folder, split, labels, *, mapping=None, test=True, ending=""):
    folder.mkdir(exist_ok=True)
    for part, seed in (("train", 0), ("test", 1)) if test else (("train", 0),):
        # In these files rows and columns are exchanged.
        contents = {"images-idx3": pictures(len(labels), seed).transpose(0, 2, 1), "labels-idx1": labels}
        for what, values in contents.items():
            content = idx(values)
            path = folder / f"emnist-{split}-{part}-{what}-ubyte{ending}"
            path.write_bytes(gzip.compress(content) if ending else content)
    if mapping is not None:
        (folder / f"emnist-{split}-mapping.txt").write_text(mapping)
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("mapping", [LETTERS, None])
def test_letters_are_upright_and_named(tmp_path, mapping, ending):
    labels = np.arange(1, 27)
    data = load_dataset(write(tmp_path / "a", "letters", labels, mapping=mapping, ending=ending))
    assert data.name == "emnist-letters" and data.class_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert np.array_equal(data.x_train[:, 0], pictures(26, 0)) and np.array_equal(data.x_test[:, 0], pictures(26, 1))
    assert np.array_equal(data.y_train, np.arange(26)) and data.scale == 1 / 255
    ((x, _), *_) = data.loader(26, shuffle=False)
    assert np.array_equal(np.round(x * 255)[:, 0], pictures(26, 0))


def test_classes_are_those_of_the_mapping(tmp_path):
    data = load_dataset(write(tmp_path / "a", "balanced", [0, 1, 2, 3] * 3, mapping=BALANCED, test=False))
    assert data.class_names == ("0", "1", "A", "a") and data.whole_is_test
    plain = load_dataset(write(tmp_path / "b", "digits", [0, 1, 2] * 4))
    assert plain.class_names == ("0", "1", "2") and not plain.named


def test_one_of_several_splits_is_named(tmp_path):
    write(write(tmp_path / "gzip", "digits", [0, 1] * 5), "letters", [1, 2] * 5)
    with pytest.raises(
        DataError, match=r"has the files of EMNIST's digits, letters; name one, such as .*emnist-digits"
    ):
        load_dataset(tmp_path / "gzip")
    assert load_dataset(tmp_path / "gzip" / "emnist-letters").class_names[:2] == ("A", "B")
    assert load_dataset(tmp_path / "gzip" / "emnist-digits").classes == 2
    with pytest.raises(DataError, match="no data file"):
        load_dataset(tmp_path / "gzip" / "emnist-balanced")


@pytest.mark.parametrize(
    "mapping, message",
    [
        ("0 48\n", "label 3 is none of"),
        ("", "is no mapping of EMNIST"),
        ("0 48\n0 49", "is no mapping"),
        ("0 48\n1 48", "is no mapping"),
        ("a b", "is no mapping"),
        ("0 99999999999999999999", "is no mapping"),
        ("0", "is no mapping"),
        ("0 27", "is no mapping"),
        ("ä", "is no mapping"),
    ],
)
def test_damaged_mappings_are_refused(tmp_path, mapping, message):
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path / "a", "balanced", [3, 0] * 5, mapping=mapping))


def test_missing_and_damaged_files_are_named(tmp_path):
    folder = write(tmp_path / "a", "letters", [1, 2] * 5)
    (folder / "emnist-letters-test-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"has no emnist-letters-test-labels-idx1-ubyte \(or the same with .gz\)"):
        load_dataset(folder)
    (folder / "emnist-letters-test-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0")
    with pytest.raises(DataError, match="ends within its header"):
        load_dataset(folder)
    write(folder, "letters", [0, 2] * 5)
    with pytest.raises(DataError, match="label 0 is none of 1 to 26"):
        load_dataset(folder)


def test_keras_names_of_mnist(tmp_path):
    x, y = pictures(20, 0).astype(np.uint8), np.arange(20) % 4
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y.astype(np.uint8), x_test=x[:8], y_test=y[:8])
    data = load_dataset(tmp_path / "mnist.npz")
    assert np.array_equal(data.x_train[:, 0], x) and np.array_equal(data.y_test, y[:8]) and not data.whole_is_test
    np.savez(tmp_path / "both.npz", x_train=x, y_train=y, x=x, y=y)
    with pytest.raises(DataError, match="has both x and x_train; keep one"):
        load_dataset(tmp_path / "both.npz")
    np.savez(tmp_path / "half.npz", x_train=x)
    with pytest.raises(DataError, match="has no array y; it holds x_train"):
        load_dataset(tmp_path / "half.npz")
