"""CIFAR in its binary version, written record by record; the pickled version is refused."""

import numpy as np
import pytest

from xpnn.training.datasets import DataError, load_dataset
from xpnn.training.images import Joined

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def record(label, seed):
    return bytes(label) + np.random.default_rng(seed).integers(0, 256, 3072).astype(np.uint8).tobytes()


def image(content):
    return np.frombuffer(content[-3072:], np.uint8).reshape(3, 32, 32)


def cifar10(folder, batches=5, n=3):
    """Records by file."""
    folder.mkdir(exist_ok=True)
    names = [f"data_batch_{k}.bin" for k in range(1, batches + 1)] + ["test_batch.bin"]
    files = {name: [record([(k + i) % 10], 100 * k + i) for i in range(n)] for k, name in enumerate(names)}
    for name, records in files.items():
        (folder / name).write_bytes(b"".join(records))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return files


def test_cifar10_is_read_in_order_of_its_files(tmp_path):
    files = cifar10(tmp_path)
    data = load_dataset(tmp_path)
    *train, test = files.values()
    records = [each for file in train for each in file]
    assert data.y_train.tolist() == [each[0] for each in records]
    assert np.array_equal(data.x_train[:], np.stack([image(each) for each in records]))
    assert np.array_equal(data.x_test, np.stack([image(each) for each in test]))
    assert (data.image, data.class_names, data.scale) == ((3, 32, 32), NAMES, 1 / 255)
    assert not data.whole_is_test


def test_images_of_several_files_are_found_in_any_order(tmp_path):
    files = cifar10(tmp_path)
    records = [each for name in list(files)[:-1] for each in files[name]]
    x = load_dataset(tmp_path).x_train
    places = np.array([14, 0, 3, 2, 7, -1, 7])
    assert np.array_equal(x[places], np.stack([image(records[place]) for place in places]))
    assert np.array_equal(x[2:11:4], np.stack([image(each) for each in records[2:11:4]]))
    assert x.shape == (15, 3, 32, 32) and len(x) == 15 and x.dtype == np.uint8
    for wrong, error in ((np.array([15]), IndexError), (np.array([-16]), IndexError), (3, TypeError)):
        with pytest.raises(error):
            x[wrong]


def test_parts_of_different_lengths_are_joined_in_order():
    whole = np.arange(24).reshape(12, 2)
    parts = Joined([whole[:1], whole[1:8], whole[8:]])
    places = np.array([9, 0, 7, 8, 1, 11])
    assert np.array_equal(parts[places], whole[places])
    assert np.array_equal(parts[:], whole) and parts[3:3].shape == (0, 2)


def test_a_shuffled_pass_has_every_image_with_its_label(tmp_path):
    cifar10(tmp_path)
    data = load_dataset(tmp_path)
    known = {image.tobytes(): label for image, label in zip(data.x_train[:], data.y_train.tolist(), strict=True)}
    seen = [
        (np.rint(x * 255).astype(np.uint8).tobytes(), y)
        for xs, ys in data.loader(4)
        for x, y in zip(xs, ys.tolist(), strict=True)
    ]
    assert len(seen) == 15 and all(known[x] == y for x, y in seen) and {x for x, _ in seen} == {*known}


def test_the_folder_in_the_archive_is_found(tmp_path):
    cifar10(tmp_path / "cifar-10-batches-bin")
    assert len(load_dataset(tmp_path).y_train) == 15
    assert load_dataset(tmp_path).fingerprint == load_dataset(tmp_path / "cifar-10-batches-bin").fingerprint


def test_cifar100_has_its_fine_labels(tmp_path):
    for name, n in (("train.bin", 4), ("test.bin", 2)):
        (tmp_path / name).write_bytes(b"".join(record([i, 90 + i], i) for i in range(n)))
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"kind{k}" for k in range(100)))
    data = load_dataset(tmp_path)
    assert data.y_train.tolist() == [90, 91, 92, 93]
    assert np.array_equal(data.x_train[:][2], image(record([2, 92], 2)))
    assert (data.classes, data.class_names[93]) == (100, "kind93")


def test_without_its_list_of_names_classes_have_numbers(tmp_path):
    cifar10(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert load_dataset(tmp_path).class_names == tuple("0123456789")


def test_a_subset_of_the_training_files_is_loaded_and_reported(tmp_path, capsys):
    cifar10(tmp_path, batches=2)
    assert len(load_dataset(tmp_path).y_train) == 6
    assert "trains without data_batch_3.bin, data_batch_4.bin, data_batch_5.bin" in capsys.readouterr().err


@pytest.mark.parametrize("gone", [["test_batch.bin"], [f"data_batch_{k}.bin" for k in range(1, 6)]])
def test_missing_parts_are_named(tmp_path, gone):
    cifar10(tmp_path)
    for name in gone:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"has no {' and no '.join(gone)}; unpack all of cifar-10-binary"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"\0" * 3074, "3074 bytes, no whole number of records of 3073"),
        (b"\x0a" + b"\0" * 3072, "labels run to 10, out of range for 10"),
    ],
)
def test_damaged_file_is_refused(tmp_path, content, message):
    cifar10(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(tmp_path)
    assert "data_batch_2.bin" in str(caught.value)


def test_another_number_of_names_is_refused(tmp_path):
    cifar10(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("one two")
    with pytest.raises(DataError, match="names 2 classes, CIFAR-10 has 10"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("names", "archive"),
    [
        (["cifar-10-batches-py/data_batch_1"], "cifar-10-binary"),
        (["data_batch_1", "batches.meta"], "cifar-10-binary"),
        (["cifar-100-python/train"], "cifar-100-binary"),
        (["train", "test", "meta"], "cifar-100-binary"),
    ],
)
def test_pickles_are_refused_and_not_opened(tmp_path, names, archive, monkeypatch):
    monkeypatch.setattr("pickle.load", lambda *_: pytest.fail("a pickle was read"))
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=f"pickles.*Get the binary version, {archive}"):
        load_dataset(tmp_path)
